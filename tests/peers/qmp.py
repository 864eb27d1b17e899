# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP client on a UNIX socket, for the tests and the scripts.

It reads a stream of JSON values without relying on line ends, keeps events
apart from replies, and gives every wait a limit. It works alike with
blockferryd, qemu-storage-daemon and qemu-system-*.
"""
import json
import re
import socket
import time

DEFAULT_LIMIT = 30.0


class QmpError(Exception):
    """The error reply of a command."""

    def __init__(self, command, error, request_id=None):
        super().__init__(f"{command}: {error['class']}: {error['desc']}")
        self.cls = error["class"]
        self.desc = error["desc"]
        self.id = request_id


class QmpClosed(Exception):
    """The stream ended where a message was expected."""


class JsonStream:
    """Splits bytes into JSON values; knows brackets and strings only."""

    MARK = re.compile(rb'["\\\[\]{}]')

    def __init__(self):
        self.buffer = b""
        self.scanned = 0
        self.depth = 0
        self.in_string = False

    def feed(self, data):
        """Adds bytes; returns the source texts of the values now complete."""
        self.buffer += data
        texts = []
        while True:
            match = self.MARK.search(self.buffer, self.scanned)
            if match is None:
                self.scanned = len(self.buffer)
                return texts
            mark, end = match.group(), match.end()
            if self.in_string and mark == b"\\":
                if end == len(self.buffer):
                    self.scanned = match.start()
                    return texts
                end += 1
            elif mark == b'"':
                self.in_string = not self.in_string
            elif not self.in_string and mark in b"[{":
                self.depth += 1
            elif not self.in_string and mark in b"]}":
                self.depth -= 1
            self.scanned = end
            if self.depth == 0 and not self.in_string and mark in b"]}":
                texts.append(self.buffer[:end])
                self.buffer = self.buffer[end:]
                self.scanned = 0


class QmpClient:
    """One connection to a monitor.

    address: path of a UNIX socket, or a connected socket
    negotiate: False leaves the connection in negotiation mode
    trace: called with each (direction, text), direction "->" or "<-"
    """

    def __init__(self, address, negotiate=True, limit=DEFAULT_LIMIT,
                 capabilities=None, trace=None, greet=True):
        if isinstance(address, socket.socket):
            self.sock = address
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(limit)
            self.sock.connect(str(address))
        self.limit = limit
        self.trace = trace
        self.stream = JsonStream()
        self.messages = []
        self.raw = []  # source text of every message, as it came
        self.events = []
        self.greeting = None
        self.last_id = 0
        if greet:
            self.greeting = self.read_message()
            assert "QMP" in self.greeting, self.greeting
        if greet and negotiate:
            arguments = {"enable": capabilities} if capabilities else {}
            request_id = self.send("qmp_capabilities", arguments)
            message = self.read_message(limit)
            if "QMP" in message:
                # qemu-storage-daemon may greet twice when a client connects
                # while it starts.
                message = self.read_message(limit)
            assert message == {"return": {}, "id": request_id}, message

    # Bytes and messages.

    def send_bytes(self, data, fds=()):
        """Sends as is; fds go with the first byte."""
        self.sock.settimeout(self.limit)
        if fds:
            sent = socket.send_fds(self.sock, [data], list(fds))
            data = data[sent:]
        if data:
            self.sock.sendall(data)

    def read_any(self, limit=None):
        """The next message of any kind.

        Raises TimeoutError after limit seconds, QmpClosed at the end.
        """
        deadline = time.monotonic() + (self.limit if limit is None else limit)
        while not self.messages:
            self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self.sock.recv(1 << 18)
            if not data:
                raise QmpClosed("the monitor closed the connection")
            for text in self.stream.feed(data):
                self.raw.append(text)
                if self.trace:
                    self.trace("<-", text.decode().strip())
                self.messages.append(json.loads(text))
        return self.messages.pop(0)

    def read_message(self, limit=None):
        """The next message that is not an event; events go to .events."""
        deadline = time.monotonic() + (self.limit if limit is None else limit)
        while True:
            message = self.read_any(max(deadline - time.monotonic(), 0.001))
            if "event" not in message:
                return message
            self.events.append(message)

    def at_eof(self, limit=None):
        """Reads until the end of the stream; events are kept."""
        try:
            while True:
                message = self.read_any(limit)
                if "event" in message:
                    self.events.append(message)
        except (QmpClosed, ConnectionResetError):
            return True

    # Commands.

    def send(self, command, arguments=None, fds=(), **extra):
        """Sends a command without waiting; returns its id."""
        self.last_id += 1
        request = {"execute": command, "id": self.last_id, **extra}
        if arguments:
            request["arguments"] = arguments
        text = json.dumps(request)
        if self.trace:
            self.trace("->", text)
        self.send_bytes(text.encode() + b"\n", fds)
        return request["id"]

    def reply(self, request_id, limit=None):
        """The whole reply message to a command that was sent."""
        message = self.read_message(limit)
        assert message.get("id") == request_id, (request_id, message)
        return message

    def execute(self, command, arguments=None, limit=None, fds=()):
        """Runs a command with a dictionary of arguments."""
        message = self.reply(self.send(command, arguments, fds), limit)
        if "error" in message:
            raise QmpError(command, message["error"], message.get("id"))
        return message["return"]

    def cmd(self, command, /, _limit=None, _fds=(), **arguments):
        """Runs a command; an underscore in a name stands for a dash.

        A name that does have an underscore or clashes with Python goes
        through execute().
        """
        return self.execute(
            command, {k.replace("_", "-"): v for k, v in arguments.items()},
            _limit, _fds)

    def raw_reply(self, data, fds=()):
        """Sends bytes and returns the next reply."""
        self.send_bytes(data if isinstance(data, bytes) else data.encode(),
                        fds)
        return self.read_message()

    # Events.

    def take_event(self, name, limit=None, **data):
        """Waits for an event whose data contain the given members."""
        deadline = time.monotonic() + (self.limit if limit is None else limit)

        def fits(event):
            found = event.get("data", {})
            return event["event"] == name and all(
                found.get(k.replace("_", "-")) == v for k, v in data.items())

        while True:
            for index, event in enumerate(self.events):
                if fits(event):
                    return self.events.pop(index)
            message = self.read_any(max(deadline - time.monotonic(), 0.001))
            assert "event" in message, f"reply without command: {message}"
            self.events.append(message)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
