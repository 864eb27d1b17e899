# SPDX-License-Identifier: GPL-2.0-or-later
"""One script for both daemons: ours drops in for qemu-storage-daemon.

The script was written against the reference's monitor. Every reply must fit
the reference's own query-qmp-schema and have the same members, but for the
additions listed here.
"""
import json

import pytest

import harness
import qapi
import qmp
import rawnbd

# command -> members that ours may have in its reply beyond the reference's.
# They are of QEMU 8.0 to 10.0, as the reference here is 7.2, and what is ours:
# what the clients of an export have done, and how a job gets on.
ADDITIONS = {
    "query-block-exports": {"[].clients", "[].stats", "[].requests"} | {
        f"[].stats.{name}" for name in (
            "read-operations", "read-bytes", "write-operations",
            "written-bytes", "zero-operations", "zeroed-bytes",
            "trim-operations", "trimmed-bytes", "flush-operations",
            "failed-operations")},
    "query-block-jobs": {"[].actively-synced", "[].progress"} | {
        f"[].progress.{name}" for name in (
            "converging", "copy-rate", "dirty-rate", "done", "estimated-ms",
            "idle-ms", "remaining", "stalled")},
    "query-blockstats": {
        f"[]{below}.stats.{name}" for below in ("", ".parent") for name in (
            "zone_append_bytes", "zone_append_operations",
            "zone_append_total_time_ns", "zone_append_merged",
            "failed_zone_append_operations",
            "invalid_zone_append_operations")},
    "query-named-block-nodes": {"[].active", "[].children",
                                "[].image.children",
                                "[].image.format-specific",
                                "[].image.format-specific.type",
                                "[].image.format-specific.data",
                                "[].children[].child",
                                "[].children[].node-name"},
}
# Members whose presence depends on the node's history or the file system.
VOLATILE = {"query-named-block-nodes": {"[].image.actual-size"},
            # The reference counts for devices only, and so never knows.
            "query-blockstats": {"[].stats.idle_time_ns",
                                 "[].parent.stats.idle_time_ns"}}

VERSION_PATHS = {".qemu", ".qemu.major", ".qemu.minor", ".qemu.micro",
                 ".package"}


def script(box, tls_dir, name):
    """Yields (command, arguments, what must come back)."""
    sock = str(box / f"{name}.nbd")
    disk = str(box / f"{name}.img")
    ok, refused = "return", "error"
    yield "query-version", None, ok
    yield "query-commands", None, ok
    yield "query-named-block-nodes", None, ok
    yield "query-block-exports", None, ok
    yield "object-add", {"qom-type": "tls-creds-x509", "id": "tls0",
                         "endpoint": "server", "dir": str(tls_dir)}, ok
    yield "object-add", {"qom-type": "secret", "id": "sec0",
                         "data": "letmein"}, ok
    yield "object-add", {"qom-type": "secret", "id": "sec0",
                         "data": "again"}, refused
    yield "object-add", {"qom-type": "nosuch", "id": "x"}, refused
    yield "object-add", {"qom-type": "iothread", "id": "io9"}, ok
    yield "qom-list", {"path": "/objects"}, ok
    yield "qom-get", {"path": "/objects/tls0", "property": "endpoint"}, ok
    yield "qom-get", {"path": "/objects/nope", "property": "x"}, refused
    yield "qom-list-types", {"implements": "user-creatable"}, ok
    yield "qom-list-properties", {"typename": "secret"}, ok
    yield "nbd-server-stop", None, refused
    yield "nbd-server-start", {"addr": {"type": "unix", "path": sock}}, refused
    yield "nbd-server-start", {"addr": {"type": "unix", "data": {
        "path": sock}}, "tls-creds": "nope"}, refused
    yield "nbd-server-start", {"addr": {"type": "unix", "data": {
        "path": sock}}, "max-connections": 10}, ok
    yield "nbd-server-start", {"addr": {"type": "unix", "data": {
        "path": sock}}}, refused
    yield "blockdev-add", {"driver": "raw", "node-name": "d0", "file": {
        "driver": "file", "node-name": "f0", "filename": disk,
        "cache": {"no-flush": True}}}, ok
    yield "blockdev-add", {"driver": "file", "node-name": "d0",
                           "filename": disk}, refused
    yield "blockdev-add", {"driver": "null-co", "node-name": "n0",
                           "size": 1048576, "read-zeroes": True}, ok
    yield "blockdev-add", {"driver": "file", "node-name": "x",
                           "filename": "/nonexistent"}, refused
    yield "query-named-block-nodes", None, ok
    yield "query-named-block-nodes", {"flat": True}, ok
    yield "query-block", None, ok
    yield "query-blockstats", None, ok
    yield "query-blockstats", {"query-nodes": True}, ok
    yield "block-set-write-threshold", {"node-name": "f0",
                                        "write-threshold": 65536}, ok
    yield "block-set-write-threshold", {"node-name": "nope",
                                        "write-threshold": 65536}, refused
    yield "query-named-block-nodes", None, ok
    yield "x-debug-query-block-graph", None, ok
    yield "block_resize", {"node-name": "d0", "size": 2097152}, ok
    for read_only in (True, False):
        yield "blockdev-reopen", {"options": [
            {"driver": "raw", "node-name": "d0", "read-only": read_only,
             "file": {"driver": "file", "node-name": "f0", "filename": disk,
                      "cache": {"no-flush": True},
                      "read-only": read_only}}]}, ok
    yield "block-export-add", {"type": "nbd", "id": "e0", "node-name": "d0",
                               "name": "zero", "description": "first",
                               "writable": True}, ok
    yield "block-export-add", {"type": "nbd", "id": "e1",
                               "node-name": "n0"}, ok
    yield "block-export-add", {"type": "nbd", "id": "e1",
                               "node-name": "n0"}, refused
    yield "block-export-add", {"type": "nbd", "id": "e2",
                               "node-name": "nope"}, refused
    yield "nbd-server-add", {"device": "n0", "name": "old"}, ok
    yield "query-block-exports", None, ok
    yield "x-debug-query-block-graph", None, ok
    yield "block_resize", {"node-name": "d0", "size": 4194304}, refused
    yield "blockdev-del", {"node-name": "d0"}, refused
    yield "CONNECT", sock, ok
    yield "query-blockstats", {"query-nodes": True}, ok
    yield "block-export-del", {"id": "e0"}, refused
    yield "nbd-server-remove", {"name": "old"}, ok
    yield "block-export-del", {"id": "e1"}, ok
    yield "block-export-del", {"id": "e9"}, refused
    yield "block-export-del", {"id": "e0", "mode": "hard"}, ok
    yield "EVENT", "e0", ok
    yield "query-block-exports", None, ok
    yield "nbd-server-stop", None, ok
    yield "blockdev-del", {"node-name": "d0"}, ok
    yield "blockdev-del", {"node-name": "d0"}, refused
    yield "blockdev-del", {"node-name": "n0"}, ok
    yield "object-del", {"id": "tls0"}, ok
    yield "object-del", {"id": "tls0"}, refused
    yield from chardev_script(box, name)
    yield "nosuch-command", None, refused
    yield "query-named-block-nodes", None, ok
    yield "quit", None, ok


def chardev_script(box, name):
    """Character devices and ring buffers."""
    ok, refused = "return", "error"

    def add(ident, kind, **data):
        return {"id": ident, "backend": {"type": kind, "data": data}}

    def path(text):
        return {"type": "unix", "data": {"path": str(box / f"{name}.{text}")}}

    yield "query-chardev", None, ok
    yield "query-chardev-backends", None, ok
    yield "chardev-add", add("r", "ringbuf", size=16), ok
    yield "chardev-add", add("r", "ringbuf", size=16), refused
    yield "chardev-add", add("r2", "ringbuf", size=17), refused
    yield "chardev-add", add("r2", "memory"), ok
    yield "chardev-add", add("n", "null"), ok
    yield "chardev-add", {"id": "n2", "backend": {"type": "null"}}, refused
    yield "chardev-add", add("n2", "nosuch"), refused
    for data in ("hello", "0123456789abcdefXYZ"):
        yield "ringbuf-write", {"device": "r", "data": data}, ok
        yield "ringbuf-read", {"device": "r", "size": 3}, ok
        yield "ringbuf-read", {"device": "r", "size": 100}, ok
        yield "ringbuf-read", {"device": "r", "size": 100}, ok
    for data in ("aGVsbG8=", "/+KCrMPkYQ=="):
        for form in ("base64", "utf8"):
            yield "ringbuf-write", {"device": "r", "data": data,
                                    "format": "base64"}, ok
            yield "ringbuf-read", {"device": "r", "size": 99,
                                   "format": form}, ok
    yield "ringbuf-write", {"device": "r", "data": "!!!",
                            "format": "base64"}, refused
    for device, size in (("r", 0), ("r", -1), ("n", 1), ("nope", 1)):
        yield "ringbuf-read", {"device": device, "size": size}, refused
    yield "ringbuf-write", {"device": "n", "data": "x"}, refused
    yield "ringbuf-write", {"device": "nope", "data": "x"}, refused
    yield "chardev-add", add("s", "socket", addr=path("a")), ok
    yield "chardev-add", add("s1", "socket", addr=path("nope"),
                             server=False), refused
    yield "chardev-add", add("s1", "socket", addr=path("a"), server=False,
                             wait=True), refused
    yield "chardev-add", add("s1", "socket", addr=path("b"), server=True,
                             reconnect=3), refused
    yield "chardev-add", add("s2", "socket", addr=path("c"), wait=False), ok
    yield "query-chardev", None, ok
    yield "qom-list", {"path": "/chardevs"}, ok
    yield "chardev-change", add("r", "null"), ok
    yield "chardev-change", add("r2", "ringbuf", size=3), refused
    yield "chardev-change", add("nope", "null"), refused
    yield "chardev-change", add("qmp", "null"), refused
    yield "ringbuf-read", {"device": "r", "size": 1}, refused
    yield "chardev-send-break", {"id": "r"}, ok
    yield "chardev-send-break", {"id": "nope"}, refused
    yield "chardev-remove", {"id": "qmp"}, refused
    yield "chardev-remove", {"id": "nope"}, refused
    # The reference has lost r2, whose change failed.
    for ident in ("r", "n", "s", "s2"):
        yield "chardev-remove", {"id": ident}, ok
    yield "query-chardev", None, ok


def play(daemon, box, tls_dir):
    """Runs the script; returns [(step, reply)] and the events."""
    harness.make_image(box / f"{daemon.name}.img", 1 << 20, {0: b"x" * 4096})
    replies, client = [], None
    for command, arguments, wanted in script(box, tls_dir, daemon.name):
        if command == "CONNECT":
            client = rawnbd.RawNbd(arguments)
            client.go("zero")
            client.write(65024, b"x" * 1024)
            continue
        if command == "EVENT":
            event = daemon.qmp.take_event("BLOCK_EXPORT_DELETED",
                                          id=arguments)
            daemon.qmp.events.append(event)
            client.close()
            continue
        reply = daemon.qmp.reply(daemon.qmp.send(command, arguments))
        step = f"{command} {json.dumps(arguments)}"
        assert wanted in reply, f"{daemon.name}: {step}: {reply}"
        replies.append((step, reply))
    assert daemon.qmp.at_eof()
    assert daemon.wait() == 0
    return replies, daemon.qmp.events


def own_schema(daemons):
    reference = daemons(program=harness.REFERENCE, name="schema",
                        workers=False)
    return qapi.Schema(reference.cmd("query-qmp-schema"))


def differences(schema, step, command, reply, other):
    """How our reply differs from the reference's in what clients look at."""
    extra = ADDITIONS.get(command, set())
    if "error" in other:
        if reply["error"]["class"] != other["error"]["class"]:
            return [f"{step}: {reply['error']} against {other['error']}"]
        return []
    value = reply["return"]
    problems = [f"{step}: {p}" for p in schema.problems(
        value, schema.command(command)["ret-type"], "", extra)]
    if command == "ringbuf-read" and value != other["return"]:
        problems.append(f"{step}: {value!r} against {other['return']!r}")
    volatile = VOLATILE.get(command, set())
    more = qapi.key_paths(value) - qapi.key_paths(other["return"])
    less = qapi.key_paths(other["return"]) - qapi.key_paths(value)
    if more - extra - volatile or less - volatile:
        problems.append(f"{step}: more: {sorted(more - extra)}, "
                        f"less: {sorted(less)}")
    return problems


@pytest.mark.peers("qemu-storage-daemon")
def test_same_script_gets_same_shapes(daemons, box, tls_dir):
    schema = own_schema(daemons)
    theirs, _ = play(daemons(program=harness.REFERENCE, name="theirs"), box,
                     tls_dir)
    ours, _ = play(daemons(name="ours"), box, tls_dir)
    problems = []
    for (step, reply), (_, other) in zip(ours, theirs, strict=True):
        command = step.split(" ", 1)[0]
        problems += differences(schema, step, command, reply, other)
    assert not problems, "\n".join(problems)


# The reference has none about clients.
OUR_EVENTS = {"NBD_CLIENT_CONNECTED", "NBD_CLIENT_DISCONNECTED",
              "NBD_CLIENT_REJECTED"}


@pytest.mark.peers("qemu-storage-daemon")
def test_events_fit_reference_schema(daemons, box, tls_dir):
    schema = own_schema(daemons)
    _, events = play(daemons(name="ours"), box, tls_dir)
    assert {e["data"]["id"] for e in events
            if e["event"] == "BLOCK_EXPORT_DELETED"} == {"e0", "e1", "old"}
    assert [e["data"] for e in events
            if e["event"] == "BLOCK_WRITE_THRESHOLD"] == [
                {"node-name": "f0", "write-threshold": 65536,
                 "amount-exceeded": 512}]
    for event in events:
        if event["event"] in OUR_EVENTS:
            continue
        entry = schema.event(event["event"])
        assert entry, f"the reference has no event {event['event']}"
        problems = list(schema.problems(event.get("data", {}),
                                        entry["arg-type"]))
        assert not problems, problems
        assert set(event["timestamp"]) == {"seconds", "microseconds"}


@pytest.mark.peers("qemu-storage-daemon")
def test_greeting_has_same_shape(daemons):
    theirs = daemons(program=harness.REFERENCE, name="theirs")
    ours = daemons(name="ours")
    for daemon in (theirs, ours):
        greeting = daemon.qmp.greeting
        assert set(greeting) == {"QMP"}
        assert set(greeting["QMP"]) == {"version", "capabilities"}
        assert qapi.key_paths(greeting["QMP"]["version"]) == VERSION_PATHS
        assert isinstance(greeting["QMP"]["capabilities"], list)


# Commands that the reference has and ours has not; README.md says why.
ABSENT = set("""block-commit block-stream change-backing-file
    blockdev-snapshot blockdev-snapshot-sync blockdev-snapshot-internal-sync
    blockdev-snapshot-delete-internal-sync x-blockdev-amend
    x-blockdev-set-iothread""".split())


@pytest.mark.peers("qemu-storage-daemon")
@pytest.mark.ours("compares two daemons")
def test_absent_commands_are_those_that_the_readme_names(daemons, daemon):
    theirs = daemons(program=harness.REFERENCE, name="theirs", workers=False)
    names = {d: {c["name"] for c in d.cmd("query-commands")}
             for d in (theirs, daemon)}
    assert names[theirs] - names[daemon] == ABSENT
    readme = (harness.TESTS.parent / "README.md").read_text()
    assert not [c for c in ABSENT if f"`{c}`" not in readme]


# What the first issue's commands take in the reference and ours leaves out.
MISSING_ALLOWED = {"object-add", "blockdev-add", "blockdev-reopen",
                   "block-export-add"}


def argument_names(schema, command):
    """{member: is it optional} of a command's own arguments."""
    entry = schema.command(command)
    return {m["name"]: "default" in m
            for m in schema.types[entry["arg-type"]]["members"]}


@pytest.mark.peers("qemu-storage-daemon")
@pytest.mark.ours("compares two daemons")
def test_commands_take_the_reference_arguments(daemons, daemon):
    theirs = own_schema(daemons)
    ours = qapi.Schema(daemon.cmd("query-qmp-schema"))
    commands = {entry["name"] for entry in daemon.cmd("query-commands")}
    problems = []
    for name in sorted(commands):
        assert ours.command(name), f"{name} is not in the schema"
        if not theirs.command(name):
            continue
        wanted, found = argument_names(theirs, name), argument_names(ours, name)
        for member, optional in wanted.items():
            if member not in found:
                if name not in MISSING_ALLOWED:
                    problems.append(f"{name}: lacks {member}")
            elif optional and not found[member]:
                problems.append(f"{name}: {member} must be optional")
        for member, optional in found.items():
            if member not in wanted and not optional:
                problems.append(f"{name}: {member} is new and mandatory")
    assert not problems, "\n".join(problems)


@pytest.mark.peers("qemu-storage-daemon")
def test_qmp_client_of_the_reference_project_style_works(daemon):
    """A client that reads line by line, as many do."""
    client = qmp.QmpClient(daemon.monitor_path, negotiate=False)
    with client.sock.makefile("rwb") as stream:
        stream.write(b'{"execute":"qmp_capabilities"}\r\n')
        stream.flush()
        assert json.loads(stream.readline()) == {"return": {}}
        stream.write(b'{"execute":"query-version","id":"v"}\r\n')
        stream.flush()
        line = stream.readline()
        assert line.endswith(b"\r\n") and json.loads(line)["id"] == "v"
    client.close()
