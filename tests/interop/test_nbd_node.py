# SPDX-License-Identifier: GPL-2.0-or-later
"""The nbd driver against real servers, with real clients on top of it.

A client reaches the server's disk through an export of our nbd node; what it
reads and writes is compared with the disk itself.
"""
import json
import re

import pytest

import harness
import nbdservers
import rawnbd
from harness import run, sha256

SIZE = 24 << 20
ISLANDS = (0, 3, 9, 17, 23)

pytestmark = pytest.mark.peers("nbdkit", "nbd-server", "qemu-nbd",
                               "qemu-storage-daemon", "nbdcopy", "qemu-io")


@pytest.fixture
def disk(box):
    return harness.make_image(box / "disk.img", SIZE, {
        offset << 20: harness.random_bytes(700_000, seed=offset)
        for offset in ISLANDS})


@pytest.fixture(params=nbdservers.CASES)
def server(request, box, disk, spawn, tls_dir):
    kind, transport = request.param.split("/")
    server = nbdservers.Server(kind, box, disk, transport, tls_dir)
    spawn("server", server.argv())
    yield server
    server.stop()


class Through:
    """Our daemon with an nbd node of the server and an export of it."""

    def __init__(self, daemon, server, tls_dir):
        self.daemon = daemon
        if server.tls:
            nbdservers.add_client_creds(daemon, tls_dir)
        daemon.execute("blockdev-add", server.options(
            **{"node-name": "n0", "discard": "unmap"}))
        daemon.start_nbd()
        daemon.add_export("n0", name="through", writable=True)
        self.uri = f"nbd+unix:///through?socket={daemon.nbd_path}"

    def qemu_io(self, *commands):
        text = run("qemu-io", "-f", "raw",
                   *[word for c in commands for word in ("-c", c)], self.uri)
        assert "failed" not in text.lower(), text

    def release(self):
        """Everything is on the server's disk, and the node is gone."""
        self.daemon.cmd("block-export-del", id="exp-n0", mode="hard")
        self.daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-n0")
        self.daemon.cmd("blockdev-del", node_name="n0")


@pytest.fixture
def through(daemon, server, tls_dir):
    return Through(daemon, server, tls_dir)


def test_copies_out_and_in(through, server, box):
    copy = box / "copy.img"
    run("nbdcopy", through.uri, copy)
    assert sha256(copy) == sha256(server.path)
    source = harness.make_image(box / "in.img", SIZE, {
        2 << 20: harness.random_bytes(5 << 20, seed=5)})
    run("nbdcopy", "--flush", source, through.uri)
    through.release()
    assert sha256(server.path) == sha256(source)


def test_patterns_reach_the_disk(through, server):
    through.qemu_io(
        "write -P 0xa5 64k 128k", "write -P 0x5a -f 1000 3000",
        "write -z 1M 64k", "write -z -u 3M 64k", "discard 9M 1M",
        "aio_write -P 0x11 6M 2M", "aio_write -P 0x12 11M 64k", "aio_flush",
        "flush", "read -P 0xa5 64k 128k", "read -P 0x5a 1000 3000",
        "read -P 0 1M 64k", "read -P 0 3M 64k", "read -P 0x11 6M 2M",
        "read -P 0x12 11M 64k")
    through.release()
    data = server.path.read_bytes()
    assert data[64 << 10:192 << 10] == b"\xa5" * (128 << 10)
    assert data[1000:4000] == b"\x5a" * 3000
    assert data[1 << 20:(1 << 20) + 65536] == bytes(65536)
    assert data[3 << 20:(3 << 20) + 65536] == bytes(65536)
    assert data[6 << 20:8 << 20] == b"\x11" * (2 << 20)


def test_holes_are_seen(through, server):
    rows = json.loads(run("nbdinfo", "--map", "--json", through.uri))
    assert sum(row["length"] for row in rows) == SIZE
    data = {row["offset"] >> 20 for row in rows if row["type"] == 0}
    if server.kind == "nbd-server":
        assert data == {0}  # it does not tell
    else:
        assert data == set(ISLANDS)


def test_unaligned_and_large_requests(through, connect_nbd, server):
    # Nbd-server has blocks of 512 bytes, or so; who does not ask need not know.
    handle = connect_nbd(through.daemon.nbd_path, "through", sizes=False)
    whole = server.path.read_bytes()
    for offset, length in ((0, 1), (1, 511), (511, 2), (4095, 65538),
                           (SIZE - 1, 1), (3 << 20, 16 << 20)):
        assert handle.pread(length, offset) == whole[offset:offset + length]
    block = harness.random_bytes(9 << 20, seed=3)
    handle.pwrite(block, 12345)
    assert handle.pread(len(block), 12345) == block
    handle.flush()
    handle.shutdown()
    through.release()
    assert server.path.read_bytes()[12345:12345 + len(block)] == block


@pytest.mark.parametrize("kind", nbdservers.KINDS)
def test_requests_above_4_gib(daemon, box, spawn, tls_dir, kind):
    """Of these only we have extended headers; the others get what they know."""
    size, end = 6 << 30, (6 << 30) - 65536
    path = harness.make_image(box / "large.img", size, {
        0: b"d" * 65536, 3 << 30: b"d" * 65536, end: b"d" * 65536})
    transport = "tcp" if kind == "nbd-server" else "unix"
    server = nbdservers.Server(kind, box, path, transport, tls_dir)
    spawn("server", server.argv())
    through = Through(daemon, server, tls_dir)
    client = rawnbd.RawNbd(daemon.nbd_path)
    client.negotiate_extended()
    client.set_meta("through", "base:allocation")
    client.go("through")
    error, found = client.status(65536, end - 65536)
    assert error == 0
    if kind == "nbd-server":
        assert found[0] == [(end - 65536, 0)]  # it does not tell
        assert client.request(rawnbd.CMD_TRIM, 65536, end - 65536) == 0
    else:
        assert found[0][0][1] & 2  # the first of them ends by 3 GiB
        assert found[0][0][0] <= (3 << 30) - 65536
        assert client.request(rawnbd.CMD_WRITE_ZEROES, 65536,
                              end - 65536) == 0
        assert client.read(3 << 30, 65536) == (0, bytes(65536))
    assert client.read(end, 65536) == (0, b"d" * 65536)
    assert client.read(0, 65536) == (0, b"d" * 65536)
    client.disconnect()
    through.release()
    server.stop()


def test_peer_sees_connections_of_ours(daemon, box, disk, spawn):
    """nbdkit promises multi-conn for files; so there are several of us."""
    script = box / "count.sh"
    script.write_text("""#!/bin/sh
case "$1" in
    open) echo x >> %s/opened ;;
    get_size) stat -c %%s %s ;;
    pread) dd iflag=skip_bytes,count_bytes skip=$4 count=$3 if=%s 2>/dev/null ;;
    can_multi_conn) exit 0 ;;
    *) exit 2 ;;
esac
""" % (box, disk, disk))
    script.chmod(0o755)
    sock = box / "peer.sock"
    spawn("server", ["nbdkit", "-f", "-r", "-U", sock, "sh", script])

    def count():
        opened = box / "opened"
        return len(opened.read_text()) // 2 if opened.exists() else 0

    options = {"driver": "nbd", "node-name": "n0", "read-only": True,
               "open-timeout": 20,
               "server": {"type": "unix", "path": str(sock)}}
    for wanted in (None, 1, 7):
        before = count()
        more = {} if wanted is None else {"connections": wanted}
        daemon.execute("blockdev-add", {**options, **more})
        harness.wait_until(lambda: count() - before >= (wanted or 4))
        daemon.cmd("blockdev-del", node_name="n0")
        assert count() - before == (wanted or 4)


def test_server_with_one_place_gets_one_connection(daemon, box, disk, spawn,
                                                   tls_dir):
    server = nbdservers.Server("qemu-nbd", box, disk, "unix", tls_dir, limit=1)
    spawn("server", server.argv())
    through = Through(daemon, server, tls_dir)
    run("nbdcopy", through.uri, box / "copy.img")
    assert sha256(box / "copy.img") == sha256(disk)


@pytest.mark.parametrize("transport", ("unix", "tls"))
def test_server_is_killed_and_restarted_under_load(daemon, box, disk, spawn,
                                                   tls_dir, transport):
    server = nbdservers.Server("qemu-nbd", box, disk, transport, tls_dir)
    process = spawn("server", server.argv())
    if server.tls:
        nbdservers.add_client_creds(daemon, tls_dir)
    daemon.execute("blockdev-add", server.options(
        **{"node-name": "n0", "reconnect-delay": 60}))
    daemon.start_nbd()
    daemon.add_export("n0", name="through", writable=True)
    source = harness.make_image(box / "in.img", SIZE, {
        0: harness.random_bytes(SIZE, seed=11)})
    uri = f"nbd+unix:///through?socket={daemon.nbd_path}"
    # Small requests, so that the copy takes long enough.
    copy = spawn("nbdcopy", ["nbdcopy", "--request-size=4096", "--requests=8",
                             "--no-extents", "--flush", source, uri])
    kills = 0
    while copy.running() and kills < 5:
        before = disk.read_bytes()
        harness.wait_until(lambda: not copy.running() or
                           disk.read_bytes() != before)
        process.popen.kill()
        process.wait()
        if server.is_unix:
            server.address.unlink(missing_ok=True)
        kills += 1
        process = spawn(f"server{kills}", server.argv())
    assert copy.wait() == 0, copy.log()
    assert kills > 1
    daemon.wait_log("connected to NBD server .* again")
    daemon.cmd("block-export-del", id="exp-n0", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-n0")
    daemon.cmd("blockdev-del", node_name="n0")
    assert sha256(disk) == sha256(source)


def test_dirty_bitmap_shows_as_holes(daemon, daemons, box):
    """As QEMU's own driver shows it: dirty is "not allocated"."""
    image = box / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "4M")
    run("qemu-img", "bitmap", "--add", "-g", "64k", image, "b0")
    run("qemu-io", "-c", "write -P 1 1M 128k", "-c", "write -P 2 3M 64k",
        image)
    peer = daemons(program="qemu-storage-daemon", name="qsd", workers=False)
    peer.execute("blockdev-add", {
        "driver": "qcow2", "node-name": "q0",
        "file": {"driver": "file", "filename": str(image)}})
    peer.cmd("block-dirty-bitmap-disable", node="q0", name="b0")
    path = peer.start_nbd()
    peer.add_export("q0", name="disk", bitmaps=["b0"])
    options = {"driver": "nbd", "node-name": "n0", "export": "disk",
               "read-only": True,
               "server": {"type": "unix", "path": str(path)},
               "x-dirty-bitmap": "qemu:dirty-bitmap:b0"}
    daemon.execute("blockdev-add", options)
    daemon.start_nbd()
    daemon.add_export("n0", name="through")
    uri = f"nbd+unix:///through?socket={daemon.nbd_path}"
    rows = json.loads(run("nbdinfo", "--map", "--json", uri))
    assert [(r["offset"], r["length"]) for r in rows if r["type"] & 1] == [
        (1 << 20, 128 << 10), (3 << 20, 64 << 10)]
    error = daemon.error("blockdev-add", **{
        **{k.replace("-", "_"): v for k, v in options.items()},
        "node_name": "n1", "x_dirty_bitmap": "qemu:dirty-bitmap:nope"})
    assert re.search("no metadata context 'qemu:dirty-bitmap:nope'",
                     error.desc), error


@pytest.mark.peers("qemu-storage-daemon")
def test_idle_node_lets_a_server_end(daemon, daemons):
    """QEMU 7.2 hangs if a client connects while it stops its server."""
    theirs = daemons(program=harness.REFERENCE, name="theirs")
    theirs.execute("blockdev-add", {"driver": "null-co", "node-name": "disk",
                                    "size": 1 << 20})
    for turn in range(12):
        theirs.start_nbd()
        ident = theirs.add_export("disk", writable=True)
        daemon.execute("blockdev-add", {
            "driver": "nbd", "node-name": f"r{turn}", "export": "disk",
            "connections": 1, "server": {
                "type": "unix", "path": str(theirs.nbd_path)}})
        theirs.cmd("block-export-del", id=ident, mode="hard")
        theirs.cmd("nbd-server-stop")
