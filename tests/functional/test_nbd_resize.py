# SPDX-License-Identifier: GPL-2.0-or-later
"""Exports whose node is resized while clients use them."""
import random
import threading

import pytest

import harness
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference never resizes an exported node")

KIB = 1024
MIB = 1 << 20


def use(daemon, name="disk", status=False):
    peer = nbd.RawNbd(daemon.nbd_path)
    if status:
        peer.negotiate_structured()
        peer.set_meta(name, "base:allocation")
    peer.go(name)
    harness.wait_until(lambda: all(c["state"] == "active" for c in
                                   daemon.cmd("query-nbd-clients")), 10,
                       "the end of negotiations")
    return peer


def resize(daemon, size, node="disk"):
    daemon.cmd("block_resize", node_name=node, size=size)


@pytest.fixture
def server(daemon, image):
    """4 MiB of noise, writable."""
    daemon.add_file(image, discard="unmap")
    daemon.start_nbd()
    daemon.add_export(writable=True, allow_resize=True)
    return daemon


def test_larger_node(server, image):
    with use(server) as old:
        resize(server, 6 * MIB)
        with use(server) as new:
            assert (old.size, new.size) == (4 * MIB, 6 * MIB)
            assert new.write(5 * MIB, b"x" * 4096) == 0
            # Nobody has told it, but it may know.
            assert old.read(5 * MIB, 4096) == (0, b"x" * 4096)
            for peer in (old, new):
                assert peer.write(6 * MIB - 512, bytes(1024)) == nbd.ENOSPC
                assert peer.read(6 * MIB, 512)[0] == nbd.EINVAL
    assert image.stat().st_size == 6 * MIB


@pytest.mark.parametrize("status", (False, True), ids=("simple", "chunks"))
def test_smaller_node(server, image, status):
    data = image.read_bytes()
    with use(server, status=status) as old:
        resize(server, MIB)
        for offset, length in ((MIB, 512), (3 * MIB, MIB),
                               (MIB - 512, 64 * KIB)):
            assert old.read(offset, length)[0] == nbd.EINVAL
            assert old.write(offset, bytes(length)) == nbd.ENOSPC
            assert old.request(nbd.CMD_WRITE_ZEROES, offset,
                               length) == nbd.ENOSPC
            assert old.request(nbd.CMD_TRIM, offset, length) == nbd.EINVAL
            assert old.request(nbd.CMD_CACHE, offset, length) == nbd.EINVAL
            if status:
                assert old.status(offset, length)[0] == nbd.EINVAL
        assert old.read(0, MIB) == (0, data[:MIB])
        assert old.write(MIB - 512, b"z" * 512) == 0
        assert old.request(nbd.CMD_FLUSH) == 0
        if status:
            assert sum(n for n, _ in old.status(0, MIB)[1][0]) == MIB
        with use(server) as new:
            assert new.size == MIB
            assert new.read(MIB - 512, 512) == (0, b"z" * 512)
    assert image.stat().st_size == MIB


def test_requests_that_came_before_and_run_after(daemon, image):
    """A throttle holds them while the node gets smaller."""
    daemon.cmd("object-add", qom_type="throttle-group", id="slow",
               limits={"iops-total": 1})
    daemon.add_file(image)
    daemon.start_nbd()
    daemon.add_export(writable=True, allow_resize=True, throttle_group="slow")
    with use(daemon) as peer:
        wanted = {}
        for command, error in ((nbd.CMD_READ, nbd.EINVAL),
                               (nbd.CMD_WRITE, nbd.ENOSPC),
                               (nbd.CMD_WRITE_ZEROES, nbd.ENOSPC),
                               (nbd.CMD_TRIM, nbd.EINVAL)):
            # The first of each pair takes what the throttle has left.
            for _ in range(1 if wanted else 2):
                data = bytes(512) if command == nbd.CMD_WRITE else b""
                wanted[peer.send_request(command, 3 * MIB, 512,
                                         data=data)] = error
        cookies = list(wanted)
        harness.wait_until(lambda: daemon.cmd("query-nbd-clients")[0][
            "in-flight"] >= 4, 10, "requests that wait")
        resize(daemon, MIB)
        errors = {}
        for _ in wanted:
            reply, _ = peer.read_reply(512)
            errors[reply.cookie] = reply.error
        errors.pop(cookies[0])
        wanted.pop(cookies[0])
        assert errors == wanted
        assert peer.read(0, 512)[0] == 0


def test_node_without_data(server):
    with use(server, status=True) as old:
        resize(server, 0)
        assert old.read(0, 512)[0] == nbd.EINVAL
        assert old.write(0, bytes(512)) == nbd.ENOSPC
        assert old.status(0, 512)[0] == nbd.EINVAL
        assert old.request(nbd.CMD_FLUSH) == 0
        with use(server) as new:
            assert new.size == 0
        resize(server, MIB)
        assert old.read(0, 4096) == (0, bytes(4096))


def test_odd_size_is_cut_to_whole_sectors(server):
    with use(server) as old:
        resize(server, MIB + 300)
        with use(server) as new:
            assert new.size % 512 == 0 and new.size >= MIB
            for peer in (old, new):
                assert peer.read(new.size - 512, 512)[0] == 0
                assert peer.read(new.size, 512)[0] == nbd.EINVAL


def test_every_export_of_the_node_has_to_allow_it(server):
    server.add_export("disk", "strict", name="strict")
    error = server.error("block_resize", node_name="disk", size=MIB)
    assert "strict" in error.desc and "resize" in error.desc
    server.cmd("block-export-del", id="strict")
    server.qmp.take_event("BLOCK_EXPORT_DELETED", id="strict")
    resize(server, MIB)


def test_not_together_with_bitmaps(daemon, image):
    daemon.serve_file(image)
    daemon.cmd("block-dirty-bitmap-add", node="disk", name="b0",
               disabled=True)
    error = daemon.error("block-export-add", type="nbd", id="e1",
                         node_name="disk", name="e1", bitmaps=["b0"],
                         allow_resize=True)
    assert "leave allow-resize or bitmaps out" in error.desc
    daemon.cmd("block-dirty-bitmap-remove", node="disk", name="b0")


def test_bitmap_of_the_node_follows(server):
    """One that no client may query."""
    server.cmd("block-dirty-bitmap-add", node="disk", name="b0")
    with use(server) as peer:
        assert peer.write(3 * MIB, bytes(512)) == 0
        resize(server, MIB)
        resize(server, 8 * MIB)
        assert peer.write(7 * MIB, b"x" * 512) == 0
    node, = server.cmd("query-named-block-nodes", flat=True)
    bitmap, = node["dirty-bitmaps"]
    assert bitmap["count"] == bitmap["granularity"]


# Under load.

KEPT = MIB  # what no resize takes away
LARGEST = 4 * MIB
ALLOWED = {nbd.CMD_READ: nbd.EINVAL, nbd.CMD_TRIM: nbd.EINVAL,
           nbd.CMD_WRITE: nbd.ENOSPC, nbd.CMD_WRITE_ZEROES: nbd.ENOSPC,
           nbd.CMD_BLOCK_STATUS: nbd.EINVAL}


class Load(threading.Thread):
    """Requests everywhere, and a part of the node that is its own: there
    everything must succeed."""

    def __init__(self, peer, number, seed):
        super().__init__(daemon=True)
        self.peer, self.number = peer, number
        self.random = random.Random(seed + number)
        self.own = number * 64 * KIB
        self.ending = threading.Event()
        self.errors = self.rounds = 0
        self.failure = None

    def anywhere(self):
        length = self.random.choice((512, 4 * KIB, 40 * KIB, 512 * KIB))
        offset = self.random.randrange(KEPT, LARGEST, 512)
        kind = self.random.choice(list(ALLOWED))
        if kind == nbd.CMD_READ:
            error = self.peer.read(offset, length)[0]
        elif kind == nbd.CMD_WRITE:
            error = self.peer.write(offset, b"w" * length)
        elif kind == nbd.CMD_BLOCK_STATUS:
            error = self.peer.status(offset, length)[0]
        else:
            error = self.peer.request(kind, offset, length)
        assert error in (0, ALLOWED[kind]), (kind, offset, length, error)
        self.errors += error != 0

    def run(self):
        try:
            while not self.ending.is_set():
                self.anywhere()
                mark = self.random.randbytes(4 * KIB)
                offset = self.own + self.random.randrange(0, 60 * KIB, 512)
                assert self.peer.write(offset, mark) == 0
                assert self.peer.read(offset, 4 * KIB) == (0, mark)
                self.rounds += 1
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error


@pytest.mark.parametrize("kind", ("file", "direct", "raw", "tls"))
def test_resizing_under_load(daemons, box, tls_dir, tls_context, kind):
    """On two worker loops, where connections are spread."""
    image = harness.make_image(box / "load.img", LARGEST)
    daemon = daemons()
    daemon.add_file(image, "file", discard="unmap",
                    cache={"direct": kind == "direct"})
    top = "file"
    if kind == "raw":
        daemon.cmd("blockdev-add", driver="raw", node_name="top", file="file")
        top = "top"
    if kind == "tls":
        daemon.add_creds(tls_dir)
    daemon.start_nbd("tls0" if kind == "tls" else None)
    daemon.add_export(top, name="disk", writable=True, allow_resize=True)
    seed = harness.seed()
    loads = []
    for number in range(6):
        peer = nbd.RawNbd(daemon.nbd_path)
        if kind == "tls":
            peer.starttls(tls_context)
        peer.negotiate_structured()
        peer.set_meta("disk", "base:allocation")
        loads.append(Load(peer.go("disk"), number, seed))
    for load in loads:
        load.start()
    sizes = random.Random(seed)
    for _ in range(60):
        resize(daemon, sizes.randrange(KEPT, LARGEST, 4096), top)
    resize(daemon, KEPT, top)
    seen = [load.errors for load in loads]
    harness.wait_until(lambda: all(
        load.failure or load.errors > n for load, n in zip(loads, seen)),
        what="errors behind the end")
    resize(daemon, LARGEST, top)
    for load in loads:
        load.ending.set()
    for load in loads:
        load.join(harness.LIMIT)
        assert load.failure is None and not load.is_alive(), load.failure
        assert load.rounds > 0
        load.peer.disconnect()


def test_resizing_while_clients_come_and_go(server):
    stop = threading.Event()
    failures = []

    def visit():
        try:
            while not stop.is_set():
                with nbd.RawNbd(server.nbd_path) as peer:
                    peer.go("disk")
                    assert MIB <= peer.size <= 2 * MIB
                    assert peer.read(0, 4096)[0] == 0
        except Exception as error:  # pylint: disable=broad-except
            failures.append(error)

    resize(server, MIB)
    visitors = [threading.Thread(target=visit, daemon=True) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    for n in range(60):
        resize(server, MIB + n % 2 * MIB)
    stop.set()
    for visitor in visitors:
        visitor.join(harness.LIMIT)
    assert not failures
