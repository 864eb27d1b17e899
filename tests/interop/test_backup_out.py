# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs against the reference: replies, events and their order; and backups to
real NBD servers."""
import json

import pytest

import harness
import nbdservers
import qapi
from harness import run

SIZE = 8 << 20

# Depend on timing alone, or are ours.
VOLATILE = {"busy", "offset", "current-progress"}
OURS = "[].progress"


def script(box, name):
    """Yields (command, arguments) or ("WAIT", (event, data))."""
    def backup(job, **options):
        return "blockdev-backup", {"job-id": job, "device": "src",
                                   "target": "dst", "sync": "full", **options}

    def action(job, device, target, **options):
        return {"type": "blockdev-backup", "data": {
            "job-id": job, "device": device, "target": target, "sync": "full",
            **options}}

    def gone(job):
        return "WAIT", ("JOB_STATUS_CHANGE", {"id": job, "status": "null"})

    def state(job, status):
        return "WAIT", ("JOB_STATUS_CHANGE", {"id": job, "status": status})

    for node in ("src", "dst", "src2", "dst2"):
        yield "blockdev-add", {"driver": "file", "node-name": node,
                               "filename": str(box / f"{name}-{node}.img")}
    yield "query-jobs", None
    yield "query-block-jobs", None

    yield backup("auto")
    yield gone("auto")
    yield backup("final", **{"auto-finalize": False})
    yield "WAIT", ("BLOCK_JOB_PENDING", {"id": "final"})
    yield "query-jobs", None
    yield "query-block-jobs", None
    yield "job-pause", {"id": "final"}
    yield "job-complete", {"id": "final"}
    yield "block-job-dismiss", {"id": "final"}
    yield "block-job-finalize", {"id": "final"}
    yield gone("final")
    yield backup("stay", **{"auto-dismiss": False})
    yield state("stay", "concluded")
    yield "query-block-jobs", None
    yield "job-cancel", {"id": "stay"}
    yield "job-dismiss", {"id": "stay"}
    yield gone("stay")

    yield backup("slow", speed=65536)
    yield "block-job-set-speed", {"device": "slow", "speed": 65535}
    yield "block-job-set-speed", {"device": "slow", "speed": -1}
    yield "block-job-set-speed", {"device": "none", "speed": 1}
    yield "job-pause", {"id": "none"}
    yield "block-job-pause", {"device": "slow"}
    yield "block-job-pause", {"device": "slow"}
    yield "block-job-cancel", {"device": "slow"}
    yield "job-complete", {"id": "slow"}
    yield "block-job-resume", {"device": "slow"}
    yield "block-job-resume", {"device": "slow"}
    yield "block_resize", {"node-name": "src", "size": 2 * SIZE}
    yield "blockdev-del", {"node-name": "src"}
    yield "blockdev-del", {"node-name": "dst"}
    yield "block-job-cancel", {"device": "slow"}
    yield "WAIT", ("BLOCK_JOB_CANCELLED", {"device": "slow"})
    yield gone("slow")

    for wrong in ({"sync": "incremental"}, {"bitmap": "x"}, {"device": "x"},
                  {"target": "x"}, {"target": "src"}, {"job-id": "0x"},
                  {"sync": "bitmap", "bitmap": "x", "bitmap-mode": "never"},
                  {"compress": True}):
        command, arguments = backup("wrong")
        yield command, {**arguments, **wrong}
    yield "query-jobs", None

    yield "transaction", {"actions": [
        action("rolled", "src", "dst"), {"type": "abort", "data": {}}]}
    yield gone("rolled")
    yield "transaction", {"actions": []}
    yield "transaction", {
        "properties": {"completion-mode": "grouped"},
        "actions": [action("g1", "src", "dst", **{"auto-dismiss": False}),
                    action("g2", "src2", "dst2", speed=65536)]}
    yield state("g1", "waiting")
    yield "query-jobs", None
    yield "job-cancel", {"id": "g2"}
    yield gone("g2")
    yield state("g1", "concluded")
    yield "query-jobs", None
    yield "job-dismiss", {"id": "g1"}
    yield gone("g1")

    yield "blockdev-create", {"job-id": "c0", "options": {
        "driver": "file", "filename": str(box / f"{name}-new.img"),
        "size": 1 << 20}}
    yield state("c0", "concluded")
    yield "query-jobs", None
    yield "query-block-jobs", None
    yield "job-dismiss", {"id": "c0"}
    yield gone("c0")
    yield "blockdev-create", {"job-id": "c1", "options": {
        "driver": "file", "filename": "/nonexistent/x", "size": 1 << 20}}
    yield state("c1", "concluded")
    yield "query-jobs", None
    yield "job-dismiss", {"id": "c1"}
    yield gone("c1")
    yield "blockdev-create", {"job-id": "c2", "options": {
        "driver": "null-co"}}


def play(daemon, box):
    """Runs the script; returns [(step, reply)] and the events."""
    for node, data in (("src", b"s"), ("dst", b"d"), ("src2", b"S"),
                       ("dst2", b"D")):
        harness.make_image(box / f"{daemon.name}-{node}.img", SIZE,
                           {0: data * SIZE})
    replies, events, waited = [], [], []
    for command, arguments in script(box, daemon.name):
        if command == "WAIT":
            name, data = arguments
            waited.append(daemon.qmp.take_event(
                name, **{k.replace("-", "_"): v for k, v in data.items()}))
            continue
        reply = daemon.qmp.reply(daemon.qmp.send(command, arguments))
        replies.append((f"{command} {json.dumps(arguments)}", reply))
    # In the order of the wire.
    for text in daemon.qmp.raw:
        message = json.loads(text)
        if "event" in message:
            events.append(message)
    return replies, events


def life(events, job):
    """What the events say about a job, without the flicker of drains."""
    found = []
    for event in events:
        data = event.get("data", {})
        if job not in (data.get("id"), data.get("device")):
            continue
        found.append(data.get("status", event["event"]))
        if found[-2:] == ["paused", "running"]:
            del found[-2:]
    return found


@pytest.fixture
def both(daemons, box):
    theirs = play(daemons(program=harness.REFERENCE, name="theirs"), box)
    ours = play(daemons(name="ours"), box)
    return ours, theirs


@pytest.mark.peers("qemu-storage-daemon")
@pytest.mark.ours("compares two daemons")
def test_jobs_reply_and_live_as_those_of_the_reference(both):
    (ours, our_events), (theirs, their_events) = both
    problems = []
    for (step, reply), (_, other) in zip(ours, theirs, strict=True):
        if "error" in other or "error" in reply:
            a = reply.get("error", {}).get("class")
            b = other.get("error", {}).get("class")
            if a != b:
                problems.append(f"{step}: {reply} against {other}")
            continue
        more = {path for path in qapi.key_paths(reply["return"])
                ^ qapi.key_paths(other["return"])
                if not path.startswith(OURS)}
        if more:
            problems.append(f"{step}: {sorted(more)}")
        for mine, yours in zip(reply["return"] or (), other["return"] or ()):
            for key in set(yours) - VOLATILE - {"error", "total-progress"}:
                if mine[key] != yours[key]:
                    problems.append(f"{step}: {key}: {mine} against {yours}")
    for job in ("auto", "final", "stay", "slow", "wrong", "rolled", "g1", "g2",
                "c0", "c1", "c2"):
        if life(our_events, job) != life(their_events, job):
            problems.append(f"{job}: {life(our_events, job)} against "
                            f"{life(their_events, job)}")
    assert not problems, "\n".join(problems)


@pytest.mark.peers("qemu-storage-daemon")
@pytest.mark.ours("compares two daemons")
def test_job_events_fit_the_reference_schema(both, daemons):
    (_, events), _ = both
    schema = qapi.Schema(daemons(program=harness.REFERENCE, name="schema",
                                 workers=False).cmd("query-qmp-schema"))
    assert len(events) > 50
    for event in events:
        entry = schema.event(event["event"])
        assert entry, event
        assert not list(schema.problems(event["data"], entry["arg-type"]))


@pytest.mark.peers("qemu-nbd", "nbdkit", "qemu-img")
@pytest.mark.parametrize("kind", ["qemu-nbd", "nbdkit"])
@pytest.mark.parametrize("transport", ["unix", "tls"])
def test_backup_to_a_real_server(daemon, box, spawn, tls_dir, kind, transport):
    source = harness.make_image(box / "src.img", 8 << 20, {
        1 << 20: harness.random_bytes(3 << 20)})
    target = harness.make_image(box / "dst.img", 8 << 20)
    server = nbdservers.Server(kind, box, target, transport, tls_dir)
    spawn("server", server.argv())
    if server.tls:
        nbdservers.add_client_creds(daemon, tls_dir)
    daemon.add_file(source, "src")
    daemon.execute("blockdev-add", server.options(
        **{"node-name": "dst", "discard": "unmap"}))
    daemon.cmd("blockdev-backup", job_id="b0", device="src", target="dst",
               sync="full")
    done = daemon.qmp.take_event("BLOCK_JOB_COMPLETED", device="b0")["data"]
    assert "error" not in done and done["offset"] == done["len"] == 8 << 20
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id="b0", status="null")
    daemon.cmd("blockdev-del", node_name="dst")
    server.stop()
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, target)
    assert target.stat().st_blocks * 512 < 6 << 20
