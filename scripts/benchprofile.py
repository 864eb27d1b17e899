# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a server's processor time goes, from perf.

Samples of call graphs become three lists of shares of all its time: system
calls with all that the kernel does in them, objects (the kernel, the program,
libraries), and single functions. perf without hardware counters samples the
clock, which is good enough for shares.
"""
import collections
import contextlib
import re
import signal
import subprocess

FREQUENCY = "999"
LINE = re.compile(r"\s*([0-9.]+)%\s+(?:\[[.kugH]\]\s+)?(\S+)")
# How the kernel names what a system call is done by.
CALL = re.compile(r"(?:__x64_|__do_|__|k|do_)?(?:sys_)?(\w+)")
ENTRIES = ("do_syscall_64", "x64_sys_call", "el0_svc", "invoke_syscall")
RING_WORK = re.compile(r"io_(recv|send|recvmsg|sendmsg|read|write|splice)")


@contextlib.contextmanager
def recording(pid, path):
    """Samples a process while the block runs."""
    perf = subprocess.Popen(["perf", "record", "-q", "-F", FREQUENCY, "-g",
                             "-o", path, "-p", str(pid)],
                            stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait()


def report(path, *arguments):
    return subprocess.run(
        ["perf", "report", "-i", path, "--stdio", "-g", "none", *arguments],
        check=True, capture_output=True, text=True).stdout


def parse(text):
    """[(name, share)] of the lines of perf report."""
    found = []
    for line in text.splitlines():
        match = LINE.match(line)
        if match:
            found.append((match.group(2), float(match.group(1)) / 100))
    return found


def call_of(chain):
    """The system call, or work of a ring, in a call chain from the innermost
    function on; None if it is the program's own."""
    name = None
    for function in chain:
        match = RING_WORK.fullmatch(function)
        if match:
            return match.group(1) + " by io_uring"
        if function in ENTRIES:
            return name and CALL.fullmatch(name).group(1)
        name = function
    return None


def calls_of(script):
    """[(system call, share)] of what perf script prints."""
    counts = collections.Counter()
    samples = [block.split("\n") for block in script.strip().split("\n\n")]
    for lines in samples:
        counts[call_of([line.split()[-1] for line in lines if line])] += 1
    return [(name, count / len(samples))
            for name, count in counts.most_common() if name]


def shares(path):
    return {
        "calls": calls_of(subprocess.run(
            ["perf", "script", "-i", path, "-F", "ip,sym"], check=True,
            capture_output=True, text=True).stdout),
        "objects": parse(report(path, "--no-children", "-s", "dso")),
        # Without symbols each address is a function of its own.
        "functions": [(name, share) for name, share in parse(report(
            path, "--no-children", "-s", "sym"))
            if not name.startswith("0x")]}


def text(found, least=0.02, most=6):
    """Shares from @least on as one line."""
    return ", ".join(f"{name.strip('[]').replace('kernel.kallsyms', 'kernel')} "
                     f"{share * 100:.0f} %"
                     for name, share in found[:most] if share >= least)
