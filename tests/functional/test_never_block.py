# SPDX-License-Identifier: GPL-2.0-or-later
"""No command may block the monitor, whatever its storage or peer does.

Each command runs with a file system that has stopped answering under its
nodes, NBD clients that wait for that storage, and peers that are silent;
meanwhile another client of the monitor times query-version.
"""
import os
import socket
import time

import pytest

import harness
import rawnbd as nbd
import rawserver
import stuckfs

pytestmark = pytest.mark.ours("the reference blocks")

SIZE = 4 << 20
# How long another client may wait for an answer. The machine may be busy and
# the build slow; what blocks on storage would wait for ever.
PROMPT = 2.0


def mounted(box, **options):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("/dev/fuse is missing")
    if os.getuid() != 0:
        pytest.skip("needs root to mount")
    fs = stuckfs.StuckFs(box, **options)
    yield fs
    fs.end()


@pytest.fixture
def fs(box):
    yield from mounted(box)


class Stage:
    """A daemon in trouble: everything that can be stuck is stuck."""

    def __init__(self, daemons, fs, box, tls_dir):
        self.fs, self.box = fs, box
        for name in ("a.img", "b.img", "c.img"):
            harness.make_image(fs.source / name, SIZE)
        (fs.source / "secret").write_text("x")
        for name in os.listdir(tls_dir):
            if name.endswith(".pem"):
                (fs.source / name).write_bytes((tls_dir / name).read_bytes())
        self.daemon = daemons()
        cmd = self.daemon.cmd
        self.daemon.add_file(fs.mount / "a.img", "a")
        self.daemon.add_file(fs.mount / "b.img", "b")
        self.daemon.add_file(fs.mount / "b.img", "auto",
                             **{"auto-read-only": True})
        cmd("object-add", qom_type="tls-creds-x509", id="creds",
            endpoint="server", dir=str(fs.mount))
        cmd("object-add", qom_type="secret", id="sec", file=str(
            fs.mount / "secret"))
        self.daemon.start_nbd()
        self.daemon.add_export("a", writable=True)
        self.clients = [nbd.RawNbd(self.daemon.nbd_path).go("a")
                        for _ in range(2)]
        self.silent = nbd.RawNbd(self.daemon.nbd_path, handshake=False)
        self.watcher = self.daemon.client()

    def add_bitmap(self):
        """A bitmap on a node that will be stuck; returns its names."""
        names = {"node": "a", "name": "b0"}
        self.daemon.cmd("block-dirty-bitmap-add", **names)
        return names

    def add_node(self, name, node):
        return self.daemon.add_file(self.fs.mount / name, node)

    def add_job(self):
        """A job that will be stuck; returns its id."""
        self.add_node("c.img", "source")
        self.daemon.execute("blockdev-add", {
            "driver": "null-co", "node-name": "target", "size": SIZE})
        self.daemon.cmd("blockdev-mirror", job_id="job", device="source",
                        target="target", sync="full", speed=1)
        return "job"

    def add_listener(self):
        """A listener whose socket will be stuck; returns its id."""
        self.daemon.cmd("nbd-server-add-listener", id="more", addr={
            "type": "unix", "path": str(self.fs.mount / "sock")})
        return {"id": "more", "mode": "hard"}

    def chardev(self, kind=None):
        """A character device that is there; returns another for its id, with
        a socket that will be stuck."""
        socket_data = {"addr": {"type": "unix", "data": {
            "path": str(self.fs.mount / "sock")}}}
        if kind:
            self.daemon.cmd("chardev-add", id="c0",
                            backend={"type": kind, "data": {}})
        return {"id": "c0", "backend": {"type": "socket",
                                        "data": socket_data}}

    def get_stuck(self):
        self.fs.stop()
        for number, client in enumerate(self.clients):
            client.send_request(nbd.CMD_READ, 0, 65536)
            client.send_request(nbd.CMD_WRITE, 1 << 20, 4096,
                                data=b"w" * 4096)
            client.send_request(nbd.CMD_FLUSH)

    def assert_prompt(self, rounds=10):
        for _ in range(rounds):
            started = time.monotonic()
            self.watcher.cmd("query-version")
            took = time.monotonic() - started
            assert took < PROMPT, f"query-version took {took:.1f} s"

    def close(self):
        self.fs.go()
        for client in self.clients:
            client.close()
        self.silent.close()


@pytest.fixture
def stage(daemons, fs, box, tls_dir):
    stage = Stage(daemons, fs, box, tls_dir)
    yield stage
    stage.close()


def file_options(stage, name, node, **options):
    return {"driver": "file", "node-name": node,
            "filename": str(stage.fs.mount / name), **options}


# command -> its arguments, so that it meets what is stuck. Every command that
# query-commands lists is here; quit has a test of its own.
ARGUMENTS = {
    "add-fd": lambda s: {},
    "block-dirty-bitmap-add": lambda s: {"node": "a", "name": "b0"},
    "block-dirty-bitmap-clear": lambda s: s.add_bitmap(),
    "block-dirty-bitmap-disable": lambda s: s.add_bitmap(),
    "block-dirty-bitmap-enable": lambda s: s.add_bitmap(),
    "block-dirty-bitmap-merge": lambda s: {
        "node": s.add_bitmap()["node"], "target": "b0", "bitmaps": ["b0"]},
    "block-dirty-bitmap-remove": lambda s: s.add_bitmap(),
    "block-export-add": lambda s: {"type": "nbd", "id": "x", "node-name": "b",
                                   "writable": True},
    "block-export-del": lambda s: {"id": "exp-a", "mode": "hard"},
    "block-job-cancel": lambda s: {"device": s.add_job()},
    "block-job-change": lambda s: {"id": s.add_job(), "type": "mirror",
                                   "copy-mode": "write-blocking"},
    "block-job-complete": lambda s: {"device": s.add_job()},
    "block-job-dismiss": lambda s: {"id": s.add_job()},
    "block-job-finalize": lambda s: {"id": s.add_job()},
    "block-job-pause": lambda s: {"device": s.add_job()},
    "block-job-resume": lambda s: {"device": s.add_job()},
    "block-job-set-speed": lambda s: {"device": s.add_job(), "speed": 0},
    "block-job-set-progress": lambda s: {"device": s.add_job(),
                                         "interval-ms": 100},
    "block_resize": lambda s: {"node-name": "b", "size": 8 << 20},
    "block-set-write-threshold": lambda s: {"node-name": "b",
                                            "write-threshold": 4096},
    "blockdev-add": lambda s: file_options(s, "c.img", "c"),
    "blockdev-backup": lambda s: {
        "job-id": "j", "device": "b", "sync": "full",
        "target": s.add_node("c.img", "c")},
    "blockdev-create": lambda s: {"job-id": "j", "options": {
        "driver": "file", "size": SIZE,
        "filename": str(s.fs.mount / "d.img")}},
    "blockdev-del": lambda s: {"node-name": "b"},
    "blockdev-mirror": lambda s: {
        "job-id": "j", "device": "b", "sync": "full",
        "target": s.add_node("c.img", "c")},
    "blockdev-reopen": lambda s: {"options": [
        file_options(s, "a.img", "a", **{"read-only": False,
                                         "cache": {"no-flush": True}})]},
    "blockdev-set-active": lambda s: {"node-name": "b", "active": False},
    "transaction": lambda s: {"actions": [
        {"type": "block-dirty-bitmap-add", "data": {"node": "b",
                                                    "name": "b0"}},
        {"type": "blockdev-backup", "data": {
            "job-id": "j", "device": "b", "sync": "full",
            "target": s.add_node("c.img", "c")}}]},
    "x-blockdev-change": lambda s: {"parent": "b", "node": "a"},
    "chardev-add": lambda s: s.chardev(),
    "chardev-change": lambda s: s.chardev("null"),
    "chardev-remove": lambda s: {"id": s.chardev("null")["id"]},
    "chardev-send-break": lambda s: {"id": s.chardev("null")["id"]},
    "closefd": lambda s: {"fdname": "x"},
    "config-save": lambda s: {"filename": str(s.fs.mount / "saved.conf")},
    "drive-backup": lambda s: {
        "job-id": "j", "device": "b", "sync": "full", "format": "raw",
        "target": str(s.fs.mount / "d.img")},
    "drive-mirror": lambda s: {
        "job-id": "j", "device": "b", "sync": "full", "format": "raw",
        "target": str(s.fs.mount / "d.img")},
    "getfd": lambda s: {"fdname": "x"},
    "job-cancel": lambda s: {"id": s.add_job()},
    "job-complete": lambda s: {"id": s.add_job()},
    "job-dismiss": lambda s: {"id": s.add_job()},
    "job-finalize": lambda s: {"id": s.add_job()},
    "job-pause": lambda s: {"id": s.add_job()},
    "job-resume": lambda s: {"id": s.add_job()},
    "nbd-client-drop": lambda s: {"connection": 1},
    "nbd-server-add": lambda s: {"device": "b", "writable": True},
    "nbd-server-add-listener": lambda s: {
        "id": "more", "addr": {"type": "unix",
                               "path": str(s.fs.mount / "sock")}},
    "nbd-server-remove": lambda s: {"name": "exp-a", "mode": "hard"},
    "nbd-server-remove-listener": lambda s: s.add_listener(),
    "nbd-server-start": lambda s: {"addr": {"type": "unix", "data": {
        "path": str(s.fs.mount / "sock")}}},
    "nbd-server-stop": lambda s: {},
    "object-add": lambda s: {"qom-type": "tls-creds-x509", "id": "more",
                             "endpoint": "server", "dir": str(s.fs.mount)},
    "object-del": lambda s: {"id": "creds"},
    "qmp_capabilities": lambda s: {},
    "query-tls-creds": lambda s: {},
    "qom-get": lambda s: {"path": "/objects/creds", "property": "dir"},
    "qom-list": lambda s: {"path": "/objects"},
    "qom-list-properties": lambda s: {"typename": "secret"},
    "qom-list-types": lambda s: {},
    "qom-set": lambda s: {"path": "/objects/io0", "property": "poll-max-ns",
                          "value": 0},
    "query-block": lambda s: {},
    "query-block-exports": lambda s: {},
    "query-block-jobs": lambda s: {},
    "query-blockstats": lambda s: {"query-nodes": True},
    "query-chardev": lambda s: {},
    "query-chardev-backends": lambda s: {},
    "query-command-line-options": lambda s: {},
    "query-commands": lambda s: {},
    "query-fdsets": lambda s: {},
    "query-jobs": lambda s: {},
    "query-named-block-nodes": lambda s: {},
    "query-nbd-clients": lambda s: {"export-id": "exp-a"},
    "query-nbd-server": lambda s: {},
    "query-qmp-schema": lambda s: {},
    "query-version": lambda s: {},
    "remove-fd": lambda s: {"fdset-id": 1},
    "ringbuf-read": lambda s: {"device": s.chardev("ringbuf")["id"],
                               "size": 9},
    "ringbuf-write": lambda s: {"device": s.chardev("ringbuf")["id"],
                                "data": "x"},
    "x-debug-block-dirty-bitmap-sha256": lambda s: s.add_bitmap(),
    "x-debug-query-block-graph": lambda s: {},
    "tls-creds-reload": lambda s: {"id": "creds"},
}


def test_every_command_is_listed(daemon):
    listed = {c["name"] for c in daemon.cmd("query-commands")}
    assert listed - {"quit"} <= set(ARGUMENTS), \
        "each command needs arguments in this test"


@pytest.mark.parametrize("command", sorted(ARGUMENTS))
def test_others_are_served_while_it_waits(stage, command):
    arguments = ARGUMENTS[command](stage)
    actor = stage.daemon.client()
    stage.get_stuck()
    stage.assert_prompt(2)
    request_id = actor.send(command, arguments)
    stage.assert_prompt()
    stage.fs.go()
    # Whatever the outcome: an answer comes once the storage is back.
    reply = actor.reply(request_id)
    assert "return" in reply or reply["error"]["desc"]
    stage.assert_prompt(2)
    actor.close()


@pytest.mark.parametrize("command", sorted(
    c for c in ARGUMENTS if c.startswith(("query-", "qom-"))))
def test_queries_do_not_wait_themselves(stage, command):
    actor = stage.daemon.client()
    stage.get_stuck()
    reply = actor.reply(actor.send(command, ARGUMENTS[command](stage)),
                        limit=PROMPT)
    assert "return" in reply


def test_secret_from_stuck_file(stage):
    stage.get_stuck()
    actor = stage.daemon.client()
    request_id = actor.send("object-add", {
        "qom-type": "secret", "id": "s9",
        "file": str(stage.fs.mount / "secret")})
    stage.assert_prompt()
    stage.fs.go()
    assert actor.reply(request_id)["return"] == {}


def test_saving_to_a_stuck_place_does_not_hold_up_the_end(stage):
    """The thread is left alone with it."""
    stage.fs.stop()
    actor = stage.daemon.client()
    request_id = actor.send("config-save", {
        "filename": str(stage.fs.mount / "saved.conf")})
    stage.assert_prompt(2)
    stage.watcher.send("quit")
    reply = actor.reply(request_id)
    assert "gave up writing" in reply["error"]["desc"]
    stage.fs.go()


def test_nbd_server_at_a_stuck_path(stage):
    """Its socket is made and removed in a directory that does not answer."""
    stage.watcher.cmd("nbd-server-stop")
    stage.fs.stop()
    actor = stage.daemon.client()
    request_id = actor.send("nbd-server-start", {"addr": {
        "type": "unix", "data": {"path": str(stage.fs.mount / "sock")}}})
    stage.assert_prompt()
    stage.fs.go()
    reply = actor.reply(request_id)
    assert "return" in reply or "sock" in reply["error"]["desc"]


def test_closing_descriptors_holds_up_nobody(stage):
    closer, remover = stage.daemon.client(), stage.daemon.client()
    leaver = stage.daemon.client()
    with open(stage.fs.mount / "c.img", "rb") as image:
        closer.cmd("getfd", fdname="x", _fds=[image.fileno()])
        leaver.cmd("getfd", fdname="x", _fds=[image.fileno()])
        remover.cmd("add-fd", fdset_id=1, _fds=[image.fileno()])
    stage.fs.stop()
    leaver.close()
    ids = [closer.send("closefd", {"fdname": "x"}),
           remover.send("remove-fd", {"fdset-id": 1})]
    stage.assert_prompt()
    assert stage.watcher.cmd("query-fdsets") == []
    stage.fs.go()
    assert closer.reply(ids[0])["return"] == {}
    assert remover.reply(ids[1])["return"] == {}


def test_server_stops_while_an_export_is_added(stage):
    """The stop does not wait for the storage of an export to be."""
    stage.watcher.cmd("block-export-del", id="exp-a", mode="hard")
    stage.watcher.take_event("BLOCK_EXPORT_DELETED", id="exp-a")
    stage.fs.stop()
    actor = stage.daemon.client()
    request_id = actor.send("block-export-add", {
        "type": "nbd", "id": "x", "node-name": "auto", "writable": True})
    stage.assert_prompt(2)
    stage.watcher.cmd("nbd-server-stop", _limit=PROMPT)
    stage.fs.go()
    reply = actor.reply(request_id)
    assert reply["error"]["desc"] == "NBD server not running"


def test_commands_on_other_nodes_go_on(stage):
    """One stuck node does not hold up the administration of others."""
    stage.get_stuck()
    actor = stage.daemon.client()
    actor.send("blockdev-add", file_options(stage, "c.img", "c"))
    other = stage.daemon.client()
    image = harness.make_image(stage.box / "fine.img", 1 << 20)
    other.execute("blockdev-add", {
        "driver": "file", "node-name": "fine", "filename": str(image)},
        limit=10)
    other.cmd("block-export-add", type="nbd", id="fine", node_name="fine",
              _limit=10)
    with nbd.RawNbd(stage.daemon.nbd_path) as client:
        client.go("fine")
        assert client.read(0, 4096) == (0, bytes(4096))
    other.cmd("block-export-del", id="fine", mode="hard", _limit=10)
    other.take_event("BLOCK_EXPORT_DELETED", limit=10, id="fine")
    other.cmd("blockdev-del", node_name="fine", _limit=10)
    stage.fs.go()
    actor.read_message()


@pytest.mark.parametrize("kind", ("blockdev-backup", "blockdev-mirror"))
def test_filter_that_cannot_leave_holds_up_nobody(daemon, box, kind):
    """It tries once, and then when its chances are better."""

    class Silent(rawserver.RawServer):
        silent = False

        def answer(self, conn, *request):
            if not self.silent:
                super().answer(conn, *request)

    server = Silent(box / "raw.sock", bytearray(SIZE))
    daemon.execute("blockdev-add", server.options())
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "target",
                                    "size": SIZE})
    daemon.start_nbd()
    daemon.add_export("n0")
    client = nbd.RawNbd(daemon.nbd_path).go("n0")
    daemon.cmd(kind, job_id="job", device="n0", target="target", sync="none")
    server.silent = True
    client.send_request(nbd.CMD_READ, 0, 4096)
    server.wait_for(lambda: (nbd.CMD_READ, 0, 0, 4096) in server.requests)
    daemon.cmd("job-cancel", id="job")
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id="job", status="aborting")
    other = daemon.client()
    # The first attempt takes 10 seconds, and a second one would come soon.
    end = time.monotonic() + 12
    slow = 0
    while time.monotonic() < end:
        before = time.monotonic()
        other.cmd("blockdev-add", driver="null-co", node_name="fine", size=512)
        other.cmd("blockdev-del", node_name="fine")
        if time.monotonic() - before > PROMPT:
            slow += 1
            end = time.monotonic() + 4
    assert slow <= 1
    server.silent = False
    server.drop()
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id="job", status="null")
    client.close()
    server.stop()


def test_reopen_gives_up_on_stuck_storage(stage):
    """Nobody else can change the graph meanwhile, so it has a limit."""
    options = file_options(stage, "b.img", "auto",
                           **{"auto-read-only": True})
    stage.fs.stop()
    error = stage.daemon.error("blockdev-reopen", options=[options])
    assert "does not answer within 10 seconds" in error.desc
    stage.fs.go()


@pytest.mark.parametrize("size", (SIZE // 2, SIZE * 2))
def test_resize_that_comes_too_late_is_taken_back(stage, size):
    stage.fs.stop()
    error = stage.daemon.error("block_resize", node_name="b", size=size)
    assert "does not answer within 10 seconds" in error.desc
    stage.fs.go()
    stage.daemon.wait_log(f"node 'b': the storage has resized .* to {size} "
                          f"bytes .*; taken back to {SIZE}: Success")
    assert (stage.fs.source / "b.img").stat().st_size == SIZE


def test_stuck_clients_do_not_delay_others(stage):
    """The loops go on serving connections whose storage answers."""
    image = harness.make_image(stage.box / "fine.img", 1 << 20)
    stage.daemon.add_file(image, "fine")
    stage.daemon.add_export("fine")
    clients = [nbd.RawNbd(stage.daemon.nbd_path).go("fine")
               for _ in range(4)]
    stage.get_stuck()
    for client in clients:
        for number in range(50):
            started = time.monotonic()
            assert client.read(number * 512, 512)[0] == 0
            assert time.monotonic() - started < PROMPT
        client.close()


@pytest.mark.parametrize("how", ("quit", "SIGTERM"))
def test_ending_with_stuck_storage_takes_seconds(stage, how):
    """It gives storage some time, says what did not end, and goes."""
    stage.get_stuck()
    if how == "quit":
        stage.watcher.send("quit")
    else:
        stage.daemon.popen.terminate()
    # The kernel keeps a process whose request this file system holds, so the
    # proof is the last line; then it must be gone at once.
    try:
        stage.daemon.wait_log("did not answer for [0-9]+ s; ending", limit=25)
    finally:
        stage.fs.go()
    assert stage.daemon.wait(5) == 1
    stage.daemon.expected = {1}


def test_silent_monitor_clients_disturb_nobody(daemon):
    silent = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    for number, sock in enumerate(silent):
        sock.connect(str(daemon.monitor_path))
        sock.sendall(b'{"execute": "qmp_capabilities"}'[:number * 4])
    started = time.monotonic()
    assert daemon.cmd("query-version")
    assert time.monotonic() - started < PROMPT
    for sock in silent:
        sock.close()


def test_large_text_does_not_delay_others(daemon):
    busy, watcher = daemon.client(), daemon.client()
    text = b"[" + b"[1,2,3]," * 2_000_00 + b"0]"
    busy.send_bytes(b'{"execute":"query-version","id":' + text + b"}")
    worst = 0.0
    for _ in range(50):
        started = time.monotonic()
        watcher.cmd("query-version")
        worst = max(worst, time.monotonic() - started)
    assert worst < PROMPT
    assert "return" in busy.read_message(limit=60)


# The same file system shows which flushes arrive.

# (The reference skips the flush of a FUA write that follows a flush.)

@pytest.fixture
def cached_fs(box):
    """Like fs, with the page cache above it; it does not stop."""
    yield from mounted(box, cached=True)


def flushes_seen(daemon, fs, **options):
    """The number of fsync calls for one FLUSH and one FUA write."""
    harness.make_image(fs.source / "d.img", SIZE)
    daemon.serve_file(fs.mount / "d.img", **options)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("disk")
        counts = []
        assert client.write(0, b"x" * 4096) == 0
        for action in (lambda: client.request(nbd.CMD_FLUSH),
                       lambda: client.write(0, b"y" * 4096, nbd.FUA)):
            before = fs.count("fsync")
            assert action() == 0
            counts.append(fs.count("fsync") - before)
    return counts


def test_flush_and_fua_reach_the_file_system(daemon, cached_fs):
    flush, fua = flushes_seen(daemon, cached_fs)
    assert flush >= 1 and fua >= 1


def test_no_flush_means_no_flush(daemon, cached_fs):
    flush, _ = flushes_seen(daemon, cached_fs, cache={"no-flush": True})
    assert flush == 0
