# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: options, key=value and JSON forms, process behaviour."""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess

import pytest

import harness
import qmp
import rawnbd as nbd
from harness import PROGRAM, run


def fails(*arguments, **options):
    """Runs the daemon with arguments that it must refuse; returns stderr."""
    result = run(PROGRAM, *arguments, check=False, **options)
    assert result.returncode == 1, (arguments, result)
    assert result.stderr.strip(), "a failure says why"
    assert not harness.COMPLAINT.search(result.stderr), result.stderr
    return result.stderr


# Help and version.

@pytest.mark.parametrize("option", ("-h", "--help"))
def test_help_goes_to_stdout(option):
    result = run(PROGRAM, option, check=False)
    assert result.returncode == 0
    for word in ("--blockdev", "--chardev", "--daemonize", "--export",
                 "--monitor", "--nbd-server", "--object", "--pidfile"):
        assert word in result.stdout


@pytest.mark.parametrize("option", ("-V", "--version"))
def test_version(option):
    text = run(PROGRAM, option)
    assert re.match(r"\S+ version \d+\.\d+", text)


@pytest.mark.ours("the reference has trace events")
@pytest.mark.parametrize("option", (["-T", "help"], ["--trace", "nbd_*"],
                                    ["--trace=events=/x,file=/y"]))
def test_trace_tells_the_way_out(option):
    error = fails(*option)
    assert f"--trace {option[-1].removeprefix('--trace=')}: " in error
    assert "G_MESSAGES_DEBUG=all" in error and "static probes" in error


@pytest.mark.ours("the reference has no such command")
def test_options_are_told(daemon):
    told = {o["option"]: {p["name"]: p for p in o["parameters"]}
            for o in daemon.cmd("query-command-line-options")}
    shown = set(re.findall(r"^  (?:-\w, )?--([a-z-]+)",
                           run(PROGRAM, "--help"), re.MULTILINE))
    assert set(told) == shown - {"help", "version"}
    for name, parameter in {
            ("nbd-server", "addr.path"): ("string", None),
            ("nbd-server", "max-connections"): ("number", "100"),
            ("object", "qom-type"): ("string", None),
            ("object", "limits.iops-total"): ("number", None),
            ("object", "verify-peer"): ("boolean", "on"),
            ("blockdev", "cache.direct"): ("boolean", None),
            ("blockdev", "detect-zeroes"): ("string", "off"),
            ("blockdev", "offset"): ("number", "0"),
            ("blockdev", "min-cluster-size"): ("size", None),
            ("chardev", "path"): ("string", None),
            ("monitor", "read-only"): ("boolean", "off")}.items():
        found = told[name[0]][name[1]]
        assert (found["type"], found.get("default")) == parameter, name
    assert told["daemonize"] == {}


@pytest.mark.ours("the reference has no such command")
def test_one_option_is_told(daemon):
    found, = daemon.cmd("query-command-line-options", option="monitor")
    assert [p["name"] for p in found["parameters"]] == [
        "id", "chardev", "mode", "pretty", "read-only"]
    error = daemon.error("query-command-line-options", option="nope")
    assert error.desc == "invalid option name: nope"


def test_help_wins_over_bad_options():
    assert run(PROGRAM, "--object", "nonsense", "--help")


@pytest.mark.parametrize("arguments, words", [
    (["foo"], ["foo"]),
    (["--bogus"], ["--bogus"]),
    (["-b"], ["b"]),
    (["--object"], ["object"]),
    (["--blockdev", "driver=nosuch,node-name=x"], ["nosuch"]),
    (["--blockdev", "null-co"], ["node-name"]),
    (["--blockdev", "null-co,node-name=x,nosuch=1"], ["nosuch"]),
    (["--blockdev", "null-co,node-name=x,read-only"], ["read-only"]),
    (["--blockdev", "null-co,node-name=x,read-only=TRUE"], ["read-only"]),
    (["--blockdev", "null-co,node-name=x,size=1M"], ["size"]),
    (["--blockdev", "null-co,node-name=x,size=1k"], ["size"]),
    (["--blockdev", "raw,node-name=x,file=n,file.driver=null-co"], ["file"]),
    (["--blockdev", "raw,node-name=x,file=nope"], ["nope"]),
    (["--blockdev", "{bad json"], ["JSON"]),
    (["--blockdev", '{"driver":"null-co","node-name":"x","size":"1"}'],
     ["size"]),
    (["--blockdev", "help"], ["help"]),
    (["--object", "secret,data=x"], ["id"]),
    (["--object", "nosuch,id=x"], ["nosuch"]),
    (["--object", "secret,id=9x,data=x"], ["id"]),
    (["--export", "nbd,id=e,node-name=n"], ["n"]),
    (["--blockdev", "null-co,node-name=n", "--export",
      "nbd,id=e,node-name=n"], ["NBD server not running"]),
    (["--monitor", "chardev=nope"], ["nope"]),
    (["--chardev", "null"], ["id"]),
    (["--chardev", "nosuch,id=c"], ["nosuch"]),
    (["--chardev", "socket,id=c,path=/nonexistent/s,server=on,wait=off"],
     ["/nonexistent/s"]),
    (["--nbd-server", "max-connections=1"], ["addr"]),
    (["--nbd-server", "addr.type=unix,addr.path=/nonexistent/s"],
     ["/nonexistent/s"]),
    (["--nbd-server", "addr.type=inet,addr.host=127.0.0.1,addr.port=0,"
      "tls-creds=nope"], ["nope"]),
    (["--pidfile", "/nonexistent/p", "--chardev", "null,id=c", "--monitor",
      "c"], ["/nonexistent/p"]),
    (["--chardev", "null,id=c", "--monitor", "chardev=c,mode=readline"],
     ["QMP"]),
])
def test_bad_command_line_is_explained(arguments, words):
    message = fails(*arguments)
    for word in words:
        assert word in message, message
    assert re.match(rf"\S*{pathlib.Path(PROGRAM).name}: ", message)


def test_order_counts(box):
    """A user of a thing must come after the thing."""
    disk = harness.make_image(box / "d.img", 1 << 20)
    assert "n" in fails(
        "--nbd-server", f"addr.type=unix,addr.path={box}/s", "--export",
        "nbd,id=e,node-name=n", "--blockdev",
        f"file,node-name=n,filename={disk}")


def test_second_nbd_server_is_refused(box):
    message = fails("--nbd-server", f"addr.type=unix,addr.path={box}/a",
                    "--nbd-server", f"addr.type=unix,addr.path={box}/b")
    assert "NBD server already running" in message


def test_object_help_lists_types():
    text = run(PROGRAM, "--object", "help")
    assert re.search(r"^  tls-creds-x509$", text, re.M)
    text = run(PROGRAM, "--object", "secret,help")
    assert re.search(r"^  data=<", text, re.M)


def test_chardev_help_lists_backends():
    text = run(PROGRAM, "--chardev", "help")
    for backend in ("socket", "stdio", "null"):
        assert backend in text


# The structured forms.

def nodes(daemon):
    return {n["node-name"]: n
            for n in daemon.cmd("query-named-block-nodes")}


def test_key_value_forms(daemons, box):
    plain = harness.make_image(box / "a,b.raw", 1 << 20)
    quoted = str(plain).replace(",", ",,")
    daemon = daemons(
        "--blockdev", f"file,node-name=f,filename={quoted},read-only=on",
        "--blockdev=driver=raw,node-name=r,file.driver=file,"
        f"file.node-name=rf,file.filename={quoted},size=0x1000,",
        "--blockdev", "null-co,node-name=n,size=010,size=04000,read-only=no",
        "--blockd", json.dumps({"driver": "null-co", "node-name": "j",
                                "size": 4096, "read-only": True}),
        "--blockdev", "{'driver':'null-co','node-name':'q'}",
        "--blockdev", "raw,node-name=w,file=n")
    found = nodes(daemon)
    assert set(found) >= {"f", "r", "rf", "n", "j", "q", "w"}
    assert found["f"]["ro"] and found["f"]["file"] == str(plain)
    assert found["r"]["image"]["virtual-size"] == 4096
    assert found["n"]["image"]["virtual-size"] == 2048
    assert not found["n"]["ro"] and found["j"]["ro"]


@pytest.mark.parametrize("word, value", [
    ("on", True), ("yes", True), ("true", True), ("y", True),
    ("off", False), ("no", False), ("false", False), ("n", False)])
def test_booleans(daemons, word, value):
    daemon = daemons("--blockdev", f"null-co,node-name=n,read-only={word}")
    assert nodes(daemon)["n"]["ro"] is value


def test_everything_on_the_command_line(daemons, box, image, tls_dir,
                                        tls_context):
    path = box / "cmd.nbd"
    daemon = daemons(
        "--object", f"tls-creds-x509,id=t,endpoint=server,dir={tls_dir}",
        "--blockdev", f"file,node-name=disk,filename={image}",
        "--nbd-server",
        f"addr.type=unix,addr.path={path},tls-creds=t,max-connections=5",
        "--export", "nbd,id=e,node-name=disk,name=first,description=hello,"
        "writable=on",
        "--export", "type=nbd,id=f,node-name=disk,name=second")
    assert {e["id"] for e in daemon.cmd("query-block-exports")} == {"e", "f"}
    with nbd.RawNbd(path) as client:
        client.starttls(tls_context)
        assert client.list_exports() == [("first", "hello"), ("second", "")]
        client.go("first")
        assert client.write(0, b"x" * 512) == 0
    error = daemon.error("nbd-server-start", addr={
        "type": "unix", "data": {"path": str(box / "other")}})
    assert "already running" in error.desc


def test_nbd_server_on_inherited_socket(daemons, box, image):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(box / "inherited"))
    listener.listen(8)
    daemons("--nbd-server",
            f"addr.type=fd,addr.str={listener.fileno()}",
            "--blockdev", f"file,node-name=disk,filename={image}",
            "--export", "nbd,id=e,node-name=disk",
            extra_fds=[listener.fileno()])
    listener.close()
    with nbd.RawNbd(box / "inherited") as client:
        client.go("disk")
        assert client.read(0, 512)[0] == 0


@pytest.mark.parametrize("number", ("99", "x", "0"))
def test_bad_inherited_socket_is_named(number):
    message = fails("--nbd-server", f"addr.type=fd,addr.str={number}")
    assert number in message


def test_two_monitors(daemons, box):
    paths = [box / "m1", box / "m2"]
    arguments = []
    for number, path in enumerate(paths):
        arguments += ["--chardev", f"socket,id=c{number},path={path},"
                      "server=on,wait=off", "--monitor", f"c{number}"]
    daemon = daemons(*arguments)
    daemon.cmd("query-version")
    clients = [qmp.QmpClient(p, limit=harness.LIMIT) for p in paths]
    for client in clients:
        assert client.cmd("query-version")
        client.close()
    daemon.finish()
    assert not any(p.exists() for p in paths), "socket left behind"


def test_monitor_over_tcp(daemons):
    port = harness.free_port()
    daemon = daemons("--chardev",
                     f"socket,id=t,host=127.0.0.1,port={port},server=on,"
                     "wait=off", "--monitor", "t")
    daemon.cmd("query-version")
    client = qmp.QmpClient(socket.create_connection(("127.0.0.1", port)),
                           limit=harness.LIMIT)
    assert client.cmd("query-version")
    client.close()


def test_monitor_on_stdio(box):
    process = subprocess.Popen(
        [PROGRAM, "--chardev", "stdio,id=s", "--monitor", "s"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, cwd=box)
    out, err = process.communicate(
        b'{"execute":"qmp_capabilities"}{"execute":"query-version"}'
        b'{"execute":"quit"}\n', timeout=harness.LIMIT)
    assert process.returncode == 0, err
    messages = [json.loads(line) for line in out.splitlines()]
    assert "QMP" in messages[0] and messages[1] == {"return": {}}
    assert messages[2]["return"]["qemu"]
    assert messages[-1] == {"return": {}}


def test_monitor_as_client_connects_out(daemons, box):
    """The daemon is the one who connects; it comes back after an end."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(box / "manager"))
    listener.listen(8)
    listener.settimeout(harness.LIMIT)
    daemons("--chardev", f"socket,id=c,path={box}/manager,reconnect=1",
            "--monitor", "c", monitor=False)
    for _ in range(2):
        client = qmp.QmpClient(listener.accept()[0], limit=harness.LIMIT)
        assert client.cmd("query-version")
        client.close()
    listener.close()


def test_monitor_on_inherited_connection(daemons):
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    daemons("--chardev", f"socket,id=c,fd={theirs.fileno()}", "--monitor",
            "c", monitor=False, extra_fds=[theirs.fileno()])
    theirs.close()
    client = qmp.QmpClient(ours, limit=harness.LIMIT)
    assert client.cmd("query-version")
    client.close()


def test_monitor_that_waits_for_its_client(daemons, box):
    """wait=on: later options are handled once a client is there."""
    path = box / "w"
    daemon = daemons("--chardev", f"socket,id=c,path={path},server=on,wait=on",
                     "--monitor", "c", "--pidfile", box / "pid",
                     monitor=False)
    daemon.wait_log("waiting for a client on")  # the path is there before
    assert not (box / "pid").exists()
    client = qmp.QmpClient(path, limit=harness.LIMIT)
    assert client.cmd("query-version")
    harness.wait_until((box / "pid").exists)
    client.close()
    assert daemon.running()


@pytest.mark.ours("the reference must be killed in this state")
def test_sigterm_ends_a_daemon_that_waits(daemons, box):
    path = box / "w"
    daemons("--chardev", f"socket,id=c,path={path},server=on,wait=on",
            "--monitor", "c", monitor=False)
    harness.wait_until(path.exists)
    # The fixture sends SIGTERM and wants status 0.


@pytest.mark.ours("the reference has no default monitor")
@pytest.mark.parametrize("variable", ("RUNTIME_DIRECTORY",
                                      "XDG_RUNTIME_DIR"))
def test_default_monitor(daemons, box, variable):
    others = {"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": ""}
    (box / "run").mkdir(mode=0o700)
    daemon = daemons(monitor=False, env={**others, variable: str(box / "run")})
    directory = re.escape(str(box / "run"))
    path = pathlib.Path(daemon.wait_log(
        rf"{directory}/(blockferry/)?qmp\.sock").group(0))
    client = qmp.QmpClient(path, limit=harness.LIMIT)
    assert client.cmd("query-version")
    client.close()
    assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0
    daemon.finish()
    assert not path.exists()


# The process.

def test_pidfile(daemons, box):
    pidfile = box / "pid"
    daemon = daemons("--pidfile", pidfile)
    harness.wait_until(pidfile.exists)
    harness.wait_until(pidfile.read_text)
    assert pidfile.read_text() == f"{daemon.pid}\n"
    assert stat.S_IMODE(pidfile.stat().st_mode) == 0o600
    message = fails("--pidfile", pidfile)
    assert "pid" in message.lower() and str(pidfile) in message or \
        "lock" in message
    with open(pidfile, "r+b") as file:
        with pytest.raises(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    daemon.finish()
    assert not pidfile.exists()


def test_pidfile_is_no_device(box):
    """It would be removed at the end."""
    device = box / "device"
    os.mkfifo(device)
    assert "not a regular file" in fails(
        "--pidfile", device, "--chardev", "null,id=c", "--monitor", "c")
    assert device.is_fifo()


def test_stale_pidfile_is_taken_over(daemons, box):
    pidfile = box / "pid"
    pidfile.write_text("999999\nmore text\n")
    daemon = daemons("--pidfile", pidfile)
    daemon.cmd("query-version")
    harness.wait_until(lambda: pidfile.read_text() == f"{daemon.pid}\n")


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT,
                                    signal.SIGHUP))
def test_signals_end_cleanly(daemons, box, image, number):
    daemon = daemons("--chardev", f"socket,id=c,path={box}/m,server=on,"
                     "wait=off", "--monitor", "c", "--pidfile", box / "pid")
    path = daemon.serve_file(image)
    client = nbd.RawNbd(path)
    client.go("disk")
    assert client.write(0, b"last words" * 10) == 0
    daemon.popen.send_signal(number)
    assert daemon.wait() == 0
    client.assert_closed()
    daemon.qmp.at_eof()
    assert not (box / "m").exists() and not (box / "pid").exists()
    assert image.read_bytes().startswith(b"last words")
    if not harness.IS_REFERENCE:
        assert not path.exists()


def test_sigpipe_is_ignored(daemon):
    assert daemon.cmd("query-version")
    daemon.popen.send_signal(signal.SIGPIPE)
    assert daemon.cmd("query-version")


def daemonize(box, *arguments):
    result = run(PROGRAM, "--daemonize", "--pidfile", box / "pid", *arguments,
                 check=False, cwd=box)
    pid = None
    if result.returncode == 0:
        pid = int((box / "pid").read_text())
    return result, pid


def test_daemonize(box, image):
    """When the parent ends, everything listens."""
    result, pid = daemonize(
        box, "--blockdev", f"file,node-name=disk,filename={image.name}",
        "--nbd-server", f"addr.type=unix,addr.path={box}/nbd", "--export",
        "nbd,id=e,node-name=disk", "--chardev",
        f"socket,id=c,path={box}/m,server=on,wait=off", "--monitor", "c")
    assert result.returncode == 0, result.stderr
    try:
        with nbd.RawNbd(box / "nbd") as client:
            client.go("disk")
            assert client.read(0, 512)[0] == 0
        proc = pathlib.Path(f"/proc/{pid}")
        assert os.readlink(proc / "cwd") == "/"
        for number in (0, 1, 2):
            assert os.readlink(proc / "fd" / str(number)) == "/dev/null"
        assert os.getsid(pid) != os.getsid(0)
        assert stat.S_IMODE((box / "nbd").stat().st_mode) & 0o027 == 0
    finally:
        os.kill(pid, signal.SIGTERM)
    harness.wait_until(lambda: not proc.exists() or
                       (proc / "stat").read_text().split()[2] == "Z")
    assert not (box / "pid").exists() and not (box / "m").exists()


def test_daemonize_reports_failure(box):
    result, _ = daemonize(box, "--blockdev", "file,node-name=d,filename=nope")
    assert result.returncode == 1 and "nope" in result.stderr
    assert not (box / "pid").exists()


@pytest.mark.ours("the reference ends with 1, though it has started")
@pytest.mark.parametrize("closed", ("<&-", ">&-", "2>&-", "<&- >&-",
                                    ">&- 2>&-", "<&- >&- 2>&-"))
def test_daemonize_with_closed_descriptors(box, closed):
    """What is opened gets other numbers than those of standard output."""
    start = [PROGRAM, "--blockdev", "null-co,node-name=d,size=1048576,"
             "read-zeroes=on", "--nbd-server", f"addr.type=unix,addr.path={box}"
             "/nbd", "--daemonize", "--pidfile", box / "pid", "--export"]
    shell = ["sh", "-c", f'"$@" {closed}', "sh"]
    export = "nbd,id=e,node-name="
    assert run(*shell, *start, export + "none", check=False).returncode == 1
    status = run(*shell, *start, export + "d", check=False).returncode
    pid = int((box / "pid").read_text())
    try:
        assert status == 0
        for number in (0, 1, 2):
            assert os.readlink(f"/proc/{pid}/fd/{number}") == "/dev/null"
        with nbd.RawNbd(box / "nbd") as client:
            client.go("d")
            assert client.read(0, 512) == (0, bytes(512))
        os.kill(pid, signal.SIGTERM)
        # It goes as one of the last things.
        harness.wait_until(lambda: not (box / "pid").exists())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # one that does not end is not left


@pytest.mark.ours("io_uring is optional in the reference")
def test_missing_io_uring_is_explained(box):
    """A kernel that forbids io_uring (a filter as containers have it)."""
    script = r"""
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# BPF: io_uring_setup (425) fails with EPERM, all else is allowed.
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001),
        (0x06, 0, 0, 0x7fff0000)]
prog = b"".join(struct.pack("HBBI", *c) for c in code)
buf = ctypes.create_string_buffer(prog)
class Prog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
fprog = Prog(len(code), ctypes.addressof(buf))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(fprog), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""
    result = run("/usr/bin/python3", "-c", script, PROGRAM, "--blockdev",
                 "null-co,node-name=n", check=False)
    assert result.returncode == 1
    assert "io_uring" in result.stderr
    assert not harness.COMPLAINT.search(result.stderr)
