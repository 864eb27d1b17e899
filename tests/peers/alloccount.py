# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts what a daemon allocates and locks for its requests.

AllocCount gives the environment that preloads alloc-count.c of the build
directory, and reads its numbers while the daemon runs. Batches is an NBD client
that keeps as many requests under way as it is told, and looks only at how they
ended.
"""
import collections
import mmap
import pathlib
import struct

import rawnbd

LAYOUT = struct.Struct("=3Q")
BLOCK = 4096
REPLY_BYTES = 16

Counts = collections.namedtuple("Counts", "allocations frees locks")


class AllocCount:
    """The numbers of one program that is started with .environment"""

    def __init__(self, directory, build):
        self.path = pathlib.Path(directory) / "alloc-count"
        self.path.write_bytes(bytes(mmap.PAGESIZE))
        library = pathlib.Path(build) / "tests" / "peers" / "liballoc-count.so"
        assert library.exists(), f"{library} is not built"
        self.environment = {
            "LD_PRELOAD": str(library.resolve()),
            "ALLOC_COUNT_FILE": str(self.path),
            "G_SLICE": "always-malloc"}

    def read(self):
        with open(self.path, "rb") as file:
            return Counts(*LAYOUT.unpack(file.read(LAYOUT.size)))

    def since(self, before):
        return Counts(*(b - a for a, b in zip(before, self.read())))


class Batches:
    """A client with @depth requests of 4 KiB under way."""

    def __init__(self, address, depth, export="disk", context=None):
        self.nbd = rawnbd.RawNbd(address, limit=60)
        if context:
            self.nbd.starttls(context)
        self.nbd.go(export)
        self.depth = depth
        self.blocks = self.nbd.size // BLOCK
        self.next = 0
        self.buffer = bytearray(depth * (REPLY_BYTES + BLOCK))

    def run(self, command, count):
        """@count requests, in batches; their blocks are spread."""
        data = b"x" * BLOCK if command == rawnbd.CMD_WRITE else b""
        reply = REPLY_BYTES + (BLOCK if command == rawnbd.CMD_READ else 0)
        for _ in range(count // self.depth):
            parts = []
            for slot in range(self.depth):
                self.next = (self.next + 7919) % self.blocks
                parts.append(struct.pack(
                    ">IHHQQI", rawnbd.REQUEST_MAGIC, 0, command, slot,
                    self.next * BLOCK, BLOCK) + data)
            self.nbd.send(b"".join(parts))
            self.take_replies(reply)

    def take_replies(self, size):
        view = memoryview(self.buffer)[:size * self.depth]
        done = 0
        while done < len(view):
            got = self.nbd.sock.recv_into(view[done:])
            assert got, "the server closed the connection"
            done += got
        for at in range(0, len(view), size):
            magic, error = struct.unpack_from(">II", view, at)
            assert (magic, error) == (rawnbd.SIMPLE_MAGIC, 0), (magic, error)

    def close(self):
        self.nbd.close()
