# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own clients of the monitor, as they are: the Python library qemu.qmp
and the shell qmp-shell of the same package.

They are looked for where Debian's Python looks, and in the directory that
BLOCKFERRY_QEMU_PYTHON names, which has a directory "qemu": that of a source
tree of QEMU up to 10.0 is python/, that of the package qemu.qmp is where pip
has put it. BLOCKFERRY_QMP_SHELL names another qmp-shell.
"""
import json
import os
import re
import subprocess

import pytest

import harness

pytestmark = pytest.mark.ours("tries a client")

PYTHON = "/usr/bin/python3"
PATH = os.environ.get("BLOCKFERRY_QEMU_PYTHON", "")
SHELL = os.environ.get("BLOCKFERRY_QMP_SHELL", "")


def python(*arguments, **options):
    """Runs Debian's Python, which sees the library."""
    return subprocess.run(
        [PYTHON, *map(str, arguments)], capture_output=True, text=True,
        timeout=60, env={**harness.ENVIRONMENT, "PYTHONPATH": PATH,
                         "HOME": options.pop("home", "/nonexistent")},
        **options)


@pytest.fixture(scope="session")
def library():
    if python("-c", "import qemu.qmp").returncode != 0:
        pytest.skip("qemu.qmp is not installed; BLOCKFERRY_QEMU_PYTHON can "
                    "say where it is")


# Connects, runs commands in band and out of band, has errors and events, and
# sees the daemon end. Prints what the test compares.
LIBRARY = """
import asyncio, json, sys
from qemu.qmp import QMPClient, ExecuteError, EventListener

async def main(path):
    client = QMPClient("test")
    await client.connect(path)
    found = {"capabilities": list(client.greeting.QMP.capabilities),
             "version": (await client.execute("query-version"))["qemu"]}
    await client.execute("blockdev-add", {
        "driver": "null-co", "node-name": "n0", "size": 1048576})
    # Several at once: replies find their commands by their ids.
    names = await asyncio.gather(*(client.execute("query-named-block-nodes")
                                   for _ in range(20)))
    found["nodes"] = [[n["node-name"] for n in reply] for reply in names]
    try:
        await client.execute("blockdev-del", {"node-name": "nope"})
    except ExecuteError as error:
        found["error"] = error.received["error"]
    try:
        await client.execute("query-version", oob=True)
    except ExecuteError as error:
        found["oob"] = error.received["error"]["desc"]
    await client.execute("nbd-server-start", {"addr": {
        "type": "unix", "data": {"path": path + ".nbd"}}})
    await client.execute("block-export-add", {
        "type": "nbd", "id": "e0", "node-name": "n0"})
    listener = EventListener("BLOCK_EXPORT_DELETED")
    with client.listen(listener):
        await client.execute("block-export-del", {"id": "e0"})
        event = await listener.get()
    found["event"] = [event["event"], event["data"]]
    await client.execute("quit")
    while client.runstate.name == "RUNNING":
        await client.runstate_changed()
    try:
        await client.disconnect()
    except EOFError:
        pass  # how it tells that the other side has ended
    print(json.dumps(found))

asyncio.run(main(sys.argv[1]))
"""


def test_library(daemon, library):
    daemon.cmd("query-version")
    result = python("-c", LIBRARY, daemon.monitor_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["capabilities"] == ["oob"]
    assert found["version"] == {"major": 10, "minor": 0, "micro": 0}
    assert found["nodes"] == [["n0"]] * 20
    assert found["error"] == {
        "class": "GenericError",
        "desc": "Failed to find node with node-name='nope'"}
    assert found["oob"] == "The command query-version does not support OOB"
    assert found["event"] == ["BLOCK_EXPORT_DELETED", {"id": "e0"}]
    assert daemon.wait() == 0


LEGACY = """
import json, sys
from qemu.qmp.legacy import QEMUMonitorProtocol

with QEMUMonitorProtocol(sys.argv[1]) as client:
    def run(command, **arguments):
        return client.cmd_obj({"execute": command, "arguments": {
            name.replace("_", "-"): value
            for name, value in arguments.items()}})

    greeting = client.connect()
    client.settimeout(30)
    raw = run("query-block-exports")
    named = run("qom-list", path="/objects")["return"]
    failed = client.cmd_obj({"execute": "nope", "id": "mine"})
    run("blockdev-add", driver="null-co", node_name="n0")
    run("nbd-server-start", addr={
        "type": "unix", "data": {"path": sys.argv[1] + ".nbd"}})
    run("block-export-add", type="nbd", id="e0", node_name="n0")
    run("nbd-server-stop")
    event = client.pull_event(wait=30.0)
    print(json.dumps([greeting["QMP"]["version"]["qemu"]["major"], raw,
                      sorted(o["name"] for o in named), failed,
                      event["event"]]))
"""


def test_synchronous_library(daemon, library):
    daemon.cmd("query-version")
    result = python("-c", LEGACY, daemon.monitor_path)
    assert result.returncode == 0, result.stderr
    major, raw, objects, failed, event = json.loads(result.stdout)
    assert (major, raw) == (10, {"return": []})
    assert {"io0", "io1"} <= set(objects)
    assert failed == {"id": "mine", "error": {
        "class": "CommandNotFound",
        "desc": "The command nope has not been found"}}
    assert event == "BLOCK_EXPORT_DELETED"


TYPED = """\
query-version
blockdev-add driver=raw node-name=r0 file={'driver':'null-co','size':1048576,\
'read-zeroes':true}
block-dirty-bitmap-add node=r0 name=b0 granularity=65536
transaction(
block-dirty-bitmap-disable node=r0 name=b0
block-dirty-bitmap-clear node=r0 name=b0
)
object-add qom-type=throttle-group id=tg limits.iops-total=100
nbd-server-start addr.type=unix addr.data.path=SOCKET
block-export-add type=nbd id=e0 node-name=r0 writable=true
block-export-del id=e0

block-export-del id=e0
"""


@pytest.fixture
def shell(library, daemon, box):
    """A function that gives lines to qmp-shell; returns what it says."""
    start = [SHELL] if SHELL else ["-m", "qemu.qmp.qmp_shell"]

    def run(text, *options):
        daemon.cmd("query-version")
        result = python(*start, *options, daemon.monitor_path, input=text,
                        home=box)
        assert result.returncode == 0, result.stderr
        return result.stdout
    return run


def replies(output):
    """The replies, each on a line behind one or several prompts."""
    found = []
    for line in output.splitlines():
        line = re.sub(r"^((\(QEMU\)|TRANS>) )*", "", line)
        if line.startswith(('{"return"', '{"error"')):
            found.append(json.loads(line))
    return found


def test_shell(shell, daemon):
    output = shell(TYPED.replace("SOCKET", str(daemon.nbd_path)))
    assert "Connected to QEMU 10.0.0" in output
    got = replies(output)
    assert got[0]["return"]["qemu"]["major"] == 10
    assert got[1:8] == [{"return": {}}] * 7
    # The export may be gone before the command that removes it again.
    assert got[8]["error"]["class"] == "GenericError"
    assert len(got) == 9
    nodes = {n["node-name"]: n for n in daemon.cmd("query-named-block-nodes")}
    bitmap, = nodes["r0"]["dirty-bitmaps"]
    assert (bitmap["name"], bitmap["recording"]) == ("b0", False)
    assert daemon.cmd("qom-get", path="/objects/tg", property="limits")[
        "iops-total"] == 100


def test_shell_prints_in_lines(shell):
    output = shell("query-version\n", "-p", "-v")
    assert '"execute": "query-version"' in output
    assert '"return": {\n' in output
