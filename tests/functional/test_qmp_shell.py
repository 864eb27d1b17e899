# SPDX-License-Identifier: GPL-2.0-or-later
"""qmp-shell against a daemon: single commands, scripts, errors, completion.

What a person sees in a terminal is tested in test_qmp_shell_terminal.py, and
the shell with other daemons in interop/test_shell_peers.py.
"""
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

import harness
import rawnbd as nbd
import shell
from qmpshell.client import Client
from qmpshell.schema import load_docs
from qmpshell.session import Session
from shell import complaint, output

pytestmark = pytest.mark.ours("the shell shows our documentation")
DOCS = str(shell.SCRIPTS / "qmpshell")


@pytest.fixture
def session(daemon):
    """A session, as the shell's modules have it, with its output in .lines"""
    client = Client(str(daemon.monitor_path))
    client.connect()
    lines = []
    made = Session(client, load_docs(DOCS), out=lines.append)
    made.lines = lines
    yield made
    client.close()


def complete(session, before):
    start, found = session.completer.complete(before)
    return [c.text for c in found]


# Single commands.

def test_result_is_json(daemon):
    version = json.loads(output(daemon, "query-version"))
    assert version["package"].startswith("blockferry")
    assert output(daemon, "-p", "query-version") == json.dumps(
        version, indent=2) + "\n"


def test_arguments_follow_the_schema(daemon, box):
    """A number is a string where the daemon wants one."""
    assert output(daemon, "blockdev-add", "driver=null-co", "node-name=n0",
                  "size=1M", "read-zeroes=on") == "{}\n"
    node = daemon.cmd("query-named-block-nodes")[0]
    assert node["image"]["virtual-size"] == 1 << 20
    output(daemon, "nbd-server-start", "addr.type=inet",
           "addr.data.host=127.0.0.1", "addr.data.port=0")
    output(daemon, "block-export-add", "type=nbd", "id=e0", "node-name=n0",
           "name=7")
    assert "NBD export '7'" in daemon.log()


@pytest.mark.parametrize("words", [
    ["blockdev-add driver=null-co node-name=n0 size=1M"],
    [" blockdev-add  driver=null-co node-name='n0' size=1M "],
    ["blockdev-add driver=null-co", "node-name=n0", "size=1M"]])
def test_command_in_one_word(daemon, words):
    """As for a program that takes a command as a whole."""
    assert output(daemon, *words) == "{}\n"
    node = daemon.cmd("query-named-block-nodes")[0]
    assert node["image"]["virtual-size"] == 1 << 20


def test_error_of_a_command_in_one_word(daemon):
    assert "Block job 'x' not found\n  device: there" in complaint(
        daemon, "block-job-cancel device=x")
    assert "did you mean block-job-cancel" in complaint(
        daemon, "block-job-cancle device=x")


def test_built_in_command_in_one_word(daemon):
    assert "block-job-cancel" in output(daemon, "help block-job-cancel")


def test_whole_message(daemon):
    assert "package" in output(daemon, '{"execute": "query-version"}')


def test_tables(daemon):
    daemon.cmd("blockdev-add", driver="null-co", node_name="n0",
               size=64 << 20)
    daemon.start_nbd()
    daemon.cmd("block-dirty-bitmap-add", node="n0", name="b0")
    daemon.add_export("n0", "e0")
    head, row = output(daemon, "-t", "query-named-block-nodes").splitlines()
    assert head.split()[:6] == ["NODE", "DRIVER", "SIZE", "RO", "ACTIVE",
                                "BITMAPS"]
    assert row.split()[:7] == ["n0", "null-co", "64", "MiB", "no", "yes",
                               "b0"]
    head, row = output(daemon, "-t", "query-block-exports").splitlines()
    assert head.split()[:4] == ["EXPORT", "TYPE", "NODE", "CLIENTS"]
    assert row.split()[:4] == ["e0", "nbd", "n0", "0"]
    assert output(daemon, "-t", "query-jobs") == "(none)\n"
    assert output(daemon, "-t", "block-dirty-bitmap-add", "node=n0",
                  "name=b1") == "ok\n"


def test_clients_as_a_table(daemon):
    daemon.cmd("blockdev-add", driver="null-co", node_name="n0",
               size=64 << 20)
    daemon.start_nbd()
    daemon.add_export("n0", "e0")
    with nbd.RawNbd(daemon.nbd_path).go("n0") as client:
        client.read(0, 65536)
        head, row = output(daemon, "-t", "query-nbd-clients").splitlines()
        assert head.split() == ["CONNECTION", "PEER", "EXPORT", "STATE",
                                "READ", "IN", "FLIGHT", "ERRORS", "99%", "IN",
                                "IDLE"]
        assert row.split()[:8] == ["1", "unix", "pid", str(os.getpid()), "uid",
                                   str(os.getuid()), "e0", "active"]
        assert row.split()[8:12] == ["64", "KiB", "0", "0"]
        assert output(daemon, "-t", "nbd-client-drop", "connection=1")
        client.assert_closed()


def test_jobs_as_a_table(daemon):
    for node in ("n0", "n1"):
        daemon.cmd("blockdev-add", driver="null-co", node_name=node,
                   size=1 << 20)
    daemon.cmd("blockdev-mirror", job_id="m0", device="n0", target="n1",
               sync="full")
    daemon.qmp.take_event("BLOCK_JOB_READY")
    rows = output(daemon, "-t", "query-block-jobs").splitlines()
    assert [row.split() for row in rows] == [
        ["JOB", "TYPE", "STATUS", "DONE", "OF", "SPEED", "READY", "I/O"],
        ["m0", "mirror", "ready", "100.0%", "1", "MiB", "unlimited", "yes",
         "ok"]]
    rows = output(daemon, "-t", "query-jobs").splitlines()
    assert rows[1].split() == ["m0", "mirror", "ready", "100.0%"]


def test_default_monitor(box, spawn):
    environment = shell.environment(box)
    environment.pop("RUNTIME_DIRECTORY")
    result = harness.run(shell.PROGRAM, "query-version", check=False,
                         env=environment)
    assert result.returncode == 3
    assert f"{box}/blockferry/qmp.sock" in result.stderr
    process = spawn("daemon", [harness.PROGRAM], env=environment)
    process.wait_log("monitor")
    assert "blockferry" in harness.run(shell.PROGRAM, "query-version",
                                       env=environment)


def test_tcp(box, spawn):
    process = spawn("daemon", [
        harness.PROGRAM, "--chardev", "socket,host=127.0.0.1,port=0,"
        "server=on,wait=off,id=c", "--monitor", "c"])
    where = process.wait_log(r"monitor 'c' on (127\.0\.0\.1:\d+),")[1]
    assert "blockferry" in harness.run(shell.PROGRAM, where, "query-version")


@pytest.fixture
def tls_port(daemon, tls_dir):
    """A port behind which the daemon's monitor speaks TLS."""
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=str(tls_dir / "ca-cert.pem"))
    context.load_cert_chain(str(tls_dir / "server-cert.pem"),
                            str(tls_dir / "server-key.pem"))
    context.verify_mode = ssl.CERT_REQUIRED

    def pass_on(source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def serve():
        try:
            while True:
                inner = socket.socket(socket.AF_UNIX)
                outer = listener.accept()[0]
                try:
                    outer = context.wrap_socket(outer, server_side=True)
                except OSError:
                    continue
                inner.connect(str(daemon.monitor_path))
                for pair in ((inner, outer), (outer, inner)):
                    threading.Thread(target=pass_on, args=pair,
                                     daemon=True).start()
        except OSError:
            return  # the listener was shut down

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def test_tls(tls_port, tls_dir):
    words = [shell.PROGRAM, "--tls", tls_dir, f"127.0.0.1:{tls_port}"]
    assert "blockferry" in harness.run(*words, "query-version")
    assert len(json.loads(harness.run(*words, "query-qmp-schema"))) > 100
    words[1:1] = ["--tls-hostname", "other"]
    result = harness.run(*words, "query-version", check=False)
    assert result.returncode == 3
    assert "Hostname mismatch" in result.stderr


def test_tls_without_certificate(tls_port, tls_dir, box):
    """The daemon's refusal comes after the handshake in TLS 1.3."""
    shutil.copy(tls_dir / "ca-cert.pem", box)
    result = harness.run(shell.PROGRAM, "--tls", box, f"127.0.0.1:{tls_port}",
                         "query-version", check=False)
    assert result.returncode == 3
    assert "certificate required" in result.stderr.lower().replace("_", " ")
    (box / "ca-cert.pem").write_text("nothing")
    result = harness.run(shell.PROGRAM, "--tls", box, f"127.0.0.1:{tls_port}",
                         "query-version", check=False)
    assert result.returncode == 3


def test_no_daemon(box):
    for address, text in ((box / "none", "No such file"),
                          ("127.0.0.1:1", "refused"),
                          ("x" * 200 + "/s", "path too long")):
        result = harness.run(shell.PROGRAM, address, "query-version",
                             check=False)
        assert result.returncode == 3
        assert text in result.stderr


def test_usage():
    result = harness.run(shell.PROGRAM, "--help")
    assert "query-jobs" in result
    result = harness.run(shell.PROGRAM, "--bogus", check=False)
    assert result.returncode == 2


def test_sent_messages_hide_secrets(daemon):
    result = shell.shell(daemon, "-v", "object-add", "qom-type=secret",
                         "id=s0", "data=hush")
    assert result.returncode == 0
    assert '"***"' in result.stderr and "hush" not in result.stderr


def test_events_on_demand(daemon):
    daemon.cmd("blockdev-add", driver="null-co", node_name="n0")
    daemon.start_nbd()
    daemon.add_export("n0", "e0")
    text = output(daemon, "-e", "-x", "-", stdin="block-export-del id=e0\n"
                  "wait -t 30 BLOCK_EXPORT_DELETED id=e0\n")
    assert text.count("BLOCK_EXPORT_DELETED") == 2  # as it came; waited for


# Errors.

@pytest.mark.parametrize("words, wanted", [
    ("nbd-server-sart", "did you mean nbd-server-start"),
    ("nbd-server-start", "missing: addr.type=inet|unix|vsock|fd"),
    ("nbd-server-start addr.type=unix", "missing: addr.data.path=string"),
    ("nbd-server-start addr.type=unx addr.data.path=/x",
     "addr.type is one of: inet, unix, vsock, fd (did you mean unix?)"),
    ("nbd-server-start addr.type=unix addr.data.path=/x max-conections=1",
     "did you mean max-connections or max-connections-per-address?"),
    ("blockdev-add driver=null-co node-name=n size=big",
     'size is an integer, not "big"'),
    ("blockdev-add driver=raw node-name=r file=n1",
     "file: there is no node 'n1', but n0"),
    ("job-pause id=j0", "id: there is no job at all"),
    ("object-del id=zz", "id: there is no object 'zz', but io0, io1"),
    ("qom-get path=/objects/zz property=x", "Device '/objects/zz' not found\n"
     "  path: there is no object path '/objects/zz', but /objects, "
     "/objects/io0, /objects/io1\n"),
    ("job-pause j0", "job-pause takes id"),
    ("watsh", "did you mean watch"),
    ("watsh query-jobs", "there is no command 'watsh'\n  did you mean watch"),
    ("blockdev-add driver=null-co latency", "latency-ns"),
    ("help nbd-server-strt", "did you mean nbd-server-start"),
    ("wait BLOCK_JOB_REDY", "did you mean BLOCK_JOB_READY"),
    ("wait", "wait [-t SECONDS] EVENT"),
    ("watch -n x query-jobs", "-n needs a number"),
    ("watch -z 1 query-jobs", "watch has no option -z"),
    ("output loud", "table, pretty, compact"),
    ("transaction( block-dirty-bitmap-ad node=n0 )",
     "did you mean block-dirty-bitmap-add"),
])
def test_errors_say_what_to_try(daemon, words, wanted):
    daemon.cmd("blockdev-add", driver="null-co", node_name="n0")
    message = complaint(daemon, *words.split())
    assert message.startswith("error: ")
    assert wanted in message


def test_wait_has_a_limit(daemon):
    assert "no such BLOCK_JOB_READY" in complaint(
        daemon, "wait", "-t", "0.01", "BLOCK_JOB_READY")


def test_daemon_that_ends(daemon):
    assert output(daemon, "quit") == "{}\n"
    daemon.wait()
    assert "cannot connect" in complaint(daemon, "query-jobs", status=3)


# Scripts.

SCRIPT = """
# a comment, and a line that goes on
blockdev-add driver=null-co \\
    node-name=n0 size=1M
blockdev-add driver=null-co node-name=n1 size=1M

transaction( properties.completion-mode=individual
block-dirty-bitmap-add node=n0 name=b0
blockdev-backup job-id=k0 device=n0 target=n1 sync=full
)
wait -t 30 BLOCK_JOB_COMPLETED device=k0
block-dirty-bitmap-add node=n0 name=b1
block-dirty-bitmap-merge node=n0 target=b0 \
    bitmaps=[{'node': 'n0', 'name': 'b1'}, "b1"]
watch -n 0.01 -c 2 query-jobs
{"execute": "block-dirty-bitmap-merge",
 "arguments": {"node": "n0", "target": "b0",

               "bitmaps": ["b1"]}}
block-dirty-bitmap-merge node=n0 target=b0 bitmaps=[
    "b1",
    {"node": "n0", "name": "b1"}]
"""


def test_script(daemon, box):
    path = box / "set-up.qmp"
    path.write_text(SCRIPT)
    lines = output(daemon, "-x", path).splitlines()
    assert "BLOCK_JOB_COMPLETED" in lines.pop(3)
    assert lines == ["{}"] * 5 + ["[]"] * 2 + ["{}"] * 2


def test_script_stops_at_the_first_error(daemon, box):
    path = box / "bad.qmp"
    path.write_text("query-jobs\n\nnosuch\nquit\n")
    result = shell.shell(daemon, "-x", path)
    assert (result.returncode, result.stdout) == (1, "[]\n")
    assert result.stderr.startswith(f"{path}:3: error: CommandNotFound")
    assert daemon.running()


@pytest.mark.parametrize("text, wanted", [
    ("transaction(\n", "the transaction is not closed"),
    ("transaction(\ntransaction(\n", "transaction( is open already"),
    ("transaction(\n) x\n", "nothing may follow"),
    ("query-jobs 'x\n", "column 12"),
    ("query-jobs\n{'execute':\n\n'query-jobs'\n", "2: error: the message "
     "has no end"),
    ("quit\nquery-jobs\nquery-jobs\n", "was lost"),
])
def test_bad_scripts(daemon, text, wanted):
    status = 3 if "lost" in wanted else 1
    assert wanted in complaint(daemon, "-x", "-", stdin=text, status=status)


def test_script_that_is_not_there(daemon):
    assert "cannot read /nonexistent" in complaint(daemon, "-x",
                                                   "/nonexistent")


def test_standard_input_is_a_script(daemon):
    assert output(daemon, stdin="query-jobs\nexit\nnosuch\n") == "[]\n"


def test_reader_that_leaves(daemon):
    """A closed pipe ends the shell without a traceback."""
    result = harness.run(
        "sh", "-c", '"$0" "$1" query-qmp-schema | head -c 10',
        shell.PROGRAM, daemon.monitor_path, check=False)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", ["query-jobs", "--script /dev/stdin"])
@pytest.mark.parametrize("where, text", [
    (">/dev/full", "error: cannot write the output: "),
    (">&-", "qmp-shell: standard output is closed"),
])
def test_output_that_goes_nowhere(daemon, where, text, words):
    result = harness.run(
        "sh", "-c", f'echo query-jobs | "$0" {words} "$1" {where}'
        if words.startswith("-") else f'"$0" "$1" {words} {where}',
        shell.PROGRAM, daemon.monitor_path, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(text) and "Traceback" not in result.stderr


def test_closed_standard_input(daemon):
    text = harness.run("sh", "-c", '"$0" "$1" query-jobs <&-',
                       shell.PROGRAM, daemon.monitor_path)
    assert text == "[]\n"


# Help.

def test_help_lists_everything(daemon):
    text = output(daemon, "help")
    for command in daemon.cmd("query-commands"):
        assert f"  {command['name']} " in text
    assert "watch [-n SECONDS]" in text


def test_help_of_a_command(daemon):
    text = output(daemon, "help", "block-export-del")
    for words in ("Starts to remove an export", "* id  string",
                  "mode  safe|hard, default \"safe\"",
                  "clients are connected", "Since 0.1."):
        assert words in text


def test_help_follows_the_branch(daemon):
    text = output(daemon, "help", "blockdev-add")
    assert "latency-ns" not in text and "depend on driver" in text
    text = output(daemon, "help", "blockdev-add", "driver=null-co")
    assert "latency-ns  integer, default 0" in text
    text = output(daemon, "help", "blockdev-add", "driver=nbd",
                  "server.type=unix")
    assert "* server.path  string" in text


def test_help_of_an_event_and_search(daemon):
    assert "Bytes done" in output(daemon, "help", "BLOCK_JOB_READY")
    text = output(daemon, "help", "bitmap")
    assert "block-dirty-bitmap-add" in text
    assert "wait [-t" in output(daemon, "help", "wait")


def test_every_command_has_help(session):
    for name in session.schema.names["command"]:
        session.run_line(f"help {name}")
        assert len(session.lines.pop().splitlines()) > 1, name
    for name in session.schema.names["event"]:
        session.run_line(f"help {name}")
        assert session.schema.event(name).doc


# Completion: all from introspection and queries.

def test_commands_complete(session):
    names = session.schema.names["command"]
    assert complete(session, "query-") == [
        n + " " for n in names if n.startswith("query-")]


def test_every_argument_completes(session):
    """Walks the types of all commands as a person could."""
    for name in session.schema.names["command"]:
        found = set(complete(session, f"{name} "))
        for member in session.schema.command(name).args.members():
            texts = {f"{member.name}=", f"{member.name}."}
            assert texts & found, f"{name} {member.name}"


@pytest.mark.parametrize("before, wanted", [
    ("nbd-server-start addr.", ["addr.type="]),
    ("nbd-server-start addr.type=unix addr.d", ["addr.data."]),
    ("nbd-server-start addr.type=unix addr.data.",
     [f"addr.data.{name}=" for name in (
         "abstract", "group", "mode", "owner", "path", "tight")]),
    ("nbd-server-start tls-creds=", ["tls-creds=tls0 "]),
    ("block-export-add type=nbd id=e1 node-name=",
     ["node-name=n0 ", "node-name=n1 "]),
    ("block-export-add type=nbd id=", []),
    ("block-export-del id=", ["id=e0 "]),
    ("block-export-del id=e0 mode=", ["mode=hard ", "mode=safe "]),
    ("object-del id=", ["id=io0 ", "id=io1 ", "id=s0 ", "id=tls0 "]),
    ("job-cancel id=", ["id=m0 "]),
    ("block-job-cancel device=", ["device=m0 "]),
    ("blockdev-add driver=raw node-name=r0 file=",
     ["file=n0 ", "file=n1 "]),
    ("blockdev-add driver=raw node-name=", []),
    ("blockdev-add driver=raw file.driver=nul",
     ["file.driver=null-aio ", "file.driver=null-co "]),
    ("blockdev-add driver=raw file.driver=null-co file.si", ["file.size="]),
    ("block-dirty-bitmap-remove node=n0 name=", ["name=b0 "]),
    ("block-dirty-bitmap-remove node=n1 name=", []),
    ("block-dirty-bitmap-merge node=n0 target=", ["target=b0 "]),
    ("transaction( block-dirty-bitmap-clear node=n0 name=", ["name=b0 "]),
    ("transaction actions.0.type=block-dirty-bitmap-clear "
     "actions.0.data.node=n0 actions.0.data.name=",
     ["actions.0.data.name=b0 "]),
    ("object-add qom-type=secret data=", []),
    ("qom-get path=/objects/s", ["path=/objects/s0 "]),
    ("query-named-block-nodes flat=", ["flat=false ", "flat=true "]),
])
def test_live_completion(daemon, session, tls_dir, before, wanted):
    for node in ("n0", "n1"):
        daemon.cmd("blockdev-add", driver="null-co", node_name=node,
                   size=1 << 20)
    daemon.cmd("object-add", qom_type="secret", id="s0", data="x")
    daemon.add_creds(tls_dir)
    daemon.start_nbd()
    daemon.add_export("n0", "e0")
    daemon.cmd("block-dirty-bitmap-add", node="n0", name="b0")
    daemon.cmd("blockdev-mirror", job_id="m0", device="n0", target="n1",
               sync="full")
    daemon.qmp.take_event("BLOCK_JOB_READY")
    assert complete(session, before) == wanted


def test_lines_with_secrets_are_found_by_type(session):
    assert session.schema
    assert session.has_secret("object-add qom-type=secret id=s data=x")
    assert not session.has_secret("object-add qom-type=secret id=s file=x")
    message = ('{"execute": "object-add", "arguments": {"qom-type": "secret", '
               '"id": "s", "%s": "x"}}')
    assert session._sends_secret(message % "data")
    assert not session._sends_secret(message % "file")


# The installed shell needs nothing of the source tree.

def test_installed_shell(daemon, box):
    (box / "bin").mkdir()
    share = box / "share" / "blockferry"
    shutil.copy(shell.PROGRAM, box / "bin")
    shutil.copytree(shell.SCRIPTS / "qmpshell", share / "qmpshell")
    program = box / "bin" / "qmp-shell"
    assert "Starts the NBD server" not in output(
        daemon, "help", "nbd-server-start", program=program)
    subprocess.run(
        ["/usr/bin/python3", "-B", str(shell.SCRIPTS / "schema-gen.py"),
         "docs", str(share), *map(str, sorted(
             (shell.SCRIPTS.parent / "schema").glob("*.json")))], check=True)
    assert "Starts the NBD server" in output(
        daemon, "help", "nbd-server-start", program=program)


def test_installation_is_complete():
    """meson installs each module."""
    text = (shell.SCRIPTS / "meson.build").read_text()
    for name in os.listdir(shell.SCRIPTS / "qmpshell"):
        if name.endswith(".py"):
            assert f"'qmpshell/{name}'" in text
