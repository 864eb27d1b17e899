# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls that management software makes to move the disks of a machine to
another host, in the order in which it makes them: to two reference daemons, to
two of ours, and to one of each. Replies and events have the same shape."""
import pytest

import harness
import qapi
from test_dropin import differences, own_schema

pytestmark = [pytest.mark.peers("qemu-storage-daemon"),
              pytest.mark.ours("compares two daemons")]

SIZE = 8 << 20
DISKS = ("vda", "vdb")
# What it looks for before it uses it, as paths through query-qmp-schema:
# +NAME is the branch of a union.
FEATURES = (
    "block-export-add/arg-type/type/^nbd",
    "block-export-add/arg-type/+nbd/bitmaps",
    "blockdev-add/arg-type/+nbd/tls-hostname",
    "blockdev-add/arg-type/+nbd/reconnect-delay",
    "blockdev-add/arg-type/+file/$dynamic-auto-read-only",
    "blockdev-mirror/arg-type/auto-dismiss",
    "blockdev-mirror/arg-type/copy-mode/^write-blocking",
    "blockdev-reopen",
    "nbd-server-start/arg-type/max-connections",
    "object-add/arg-type/+tls-creds-x509/passwordid",
    "query-named-block-nodes/arg-type/flat",
    "transaction/arg-type/actions/type/^block-dirty-bitmap-merge",
)


class Played:
    """The calls to two daemons, with what came back."""

    def __init__(self, source, target):
        self.source, self.target = source, target
        self.replies, self.events = [], []

    def wait(self, daemon, event, **data):
        """Takes an event, and keeps it."""
        self.events.append(daemon.qmp.take_event(event, **data))
        return self.events[-1]["data"]

    def call(self, daemon, command, arguments=None):
        reply = daemon.qmp.reply(daemon.qmp.send(command, arguments or {}))
        who = "source" if daemon is self.source else "target"
        assert "return" in reply, f"{who} ({daemon.name}): {command}: {reply}"
        self.replies.append((f"{command} at the {who}", command, reply))
        return reply["return"]


def image_nodes(box, name):
    """A disk as management software describes it: storage below format."""
    return [{"driver": "file", "filename": str(box / f"{name}.img"),
             "node-name": f"libvirt-{name}-storage", "auto-read-only": True,
             "discard": "unmap",
             "cache": {"direct": False, "no-flush": False}},
            {"driver": "raw", "node-name": f"libvirt-{name}-format",
             "read-only": False, "discard": "unmap",
             "file": f"libvirt-{name}-storage"}]


def begin_target(played, box, tls_dir):
    """The destination: an export for each disk."""
    target = played.target
    played.call(target, "query-version")
    played.call(target, "query-commands")
    for disk in DISKS:
        harness.make_image(box / f"target-{disk}.img", SIZE)
        for node in image_nodes(box, f"target-{disk}"):
            played.call(target, "blockdev-add", node)
    played.call(target, "object-add", {
        "qom-type": "tls-creds-x509", "id": "objlibvirt_migrate_tls0",
        "dir": str(tls_dir), "endpoint": "server", "verify-peer": True})
    while True:
        port = str(harness.free_port())
        reply = target.qmp.reply(target.qmp.send("nbd-server-start", {
            "addr": {"type": "inet", "data": {"host": "127.0.0.1",
                                              "port": port}},
            "tls-creds": "objlibvirt_migrate_tls0", "max-connections": 0}))
        if "return" in reply:
            break
        assert "in use" in reply["error"]["desc"], reply
    for disk in DISKS:
        played.call(target, "block-export-add", {
            "type": "nbd", "id": f"libvirt-nbd-{disk}", "writable": True,
            "node-name": f"libvirt-target-{disk}-format",
            "name": f"drive-virtio-{disk}"})
    played.call(target, "query-block-exports")
    return port


def begin_source(played, box, tls_dir, port):
    """The source: a job for each disk, with the destination as its target."""
    source = played.source
    for disk in DISKS:
        harness.make_image(box / f"source-{disk}.img", SIZE, {
            1 << 20: harness.random_bytes(3 << 20, seed=ord(disk[-1]))})
        for node in image_nodes(box, f"source-{disk}"):
            played.call(source, "blockdev-add", node)
    played.call(source, "query-named-block-nodes", {"flat": True})
    played.call(source, "query-blockstats", {"query-nodes": True})
    played.call(source, "object-add", {
        "qom-type": "tls-creds-x509", "id": "objlibvirt_migrate_tls0",
        "dir": str(tls_dir), "endpoint": "client", "verify-peer": True})
    for disk in DISKS:
        name = f"migration-{disk}"
        played.call(source, "blockdev-add", {
            "driver": "nbd", "server": {"type": "inet", "host": "127.0.0.1",
                                        "port": port},
            "export": f"drive-virtio-{disk}", "tls-hostname": "localhost",
            "tls-creds": "objlibvirt_migrate_tls0", "discard": "unmap",
            "node-name": f"{name}-storage", "read-only": False})
        played.call(source, "blockdev-add", {
            "driver": "raw", "node-name": f"{name}-format",
            "read-only": False, "discard": "unmap", "file": f"{name}-storage"})
        played.call(source, "blockdev-mirror", {
            "job-id": f"drive-virtio-{disk}",
            "device": f"libvirt-source-{disk}-format",
            "target": f"{name}-format", "sync": "full",
            "on-target-error": "report", "auto-finalize": True,
            "auto-dismiss": False})
        played.call(source, "block-job-set-speed", {
            "device": f"drive-virtio-{disk}", "speed": 0})


def finish(played):
    """All jobs are ready: the machine is stopped, and each copy ended as a
    whole one, without moving anybody to it."""
    source, target = played.source, played.target
    for disk in DISKS:
        played.wait(source, "BLOCK_JOB_READY", device=f"drive-virtio-{disk}")
    jobs = played.call(source, "query-block-jobs")
    assert all(j["ready"] for j in jobs) and len(jobs) == len(DISKS)
    played.call(source, "query-jobs")
    for disk in DISKS:
        end_job(played, f"drive-virtio-{disk}")
        for part in ("format", "storage"):
            played.call(source, "blockdev-del",
                        {"node-name": f"migration-{disk}-{part}"})
    played.call(source, "query-block-jobs")
    played.call(source, "object-del", {"id": "objlibvirt_migrate_tls0"})
    played.call(target, "nbd-server-stop")
    for disk in DISKS:
        played.wait(target, "BLOCK_EXPORT_DELETED", id=f"libvirt-nbd-{disk}")
    played.call(target, "query-block-exports")
    played.call(target, "object-del", {"id": "objlibvirt_migrate_tls0"})
    for disk in DISKS:
        for part in ("format", "storage"):
            played.call(target, "blockdev-del",
                        {"node-name": f"libvirt-target-{disk}-{part}"})
    for daemon in (source, target):
        played.events += daemon.qmp.events


def end_job(played, job):
    source = played.source
    played.call(source, "block-job-cancel", {"device": job})
    assert "error" not in played.wait(source, "BLOCK_JOB_COMPLETED",
                                      device=job)
    played.wait(source, "JOB_STATUS_CHANGE", id=job, status="concluded")
    played.call(source, "query-jobs")
    played.call(source, "job-dismiss", {"id": job})
    played.wait(source, "JOB_STATUS_CHANGE", id=job, status="null")


def migrate(daemons, box, tls_dir, source, target):
    """Returns what was played; each of the two is "ours" or "theirs"."""
    box = box / f"{source}-{target}"
    box.mkdir()
    program = {"ours": harness.PROGRAM, "theirs": harness.REFERENCE}
    played = Played(*(daemons(program=program[kind], workers=False,
                              name=f"{kind}-{role}-{box.name}")
                      for kind, role in ((source, "s"), (target, "t"))))
    begin_source(played, box, tls_dir, begin_target(played, box, tls_dir))
    finish(played)
    for disk in DISKS:
        assert harness.sha256(box / f"source-{disk}.img") == \
            harness.sha256(box / f"target-{disk}.img")
    return played


@pytest.fixture
def reference(daemons, box, tls_dir):
    return migrate(daemons, box, tls_dir, "theirs", "theirs")


@pytest.mark.parametrize("source, target", [
    ("ours", "ours"), ("ours", "theirs"), ("theirs", "ours")])
def test_replies_have_the_same_shape(daemons, box, tls_dir, reference, source,
                                     target):
    played = migrate(daemons, box, tls_dir, source, target)
    schema = own_schema(daemons)
    problems = []
    for (step, command, reply), (_, _, other) in zip(
            played.replies, reference.replies, strict=True):
        problems += differences(schema, step, command, reply, other)
    assert not problems, "\n".join(problems)


def shapes(events):
    """{name of the event: paths of its members}, but for ours alone."""
    return {e["event"]: qapi.key_paths(e.get("data", {})) for e in events
            if not e["event"].startswith("NBD_CLIENT_")}


def states(events, job):
    """Those of a job, but for the pauses that others cause."""
    return {e["data"]["status"] for e in events
            if e["event"] == "JOB_STATUS_CHANGE" and e["data"]["id"] == job} \
        - {"paused", "standby"}


def test_events_have_the_same_shape(daemons, box, tls_dir, reference):
    played = migrate(daemons, box, tls_dir, "ours", "ours")
    assert shapes(played.events) == shapes(reference.events)
    for disk in DISKS:
        job = f"drive-virtio-{disk}"
        assert states(played.events, job) == states(reference.events, job)


def find_feature(schema, path):
    """Follows a path as management software does; True if it leads on."""
    names = path.split("/")
    entry = schema.command(names[0])
    for name in names[1:]:
        if entry is None:
            return False
        while entry["meta-type"] == "array":
            entry = schema.types[entry["element-type"]]
        if name.startswith("^"):
            return name[1:] in entry["values"]
        if name.startswith("$"):
            return name[1:] in entry.get("features", ())
        if name.startswith("+"):
            found = [v["type"] for v in entry.get("variants", ())
                     if v["case"] == name[1:]]
        elif entry["meta-type"] == "object":
            found = [m["type"] for m in entry["members"]
                     if m["name"] == name]
        else:
            found = [entry[name]] if name in entry else []
        entry = schema.types[found[0]] if found else None
    return entry is not None


def test_features_are_found_where_they_are_looked_for(daemons, daemon):
    ours = qapi.Schema(daemon.cmd("query-qmp-schema"))
    theirs = own_schema(daemons)
    assert not [f for f in FEATURES if not find_feature(theirs, f)], \
        "the reference has all of them"
    assert not [f for f in FEATURES if not find_feature(ours, f)]
    assert not find_feature(ours, "blockdev-add/arg-type/+nbd/nosuch")
