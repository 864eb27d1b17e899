# SPDX-License-Identifier: GPL-2.0-or-later
"""A long replication over TLS that goes past many changes of keys.

Two daemons: the source mirrors its disk to the target's export while a guest
writes to it; at the same time a client reads the target's data through the
source, and nbdcopy moves bulk data in both directions. So every daemon is
client and server, and each end of every connection reaches its limit of
records and changes its key again and again. Afterwards source, target and a
model of the disk must be equal, no connection may have been lost, and neither
memory nor descriptors may have grown.
"""
import hashlib
import pathlib
import random
import re
import statistics
import subprocess
import threading
import time

import nbd

import harness
import replication

MIB = 1 << 20
CHUNK = 256 << 10
UPDATES = re.compile(r"records by (\w+): (\d+) key updates sent, (\d+) received")
LOSSES = re.compile(r".*(lost NBD server|connection lost|gave up|TLS channel).*")
# ASan keeps freed memory to find its use; that would look like growth.
SANITIZER = "detect_leaks=1:exitcode=99:quarantine_size_mb=1"


def connect(site, export):
    handle = nbd.NBD()
    handle.set_export_name(export)
    handle.set_tls(nbd.TLS_REQUIRE)
    handle.set_tls_certificates(str(site.tls_dir))
    handle.connect_tcp("127.0.0.1", str(site.port))
    return handle


class Load:
    """Something that goes on in a thread until it is stopped."""

    def __init__(self):
        self.bytes = 0
        self.stopping = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.stopping.is_set():
                self.step()
            self.end()
        except (nbd.Error, AssertionError, OSError) as error:
            self.failure = error

    def end(self):
        pass

    def stop(self):
        self.stopping.set()
        self.thread.join(harness.LIMIT)
        assert not self.thread.is_alive(), f"{self!r} hangs"
        assert self.failure is None, f"{type(self).__name__}: {self.failure}"


class Writer(Load):
    """A guest; knows what the disk must hold."""

    def __init__(self, handle, model, rate):
        super().__init__()
        self.handle, self.model, self.rate = handle, model, rate
        self.random = random.Random(1)
        self.noise = self.random.randbytes(2 * CHUNK)
        self.requests = 0

    def step(self):
        length = self.random.choice((512, 4096, 65536, CHUNK))
        offset = self.random.randrange((len(self.model) - length) // 512) * 512
        kind = self.random.random()
        if kind < 0.05:
            self.handle.zero(length, offset)
            self.model[offset:offset + length] = bytes(length)
        else:
            start = self.random.randrange(CHUNK)
            data = self.noise[start:start + length]
            self.handle.pwrite(data, offset)
            self.model[offset:offset + length] = data
        self.bytes += length
        self.requests += 1
        if self.requests % 64 == 0:
            self.handle.flush()
        self.stopping.wait(length / self.rate)

    def end(self):
        self.handle.flush()
        self.handle.shutdown()


class Reader(Load):
    """Reads at random and compares."""

    def __init__(self, handle, data):
        super().__init__()
        self.handle, self.data = handle, data
        self.random = random.Random(2)

    def step(self):
        offset = self.random.randrange(len(self.data) - CHUNK)
        assert (self.handle.pread(CHUNK, offset)
                == self.data[offset:offset + CHUNK]), f"at {offset}"
        self.bytes += CHUNK
        self.stopping.wait(0.01)

    def end(self):
        self.handle.shutdown()


class Copier(Load):
    """nbdcopy, half of the time: others want to run, too."""

    def __init__(self, source, target, size):
        super().__init__()
        self.argv = ["nbdcopy", "--connections=2", str(source), str(target)]
        self.size = size

    def step(self):
        begin = time.monotonic()
        done = subprocess.run(self.argv, capture_output=True, text=True,
                              env=harness.ENVIRONMENT, timeout=300)
        assert done.returncode == 0, f"{self.argv}: {done.stderr}"
        self.bytes += self.size
        self.stopping.wait(time.monotonic() - begin)


class Gauge:
    """Memory and descriptors of a process, as time goes by."""

    def __init__(self, daemon):
        self.proc = pathlib.Path(f"/proc/{daemon.pid}")
        self.rss = []
        maps = (self.proc / "maps").read_text()
        self.sanitized = "libasan" in maps or "libtsan" in maps

    def fds(self):
        return len(list((self.proc / "fd").iterdir()))

    def look(self):
        status = (self.proc / "status").read_text()
        kib = int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))
        self.rss.append(kib / 1024)

    def growth(self):
        """Medians of the first and the last third, MiB."""
        third = max(len(self.rss) // 3, 1)
        return (statistics.median(self.rss[:third]),
                statistics.median(self.rss[-third:]))

    def check(self):
        first, last = self.growth()
        # Buffers follow the load, and the sanitizer's heap does not shrink.
        slack = 0.25 * first if self.sanitized else max(0.1 * first, 4)
        assert last <= first + slack, (
            f"memory grew from {first:.1f} to {last:.1f} MiB: {self.rss}")


class Soak:
    """engines: the TLS record engines of source and target."""

    def __init__(self, start, box, tls_dir, engines, rekey, size=64 * MIB,
                 rate=16 * MIB):
        self.box, self.engines, self.rekey, self.rate = (box, engines, rekey,
                                                         rate)
        self.model = bytearray(random.Random(3).randbytes(size // 2)
                               + bytes(size // 2))
        self.other = random.Random(4).randbytes(size)
        images = {"source": self.model, "target": b"", "other": self.other}
        for name, data in images.items():
            harness.make_image(box / f"{name}.img", size, {0: data})
        self.sites = [
            replication.Site(self.starter(start, engine), box, name,
                             box / f"{name}.img", tls_dir)
            for name, engine in zip(("source", "target"), engines)]
        self.source, self.target = self.sites
        self.figures = {}

    def starter(self, start, engine):
        env = {"BLOCKFERRY_TLS_RECORDS": engine,
               "BLOCKFERRY_TLS_REKEY_RECORDS": str(self.rekey),
               "G_MESSAGES_DEBUG": "bf-crypto", "ASAN_OPTIONS": SANITIZER}
        return lambda *arguments, **more: start(*arguments, env=env, **more)

    def set_up(self):
        """Returns gauges, and the descriptors before there are connections."""
        target, source = self.target.daemon, self.source.daemon
        target.add_file(self.box / "other.img", "other")
        target.add_export("other")
        target.cmd("blockdev-add", driver="null-co", node_name="scratch",
                   size=len(self.other))
        target.add_export("scratch", writable=True)
        gauges = [Gauge(site.daemon) for site in self.sites]
        fds = [gauge.fds() for gauge in gauges]
        source.execute("blockdev-add", {
            "driver": "nbd", "node-name": "back", "export": "other",
            "read-only": True, "tls-creds": "tlsc",
            "tls-hostname": "localhost",
            "server": {"type": "inet", "host": "127.0.0.1",
                       "port": str(self.target.port)}})
        source.add_export("back", name="through")
        self.source.add_remote(self.target.port)
        self.source.cmd("blockdev-mirror", job_id="job0", device="disk",
                        target="remote", sync="full")
        source.qmp.take_event("BLOCK_JOB_READY", device="job0")
        return gauges, fds

    def url(self, site, export):
        return (f"nbds://127.0.0.1:{site.port}/{export}"
                f"?tls-certificates={site.tls_dir}")

    def loads(self):
        size = len(self.other)
        return (Writer(connect(self.source, "disk"), self.model, self.rate),
                Reader(connect(self.source, "through"), self.other),
                Copier(self.url(self.source, "through"), "null:", size),
                Copier(self.box / "other.img",
                       self.url(self.target, "scratch"), size))

    def run(self, seconds):
        """Returns the figures, which are checked."""
        gauges, fds = self.set_up()
        loads = self.loads()
        for load in loads:
            load.thread.start()
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            # The first fifth is to warm up.
            if time.monotonic() > begin + seconds / 5:
                for gauge in gauges:
                    gauge.look()
            failures = [f"{load!r}: {load.failure}" for load in loads
                        if load.failure]
            assert not failures, failures
            time.sleep(min(seconds / 100, 1))
        for load in loads:
            load.stop()
        mirrored = self.finish()
        after = [harness.wait_until(
            lambda g=g, n=n: g.fds() <= n and g.fds(),
            what=f"no more than {n} descriptors") for g, n in zip(gauges, fds)]
        self.figures = {
            "seconds": round(time.monotonic() - begin),
            "mirrored": mirrored, "written": loads[0].bytes,
            "read": loads[1].bytes + loads[2].bytes,
            "copied in": loads[3].bytes,
            "memory": [g.growth() for g in gauges],
            "fds": list(zip(fds, after))}
        for gauge in gauges:
            gauge.check()

    def finish(self):
        """Ends the mirror, which must be exact; returns how much it moved."""
        moved = self.source.jobs()[0]["current-progress"]
        self.source.cmd("block-job-cancel", device="job0")
        end = self.source.take_end()
        assert (end["event"] == "BLOCK_JOB_COMPLETED"
                and "error" not in end["data"]), end
        self.source.cmd("blockdev-del", node_name="remote")
        self.source.cmd("block-export-del", id="exp-back", mode="hard")
        self.source.daemon.qmp.take_event("BLOCK_EXPORT_DELETED")
        self.source.cmd("blockdev-del", node_name="back")
        sums = {"model": hashlib.sha256(self.model).hexdigest()}
        for site in self.sites:
            sums[site.name] = harness.sha256(site.image)
        assert len(set(sums.values())) == 1, sums
        return moved

    def check_keys(self, least):
        """After the daemons' ends: keys were changed in all directions."""
        updates = []
        for site, engine in zip(self.sites, self.engines):
            log = site.daemon.log()
            loss = LOSSES.search(log)
            assert loss is None, f"{site.name}: {loss.group(0)}"
            found = UPDATES.findall(log)
            assert {engine} == {name for name, _, _ in found}, found
            sent = sum(int(n) for _, n, _ in found)
            received = sum(int(n) for _, _, n in found)
            updates.append((sent, received if engine == "own" else None))
        self.figures["key updates"] = updates
        self.figures["sha256"] = hashlib.sha256(self.model).hexdigest()
        for sent, received in updates:
            assert sent >= least, self.report()
            # The library does not tell.
            assert received is None or received >= least, self.report()

    def report(self):
        """The figures as text."""
        f = self.figures
        lines = [f"{'+'.join(self.engines)} records, a key for "
                 f"{self.rekey} of them, {f['seconds']} s: "
                 f"mirrored {f['mirrored'] // MIB} MiB, written "
                 f"{f['written'] // MIB}, read {f['read'] // MIB}, copied in "
                 f"{f['copied in'] // MIB}"]
        for i, site in enumerate(self.sites):
            sent, received = f["key updates"][i]
            lines.append(
                f"  {site.name}: {sent} key updates sent, "
                f"{'?' if received is None else received} received; memory "
                f"{f['memory'][i][0]:.1f} -> {f['memory'][i][1]:.1f} MiB; "
                f"descriptors {f['fds'][i][0]} -> {f['fds'][i][1]}")
        return "\n".join(lines + [f"  equal: sha256 {f['sha256']}"])
