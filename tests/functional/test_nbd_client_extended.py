# SPDX-License-Identifier: GPL-2.0-or-later
"""Extended headers of the nbd driver: what long requests become on the wire.

A client with extended headers asks one daemon ("near"), whose node is an export
of another server ("far"), which tells how many requests have come.
"""
import struct

import pytest

import harness
import nbdservers
import rawnbd as nbd
import rawserver

pytestmark = pytest.mark.ours("the reference has no extended headers")

MIB = 1 << 20
GIB = 1 << 30
HOLE = 3


@pytest.fixture
def far(daemons):
    """A daemon that serves a large file of holes, with data here and there."""
    return daemons(name="far")


def serve(far, box, size, places, **tls):
    path = harness.make_image(box / "far.img", size, {
        place: b"d" * 65536 for place in places})
    far.serve_file(path, discard="unmap", **tls)
    return path


def join(daemon, far, **options):
    """The node n0 of the far export."""
    daemon.execute("blockdev-add", {
        "driver": "nbd", "node-name": "n0", "export": "disk",
        "server": {"type": "unix", "path": str(far.nbd_path)},
        "discard": "unmap", **options})


def connect(daemon, node="n0"):
    """A client of an export of the node."""
    daemon.start_nbd()
    daemon.add_export(node, name="through", writable=True)
    client = nbd.RawNbd(daemon.nbd_path)
    client.negotiate_extended()
    client.set_meta("through", "base:allocation")
    return client.go("through")


def counted(far):
    """How many requests of each kind have come so far."""
    export, = far.cmd("query-block-exports")
    return {kind: stats["requests"]
            for kind, stats in export["requests"].items()}


def test_status_of_1_tib_is_one_request(daemon, far, box):
    size = 1024 * GIB
    serve(far, box, size, (0, 700 * GIB, size - 65536))
    join(daemon, far)
    client = connect(daemon)
    assert client.status(0, size) == (0, {0: [
        (65536, 0), (700 * GIB - 65536, HOLE), (65536, 0),
        (324 * GIB - 2 * 65536, HOLE), (65536, 0)]})
    assert client.status(65536, 600 * GIB, nbd.REQ_ONE) == (
        0, {0: [(600 * GIB, HOLE)]})
    assert counted(far) == {"block-status": 2}


def test_100_gib_of_zeroes_are_one_request(daemon, far, box):
    size = 128 * GIB
    serve(far, box, size, (0, 60 * GIB, 100 * GIB))
    join(daemon, far)
    client = connect(daemon)
    assert client.request(nbd.CMD_WRITE_ZEROES, 65536, 100 * GIB - 65536) == 0
    assert client.request(nbd.CMD_FLUSH) == 0
    assert client.status(0, size) == (0, {0: [
        (65536, 0), (100 * GIB - 65536, HOLE), (65536, 0),
        (28 * GIB - 65536, HOLE)]})
    assert client.read(60 * GIB, 4096) == (0, bytes(4096))
    assert client.read(100 * GIB, 4096) == (0, b"d" * 4096)
    seen = counted(far)
    assert seen["write-zeroes"] == 1 and seen["block-status"] == 1


def test_zeroes_of_a_window_onto_the_node(daemon, far, box):
    serve(far, box, 32 * GIB, (8 * GIB,))
    join(daemon, far)
    daemon.execute("blockdev-add", {
        "driver": "raw", "node-name": "r0", "file": "n0",
        "offset": GIB, "size": 16 * GIB, "discard": "unmap"})
    client = connect(daemon, "r0")
    assert client.request(nbd.CMD_WRITE_ZEROES, 0, 16 * GIB) == 0
    assert client.read(7 * GIB, 4096) == (0, bytes(4096))
    assert counted(far)["write-zeroes"] == 1


def test_storage_that_is_not_fast_gets_pieces(daemon, daemons, box):
    """What is refused once because it would not be fast is asked for again."""
    far = daemons("--allow-fault-injection", name="far")
    far.add_file(harness.make_image(box / "far.img", 4 * GIB,
                                    {GIB: b"d" * 65536}), "file")
    far.execute("blockdev-add", {
        "driver": "fault", "node-name": "disk", "image": "file",
        "rules": [{"op": "write-zeroes", "errno": "EOPNOTSUPP", "count": 1}]})
    far.start_nbd()
    far.add_export("disk", writable=True)
    join(daemon, far)
    client = connect(daemon)
    assert client.request(nbd.CMD_WRITE_ZEROES, 0, 4 * GIB) == 0
    assert client.read(GIB, 4096) == (0, bytes(4096))
    assert counted(far)["write-zeroes"] == 1 + 64


def test_everything_works_over_tls(daemon, far, box, tls_dir):
    far.add_creds(tls_dir)
    serve(far, box, 64 * GIB, (0, 32 * GIB), tls="tls0")
    nbdservers.add_client_creds(daemon, tls_dir)
    join(daemon, far, **{"tls-creds": "client0",
                         "tls-hostname": "localhost"})
    client = connect(daemon)
    data = harness.random_bytes(5 * MIB)
    assert client.write(40 * GIB + 7, data) == 0
    assert client.read(40 * GIB + 7, len(data)) == (0, data)
    assert client.request(nbd.CMD_WRITE_ZEROES, 0, 40 * GIB) == 0
    assert client.status(0, 64 * GIB)[1][0][0] == (40 * GIB, HOLE)
    assert client.request(nbd.CMD_TRIM, 0, 64 * GIB) == 0
    assert counted(far)["write-zeroes"] == 1


def test_mirror_asks_and_zeroes_in_few_requests(daemon, far, box):
    """The target has data where the source has holes."""
    size = 24 * GIB
    target = serve(far, box, size, (3 * GIB, 17 * GIB))
    source = harness.make_image(box / "source.img", size, {
        0: b"s" * 65536, 20 * GIB: b"s" * 65536})
    join(daemon, far)
    daemon.add_file(source, "src", discard="unmap")
    daemon.execute("blockdev-mirror", {
        "job-id": "m", "device": "src", "target": "n0", "sync": "full",
        "copy-mode": "write-blocking"})
    daemon.qmp.take_event("BLOCK_JOB_READY", device="m")
    daemon.cmd("job-complete", id="m")
    daemon.qmp.take_event("BLOCK_JOB_COMPLETED", device="m")
    seen = counted(far)
    assert seen["write-zeroes"] <= 24 + 4, seen
    assert seen["block-status"] <= 3, seen
    for place in (0, 3 * GIB, 17 * GIB, 20 * GIB):
        with open(source, "rb") as a, open(target, "rb") as b:
            a.seek(place)
            b.seek(place)
            assert a.read(65536) == b.read(65536)


class Large(rawserver.RawServer):
    """Says that it has 128 GiB, and keeps none of them. It ends connections
    with requests that are longer than what it accepts."""

    SIZE = 128 * GIB
    accepts = 1 << 40

    def answer_go(self, conn):
        self.reply(conn, nbd.OPT_GO, nbd.REP_INFO, struct.pack(
            ">HQH", nbd.INFO_EXPORT, self.SIZE, self.flags))
        self.reply(conn, nbd.OPT_GO, nbd.REP_ACK)
        return False

    def answer(self, conn, command, cookie, offset, length, data):
        if length > self.accepts:
            self.extended = False
            raise rawserver.Gone
        if command == nbd.CMD_BLOCK_STATUS:
            self.chunk(conn, cookie, nbd.CHUNK_STATUS,
                       struct.pack(">III", 3, length, 3))
        else:
            self.simple(conn, cookie)


@pytest.fixture
def large(box):
    server = Large(box / "large.sock", bytearray())
    yield server
    server.stop()


def test_long_request_survives_the_loss_of_extended_headers(daemon, large):
    """The server is restarted as an older version while a request that this
    one cannot understand is under way."""
    large.extended = True
    large.accepts = 2 * GIB
    daemon.execute("blockdev-add", large.options(**{"reconnect-delay": 60}))
    client = connect(daemon)
    assert client.request(nbd.CMD_WRITE_ZEROES, 512, 100 * GIB) == 0
    first, *others = [(offset, length) for command, _, offset, length
                      in large.requests if command == nbd.CMD_WRITE_ZEROES]
    assert first == (512, 100 * GIB)
    place = 512
    for offset, length in others:
        assert offset == place and length <= GIB
        place += length
    assert place == 512 + 100 * GIB
    assert client.status(0, 128 * GIB) == (0, {0: [(GIB, HOLE)]})


def test_older_server_gets_short_requests(daemon, large):
    large.accepts = GIB
    daemon.execute("blockdev-add", large.options())
    client = connect(daemon)
    assert client.request(nbd.CMD_WRITE_ZEROES, 0, 3 * GIB) == 0
    assert client.request(nbd.CMD_TRIM, 0, 3 * GIB) == 0
    assert client.status(0, 128 * GIB) == (0, {0: [(GIB, HOLE)]})
    assert large.accepted == 1
