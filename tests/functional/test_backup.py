# SPDX-License-Identifier: GPL-2.0-or-later
"""Backups: one point in time while others write, bitmaps, transactions."""
import random

import pytest

import harness
import rawnbd as nbd

SIZE = 4 << 20
GRANULARITY = 64 << 10


class Disk:
    """A source that is exported and written, and images to back it up to."""

    def __init__(self, daemon, box, connect, name="src"):
        self.daemon, self.box, self.name = daemon, box, name
        self.path = harness.make_image(box / f"{name}.img", SIZE,
                                       {0: harness.random_bytes(SIZE // 2)})
        daemon.add_file(self.path, name)
        daemon.add_export(name, name, writable=True)
        self.nbd = connect(daemon.nbd_path, name)
        self.targets = 0

    def contents(self):
        return self.path.read_bytes()

    def write(self, rng, count=1):
        for _ in range(count):
            length = rng.choice((512, 4096, 70000, 200000))
            offset = rng.randrange(0, SIZE - length)
            if rng.random() < 0.3:
                self.nbd.zero(length, offset)
            else:
                self.nbd.pwrite(rng.randbytes(length), offset)

    def target(self, contents=None, fault=None, size=SIZE):
        """Adds a node for a target; returns its name and its path."""
        self.targets += 1
        name = f"{self.name}-t{self.targets}"
        path = harness.make_image(self.box / f"{name}.img", size,
                                  {0: contents} if contents else None)
        options = {"driver": "file", "filename": str(path)}
        if fault is not None:
            options = {"driver": "fault", "image": options, "rules": fault}
        self.daemon.execute("blockdev-add", {**options, "node-name": name})
        return name, path

    def backup(self, target, job="b0", **options):
        options.setdefault("sync", "full")
        self.daemon.execute("blockdev-backup", {
            "job-id": job, "device": self.name, "target": target,
            **{k.replace("_", "-"): v for k, v in options.items()}})

    def bitmap(self, name="bm"):
        node = next(n for n in self.daemon.cmd("query-named-block-nodes")
                    if n["node-name"] == self.name)
        return next(b for b in node["dirty-bitmaps"] if b["name"] == name)


@pytest.fixture
def disk(daemons, box, connect_nbd):
    daemon = daemons("--allow-fault-injection")
    daemon.start_nbd()
    return Disk(daemon, box, connect_nbd)


def ended(daemon, job="b0"):
    """Waits for the end; returns the data of BLOCK_JOB_COMPLETED."""
    done = daemon.qmp.take_event("BLOCK_JOB_COMPLETED", device=job)["data"]
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id=job, status="null")
    return done


def job_events(daemon, job):
    """All events about a job so far, in short."""
    found = []
    for event in daemon.qmp.events:
        data = event.get("data", {})
        if job in (data.get("id"), data.get("device")):
            found.append(data.get("status", event["event"]))
    return found


def wait_until_copied(disk, job="b0"):
    """All is in the target; only a flush is missing."""
    def copied():
        info, = disk.daemon.cmd("query-block-jobs")
        assert info["device"] == job
        return info["offset"] == info["len"]
    harness.wait_until(copied)


# The copy.

def test_full_backup_tells_its_life(disk):
    daemon = disk.daemon
    name, path = disk.target()
    disk.backup(name)
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id="b0", status="null")
    assert job_events(daemon, "b0") == [
        "created", "running", "waiting", "pending", "BLOCK_JOB_COMPLETED",
        "concluded"]
    done = daemon.qmp.take_event("BLOCK_JOB_COMPLETED", device="b0")["data"]
    assert done == {"type": "backup", "device": "b0", "len": SIZE,
                    "offset": SIZE, "speed": 0}
    assert path.read_bytes() == disk.contents()
    assert path.stat().st_blocks * 512 < SIZE
    daemon.cmd("blockdev-del", node_name=name)
    names = {n["node-name"] for n in daemon.cmd("query-named-block-nodes")}
    assert names == {"src"}


@pytest.mark.parametrize("seed", range(4))
def test_point_in_time_under_writes(disk, seed):
    rng = random.Random(seed)
    before = disk.contents()
    name, path = disk.target(rng.randbytes(SIZE) if seed % 2 else None)
    disk.backup(name, speed=512 << 10)
    disk.write(rng, 60)
    disk.daemon.cmd("block-job-set-speed", device="b0", speed=0)
    disk.write(rng, 20)
    assert "error" not in ended(disk.daemon)
    assert path.read_bytes() == before
    assert disk.contents() != before


def test_sync_none_keeps_what_is_overwritten(disk):
    before = disk.contents()
    name, path = disk.target()
    disk.backup(name, sync="none")
    disk.nbd.pwrite(b"n" * 4096, 128 << 10)
    disk.nbd.zero(GRANULARITY, 512 << 10)
    disk.daemon.cmd("job-cancel", id="b0")
    disk.daemon.qmp.take_event("BLOCK_JOB_CANCELLED", device="b0")
    disk.daemon.qmp.take_event("JOB_STATUS_CHANGE", id="b0", status="null")
    copied = path.read_bytes()
    for offset in range(0, SIZE, GRANULARITY):
        part = copied[offset:offset + GRANULARITY]
        if offset in (128 << 10, 512 << 10):
            assert part == before[offset:offset + GRANULARITY]
        else:
            assert part == bytes(GRANULARITY)


def test_pause_keeps_the_point_in_time(disk):
    before = disk.contents()
    name, path = disk.target()
    disk.backup(name, speed=1 << 20)
    disk.daemon.cmd("job-pause", id="b0")
    disk.daemon.qmp.take_event("JOB_STATUS_CHANGE", id="b0", status="paused")
    job, = disk.daemon.cmd("query-block-jobs")
    assert job["paused"] and not job["busy"] and job["status"] == "paused"
    disk.write(random.Random(1), 30)
    disk.daemon.cmd("block-job-set-speed", device="b0", speed=0)
    disk.daemon.cmd("job-resume", id="b0")
    assert "error" not in ended(disk.daemon)
    assert path.read_bytes() == before


def test_nodes_in_use_are_kept(disk):
    daemon = disk.daemon
    name, _ = disk.target()
    disk.backup(name, sync="none")
    for node in ("src", name):
        assert "in use" in daemon.error("blockdev-del", node_name=node).desc
        assert "in use" in daemon.error("block_resize", node_name=node,
                                        size=SIZE * 2).desc
    daemon.cmd("job-cancel", id="b0")
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id="b0", status="null")
    daemon.cmd("blockdev-del", node_name=name)


@pytest.mark.parametrize("first", ["b0", "b1"])
def test_backups_of_one_source_have_moments_of_their_own(disk, first):
    rng = random.Random(3)
    jobs = {}
    for job in ("b0", "b1"):
        before = disk.contents()
        name, path = disk.target()
        disk.backup(name, job=job, speed=1 << 16)
        jobs[job] = (before, path)
        disk.write(rng, 10)
    for job in sorted(jobs, reverse=first == "b1"):
        disk.daemon.cmd("block-job-set-speed", device=job, speed=0)
        assert "error" not in ended(disk.daemon, job)
        disk.write(rng, 10)
    for before, path in jobs.values():
        assert path.read_bytes() == before


def test_backups_of_one_source_end_at_once(disk):
    daemon = disk.daemon
    jobs = [f"b{i}" for i in range(6)]
    disk.nbd.pwrite(b"x" * 512, 0)
    for job in jobs:
        disk.backup(disk.target()[0], job=job, sync="none")
    for request in [daemon.qmp.send("job-cancel", {"id": j}) for j in jobs]:
        assert daemon.qmp.reply(request)["return"] == {}
    for job in jobs:
        daemon.qmp.take_event("JOB_STATUS_CHANGE", id=job, status="null")
    disk.nbd.pwrite(b"y" * 512, 0)
    assert disk.nbd.pread(512, 0) == b"y" * 512


def test_backups_do_not_feed_each_other(disk):
    """In a circle the first write would wait for itself."""
    daemon = disk.daemon
    name, _ = disk.target()
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "over-src",
                                    "file": "src"})
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "over-dst",
                                    "file": name})
    disk.backup("over-dst", sync="none")
    error = daemon.error("blockdev-backup", **{
        "job-id": "b1", "device": name, "target": "over-src", "sync": "full"})
    assert "would wait for itself" in error.desc
    assert f"'over-src' comes to the source '{name}'" in error.desc


def test_nodes_of_a_job_are_no_others(disk):
    daemon = disk.daemon
    first, _ = disk.target()
    second, _ = disk.target()
    busy = "Node '{}' is busy: block device is in use by block job: {}"
    disk.backup(first, sync="none", filter_node_name="top")
    for source, target, node in (("top", second, "top"),
                                 (first, second, first),
                                 (second, first, first),
                                 (second, "src", "src")):
        arguments = {"job-id": "b1", "device": source, "target": target,
                     "sync": "full"}
        for command in ("blockdev-backup", "blockdev-mirror"):
            error = daemon.error(command, **arguments)
            assert error.desc == busy.format(node, "backup"), (command, source)
    daemon.cmd("job-cancel", id="b0")
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id="b0", status="null")
    daemon.execute("blockdev-mirror", {
        "job-id": "m", "device": "src", "target": first, "sync": "full",
        "filter-node-name": "top"})
    for source, target, node in (("src", second, "src"),
                                 ("top", second, "top"),
                                 (second, "src", "src")):
        error = daemon.error("blockdev-backup", **{
            "job-id": "b1", "device": source, "target": target,
            "sync": "full"})
        assert error.desc == busy.format(node, "mirror")
    error = daemon.error("blockdev-mirror", **{
        "job-id": "n", "device": "top", "target": second, "sync": "full"})
    assert error.desc == busy.format("top", "mirror")


def test_nobody_can_write_past_the_filter(disk):
    """Users from before are above it; new ones of the node are below."""
    daemon = disk.daemon
    name, _ = disk.target()
    disk.backup(name, sync="none", filter_node_name="top")
    error = daemon.error("block-export-add", type="nbd", id="late",
                         node_name="src", name="late", writable=True)
    assert "Permission conflict on node 'src'" in error.desc
    daemon.cmd("block-export-add", type="nbd", id="late", node_name="src",
               name="late")
    daemon.cmd("block-export-add", type="nbd", id="above", node_name="top",
               name="above", writable=True)
    daemon.cmd("block-export-del", id="above")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="above")
    daemon.cmd("job-cancel", id="b0")
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id="b0", status="null")
    assert "top" not in str(daemon.cmd("query-named-block-nodes"))


def test_reopened_users_stay_above_the_filter(disk):
    daemon = disk.daemon
    before = disk.contents()
    name, path = disk.target()
    daemon.cmd("object-add", qom_type="throttle-group", id="g")
    options = {"driver": "throttle", "node-name": "slow", "file": "src",
               "throttle-group": "g"}
    daemon.execute("blockdev-add", options)
    disk.backup(name, speed=1 << 16)
    daemon.cmd("blockdev-reopen", options=[options])
    daemon.add_export("slow", "slow", writable=True)
    daemon.cmd("blockdev-reopen", options=[options])
    disk.nbd.pwrite(b"new" * 512, SIZE - 8192)
    daemon.cmd("block-job-set-speed", device="b0", speed=0)
    assert "error" not in ended(daemon)
    assert path.read_bytes() == before
    daemon.cmd("blockdev-reopen", options=[options])


def test_source_with_a_frozen_bitmap_is_reopened(disk):
    daemon = disk.daemon
    name, _ = disk.target()
    image = harness.make_image(disk.box / "plain.img", SIZE)
    options = {"driver": "raw", "node-name": "raw", "file": "plain"}
    daemon.add_file(image, "plain")
    daemon.execute("blockdev-add", options)
    daemon.cmd("block-dirty-bitmap-add", node="raw", name="bm")
    daemon.execute("blockdev-backup", {
        "job-id": "b0", "device": "raw", "target": name, "bitmap": "bm",
        "sync": "incremental", "auto-finalize": False})
    daemon.qmp.take_event("BLOCK_JOB_PENDING", id="b0")
    daemon.cmd("blockdev-reopen", options=[options])
    for node in ("raw", "plain"):
        daemon.error("block_resize", node_name=node, size=2 * SIZE)
        daemon.error("block_resize", node_name=node, size=SIZE // 2)
    daemon.cmd("job-finalize", id="b0")
    assert "error" not in ended(daemon)


def test_quit_with_a_running_backup(disk):
    name, _ = disk.target()
    disk.backup(name, speed=1 << 16)
    disk.daemon.cmd("quit")
    assert disk.daemon.wait() == 0


# Errors.

def test_write_error_is_reported(disk):
    name, _ = disk.target(fault=[{"op": "write"}])
    disk.backup(name)
    assert disk.daemon.qmp.take_event("BLOCK_JOB_ERROR")["data"] == {
        "device": "b0", "operation": "write", "action": "report"}
    assert ended(disk.daemon)["error"] == "Input/output error"


def test_stopped_by_lack_of_space_and_resumed(disk):
    daemon, before = disk.daemon, disk.contents()
    name, path = disk.target(fault=[{"op": "write", "errno": "ENOSPC",
                                     "count": 1}])
    disk.backup(name, on_target_error="enospc")
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id="b0", status="paused")
    job, = daemon.cmd("query-block-jobs")
    assert job["io-status"] == "nospace" and job["paused"]
    daemon.cmd("block-job-resume", device="b0")
    assert "error" not in ended(daemon)
    assert path.read_bytes() == before


@pytest.mark.parametrize("policy", ["report", "ignore"])
def test_late_failure_of_a_flush_is_no_completion(disk, policy):
    """The flush outlives the time that the job waits for it."""
    name, _ = disk.target(fault=[{"op": "flush", "delay-ms": 1500, "count": 1}])
    disk.backup(name, on_target_error=policy)
    error = disk.daemon.qmp.take_event("BLOCK_JOB_ERROR", device="b0")["data"]
    assert (error["operation"], error["action"]) == ("write", policy)
    assert ("error" in ended(disk.daemon)) == (policy == "report")


def test_what_a_failed_flush_lost_is_copied_again(disk):
    name, path = disk.target(fault=[{"op": "flush", "count": 1}])
    disk.backup(name, on_target_error="stop")
    disk.daemon.qmp.take_event("JOB_STATUS_CHANGE", id="b0", status="paused")
    path.write_bytes(bytes(SIZE))
    before = disk.contents()
    disk.nbd.pwrite(b"w" * 4096, SIZE // 2 - 4096)
    disk.daemon.cmd("job-resume", id="b0")
    assert "error" not in ended(disk.daemon)
    assert path.read_bytes() == before


def test_what_a_failed_flush_lost_and_a_guest_overwrote_fails(disk):
    """It is nowhere any more; no policy brings it back."""
    name, _ = disk.target(fault=[{"op": "flush", "delay-ms": 1500, "count": 1}])
    disk.backup(name, on_target_error="ignore")
    wait_until_copied(disk)
    disk.nbd.pwrite(b"w" * 4096, 0)
    error = disk.daemon.qmp.take_event("BLOCK_JOB_ERROR", device="b0")["data"]
    assert error["action"] == "report"
    assert "may have lost bytes 0 to 65535" in ended(disk.daemon)["error"]


def test_a_write_goes_on_when_its_copy_fails(disk):
    name, _ = disk.target(fault=[{"op": "write"}, {"op": "write-zeroes"}])
    disk.backup(name, sync="none")
    disk.nbd.pwrite(b"w" * 4096, 0)
    assert disk.contents()[:4096] == b"w" * 4096
    assert "could not be copied" in ended(disk.daemon)["error"]


REFUSALS = [
    ({"sync": "incremental"},
     "must provide a valid bitmap name for 'incremental' sync mode"),
    ({"sync": "bitmap"},
     "must provide a valid bitmap name for 'bitmap' sync mode"),
    ({"sync": "bitmap", "bitmap": "zz", "bitmap-mode": "never"},
     "Bitmap 'zz' could not be found"),
    ({"sync": "full", "bitmap": "zz"}, "Bitmap 'zz' could not be found"),
    ({"sync": "none", "bitmap": "zz", "bitmap-mode": "always"},
     "Bitmap 'zz' could not be found"),
    ({"sync": "incremental", "device": "nope"},
     "Cannot find device='nope' nor node-name='nope'"),
    ({"sync": "bitmap", "bitmap": "bm"},
     "Bitmap sync mode must be given when providing a bitmap"),
    ({"sync": "incremental", "bitmap": "bm", "bitmap-mode": "always"},
     "Bitmap sync mode must be 'on-success' when using sync mode "
     "'incremental'"),
    ({"sync": "full", "bitmap-mode": "always"},
     "Cannot specify bitmap sync mode without a bitmap"),
    ({"sync": "none", "bitmap": "bm", "bitmap-mode": "always"},
     "sync mode 'none' does not produce meaningful bitmap outputs"),
    ({"sync": "full", "bitmap": "bm", "bitmap-mode": "never"},
     "Bitmap sync mode 'never' has no meaningful effect when combined with "
     "sync mode 'full'"),
    ({"sync": "full", "target": "src"},
     "Source and target cannot be the same"),
    ({"sync": "full", "target": "small"},
     "Source and target image have different sizes"),
    ({"sync": "full", "target": "nope"},
     "Cannot find device='nope' nor node-name='nope'"),
    ({"sync": "full", "device": "nope"},
     "Cannot find device='nope' nor node-name='nope'"),
    ({"sync": "full", "job-id": "0j"}, "Invalid job ID '0j'"),
    ({"sync": "full", "speed": -1},
     "Parameter 'speed' expects a non-negative value"),
    ({"sync": "full", "x-perf": {"max-workers": 0}},
     "max-workers must be between 1 and 2147483647"),
    ({"sync": "full", "x-perf": {"max-workers": 1 << 31}},
     "max-workers must be between 1 and 2147483647"),
    ({"sync": "full", "x-perf": {"max-chunk": -1}},
     "max-chunk must be zero (which means no limit) or positive"),
    ({"sync": "full", "x-perf": {"max-chunk": 65535}},
     "Required max-chunk (65535) is less than backup cluster size (65536)"),
    ({"sync": "full", "x-perf": {"min-cluster-size": 3 << 16}},
     "min-cluster-size needs to be a power of 2 below 8 EiB"),
    ({"sync": "full", "x-perf": {"min-cluster-size": 1 << 63}},
     "min-cluster-size needs to be a power of 2 below 8 EiB"),
    ({"sync": "full", "x-perf": {"max-chunk": 65536,
                                 "min-cluster-size": 1 << 20}},
     "Required max-chunk (65536) is less than backup cluster size (1048576)"),
]


def test_what_cannot_work_is_refused_and_leaves_nothing(disk):
    daemon = disk.daemon
    name, _ = disk.target()
    daemon.cmd("blockdev-add", driver="null-co", node_name="small", size=512)
    daemon.cmd("block-dirty-bitmap-add", node="src", name="bm")
    before = daemon.cmd("query-named-block-nodes")
    for options, message in REFUSALS:
        arguments = {"job-id": "b0", "device": "src", "target": name, **options}
        error = daemon.error("blockdev-backup", **{
            k.replace("-", "_"): v for k, v in arguments.items()})
        assert (error.cls, error.desc) == ("GenericError", message)
        assert daemon.cmd("query-jobs") == []
    assert daemon.cmd("query-named-block-nodes") == before


# Bitmaps.

def test_incremental_chain_restores_each_generation(disk):
    """A full backup, then increments; each is compared with its moment."""
    daemon, rng = disk.daemon, random.Random(5)
    name, path = disk.target()
    daemon.cmd("transaction", actions=[
        {"type": "block-dirty-bitmap-add", "data": {
            "node": "src", "name": "bm", "granularity": 4096}},
        {"type": "blockdev-backup", "data": {
            "job-id": "b0", "device": "src", "target": name, "sync": "full",
            "speed": 8 << 20}}])
    moment = disk.contents()
    for generation in range(6):
        disk.write(rng, 10)
        daemon.cmd("block-job-set-speed", device="b0", speed=0) \
            if daemon.cmd("query-block-jobs") else None
        assert "error" not in ended(daemon)
        assert path.read_bytes() == moment, generation
        # The next one begins with what the last one restored.
        name, path = disk.target(path.read_bytes())
        moment = disk.contents()
        disk.backup(name, sync="incremental", bitmap="bm", speed=1 << 20)
        assert disk.bitmap()["busy"]
    ended(daemon)
    assert not disk.bitmap()["busy"]


@pytest.mark.parametrize("mode, left", [
    ("on-success", 3), ("never", 3), ("always", 2)])
def test_bitmap_after_a_failure(disk, mode, left):
    daemon = disk.daemon
    daemon.cmd("block-dirty-bitmap-add", node="src", name="bm")
    for granule in (1, 20, 40):
        disk.nbd.pwrite(b"w" * 512, granule * GRANULARITY)
    name, _ = disk.target(fault=[
        {"op": "write", "offset": 20 * GRANULARITY}])
    # One after the other, so that the first is copied before the failure.
    disk.backup(name, sync="bitmap", bitmap="bm", bitmap_mode=mode,
                speed=128 << 10)
    assert ended(daemon)["error"] == "Input/output error"
    assert disk.bitmap()["count"] == left * GRANULARITY


@pytest.mark.parametrize("sync, left", [
    ("bitmap", 3), ("full", SIZE // GRANULARITY)])
def test_bitmap_after_a_failed_flush(disk, sync, left):
    """Nobody knows what has reached the target."""
    disk.daemon.cmd("block-dirty-bitmap-add", node="src", name="bm")
    for granule in (1, 20, 40):
        disk.nbd.pwrite(b"w" * 512, granule * GRANULARITY)
    name, _ = disk.target(fault=[{"op": "flush"}])
    disk.backup(name, sync=sync, bitmap="bm", bitmap_mode="always")
    assert ended(disk.daemon)["error"] == "Input/output error"
    assert disk.bitmap()["count"] == left * GRANULARITY


@pytest.mark.parametrize("mode, left", [
    ("on-success", 1), ("never", 3), ("always", 1)])
def test_bitmap_after_success_has_what_was_written_meanwhile(disk, mode, left):
    daemon, before = disk.daemon, disk.contents()
    daemon.cmd("block-dirty-bitmap-add", node="src", name="bm")
    for granule in (1, 20):
        disk.nbd.pwrite(b"w" * 512, granule * GRANULARITY)
    moment = disk.contents()
    name, path = disk.target(before)
    disk.backup(name, sync="bitmap", bitmap="bm", bitmap_mode=mode,
                auto_finalize=False)
    daemon.qmp.take_event("BLOCK_JOB_PENDING")
    disk.nbd.pwrite(b"v" * 512, 30 * GRANULARITY)
    assert disk.bitmap()["busy"]
    daemon.cmd("block-job-finalize", id="b0")
    assert "error" not in ended(daemon)
    assert disk.bitmap()["count"] == left * GRANULARITY
    assert path.read_bytes() == moment


# Transactions.

def backup_action(disk, target, job, **options):
    return {"type": "blockdev-backup", "data": {
        "job-id": job, "device": disk.name, "target": target, "sync": "full",
        **options}}


def test_disks_of_a_transaction_meet_at_one_point_in_time(
        disk, box, connect_nbd):
    other = Disk(disk.daemon, box, connect_nbd, "src2")
    for number in range(1, 41):
        mark = number.to_bytes(512, "big")
        disk.nbd.pwrite(mark, 0)
        other.nbd.pwrite(mark, 0)
        if number == 20:
            (a, path_a), (b, path_b) = disk.target(), other.target()
            disk.daemon.cmd("transaction", actions=[
                backup_action(disk, a, "a", speed=1 << 20),
                backup_action(other, b, "b", speed=1 << 20)])
    for job in ("a", "b"):
        disk.daemon.cmd("block-job-set-speed", device=job, speed=0)
    ended(disk.daemon, "a")
    ended(disk.daemon, "b")
    for path in (path_a, path_b):
        assert int.from_bytes(path.read_bytes()[:512], "big") == 20


def test_a_transaction_that_fails_leaves_nothing(disk):
    daemon = disk.daemon
    name, _ = disk.target()
    before = daemon.cmd("query-named-block-nodes")
    error = daemon.error("transaction", actions=[
        {"type": "block-dirty-bitmap-add", "data": {
            "node": "src", "name": "bm"}},
        backup_action(disk, name, "b0"),
        {"type": "abort", "data": {}}])
    assert error.desc == "Transaction aborted using Abort action"
    assert daemon.cmd("query-named-block-nodes") == before
    assert daemon.cmd("query-jobs") == []
    assert job_events(daemon, "b0") == ["created", "aborting", "concluded",
                                        "null"]
    assert daemon.cmd("transaction", actions=[]) == {}


def test_quit_while_a_transaction_waits(disk, box, connect_nbd):
    """It takes back what it has prepared, and the end waits for that."""
    daemon = disk.daemon
    hang = harness.make_image(box / "hang.img", SIZE)
    daemon.execute("blockdev-add", {
        "driver": "fault", "node-name": "hang",
        "image": {"driver": "file", "filename": str(hang)},
        "rules": [{"op": "write", "delay-ms": 1000, "errno": ""}]})
    daemon.add_export("hang", "hang", writable=True)
    nbd = connect_nbd(daemon.nbd_path, "hang")
    nbd.aio_pwrite(bytearray(512), 0)
    name, _ = disk.target()
    other = daemon.client()
    daemon.qmp.send("transaction", {"actions": [
        {"type": "block-dirty-bitmap-add", "data": {"node": "src",
                                                    "name": "bm"}},
        {"type": "blockdev-backup", "data": {
            "job-id": "b0", "device": "src", "target": name, "sync": "full",
            "bitmap": "bm", "bitmap-mode": "always"}},
        {"type": "block-dirty-bitmap-add", "data": {"node": "hang",
                                                    "name": "bm"}},
        {"type": "abort", "data": {}}]})
    other.take_event("JOB_STATUS_CHANGE", id="b0", status="created")
    other.cmd("quit")
    assert daemon.wait() == 0


def test_grouping_is_for_jobs(disk):
    error = disk.daemon.error(
        "transaction", properties={"completion-mode": "grouped"}, actions=[
            {"type": "block-dirty-bitmap-add", "data": {
                "node": "src", "name": "bm"}}])
    assert error.desc == (
        "Action 'block-dirty-bitmap-add' does not support Transaction "
        "property completion-mode = grouped")


def grouped(disk, *actions):
    disk.daemon.cmd("transaction", actions=list(actions),
                    properties={"completion-mode": "grouped"})


def test_grouped_jobs_fail_together(disk, box, connect_nbd):
    daemon = disk.daemon
    other = Disk(daemon, box, connect_nbd, "src2")
    good, bad = disk.target()[0], other.target(fault=[{"op": "write"}])[0]
    grouped(disk, backup_action(disk, good, "a", speed=1 << 20),
            backup_action(other, bad, "b"))
    daemon.qmp.take_event("BLOCK_JOB_CANCELLED", device="a")
    assert ended(daemon, "b")["error"] == "Input/output error"


def test_grouped_jobs_are_finalized_together(disk, box, connect_nbd):
    daemon = disk.daemon
    other = Disk(daemon, box, connect_nbd, "src2")
    (a, path_a), (b, path_b) = disk.target(), other.target()
    grouped(disk, backup_action(disk, a, "a", **{"auto-finalize": False}),
            backup_action(other, b, "b", **{"auto-finalize": False}))
    daemon.qmp.take_event("BLOCK_JOB_PENDING", id="a")
    daemon.qmp.take_event("BLOCK_JOB_PENDING", id="b")
    daemon.cmd("job-finalize", id="a")
    assert "error" not in ended(daemon, "a") and \
        "error" not in ended(daemon, "b")
    assert path_a.read_bytes() == disk.contents()
    assert path_b.read_bytes() == other.contents()


# Files.

@pytest.mark.parametrize("mode", ["absolute-paths", "existing"])
def test_drive_backup_to_a_file(disk, box, mode):
    path = box / "drive.img"
    if mode == "existing":
        harness.make_image(path, SIZE, {0: b"o" * SIZE})
    disk.daemon.cmd("drive-backup", job_id="b0", device="src", sync="full",
                    target=str(path), mode=mode, format="raw")
    assert "error" not in ended(disk.daemon)
    assert path.read_bytes() == disk.contents()
    assert len(disk.daemon.cmd("query-named-block-nodes")) == 1


# Progress.

def test_progress_is_told_at_an_interval(disk):
    daemon = disk.daemon
    name, _ = disk.target()
    disk.backup(name, speed=512 << 10)
    assert "100" in daemon.error("block-job-set-progress", device="b0",
                                 interval_ms=99).desc
    assert daemon.error("block-job-set-progress",
                        device="x").cls == "DeviceNotActive"
    daemon.cmd("block-job-set-progress", device="b0", interval_ms=200)
    seen = [daemon.qmp.take_event("BLOCK_JOB_PROGRESS", device="b0")["data"]
            for _ in range(8)]
    assert all(event["type"] == "backup" for event in seen)
    told = [event["progress"] for event in seen]
    assert [p["done"] for p in told] == sorted(p["done"] for p in told)
    assert all(p["done"] + p["remaining"] == SIZE for p in told)
    last = told[-1]
    assert last["converging"] and not last["stalled"]
    assert 0 < last["copy-rate"] < 8 << 20 and last["dirty-rate"] == 0
    assert last["estimated-ms"] == last["remaining"] * 1000 // last["copy-rate"]
    job, = daemon.cmd("query-block-jobs")
    assert set(job["progress"]) == set(last)
    daemon.cmd("block-job-set-progress", device="b0", interval_ms=0)
    daemon.cmd("job-cancel", id="b0")


def test_a_flush_that_hangs_is_a_stall(disk):
    daemon = disk.daemon
    name, path = disk.target(fault=[{"op": "flush", "park": True}])
    disk.backup(name)
    daemon.cmd("block-job-set-progress", device="b0", stall_timeout=1)
    stall = daemon.qmp.take_event("BLOCK_JOB_STALLED", device="b0")["data"]
    assert stall["progress"]["stalled"] and stall["progress"]["remaining"] == 0
    assert stall["source"] == {"node-name": "src", "requests": 0}
    assert stall["target"] == {"node-name": name, "requests": 1}
    daemon.cmd("blockdev-reopen", options=[{
        "driver": "fault", "node-name": name, "rules": [],
        "image": {"driver": "file", "filename": str(path)}}])
    assert "error" not in ended(daemon)
    assert path.read_bytes() == disk.contents()


def test_a_stall_is_told_with_the_end_that_does_not_answer(disk):
    daemon = disk.daemon
    rule = {"op": "write", "offset": 1 << 20, "bytes": 512, "park": True}
    name, _ = disk.target(fault=[rule])
    disk.backup(name)
    daemon.cmd("block-job-set-progress", device="b0", stall_timeout=1)
    stall = daemon.qmp.take_event("BLOCK_JOB_STALLED", device="b0")["data"]
    assert stall["progress"]["stalled"] and stall["progress"]["idle-ms"] >= 1000
    assert stall["source"] == {"node-name": "src", "requests": 0}
    assert stall["target"] == {"node-name": name, "requests": 1}
    daemon.cmd("blockdev-reopen", options=[{
        "driver": "fault", "node-name": name, "rules": [],
        "image": {"driver": "file",
                  "filename": str(disk.box / f"{name}.img")}}])
    assert "error" not in ended(daemon)


def test_writes_that_a_copy_holds_up_are_a_stall(disk):
    """The job itself sleeps: it copies only what is about to be written."""
    daemon = disk.daemon
    rule = {"op": "write", "park": True}
    name, path = disk.target(fault=[rule])
    disk.backup(name, sync="none")
    daemon.cmd("block-job-set-progress", device="b0", stall_timeout=1)
    job, = daemon.cmd("query-block-jobs")
    assert (job["len"], job["offset"]) == (SIZE, 0)
    with nbd.RawNbd(daemon.nbd_path).go(disk.name) as client:
        cookie = client.send_request(nbd.CMD_WRITE, 0, 512, data=b"n" * 512)
        stall = daemon.qmp.take_event("BLOCK_JOB_STALLED", device="b0")["data"]
        assert stall["progress"]["stalled"]
        assert stall["progress"]["idle-ms"] >= 1000
        assert stall["target"] == {"node-name": name, "requests": 1}
        daemon.cmd("blockdev-reopen", options=[{
            "driver": "fault", "node-name": name, "rules": [],
            "image": {"driver": "file", "filename": str(path)}}])
        assert client.read_reply()[0] == (0, cookie)
    go_on = daemon.qmp.take_event("BLOCK_JOB_STALLED", device="b0")["data"]
    assert not go_on["progress"]["stalled"]
    job, = daemon.cmd("query-block-jobs")
    assert job["len"] == SIZE and job["offset"] > 0
    daemon.cmd("job-cancel", id="b0")
