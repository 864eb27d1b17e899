# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs, as commands see them."""
import os

import pytest

import harness


def test_no_jobs_without_commands_that_make_them(daemon):
    assert daemon.cmd("query-jobs") == []
    assert daemon.cmd("query-block-jobs") == []


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "complete",
                                  "finalize", "dismiss"])
def test_unknown_jobs_are_refused_by_each_verb(daemon, verb):
    error = daemon.error(f"job-{verb}", id="nope")
    assert (error.cls, error.desc) == ("GenericError", "Job not found")
    name = "id" if verb in ("finalize", "dismiss") else "device"
    error = daemon.error(f"block-job-{verb}", **{name: "nope"})
    assert (error.cls, error.desc) == ("DeviceNotActive",
                                       "Block job 'nope' not found")


def test_unknown_jobs_have_no_speed(daemon):
    error = daemon.error("block-job-set-speed", device="nope", speed=-1)
    assert error.cls == "DeviceNotActive"


@pytest.mark.ours("block-job-change is newer than the reference")
def test_unknown_jobs_do_not_change(daemon):
    error = daemon.error("block-job-change", id="nope", type="mirror",
                         copy_mode="write-blocking")
    assert error.cls == "DeviceNotActive"


def states(daemon, job):
    """The states that a job's events told so far."""
    return [e["data"]["status"] for e in daemon.qmp.events
            if e["event"] == "JOB_STATUS_CHANGE" and e["data"]["id"] == job]


def wait_state(daemon, job, state):
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id=job, status=state)


def create(daemon, job="c0", **options):
    """Runs blockdev-create to its end; returns what query-jobs says."""
    daemon.execute("blockdev-create", {
        "job-id": job, "options": {"driver": "file", **options}})
    wait_state(daemon, job, "concluded")
    return next(j for j in daemon.cmd("query-jobs") if j["id"] == job)


# blockdev-create.

def test_create_makes_a_file_and_stays_until_dismissed(daemon, box):
    path = box / "new.img"
    info = create(daemon, filename=str(path), size=3 << 20)
    assert info == {"id": "c0", "type": "create", "status": "concluded",
                    "current-progress": 1, "total-progress": 1}
    assert path.stat().st_size == 3 << 20 and path.stat().st_blocks < 16
    assert daemon.cmd("query-block-jobs") == []
    assert "already in use" in daemon.error(
        "blockdev-create", job_id="c0", options={
            "driver": "file", "filename": str(path), "size": 1}).desc
    daemon.cmd("job-dismiss", id="c0")
    assert daemon.cmd("query-jobs") == []


def test_create_tells_its_states(daemon, box):
    create(daemon, filename=str(box / "new.img"), size=512)
    daemon.cmd("job-dismiss", id="c0")
    wait_state(daemon, "c0", "null")
    assert states(daemon, "c0") == ["created", "running", "waiting", "pending"]


@pytest.mark.parametrize("mode", ["falloc", "full"])
def test_create_preallocates(daemon, box, mode):
    path = box / "new.img"
    info = create(daemon, filename=str(path), size=5 << 20, preallocation=mode)
    assert "error" not in info
    assert info["current-progress"] == info["total-progress"]
    assert path.stat().st_size == 5 << 20
    assert path.stat().st_blocks * 512 >= 5 << 20
    assert path.read_bytes() == bytes(5 << 20)


def test_create_empties_a_file_that_exists(daemon, box):
    path = box / "old.img"
    path.write_bytes(b"x" * 8192)
    assert "error" not in create(daemon, filename=str(path), size=4096)
    assert path.read_bytes() == bytes(4096)


@pytest.mark.ours("the reference empties it")
@pytest.mark.parametrize("name", ["path", "symlink", "hard link"])
@pytest.mark.parametrize("under", [False, True])
def test_create_leaves_the_file_of_a_node_alone(daemon, box, name, under):
    """Nobody uses the node, so there are no locks."""
    path, other = box / "old.img", box / "other.img"
    path.write_bytes(b"x" * 8192)
    options = {"driver": "file", "node-name": "idle", "filename": str(path)}
    if under:
        options = {"driver": "raw", "node-name": "top", "file": options}
    daemon.execute("blockdev-add", options)
    if name == "symlink":
        other.symlink_to(path)
    elif name == "hard link":
        other.hardlink_to(path)
    where = path if name == "path" else other
    info = create(daemon, filename=str(where), size=4096)
    assert info["error"].startswith(
        f"'{where}' is in use by node 'idle'")
    assert path.read_bytes() == b"x" * 8192
    daemon.cmd("blockdev-del", node_name="top" if under else "idle")
    daemon.cmd("job-dismiss", id="c0")
    assert "error" not in create(daemon, filename=str(where), size=4096)
    assert path.read_bytes() == bytes(4096)


@pytest.mark.ours("texts and limits differ")
def test_create_fails_by_the_job(daemon, box):
    info = create(daemon, "a", filename="/nonexistent/x.img", size=512)
    assert "/nonexistent/x.img" in info["error"]
    assert info["status"] == "concluded"
    info = create(daemon, "b", filename=str(box / "b.img"), size=512,
                  preallocation="metadata")
    assert info["error"] == "Unsupported preallocation mode: metadata"
    info = create(daemon, "c", filename=str(box / "c.img"), size=(1 << 63) + 1)
    assert "too large" in info["error"].lower()
    assert os.listdir(box).count("c.img") == 0
    info = create(daemon, "d", filename=str(box), size=512)
    assert str(box) in info["error"]


def test_create_refuses_at_once_what_is_wrong_with_the_command(daemon, box):
    error = daemon.error("blockdev-create", job_id="c0",
                         options={"driver": "null-co"})
    assert error.desc == "Driver does not support blockdev-create"
    error = daemon.error("blockdev-create", job_id="0j", options={
        "driver": "file", "filename": str(box / "x"), "size": 1})
    assert error.desc == "Invalid job ID '0j'"
    assert daemon.cmd("query-jobs") == []


def test_create_leaves_an_image_in_use_alone(daemon, box):
    path = harness.make_image(box / "d.img", 1 << 20, {0: b"x" * 4096})
    daemon.start_nbd()
    daemon.cmd("blockdev-add", driver="file", node_name="f0",
               filename=str(path))
    daemon.cmd("block-export-add", type="nbd", id="e0", node_name="f0",
               writable=True)
    info = create(daemon, filename=str(path), size=512)
    assert ("lock" if daemon.is_reference else
            "in use by node 'f0'") in info["error"]
    assert path.stat().st_size == 1 << 20


def test_quit_with_a_concluded_job(daemon, box):
    create(daemon, filename=str(box / "new.img"), size=512)
    daemon.cmd("quit")
    assert daemon.wait() == 0
