# SPDX-License-Identifier: GPL-2.0-or-later
"""An NBD client that sends exactly the bytes a test asks for.

It speaks the protocol step by step and never corrects its caller, so that
tests can be hostile. Numbers and layouts are those of the NBD protocol
document (doc/proto.md).
"""
import collections
import socket
import ssl
import struct

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF
EXTENDED_REQUEST_MAGIC = 0x21E41C71
EXTENDED_CHUNK_MAGIC = 0x6E8A278C

FIXED_NEWSTYLE, NO_ZEROES = 1, 2

(OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_PEEK, OPT_STARTTLS, OPT_INFO,
 OPT_GO, OPT_STRUCTURED, OPT_LIST_META, OPT_SET_META, OPT_EXT) = range(1, 12)

REP_ACK, REP_SERVER, REP_INFO, REP_META = 1, 2, 3, 4
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_PLATFORM, ERR_TLS_REQD, ERR_UNKNOWN, \
    ERR_SHUTDOWN, ERR_BLOCK_SIZE_REQD, ERR_TOO_BIG, ERR_EXT_HEADER_REQD = \
    range(0x80000001, 0x8000000B)

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

(CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE,
 CMD_WRITE_ZEROES, CMD_BLOCK_STATUS) = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = 1, 2, 4, 8, 16, 32

CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_STATUS_EXT = \
    0, 1, 2, 5, 6
CHUNK_ERROR, CHUNK_ERROR_OFFSET = 0x8001, 0x8002
DONE = 1

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = \
    1, 5, 12, 22, 28, 75, 95, 108

FLAG_READ_ONLY, FLAG_FLUSH, FLAG_FUA, FLAG_ROTATIONAL, FLAG_TRIM, \
    FLAG_ZEROES, FLAG_DF, FLAG_MULTI, FLAG_RESIZE, FLAG_CACHE, \
    FLAG_FAST_ZERO, FLAG_STATUS_PAYLOAD = (1 << bit for bit in range(1, 13))

OptionReply = collections.namedtuple("OptionReply", "option type data")
Simple = collections.namedtuple("Simple", "error cookie")
Chunk = collections.namedtuple("Chunk", "flags type cookie data")


class Closed(Exception):
    """The server closed the connection."""


def string(text):
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(data)) + data


def go_data(name, infos=()):
    return string(name) + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def meta_data(name, queries, count=None):
    count = len(queries) if count is None else count
    return string(name) + struct.pack(">I", count) + b"".join(
        string(query) for query in queries)


class RawNbd:
    """One connection.

    address: path of a UNIX socket, or (host, port), or a connected socket
    handshake: False stops before the client flags
    """

    extended = False  # headers

    def __init__(self, address, handshake=True, flags=3, limit=15.0):
        if isinstance(address, socket.socket):
            self.sock = address
        elif isinstance(address, tuple):
            self.sock = socket.create_connection(address, limit)
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(limit)
            self.sock.connect(str(address))
        self.sock.settimeout(limit)
        self.structured = False
        self.cookie = 0x1000
        self.size = None
        self.flags = None
        self.infos = {}
        if handshake:
            self.read_greeting()
            self.send(struct.pack(">I", flags))

    # Bytes.

    def send(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def recv(self, count):
        """Exactly count bytes; Closed if the stream ends before."""
        data = bytearray()
        while len(data) < count:
            try:
                got = self.sock.recv(min(count - len(data), 1 << 20))
            except (ConnectionResetError, BrokenPipeError,
                    ssl.SSLError) as error:
                raise Closed from error
            if not got:
                raise Closed(f"after {len(data)} of {count} bytes")
            data += got
        return bytes(data)

    def assert_closed(self):
        """The server closes without sending anything more."""
        try:
            data = self.sock.recv(4096)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            return
        assert data == b"", f"expected the end, got {data!r}"

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Handshake.

    def read_greeting(self):
        magic, option_magic, self.handshake_flags = struct.unpack(
            ">QQH", self.recv(18))
        assert magic == NBDMAGIC and option_magic == IHAVEOPT
        return self.handshake_flags

    def send_option(self, option, data=b"", length=None, magic=IHAVEOPT):
        length = len(data) if length is None else length
        self.send(struct.pack(">QII", magic, option, length) + data)

    def read_option_reply(self):
        magic, option, kind, length = struct.unpack(">QIII", self.recv(20))
        assert magic == REPLY_MAGIC, hex(magic)
        return OptionReply(option, kind, self.recv(length))

    def option(self, option, data=b"", length=None):
        """Sends an option; returns all its replies, the final one last."""
        self.send_option(option, data, length)
        return self.read_option_replies(option)

    def read_option_replies(self, option):
        replies = []
        while True:
            reply = self.read_option_reply()
            assert reply.option == option, reply
            replies.append(reply)
            if reply.type == REP_ACK or reply.type & 0x80000000:
                return replies

    def option_type(self, option, data=b"", length=None):
        """The type of the final reply."""
        return self.option(option, data, length)[-1].type

    def starttls(self, context, hostname="localhost"):
        """Upgrades to TLS with an ssl.SSLContext."""
        assert self.option_type(OPT_STARTTLS) == REP_ACK
        self.sock = context.wrap_socket(self.sock, server_hostname=hostname)

    def negotiate_structured(self):
        assert self.option_type(OPT_STRUCTURED) == REP_ACK
        self.structured = True

    def negotiate_extended(self):
        """Headers with 64 bits of length; includes structured replies."""
        assert self.option_type(OPT_EXT) == REP_ACK
        self.structured = self.extended = True

    def set_meta(self, name, *queries):
        """SET_META_CONTEXT; returns {context name: id}."""
        replies = self.option(OPT_SET_META, meta_data(name, queries))
        assert replies[-1].type == REP_ACK, replies
        return {r.data[4:].decode(): struct.unpack(">I", r.data[:4])[0]
                for r in replies[:-1]}

    def list_meta(self, name, *queries):
        replies = self.option(OPT_LIST_META, meta_data(name, queries))
        assert replies[-1].type == REP_ACK, replies
        return [r.data[4:].decode() for r in replies[:-1]]

    def list_exports(self):
        """LIST; returns [(name, description)]."""
        self.send_option(OPT_LIST)
        return self.read_list()

    def read_list(self):
        """What list_exports() returns, of a LIST that was sent."""
        replies = self.read_option_replies(OPT_LIST)
        assert replies[-1].type == REP_ACK, replies
        result = []
        for reply in replies[:-1]:
            assert reply.type == REP_SERVER
            length = struct.unpack(">I", reply.data[:4])[0]
            result.append((reply.data[4:4 + length].decode(),
                           reply.data[4 + length:].decode()))
        return result

    def keep_infos(self, replies):
        self.infos = {}
        for reply in replies[:-1]:
            assert reply.type == REP_INFO, reply
            kind = struct.unpack(">H", reply.data[:2])[0]
            self.infos[kind] = reply.data[2:]
        if INFO_EXPORT in self.infos:
            self.size, self.flags = struct.unpack(
                ">QH", self.infos[INFO_EXPORT])

    def info(self, name="", *infos):
        """INFO; returns the final reply's type and keeps the infos."""
        replies = self.option(OPT_INFO, go_data(name, infos))
        self.keep_infos(replies)
        return replies[-1].type

    def go(self, name="", *infos):
        """GO; must succeed."""
        replies = self.option(OPT_GO, go_data(name, infos))
        assert replies[-1].type == REP_ACK, replies
        self.keep_infos(replies)
        return self

    def export_name(self, name="", zeroes=0):
        self.send_option(OPT_EXPORT_NAME, name.encode())
        self.size, self.flags = struct.unpack(">QH", self.recv(10))
        assert self.recv(zeroes) == bytes(zeroes)
        return self

    # Transmission.

    def request_bytes(self, command, offset=0, length=0, flags=0, data=b"",
                      cookie=None, magic=None):
        if cookie is None:
            self.cookie += 1
            cookie = self.cookie
        self.cookie = cookie
        if self.extended:
            return struct.pack(">IHHQQQ", magic or EXTENDED_REQUEST_MAGIC,
                               flags, command, cookie, offset, length) + data
        return struct.pack(">IHHQQI", magic or REQUEST_MAGIC, flags, command,
                           cookie, offset, length) + data

    def send_request(self, command, offset=0, length=0, flags=0, data=b"",
                     **extra):
        """Sends a request; returns its cookie."""
        self.send(self.request_bytes(command, offset, length, flags, data,
                                     **extra))
        return self.cookie

    def read_reply(self, length=0):
        """One simple reply (with length bytes if no error) or one chunk.

        Returns (Simple, data) or Chunk.
        """
        magic = struct.unpack(">I", self.recv(4))[0]
        if self.extended:
            assert magic == EXTENDED_CHUNK_MAGIC, hex(magic)
            flags, kind, cookie, self.reply_offset, size = struct.unpack(
                ">HHQQQ", self.recv(28))
            return Chunk(flags, kind, cookie, self.recv(size))
        if magic == SIMPLE_MAGIC:
            error, cookie = struct.unpack(">IQ", self.recv(12))
            data = self.recv(length) if not error else b""
            return Simple(error, cookie), data
        assert magic == CHUNK_MAGIC, hex(magic)
        flags, kind, cookie, size = struct.unpack(">HHQI", self.recv(16))
        return Chunk(flags, kind, cookie, self.recv(size))

    def chunks(self, cookie):
        """All chunks of a structured reply to one request."""
        result = []
        while True:
            chunk = self.read_reply()
            assert isinstance(chunk, Chunk), chunk
            assert chunk.cookie == cookie, chunk
            result.append(chunk)
            if chunk.flags & DONE:
                return result

    def request(self, command, offset=0, length=0, flags=0, data=b""):
        """A request without reply data; returns the error, 0 if none."""
        cookie = self.send_request(command, offset, length, flags, data)
        reply = self.read_reply()
        if isinstance(reply, Chunk):
            assert reply.cookie == cookie and reply.flags & DONE, reply
            if reply.type == CHUNK_NONE:
                return 0
            assert reply.type in (CHUNK_ERROR, CHUNK_ERROR_OFFSET), reply
            return struct.unpack(">I", reply.data[:4])[0]
        assert reply[0].cookie == cookie
        return reply[0].error

    def write(self, offset, data, flags=0):
        if self.extended:
            flags |= PAYLOAD_LEN
        return self.request(CMD_WRITE, offset, len(data), flags, data)

    def read(self, offset, length, flags=0):
        """Reads; returns (error, data). Checks the form of chunks."""
        cookie = self.send_request(CMD_READ, offset, length, flags)
        if not self.structured:
            reply, data = self.read_reply(length)
            assert reply.cookie == cookie
            return reply.error, data
        return self.join_chunks(self.chunks(cookie), offset, length)

    @staticmethod
    def join_chunks(chunks, offset, length):
        data, seen, error = bytearray(length), [], 0
        for chunk in chunks:
            if chunk.type in (CHUNK_ERROR, CHUNK_ERROR_OFFSET):
                error = struct.unpack(">I", chunk.data[:4])[0]
                assert error != 0
                continue
            if chunk.type == CHUNK_NONE:
                assert chunk.flags & DONE and not chunk.data
                continue
            start = struct.unpack(">Q", chunk.data[:8])[0] - offset
            if chunk.type == CHUNK_HOLE:
                size = struct.unpack(">I", chunk.data[8:])[0]
            else:
                assert chunk.type == CHUNK_DATA, chunk.type
                size = len(chunk.data) - 8
                data[start:start + size] = chunk.data[8:]
            assert size > 0 and start >= 0 and start + size <= length
            seen.append((start, start + size))
        if error:
            return error, b""
        position = 0
        for first, last in sorted(seen):
            assert first == position, f"gap or overlap at {position}: {seen}"
            position = last
        assert position == length, f"{position} of {length} bytes"
        return 0, bytes(data)

    def status(self, offset, length, flags=0, ids=None):
        """BLOCK_STATUS; returns (error, {context id: [(length, flags)]}).

        ids: with extended headers, the contexts that are asked for
        """
        data = b""
        if ids is not None:
            data = struct.pack(f">Q{len(ids)}I", length, *ids)
            flags, length = flags | PAYLOAD_LEN, len(data)
        cookie = self.send_request(CMD_BLOCK_STATUS, offset, length, flags,
                                   data)
        reply = self.read_reply()
        if not isinstance(reply, Chunk):
            return reply[0].error, {}
        chunks = [reply]
        while not chunks[-1].flags & DONE:
            chunks.append(self.read_reply())
        result = {}
        for chunk in chunks:
            assert chunk.cookie == cookie
            if chunk.type in (CHUNK_ERROR, CHUNK_ERROR_OFFSET):
                return struct.unpack(">I", chunk.data[:4])[0], {}
            number = struct.unpack(">I", chunk.data[:4])[0]
            assert number not in result
            if self.extended:
                assert chunk.type == CHUNK_STATUS_EXT, chunk
                result[number] = list(struct.iter_unpack(">QQ",
                                                         chunk.data[8:]))
                assert struct.unpack(">I", chunk.data[4:8])[0] == \
                    len(result[number])
                continue
            assert chunk.type == CHUNK_STATUS, chunk
            result[number] = list(struct.iter_unpack(">II", chunk.data[4:]))
        return 0, result

    def disconnect(self):
        self.send_request(CMD_DISC)
        self.assert_closed()
        self.close()
