# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection to a monitor: blockferryd's or one of QEMU's programs.

Everything runs in one thread. Messages are read when a command waits for its
reply, and by poll(), which never blocks. Events and replies that nobody waits
for any more go to the callbacks.
"""
import collections
import json
import os
import re
import select
import socket
import ssl
import time

from .errors import Late, Offline, QmpError, ShellError

GREETING_LIMIT = 10.0
MESSAGE_MAX_BYTES = 256 << 20


def default_address():
    """The monitor that blockferryd opens when it is given none."""
    tried = []
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        first = os.environ.get(variable, "").split(":")[0]
        if first:
            tried.append(os.path.join(first, "blockferry", "qmp.sock"))
    tried.append("/run/blockferry/blockferry/qmp.sock")
    for path in tried:
        if os.path.exists(path):
            return path
    raise Offline("no address is given, and the daemon's default monitor is "
                  "not there: " + ", ".join(tried),
                  ["give the path of a UNIX socket, or HOST:PORT"])


def parse_address(text):
    """Returns (family, address) of a path, @name, HOST:PORT or [HOST]:PORT."""
    if text.startswith("unix:"):
        return socket.AF_UNIX, text[5:]
    if text.startswith("@"):
        return socket.AF_UNIX, "\0" + text[1:]
    match = re.fullmatch(r"(?:tcp:)?(?:\[([^\]]*)\]|([^:/]*)):(\w+)", text)
    if match:
        return socket.AF_INET, (match[1] or match[2] or "localhost", match[3])
    return socket.AF_UNIX, text


class Tls:
    """How to speak TLS.

    directory: where ca-cert.pem is, and, to show a certificate of ours,
    client-cert.pem and client-key.pem
    hostname: what the server's certificate must be for, if it is not the host
    """

    def __init__(self, directory, hostname=None):
        self.directory = directory
        self.hostname = hostname

    def wrap(self, sock, host):
        """The TLS session on a connected socket."""
        def path(name):
            return os.path.join(self.directory, name)

        context = ssl.create_default_context(cafile=path("ca-cert.pem"))
        if os.path.exists(path("client-cert.pem")):
            context.load_cert_chain(path("client-cert.pem"),
                                    path("client-key.pem"))
        return context.wrap_socket(
            sock, server_hostname=self.hostname or host)


def reason(error):
    """The text of an OSError, which those of TLS have elsewhere."""
    return getattr(error, "verify_message", None) or \
        getattr(error, "strerror", None) or str(error)


class Splitter:
    """Splits a stream into JSON objects, wherever they begin and end."""

    TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*("?)|[][{}]', re.S)

    def __init__(self):
        self.buffer = bytearray()
        self.position = 0
        self.depth = 0

    def feed(self, data):
        """Adds bytes; returns the values that are complete now."""
        self.buffer += data
        if len(self.buffer) > MESSAGE_MAX_BYTES:
            raise Offline("the daemon sent a message of more than "
                          f"{MESSAGE_MAX_BYTES >> 20} MiB")
        values = []
        while True:
            token = self.TOKEN.search(self.buffer, self.position)
            if not token:
                self.position = len(self.buffer)
                return values
            mark = token[0]
            if mark[:1] == b'"' and not token[1]:
                self.position = token.start()  # the string goes on
                return values
            self.position = token.end()
            if mark in b"[{":
                self.depth += 1
            elif mark in b"]}":
                self.depth -= 1
                if self.depth <= 0:
                    values.append(self._take())

    def _take(self):
        text = bytes(self.buffer[:self.position])
        del self.buffer[:self.position]
        self.position = self.depth = 0
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Offline("the daemon sent what is not JSON") from error
        if not isinstance(value, dict):
            raise Offline("the daemon sent a message that is not an object")
        return value


class Client:
    """A connection that negotiates, runs commands and hands events on.

    on_event(event): called for each event
    on_late(command, message): a reply came that nobody waits for
    trace(direction, text): called for each message if not None
    tls: a Tls, or None to speak in the clear
    """

    def __init__(self, address, on_event=None, on_late=None, trace=None,
                 tls=None):
        self.address = address
        self.tls = tls
        self.on_event = on_event or (lambda event: None)
        self.on_late = on_late or (lambda command, message: None)
        self.trace = trace
        self.sock = None
        self.greeting = {}
        self.number = 0
        self._reset()

    def _reset(self):
        self.splitter = Splitter()
        self.messages = collections.deque()
        self.abandoned = {}     # id -> command, or None to say nothing

    # Connection.

    @property
    def connected(self):
        return self.sock is not None

    def fileno(self):
        return self.sock.fileno()

    def connect(self):
        """Connects and negotiates; raises Offline if that fails."""
        self.close()
        self._reset()
        try:
            self._open()
        except (OSError, ValueError) as error:
            self.close()
            raise Offline(f"cannot connect to {self.address}: "
                          f"{reason(error)}") from error
        try:
            self._negotiate()
        except BaseException:
            self.close()
            raise

    def _open(self):
        family, address = parse_address(self.address)
        host = "localhost"
        if family == socket.AF_UNIX:
            self.sock = socket.socket(family, socket.SOCK_STREAM)
            self.sock.settimeout(GREETING_LIMIT)
            self.sock.connect(address)
        else:
            host = address[0]
            self.sock = socket.create_connection(address, GREETING_LIMIT)
        if self.tls:
            self.sock = self.tls.wrap(self.sock, host)
        self.sock.setblocking(False)

    def _negotiate(self):
        try:
            message = self._read(time.monotonic() + GREETING_LIMIT)
            self._begin(message)
        except Late:
            raise Offline(
                f"{self.address} was silent for {GREETING_LIMIT:g} s",
                ["is another client connected? qemu-storage-daemon serves "
                 "one client at a time"]) from None

    def _begin(self, message):
        if "QMP" not in message:
            error = message.get("error")
            raise Offline(f"{self.address}: {QmpError(error)}"
                          if isinstance(error, dict) else
                          f"{self.address} does not speak QMP")
        self.greeting = message["QMP"]
        self.execute("qmp_capabilities", limit=GREETING_LIMIT)

    def close(self):
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def _lost(self, why):
        self.close()
        raise Offline(f"the connection to {self.address} was lost: {why}",
                      ["'reconnect' connects again"])

    # Messages.

    def _receive(self, deadline):
        """Waits for bytes; returns False if none came before the deadline."""
        if not self.connected:
            raise Offline("not connected", ["'reconnect' connects again"])
        data = None
        while data is None:
            try:
                data = self.sock.recv(1 << 20)
            except (BlockingIOError, ssl.SSLWantReadError):
                wait = None if deadline is None else max(
                    0.0, deadline - time.monotonic())
                if not select.select([self.sock], [], [], wait)[0]:
                    return False
            except OSError as error:
                self._lost(reason(error))
        if not data:
            self._lost("the daemon has closed it")
        try:
            values = self.splitter.feed(data)
        except Offline:
            self.close()
            raise
        for value in values:
            if self.trace:
                self.trace("<-", value)
            self.messages.append(value)
        return True

    def _read(self, deadline):
        while not self.messages:
            if not self._receive(deadline):
                raise Late("no reply came in time")
        return self.messages.popleft()

    def _dispatch(self, message):
        """Hands on a message that is not the reply that is waited for."""
        if "event" in message:
            self.on_event(message)
        elif "QMP" not in message:
            ident = message.get("id")
            command = self.abandoned.pop(ident, None) \
                if isinstance(ident, str) else None
            if command:
                self.on_late(command, message)

    def poll(self, deadline=0.0):
        """Handles what has come, or comes until the deadline.

        deadline: of time.monotonic(); None to wait for the next message
        Returns whether anything came.
        """
        found = bool(self.messages)
        if not found:
            found = self._receive(deadline)
        while self.messages:
            self._dispatch(self.messages.popleft())
        return found

    # Commands.

    def _send(self, request):
        if not self.connected:
            raise Offline("not connected", ["'reconnect' connects again"])
        if self.trace:
            self.trace("->", request)
        data = memoryview(json.dumps(request).encode() + b"\n")
        while data:
            try:
                data = data[self.sock.send(data):]
            except (BlockingIOError, ssl.SSLWantWriteError):
                select.select([], [self.sock], [])
            except OSError as error:
                self._lost(reason(error))

    def run(self, request, limit=None):
        """Sends a request as it is and returns the result.

        When it is interrupted or late, the reply goes to on_late (interrupted)
        or nowhere (late) once it comes.
        """
        self.number += 1
        ident = f"shell-{self.number}"
        name = request.get("execute") or request.get("exec-oob")
        deadline = None if limit is None else time.monotonic() + limit
        try:
            self._send({**request, "id": ident})
            while True:
                message = self._read(deadline)
                if message.get("id") == ident and "event" not in message:
                    break
                # An error without an id: the request itself was refused.
                if "error" in message and "id" not in message:
                    break
                self._dispatch(message)
        except KeyboardInterrupt:
            self.abandoned[ident] = name
            raise
        except Late:
            self.abandoned[ident] = None
            raise
        if isinstance(message.get("error"), dict):
            raise QmpError(message["error"])
        if "return" not in message:
            raise ShellError("the daemon sent a reply with neither a result "
                             "nor an error")
        return message["return"]

    def execute(self, command, arguments=None, limit=None):
        request = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        return self.run(request, limit)

    # What the other side is.

    def version(self):
        """One line about the program on the other side."""
        version = self.greeting.get("version", {})
        number = version.get("qemu", {})
        text = ".".join(str(number.get(k, "?"))
                        for k in ("major", "minor", "micro"))
        package = str(version.get("package", "")).strip()
        if self.is_ours():
            return f"{package} (QMP of QEMU {text})"
        return f"QEMU {text} {package}".strip()

    def is_ours(self):
        version = self.greeting.get("version", {})
        return str(version.get("package", "")).startswith("blockferry")
