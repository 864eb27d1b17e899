# SPDX-License-Identifier: GPL-2.0-or-later
"""How clients reach a monitor: TLS with authorization, sockets that a
supervisor made, who may connect to a path, what a read-only one allows."""
import contextlib
import fcntl
import grp
import json
import os
import pwd
import socket
import ssl
import sys
import time

import pytest

import harness
import qmp


def monitor(ident, **options):
    """Arguments for a monitor on a socket that listens."""
    text = ",".join(f"{k.replace('_', '-')}={v}" for k, v in options.items())
    return ["--chardev", f"socket,id={ident},server=on,wait=off,{text}",
            "--monitor", ident]


def creds(tls_dir, **options):
    text = ",".join(f"{k.replace('_', '-')}={v}" for k, v in options.items())
    return ["--object", f"tls-creds-x509,id=tls0,endpoint=server,dir={tls_dir}"
            + (f",{text}" if text else "")]


def connect(port, context, **options):
    sock = socket.create_connection(("127.0.0.1", port), harness.LIMIT)
    return qmp.QmpClient(context.wrap_socket(sock, server_hostname="localhost"),
                         limit=harness.LIMIT, **options)


def is_refused(port, context):
    """TLS 1.3 tells a client of the end only when it reads."""
    try:
        connect(port, context).close()
    except TimeoutError:
        raise
    except (OSError, qmp.QmpClosed):
        return True
    return False


@pytest.fixture
def tls_daemon(daemons, tls_dir):
    """A function that starts a daemon with a monitor over TLS."""
    def start(*arguments, **options):
        daemon = daemons(*creds(tls_dir), *arguments, *monitor(
            "t", host="127.0.0.1", port=0, tls_creds="tls0", **options))
        where = daemon.wait_log(r"monitor 't' on 127\.0\.0\.1:(\d+),")
        return daemon, int(where[1])
    return start


def test_monitor_over_tls(tls_daemon, tls_context):
    daemon, port = tls_daemon()
    client = connect(port, tls_context)
    assert client.cmd("query-version")
    daemon.wait_log(r"monitor 't' client \d+ \(127.0.0.1:\d+, TLS1.3 .*CN=")
    # Many records, in both directions.
    assert len(client.raw_reply('{"execute":"query-qmp-schema","id":"'
                                + "x" * (1 << 20) + '"}')["id"]) == 1 << 20
    client.close()
    daemon.wait_log(r"client \d+ \(127.0.0.1.*disconnected")


def test_credentials_in_use_stay(tls_daemon, box):
    daemon, port = tls_daemon()
    assert "chardev 't'" in daemon.error("object-del", id="tls0").desc
    daemon.execute("chardev-add", {"id": "u", "backend": {
        "type": "socket", "data": {"tls-creds": "tls0", "addr": {
            "type": "unix", "data": {"path": str(box / "u")}}}}})
    desc = daemon.error("object-del", id="tls0").desc
    assert "chardev 't'" in desc or "chardev 'u'" in desc
    daemon.cmd("chardev-remove", id="u")
    assert "chardev 't'" in daemon.error("object-del", id="tls0").desc


def test_unused_credentials_go(daemon, tls_dir, box):
    daemon.add_creds(tls_dir)
    daemon.execute("chardev-add", {"id": "u", "backend": {
        "type": "socket", "data": {"tls-creds": "tls0", "addr": {
            "type": "unix", "data": {"path": str(box / "u")}}}}})
    daemon.error("object-del", id="tls0")
    daemon.cmd("chardev-remove", id="u")
    daemon.cmd("object-del", id="tls0")


@pytest.mark.parametrize("options, text", [
    ({"tls-creds": "nope"}, "No TLS credentials with id 'nope'"),
    ({"tls-creds": "sec"}, "'sec'"),
    ({"tls-authz": "a"}, "requires 'tls-creds'"),
    ({"tls-creds": "tls0", "server": False},
     "Expected TLS credentials for a client"),
    ({"tls-creds": "open", "tls-authz": "a"}, "verify-peer"),
])
def test_tls_that_cannot_be_is_explained(daemon, tls_dir, options, text):
    daemon.add_creds(tls_dir)
    daemon.add_creds(tls_dir, "open", verify_peer=False)
    daemon.cmd("object-add", qom_type="secret", id="sec", data="x")
    error = daemon.error("chardev-add", id="t", backend={
        "type": "socket", "data": {**options, "addr": {
            "type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}}})
    assert text in error.desc
    for ident in ("tls0", "open"):
        daemon.cmd("object-del", id=ident)


def test_client_without_certificate_is_refused(tls_daemon, tls_dir):
    daemon, port = tls_daemon()
    assert is_refused(port, harness.client_context(tls_dir,
                                                   certificate=False))
    daemon.wait_log("chardev 't': connection from 127.0.0.1:.* refused: ")


def test_authorization_of_clients(tls_daemon, tls_context):
    daemon, port = tls_daemon(tls_authz="who")
    assert is_refused(port, tls_context)  # there is no such object yet
    daemon.wait_log("tls-authz 'who' does not allow '.*CN=.*': .*ID who")
    daemon.cmd("object-add", qom_type="authz-list", id="who", rules=[
        {"match": "*CN=nobody*", "format": "glob", "policy": "allow"}])
    assert is_refused(port, tls_context)
    daemon.cmd("qom-set", path="/objects/who", property="policy",
               value="allow")
    with connect(port, tls_context) as client:
        assert client.cmd("query-version")
        # Who is connected stays; who comes is asked about.
        daemon.cmd("object-del", id="who")
        assert client.cmd("query-version")
        assert is_refused(port, tls_context)


def test_silent_peers_do_not_keep_others_out(tls_daemon, tls_context):
    daemon, port = tls_daemon()
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(
                ("127.0.0.1", port), harness.LIMIT))
        started = time.monotonic()
        assert connect(port, tls_context).cmd("query-version")
        assert time.monotonic() - started < 9
        daemon.wait_log("connection from .* refused")
        daemon.cmd("quit")  # does not wait for them
        assert daemon.wait() == 0


def test_garbage_instead_of_tls(tls_daemon, tls_context):
    daemon, port = tls_daemon()
    for seed in range(20):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b'{"execute":"quit"}' if seed == 0
                         else harness.random_bytes(3000, seed))
    assert connect(port, tls_context).cmd("query-version")
    assert daemon.cmd("query-version")


def test_connections_over_tls_to_a_manager(daemons, tls_dir, box):
    """The daemon connects, as a TLS client that checks the name."""
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=str(tls_dir / "ca-cert.pem"))
    context.load_cert_chain(str(tls_dir / "server-cert.pem"),
                            str(tls_dir / "server-key.pem"))
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(harness.LIMIT)
    port = listener.getsockname()[1]
    daemons("--object", f"tls-creds-x509,id=c,endpoint=client,dir={tls_dir}",
            "--chardev", f"socket,id=t,host=127.0.0.1,port={port},"
            "reconnect-ms=50,tls-creds=c", "--monitor", "t", monitor=False)
    for _ in range(2):
        sock = context.wrap_socket(listener.accept()[0], server_side=True)
        with qmp.QmpClient(sock, limit=harness.LIMIT) as client:
            assert client.cmd("query-version")
    listener.close()


# Read-only monitors.

# Commands that have no name of a query and change nothing.
LOOKING = {"qmp_capabilities", "qom-get", "qom-list", "qom-list-properties",
           "qom-list-types", "x-debug-block-dirty-bitmap-sha256",
           "x-debug-query-block-graph"}


@pytest.fixture
def watcher(daemons, box):
    """A daemon and a client of its read-only monitor."""
    daemon = daemons("--chardev", f"socket,id=r,path={box}/r,server=on,"
                     "wait=off", "--monitor", "r,read-only=on")
    daemon.cmd("query-version")
    with qmp.QmpClient(box / "r", limit=harness.LIMIT,
                       capabilities=["oob"]) as client:
        yield daemon, client


def test_read_only_monitor_refuses_whatever_changes(watcher):
    daemon, client = watcher
    every = {c["name"] for c in daemon.cmd("query-commands")}
    allowed = {c["name"] for c in client.cmd("query-commands")}
    assert allowed == LOOKING | {c for c in every if c.startswith("query-")}
    for member in ("execute", "exec-oob"):
        for command in sorted(every - allowed):
            reply = client.raw_reply(json.dumps({member: command}))
            if member == "execute":
                assert reply["error"]["class"] == "GenericError"
                assert f"{command} is not allowed" in reply["error"]["desc"]
            assert "error" in reply
    assert daemon.running()
    reply = client.raw_reply('{"execute":"nonsense"}')
    assert reply["error"]["class"] == "CommandNotFound"


def test_read_only_monitor_shows_everything(watcher):
    daemon, client = watcher
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "n"})
    daemon.start_nbd()
    daemon.add_export("n")
    assert [e["id"] for e in client.cmd("query-block-exports")] == ["exp-n"]
    assert client.cmd("qom-list", path="/objects")
    daemon.cmd("block-export-del", id="exp-n")
    client.take_event("BLOCK_EXPORT_DELETED", id="exp-n")
    assert client.cmd("query-block-exports") == []
    daemon.wait_log(r"monitor 'r' on unix:.*\(read-only\)")


# Sockets of a supervisor.

START = """
import os, sys
fds = [int(n) for n in sys.argv[1].split(",")]
for target, fd in enumerate(fds, 3):
    os.dup2(fd, target)
names, pid = sys.argv[2:4]
os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names,
                  LISTEN_PID=pid if pid != "own" else str(os.getpid()))
os.execv(sys.argv[4], sys.argv[4:])
"""


@pytest.fixture
def activate(spawn, box):
    """A function that starts the daemon as systemd does."""
    def start(names, *arguments, pid="own"):
        sockets = [socket.socket(socket.AF_UNIX) for _ in names]
        high = []
        for number, sock in enumerate(sockets):
            sock.bind(str(box / f"s{number}"))
            sock.listen(4)
            high.append(fcntl.fcntl(sock, fcntl.F_DUPFD, 100))
        process = spawn("daemon", [
            sys.executable, "-c", START, ",".join(map(str, high)),
            ":".join(names), pid, harness.PROGRAM, *arguments], pass_fds=high)
        for sock in sockets:
            sock.close()
        for fd in high:
            os.close(fd)
        return process
    return start


def test_sockets_are_used_by_name(activate, box):
    process = activate(
        ["nbd", "qmp", "qmp", "spare"],
        "--nbd-server", "addr.type=fd,addr.str=nbd",
        "--chardev", "socket,id=a,fd=qmp,server=on,wait=off", "--monitor", "a",
        "--chardev", "socket,id=b,fd=qmp,server=on,wait=off", "--monitor", "b")
    process.wait_log("socket 'spare'.* is not used")
    for number in (1, 2):
        with qmp.QmpClient(box / f"s{number}", limit=harness.LIMIT) as client:
            assert client.cmd("query-version")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(harness.LIMIT)
        client.connect(str(box / "s0"))
        assert client.recv(8) == b"NBDMAGIC"
    environment = open(f"/proc/{process.pid}/environ", "rb").read()
    assert b"LISTEN_PID" in environment  # as it was at the start
    assert process.finish() is None
    assert all((box / f"s{number}").exists() for number in range(4))


def test_sockets_are_used_by_a_file(activate, box):
    """Its commands name what the command line can name, and are saved."""
    start = {"execute": "nbd-server-start", "arguments": {
        "addr": {"type": "fd", "data": {"str": "nbd"}}}}
    chardev = {"execute": "chardev-add", "arguments": {
        "id": "a", "backend": {"type": "socket", "data": {
            "addr": {"type": "fd", "data": {"str": "qmp"}}, "server": True,
            "wait": False}}}}
    path = box / "setup.conf"
    path.write_text(f"{json.dumps(start)}\n{json.dumps(chardev)}")
    process = activate(["nbd", "qmp"], "--config", path, "--monitor", "a")
    process.wait_log("monitor 'a' on")
    with qmp.QmpClient(box / "s1", limit=harness.LIMIT) as client:
        text = client.cmd("config-save")["text"]
    saved = [json.loads(line) for line in text.splitlines()
             if line.startswith("{")]
    chardev["arguments"]["backend"]["data"].pop("server")  # the default
    assert saved == [chardev, start]
    assert process.finish() is None


def test_sockets_survive_daemonize(activate, box):
    process = activate(
        ["qmp"], "--daemonize", "--pidfile", box / "pid",
        "--chardev", "socket,id=a,fd=qmp,server=on,wait=off", "--monitor", "a")
    assert process.wait() == 0
    with qmp.QmpClient(box / "s0", limit=harness.LIMIT) as client:
        client.cmd("quit")
        assert client.at_eof()
    harness.wait_until(lambda: not (box / "pid").exists())


@pytest.mark.parametrize("names, pid, use, text", [
    (["qmp"], "own", "other", "LISTEN_FDNAMES gave 'qmp'"),
    (["qmp"], "1", "qmp", "none to this process"),
    (["qmp"], "rubbish", "qmp", "none to this process"),
])
def test_socket_that_is_not_there_is_named(activate, names, pid, use, text):
    process = activate(names, "--chardev",
                       f"socket,id=a,fd={use},server=on,wait=off", pid=pid)
    assert process.wait() == 1
    process.wait_log(text)
    process.wait_log(use)


# Who may connect to a path.

def access(path):
    found = os.stat(path)
    return found.st_mode & 0o777, found.st_uid, found.st_gid


def test_mode_of_a_socket(daemons, box):
    daemon = daemons(*monitor("m", path=box / "m", mode="0620"),
                     "--nbd-server", f"addr.type=unix,addr.path={box}/n,"
                     "addr.mode=0606")
    daemon.cmd("query-version")
    assert access(box / "m")[0] == 0o620
    assert access(box / "n")[0] == 0o606
    with qmp.QmpClient(box / "m", limit=harness.LIMIT) as client:
        assert client.cmd("query-version")


def test_owner_of_a_socket(daemons, box):
    if os.getuid() != 0:
        pytest.skip("needs root to give a file away")
    daemon = daemons(*monitor("a", path=box / "a", owner="nobody", group=12,
                              mode="0600"),
                     *monitor("b", path=box / "b", group="daemon"))
    daemon.cmd("query-version")
    user = pwd.getpwnam("nobody").pw_uid
    assert access(box / "a") == (0o600, user, 12)
    assert access(box / "b")[1:] == (0, grp.getgrnam("daemon").gr_gid)


@pytest.mark.parametrize("options, text", [
    ({"mode": "0888"}, "mode '0888'"),
    ({"mode": "1777"}, "mode '1777'"),
    ({"owner": "no-such-user"}, "no user 'no-such-user'"),
    ({"group": "no-such-group"}, "no group 'no-such-group'"),
    ({"abstract": True, "mode": "0600"}, "abstract"),
])
def test_bad_access_is_explained(daemon, box, options, text):
    error = daemon.error("chardev-add", id="s", backend={
        "type": "socket", "data": {"addr": {"type": "unix", "data": {
            "path": str(box / "s"), **options}}}})
    assert text in error.desc
    assert not (box / "s").exists()


def test_access_is_for_those_who_listen(daemon):
    error = daemon.error("chardev-add", id="s", backend={
        "type": "socket", "data": {"server": False, "addr": {
            "type": "unix", "data": {"path": str(daemon.monitor_path),
                                     "mode": "0600"}}}})
    assert "those who listen" in error.desc


# The end of a connection.

def test_half_closed_client_gets_all_replies(daemon):
    client = daemon.client()
    client.send_bytes(b'{"execute":"query-qmp-schema"}' * 20)
    client.sock.shutdown(socket.SHUT_WR)
    assert all("return" in client.read_message() for _ in range(20))
    assert client.at_eof()
