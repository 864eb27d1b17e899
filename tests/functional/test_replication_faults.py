# SPDX-License-Identifier: GPL-2.0-or-later
"""A mirror or backup between two hosts when something goes wrong at any step.

Each scenario takes a fault, a moment, and settings of the job by chance, and
then looks for what must hold whatever happens: the monitor answers all along,
the job ends or waits as its settings say, what is called complete is complete,
nothing is lost that a guest has flushed, and the same names work again at
once. The seed is printed; BLOCKFERRY_SEED repeats a run.

The middle of a copy is the middle: the job is limited to a speed at which the
noise of the disk takes seconds, and how far it was is written down when the
fault comes and when the job ends.
"""
import os
import random

import pytest

import harness
import qmp
import replication

GROUPS = 20
SCENARIOS = 10  # of each group
SIZE = 8 << 20
NOISE = 7 << 20  # what a job has to copy, and not only to find empty
SLOW = 4 << 20  # bytes per second while the job is at its start or middle
READ_ERROR = {"op": "read", "errno": "EIO"}
NO_SPACE = {"op": "any", "errno": "ENOSPC"}
MOMENTS = ("start", "middle", "ready", "completing")
EARLY = ("start", "middle", "middle")
NO_GUEST = 0
SOME_GUEST = 0.7  # probability
HOT = (256 << 10) // replication.BLOCK  # where a guest writes most


class Scene:
    """Source, target, the network between, and one job."""

    def __init__(self, daemons, proxies, box, rng, tls_dir, connect_nbd):
        self.rng, self.box, self.connect_nbd = rng, box, connect_nbd
        self.images = {
            name: harness.make_image(box / f"{name}.img", SIZE,
                                     {512 << 10: rng.randbytes(NOISE)})
            for name in ("source", "target")}
        self.source = replication.Site(daemons, box, "source",
                                       self.images["source"], tls_dir)
        self.target = replication.Site(daemons, box, "target",
                                       self.images["target"], tls_dir)
        self.start_proxy = proxies
        self.proxy = None
        self.guest = None
        self.kind = self.moment = self.base = None
        self.before = None  # the job's offset and len when the fault comes
        self.shots = []  # whether a fault in the middle met a copy there
        self.new_proxy()

    def new_proxy(self):
        port = harness.free_port()
        self.proxy = self.start_proxy(f"tcp:{port}", f"tcp:{self.target.port}")
        self.port = port

    def connect(self, site):
        return self.connect_nbd(("127.0.0.1", site.port), "disk",
                                tls=bool(site.tls_dir))

    def any_kind(self, moments=MOMENTS):
        """A kind of job and a moment in its life, for begin()."""
        kind = self.rng.choice(("mirror", "mirror", "backup"))
        if kind == "backup":
            moments = [m for m in moments if m in EARLY] or EARLY
        return kind, self.rng.choice(moments)

    # A job up to a moment.

    def spoil_target(self):
        """Nothing that an earlier copy has left there may help."""
        if self.rng.random() < 0.5:
            self.target.image.write_bytes(self.rng.randbytes(SIZE))
        else:
            os.truncate(self.target.image, 0)
            os.truncate(self.target.image, SIZE)

    def start_guest(self, probability):
        if self.rng.random() < probability:
            # What it overwrites is backed up at once, whatever the speed; and
            # a mirror must catch up on a busy machine, too.
            self.guest = replication.Guest(
                self.connect(self.source), self.rng.random(),
                pause=0.02 if self.kind == "backup" else 0.001, hot=HOT)

    def settings(self):
        if self.kind == "backup":
            return {}
        return self.rng.choice(({}, {"granularity": 4096},
                                {"granularity": 128 << 10},
                                {"buf_size": 256 << 10},
                                {"copy_mode": "write-blocking"}))

    def begin(self, kind, moment, guest=SOME_GUEST, remote=None, **job):
        self.kind, self.moment = kind, moment
        job = {**self.settings(), **job}
        self.spoil_target()
        self.base = self.source.image.read_bytes()
        self.start_guest(guest)
        self.source.add_remote(self.port, **(remote or {}))
        self.source.cmd(f"blockdev-{kind}", job_id="job0", device="disk",
                        target="remote", sync="full",
                        speed=SLOW if moment in EARLY else 0, **job)
        print(f"  a {kind} to its {moment}"
              f"{', with a guest' if self.guest else ''}: {job}")
        client = self.source.daemon.qmp
        if moment == "middle":
            part = self.rng.uniform(0.02, 0.6) * NOISE
            harness.wait_until(lambda: all(
                j["current-progress"] >= part for j in self.source.jobs()))
            job, = self.source.jobs() or [None]
            self.before = job and (job["current-progress"],
                                   job["total-progress"])
        elif moment not in EARLY:
            client.take_event("BLOCK_JOB_READY", device="job0")
            if moment == "completing":
                self.source.cmd("job-complete", id="job0")

    def speed_up(self):
        """Lifts the limit, if there is still a job to lift it from."""
        if self.source.jobs():
            try:
                self.source.cmd("block-job-set-speed", device="job0", speed=0)
            except qmp.QmpError as error:
                assert ("cannot accept" in error.desc
                        or error.cls == "DeviceNotActive"), error

    def maybe_speed_up(self):
        if self.rng.random() < 0.5:
            self.speed_up()

    def wait_ready_or_end(self):
        harness.wait_until(lambda: all(
            j["status"] in ("ready", "concluded") for j in self.source.jobs()))

    def take_end(self, fails=None):
        """The job's last event; fails: the error it must have."""
        end = self.source.take_end()
        if fails is not None:
            assert end["event"] == "BLOCK_JOB_COMPLETED", end
            assert fails in end["data"].get("error", ""), end
            assert end["data"]["error"], end
        if self.is_complete(end):
            assert end["data"]["offset"] == end["data"]["len"], end
        self.note_shot(end)
        return end

    def note_shot(self, end=None):
        """Notes whether a fault in the middle has met a job there.

        end: the job's last event, if it has ended for the fault.
        """
        if self.moment == "middle":
            offset, length = self.before or (0, 0)
            data = end["data"] if end else {"offset": 0, "len": 1}
            self.shots.append(0 < offset < length
                              and (self.is_complete(end)
                                   or data["offset"] < data["len"]))
            self.moment = None

    def finish_job(self, may_lose=False):
        """Brings a job that is alive to its good end, and looks at it.

        may_lose: the server was away, and nobody knows what it still has: a
        backup cannot copy again what the guest has overwritten.
        """
        self.note_shot()
        self.speed_up()
        self.wait_ready_or_end()
        if self.guest and self.kind == "mirror":
            self.guest.stop()
        for job in self.source.jobs():
            if job["status"] == "ready":
                self.source.cmd("job-complete", id="job0")
        end = self.take_end()
        if may_lose and self.guest and self.kind == "backup" and \
                "the source was overwritten" in end["data"].get("error", ""):
            return
        assert self.is_complete(end), end
        self.check_copy()

    def wait_paused(self):
        harness.wait_until(lambda: self.source.jobs()[0]["status"] == "paused")

    def cancel(self):
        try:
            self.source.cmd("block-job-cancel", device="job0", force=True)
        except qmp.QmpError as error:
            # It may have ended, or be ending, by itself meanwhile.
            assert (error.cls == "DeviceNotActive"
                    or "cannot accept" in error.desc), error
        return self.take_end()

    # What must hold.

    @staticmethod
    def is_complete(end):
        return (end is not None and end["event"] == "BLOCK_JOB_COMPLETED"
                and "error" not in end["data"])

    def check_copy(self):
        """A job was called complete: is it?"""
        for site in (self.source, self.target):
            handle = self.connect(site)
            handle.flush()
            handle.shutdown()
        copy = self.target.image.read_bytes()
        if self.kind == "mirror":
            assert copy == self.source.image.read_bytes()
        else:
            history = self.guest.history if self.guest else ()
            assert replication.is_state(copy, self.base, list(history))

    def leave_guest(self, *sites):
        """Its host is gone, or where it wrote; what it flushed is not.

        sites: one of them has it.
        """
        if self.guest:
            guest, self.guest = self.guest, None
            guest.stop(may_fail=True)
            guest.check(*(site.image for site in sites))

    def clean(self):
        """Takes apart what begin() made, under the same names."""
        if self.guest:
            guest, self.guest = self.guest, None
            guest.stop()
            guest.check(self.source.image)
        assert self.source.jobs() == []
        self.undo_pivot()
        names = [n["node-name"]
                 for n in self.source.cmd("query-named-block-nodes")]
        if "remote" in names:
            self.source.cmd("blockdev-del", node_name="remote")
        assert not [n for n in names if n.startswith("#")], names

    def undo_pivot(self):
        """After a completed job the source's export leads to the target."""
        export, = self.source.cmd("query-block-exports")
        if export["node-name"] != "disk":
            self.source.cmd("block-export-del", id=export["id"], mode="hard")
            self.source.daemon.qmp.take_event("BLOCK_EXPORT_DELETED")
            self.source.daemon.add_export("disk", writable=True)

    def prove_usable(self):
        """The same names once more, to a good end.

        Without pivoting: the source stays what it was.
        """
        self.begin("mirror", "ready")
        if self.guest:
            self.guest.stop()
        self.source.cmd("block-job-cancel", device="job0")
        assert self.is_complete(self.take_end())
        self.check_copy()
        self.clean()


def target_killed(scene):
    """The target's host fails; the job reports, or waits to be cancelled."""
    kind, moment = scene.any_kind()
    scene.begin(kind, moment,
                on_target_error=scene.rng.choice(("report", "stop")))
    scene.target.kill()
    # Nothing may be left to be copied: then it is the cancel that ends it.
    end = scene.cancel()
    if moment == "completing":
        # The pivot may have come first: then the guest wrote to the target.
        pivoted = scene.is_complete(end)
        scene.leave_guest(scene.target if pivoted else scene.source)
    scene.target.boot()
    scene.new_proxy()


def target_ended(scene):
    """The target's daemon is told to end, and does so."""
    scene.begin(*scene.any_kind(EARLY))
    assert scene.target.daemon.finish() is None
    scene.speed_up()
    scene.take_end(fails="")
    scene.target.boot()
    scene.new_proxy()


def target_removed(scene):
    """Somebody removes the target's export in the middle of the job."""
    scene.begin(*scene.any_kind(EARLY))
    scene.target.cmd("block-export-del", id="exp-disk", mode="hard")
    scene.target.daemon.qmp.take_event("BLOCK_EXPORT_DELETED")
    scene.speed_up()
    scene.take_end(fails="")
    scene.target.daemon.add_export("disk", writable=True)


def source_killed(scene):
    """The source's host fails; the target is there for another try."""
    kind, moment = scene.any_kind()
    scene.begin(kind, moment)
    scene.source.kill()
    scene.note_shot()
    # After the pivot the guest wrote to the target.
    scene.leave_guest(scene.source, *([scene.target] if moment == "completing"
                                      else []))
    scene.source.boot()


def source_ended(scene):
    """The source's daemon is told to end: it need not wait for the job."""
    scene.begin(*scene.any_kind(EARLY))
    assert scene.source.daemon.finish() is None
    scene.note_shot()
    scene.leave_guest(scene.source)
    scene.source.boot()


def network_cut(scene):
    """All connections break; without reconnect-delay the job fails."""
    scene.begin(*scene.any_kind(EARLY))
    scene.proxy.refuse()
    scene.proxy.cut()
    scene.speed_up()
    scene.take_end(fails="")
    scene.proxy.accept()


def network_lost(scene):
    """The network does not come back in time: the job fails."""
    scene.begin(*scene.any_kind(EARLY), remote={"reconnect-delay": 1})
    scene.proxy.refuse()
    scene.proxy.cut()
    scene.speed_up()
    scene.take_end(fails="")
    scene.proxy.accept()


def network_back(scene):
    """All connections break for a moment, some times: the job goes on."""
    scene.begin(*scene.any_kind(MOMENTS[:3]), remote={"reconnect-delay": 20})
    for _ in range(scene.rng.randint(1, 3)):
        if scene.rng.random() < 0.5:
            scene.proxy.refuse()
            scene.proxy.cut()
            scene.proxy.accept()
        else:
            scene.proxy.cut()
        scene.maybe_speed_up()
    scene.finish_job(may_lose=True)


def network_silent(scene):
    """The peer says nothing any more; a cancel by force ends the job."""
    scene.begin(*scene.any_kind(MOMENTS[:3]))
    scene.proxy.stall()
    scene.maybe_speed_up()
    end = scene.cancel()
    assert end["event"] == "BLOCK_JOB_CANCELLED"
    scene.proxy.cut()
    scene.proxy.go()


def target_full(scene):
    """No space at the target: the job waits, and goes on when there is."""
    kind, moment = scene.any_kind(EARLY)
    stops = scene.rng.random() < 0.5
    scene.begin(kind, moment,
                # A backup fails if it is a guest's write that needs space.
                guest=SOME_GUEST if kind == "mirror" else NO_GUEST,
                on_target_error="enospc" if stops else "report")
    scene.target.set_faults({**NO_SPACE, **scene.rng.choice(
        ({}, {"op": "write", "short": True}, {"op": "write", "torn": True}))})
    scene.maybe_speed_up()
    scene.source.daemon.qmp.take_event(
        "BLOCK_JOB_ERROR", device="job0", operation="write",
        action="stop" if stops else "report")
    if stops:
        scene.wait_paused()
        info, = scene.source.cmd("query-block-jobs")
        assert info["io-status"] == "nospace" and info["paused"]
        scene.target.set_faults()
        scene.source.cmd("job-resume", id="job0")
        scene.finish_job()
    else:
        scene.take_end(fails="No space left on device")
        scene.target.set_faults()


def target_stuck(scene):
    """The target's disk does not answer any more; a cancel ends the job."""
    scene.begin(*scene.any_kind(MOMENTS[:3]))
    scene.target.set_faults({"op": "any", "park": True})
    scene.maybe_speed_up()
    scene.cancel()
    scene.target.set_faults()


def source_broken(scene):
    """The source cannot be read, for a while."""
    kind, moment = scene.any_kind(EARLY)
    policy = scene.rng.choice(("report", "stop", "ignore"))
    scene.begin(kind, moment,
                guest=SOME_GUEST if kind == "mirror" else NO_GUEST,
                on_source_error=policy)
    scene.source.set_faults({**READ_ERROR, "after": scene.rng.randrange(3)})
    scene.maybe_speed_up()
    error = scene.source.daemon.qmp.take_event("BLOCK_JOB_ERROR",
                                               device="job0")
    assert error["data"]["operation"] == "read"
    assert error["data"]["action"] == policy
    if policy == "report":
        scene.take_end(fails="Input/output error")
        scene.source.set_faults()
        return
    if policy == "stop":
        scene.wait_paused()
    scene.source.set_faults()
    if policy == "stop":
        scene.source.cmd("job-resume", id="job0")
    scene.finish_job()


def cancelled(scene):
    """Cancelled in each state, paused or not."""
    scene.begin(*scene.any_kind(MOMENTS[:3]))
    if scene.rng.random() < 0.4:
        scene.source.cmd("job-pause", id="job0")
    end = scene.cancel()
    assert end["event"] == "BLOCK_JOB_CANCELLED"


def cancelled_softly(scene):
    """A mirror that is ready ends as a copy of that moment."""
    scene.begin("mirror", "ready")
    if scene.guest:
        scene.guest.stop()
    scene.source.cmd("block-job-cancel", device="job0")
    assert scene.is_complete(scene.take_end())
    scene.check_copy()


FAULTS = (target_killed, target_ended, target_removed, target_full,
          target_stuck, source_killed, source_ended, source_broken,
          network_cut, network_lost, network_back, network_silent,
          cancelled, cancelled_softly)


def run_scenario(scene, fault):
    pingers = {s: replication.Pinger(s.daemon)
               for s in (scene.source, scene.target)}
    fault(scene)
    for site, pinger in pingers.items():
        pinger.stop(may_fail=fault.__name__ in (f"{site.name}_killed",
                                                f"{site.name}_ended"))
    scene.clean()


@pytest.mark.parametrize("group", range(GROUPS))
def test_faults(group, daemons, proxies, box, tls_dir, connect_nbd):
    rng = random.Random(f"{harness.seed()}/{group}")
    scene = Scene(daemons, proxies, box, rng, rng.choice((None, tls_dir)),
                  connect_nbd)
    for number in range(SCENARIOS):
        fault = FAULTS[(group * SCENARIOS + number) % len(FAULTS)]
        print(f"scenario {number}: {fault.__name__}")
        run_scenario(scene, fault)
        if number % 3 == 2:
            scene.prove_usable()
    print(f"{sum(scene.shots)} of {len(scene.shots)} faults in the middle of "
          "a job met a copy under way")
    assert sum(scene.shots) > len(scene.shots) / 2 or not scene.shots, (
        "faults in the middle came before the copy or after it")
