# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmarks, but for their figures: what they make of figures, when they
refuse a verdict, and that what they load a daemon with does load it."""
import importlib.machinery
import importlib.util
import json
import socket
import subprocess
import sys
import xml.etree.ElementTree

import pytest

import certs
import harness

SCRIPTS = harness.TESTS.parent / "scripts"

pytestmark = pytest.mark.ours("the benchmarks start the reference themselves")


def load(name):
    """A script as a module."""
    sys.path.insert(0, str(SCRIPTS))
    loader = importlib.machinery.SourceFileLoader(
        name.replace("-", "_"), str(SCRIPTS / name))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


benchlib = load("benchlib.py")


def cell(rate, cpu):
    return {"rate": rate, "cpu_us": cpu}


ROWS = {
    "unix/read-4k-d32": {"blockferry": cell(400e3, 2.0),
                         "nbdkit": cell(100e3, 6.0),
                         "qemu-nbd": cell(90e3, 9.0), "others": 0.01},
    "unix/read-1m": {"blockferry": cell(1100, 50),
                     "nbd-server": cell(1000, 60), "others": 0.0},
    "tls/read-1m": {"blockferry": cell(900, 800),
                    "nbdkit": cell(900, 1000), "others": 0.0},
    "unix/copy-out": {"blockferry": cell(900, 800),
                      "nbdkit": {"failed": "it <hangs>"}, "others": 0.0},
    "cold/read-4k-d32": {"blockferry": cell(90e3, 5),
                         "nbdkit": cell(10e3, 9), "fio": cell(100e3, None),
                         "others": 0.0},
}


def bench(box, rows, *arguments):
    """Runs scripts/bench on figures; returns the process, its lines by row."""
    kept = box / "figures.json"
    kept.write_text(json.dumps({
        "date": "2026-01-02", "processor": "Z80", "kernel": "1", "command":
        "bench --rows '<all>'", "busy": False,
        "others": max(cells["others"] for cells in rows.values()),
        "rows": rows}))
    result = subprocess.run(
        ["/usr/bin/python3", SCRIPTS / "bench", "--from-json", kept,
         *arguments], capture_output=True, text=True)
    return result, {line.split()[0]: line.split()
                    for line in result.stdout.splitlines() if "/" in line}


def test_rows_have_verdicts(box):
    result, lines = bench(box, ROWS)
    assert result.returncode == 0, result.stderr
    assert lines["unix/read-4k-d32"][-3:] == ["4.00", "0.33", "aim"]
    assert lines["unix/read-1m"][-3:] == ["1.10", "0.83", "goal"]
    assert lines["tls/read-1m"][-3:] == ["1.00", "0.80", "short"]
    assert lines["unix/copy-out"][-3:] == ["-", "-", "-"]
    # To fio on the file, which is no server.
    assert lines["cold/read-4k-d32"][-3:] == ["0.90", "0.56", "goal"]
    assert "3 of 4 goals are reached, 1 of them" in result.stdout


def test_connections_and_loops_have_verdicts(box):
    loops = {"blockferry": {**cell(300e3, 2.2), "share": 0.55},
             "one-loop": cell(200e3, 2.0), "others": 0.0}
    uneven = {**loops, "blockferry": {**cell(300e3, 2.2), "share": 0.65}}
    result, lines = bench(box, {
        "conn/plain": {"blockferry": cell(9000, 60),
                       "qemu-nbd": cell(6000, 70), "others": 0.0},
        "scale/read-4k-16x4": loops})
    assert lines["conn/plain"][-3:] == ["1.50", "0.86", "goal"]
    assert "9000 (60)" in result.stdout
    assert lines["scale/read-4k-16x4"][-3:] == ["1.50", "1.10", "aim"]
    assert "2 of 2 goals are reached" in result.stdout
    assert bench(box, {"scale/read-4k-16x4": uneven})[1][
        "scale/read-4k-16x4"][-1] == "short"


def test_busy_machine_gets_no_verdict(box):
    rows = {**ROWS, "unix/read-1m": {**ROWS["unix/read-1m"], "others": 0.06}}
    result, lines = bench(box, rows)
    assert result.returncode == benchlib.EXIT_BUSY
    assert lines["unix/read-1m"][-1] == "busy"
    assert lines["tls/read-1m"][-1] == "short"
    assert "no verdict: others used up to 6 %" in result.stdout
    assert "goals" not in result.stdout


def test_plot_shows_each_figure(box):
    picture = box / "figures.svg"
    bench(box, ROWS, "--plot", picture)
    root = xml.etree.ElementTree.parse(picture).getroot()
    space = "{http://www.w3.org/2000/svg}"
    widths = {rect.find(space + "title").text: float(rect.get("width"))
              for rect in root.iter(space + "rect")
              if rect.find(space + "title") is not None}
    figures = [(row, name, figure) for row, cells in ROWS.items()
               for name, values in cells.items() if name != "others"
               for figure in ("rate", "cpu_us") if values.get(figure)]
    assert len(widths) == len(figures)
    longest = widths["unix/read-4k-d32 blockferry: throughput"]
    assert max(widths.values()) == longest
    assert widths["unix/read-4k-d32 nbdkit: throughput"] == longest / 4
    assert widths["unix/read-4k-d32 blockferry: CPU"] == pytest.approx(
        longest * 2 / 9, abs=0.1)
    words = [text.text for text in root.iter(space + "text")]
    assert {"400k/s", "1100 MiB/s", "800 µs/MiB", "fails"} <= set(words)
    assert any("bench --rows '<all>'" in text for text in words)


def test_others_are_who_uses_the_machine(capsys):
    samples = iter([(10.0, 5.0), (20.0, 5.2), (20.0, 5.2), (30.0, 6.2),
                    (30.0, 6.2), (40.0, 6.1)])
    others = benchlib.Others(lambda: next(samples))
    others.start()
    assert others.share() == pytest.approx(0.02) and not others.are_busy()
    others.start()
    assert others.share() == pytest.approx(0.1) and others.are_busy()
    others.start()
    assert others.share() == 0  # what ticks round away
    others.refuse()
    assert "up to 10 %" in capsys.readouterr().out


def test_threads_of_the_kernel_come_and_go():
    kernel = benchlib.KernelTicks()
    kernel.add({"2": 100, "7": 5000})
    before = kernel.total
    kernel.add({"2": 110, "9": 4})
    assert kernel.total == before + 14
    kernel.add({"2": 110, "9": 1})
    assert kernel.total == before + 15


STARTER = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
import benchlib
others = benchlib.Others()
before = benchlib.tree_ticks(os.getpid())
burn = "while time.process_time() < 0.3: pass"
subprocess.run([sys.executable, "-c", "import os, time\\n"
                "if os.fork() == 0: os.setsid()\\n" + burn], check=True)
while benchlib.tree_ticks(os.getpid()) - before < \
        0.55 * os.sysconf("SC_CLK_TCK"):
    pass
"""


def test_what_we_start_is_not_others():
    """Not even what has gone to the background or has ended."""
    harness.run("/usr/bin/python3", "-c", STARTER, SCRIPTS)


def test_distribution():
    values = list(range(1, 101))
    assert benchlib.distribution(values) == {
        "p50": 50.5, "p99": 100, "max": 100, "count": 100}
    assert benchlib.percentile([7], 0.99) == 7


def test_system_calls_are_read_from_strace():
    text = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 48.02    0.379759           3    100000           preadv2
 41.88    0.331177         105      3127         2 io_uring_enter
------ ----------- ----------- --------- --------- ----------------
100.00    0.790855           7    106253         2 total
"""
    assert load("bench-allocations").parse_summary(text) == {
        "preadv2": 100000, "io_uring_enter": 3127}


def test_shares_are_read_from_perf():
    profile = load("benchprofile.py")
    found = profile.parse("""# Overhead  Shared Object
    77.50%  [kernel.kallsyms]
     9.40%  blockferryd
     1.20%  [k] rep_movs_alternative

""")
    assert found[1:] == [("blockferryd", 0.094),
                         ("rep_movs_alternative", pytest.approx(0.012))]
    assert profile.text(found) == "kernel 78 %, blockferryd 9 %"
    calls = profile.calls_of("""
        ffff1 rep_movs_alternative
        ffff2 do_preadv
        ffff3 do_syscall_64
        7f44 preadv64v2

        ffff1 tcp_recvmsg
        ffff2 io_recv
        ffff3 __do_sys_io_uring_enter
        ffff4 do_syscall_64

        ffff3 __sys_sendmsg
        ffff4 x64_sys_call
        ffff5 do_syscall_64

        55aa bf_nbd_command_co_run
""")
    assert calls == [("preadv", 0.25), ("recv by io_uring", 0.25),
                     ("sendmsg", 0.25)]


def test_large_input_is_valid():
    monitor = load("bench-monitor")
    for make in monitor.VALUES.values():
        text = monitor.command_of(make(100_000))
        assert 70_000 < len(text) < 130_000
        # QMP has strings in apostrophes, too.
        assert json.loads(text.replace(b"'", b'"'))["arguments"]["data"]


def test_asker_finds_replies_among_events():
    monitor = load("bench-monitor")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        asker = monitor.Asker(ours)
        for data, found in ((b'{"event": "A"}\r\n{"ret', False),
                            (b'urn": {}}\r\n', True),
                            (b'{"event": "B"}\r\n', False),
                            (b'{"event": "C"}\r\n{"return": {}}', True)):
            theirs.sendall(data)
            assert asker.read(harness.LIMIT) == found
        assert not asker.read(0.001)


def test_monitor_is_asked_while_things_hang(box):
    """All that it takes to make a daemon hang is there; no figure counts."""
    kept = box / "figures.json"
    result = subprocess.run(
        ["/usr/bin/python3", SCRIPTS / "bench-monitor", "--short",
         "--program", harness.PROGRAM, "--build", harness.BUILD,
         "--seconds", "0.1", "--json", kept, "--rows",
         "start,memory/idle,latency/300-*,latency/stuck-*,"
         "latency/unread-events"],
        capture_output=True, text=True)
    assert result.returncode in (0, 1, benchlib.EXIT_BUSY), result.stderr
    assert "fails" not in result.stdout, result.stderr
    figures = json.loads(kept.read_text())
    assert figures["processors"] >= 1 and figures["command"]
    rows = figures["rows"]
    assert rows["start"]["ours"]["p50"] > 0
    assert rows["memory/idle"]["ours"]["resident"] > 1000
    latencies = [row for name, row in rows.items() if "latency" in name]
    assert len(latencies) == 4
    assert all(row["ours"]["count"] >= 1 and not row["ours"]["hangs"]
               for row in latencies)


@pytest.mark.parametrize("kind", ["plain", "tls", "psk"])
def test_connections_are_counted(box, daemon, tls_dir, kind):
    """As many as the daemon has seen come."""
    daemon.add_file(harness.make_image(box / "disk.img", 1 << 20))
    arguments = {
        "plain": [], "tls": ["--tls", tls_dir],
        "psk": ["--tls", tls_dir, "--psk", certs.PSK_USER, "--priority",
                load("bench").PSK_PRIORITY]}[kind]
    creds = None if kind == "plain" else daemon.add_creds(
        tls_dir, qom_type=f"tls-creds-{'psk' if kind == 'psk' else 'x509'}")
    host, port = daemon.start_nbd_tcp(tls=creds)
    daemon.add_export("disk")
    counted = json.loads(harness.run(
        harness.BUILD / "tests" / "peers" / "nbd-load", "--tcp",
        f"127.0.0.1:{port}", "--export", "disk", "--op", "connect",
        "--connections", "2", "--seconds", "0.1", *arguments))["ops"]
    with socket.create_connection((host, port)) as one_more:
        assert one_more.recv(1)
        ids = [client["connection"] for client in daemon.cmd(
            "query-nbd-clients")]
    assert max(ids) == counted + 1 > 2
