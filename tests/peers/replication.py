# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of replication share: guests that write, and sites.

A Guest writes numbered blocks and knows which of them are stable. A Site is a
daemon with one disk behind a node that can be told to fail.
"""
import pathlib
import random
import threading

import nbd

import harness
import qmp

BLOCK = 4096


def sparse_disk(path, size, seed, islands=4):
    """A disk of holes with islands of noise."""
    source = random.Random(seed)
    length = min(size // (2 * islands), 1 << 20)
    return harness.make_image(path, size, {
        source.randrange(0, size - length) // BLOCK * BLOCK:
        source.randbytes(length) for _ in range(islands)})


class Guest:
    """Writes to an export, flushes now and then, and checks what is there.

    Each block that it writes holds a number that is used once, repeated. So
    every later state of a block is the number of its last write before the
    last flush, or of a later one. handle: a connected libnbd handle that
    nobody else uses. hot: how many blocks in a row get nearly all writes, if
    not all blocks get as many.
    """

    def __init__(self, handle, seed=1, pause=0.001, hot=0):
        self.handle = handle
        self.random = random.Random(seed)
        self.pause = pause
        self.blocks = handle.get_size() // BLOCK
        first = self.random.randrange(self.blocks - hot + 1)
        self.hot = range(first, first + hot)
        self.stable = {}  # block -> number, as of the last flush
        self.later = {}  # block -> numbers written since
        self.number = 0
        self.history = []  # (number, block), in order
        self.failure = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def flush(self):
        self.handle.flush()
        for block, numbers in self.later.items():
            self.stable[block] = numbers[-1]
        self.later = {}

    def pick(self):
        if self.hot and self.random.randrange(128):
            return self.random.choice(self.hot)
        return self.random.randrange(self.blocks)

    def work(self):
        try:
            while not self.stopping.is_set():
                self.number += 1
                block = self.pick()
                # Noted before: what is not acknowledged may be there as well.
                self.later.setdefault(block, []).append(self.number)
                self.history.append((self.number, block))
                self.handle.pwrite(data_of(self.number), block * BLOCK)
                if self.number % 16 == 0:
                    self.flush()
                self.stopping.wait(self.pause)
            self.flush()
        except nbd.Error as error:
            self.failure = error

    def stop(self, may_fail=False):
        """Ends the writing; what was written until then is flushed."""
        self.stopping.set()
        self.thread.join(harness.LIMIT)
        assert not self.thread.is_alive(), "a guest's request hangs"
        assert may_fail or self.failure is None, self.failure

    def find_loss(self, path):
        """Says what is not there of what was flushed; None if all is."""
        data = pathlib.Path(path).read_bytes()
        for block, number in self.stable.items():
            later = self.later.get(block, [])
            found = data[block * BLOCK:(block + 1) * BLOCK]
            if not any(found == data_of(n) for n in (number, *later)):
                return f"block {block} is neither {number} nor of {later}"
        return None

    def check(self, *paths):
        """Is all there that was flushed, in one of the files?"""
        losses = [self.find_loss(path) for path in paths]
        assert None in losses, losses


def is_state(data, base, history=()):
    """Is this what a disk was at one moment, from `base` on?

    history: of the guest that wrote to it.
    """
    now = [base[i:i + BLOCK] for i in range(0, len(base), BLOCK)]
    then = [data[i:i + BLOCK] for i in range(0, len(data), BLOCK)]
    wrong = {i for i, block in enumerate(now) if block != then[i]}
    for number, block in history:
        if not wrong:
            break
        if then[block] == data_of(number):
            wrong.discard(block)
        else:
            wrong.add(block)
    return not wrong


def data_of(number):
    return number.to_bytes(8, "little") * (BLOCK // 8)


class Pinger:
    """Asks a monitor all the time whether it is there."""

    def __init__(self, daemon):
        self.client = daemon.client()
        self.stopping = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        try:
            while not self.stopping.is_set():
                self.client.cmd("query-version", _limit=harness.LIMIT / 3)
                self.client.events.clear()
                self.stopping.wait(0.02)
        except (OSError, qmp.QmpClosed) as error:
            self.failure = error

    def stop(self, may_fail=False):
        self.stopping.set()
        self.thread.join(harness.LIMIT)
        self.client.close()
        assert may_fail or self.failure is None, (
            f"the monitor did not answer: {self.failure!r}")


class Site:
    """A daemon with one disk.

    The disk's node is "disk": a node that can be told to fail, on a file. Its
    export, "disk" as well, is writable and at `address`.
    """

    def __init__(self, start, box, name, image, tls_dir=None):
        self.start, self.box, self.name = start, box, name
        self.image = pathlib.Path(image)
        self.tls_dir = tls_dir
        self.incarnation = 0
        self.daemon = None
        self.port = harness.free_port()
        self.boot()

    def boot(self):
        """Starts the daemon, again after a kill, with disk and export."""
        self.incarnation += 1
        self.daemon = self.start("--allow-fault-injection",
                                 name=f"{self.name}{self.incarnation}")
        if self.tls_dir:
            self.daemon.add_creds(self.tls_dir)
            self.daemon.add_creds(self.tls_dir, "tlsc", endpoint="client")
        while True:
            try:
                self.daemon.cmd(
                    "nbd-server-start",
                    addr={"type": "inet", "data": {"host": "127.0.0.1",
                                                   "port": str(self.port)}},
                    **({"tls_creds": "tls0"} if self.tls_dir else {}))
                break
            except qmp.QmpError as error:
                assert "in use" in error.desc, error
                self.port = harness.free_port()
        self.daemon.add_file(self.image, "file", discard="unmap")
        self.daemon.execute("blockdev-add", self.disk_options())
        self.daemon.add_export("disk", writable=True)

    def cmd(self, command, /, **arguments):
        return self.daemon.cmd(command, **arguments)

    @staticmethod
    def disk_options(rules=()):
        return {"driver": "fault", "node-name": "disk", "image": "file",
                "discard": "unmap", "rules": list(rules)}

    def set_faults(self, *rules):
        """From now on the disk fails so; without rules it is sound."""
        self.daemon.execute("blockdev-reopen",
                            {"options": [self.disk_options(rules)]})

    def kill(self):
        """As a power failure of the daemon."""
        self.daemon.kill()

    def add_remote(self, port, node="remote", **options):
        """The other site's disk as a node, through `port`."""
        if self.tls_dir:
            options.update({"tls-creds": "tlsc", "tls-hostname": "localhost"})
        self.daemon.execute("blockdev-add", {
            "driver": "nbd", "node-name": node, "export": "disk",
            "discard": "unmap", "server": {
                "type": "inet", "host": "127.0.0.1", "port": str(port)},
            **options})
        return node

    def jobs(self):
        return self.cmd("query-jobs")

    def take_end(self, limit=harness.LIMIT, job="job0"):
        """Waits for the end of a job; returns its last BLOCK_JOB_ event."""
        client = self.daemon.qmp
        client.take_event("JOB_STATUS_CHANGE", limit, id=job, status="null")
        ends = [e for e in client.events if e["data"].get("device") == job
                and e["event"] in ("BLOCK_JOB_COMPLETED",
                                   "BLOCK_JOB_CANCELLED")]
        assert len(ends) == 1, ends
        client.events = [e for e in client.events
                         if job not in (e["data"].get("device"),
                                        e["data"].get("id"))]
        return ends[0]
