# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirror jobs, under load: whole copies, errors, cancel, pivot."""
import hashlib
import json
import random
import threading

import pytest

import harness
import rawnbd as nbd

SIZE = 8 << 20


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wait_event(daemon, name, **wanted):
    return daemon.qmp.take_event(name, **wanted)


def wait_status(daemon, job, status):
    return wait_event(daemon, "JOB_STATUS_CHANGE", id=job, status=status)


def job_events(daemon):
    """All of them so far, those taken included: (name, status)."""
    messages = [json.loads(text) for text in daemon.qmp.raw]
    return [(m["event"], m["data"].get("status")) for m in messages
            if "JOB" in m.get("event", "")]


class Pair:
    """A daemon with a source that is served, and a target file."""

    def __init__(self, daemon, box, source, size=None):
        self.daemon = daemon
        self.source = source
        self.target = harness.make_image(box / "target.img",
                                         size or source.stat().st_size)
        daemon.serve_file(source, "src", discard="unmap")
        daemon.add_file(self.target, "dst", discard="unmap")

    def mirror(self, **arguments):
        arguments = {"job-id": "m", "device": "src", "target": "dst",
                     "sync": "full", **arguments}
        return self.daemon.execute("blockdev-mirror", {
            k.replace("_", "-"): v for k, v in arguments.items()})

    def ready(self):
        return wait_event(self.daemon, "BLOCK_JOB_READY", device="m")

    def connect(self):
        return nbd.RawNbd(self.daemon.nbd_path).go("src")


@pytest.fixture
def noise(box):
    return harness.make_image(box / "source.img", SIZE,
                              {1 << 20: harness.random_bytes(5 << 20)})


@pytest.fixture
def pair(daemon, box, noise):
    return Pair(daemon, box, noise)


class Writers:
    """Connections that write here and there until they are stopped."""

    def __init__(self, pair, count=3, seed=7):
        self.stop = threading.Event()
        self.errors = []
        self.writes = 0
        self.threads = [
            threading.Thread(target=self.run, args=(pair, seed + i))
            for i in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, pair, seed):
        rng = random.Random(seed)
        try:
            with pair.connect() as client:
                while not self.stop.is_set():
                    self.one(client, rng)
                    self.writes += 1
        except Exception as error:
            self.errors.append(error)

    @staticmethod
    def one(client, rng):
        offset = rng.randrange(SIZE // 512) * 512
        kind = rng.randrange(10)
        if kind == 0:
            size = min(rng.randrange(1, 300) * 512, SIZE - offset)
            assert client.request(nbd.CMD_WRITE_ZEROES, offset, size) == 0
        elif kind == 1:
            size = min(rng.randrange(1, 300) * 512, SIZE - offset)
            assert client.request(nbd.CMD_TRIM, offset, size) == 0
        else:
            size = min(rng.choice((512, 4096, 65536)), SIZE - offset)
            assert client.write(offset, rng.randbytes(size)) == 0

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        assert self.errors == []
        assert self.writes > 0


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
    pair.daemon.cmd("block-job-complete", device="m")
    wait_status(pair.daemon, "m", "null")
    assert sha(pair.source) == sha(pair.target)


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
    assert "in use" in pair.daemon.error("blockdev-del",
                                         node_name="src").desc
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
    pair.daemon.cmd("block-job-complete", device="m")
    wait_status(pair.daemon, "m", "null")
    assert sha(pair.source) == sha(pair.target)


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


# Errors.

@pytest.fixture
def faulty(daemons, box, noise):
    """Source and target behind fault nodes "sf" and "tf"."""
    def make(side, **rule):
        daemon = daemons("--allow-fault-injection")
        target = harness.make_image(box / "target.img", SIZE)
        for name, path, mine in (("src", noise, "source"),
                                 ("dst", target, "target")):
            rules = [rule] if side == mine else []
            daemon.execute("blockdev-add", {
                "driver": "fault", "node-name": name, "seed": 1,
                "rules": rules, "image": {
                    "driver": "file", "node-name": f"{name}-file",
                    "filename": str(path)}})
        daemon.start_nbd()
        daemon.add_export("src", writable=True)
        pair = Pair.__new__(Pair)
        pair.daemon, pair.source, pair.target = daemon, noise, target
        return pair

    return make


@pytest.mark.ours("the reference has no fault nodes")
@pytest.mark.parametrize("side", ("source", "target"))
def test_report_ends_the_job(faulty, side):
    op = "read" if side == "source" else "write"
    pair = faulty(side, op=op, after=1)
    pair.mirror()
    error = wait_event(pair.daemon, "BLOCK_JOB_ERROR", device="m")["data"]
    assert (error["operation"], error["action"]) == (op, "report")
    end = wait_event(pair.daemon, "BLOCK_JOB_COMPLETED", device="m")["data"]
    assert end["error"] == "Input/output error"
    assert end["offset"] < end["len"]
    wait_status(pair.daemon, "m", "null")


@pytest.mark.ours("the reference has no fault nodes")
@pytest.mark.parametrize("side", ("source", "target"))
def test_stop_waits_and_goes_on(faulty, side):
    op = "read" if side == "source" else "write"
    pair = faulty(side, op=op, after=1, count=1, errno="ENOSPC")
    pair.mirror(**{f"on_{side}_error": "enospc"})
    error = wait_event(pair.daemon, "BLOCK_JOB_ERROR", device="m")["data"]
    assert error["action"] == "stop"
    wait_status(pair.daemon, "m", "paused")
    job, = pair.daemon.cmd("query-block-jobs")
    assert job["io-status"] == "nospace" and job["paused"]
    pair.daemon.cmd("job-resume", id="m")
    pair.ready()
    pair.daemon.cmd("block-job-complete", device="m")
    wait_status(pair.daemon, "m", "null")
    assert sha(pair.source) == sha(pair.target)


@pytest.mark.ours("the reference has no fault nodes")
def test_ignore_tries_again(faulty):
    pair = faulty("target", op="write", count=5)
    pair.mirror(on_target_error="ignore")
    error = wait_event(pair.daemon, "BLOCK_JOB_ERROR", device="m")["data"]
    assert error["action"] == "ignore"
    pair.ready()
    pair.daemon.cmd("block-job-complete", device="m")
    wait_status(pair.daemon, "m", "null")
    assert sha(pair.source) == sha(pair.target)


@pytest.mark.ours("the reference has no fault nodes")
def test_failed_flush_is_no_completion(faulty):
    pair = faulty("target", op="flush", count=1)
    pair.mirror(on_target_error="stop")
    error = wait_event(pair.daemon, "BLOCK_JOB_ERROR", device="m")["data"]
    assert (error["operation"], error["action"]) == ("write", "stop")
    pair.daemon.cmd("job-resume", id="m")
    pair.ready()
    pair.daemon.cmd("block-job-complete", device="m")
    end = wait_event(pair.daemon, "BLOCK_JOB_COMPLETED", device="m")
    assert "error" not in end["data"]


@pytest.mark.ours("the reference has no fault nodes")
@pytest.mark.parametrize("mode", ("background", "write-blocking"))
def test_what_a_failed_flush_lost_is_copied_again(faulty, mode):
    """The next flush says nothing about it; first all of the disk, then what
    a guest wrote."""
    pair = faulty("target", op="flush", count=1)
    daemon = pair.daemon
    pair.mirror(on_target_error="stop", copy_mode=mode)
    wait_status(daemon, "m", "paused")
    pair.target.write_bytes(bytes(SIZE))
    daemon.cmd("job-resume", id="m")
    pair.ready()
    with pair.connect() as client:
        daemon.execute("blockdev-reopen", {"options": [{
            "driver": "fault", "node-name": "dst", "seed": 1,
            "image": "dst-file", "rules": [{"op": "flush", "count": 1}]}]})
        assert client.write(SIZE - 4096, b"w" * 4096) == 0
        daemon.cmd("block-job-complete", device="m")
        wait_status(daemon, "m", "standby")
        assert sha(pair.source) == sha(pair.target)
        with open(pair.target, "r+b") as file:
            file.seek(SIZE - 4096)
            file.write(bytes(4096))
        daemon.cmd("job-resume", id="m")
        end = wait_event(daemon, "BLOCK_JOB_COMPLETED", device="m")["data"]
    assert "error" not in end and end["len"] > 2 * SIZE
    assert sha(pair.source) == sha(pair.target)


@pytest.mark.ours("the reference has no fault nodes")
@pytest.mark.parametrize("end", ("complete", "cancel", "finalize"))
def test_target_that_is_never_flushed_is_never_done(faulty, end):
    pair = faulty("target", op="flush", after=1)
    daemon = pair.daemon
    pair.mirror(on_target_error="ignore", auto_finalize=end != "finalize")
    pair.ready()
    if end == "cancel":
        daemon.cmd("block-job-cancel", device="m")
    else:
        daemon.cmd("block-job-complete", device="m")
    for _ in range(3):
        wait_event(daemon, "BLOCK_JOB_ERROR", device="m", action="ignore")
    job, = daemon.cmd("query-block-jobs")
    assert job["status"] == "ready"
    daemon.cmd("job-cancel", id="m")
    wait_event(daemon, "BLOCK_JOB_CANCELLED", device="m")


def count_flushes(daemon, size):
    """Those of the target, until a mirror of data is ready."""
    for node in ("src", "dst"):
        daemon.execute("blockdev-add", {
            "driver": "null-co", "node-name": node, "size": size,
            "read-zeroes": node == "dst"})
    daemon.execute("blockdev-mirror", {
        "job-id": "m", "device": "src", "target": "dst", "sync": "full"})
    wait_event(daemon, "BLOCK_JOB_READY", device="m")
    stats, = [each["stats"] for each in daemon.cmd(
        "query-blockstats", query_nodes=True) if each["node-name"] == "dst"]
    return stats["flush_operations"]


@pytest.mark.ours("the reference flushes at the end only")
def test_target_is_flushed_while_the_copy_goes_on(daemon):
    assert 4 <= count_flushes(daemon, 1 << 30) <= 10  # 128 MiB, and the last


@pytest.mark.parametrize("mib", [128, 160, 255])
def test_target_is_not_flushed_twice_at_the_end(daemon, mib):
    """Each flush is a round trip before the mirror is ready."""
    assert count_flushes(daemon, mib << 20) == 1


@pytest.mark.ours("the reference flushes at the end only")
def test_target_is_flushed_while_guests_write_to_both_sides(daemon):
    """What is not flushed has to be copied again after a loss."""
    for node in ("src", "dst"):
        daemon.execute("blockdev-add", {
            "driver": "null-co", "node-name": node, "size": 1 << 30,
            "read-zeroes": True})
    daemon.start_nbd()
    daemon.add_export("src", writable=True)
    daemon.execute("blockdev-mirror", {
        "job-id": "m", "device": "src", "target": "dst", "sync": "none",
        "copy-mode": "write-blocking"})
    wait_event(daemon, "BLOCK_JOB_READY", device="m")

    def flushes():
        return [each["stats"]["flush_operations"] for each in daemon.cmd(
            "query-blockstats", query_nodes=True)
            if each["node-name"] == "dst"][0]
    before = flushes()
    with nbd.RawNbd(daemon.nbd_path).go("src") as client:
        for i in range(9):
            assert client.write(i << 24, bytes(range(256)) * 65536) == 0
        harness.wait_until(lambda: flushes() > before)


@pytest.mark.ours("the reference has no fault nodes")
def test_target_that_fails_does_not_fail_blocking_writes(faulty):
    pair = faulty("target", op="write", after=200, errno="EIO")
    pair.mirror(copy_mode="write-blocking", on_target_error="stop")
    pair.ready()
    with pair.connect() as client:
        for i in range(400):
            assert client.write(i * 512, b"w" * 512) == 0
    wait_event(pair.daemon, "BLOCK_JOB_ERROR", device="m", action="stop")
    pair.daemon.cmd("block-job-cancel", device="m", force=True)
    wait_event(pair.daemon, "BLOCK_JOB_CANCELLED", device="m")
    assert pair.source.read_bytes()[:400 * 512] == b"w" * (400 * 512)


@pytest.mark.ours("the reference has no fault nodes")
def test_finalize_does_not_wait_for_a_pause_of_the_guests(faulty):
    """There is always something to be copied while they write."""
    pair = faulty("target", **{"op": "write", "errno": "", "delay-ms": 100})
    pair.mirror(auto_finalize=False, auto_dismiss=False)
    pair.ready()
    pair.daemon.cmd("block-job-complete", device="m")
    wait_event(pair.daemon, "BLOCK_JOB_PENDING", id="m")
    writers = Writers(pair)
    harness.wait_until(lambda: writers.writes > 20)
    pair.daemon.cmd("block-job-finalize", id="m")
    wait_status(pair.daemon, "m", "concluded")
    writers.finish()
    job, = pair.daemon.cmd("query-jobs")
    assert job["status"] == "concluded" and "error" not in job
    pair.daemon.cmd("job-dismiss", id="m")


@pytest.mark.ours("the reference has no fault nodes")
def test_pivot_waits_for_a_slow_target(faulty):
    """A last pass that takes too long is called off, and tried again."""
    pair = faulty("target", op="flush", after=2, count=1, **{
        "delay-ms": 3000, "errno": ""})
    pair.mirror()
    pair.ready()
    with pair.connect() as client:
        assert client.write(0, b"x" * 512) == 0
        pair.daemon.cmd("block-job-complete", device="m")
        wait_status(pair.daemon, "m", "null")
        assert client.write(512, b"y" * 512) == 0
    assert pair.target.read_bytes()[:1024] == b"x" * 512 + b"y" * 512


# A target behind a network that breaks.

@pytest.fixture
def remote(daemons, box, noise, proxies):
    """The target is an export of another daemon, behind a proxy."""
    other = daemons()
    target = harness.make_image(box / "target.img", SIZE)
    other.serve_file(target, "disk", discard="unmap")
    near = box / "proxy.sock"
    pair = Pair.__new__(Pair)
    pair.proxy = proxies(f"unix:{near}", f"unix:{other.nbd_path}")
    pair.daemon = daemons()
    pair.source, pair.target = noise, target
    pair.daemon.serve_file(noise, "src", discard="unmap")
    pair.daemon.execute("blockdev-add", {
        "driver": "nbd", "node-name": "dst", "export": "disk",
        "server": {"type": "unix", "path": str(near)}})
    return pair


@pytest.mark.ours("the reference waits in another way")
@pytest.mark.parametrize("mode", ("background", "write-blocking"))
def test_network_cut_fails_the_job_and_frees_all(remote, mode):
    remote.mirror(copy_mode=mode)
    remote.ready()
    remote.proxy.refuse()
    remote.proxy.cut()
    with remote.connect() as client:
        assert client.write(0, b"x" * 512) == 0
        end = wait_event(remote.daemon, "BLOCK_JOB_COMPLETED", device="m")
        assert end["data"]["error"] == "Input/output error"
        wait_status(remote.daemon, "m", "null")
        assert client.write(512, b"y" * 512) == 0
    remote.daemon.cmd("blockdev-del", node_name="dst")
    assert remote.source.read_bytes()[:1024] == b"x" * 512 + b"y" * 512


@pytest.mark.ours("the reference waits in another way")
def test_network_cut_can_stop_and_go_on(remote):
    remote.mirror(on_target_error="stop", speed=1 << 20)
    wait_status(remote.daemon, "m", "running")
    remote.proxy.refuse()
    remote.proxy.cut()
    wait_event(remote.daemon, "BLOCK_JOB_ERROR", device="m", action="stop")
    wait_status(remote.daemon, "m", "paused")
    remote.proxy.accept()
    remote.daemon.cmd("block-job-set-speed", device="m", speed=0)

    def resumed():
        """It stops again as long as the connection is not there."""
        job, = remote.daemon.cmd("query-block-jobs")
        if job["paused"]:
            remote.daemon.cmd("job-resume", id="m")
        return job["ready"]

    harness.wait_until(resumed)
    remote.daemon.cmd("block-job-complete", device="m")
    end = wait_event(remote.daemon, "BLOCK_JOB_COMPLETED", device="m")
    assert "error" not in end["data"]
    assert sha(remote.source) == sha(remote.target)


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
