# SPDX-License-Identifier: GPL-2.0-or-later
"""Copies to an NBD server that loses what was not flushed, and comes back.

As a host does that loses its power. Nobody says so: each write was
acknowledged, and the flushes of the next connection succeed.
"""
import contextlib
import threading

import pytest

import harness
import rawnbd as nbd
import rawserver

pytestmark = pytest.mark.ours("the reference does not notice")

SIZE = 4 << 20
SLOW = 4 << 20  # bytes per second


class Forgetful(rawserver.RawServer):
    def __init__(self, path, data):
        self.stable = bytes(data)
        super().__init__(path, data)

    def answer(self, conn, command, cookie, offset, length, data):
        if command == nbd.CMD_FLUSH:
            self.stable = bytes(self.data)
        super().answer(conn, command, cookie, offset, length, data)

    def crash(self):
        self.drop()
        self.data[:] = self.stable


class Scene:
    target = "dst"

    def __init__(self, daemon, box):
        self.daemon = daemon
        self.source = harness.make_image(box / "source.img", SIZE, {
            0: harness.random_bytes(SIZE)})
        self.server = Forgetful(box / "far.sock", bytearray(SIZE))
        daemon.serve_file(self.source, "src")
        daemon.execute("blockdev-add", self.server.options(
            **{"node-name": "dst", "reconnect-delay": 60}))

    def begin(self, kind, **options):
        self.daemon.cmd(f"blockdev-{kind}", **{
            "job_id": "j", "device": "src", "target": self.target,
            "sync": "full", **options})

    def wait_for(self, command):
        self.server.wait_for(lambda: any(
            request[0] == command for request in self.server.requests))

    def status(self, status):
        self.daemon.qmp.take_event("JOB_STATUS_CHANGE", id="j", status=status)

    def crash_half_way(self):
        """While nothing is under way, so that all was acknowledged."""
        harness.wait_until(lambda: any(
            request[0] == nbd.CMD_WRITE for request in self.server.requests))
        self.daemon.cmd("job-pause", id="j")
        self.status("paused")
        assert any(self.server.data) and not any(self.server.stable)
        self.server.crash()
        self.daemon.cmd("block-job-set-speed", device="j", speed=0)

    def end(self, kind="mirror"):
        if kind == "mirror":
            self.daemon.qmp.take_event("BLOCK_JOB_READY", device="j")
            self.daemon.cmd("job-complete", id="j")
        return self.daemon.qmp.take_event("BLOCK_JOB_COMPLETED",
                                          device="j")["data"]

    def check(self):
        self.server.crash()
        assert self.server.data == self.source.read_bytes()


@pytest.fixture
def scene(daemon, box):
    found = Scene(daemon, box)
    yield found
    found.server.stop()


@pytest.mark.parametrize("kind", ("mirror", "backup"))
def test_job_copies_again_what_was_lost_half_way(scene, kind):
    scene.begin(kind, speed=SLOW)
    scene.crash_half_way()
    scene.daemon.cmd("job-resume", id="j")
    assert "error" not in scene.end(kind)
    scene.check()


@pytest.mark.parametrize("policy", ("report", "stop", "ignore"))
def test_backup_fails_if_what_was_lost_is_overwritten(scene, policy):
    """It is nowhere else, and nobody knows whether the server still has it."""
    scene.begin("backup", speed=SLOW, on_target_error=policy)
    scene.crash_half_way()
    with nbd.RawNbd(scene.daemon.nbd_path).go("src") as client:
        assert client.write(0, b"w" * 65536) == 0
    scene.daemon.cmd("job-resume", id="j")
    assert scene.end("backup")["error"] == (
        "The target may have lost bytes 0 to 65535, which it had not flushed, "
        "and the source was overwritten there since; start the job anew: "
        "Input/output error")


def test_backup_goes_on_if_what_was_overwritten_is_stable(scene):
    before = scene.source.read_bytes()
    scene.begin("backup", speed=SLOW)
    scene.wait_for(nbd.CMD_WRITE)
    with nbd.RawNbd(scene.daemon.nbd_path).go("src") as client:
        assert client.write(65536, b"w" * 65536) == 0
    scene.wait_for(nbd.CMD_FLUSH)  # it does not stay in danger for long
    scene.daemon.cmd("job-pause", id="j")
    scene.status("paused")
    scene.server.crash()
    scene.daemon.cmd("block-job-set-speed", device="j", speed=0)
    scene.daemon.cmd("job-resume", id="j")
    assert "error" not in scene.end("backup")
    assert scene.server.data == before


def test_write_over_what_was_copied_copies_only_the_rest(scene):
    before = scene.source.read_bytes()
    server = scene.server
    scene.begin("backup", sync="none")
    with nbd.RawNbd(scene.daemon.nbd_path).go("src") as client:
        assert client.write(SIZE - 65536, b"w" * 65536) == 0
        scene.wait_for(nbd.CMD_FLUSH)
        assert server.stable[-65536:] == before[-65536:]
        assert client.write(0, b"v" * SIZE) == 0
        assert server.data == before
    scene.daemon.cmd("block-job-cancel", device="j")
    scene.daemon.qmp.take_event("BLOCK_JOB_CANCELLED", device="j")


class Lazy(Forgetful):
    """Does not answer flushes on connections that it is told to mute, and may
    fail them."""

    error = 0

    def __init__(self, path, data):
        self.muted, self.held = [], None
        super().__init__(path, data)

    def mute(self):
        """Those that there are."""
        self.muted = list(self.connections)

    def answer(self, conn, command, cookie, offset, length, data):
        if command == nbd.CMD_FLUSH and self.error:
            self.simple(conn, cookie, self.error)
        elif command == nbd.CMD_FLUSH and conn in self.muted:
            with self.changed:
                self.held = conn, command, cookie, offset, length, data
                self.changed.notify_all()
        else:
            super().answer(conn, command, cookie, offset, length, data)

    def let_go(self):
        self.wait_for(lambda: self.held)
        self.muted = []
        self.thread.offset = None
        super().answer(*self.held)


class Unstable(Forgetful):
    flags = rawserver.ALL_FLAGS & ~nbd.FLAG_FLUSH


def replace_server(scene, kind, **options):
    scene.server.stop()
    scene.daemon.cmd("blockdev-del", node_name="dst")
    scene.server = kind(scene.server.path, bytearray(SIZE))
    scene.daemon.execute("blockdev-add", scene.server.options(
        **{"node-name": "dst", "reconnect-delay": 60, **options}))


@pytest.fixture
def fleecing(scene):
    """Exports "disk", which is written, and "past", a snapshot of it."""
    def start(**options):
        scene.daemon.cmd("block-export-del", id="exp-src")
        scene.daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-src")
        scene.daemon.execute("blockdev-add", {
            "driver": "copy-before-write", "node-name": "c0", "file": "src",
            "target": "dst", **options})
        scene.daemon.execute("blockdev-add", {
            "driver": "snapshot-access", "node-name": "s0", "file": "c0"})
        scene.daemon.add_export("c0", name="disk", writable=True)
        scene.daemon.add_export("s0", name="past")
        return (stack.enter_context(nbd.RawNbd(scene.daemon.nbd_path).go(name))
                for name in ("disk", "past"))

    with contextlib.ExitStack() as stack:
        yield start


@pytest.fixture
def lazy(scene):
    replace_server(scene, Lazy)
    return scene.server


def test_backup_that_only_copies_first_notices_losses(scene, lazy):
    """No copy of its own would ever flush the target."""
    lazy.mute()
    scene.begin("backup", sync="none")
    with nbd.RawNbd(scene.daemon.nbd_path).go("src") as client:
        assert client.write(0, b"w" * 65536) == 0
        lazy.crash()
    assert "may have lost bytes 0 to 65535" in scene.end("backup")["error"]


def wait_done(daemon, what, count):
    """Waits until so much of the target's statistics has succeeded."""
    def stats():
        return {node["node-name"]: node["stats"] for node in daemon.cmd(
            "query-blockstats", query_nodes=True)}
    harness.wait_until(lambda: stats()["dst"][what] >= count)


def wait_flushed(daemon, count):
    wait_done(daemon, "flush_operations", count)


def check_broken(scene, disk, past, first, last):
    """Readers see it, and changes go on without copies."""
    for offset in (first, 0):
        assert past.read(offset, 512)[0] == nbd.EIO, offset
    scene.daemon.wait_log(
        "node 'c0': the snapshot is broken and cannot be read any more: the "
        f"target 'dst' may have lost bytes {first} to {last}, which it had not "
        "flushed, and 'src' has changed there")
    assert disk.write(0, b"v" * 65536) == 0
    assert not any(scene.server.data[:65536])


@pytest.mark.parametrize("policy", ("break-guest-write", "break-snapshot"))
def test_snapshot_whose_old_data_was_lost_is_broken(scene, lazy, fleecing,
                                                    policy):
    """What is there instead must not be taken for old data; and to refuse
    changes would not bring it back."""
    disk, past = fleecing(**{"on-cbw-error": policy})
    before = scene.source.read_bytes()
    lazy.mute()
    assert disk.write(65536, b"w" * 65536) == 0
    assert past.read(0, 1 << 20) == (0, before[:1 << 20])
    scene.wait_for(nbd.CMD_FLUSH)
    lazy.crash()
    check_broken(scene, disk, past, 65536, 131071)


@pytest.mark.parametrize("options", ({}, {"cache": {"no-flush": True}}))
def test_snapshot_is_broken_if_nothing_can_be_flushed(scene, fleecing,
                                                      options):
    replace_server(scene, Forgetful if options else Unstable, **options)
    disk, past = fleecing()
    assert disk.write(65536, b"w" * 65536) == 0
    scene.server.crash()
    check_broken(scene, disk, past, 65536, 131071)
    assert nbd.CMD_FLUSH not in [r[0] for r in scene.server.requests]


def test_snapshot_is_broken_if_a_flush_fails(scene, lazy, fleecing):
    """The next one may well succeed, and says nothing about this one."""
    disk, past = fleecing()
    lazy.error = nbd.EIO
    assert disk.write(65536, b"w" * 65536) == 0
    scene.wait_for(nbd.CMD_FLUSH)
    scene.daemon.wait_log("the snapshot is broken")
    check_broken(scene, disk, past, 65536, 131071)


def test_snapshot_stays_whole_if_old_data_is_stable(scene, fleecing):
    disk, past = fleecing()
    before = scene.source.read_bytes()
    for count in (1, 2):
        offset = count << 20
        assert disk.write(offset, b"w" * 65536) == 0
        wait_flushed(scene.daemon, count)
        scene.server.crash()
        assert past.read(0, SIZE) == (0, before)
    assert scene.source.read_bytes() != before


def test_one_flush_at_a_time_covers_what_came_before(scene, lazy, fleecing):
    disk, past = fleecing()
    before = scene.source.read_bytes()
    lazy.mute()
    assert disk.write(0, b"w" * 65536) == 0
    scene.wait_for(nbd.CMD_FLUSH)
    for n in range(1, 40, 2):
        assert disk.write(n << 16, b"w" * 65536) == 0
    lazy.let_go()
    wait_flushed(scene.daemon, 2)
    lazy.crash()
    assert past.read(0, SIZE) == (0, before)
    assert [r[0] for r in lazy.requests].count(nbd.CMD_FLUSH) == 2


class Selective(Lazy):
    """Does not answer reads either, nor writes to the end of the disk."""

    def answer(self, conn, command, cookie, offset, length, data):
        held = command == nbd.CMD_READ or \
            command == nbd.CMD_WRITE and offset + length == SIZE
        if not held or conn not in self.muted:
            super().answer(conn, command, cookie, offset, length, data)


@pytest.fixture
def half_copied(scene, fleecing):
    """A change of the whole disk waits for the copy of its end."""
    replace_server(scene, Selective)
    server = scene.server
    server.mute()
    disk, past = fleecing()
    before = scene.source.read_bytes()
    cookie = disk.send_request(nbd.CMD_WRITE_ZEROES, 0, SIZE)
    wait_done(scene.daemon, "wr_bytes", SIZE - (1 << 20))
    return server, disk, cookie, past, before


def test_old_data_that_is_still_there_is_copied_again(scene, half_copied):
    """The change waits for one of its copies when the others get lost."""
    server, disk, cookie, past, before = half_copied
    server.crash()
    assert disk.read_reply()[0] == nbd.Simple(0, cookie)
    assert server.data == before
    assert past.read(0, SIZE) == (0, before)
    assert not any(scene.source.read_bytes())


def test_every_reader_notices_the_loss(half_copied):
    """All of them wait for the target, and come back one after the other."""
    server, _, _, past, before = half_copied
    pieces = {past.send_request(nbd.CMD_READ, n << 16, 65536):
              before[n << 16:(n + 1) << 16] for n in range(8)}
    server.wait_for(lambda: len(pieces) == sum(
        request[0] == nbd.CMD_READ for request in server.requests))
    server.crash()
    for _ in range(len(pieces)):
        reply, data = past.read_reply(65536)
        assert data == pieces.pop(reply.cookie)


def test_stable_old_data_is_not_lost_with_the_rest(scene, fleecing):
    replace_server(scene, Selective)
    disk, past = fleecing()
    server, before = scene.server, scene.source.read_bytes()
    assert disk.write(0, b"w" * 65536) == 0
    wait_flushed(scene.daemon, 1)
    server.mute()
    cookie = disk.send_request(nbd.CMD_WRITE_ZEROES, 1 << 20, SIZE - (1 << 20))
    wait_done(scene.daemon, "wr_bytes", SIZE - (2 << 20) + 65536)
    server.crash()
    assert disk.read_reply()[0] == nbd.Simple(0, cookie)
    assert past.read(0, SIZE) == (0, before)


class Dying(rawserver.RawServer):
    """Acknowledges one write on each connection, and ends it at the next."""

    def answer(self, conn, command, cookie, offset, length, data):
        if command == nbd.CMD_WRITE:
            if getattr(self.thread, "wrote", False):
                raise rawserver.Gone
            self.thread.wrote = True
        if command != nbd.CMD_FLUSH:
            super().answer(conn, command, cookie, offset, length, data)


@pytest.mark.parametrize("options", (
    {}, {"on-cbw-error": "break-snapshot"}, {"cbw-timeout": 600}))
def test_change_does_not_wait_for_a_target_that_loses_all(scene, fleecing,
                                                          options):
    """It is a failure as any other after a few times."""
    replace_server(scene, Dying)
    disk, past = fleecing(**options)
    before = scene.source.read_bytes()
    ret = disk.request(nbd.CMD_WRITE_ZEROES, 0, 2 << 20)
    if "on-cbw-error" in options:
        assert ret == 0 and past.read(0, 512)[0] == nbd.EIO
        assert ("the snapshot is broken and cannot be read any more: old data "
                "could not be copied to the target 'dst': Input/output error"
                in scene.daemon.log())
        assert not any(scene.source.read_bytes()[:2 << 20])
    else:
        assert ret == nbd.EIO and past.read(0, SIZE) == (0, before)
        assert scene.source.read_bytes() == before


def test_snapshot_goes_while_its_target_is_away(scene, lazy, fleecing):
    """A flush waits for the server meanwhile."""
    disk, past = fleecing()
    lazy.mute()
    assert disk.write(0, b"w" * 65536) == 0
    scene.wait_for(nbd.CMD_FLUSH)
    lazy.stop()
    scene.daemon.wait_log("node 'dst': lost NBD server")
    for client in (disk, past):
        client.disconnect()
    harness.wait_until(lambda: not any(
        export["clients"] for export in scene.daemon.cmd("query-block-exports")))
    for name in ("c0", "s0"):
        scene.daemon.cmd("block-export-del", id=f"exp-{name}")
        scene.daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id=f"exp-{name}")
    for name in ("s0", "c0", "dst"):
        scene.daemon.cmd("blockdev-del", node_name=name)
    lazy.listen()


@pytest.mark.parametrize("mode", ("background", "write-blocking"))
@pytest.mark.parametrize("finalize", (False, True))
def test_mirror_copies_again_what_was_lost_at_the_end(scene, mode, finalize):
    scene.begin("mirror", copy_mode=mode, auto_finalize=not finalize)
    daemon, server = scene.daemon, scene.server
    daemon.qmp.take_event("BLOCK_JOB_READY", device="j")
    with nbd.RawNbd(daemon.nbd_path).go("src") as client:
        if finalize:
            daemon.cmd("job-complete", id="j")
            scene.status("pending")
        else:
            assert client.write(SIZE - 4096, b"w" * 4096) == 0
            harness.wait_until(lambda: server.data[-4096:] == b"w" * 4096)
            daemon.cmd("job-pause", id="j")
            scene.status("standby")
            assert server.stable[-4096:] != b"w" * 4096
            server.crash()
            daemon.cmd("job-complete", id="j")
            daemon.cmd("job-resume", id="j")
        if finalize:
            server.crash()
            assert client.write(SIZE - 4096, b"v" * 4096) == 0
            daemon.cmd("job-finalize", id="j")
    end = daemon.qmp.take_event("BLOCK_JOB_COMPLETED", device="j")["data"]
    assert "error" not in end
    scene.check()


def test_mirror_sees_losses_of_each_child(scene, box):
    """The other child has everything, and a quorum of it is enough."""
    daemon = scene.daemon
    other = Forgetful(box / "other.sock", bytearray(SIZE))
    try:
        daemon.execute("blockdev-add", other.options(
            **{"node-name": "other", "reconnect-delay": 60}))
        daemon.cmd("object-add", qom_type="throttle-group", id="group")
        daemon.execute("blockdev-add", {
            "driver": "throttle", "node-name": "slow", "file": "other",
            "throttle-group": "group"})
        daemon.execute("blockdev-add", {
            "driver": "quorum", "node-name": "both", "vote-threshold": 1,
            "children": ["dst", "slow"]})
        scene.target = "both"
        scene.begin("mirror", speed=SLOW)
        scene.wait_for(nbd.CMD_WRITE)
        daemon.cmd("job-pause", id="j")
        scene.status("paused")
        assert any(other.data) and not any(other.stable)
        other.crash()
        daemon.cmd("block-job-set-speed", device="j", speed=0)
        daemon.cmd("job-resume", id="j")
        assert "error" not in scene.end()
        other.crash()
        assert other.data == scene.source.read_bytes()
        scene.check()
    finally:
        other.stop()


class Slow(Forgetful):
    """Answers the first piece of the disk at once, and what is behind it a
    while after the first flush, which shows that writes were lost."""

    crashes = True

    def __init__(self, path, data):
        self.was_flushed = False
        super().__init__(path, data)

    def answer(self, conn, command, cookie, offset, length, data):
        def later():
            self.thread.offset = None
            try:
                Forgetful.answer(self, conn, command, cookie, offset, length,
                                 data)
            except OSError:
                pass
        if command == nbd.CMD_FLUSH and not self.was_flushed:
            assert any(self.data) and not any(self.stable)
            self.was_flushed = True
            self.data[:] = self.stable
            if self.crashes:
                self.drop()
                raise rawserver.Gone
            self.simple(conn, cookie, error=5)
        elif command == nbd.CMD_WRITE and offset > 0 and \
                not any(self.data[offset:offset + length]):
            threading.Timer(0.6, later).start()
        else:
            super().answer(conn, command, cookie, offset, length, data)


class Failing(Slow):
    crashes = False


@pytest.mark.parametrize("kind", (Slow, Failing))
def test_operation_with_several_writes_spans_the_loss(daemon, box, kind):
    """The first of them is lost; the second comes after the flush."""
    size = 1 << 20
    source = harness.make_image(box / "source.img", size, {
        0: harness.random_bytes(size // 4),
        size // 4: bytes(size // 4),
        size // 2: harness.random_bytes(size // 2)})
    server = kind(box / "far.sock", bytearray(size))
    try:
        daemon.serve_file(source, "src")
        daemon.execute("blockdev-add", server.options(
            **{"node-name": "dst", "reconnect-delay": 60}))
        daemon.cmd("blockdev-mirror", job_id="j", device="src", target="dst",
                   sync="full", on_target_error="ignore")
        daemon.qmp.take_event("BLOCK_JOB_READY", device="j")
        daemon.cmd("job-complete", id="j")
        end = daemon.qmp.take_event("BLOCK_JOB_COMPLETED", device="j")["data"]
        assert "error" not in end
        assert server.was_flushed
        server.crash()
        assert server.data == source.read_bytes()
    finally:
        server.stop()


class Deaf(rawserver.RawServer):
    """Hears the first write, on its first connection, only when it may."""

    def __init__(self, path, data):
        self.may_hear = threading.Event()
        self.heard = threading.Event()
        self.is_deaf = threading.Lock()
        self.deaf = None
        super().__init__(path, data)

    def serve(self, conn):
        super().serve(conn)
        if conn is self.deaf:
            self.heard.set()

    def recv(self, conn, count):
        first = count >= 4096 and self.is_deaf.acquire(blocking=False)
        if first:
            self.deaf = conn
            assert self.may_hear.wait(20)
        data = super().recv(conn, count)
        if first:
            self.late = data
        return data


def test_late_server_does_not_spoil_a_backup(daemon, box):
    """A connection that was given up may still be read by the server: what
    comes of it then has to be of the point in time."""
    size = 64 << 10
    source = harness.make_image(box / "source.img", size, {
        0: harness.random_bytes(size)})
    before = source.read_bytes()
    server = Deaf(box / "far.sock", bytearray(size))
    try:
        daemon.serve_file(source, "src")
        daemon.execute("blockdev-add", server.options(
            **{"node-name": "dst", "reconnect-delay": 60,
               "silence-timeout": 1}))
        daemon.cmd("blockdev-backup", job_id="j", device="src", target="dst",
                   sync="full")
        end = daemon.qmp.take_event("BLOCK_JOB_COMPLETED", device="j")["data"]
        assert "error" not in end and server.data == before
        with nbd.RawNbd(daemon.nbd_path).go("src") as client:
            assert client.write(0, b"w" * size) == 0
        server.may_hear.set()
        assert server.heard.wait(20)
        assert server.late == before
        assert server.data == before
    finally:
        server.may_hear.set()
        server.stop()


# Users of exports.

@pytest.fixture
def server(box):
    found = Forgetful(box / "far.sock", bytearray(SIZE))
    yield found
    found.stop()


@pytest.mark.parametrize("graph", ("nbd", "quorum"))
@pytest.mark.parametrize("reports", (True, False))
def test_flush_reports_what_may_be_lost(daemon, server, graph, reports):
    """Once to each client, if that is wanted; the reference never does."""
    daemon.execute("blockdev-add", server.options(
        **{"node-name": "dst", "reconnect-delay": 60}))
    node = "dst"
    if graph == "quorum":
        daemon.execute("blockdev-add", {
            "driver": "quorum", "node-name": "q", "vote-threshold": 1,
            "children": ["dst"]})
        node = "q"
    daemon.start_nbd()
    daemon.add_export(node, writable=True, report_losses=reports)
    with nbd.RawNbd(daemon.nbd_path).go(node) as one, \
            nbd.RawNbd(daemon.nbd_path).go(node) as two:
        assert one.write(0, b"a" * 512) == 0
        assert one.request(nbd.CMD_FLUSH) == 0
        assert one.write(512, b"b" * 512) == 0
        server.crash()
        lost = nbd.EIO if reports else 0
        assert two.request(nbd.CMD_FLUSH) == lost
        assert two.request(nbd.CMD_FLUSH) == 0
        assert one.request(nbd.CMD_FLUSH) == lost
        assert one.write(512, b"c" * 512) == 0
        assert one.request(nbd.CMD_FLUSH) == 0
        server.crash()
        assert one.request(nbd.CMD_FLUSH) == 0, "nothing was lost"
        with nbd.RawNbd(daemon.nbd_path).go(node) as late:
            assert late.request(nbd.CMD_FLUSH) == 0
    assert server.stable[:1024] == b"a" * 512 + b"c" * 512
    assert "what it had acknowledged and not flushed is lost" in daemon.log()
