# SPDX-License-Identifier: GPL-2.0-or-later
"""An NBD server that misbehaves as a test asks.

It serves a byte array from memory, correctly, except where its methods are
overridden: each is one step of the protocol, gets the connection, and sends
what it likes. Numbers are those of rawnbd.py.
"""
import os
import socket
import struct
import threading

import rawnbd as nbd

ALL_FLAGS = 1 | nbd.FLAG_FLUSH | nbd.FLAG_FUA | nbd.FLAG_TRIM | \
    nbd.FLAG_ZEROES | nbd.FLAG_CACHE | nbd.FLAG_FAST_ZERO


class Gone(Exception):
    """The client has left, or the step wants to end the connection."""


class RawServer:
    """A server on a UNIX socket; each connection has a thread.

    data: what is served (a bytearray)
    flags: transmission flags
    structured: it knows structured replies
    extended: it knows extended headers, too
    """

    flags = ALL_FLAGS
    structured = True
    extended = False

    def __init__(self, path, data):
        self.path, self.data = str(path), data
        self.accepted = 0
        self.requests = []
        self.connections = []
        self.thread = threading.local()
        self.changed = threading.Condition()
        self.listener = None
        self.listen()

    def listen(self):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(64)
        threading.Thread(target=self.accept_loop, args=(self.listener,),
                         daemon=True).start()

    def options(self, **more):
        """What blockdev-add needs."""
        return {"driver": "nbd", "node-name": "n0", "export": "disk",
                "server": {"type": "unix", "path": self.path}, **more}

    def stop(self):
        """Ends all connections and refuses new ones."""
        # close() alone does not wake a thread in accept().
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.drop()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def drop(self):
        with self.changed:
            connections, self.connections = self.connections, []
        for conn in connections:
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def wait_for(self, condition, limit=20):
        """Waits until condition() holds; it may look at all fields."""
        with self.changed:
            assert self.changed.wait_for(condition, limit)

    # Steps.

    def accept_loop(self, listener):
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            with self.changed:
                self.accepted += 1
                self.connections.append(conn)
                self.changed.notify_all()
            threading.Thread(target=self.serve, args=(conn,),
                             daemon=True).start()

    def serve(self, conn):
        # With extended headers: the offset of the request that is answered.
        self.thread.offset = None
        try:
            self.greet(conn)
            while self.answer_option(conn):
                pass
            while self.answer_request(conn):
                pass
        except (Gone, OSError):
            pass
        try:
            conn.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        conn.close()

    @staticmethod
    def recv(conn, count):
        data = b""
        while len(data) < count:
            got = conn.recv(count - len(data))
            if not got:
                raise Gone
            data += got
        return data

    def greet(self, conn):
        conn.sendall(struct.pack(">QQH", nbd.NBDMAGIC, nbd.IHAVEOPT, 3))
        self.recv(conn, 4)

    def reply(self, conn, option, kind, data=b""):
        conn.sendall(struct.pack(">QIII", nbd.REPLY_MAGIC, option, kind,
                                 len(data)) + data)

    def answer_option(self, conn):
        """Returns False when the options are over."""
        _, option, length = struct.unpack(">QII", self.recv(conn, 16))
        data = self.recv(conn, length)
        if option == nbd.OPT_GO:
            return self.answer_go(conn)
        if option == nbd.OPT_ABORT:
            raise Gone
        if option == nbd.OPT_STRUCTURED and self.structured or \
                option == nbd.OPT_EXT and self.extended:
            self.reply(conn, option, nbd.REP_ACK)
        elif option == nbd.OPT_SET_META and self.structured:
            assert b"base:allocation" in data
            self.reply(conn, option, nbd.REP_META,
                       struct.pack(">I", 3) + b"base:allocation")
            self.reply(conn, option, nbd.REP_ACK)
        else:
            self.reply(conn, option, nbd.ERR_UNSUP)
        return True

    def answer_go(self, conn):
        self.reply(conn, nbd.OPT_GO, nbd.REP_INFO, struct.pack(
            ">HQH", nbd.INFO_EXPORT, len(self.data), self.flags))
        self.reply(conn, nbd.OPT_GO, nbd.REP_ACK)
        return False

    def answer_request(self, conn):
        """Returns False when the client has taken leave."""
        head = self.recv(conn, 28)
        magic, flags, command, cookie, offset, length = struct.unpack(
            ">IHHQQI", head)
        if magic == nbd.EXTENDED_REQUEST_MAGIC:
            length, = struct.unpack(">Q", head[24:] + self.recv(conn, 4))
            self.thread.offset = offset
        data = self.recv(conn, length) if command == nbd.CMD_WRITE else b""
        with self.changed:
            self.requests.append((command, flags, offset, length))
            self.changed.notify_all()
        if command == nbd.CMD_DISC:
            return False
        self.answer(conn, command, cookie, offset, length, data)
        return True

    def answer(self, conn, command, cookie, offset, length, data):
        if command == nbd.CMD_WRITE:
            self.data[offset:offset + length] = data
        elif command == nbd.CMD_WRITE_ZEROES:
            self.data[offset:offset + length] = bytes(length)
        if command == nbd.CMD_READ:
            self.chunk(conn, cookie, nbd.CHUNK_DATA, struct.pack(
                ">Q", offset) + self.data[offset:offset + length])
        elif command == nbd.CMD_BLOCK_STATUS:
            self.chunk(conn, cookie, nbd.CHUNK_STATUS,
                       struct.pack(">III", 3, length, 0))
        else:
            self.simple(conn, cookie)

    def chunk(self, conn, cookie, kind, data, flags=nbd.DONE):
        if self.thread.offset is not None:
            conn.sendall(struct.pack(
                ">IHHQQQ", nbd.EXTENDED_CHUNK_MAGIC, flags, kind, cookie,
                self.thread.offset, len(data)) + bytes(data))
            return
        conn.sendall(struct.pack(">IHHQI", nbd.CHUNK_MAGIC, flags, kind,
                                 cookie, len(data)) + bytes(data))

    def simple(self, conn, cookie, error=0):
        if self.thread.offset is not None:
            kind = nbd.CHUNK_ERROR if error else nbd.CHUNK_NONE
            self.chunk(conn, cookie, kind,
                       struct.pack(">IH", error, 0) if error else b"")
            return
        conn.sendall(struct.pack(">IIQ", nbd.SIMPLE_MAGIC, error, cookie))
