# SPDX-License-Identifier: GPL-2.0-or-later
"""A server that is slow, on a connection that our client gives up.

It goes on with what it can still read there while newer data have come on the
next connection, or from another client to which the disk was handed over. What
waited in the sender's system must not be among it.
"""
import socket
import threading

import pytest

import harness
import rawnbd as nbd
import rawserver

pytestmark = pytest.mark.ours("the reference sends what it has given up")

SIZE = 4 << 20
PIECE = 256 << 10
# What the server's system takes on its own: much less than one write.
RECEIVE = 16 << 10


class Slow(rawserver.RawServer):
    """Reads no data of the first write, on that connection, until it may.

    late: writes that it could read as a whole after that
    """

    def __init__(self, data):
        self.port = None
        self.may_read = threading.Event()
        self.stuck = threading.Event()
        self.done = threading.Event()
        self.first = None
        self.late = 0
        super().__init__("", data)

    def listen(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept_loop, args=(self.listener,),
                         daemon=True).start()

    def options(self, **more):
        return {"driver": "nbd", "node-name": "far", "export": "disk",
                "server": {"type": "inet", "host": "127.0.0.1",
                           "port": str(self.port)}, **more}

    def serve(self, conn):
        super().serve(conn)
        if conn is self.first:
            self.done.set()

    def recv(self, conn, count):
        if count >= PIECE and self.first is None:
            self.first = conn
            self.stuck.set()
            assert self.may_read.wait(20)
        return super().recv(conn, count)

    def answer(self, conn, command, cookie, offset, length, data):
        if conn is self.first and command == nbd.CMD_WRITE:
            self.late += 1
        super().answer(conn, command, cookie, offset, length, data)

    def read_the_rest(self):
        self.may_read.set()
        assert self.done.wait(20)


@pytest.fixture
def server():
    found = Slow(bytearray(SIZE))
    yield found
    found.may_read.set()
    found.stop()


def begin_to_write(client, data):
    """Several writes, which fill what the sender's system keeps."""
    for offset in range(0, SIZE, PIECE):
        client.send_request(nbd.CMD_WRITE, offset, PIECE, 0, data * PIECE)


def test_silent_connection_writes_nothing_more(daemon, server):
    daemon.execute("blockdev-add", server.options(
        **{"reconnect-delay": 60, "silence-timeout": 1}))
    daemon.start_nbd()
    daemon.add_export("far", writable=True)
    with nbd.RawNbd(daemon.nbd_path).go("far") as client:
        begin_to_write(client, b"o")
        for _ in range(SIZE // PIECE):
            assert client.read_reply()[0].error == 0
        assert server.data == b"o" * SIZE
        assert client.write(0, b"n" * SIZE) == 0
        server.read_the_rest()
    assert server.late == 0
    assert server.data == b"n" * SIZE


def start_copy(daemon, box, server):
    source = harness.make_image(box / "source.img", SIZE, {
        0: harness.random_bytes(SIZE)})
    daemon.execute("blockdev-add", server.options())
    daemon.add_file(source, "src")
    daemon.cmd("blockdev-mirror", job_id="j", device="src", target="far",
               sync="full")
    assert server.stuck.wait(20)


def hand_over(server):
    """Somebody else writes to the server's disk from now on."""
    server.data[:] = b"n" * SIZE
    server.read_the_rest()
    assert server.late == 0
    assert server.data == b"n" * SIZE


def test_cancelled_copy_writes_nothing_more(daemon, box, server):
    start_copy(daemon, box, server)
    daemon.cmd("block-job-cancel", device="j", force=True)
    daemon.qmp.take_event("BLOCK_JOB_CANCELLED", device="j")
    hand_over(server)


def test_removed_node_writes_nothing_more(daemon, box, server):
    start_copy(daemon, box, server)
    daemon.cmd("block-job-cancel", device="j", force=True)
    daemon.qmp.take_event("BLOCK_JOB_CANCELLED", device="j")
    daemon.cmd("blockdev-del", node_name="far")
    hand_over(server)


def test_killed_daemon_writes_nothing_more(daemon, box, server):
    start_copy(daemon, box, server)
    daemon.kill()
    hand_over(server)


def test_orderly_end_says_so(daemon, server):
    """Nothing of it is dropped: the server reads the good-bye."""
    server.first = "nobody"
    daemon.execute("blockdev-add", server.options())
    daemon.start_nbd()
    daemon.add_export("far", writable=True)
    with nbd.RawNbd(daemon.nbd_path).go("far") as client:
        assert client.write(0, b"o" * SIZE) == 0
    daemon.cmd("block-export-del", id="exp-far", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-far")
    daemon.cmd("blockdev-del", node_name="far")
    server.wait_for(lambda: server.requests[-1][0] == nbd.CMD_DISC)
    assert server.data == b"o" * SIZE
