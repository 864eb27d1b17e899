# SPDX-License-Identifier: GPL-2.0-or-later
"""qmp-shell as a person sees it: in a real terminal, screen by screen.

The screens are in screens/; peers/terminal.py says how to write new ones.
"""
import re
import socket
import stat
import threading

import pytest

import harness
import qmp
import shell
from terminal import Terminal

pytestmark = pytest.mark.ours("the screens show our documentation")


@pytest.fixture
def terminals(box):
    """A function that starts shells, each in a terminal."""
    started = []

    def start(daemon, *options):
        directory = box / f"terminal{len(started)}"
        directory.mkdir()
        started.append(Terminal(
            directory, [shell.PROGRAM, *options, daemon.monitor_path],
            env=shell.environment(box),
            replace=[(re.escape(str(box)), "DIR"),
                     (r"blockferry \d+\.\d+\.\d+", "blockferry VERSION")]))
        started[-1].wait("^qmp>")
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


@pytest.fixture
def terminal(daemon, terminals):
    return terminals(daemon)


@pytest.fixture
def busy(daemon):
    """A daemon with two nodes and an export."""
    for node in ("disk0", "disk1"):
        daemon.cmd("blockdev-add", driver="null-co", node_name=node,
                   size=64 << 20)
    daemon.start_nbd()
    daemon.add_export("disk0", "e0")
    return daemon


def history(box):
    return box / "state" / "blockferry" / "qmp-history"


def test_nested_argument_completes(terminal, daemon, box):
    terminal.type("nbd-server-sta")
    terminal.press("Tab")
    terminal.type("ad")
    terminal.press("Tab", "Tab")
    terminal.type("un")
    terminal.press("Tab")
    terminal.type("addr.d")
    terminal.press("Tab", "Tab")
    terminal.check("completion-nested", r"^addr.data.tight=.*\n.*addr.data.$")
    terminal.type(f"pa\t{box}/nbd.sock ")
    terminal.press("Enter")
    terminal.wait("^ok$")
    daemon.wait_log(f"listening on unix:{box}/nbd.sock")


def test_live_ids_complete(busy, terminal):
    terminal.type("block-export-add type=nbd id=e1 node-name=")
    terminal.press("Tab")
    terminal.check("completion-live", "^node-name=disk1.*\nqmp> .*disk$")
    terminal.type("1\t")
    terminal.press("Enter")
    terminal.wait("^ok$")
    terminal.type("block-export-del id=")
    terminal.press("Tab")
    terminal.wait(r"^id=e0  of disk0\nid=e1  of disk1\nqmp> .* id=e$")


def test_completion_in_the_middle_of_a_line(busy, terminal):
    """The rest of the line chooses the branch, and stays."""
    terminal.type("blockdev-add  driver=null-co")
    terminal.press("C-a", "M-f", "M-f", "Right")
    terminal.type("read-z\ton ")
    terminal.wait("^qmp> blockdev-add read-zeroes=on  driver=null-co$")


def test_help(terminal):
    terminal.clear()
    terminal.type("help job-pause")
    terminal.press("Enter")
    terminal.check("help", r"Since .*\n\nqmp>|Since .*\nqmp>")


def test_table_and_error(busy, terminal):
    terminal.clear()
    terminal.type("query-block-exports")
    terminal.press("Enter")
    terminal.wait("^e0 .*\nqmp>$")
    terminal.type("block-export-del id=e1")
    terminal.press("Enter")
    terminal.check("table-and-error", "there is no export 'e1'.*\nqmp>")


def test_event_spares_the_line(busy, terminal):
    """Events come above the line, which goes on where it was."""
    terminal.clear()
    terminal.type("query-nam")
    terminal.wait("^qmp> query-nam$")
    busy.cmd("block-export-del", id="e0")
    terminal.check("event-while-typing",
                   "BLOCK_EXPORT_DELETED id=e0\nqmp> query-nam$")
    terminal.type("\t")
    terminal.press("Enter")
    terminal.wait(r"^qmp> query-named-block-nodes\nNODE ")


def test_event_in_the_middle_of_a_long_line(busy, terminal):
    """The line fills several rows, and the cursor is not at its end."""
    terminal.clear()
    terminal.type("blockdev-add driver=null-co node-name=" + "n" * 120)
    terminal.press("C-a", "M-f", "M-f")
    terminal.type("X")
    terminal.wait("^qmp> blockdev-addX driver")
    busy.cmd("block-export-del", id="e0")
    terminal.wait("BLOCK_EXPORT_DELETED")
    terminal.type("Y")
    terminal.check("event-long-line", "^qmp> blockdev-addXY driver")


def test_event_while_searching_the_history(busy, terminal):
    terminal.type("query-version")
    terminal.press("Enter")
    terminal.wait("^package .*\nqmp>$")
    terminal.clear()
    terminal.press("C-r")
    terminal.type("vers")
    terminal.wait("reverse-i-search")
    busy.cmd("block-export-del", id="e0")
    terminal.wait(r"DELETED id=e0\n\(reverse-i-search\)`vers': query-version$")
    terminal.press("C-g")
    terminal.wait("^qmp>$")


def test_history_goes_from_run_to_run(daemon, terminals, box):
    first = terminals(daemon)
    first.type("query-block-jobs")
    first.press("Enter")
    first.wait("^.none.$")
    first.type("object-add qom-type=secret id=s0 data=hush")
    first.press("Enter")
    first.wait("^ok$")
    first.press("C-d")
    first.wait(r"\[status 0\]")
    assert history(box).read_text() == "query-block-jobs\n"
    assert stat.S_IMODE(history(box).stat().st_mode) == 0o600

    second = terminals(daemon)
    second.clear()
    second.press("C-r")
    second.type("block")
    second.check("history-search", "query-block-jobs$")
    second.press("C-g")
    second.press("Up")
    second.wait("^qmp> query-block-jobs$")
    second.press("Enter")
    second.wait("^.none.$")
    second.type("history jobs")
    second.press("Enter")
    second.wait("^query-block-jobs\nhistory jobs\nqmp>$")


def test_transaction(busy, terminal):
    terminal.clear()
    for line in ("transaction(", "block-dirty-bitmap-add node=disk0 name=b0",
                 "block-dirty-bitmap-add node=disk0 name=b1 )"):
        terminal.type(line)
        terminal.press("Enter")
        terminal.wait(re.escape(line) + "\n(ok\nqmp|transaction)>$")
    terminal.check("transaction", "^ok\nqmp>$")


def test_message_of_several_lines(daemon, terminal):
    terminal.clear()
    for line, prompt in (('{"execute": "blockdev-add", "arguments": {', "..."),
                         ('  "driver": "null-co",', "..."),
                         ('  "node-name": "typed"}}', "ok\nqmp")):
        terminal.type(line)
        terminal.press("Enter")
        terminal.wait(re.escape(f"{line}\n{prompt}>") + "$")
    assert daemon.cmd("query-named-block-nodes")[0]["node-name"] == "typed"
    terminal.type("query-jobs x=[")
    terminal.press("Enter")
    terminal.wait(re.escape("query-jobs x=[\n...>") + "$")
    terminal.press("C-c")
    terminal.wait(r"^\.\.\.> ?(\^C)?\nqmp>$")


def test_ctrl_c(daemon, terminal):
    """It drops the line, the transaction, or the wait; never the shell."""
    terminal.clear()
    terminal.type("transaction(")
    terminal.press("Enter")
    terminal.wait("^transaction>")
    terminal.press("C-c")
    terminal.wait(r"dropped\)\nqmp>$")
    terminal.type("nonsense")
    terminal.wait("^qmp> nonsense$")
    terminal.press("C-c")
    terminal.wait(r"^qmp> nonsense(\^C)?\nqmp>$")
    terminal.type("wait BLOCK_JOB_READY")
    terminal.press("Enter")
    terminal.wait("BLOCK_JOB_READY\n(\n|$)")
    terminal.press("C-c")
    terminal.wait(r"BLOCK_JOB_READY\n(\^C)?\nqmp>$")
    terminal.type("query-jobs")
    terminal.press("Enter")
    terminal.wait("^.none.\nqmp>$")


def test_ctrl_c_among_events(daemon, terminal):
    stop = threading.Event()

    def make_events():
        with daemon.client() as other:
            while not stop.is_set():
                other.cmd("blockdev-create", job_id="j", options={
                    "driver": "file", "filename": "/nowhere/x", "size": 512})
                other.take_event("JOB_STATUS_CHANGE", id="j",
                                 status="concluded")
                other.cmd("job-dismiss", id="j")

    thread = threading.Thread(target=make_events)
    thread.start()
    try:
        terminal.wait("JOB_STATUS_CHANGE")
        for _ in range(60):
            terminal.press("C-c")
    finally:
        stop.set()
        thread.join(harness.LIMIT)
    terminal.clear()
    terminal.type("query-jobs")
    terminal.press("Enter")
    terminal.wait("^.none.\nqmp>$")


def test_watch(busy, terminal):
    terminal.type("watch -n 0.05 query-block-exports")
    terminal.press("Enter")
    terminal.check("watch", "^e0 ")
    busy.add_export("disk1", "e1")
    terminal.wait("^e1 ")
    busy.cmd("block-export-del", id="e1")
    terminal.wait("BLOCK_EXPORT_DELETED id=e1")
    terminal.press("C-c")
    terminal.wait("^qmp>$")


def test_daemon_that_ends_and_comes_back(daemons, terminals, box):
    arguments = ["--chardev", f"socket,path={box}/m,server=on,wait=off,id=m",
                 "--monitor", "m"]

    def start(name):
        started = daemons(*arguments, monitor=False, name=name)
        started.wait_log("monitor 'm' on")
        return started

    first = start("first")
    first.monitor_path = box / "m"
    terminal = terminals(first)
    terminal.clear()
    terminal.type("query-ver")
    terminal.wait("^qmp> query-ver$")
    with qmp.QmpClient(box / "m") as client:
        client.cmd("quit")
    first.wait()
    terminal.check("connection-lost", r"^\(offline\) query-ver$")
    terminal.press("C-u")
    terminal.type("query-version")
    terminal.press("Enter")
    terminal.wait("^error: not connected")
    start("second")
    terminal.type("reconnect")
    terminal.press("Enter")
    terminal.wait("^Connected to .*\nqmp>$")
    terminal.type("query-jobs")
    terminal.press("Enter")
    terminal.wait("^.none.\nqmp>$")


def test_reply_after_an_interruption(terminals, box):
    """The reply to a command that was not waited for is shown."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(box / "slow"))
        listener.listen()

        class Slow:
            monitor_path = box / "slow"

        served = {}

        def serve():
            served["sock"] = listener.accept()[0]
            sock = served["sock"]
            sock.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
            file = sock.makefile("rb")
            for line in file:
                if b"slow" in line:
                    served["id"] = re.search(rb"shell-\d+", line)[0]
                    return
                ident = re.search(rb"shell-\d+", line)[0]
                value = b"[]" if b"query-qmp-schema" in line else b"{}"
                sock.sendall(b'{"return": %s, "id": "%s"}\r\n' % (value,
                                                                ident))

        thread = threading.Thread(target=serve)
        thread.start()
        terminal = terminals(Slow)
        terminal.type("slow")
        terminal.press("Enter")
        thread.join(harness.LIMIT)
        terminal.press("C-c")
        terminal.wait("^qmp>$")
        terminal.type("next")
        terminal.wait("^qmp> next$")
        served["sock"].sendall(b'{"return": {"a": 1}, "id": "%s"}\r\n'
                               % served["id"])
        terminal.wait(r'^\[slow, interrupted before, has ended: \{"a": 1\}\]\n'
                      "qmp> next$")
        served["sock"].close()
