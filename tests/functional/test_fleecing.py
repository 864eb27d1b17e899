# SPDX-License-Identifier: GPL-2.0-or-later
"""copy-before-write and snapshot-access: reading a disk as it was."""
import os

import pytest

import harness
import rawnbd as nbd
import replication

SIZE = 4 << 20


def add(daemon, driver, node, **options):
    return daemon.execute("blockdev-add", {
        "driver": driver, "node-name": node, "discard": "unmap",
        **{k.replace("_", "-"): v for k, v in options.items()}})


@pytest.fixture
def fleecing(daemon, image, box):
    """Exports "disk", which is written, and "past", a snapshot of it."""
    add(daemon, "file", "f0", filename=str(image))
    harness.make_image(box / "target.img", SIZE)
    add(daemon, "file", "t0", filename=str(box / "target.img"))
    add(daemon, "copy-before-write", "c0", file="f0", target="t0")
    add(daemon, "snapshot-access", "s0", file="c0")
    daemon.start_nbd()
    daemon.add_export("c0", name="disk", writable=True)
    daemon.add_export("s0", name="past", writable=True)
    return daemon


def test_past_stays(fleecing, image, connect_nbd):
    before = image.read_bytes()
    disk = connect_nbd(fleecing.nbd_path, "disk")
    past = connect_nbd(fleecing.nbd_path, "past")
    assert past.pread(SIZE, 0) == before
    disk.pwrite(b"new" * 1000, 12345)
    disk.zero(1 << 20, 1 << 20)
    disk.trim(1 << 20, 3 << 20)
    disk.flush()
    assert past.pread(SIZE, 0) == before
    assert disk.pread(3000, 12345) == b"new" * 1000
    past.trim(1 << 20, 0)
    with pytest.raises(Exception):
        past.pread(512, 0)
    assert past.pread(SIZE - (1 << 20), 1 << 20) == before[1 << 20:]
    with pytest.raises(Exception):
        past.pwrite(b"x" * 512, 2 << 20)


def count_flushes(daemon, node):
    """Those that have succeeded."""
    stats, = [info["stats"] for info in daemon.cmd(
        "query-blockstats", query_nodes=True) if info["node-name"] == node]
    return stats["flush_operations"]


def test_local_target_is_not_flushed(fleecing, connect_nbd):
    """It can lose nothing as long as the snapshot lives."""
    disk = connect_nbd(fleecing.nbd_path, "disk")
    for n in range(16):
        disk.pwrite(b"n" * 4096, n << 17)
    disk.flush()
    assert count_flushes(fleecing, "t0") == 0


@pytest.fixture
def far(daemons, proxies, box, image, request):
    """A fleecing daemon, and the site of its target behind a proxy.

    A parameter is the size of the disk and options of the target's node.
    """
    size, options = getattr(request, "param", (SIZE, {}))
    os.truncate(image, size)
    site = replication.Site(daemons, box, "far",
                            harness.make_image(box / "far.img", size))
    port = harness.free_port()
    proxy = proxies(f"tcp:{port}", f"tcp:{site.port}")
    daemon = daemons()
    add(daemon, "file", "f0", filename=str(image))
    daemon.execute("blockdev-add", {
        "driver": "nbd", "node-name": "t0", "export": "disk",
        "reconnect-delay": 60, "server": {
            "type": "inet", "host": "127.0.0.1", "port": str(port)}, **options})
    add(daemon, "copy-before-write", "c0", file="f0", target="t0")
    add(daemon, "snapshot-access", "s0", file="c0")
    daemon.start_nbd()
    daemon.add_export("c0", name="disk", writable=True)
    daemon.add_export("s0", name="past")
    return daemon, site, proxy


@pytest.mark.ours("the reference does not notice")
def test_snapshot_outlives_a_cut(far, image, connect_nbd):
    daemon, _, proxy = far
    before = image.read_bytes()
    disk = connect_nbd(daemon.nbd_path, "disk")
    past = connect_nbd(daemon.nbd_path, "past")
    for n in range(8):
        disk.pwrite(b"n" * 70000, n << 18)
        harness.wait_until(lambda: count_flushes(daemon, "t0") > n)
        proxy.cut()
        assert past.pread(SIZE, 0) == before
    assert image.read_bytes() != before


@pytest.mark.ours("the reference does not notice")
def test_cut_before_the_flush_breaks_the_snapshot(far, connect_nbd):
    daemon, site, proxy = far
    disk = connect_nbd(daemon.nbd_path, "disk")
    past = connect_nbd(daemon.nbd_path, "past")
    disk.pwrite(b"n" * 4096, 1 << 20)
    harness.wait_until(lambda: count_flushes(daemon, "t0") == 1)
    site.set_faults({"op": "flush", "park": True})
    disk.pwrite(b"n" * 4096, 0)
    proxy.cut()
    with pytest.raises(Exception):
        past.pread(512, 1 << 20)
    assert "may have lost bytes 0 to 65535," in daemon.log()
    disk.pwrite(b"n" * 4096, 2 << 20)
    site.set_faults()


MANY = 9000  # more pieces than the driver keeps apart


@pytest.mark.ours("the reference does not notice")
@pytest.mark.parametrize("far", [(MANY << 17, {"cache": {"no-flush": True}})],
                         indirect=True)
def test_no_copy_is_forgotten_among_many(far, connect_nbd):
    daemon, _, proxy = far
    past = connect_nbd(daemon.nbd_path, "past")
    with nbd.RawNbd(daemon.nbd_path).go("disk") as disk:
        for first in range(0, MANY, 100):
            for n in range(first, first + 100):
                disk.send_request(nbd.CMD_TRIM, n << 17, 65536)
            for n in range(100):
                assert disk.read_reply()[0].error == 0
    proxy.cut()
    with pytest.raises(Exception):
        past.pread(512, 0)
    assert "may have lost bytes 0 to 65535," in daemon.log()


@pytest.mark.ours("the reference has no fault nodes")
def test_ranges_of_a_change_are_copied_at_the_same_time(daemons, image, box,
                                                        connect_nbd):
    """Where the target hangs, the rest of a large change is saved; what
    overlaps that waits, and what does not goes on."""
    before, daemon = image.read_bytes(), daemons("--allow-fault-injection")
    add(daemon, "file", "f0", filename=str(image))
    target = harness.make_image(box / "target.img", SIZE)
    add(daemon, "file", "t0-file", filename=str(target))
    add(daemon, "fault", "t0", image="t0-file", rules=[
        {"op": "write", "offset": 0, "bytes": 4096, "park": True}])
    add(daemon, "copy-before-write", "c0", file="f0", target="t0")
    daemon.start_nbd()
    daemon.add_export("c0", name="disk", writable=True)
    one, other, third = (connect_nbd(daemon.nbd_path, "disk")
                         for _ in range(3))
    zeroes = one.aio_zero(3 << 20, 0)
    one.poll(0)
    harness.wait_until(lambda: target.read_bytes()[1 << 20:3 << 20]
                       == before[1 << 20:3 << 20])
    other.pwrite(b"n" * 4096, 3 << 20)
    late = third.aio_pwrite(b"o" * 4096, 64 << 10)
    third.poll(0)
    other.pwrite(b"m" * 4096, (3 << 20) + 4096)
    assert image.read_bytes()[:3 << 20] == before[:3 << 20]
    daemon.execute("blockdev-reopen", {"options": [{
        "driver": "fault", "node-name": "t0", "discard": "unmap",
        "image": "t0-file"}]})
    for client, cookie in ((one, zeroes), (third, late)):
        while not client.aio_command_completed(cookie):
            assert client.poll(int(harness.LIMIT) * 1000) == 1
    assert target.read_bytes()[:3 << 20] == before[:3 << 20]
    assert image.read_bytes()[1 << 20:3 << 20] == bytes(2 << 20)


@pytest.mark.peers("qemu-img", "qemu-io")
def test_real_clients(fleecing, image, box):
    before = image.read_bytes()
    uri = f"nbd+unix:///{{}}?socket={fleecing.nbd_path}"
    harness.run("qemu-io", "-f", "raw", "-c", "write -P 9 64k 1M", "-c",
                "write -z 2M 1M", "-c", "discard 3M 64k", uri.format("disk"))
    harness.run("qemu-img", "convert", "-f", "raw", "-O", "raw",
                uri.format("past"), box / "out.img")
    assert (box / "out.img").read_bytes() == before
    assert image.read_bytes() != before


def test_target_and_snapshot_are_checked(daemon, image, box):
    add(daemon, "file", "f0", filename=str(image))
    harness.make_image(box / "small.img", SIZE // 2)
    add(daemon, "file", "t0", filename=str(box / "small.img"))
    if not harness.IS_REFERENCE:
        error = daemon.error("blockdev-add", driver="copy-before-write",
                             node_name="c0", file="f0", target="t0")
        assert "smaller" in error.desc
        error = daemon.error("blockdev-add", driver="snapshot-access",
                             node_name="s0", file="f0")
        assert "copy-before-write" in error.desc
    error = daemon.error("blockdev-add", driver="copy-before-write",
                         node_name="c0", file="f0", target="nope")
    assert "nope" in error.desc


def test_nobody_writes_past_the_filter(fleecing):
    error = fleecing.error("block-export-add", type="nbd", id="e9",
                           node_name="f0", writable=True)
    assert "Permission conflict on node 'f0'" in error.desc


def test_copy_that_hangs_holds_up_only_its_nodes(daemons, box):
    """A copy that is left behind uses the filter, whose deletion waits."""
    daemon = daemons("--allow-fault-injection")
    for name in ("s0", "t0"):
        daemon.add_file(harness.make_image(box / name, SIZE), name)
    fault = {"driver": "fault", "node-name": "slow", "image": "t0"}
    daemon.execute("blockdev-add", {**fault, "rules": [
        {"op": "any", "errno": "", "park": True}]})
    daemon.execute("blockdev-add", {
        "driver": "copy-before-write", "node-name": "c0", "file": "s0",
        "target": "slow", "cbw-timeout": 1})
    daemon.start_nbd()
    daemon.add_export("c0", writable=True)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("c0")
        assert client.write(0, bytes(512)) == nbd.EIO
    daemon.cmd("block-export-del", id="exp-c0", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-c0")
    other = daemon.client()
    other.cmd("blockdev-add", driver="null-co", node_name="fine", size=SIZE)
    request_id = daemon.qmp.send("blockdev-del", {"node-name": "c0"})
    harness.wait_until(lambda: "c0" not in {
        n["node-name"] for n in other.cmd("query-named-block-nodes")})
    other.cmd("blockdev-del", node_name="fine", _limit=5)
    other.execute("blockdev-reopen", {"options": [fault]})
    assert daemon.qmp.reply(request_id)["return"] == {}
    daemon.cmd("blockdev-del", node_name="slow")
