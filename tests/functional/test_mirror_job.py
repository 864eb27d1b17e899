# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirror jobs, under load: whole copies, their graph, cancel, pivot."""
import threading

import pytest

import harness
import rawnbd as nbd
from mirrorpair import (SIZE, Pair, Writers, job_events, make_noise, sha,
                        wait_event, wait_status)


@pytest.fixture
def noise(box):
    return make_noise(box)


@pytest.fixture
def pair(daemon, box, noise):
    return Pair(daemon, box, noise)


# Whole copies.

def test_full_copy_of_a_quiet_disk(pair):
    pair.mirror()
    ready = pair.ready()["data"]
    assert (ready["type"], ready["device"]) == ("mirror", "m")
    assert ready["len"] == ready["offset"] == SIZE
    pair.daemon.cmd("block-job-complete", device="m")
    wait_status(pair.daemon, "m", "null")
    assert pair.daemon.cmd("query-block-jobs") == []
    assert sha(pair.target) == sha(pair.source)
    # The client's export has moved: the old disk is free.
    pair.daemon.cmd("blockdev-del", node_name="src")


def test_events_come_in_order(pair):
    pair.mirror()
    pair.ready()
    pair.daemon.cmd("job-complete", id="m")
    wait_status(pair.daemon, "m", "null")
    assert job_events(pair.daemon) == [
        ("JOB_STATUS_CHANGE", "created"), ("JOB_STATUS_CHANGE", "running"),
        ("JOB_STATUS_CHANGE", "ready"), ("BLOCK_JOB_READY", None),
        ("JOB_STATUS_CHANGE", "waiting"), ("JOB_STATUS_CHANGE", "pending"),
        ("BLOCK_JOB_COMPLETED", None), ("JOB_STATUS_CHANGE", "concluded"),
        ("JOB_STATUS_CHANGE", "null")]


@pytest.mark.ours("the reference stops to copy at another moment")
@pytest.mark.parametrize("mode", ("background", "write-blocking"))
@pytest.mark.parametrize("granularity", (4096, 65536))
def test_copy_under_write_load_is_exact(pair, mode, granularity):
    writers = Writers(pair)
    pair.mirror(copy_mode=mode, granularity=granularity)
    pair.ready()
    pair.daemon.cmd("block-job-complete", device="m")
    wait_status(pair.daemon, "m", "null")
    # All that was acknowledged before went to both, the rest to the target.
    before = sha(pair.source)
    writers.finish()
    assert sha(pair.source) == before
    with pair.connect() as client:
        assert client.read(0, 1 << 20)[1] == pair.target.read_bytes()[:1 << 20]


@pytest.mark.parametrize("mode", ("background", "write-blocking"))
def test_soft_cancel_leaves_a_copy_of_one_moment(pair, mode):
    """Each write counts up in two places; a copy must show both alike."""
    stop, begun = threading.Event(), threading.Event()
    errors = []

    def count():
        try:
            with pair.connect() as client:
                n = 0
                while not stop.is_set():
                    n += 1
                    for offset in (0, SIZE - 4096):
                        assert client.write(offset, n.to_bytes(8, "big")) == 0
                    begun.set()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=count)
    thread.start()
    assert begun.wait(30), errors
    pair.mirror(copy_mode=mode)
    pair.ready()
    pair.daemon.cmd("block-job-cancel", device="m")
    end = wait_event(pair.daemon, "BLOCK_JOB_COMPLETED", device="m")
    assert "error" not in end["data"]
    wait_status(pair.daemon, "m", "null")
    copy = pair.target.read_bytes()
    stop.set()
    thread.join(30)
    assert errors == []
    first = int.from_bytes(copy[:8], "big")
    last = int.from_bytes(copy[SIZE - 4096:SIZE - 4088], "big")
    assert first - last in (0, 1) and first > 0
    # The client still writes to the source, and the target is free.
    assert pair.source.read_bytes()[:8] >= copy[:8]
    pair.daemon.cmd("blockdev-del", node_name="dst")


def test_sync_none_copies_only_what_is_written(pair):
    pair.mirror(sync="none", granularity=4096)
    assert pair.ready()["data"]["len"] == 0
    with pair.connect() as client:
        assert client.write(2 << 20, b"n" * 4096) == 0
    pair.daemon.cmd("block-job-cancel", device="m")
    wait_status(pair.daemon, "m", "null")
    copy = pair.target.read_bytes()
    assert copy[2 << 20:(2 << 20) + 4096] == b"n" * 4096
    assert not any(copy[:2 << 20]) and not any(copy[(2 << 20) + 4096:])


@pytest.mark.ours("block-job-change is newer than the reference")
def test_mode_changes_while_it_runs(pair):
    writers = Writers(pair, 2)
    pair.mirror()
    pair.ready()
    pair.daemon.execute("block-job-change", {
        "id": "m", "type": "mirror", "copy-mode": "write-blocking"})
    error = pair.daemon.error("block-job-change", id="m", type="mirror",
                              copy_mode="background")
    assert error.desc == "Change to copy mode 'background' is not implemented"
    writers.finish()
    harness.wait_until(
        lambda: pair.daemon.cmd("query-block-jobs")[0]["actively-synced"])
    with pair.connect() as client:
        assert client.write(0, b"w" * 70000) == 0
        assert pair.target.read_bytes()[:70000] == b"w" * 70000
    pair.complete()


@pytest.mark.ours("the reference writes zeroes that are data")
def test_holes_stay_holes(daemon, box):
    source = harness.make_image(box / "source.img", 64 << 20, {
        5 << 20: b"d" * 65536, 40 << 20: bytes(1 << 20)})
    pair = Pair(daemon, box, source)
    pair.mirror()
    pair.ready()
    daemon.cmd("block-job-complete", device="m")
    wait_status(daemon, "m", "null")
    assert sha(source) == sha(pair.target)
    assert pair.target.stat().st_blocks * 512 <= 256 << 10


def test_old_contents_of_the_target_are_overwritten(daemon, box, noise):
    pair = Pair(daemon, box, noise)
    with open(pair.target, "r+b") as file:
        file.write(harness.random_bytes(SIZE, seed=3))
    pair.mirror()
    pair.ready()
    daemon.cmd("block-job-complete", device="m")
    wait_status(daemon, "m", "null")
    assert sha(pair.source) == sha(pair.target)


def test_odd_sizes(daemon, box):
    source = harness.make_image(box / "source.img", (1 << 20) + 512, {
        0: harness.random_bytes((1 << 20) + 512)})
    pair = Pair(daemon, box, source)
    pair.mirror(granularity=65536)
    pair.ready()
    daemon.cmd("block-job-complete", device="m")
    wait_status(daemon, "m", "null")
    assert sha(source) == sha(pair.target)


@pytest.mark.parametrize("end", ("cancel", "complete"))
def test_drive_mirror_makes_its_target(daemon, box, noise, end):
    daemon.serve_file(noise, "src")
    target = box / "made.img"
    daemon.cmd("drive-mirror", job_id="m", device="src", target=str(target),
               format="raw", sync="full", node_name="made")
    wait_event(daemon, "BLOCK_JOB_READY", device="m")
    daemon.cmd(f"block-job-{end}", device="m")
    wait_status(daemon, "m", "null")
    assert sha(target) == sha(noise)
    names = {n["node-name"] for n in daemon.cmd("query-named-block-nodes")}
    assert ("made" in names) == (end == "complete")
    with nbd.RawNbd(daemon.nbd_path).go("src") as client:
        assert client.write(0, b"after") == 0
    assert (target.read_bytes()[:5] == b"after") == (end == "complete")


@pytest.mark.ours("the reference makes a source without users empty")
@pytest.mark.parametrize("command", ["drive-mirror", "drive-backup"])
def test_target_that_is_the_source_leaves_it_alone(daemon, box, noise, command):
    before = sha(noise)
    daemon.add_file(noise, "src")
    error = daemon.error(command, job_id="m", device="src", sync="full",
                         target=str(noise))
    assert f"'{noise}' is in use" in error.desc
    assert sha(noise) == before


@pytest.mark.ours("other words")
def test_drive_mirror_refuses(daemon, box, noise):
    daemon.serve_file(noise, "src")
    target = box / "made.img"
    for arguments, text in (
            ({"device": "zz"}, "Cannot find device='zz'"),
            ({"format": "qcow2"}, "only 'raw' is supported"),
            ({"mode": "existing"}, "Could not open"),
            ({"sync": "none"}, "Sync mode 'none' needs an image that has"),
            ({"target": "/nowhere/x"}, "/nowhere/x")):
        error = daemon.error("drive-mirror", **{
            "job_id": "m", "device": "src", "target": str(target),
            "sync": "full", **arguments})
        assert text in error.desc
        assert not target.exists()
    assert len(daemon.cmd("query-named-block-nodes")) == 1
def bitmap(daemon, name="b"):
    node, = [n for n in daemon.cmd("query-named-block-nodes")
             if n["node-name"] == "src"]
    found, = [b for b in node["dirty-bitmaps"] if b["name"] == name]
    return found


@pytest.mark.ours("the reference has no incremental mirrors")
@pytest.mark.parametrize("mode", (None, "on-success", "never"))
def test_incremental_copies_what_is_dirty(pair, mode):
    pair.mirror()
    pair.ready()
    pair.daemon.cmd("block-job-cancel", device="m")
    wait_status(pair.daemon, "m", "null")
    pair.daemon.cmd("block-dirty-bitmap-add", node="src", name="b",
                    granularity=65536)
    with pair.connect() as client:
        assert client.write(1 << 20, b"1" * 1000) == 0
        assert client.write(5 << 20, b"5" * 100000) == 0
    dirty = bitmap(pair.daemon)["count"]
    assert dirty == 3 * 65536
    more = {"bitmap_mode": mode} if mode else {}
    pair.mirror(sync="incremental", bitmap="b", speed=1, **more)
    assert pair.daemon.cmd("query-block-jobs")[0]["len"] == dirty
    error = pair.daemon.error("block-dirty-bitmap-remove", node="src",
                              name="b")
    assert "in use" in error.desc
    pair.daemon.cmd("block-job-set-speed", device="m", speed=0)
    assert pair.ready()["data"]["offset"] == dirty
    pair.daemon.cmd("block-job-cancel", device="m")
    wait_status(pair.daemon, "m", "null")
    assert sha(pair.source) == sha(pair.target)
    after = bitmap(pair.daemon)
    assert after["count"] == (dirty if mode == "never" else 0)
    assert not after["busy"]
    pair.daemon.cmd("block-dirty-bitmap-remove", node="src", name="b")


@pytest.mark.ours("the reference has no incremental mirrors")
def test_incremental_that_fails_keeps_the_bitmap(pair):
    pair.daemon.cmd("block-dirty-bitmap-add", node="src", name="b")
    with pair.connect() as client:
        assert client.write(0, b"1" * 1000) == 0
    pair.mirror(sync="incremental", bitmap="b")
    pair.ready()
    pair.daemon.cmd("job-cancel", id="m")
    wait_status(pair.daemon, "m", "null")
    assert bitmap(pair.daemon)["count"] == 65536
    for arguments, text in (
            ({}, "needs a bitmap"), ({"bitmap": "zz"}, "could not be found"),
            ({"bitmap": "b", "bitmap_mode": "always"}, "not supported"),
            ({"bitmap": "b", "sync": "full"}, "incremental")):
        with pytest.raises(Exception, match=text):
            pair.mirror(**{"sync": "incremental", **arguments})


# The graph meanwhile.

@pytest.mark.ours("the reference shows the bitmap of its job")
def test_filter_is_seen_and_goes(pair):
    pair.mirror(filter_node_name="top")
    pair.ready()
    nodes = {n["node-name"]: n for n in
             pair.daemon.cmd("query-named-block-nodes")}
    assert nodes["top"]["drv"] == "mirror_top"
    assert nodes["src"].get("dirty-bitmaps", []) == []
    error = pair.daemon.error("blockdev-add", driver="mirror_top",
                              node_name="x", file="dst")
    assert error.cls == "GenericError"
    assert "Node src is in use by block job 'm'" in pair.daemon.error(
        "blockdev-del", node_name="src").desc
    error = pair.daemon.error(
        "blockdev-mirror", job_id="m2", device="src", target="dst",
        sync="full")
    assert error.desc == "Need a root block node"
    # A new export of the source itself writes past the filter.
    pair.daemon.add_export("src", "late", name="late", writable=True)
    with nbd.RawNbd(pair.daemon.nbd_path).go("late") as client:
        assert client.write(0, b"late") == 0
    pair.daemon.cmd("block-job-cancel", device="m")
    wait_status(pair.daemon, "m", "null")
    assert sha(pair.source) == sha(pair.target)
    names = {n["node-name"] for n in
             pair.daemon.cmd("query-named-block-nodes")}
    assert names == {"src", "dst"}


def test_target_is_the_jobs_alone(pair):
    pair.mirror()
    pair.ready()
    error = pair.daemon.error("block-export-add", type="nbd", id="e",
                              node_name="dst")
    assert error.desc.startswith("Permission conflict on node 'dst'")
    assert "'consistent read'" in error.desc
    pair.daemon.cmd("job-cancel", id="m")
    wait_status(pair.daemon, "m", "null")
    pair.daemon.add_export("dst", "e")


REFUSED = {
    "no-source": ({"device": "zz"},
                  "Cannot find device='zz' nor node-name='zz'"),
    "no-target": ({"target": "zz"},
                  "Cannot find device='zz' nor node-name='zz'"),
    "itself": ({"target": "src"}, "Can't mirror node into itself"),
    "no-replaces": ({"replaces": "zz"},
                    "Failed to find node with node-name='zz'"),
    "bitmap": ({"sync": "bitmap"}, "Sync mode 'bitmap' not supported"),
    "small": ({"granularity": 256}, "Parameter 'granularity' expects a value "
                                    "in range [512B, 64MB]"),
    "odd": ({"granularity": 12345},
            "Parameter 'granularity' expects a power of 2"),
    "buf": ({"buf-size": -1}, "Invalid parameter 'buf-size'"),
    "speed": ({"speed": -1},
              "Parameter 'speed' expects a non-negative value"),
    "id": ({"job-id": "9"}, "Invalid job ID '9'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_nothing_remains(pair, name):
    arguments, message = REFUSED[name]
    error = None
    try:
        pair.mirror(**arguments)
    except Exception as caught:
        error = caught
    assert error.desc == message
    assert len(pair.daemon.cmd("query-named-block-nodes")) == 2
    assert pair.daemon.cmd("query-jobs") == []
    pair.mirror()
    pair.ready()


def test_other_size_fails_later(daemon, box, noise):
    pair = Pair(daemon, box, noise, size=SIZE + 512)
    pair.mirror()
    end = wait_event(daemon, "BLOCK_JOB_COMPLETED", device="m")
    assert (end["data"]["error"] ==
            "Source and target image have different sizes")
    wait_status(daemon, "m", "null")
    assert ("JOB_STATUS_CHANGE", "aborting") in job_events(daemon)
    daemon.cmd("blockdev-del", node_name="dst")


# Verbs at each state.

def test_soft_cancel_is_not_turned_into_a_pivot(pair):
    pair.mirror(auto_finalize=False)
    pair.ready()
    pair.daemon.cmd("job-pause", id="m")
    wait_status(pair.daemon, "m", "standby")
    pair.daemon.cmd("job-resume", id="m")
    cancel, complete = (
        pair.daemon.qmp.send("block-job-cancel", {"device": "m"}),
        pair.daemon.qmp.send("job-complete", {"id": "m"}))
    assert "return" in pair.daemon.qmp.reply(cancel)
    assert pair.daemon.qmp.reply(complete)["error"]["desc"] in (
        "The active block job 'm' cannot be completed",
        "Job 'm' in state 'pending' cannot accept command verb 'complete'")
    wait_event(pair.daemon, "BLOCK_JOB_PENDING", id="m")
    pair.daemon.cmd("job-finalize", id="m")
    wait_status(pair.daemon, "m", "null")
    with pair.connect() as client:
        assert client.write(0, b"source") == 0
    assert pair.source.read_bytes()[:6] == b"source"


def test_force_cancel_when_ready(pair):
    pair.mirror()
    pair.ready()
    pair.daemon.cmd("job-cancel", id="m")
    wait_event(pair.daemon, "BLOCK_JOB_CANCELLED", device="m")
    wait_status(pair.daemon, "m", "null")
    pair.daemon.cmd("blockdev-del", node_name="dst")
    with pair.connect() as client:
        assert client.write(0, b"x" * 512) == 0


@pytest.mark.parametrize("speed", (10 ** 15, 1 << 53, (1 << 63) - 1))
def test_speed_beyond_all_storage_is_no_limit(pair, speed):
    pair.mirror(speed=speed)
    pair.ready()
    pair.daemon.cmd("block-job-set-speed", device="m", speed=1)
    pair.daemon.cmd("block-job-set-speed", device="m", speed=speed)
    pair.complete()


def test_cancel_while_it_copies(pair):
    pair.mirror(speed=65536)
    wait_status(pair.daemon, "m", "running")
    assert pair.daemon.error("job-complete", id="m").desc == (
        "Job 'm' in state 'running' cannot accept command verb 'complete'")
    pair.daemon.cmd("block-job-cancel", device="m")
    wait_event(pair.daemon, "BLOCK_JOB_CANCELLED", device="m")
    wait_status(pair.daemon, "m", "null")
    pair.mirror()
    pair.ready()


@pytest.mark.parametrize("size", (0, 512, (1 << 20) + 512, 5 << 40))
def test_disk_of_any_size(daemon, box, size):
    """An empty one of terabytes takes no longer than its holes are many."""
    for node in ("src", "dst"):
        path = harness.make_image(box / f"{node}.img", size)
        daemon.add_file(path, node, discard="unmap")
    if size:
        with open(box / "src.img", "r+b") as file:
            file.seek(size - 512)
            file.write(b"t" * 512)
    daemon.cmd("blockdev-mirror", job_id="m", device="src", target="dst",
               sync="full")
    ready = wait_event(daemon, "BLOCK_JOB_READY", device="m")["data"]
    assert ready["len"] == ready["offset"] == size
    daemon.cmd("block-job-complete", device="m")
    wait_status(daemon, "m", "null")
    with open(box / "dst.img", "rb") as file:
        file.seek(max(size - 512, 0))
        assert file.read() == (b"t" * 512 if size else b"")


@pytest.mark.ours("the reference does not tell rates")
def test_rates_tell_how_far_it_is(pair):
    pair.mirror(speed=1 << 20)

    def job():
        return pair.daemon.cmd("query-block-jobs")[0]["progress"]

    harness.wait_until(lambda: job()["copy-rate"] > 0)
    seen = job()
    assert 0 < seen["remaining"] <= SIZE and seen["converging"]
    assert seen["estimated-ms"] > 0 and not seen["stalled"]
    pair.daemon.cmd("block-job-set-speed", device="m", speed=0)
    pair.ready()
    harness.wait_until(lambda: job()["remaining"] == 0)
    assert job()["estimated-ms"] == 0


def test_pause_and_resume(pair):
    pair.mirror(speed=1 << 20)
    pair.daemon.cmd("job-pause", id="m")
    wait_status(pair.daemon, "m", "paused")
    pair.daemon.cmd("block-job-set-speed", device="m", speed=0)
    job = pair.daemon.cmd("query-block-jobs")[0]
    assert job["paused"] and not job["busy"]
    pair.daemon.cmd("job-resume", id="m")
    pair.ready()
    pair.daemon.cmd("job-pause", id="m")
    wait_status(pair.daemon, "m", "standby")
    pair.daemon.cmd("block-job-complete", device="m")
    pair.daemon.cmd("job-resume", id="m")
    wait_status(pair.daemon, "m", "null")
    assert sha(pair.source) == sha(pair.target)


@pytest.mark.ours("the reference stops all users until it is finalized")
def test_finalize_comes_later_and_includes_late_writes(pair):
    pair.mirror(auto_finalize=False, auto_dismiss=False)
    pair.ready()
    pair.daemon.cmd("block-job-complete", device="m")
    wait_event(pair.daemon, "BLOCK_JOB_PENDING", id="m")
    with pair.connect() as client:
        assert client.write(123 * 512, b"late" * 128) == 0
        pair.daemon.cmd("block-job-finalize", id="m")
        wait_status(pair.daemon, "m", "concluded")
        assert sha(pair.source) == sha(pair.target)
        assert client.write(0, b"after") == 0
        assert pair.target.read_bytes()[:5] == b"after"
    assert pair.source.read_bytes()[:5] != b"after"
    job, = pair.daemon.cmd("query-jobs")
    assert job["status"] == "concluded" and "error" not in job
    pair.daemon.cmd("job-dismiss", id="m")


def test_cancel_while_pending(pair):
    pair.mirror(auto_finalize=False)
    pair.ready()
    pair.daemon.cmd("block-job-complete", device="m")
    wait_event(pair.daemon, "BLOCK_JOB_PENDING", id="m")
    pair.daemon.cmd("job-cancel", id="m")
    wait_event(pair.daemon, "BLOCK_JOB_CANCELLED", device="m")
    with pair.connect() as client:
        assert client.write(0, b"still") == 0
    assert pair.source.read_bytes()[:5] == b"still"


def test_zeroes_in_data_do_not_cost_a_second_read(daemon, box):
    """Data on its way to a socket, in which a buffer should look for them."""
    half = 512 << 10
    source = harness.make_image(box / "source.img", SIZE, {
        offset: harness.random_bytes(half) + bytes(half)
        for offset in range(0, SIZE, 2 * half)})
    pair = Pair(daemon, box, source)
    daemon.add_export("dst", writable=True)
    daemon.execute("blockdev-add", {
        "driver": "nbd", "node-name": "far", "export": "dst",
        "server": {"type": "unix", "path": str(daemon.nbd_path)}})
    pair.mirror(target="far")
    pair.ready()
    stats, = [node["stats"] for node in daemon.cmd(
        "query-blockstats", query_nodes=True) if node["node-name"] == "src"]
    assert SIZE <= stats["rd_bytes"] < SIZE * 5 // 4
    daemon.cmd("job-complete", id="m")
    wait_event(daemon, "BLOCK_JOB_COMPLETED", device="m")
    assert sha(pair.target) == sha(source)
    assert pair.target.stat().st_blocks * 512 < SIZE * 3 // 4
