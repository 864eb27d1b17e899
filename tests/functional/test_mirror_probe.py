# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirrors to an NBD server that is slow to say what its disk has.

Data is written before the answer is there; zeroes are made only if they have
to be.
"""
import struct

import pytest

import harness
import rawnbd as nbd
import rawserver

SIZE = 16 << 20
PIECE = 64 << 10
# Data, a hole, data, zeroes that are data, a hole.
PLACES = {0: harness.random_bytes(1 << 20),
          3 << 20: harness.random_bytes((2 << 20) + 4096, seed=2),
          9 << 20: bytes(1 << 20)}


class Slow(rawserver.RawServer):
    """Answers the first question about its disk once it was given data, with
    what the disk has then.

    holds: it does not answer it before it is told to
    """

    def __init__(self, path, data):
        self.question = None
        self.asked = False
        self.holds = False
        super().__init__(path, data)

    def extents(self, offset, length):
        found = []
        for pos in range(offset, offset + length, PIECE):
            flags = 0 if any(self.data[pos:pos + PIECE]) else 3
            if found and found[-1][1] == flags:
                found[-1][0] += PIECE
            else:
                found.append([PIECE, flags])
        return found

    def tell(self, conn, cookie, offset, length):
        self.chunk(conn, cookie, nbd.CHUNK_STATUS, struct.pack(">I", 3) +
                   b"".join(struct.pack(">II", *extent)
                            for extent in self.extents(offset, length)))

    def answer(self, conn, command, cookie, offset, length, data):
        if command == nbd.CMD_BLOCK_STATUS and self.asked:
            self.tell(conn, cookie, offset, length)
        elif command == nbd.CMD_BLOCK_STATUS:
            self.asked = True
            self.question = (conn, cookie, offset, length)
        else:
            super().answer(conn, command, cookie, offset, length, data)
        if command == nbd.CMD_WRITE and self.question and not self.holds:
            question, self.question = self.question, None
            self.tell(*question)

    def count(self, command):
        return sum(request[0] == command for request in self.requests)


@pytest.fixture
def server(box):
    found = Slow(box / "far.sock", bytearray(SIZE))
    yield found
    found.stop()


def begin(daemon, box, server, places=None):
    source = harness.make_image(box / "source.img", SIZE, places or PLACES)
    daemon.add_file(source, "src")
    daemon.execute("blockdev-add", server.options())
    daemon.execute("blockdev-mirror", {
        "job-id": "m", "device": "src", "target": "n0", "sync": "full"})
    return source


@pytest.mark.ours("the reference asks first, or writes the zeroes")
def test_data_goes_ahead_and_zeroes_are_not_written(daemon, box, server):
    source = begin(daemon, box, server)
    daemon.qmp.take_event("BLOCK_JOB_READY", device="m")
    assert server.count(nbd.CMD_WRITE_ZEROES) == 0
    assert server.data == source.read_bytes()


@pytest.mark.ours("the reference asks first, or writes the zeroes")
@pytest.mark.parametrize("place", [2 << 20, 9 << 20, SIZE - PIECE])
def test_old_data_in_the_target_are_zeroed(daemon, box, server, place):
    server.data[place:place + PIECE] = b"o" * PIECE
    source = begin(daemon, box, server)
    daemon.qmp.take_event("BLOCK_JOB_READY", device="m")
    assert server.count(nbd.CMD_WRITE_ZEROES) > 0
    assert server.data == source.read_bytes()


@pytest.mark.ours("the reference asks first, or writes the zeroes")
@pytest.mark.parametrize("places", [PLACES, {SIZE - PIECE: b"d" * PIECE}])
def test_cancel_does_not_wait_for_the_answer(daemon, box, server, places):
    server.holds = True
    begin(daemon, box, server, places)
    server.wait_for(lambda: server.count(nbd.CMD_WRITE) and server.question)
    daemon.cmd("block-job-cancel", device="m", force=True)
    daemon.qmp.take_event("BLOCK_JOB_CANCELLED", device="m")
    assert server.count(nbd.CMD_WRITE_ZEROES) == 0


@pytest.mark.ours("the reference asks first, or writes the zeroes")
def test_lost_answer_means_that_zeroes_are_written(daemon, box, server):
    server.holds = True
    source = begin(daemon, box, server)
    server.wait_for(lambda: server.count(nbd.CMD_WRITE) and server.question)
    conn, cookie, *_ = server.question
    server.thread.offset = None
    server.chunk(conn, cookie, nbd.CHUNK_ERROR, struct.pack(">IH", 5, 0))
    daemon.qmp.take_event("BLOCK_JOB_READY", device="m")
    assert server.count(nbd.CMD_WRITE_ZEROES) > 0
    assert server.data == source.read_bytes()
