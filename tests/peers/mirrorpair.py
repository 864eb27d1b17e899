# SPDX-License-Identifier: GPL-2.0-or-later
"""A mirror within one daemon, and guests that write to its source meanwhile."""
import hashlib
import json
import random
import threading

import harness
import rawnbd as nbd

SIZE = 8 << 20


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wait_event(daemon, name, **wanted):
    return daemon.qmp.take_event(name, **wanted)


def wait_status(daemon, job, status):
    return wait_event(daemon, "JOB_STATUS_CHANGE", id=job, status=status)


def job_events(daemon):
    """All of them so far, those taken included: (name, status)."""
    messages = [json.loads(text) for text in daemon.qmp.raw]
    return [(m["event"], m["data"].get("status")) for m in messages
            if "JOB" in m.get("event", "")]


def make_noise(box):
    """The image of a source: 5 of its 8 MiB are data."""
    return harness.make_image(box / "source.img", SIZE,
                              {1 << 20: harness.random_bytes(5 << 20)})


class Pair:
    """A daemon with a source that is served, and a target file."""

    def __init__(self, daemon, box, source, size=None):
        self.daemon = daemon
        self.source = source
        self.target = harness.make_image(box / "target.img",
                                         size or source.stat().st_size)
        daemon.serve_file(source, "src", discard="unmap")
        daemon.add_file(self.target, "dst", discard="unmap")

    def mirror(self, **arguments):
        arguments = {"job-id": "m", "device": "src", "target": "dst",
                     "sync": "full", **arguments}
        return self.daemon.execute("blockdev-mirror", {
            k.replace("_", "-"): v for k, v in arguments.items()})

    def ready(self):
        return wait_event(self.daemon, "BLOCK_JOB_READY", device="m")

    def complete(self):
        """Ends the job when it is ready; both disks are equal then."""
        self.daemon.cmd("block-job-complete", device="m")
        wait_status(self.daemon, "m", "null")
        assert sha(self.source) == sha(self.target)

    def connect(self):
        return nbd.RawNbd(self.daemon.nbd_path).go("src")


class Writers:
    """Connections that write here and there until they are stopped."""

    def __init__(self, pair, count=3, seed=7):
        self.stop = threading.Event()
        self.errors = []
        self.writes = 0
        self.threads = [
            threading.Thread(target=self.run, args=(pair, seed + i))
            for i in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, pair, seed):
        rng = random.Random(seed)
        try:
            with pair.connect() as client:
                while not self.stop.is_set():
                    self.one(client, rng)
                    self.writes += 1
        except Exception as error:
            self.errors.append(error)

    @staticmethod
    def one(client, rng):
        offset = rng.randrange(SIZE // 512) * 512
        kind = rng.randrange(10)
        if kind == 0:
            size = min(rng.randrange(1, 300) * 512, SIZE - offset)
            assert client.request(nbd.CMD_WRITE_ZEROES, offset, size) == 0
        elif kind == 1:
            size = min(rng.randrange(1, 300) * 512, SIZE - offset)
            assert client.request(nbd.CMD_TRIM, offset, size) == 0
        else:
            size = min(rng.choice((512, 4096, 65536)), SIZE - offset)
            assert client.write(offset, rng.randbytes(size)) == 0

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        assert self.errors == []
        assert self.writes > 0
