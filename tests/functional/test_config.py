# SPDX-License-Identifier: GPL-2.0-or-later
"""Set-ups from a file of monitor commands."""
import pytest

import harness

pytestmark = pytest.mark.ours("the reference has no such option")
SIZE = 4 << 20
CONFIG = """
# A disk, and a server for it.
{"execute": "blockdev-add", /* the node */ "arguments": {
    "driver": "file", "node-name": "disk",
    "filename": "%(image)s"}}   // with '#' in its name
{'execute': 'nbd-server-start', 'arguments': {'addr': {
    'type': 'unix', 'data': {'path': '%(socket)s'}}}}
{"execute": "block-export-add", "arguments": {"type": "nbd", "id": "e0",
    "node-name": "disk", "name": "// no comment"}} {"execute": "query-version"}
"""


@pytest.fixture
def config(box):
    def write(text):
        path = box / "setup.conf"
        path.write_text(text)
        return path
    return write


def test_file_sets_up(daemons, box, config, connect_nbd):
    image = harness.make_image(box / "a#b.img", SIZE)
    path = config(CONFIG % {"image": image, "socket": box / "s"})
    daemon = daemons("--config", path)
    export, = daemon.cmd("query-block-exports")
    assert export["id"] == "e0"
    assert connect_nbd(box / "s", "// no comment").get_size() == SIZE


def test_file_comes_in_the_order_of_the_options(daemons, box, config):
    image = harness.make_image(box / "disk.img", SIZE)
    path = config('{"execute": "block-export-add", "arguments": {"type": '
                  '"nbd", "id": "e0", "node-name": "disk"}}')
    daemon = daemons(
        "--blockdev", f"file,node-name=disk,filename={image}", "--nbd-server",
        f"addr.type=unix,addr.path={box}/s", "--config", path, "--export",
        "nbd,id=e1,node-name=disk,name=more")
    assert {e["id"] for e in daemon.cmd("query-block-exports")} == {"e0", "e1"}


def test_file_without_monitor_serves(spawn, box, config):
    path = config('{"execute": "query-version"}')
    process = spawn("alone", [harness.PROGRAM, "--config", path, "--pidfile",
                              box / "pid"])
    harness.wait_until((box / "pid").exists, what="the pid file")
    process.popen.terminate()
    assert process.wait() == 0


@pytest.mark.parametrize("text, where, message", [
    ('\n\n{"execute":\n "blockdev-del", "arguments":\n'
     ' {"node-name": "gone"}}', 3, "Failed to find node with node-name='gone'"),
    ('{"execute": "query-version"}\n{"execute": "frobnicate"}', 2,
     "The command frobnicate has not been found"),
    ('{"execute": "query-version"}\n\n{"execute": ', 3, "has no end"),
    ('{"execute": "query-version"}\n "text"', 2, "object"),
    ('{"execute": "query-version",}', 1, "JSON parse error"),
    ('\n{"execute": "getfd", "arguments": {"fdname": "f"}}', 2,
     "No file descriptor"),
    ('{"execute": "query-version"}\n/* {"execute": "query-version"}', 2,
     "stray '/'"),
    ('# nothing\n{"execute": "qmp_capabilities"}', 2, "already complete"),
])
def test_first_error_ends_it(box, config, text, where, message):
    path = config(text)
    result = harness.run(harness.PROGRAM, "--config", path, check=False)
    assert result.returncode == 1
    line, = [line for line in result.stderr.splitlines() if "--config" in line]
    assert f"{path}:{where}: " in line and message in line


def test_what_is_no_file_of_text(box):
    (box / "nul").write_bytes(b"{}\0")
    for path, message in ((box / "gone", "No such file"),
                          (box, "not a regular file"),
                          ("/dev/zero", "not a regular file"),
                          (box / "nul", "NUL byte")):
        result = harness.run(harness.PROGRAM, "--config", path, check=False)
        assert result.returncode == 1 and message in result.stderr
