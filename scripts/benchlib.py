# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks beside this file share.

Building what is measured, the processor time of a server with all its
processes, how much of the machine others use meanwhile, percentiles, and the
file with the figures. The one thing to know: figures that were taken while
others used the machine get no verdict (class Others).
"""
import ctypes
import datetime
import json
import os
import pathlib
import platform
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
PEERS = TOP / "tests" / "peers"
PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM"
REFERENCE = "qemu-storage-daemon"
# Of all processors: what others may use before figures are worth nothing.
BUSY_SHARE = 0.05
EXIT_BUSY = 2

PR_SET_CHILD_SUBREAPER = 36
PF_KTHREAD = 0x00200000

sys.path.insert(0, str(PEERS))

import qmp  # noqa: E402

# So that what was started and made is ended and removed by then, too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def proc_times(pid):
    """Clock ticks of a process and those of its children that it waited for,
    with its flags; None if it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rsplit(")", 1)[1].split()
    return int(fields[6]), sum(map(int, fields[11:15]))


def tree_ticks(pid):
    """Clock ticks of a process and all that it has started."""
    ticks, todo = 0, [pid]
    while todo:
        pid = todo.pop()
        times = proc_times(pid)
        if times is None:
            continue
        ticks += times[1]
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, pathlib.Path(
                    f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return ticks


def largest_share(pid, name):
    """Of the time that threads named @name have used the part of the busiest."""
    used = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith(name):
            used.append(int((task / "schedstat").read_text().split()[0]))
    return max(used) / max(sum(used), 1)


class KernelTicks:
    """Clock ticks of the kernel's threads, which work for everybody. They come
    and go, so what each has used since the last look is added up."""

    def __init__(self):
        self.total, self.last = 0, {}

    def read(self):
        now = {}
        for name in os.listdir("/proc"):
            times = proc_times(name) if name.isdigit() else None
            if times and times[0] & PF_KTHREAD:
                now[name] = times[1]
        self.add(now)
        return self.total

    def add(self, now):
        """@now: {thread: its ticks}"""
        for name, ticks in now.items():
            before = self.last.get(name, 0)
            # What is less than before is another thread of that number.
            self.total += ticks - before if ticks >= before else ticks
        self.last = now


def busy_ticks():
    """Clock ticks that all processors were not idle, stolen ones included."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _wait, irq, soft, steal = map(
            int, stat.readline().split()[1:9])
    return user + nice + system + irq + soft + steal


class Others:
    """How much of the machine others use, while something is measured.

    Whatever the processors did, less what this process, its children and the
    kernel's threads did. Orphans become children of this process, so that a
    server that goes to the background is not taken for somebody else.
    """

    def __init__(self, sample=None):
        if sample is None:
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.kernel = KernelTicks()
        self.sample = sample or self.sample_machine
        self.worst = 0.0

    def sample_machine(self):
        """(seconds, seconds of all processors that others have used)"""
        used = busy_ticks() - self.kernel.read() - tree_ticks(os.getpid())
        return (time.monotonic() * os.cpu_count(),
                used / os.sysconf("SC_CLK_TCK"))

    def start(self):
        self.before = self.sample()

    def share(self):
        """The part of all processors that others have used since start()."""
        now = self.sample()
        share = (now[1] - self.before[1]) / max(now[0] - self.before[0], 0.01)
        share = min(max(share, 0.0), 1.0)
        self.worst = max(self.worst, share)
        return share

    def are_busy(self):
        return self.worst > BUSY_SHARE

    def refuse(self):
        """Says why there is no verdict; for the end of a table."""
        print(f"no verdict: others used up to {self.worst * 100:.0f} % of the "
              f"machine, and above {BUSY_SHARE * 100:.0f} % figures are worth "
              "nothing; stop them, and run this again", flush=True)


class CpuMeter:
    """CPU seconds of a server with all its threads and children.

    A control group of its own counts exactly; without the right to make one
    (not root), /proc is summed up, to the tick.
    """

    def __init__(self):
        self.group = None
        name = f"blockferry-bench-{os.getpid()}"
        for base, counter in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage"),
                              ("/sys/fs/cgroup", "cpu.stat")):
            path = pathlib.Path(base, name)
            try:
                path.mkdir()
                if (path / counter).exists():
                    self.group, self.counter = path, path / counter
                    return
                path.rmdir()
            except OSError:
                continue

    def join(self):
        """Called in the child before it becomes the server."""
        if self.group:
            (self.group / "cgroup.procs").write_text(str(os.getpid()))

    def read(self, pid):
        if not self.group:
            return tree_ticks(pid) / os.sysconf("SC_CLK_TCK")
        text = self.counter.read_text()
        if self.counter.name == "cpuacct.usage":
            return int(text) / 1e9
        return int(text.split("usage_usec")[1].split()[0]) / 1e6

    def close(self):
        if self.group:
            try:
                self.group.rmdir()
            except OSError:
                pass


class Daemon:
    """Ours or the reference, with monitors that are there before it runs.

    The reference takes one client for each. .seconds is how long it took from
    its start to its first reply.
    """

    def __init__(self, box, log, program, name, *arguments, monitors=1,
                 limit=60):
        self.paths = [box / f"{name}.qmp{n}" for n in range(monitors)]
        self.clients, listeners, argv = [], [], [program]
        for number, path in enumerate(self.paths):
            path.unlink(missing_ok=True)
            listeners.append(socket.socket(socket.AF_UNIX))
            listeners[-1].bind(str(path))
            listeners[-1].listen(64)
            # qemu-storage-daemon may not greet who comes while it starts.
            wait = "off" if number else "on"
            argv += ["--chardev", f"socket,id=m{number},server=on,wait={wait},"
                     f"fd={listeners[-1].fileno()}",
                     "--monitor", f"chardev=m{number}"]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            argv + [str(a) for a in arguments],
            pass_fds=[one.fileno() for one in listeners],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for listener in listeners:
            listener.close()
        self.pid = self.process.pid
        self.qmp = self.client(limit=limit)
        self.qmp.execute("query-version")
        self.seconds = time.perf_counter() - started

    def client(self, monitor=0, limit=60):
        """A new client of a monitor."""
        self.clients.append(qmp.QmpClient(self.paths[monitor], limit=limit))
        return self.clients[-1]

    def cpu(self):
        """CPU seconds so far, of threads that have ended as well."""
        return tree_ticks(self.pid) / os.sysconf("SC_CLK_TCK")

    def memory(self, what="VmRSS"):
        """KiB that it has (or "VmHWM": had at most)."""
        for line in open(f"/proc/{self.pid}/status", encoding="ascii"):
            if line.startswith(what + ":"):
                return int(line.split()[1])
        return 0

    def close(self, limit=30):
        for client in self.clients:
            client.close()
        self.process.terminate()
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def percentile(values, share):
    """The value that @share of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def distribution(values):
    return {"p50": statistics.median(values), "p99": percentile(values, 0.99),
            "max": max(values), "count": len(values)}


# Building, and what a benchmark was run with.

def add_build_options(parser):
    parser.add_argument("--build", type=pathlib.Path, default=TOP / "build",
                        help="build directory")
    parser.add_argument("--program", help="blockferryd (default: of --build)")
    parser.add_argument("--json", metavar="FILE", help="also write figures")


def build(options, *targets):
    """An optimised build of what is measured, brought up to date."""
    if not (options.build / "build.ninja").exists():
        subprocess.run(["meson", "setup", options.build, TOP,
                        "--buildtype=release"], check=True,
                       stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", options.build, "blockferryd", *targets],
                   check=True, stdout=subprocess.DEVNULL)


def install_missing():
    lists = '"$PACKAGES_BUILD" "$PACKAGES_BENCH"'
    subprocess.run(["bash", "-c", f'TOP="{TOP}"; . "$TOP/scripts/lib.sh"; '
                    f"install_packages {lists}"], check=True)


def prepare_program(options, *targets):
    """Sets options.program; builds it unless it was given."""
    options.build = options.build.resolve()
    if options.program:
        options.program = str(pathlib.Path(options.program).resolve())
        return
    install_missing()
    build(options, *targets)
    options.program = str(options.build / "blockferryd")


def machine():
    """What the figures depend on, for the file with them."""
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"date": datetime.date.today().isoformat(), "processor": model,
            "processors": os.cpu_count(), "kernel": platform.release(),
            "command": shlex.join(
                [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]])}


def figures(rows, others):
    """The rows, with what they depend on."""
    return {**machine(), "others": round(others.worst, 3),
            "busy": others.are_busy(), "rows": rows}


def write_json(path, rows, others):
    if path:
        pathlib.Path(path).write_text(
            json.dumps(figures(rows, others), indent=1) + "\n",
            encoding="utf-8")


def print_row(texts, widths, markdown=False):
    """One line of a table; the first column is on the left."""
    if markdown:
        print("| " + " | ".join(texts) + " |", flush=True)
    else:
        print(f"{texts[0]:<{widths[0]}}" + "".join(
            f"{text:>{width}}" for text, width in zip(texts[1:], widths[1:])),
            flush=True)
