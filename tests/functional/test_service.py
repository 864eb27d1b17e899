# SPDX-License-Identifier: GPL-2.0-or-later
"""What a service manager and an installation need."""
import configparser
import os
import re
import signal
import socket
import subprocess

import pytest

import harness

pytestmark = pytest.mark.ours("the reference has none of it")
COMPLETE = """
source {script}
compopt() {{ :; }}
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_blockferryd "$1"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


class Manager:
    """The socket to which a service reports."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(harness.LIMIT)
        self.seen = []

    def wait_for(self, pattern):
        while True:
            text = self.socket.recv(4096).decode()
            self.seen.append(text)
            if re.fullmatch(pattern, text):
                return text


@pytest.fixture
def manager(box):
    manager = Manager(box / "notify")
    yield manager
    manager.socket.close()


def test_reports_of_a_service(daemons, box, manager):
    daemon = daemons("--sighup=reload", env={
        "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"})
    manager.wait_for("READY=1")
    for _ in range(3):
        manager.wait_for("WATCHDOG=1")
    os.kill(daemon.pid, signal.SIGHUP)
    manager.wait_for(r"RELOADING=1\nMONOTONIC_USEC=\d+")
    manager.wait_for("READY=1")
    os.kill(daemon.pid, signal.SIGTERM)
    manager.wait_for("STOPPING=1")
    assert daemon.wait() == 0


def test_watchdog_of_another_process_is_not_fed(daemons, manager):
    daemon = daemons(env={"NOTIFY_SOCKET": str(manager.path),
                          "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    manager.wait_for("READY=1")
    daemon.cmd("quit")
    manager.wait_for("STOPPING=1")
    assert "WATCHDOG=1" not in manager.seen


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An installation of the build, below a directory of its own."""
    root = tmp_path_factory.mktemp("root")
    harness.run("meson", "install", "-C", harness.BUILD, "--no-rebuild",
                "--quiet", "--destdir", root, limit=120)
    return root


def find(root, name):
    found = list(root.rglob(name))
    assert len(found) == 1, (name, found)
    return found[0]


def test_what_is_installed(installed):
    daemon = find(installed, "sbin/blockferryd")
    alone = find(installed, "sbin/blockferry-nbd")
    assert alone.resolve() == daemon.resolve()
    assert "blockferry-nbd version" in harness.run(alone, "--version")
    for name in ("COPYING", "README.md"):
        assert find(installed, f"doc/blockferry/{name}").stat().st_size > 0
    for page in ("blockferryd.8", "blockferry-nbd.8", "blockferry-qmp.7",
                 "qmp-shell.1"):
        assert find(installed, page + "*").parent.name == "man" + page[-1]


@pytest.mark.parametrize("name", ["blockferryd", "blockferry-nbd"])
def test_manual_names_all_options(installed, name):
    page = find(installed, f"{name}.8").read_text().replace(r"\-", "-")
    text = harness.run(find(installed, f"sbin/{name}"), "--help")
    options = re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", text)
    assert len(options) > 10
    assert [o for o in options if not re.search(rf"{o}(?![\w-])", page)] == []


def test_manual_names_all_commands_and_events(installed, daemon):
    text = find(installed, "blockferry-qmp.7").read_text()
    titles = set(re.findall(r"^\.SS (.*)", text.replace(r"\-", "-"), re.M))
    commands = {c["name"] for c in daemon.cmd("query-commands")}
    events = {e["name"] for e in daemon.cmd("query-qmp-schema")
              if e["meta-type"] == "event"}
    assert commands | events <= titles


def test_unit_starts_what_is_installed(installed):
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(find(installed, "blockferryd.service"))
    program, *arguments = unit["Service"]["ExecStart"].split()
    assert (installed / program.lstrip("/")).exists()
    assert arguments[0] == "--sighup=reload"
    assert unit["Service"]["Type"] == "notify"


@pytest.mark.parametrize("words, wanted", [
    (("--ob",), "--object"),
    (("--object", "tls-creds-p"), "tls-creds-psk,"),
    (("--object", "secret,id=a,forma"), "secret,id=a,format="),
    (("--chardev", "nul"), "null,"),
])
def test_completion(installed, words, wanted):
    program = find(installed, "sbin/blockferryd")
    script = COMPLETE.format(script=find(installed, "completions/blockferryd"))
    result = subprocess.run(
        ["bash", "-c", script, "bash", program, *words], capture_output=True,
        text=True, timeout=harness.LIMIT, env=harness.ENVIRONMENT)
    assert wanted in result.stdout.splitlines(), result


def test_completion_has_each_option_once(installed):
    """None of those that another one's description names."""
    script = COMPLETE.format(script=find(installed, "completions/blockferryd"))
    result = subprocess.run(
        ["bash", "-c", script, "bash", find(installed, "sbin/blockferry-nbd"),
         "-"], capture_output=True, text=True, timeout=harness.LIMIT,
        env=harness.ENVIRONMENT)
    replies = result.stdout.splitlines()
    assert len(replies) == len(set(replies)) and "--blockdev" not in replies
    assert {"--image-opts", "--object=", "-x"} <= set(replies)
