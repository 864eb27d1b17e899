# SPDX-License-Identifier: GPL-2.0-or-later
"""A mirror between two hosts when something goes wrong at any step.

Each scenario takes a fault, a moment, and settings of the job by chance, and
then looks for what must hold whatever happens: the monitor answers all along,
the job ends or waits as its settings say, what is called complete is complete,
nothing is lost that a guest has flushed, and the same names work again at
once. The seed is printed; SEED=N repeats a run.
"""
import os
import random

import pytest

import harness
import qmp
import replication

GROUPS = 20
SCENARIOS = 10  # of each group
SIZE = 2 << 20
SLOW = 1 << 20  # bytes per second: the job is in the middle for a while
READ_ERROR = {"op": "read", "errno": "EIO"}
NO_SPACE = {"op": "any", "errno": "ENOSPC"}
MOMENTS = ("start", "middle", "ready", "completing")


class Scene:
    """Source, target, the network between, and one mirror job."""

    def __init__(self, daemons, proxies, box, rng, tls_dir, connect_nbd):
        self.rng, self.box, self.connect_nbd = rng, box, connect_nbd
        self.images = {n: replication.sparse_disk(box / f"{n}.img", SIZE, n)
                       for n in ("source", "target")}
        self.source = replication.Site(daemons, box, "source",
                                       self.images["source"], tls_dir)
        self.target = replication.Site(daemons, box, "target",
                                       self.images["target"], tls_dir)
        self.start_proxy = proxies
        self.proxy = None
        self.guest = None
        self.new_proxy()

    def new_proxy(self):
        port = harness.free_port()
        self.proxy = self.start_proxy(f"tcp:{port}", f"tcp:{self.target.port}")
        self.port = port

    def connect(self, site):
        return self.connect_nbd(("127.0.0.1", site.port), "disk",
                                tls=bool(site.tls_dir))

    # A job up to a moment.

    def begin(self, moment, remote=None, **job):
        if self.rng.random() < 0.7:
            self.guest = replication.Guest(self.connect(self.source),
                                           self.rng.random())
        self.source.add_remote(self.port, **(remote or {}))
        self.source.cmd("blockdev-mirror", job_id="job0", device="disk",
                        target="remote", sync="full",
                        speed=SLOW if moment in ("start", "middle") else 0,
                        **job)
        client = self.source.daemon.qmp
        if moment == "middle":
            harness.wait_until(lambda: any(
                j["current-progress"] > 0 for j in self.source.jobs()))
        elif moment != "start":
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

    def wait_ready_or_end(self):
        harness.wait_until(lambda: all(
            j["status"] in ("ready", "concluded") for j in self.source.jobs()))

    def finish_job(self):
        """Brings a job that is alive to its end; returns the last event."""
        self.speed_up()
        self.wait_ready_or_end()
        if self.guest:
            self.guest.stop()
        for job in self.source.jobs():
            if job["status"] == "ready":
                self.source.cmd("job-complete", id="job0")
        return self.source.take_end()

    def cancel(self):
        try:
            self.source.cmd("block-job-cancel", device="job0", force=True)
        except qmp.QmpError as error:
            # It may have ended, or be ending, by itself meanwhile.
            assert (error.cls == "DeviceNotActive"
                    or "cannot accept" in error.desc), error
        return self.source.take_end()

    # What must hold.

    def is_complete(self, end):
        return (end["event"] == "BLOCK_JOB_COMPLETED"
                and "error" not in end["data"])

    def check_equal(self):
        for site in (self.source, self.target):
            handle = self.connect(site)
            handle.flush()
            handle.shutdown()
        assert (replication.sha256(self.source.image)
                == replication.sha256(self.target.image))

    def clean(self):
        """Takes apart what begin() made, under the same names."""
        if self.guest:
            guest, self.guest = self.guest, None
            guest.stop(may_fail=not self.source.daemon.running())
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
        self.begin("ready")
        if self.guest:
            self.guest.stop()
        self.source.cmd("block-job-cancel", device="job0")
        assert self.is_complete(self.source.take_end())
        self.check_equal()
        self.clean()


def target_killed(scene):
    """The target's host fails; the job reports, or waits to be cancelled."""
    policy = scene.rng.choice(("report", "stop"))
    moment = scene.rng.choice(MOMENTS)
    scene.begin(moment, on_target_error=policy)
    scene.target.kill()
    if scene.guest:
        scene.guest.stop(may_fail=moment == "completing")
    if moment == "completing":
        # The pivot may have come first: then the guest wrote to the target.
        scene.guest = None
    # Nothing may be left to be copied: then it is the cancel that ends it.
    scene.cancel()
    scene.target.boot()
    scene.new_proxy()


def source_killed(scene):
    """The source's host fails; the target is there for another try."""
    moment = scene.rng.choice(MOMENTS)
    scene.begin(moment)
    scene.source.kill()
    if scene.guest:
        guest, scene.guest = scene.guest, None
        guest.stop(may_fail=True)
        if moment != "completing":  # after the pivot it wrote to the target
            guest.check(scene.source.image)
    scene.source.boot()


def network_cut(scene):
    """All connections break; without reconnect-delay the job fails."""
    scene.begin(scene.rng.choice(("start", "middle")))
    scene.proxy.refuse()
    scene.proxy.cut()
    scene.speed_up()
    end = scene.source.take_end()
    assert end["event"] == "BLOCK_JOB_COMPLETED" and end["data"]["error"]
    scene.proxy.accept()


def network_back(scene):
    """All connections break for a moment: the job goes on."""
    scene.begin(scene.rng.choice(("start", "middle", "ready")),
                remote={"reconnect-delay": 20})
    if scene.rng.random() < 0.5:
        scene.proxy.refuse()
        scene.proxy.cut()
        scene.proxy.accept()
    else:
        scene.proxy.cut()
    assert scene.is_complete(scene.finish_job())
    scene.check_equal()


def network_silent(scene):
    """The peer says nothing any more; a cancel by force ends the job."""
    scene.begin(scene.rng.choice(MOMENTS[:3]))
    scene.proxy.stall()
    scene.speed_up()
    end = scene.cancel()
    assert end["event"] == "BLOCK_JOB_CANCELLED"
    scene.proxy.cut()
    scene.proxy.go()


def target_full(scene):
    """No space at the target: the job waits, and goes on when there is."""
    scene.target.set_faults(NO_SPACE)
    if scene.rng.random() < 0.5:
        scene.begin("start", on_target_error="enospc")
        scene.speed_up()
        scene.source.daemon.qmp.take_event("BLOCK_JOB_ERROR", device="job0",
                                           action="stop", operation="write")
        harness.wait_until(lambda: scene.source.jobs()[0]["status"] == "paused")
        info = scene.source.cmd("query-block-jobs")[0]
        assert info["io-status"] == "nospace" and info["paused"]
        scene.target.set_faults()
        scene.source.cmd("job-resume", id="job0")
        assert scene.is_complete(scene.finish_job())
        scene.check_equal()
    else:
        scene.begin("start", on_target_error="report")
        scene.speed_up()
        end = scene.source.take_end()
        assert end["data"]["error"] == "No space left on device"
        scene.target.set_faults()


def source_broken(scene):
    """The source cannot be read, at first."""
    policy = scene.rng.choice(("report", "stop", "ignore"))
    scene.source.set_faults(READ_ERROR)
    scene.begin("start", on_source_error=policy)
    scene.speed_up()
    error = scene.source.daemon.qmp.take_event("BLOCK_JOB_ERROR",
                                               device="job0")
    assert error["data"]["operation"] == "read"
    assert error["data"]["action"] == policy
    if policy == "report":
        end = scene.source.take_end()
        assert end["data"]["error"] == "Input/output error"
        scene.source.set_faults()
        return
    scene.source.set_faults()
    if policy == "stop":
        harness.wait_until(lambda: scene.source.jobs()[0]["status"] == "paused")
        scene.source.cmd("job-resume", id="job0")
    assert scene.is_complete(scene.finish_job())
    scene.check_equal()


def cancelled(scene):
    """Cancelled in each state, paused or not."""
    moment = scene.rng.choice(MOMENTS[:3])
    scene.begin(moment, copy_mode=scene.rng.choice(("background",
                                                    "write-blocking")))
    if scene.rng.random() < 0.4:
        scene.source.cmd("job-pause", id="job0")
    end = scene.cancel()
    assert end["event"] == "BLOCK_JOB_CANCELLED"


def cancelled_softly(scene):
    """A mirror that is ready ends as a copy of that moment."""
    scene.begin("ready")
    if scene.guest:
        scene.guest.stop()
    scene.source.cmd("block-job-cancel", device="job0")
    assert scene.is_complete(scene.source.take_end())
    scene.check_equal()


FAULTS = (target_killed, source_killed, network_cut, network_back,
          network_silent, target_full, source_broken, cancelled,
          cancelled_softly)


def run_scenario(scene, fault):
    pingers = {s: replication.Pinger(s.daemon)
               for s in (scene.source, scene.target)}
    fault(scene)
    for site, pinger in pingers.items():
        pinger.stop(may_fail=fault.__name__ == f"{site.name}_killed")
    scene.clean()


@pytest.mark.parametrize("group", range(GROUPS))
def test_faults(group, daemons, proxies, box, tls_dir, connect_nbd):
    seed = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
    print(f"repeat with SEED={seed} -k 'test_faults[{group}]'")
    rng = random.Random(f"{seed}/{group}")
    scene = Scene(daemons, proxies, box, rng, rng.choice((None, tls_dir)),
                  connect_nbd)
    for number in range(SCENARIOS):
        fault = FAULTS[(group * SCENARIOS + number) % len(FAULTS)]
        print(f"scenario {number}: {fault.__name__}")
        run_scenario(scene, fault)
        if number % 3 == 2:
            scene.prove_usable()
