# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirror jobs whose source, target or network fails, is slow or cannot flush."""
import pytest

import harness
import rawnbd as nbd
from mirrorpair import (SIZE, Pair, Writers, job_events, make_noise, sha,
                        wait_event, wait_status)


@pytest.fixture
def noise(box):
    return make_noise(box)


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
    pair.complete()


@pytest.mark.ours("the reference has no fault nodes")
def test_ignore_tries_again(faulty):
    pair = faulty("target", op="write", count=5)
    pair.mirror(on_target_error="ignore")
    error = wait_event(pair.daemon, "BLOCK_JOB_ERROR", device="m")["data"]
    assert error["action"] == "ignore"
    pair.ready()
    pair.complete()


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
def test_blocking_writes_that_are_held_up_are_a_stall(faulty):
    """The copy is done; it is a guest who waits for the target."""
    pair = faulty("target", op="write", offset=7 << 20, park=True)
    pair.mirror(copy_mode="write-blocking")
    pair.ready()
    daemon = pair.daemon
    daemon.cmd("block-job-set-progress", device="m", stall_timeout=1)

    def job():
        return daemon.cmd("query-block-jobs")[0]

    harness.wait_until(lambda: job()["actively-synced"])
    assert job()["progress"]["idle-ms"] == 0
    done = job()["offset"]
    with pair.connect() as client:
        cookie = client.send_request(nbd.CMD_WRITE, 7 << 20, 512,
                                     data=b"w" * 512)
        stall = wait_event(daemon, "BLOCK_JOB_STALLED", device="m")["data"]
        told = stall["progress"]
        assert told["stalled"] and told["idle-ms"] >= 1000
        assert told["remaining"] == 512 and not told["converging"]
        assert "estimated-ms" not in told
        assert stall["target"] == {"node-name": "dst", "requests": 1}
        assert job()["actively-synced"]
        daemon.execute("blockdev-reopen", {"options": [{
            "driver": "fault", "node-name": "dst", "rules": [],
            "image": "dst-file"}]})
        assert client.read_reply()[0] == (0, cookie)
    go_on = wait_event(daemon, "BLOCK_JOB_STALLED", device="m")["data"]
    assert not go_on["progress"]["stalled"]
    harness.wait_until(lambda: job()["actively-synced"])
    assert job()["offset"] == job()["len"] == done + 512
    pair.complete()


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


@pytest.mark.ours("the reference has no fault nodes")
@pytest.mark.parametrize("side, op", (("source", "read"), ("target", "write")))
@pytest.mark.parametrize("mode", ("background", "write-blocking"))
def test_ready_is_not_said_before_all_is_copied(faulty, side, op, mode):
    """However little is left, and however slow it is."""
    pair = faulty(side, **{"op": op, "errno": "", "delay-ms": 1500,
                           "offset": 5 << 20, "bytes": 1 << 20})
    pair.mirror(copy_mode=mode)
    ready = pair.ready()["data"]
    assert ready["offset"] == ready["len"]
    assert sha(pair.source) == sha(pair.target)
    pair.complete()


@pytest.mark.ours("the reference has no fault nodes")
def test_target_that_does_not_take_all_is_never_ready(faulty):
    pair = faulty("target", **{"op": "write", "errno": "ENOSPC",
                               "delay-ms": 1500, "offset": 5 << 20})
    pair.mirror(copy_mode="write-blocking")
    end = wait_event(pair.daemon, "BLOCK_JOB_COMPLETED", device="m")["data"]
    assert end["error"] == "No space left on device"
    assert ("BLOCK_JOB_READY", None) not in job_events(pair.daemon)


# A target behind a network that breaks.

@pytest.fixture
def remote(daemons, box, noise, proxies):
    """The target is an export of another daemon, behind a proxy."""
    other = daemons()
    target = harness.make_image(box / "target.img", SIZE)
    other.serve_file(target, "disk", discard="unmap")
    near = box / "proxy.sock"
    pair = Pair.__new__(Pair)
    pair.proxy = proxies(f"unix:{near}", f"unix:{other.nbd_path}",
                         window=1 << 20)
    pair.daemon = daemons()
    pair.source, pair.target = noise, target
    pair.daemon.serve_file(noise, "src", discard="unmap")
    pair.daemon.execute("blockdev-add", {
        "driver": "nbd", "node-name": "dst", "export": "disk",
        "server": {"type": "unix", "path": str(near)}})
    return pair


@pytest.fixture
def far_source(daemons, box, proxies):
    """The source is an export of another daemon, far away."""
    def make(size, content, delay_ms, **target):
        path = harness.make_image(box / "far.img", size, content)
        daemons().serve_file(path, "disk", discard="unmap")
        near = box / "proxy.sock"
        proxies(f"unix:{near}", f"unix:{box}/daemon.nbd", delay_ms=delay_ms)
        pair = Pair.__new__(Pair)
        pair.daemon = daemons("--allow-fault-injection", name="near")
        pair.source = path
        pair.target = harness.make_image(box / "target.img", size)
        pair.daemon.execute("blockdev-add", {
            "driver": "nbd", "node-name": "src", "export": "disk",
            "server": {"type": "unix", "path": str(near)}})
        pair.daemon.execute("blockdev-add", {
            "driver": "fault", "node-name": "dst", **target, "image": {
                "driver": "file", "filename": str(pair.target)}})
        pair.daemon.start_nbd()
        pair.daemon.add_export("src", writable=True)
        return pair

    return make


@pytest.mark.ours("the reference has no fault nodes")
def test_first_pass_goes_on_while_guests_write(far_source):
    """Their writes end all the time while the source is asked for zeroes."""
    class Spot(Writers):
        @staticmethod
        def one(client, rng):
            offset = SIZE - (1 + rng.randrange(256)) * 4096
            assert client.write(offset, rng.randbytes(4096)) == 0

    pair = far_source(SIZE, {0: harness.random_bytes(SIZE)}, 20)
    writers = Spot(pair, 8)
    harness.wait_until(lambda: writers.writes > 40)
    pair.mirror(copy_mode="write-blocking")
    pair.ready()
    writers.finish()
    pair.complete()


@pytest.mark.ours("the reference has no fault nodes")
def test_what_fails_while_the_source_is_asked_is_not_forgotten(far_source):
    """It is asked for two seconds, and a write of the first pass fails then."""
    block = {"op": "write", "offset": 0, "bytes": 4096}
    size = 12 << 20
    pair = far_source(
        size, {n: harness.random_bytes(4096) for n in range(0, size, 8192)}, 150,
        rules=[{**block, "delay-ms": 1050, "errno": "EIO", "count": 1},
               {**block, "delay-ms": 3000, "errno": ""}])
    pair.mirror(granularity=4096, on_target_error="ignore")
    ready = pair.ready()["data"]
    assert ready["offset"] == ready["len"]
    assert sha(pair.source) == sha(pair.target)
    pair.complete()


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


@pytest.mark.ours("the reference waits in another way")
def test_end_within_the_last_pass_waits_for_what_it_began(remote):
    """It is called off while the target answers none of many writes. On busy
    processors these once ended after the job's memory was freed."""
    remote.mirror(auto_finalize=False, auto_dismiss=False)
    remote.ready()
    remote.daemon.cmd("block-job-complete", device="m")
    wait_event(remote.daemon, "BLOCK_JOB_PENDING", id="m")
    remote.proxy.delay(1000 * 1000)
    with remote.connect() as client:
        for offset in range(0, SIZE, 128 << 10):
            assert client.write(offset, harness.random_bytes(64 << 10)) == 0
        before = remote.proxy.stats()["up"]
        finalize = remote.daemon.qmp.send("job-finalize", {"id": "m"})
        harness.wait_until(
            lambda: remote.proxy.stats()["up"] >= before + (1 << 20))
        other = remote.daemon.client()
        other.cmd("job-cancel", id="m")
        remote.daemon.qmp.reply(finalize)
        job, = other.cmd("query-jobs")
        assert job["status"] == "concluded" and "error" in job
        assert client.write(0, b"still") == 0
    other.cmd("job-dismiss", id="m")
    other.cmd("blockdev-del", **{"node-name": "dst"})


@pytest.mark.ours("the reference waits in another way")
def test_cancel_in_the_last_pass_does_not_wait_for_the_source(
        daemons, box, noise, proxies):
    """It asks what is zero in a large piece, and gets no answer."""
    far, daemon = daemons(), daemons()
    far.serve_file(noise, "src")
    near = box / "proxy.sock"
    proxy = proxies(f"unix:{near}", f"unix:{far.nbd_path}")
    pair = Pair.__new__(Pair)
    pair.daemon = daemon
    daemon.execute("blockdev-add", {
        "driver": "nbd", "node-name": "src", "export": "src",
        "server": {"type": "unix", "path": str(near)}})
    daemon.add_file(harness.make_image(box / "target.img", SIZE), "dst")
    daemon.start_nbd()
    daemon.add_export("src", writable=True)
    pair.mirror(auto_finalize=False, auto_dismiss=False)
    pair.ready()
    daemon.cmd("block-job-complete", device="m")
    wait_event(daemon, "BLOCK_JOB_PENDING", id="m")
    with pair.connect() as client:
        assert client.write(0, b"late" * (1 << 20)) == 0
    proxy.delay(1000 * 1000)
    before = proxy.stats()["up"]
    finalize = daemon.qmp.send("job-finalize", {"id": "m"})
    harness.wait_until(lambda: proxy.stats()["up"] > before)
    other = daemon.client()
    other.cmd("job-cancel", id="m")
    daemon.qmp.reply(finalize)
    job, = other.cmd("query-jobs")
    assert job["status"] == "concluded" and "error" in job
