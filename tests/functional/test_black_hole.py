# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD servers at an address that has stopped to answer anything.

Connecting there hangs, as behind a firewall, or to a host that has lost its
power: nobody refuses. The monitor must answer all along, each wait must end
when it is said to, and names must be usable again at once.
"""
import time

import nbd
import pytest

import blackhole
import harness
import qmp
import rawnbd
import rawserver
import replication

pytestmark = pytest.mark.ours("the reference blocks")

SIZE = 4 << 20
SLOW = 2 << 20  # bytes per second
# What needs no answer of anybody; the machine may be busy, the build slow.
PROMPT = 5.0


@pytest.fixture
def hole():
    """A function that opens black holes; see peers/blackhole.py."""
    opened = []

    def make(*where):
        opened.append(blackhole.BlackHole(*where))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def pinged(daemon):
    """The daemon; its monitor must answer all along."""
    pinger = replication.Pinger(daemon)
    yield daemon
    pinger.stop()


def remote(port, name="remote", **options):
    return {"driver": "nbd", "node-name": name, "export": "disk",
            "server": {"type": "inet", "host": "127.0.0.1",
                       "port": str(port)}, **options}


class Clock:
    def __init__(self):
        self.start = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.start


# Opening.


def failure(client, options):
    """Adds a node, which must fail; returns the text."""
    with pytest.raises(qmp.QmpError) as caught:
        client.execute("blockdev-add", options)
    return caught.value.desc


def test_add_ends_with_its_open_timeout(pinged, hole):
    port = hole().port
    clock = Clock()
    text = failure(pinged.qmp, remote(port, **{"open-timeout": 2}))
    assert 1.5 <= clock.seconds() < 2 + PROMPT
    assert f"127.0.0.1:{port}" in text and "timed out" in text, text
    # The same name, at once, and for another kind of node as well.
    pinged.cmd("blockdev-add", driver="null-co", node_name="remote", size=SIZE)
    pinged.cmd("blockdev-del", node_name="remote")
    assert pinged.cmd("query-named-block-nodes") == []


def test_add_without_open_timeout_ends_in_half_a_minute(daemons, hole):
    """And a name whose host is slow blocks no other name meanwhile."""
    daemon = daemons()
    one = hole()
    pinger = replication.Pinger(daemon)
    clock = Clock()
    request = daemon.qmp.send("blockdev-add", remote(one.port))
    one.wait_knock()
    other = daemon.client()
    assert "remote" in failure(other, remote(one.port))
    other.cmd("blockdev-add", driver="null-co", node_name="other", size=SIZE)
    other.cmd("blockdev-del", node_name="other")
    assert other.cmd("query-named-block-nodes") == []
    reply = daemon.qmp.reply(request, limit=30 + PROMPT)
    assert 29 <= clock.seconds() < 30 + PROMPT
    assert "Connection timed out" in reply["error"]["desc"], reply
    daemon.cmd("blockdev-add", driver="null-co", node_name="remote", size=SIZE)
    pinger.stop()


def test_add_succeeds_when_the_host_is_back(daemons, box, hole):
    target = replication.Site(daemons, box, "target",
                              harness.make_image(box / "t.img", SIZE))
    daemon = daemons()
    port = target.port
    target.cmd("nbd-server-stop")
    one = hole(port)
    request = daemon.qmp.send("blockdev-add",
                              remote(port, **{"open-timeout": 60}))
    one.wait_knock()
    one.close()
    target.cmd("nbd-server-start", addr={
        "type": "inet", "data": {"host": "127.0.0.1", "port": str(port)}})
    target.daemon.add_export("disk", writable=True)
    assert "return" in daemon.qmp.reply(request)


def test_second_address_gets_its_time(daemons, box, hole):
    """No name is localhost by ::1 and 127.0.0.1, the latter alone answers."""
    target = replication.Site(daemons, box, "target",
                              harness.make_image(box / "t.img", SIZE))
    try:
        hole(target.port, "::1")
    except OSError:
        pass  # no IPv6 here
    daemon = daemons()
    options = remote(target.port, **{"open-timeout": 4})
    options["server"]["host"] = ""
    daemon.execute("blockdev-add", options)


def test_daemon_ends_while_a_node_is_being_opened(daemons, hole):
    daemon = daemons()
    for timeout in (0, 10, 3600):
        one = hole()
        daemon.client().send("blockdev-add", remote(
            one.port, f"n{timeout}", **{"open-timeout": timeout}))
        one.wait_knock()
    clock = Clock()
    assert daemon.finish() is None
    assert clock.seconds() < PROMPT


# Jobs.


class Pair:
    """A mirror or backup to another host, which then turns into a hole."""

    def __init__(self, daemons, proxies, box, hole, connect_nbd):
        self.proxies, self.make_hole = proxies, hole
        self.connect_nbd = connect_nbd
        images = [harness.make_image(box / f"{name}.img", SIZE,
                                     {0: harness.random_bytes(SIZE)})
                  for name in ("source", "target")]
        self.source = replication.Site(daemons, box, "source", images[0])
        self.target = replication.Site(daemons, box, "target", images[1])
        self.pinger = replication.Pinger(self.source.daemon)
        self.port = harness.free_port()
        self.proxy = self.hole = None

    def begin(self, kind="mirror", speed=SLOW, **options):
        self.appear()
        self.source.add_remote(self.port, **options)
        self.source.cmd(f"blockdev-{kind}", job_id="job0", device="disk",
                        target="remote", sync="full", speed=speed)
        harness.wait_until(lambda: self.progress() > 0)

    def progress(self):
        return sum(j["current-progress"] for j in self.source.jobs())

    def appear(self):
        if self.hole:
            self.hole.close()
            self.hole = None
        self.proxy = self.proxies(f"tcp:{self.port}",
                                  f"tcp:{self.target.port}")

    def vanish(self):
        """The target's host reboots, and its firewall says nothing."""
        assert 0 < self.progress() < SIZE
        self.proxy.close()
        self.hole = self.make_hole(self.port)

    def guest(self):
        handle = self.connect_nbd(("127.0.0.1", self.source.port), "disk")
        return replication.Guest(handle, pause=0.02)

    def cancel(self, del_limit=PROMPT):
        clock = Clock()
        self.source.cmd("block-job-cancel", device="job0", force=True)
        end = self.source.take_end()
        assert end["event"] == "BLOCK_JOB_CANCELLED", end
        assert clock.seconds() < PROMPT
        clock = Clock()
        self.source.cmd("blockdev-del", node_name="remote")
        assert clock.seconds() < del_limit

    def finish(self):
        """The job, or another one of the same names, to a good end."""
        if not self.source.jobs():
            self.begin()
        self.source.cmd("block-job-set-speed", device="job0", speed=0)
        self.source.daemon.qmp.take_event("BLOCK_JOB_READY", device="job0")
        self.source.cmd("job-complete", id="job0")
        end = self.source.take_end()
        assert "error" not in end["data"], end
        assert (harness.sha256(self.source.image)
                == harness.sha256(self.target.image))
        self.pinger.stop()


@pytest.fixture
def pair(daemons, proxies, box, hole, connect_nbd):
    return Pair(daemons, proxies, box, hole, connect_nbd)


def test_job_that_reconnects_is_cancelled_at_once(pair):
    pair.begin(**{"reconnect-delay": 3600})
    pair.vanish()
    pair.hole.wait_knock()
    job, = pair.source.jobs()
    assert job["status"] == "running"
    pair.cancel()
    pair.finish()


def test_job_with_a_silent_connection_is_cancelled_at_once(pair):
    """The connections stay, as nobody resets them."""
    pair.begin(**{"reconnect-delay": 3600})
    pair.proxy.stall()
    before = pair.progress()
    assert 0 < before < SIZE
    # A connection that is up is given some seconds for a last flush.
    pair.cancel(del_limit=6 + PROMPT)
    pair.proxy.close()
    pair.finish()


def test_backup_does_not_hold_its_guest_when_cancelled(pair):
    pair.begin("backup", **{"reconnect-delay": 3600})
    pair.vanish()
    pair.hole.wait_knock()
    guest = pair.guest()
    harness.wait_until(lambda: guest.number > 0)
    pair.cancel()
    guest.stop()
    guest.check(pair.source.image)
    pair.finish()


def test_job_fails_when_reconnect_delay_is_over(pair):
    pair.begin(**{"reconnect-delay": 2})
    pair.vanish()
    clock = Clock()
    end = pair.source.take_end()
    assert 1 < clock.seconds() < 2 + PROMPT
    assert end["data"]["error"] == "Input/output error"
    pair.source.cmd("blockdev-del", node_name="remote")
    pair.finish()


def test_job_goes_on_when_the_host_is_back_in_time(pair):
    """Though the attempt that is under way then may never end."""
    pair.begin(**{"reconnect-delay": 60})
    pair.vanish()
    pair.hole.wait_knock()
    pair.appear()
    pair.finish()


def test_daemon_ends_in_the_middle_of_a_job(pair):
    pair.begin(**{"reconnect-delay": 3600})
    pair.vanish()
    pair.hole.wait_knock()
    pair.pinger.stop()
    clock = Clock()
    assert pair.source.daemon.finish() is None
    assert clock.seconds() < PROMPT


# A source that does not answer.


@pytest.fixture
def far_source(daemons, proxies, box):
    """A daemon whose disk "far" is behind a proxy, and an empty one, "near"."""
    there = replication.Site(daemons, box, "there", harness.make_image(
        box / "there.img", SIZE, {0: harness.random_bytes(SIZE)}))
    here = replication.Site(daemons, box, "here",
                            harness.make_image(box / "here.img", SIZE))
    port = harness.free_port()
    here.proxy = proxies(f"tcp:{port}", f"tcp:{there.port}")
    here.add_remote(port, "far", **{"reconnect-delay": 3600})
    here.cmd("block-export-del", id="exp-disk")
    here.daemon.add_export("far", writable=True)
    pinger = replication.Pinger(here.daemon)
    yield here
    pinger.stop()


@pytest.mark.parametrize("guest", (False, True))
@pytest.mark.parametrize("kind", ("mirror", "backup"))
def test_job_ends_by_force_while_its_source_is_silent(
        far_source, connect_nbd, kind, guest):
    """A guest that waits for the same does so no longer than the job."""
    here = far_source
    reader = connect_nbd(("127.0.0.1", here.port), "far") if guest else None
    here.cmd(f"blockdev-{kind}", job_id="job0", device="far", target="disk",
             sync="full", speed=SLOW)
    harness.wait_until(lambda: here.jobs()[0]["current-progress"] > 0)
    here.proxy.stall()
    if guest:
        cookie = reader.aio_pread(nbd.Buffer(4096), SIZE - 4096)
        reader.poll(0)
    harness.wait_until(lambda: here.daemon.cmd("query-block-jobs")[0]["busy"])
    here.cmd("block-job-cancel", device="job0", force=True)
    end = here.take_end()
    assert end["event"] == "BLOCK_JOB_CANCELLED", end
    if guest:
        with pytest.raises(nbd.Error, match="Input/output error"):
            while not reader.aio_command_completed(cookie):
                assert reader.poll(int(harness.LIMIT) * 1000) == 1
    # The network is back, and all can be used again.
    here.proxy.cut()
    here.proxy.go()
    here.cmd(f"blockdev-{kind}", job_id="job0", device="far", target="disk",
             sync="full")
    if kind == "mirror":
        here.daemon.qmp.take_event("BLOCK_JOB_READY", device="job0")
        here.cmd("block-job-cancel", device="job0")
    assert "error" not in here.take_end()["data"]
    assert here.image.read_bytes() == harness.random_bytes(SIZE)


class SlowServer(rawserver.RawServer):
    """Some answer is always under way."""

    answered = 0  # reads; one connection at a time

    def answer(self, conn, command, *rest):
        if command == rawnbd.CMD_READ:
            time.sleep(0.3)
        super().answer(conn, command, *rest)
        self.answered += command == rawnbd.CMD_READ


def test_job_that_waits_for_its_target_does_no_harm_to_its_source(
        daemons, box):
    """Others read there, and get their answers."""
    daemon = daemons("--allow-fault-injection")
    size = 1 << 20
    server = SlowServer(box / "far.sock", bytearray(
        harness.random_bytes(size)))
    try:
        daemon.execute("blockdev-add", server.options(**{"node-name": "src"}))
        target = harness.make_image(box / "target.img", size)
        daemon.execute("blockdev-add", {
            "driver": "file", "node-name": "file", "filename": str(target)})
        daemon.execute("blockdev-add", {
            "driver": "fault", "node-name": "dst", "image": "file",
            "rules": [{"op": "write", "delay-ms": 9000}]})
        daemon.start_nbd()
        daemon.add_export("src")
        reader = rawnbd.RawNbd(daemon.nbd_path).go("src")
        daemon.cmd("blockdev-backup", job_id="j", device="src", target="dst",
                   sync="full")
        harness.wait_until(lambda: server.answered > 0)
        daemon.cmd("block-job-cancel", device="j", force=True)
        clock = Clock()
        while clock.seconds() < 7:
            assert reader.read(0, 4096)[0] == 0
        daemon.qmp.take_event("BLOCK_JOB_CANCELLED", device="j")
        reader.close()
    finally:
        server.stop()
