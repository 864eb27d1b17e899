# SPDX-License-Identifier: GPL-2.0-or-later
"""Character devices: added and removed over QMP, ring buffers."""
import socket
import subprocess

import pytest

import harness
import qmp


def add(daemon, ident, kind, command="chardev-add", **data):
    return daemon.execute(command, {"id": ident, "backend": {
        "type": kind, "data": data}})


def add_error(daemon, ident, kind, command="chardev-add", **data):
    with pytest.raises(qmp.QmpError) as caught:
        add(daemon, ident, kind, command, **data)
    return caught.value.desc


def unix(path):
    return {"type": "unix", "data": {"path": str(path)}}


def devices(daemon):
    """{label: (filename, frontend-open)}"""
    return {d["label"]: (d["filename"], d["frontend-open"])
            for d in daemon.cmd("query-chardev")}


def test_ringbuf_keeps_the_last_bytes(daemon):
    assert add(daemon, "r", "ringbuf", size=16) == {}
    daemon.cmd("ringbuf-write", device="r", data="hello")
    assert daemon.cmd("ringbuf-read", device="r", size=3) == "hel"
    assert daemon.cmd("ringbuf-read", device="r", size=99) == "lo"
    assert daemon.cmd("ringbuf-read", device="r", size=99) == ""
    daemon.cmd("ringbuf-write", device="r", data="0123456789abcdefXYZ")
    assert daemon.cmd("ringbuf-read", device="r",
                      size=99) == "3456789abcdefXYZ"
    daemon.cmd("ringbuf-write", device="r", data="aGVsbG8=", format="base64")
    assert daemon.cmd("ringbuf-read", device="r", size=99,
                      format="base64") == "aGVsbG8="


@pytest.mark.parametrize("command, arguments, text", [
    ("ringbuf-read", {"device": "r", "size": 0}, "greater than zero"),
    ("ringbuf-read", {"device": "n", "size": 1}, "n is not a ringbuf"),
    ("ringbuf-read", {"device": "x", "size": 1}, "'x' not found"),
    ("ringbuf-write", {"device": "n", "data": ""}, "n is not a ringbuf"),
    ("ringbuf-write", {"device": "x", "data": ""}, "'x' not found"),
    ("ringbuf-write", {"device": "r", "data": "!", "format": "base64"},
     "Base64"),
    ("chardev-remove", {"id": "x"}, "'x' not found"),
    ("chardev-remove", {"id": "qmp"}, "'qmp' is busy"),
    ("chardev-send-break", {"id": "x"}, "'x' not found"),
])
def test_misuse_is_explained(daemon, command, arguments, text):
    add(daemon, "r", "ringbuf")
    add(daemon, "n", "null")
    with pytest.raises(qmp.QmpError) as caught:
        daemon.execute(command, arguments)
    assert text in caught.value.desc


def test_id_of_the_command_line_is_checked():
    for name in "1bad", "a b", "a/b":
        result = subprocess.run(
            [harness.PROGRAM, "--chardev", f"null,id={name}"], timeout=60,
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            check=False)
        assert result.returncode == 1
        assert "'id' expects an identifier" in result.stderr


def test_ringbuf_of_the_command_line(daemons):
    daemon = daemons("--chardev", "ringbuf,id=r,size=4")
    daemon.cmd("ringbuf-write", device="r", data="abcdefgh")
    assert daemon.cmd("ringbuf-read", device="r", size=8) == "efgh"


def test_kinds_are_listed(daemon):
    kinds = {k["name"] for k in daemon.cmd("query-chardev-backends")}
    assert {"memory", "null", "ringbuf", "socket", "stdio"} <= kinds
    if not harness.IS_REFERENCE:
        assert len(kinds) == 5
    names = {e["name"]: e["type"] for e in daemon.cmd("qom-list",
                                                      path="/chardevs")}
    assert names["qmp"] == "child<chardev-socket>"


def test_devices_come_and_go(daemon, box):
    add(daemon, "n", "null")
    add(daemon, "s", "socket", addr=unix(box / "s"))
    assert devices(daemon)["n"] == ("null", False)
    assert devices(daemon)["s"] == (
        f"disconnected:unix:{box}/s,server=on", False)
    assert devices(daemon)["qmp"][1]
    assert "'s' already exists" in add_error(daemon, "s", "null")
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(box / "s"))
    daemon.cmd("chardev-remove", id="s")
    client.close()
    daemon.cmd("chardev-send-break", id="n")
    daemon.cmd("chardev-remove", id="n")
    assert set(devices(daemon)) == {"qmp"}
    if not harness.IS_REFERENCE:
        assert not (box / "s").exists(), "the socket was left behind"


def test_change_keeps_the_old_one_on_failure(daemon, box):
    add(daemon, "r", "ringbuf", size=16)
    daemon.cmd("ringbuf-write", device="r", data="kept")
    assert "power of two" in add_error(daemon, "r", "ringbuf",
                                       "chardev-change", size=3)
    assert daemon.cmd("ringbuf-read", device="r", size=99) == "kept"
    add(daemon, "r", "socket", "chardev-change", addr=unix(box / "s"))
    assert devices(daemon)["r"][0].startswith("disconnected:unix:")
    add(daemon, "r", "null", "chardev-change")
    assert devices(daemon)["r"] == ("null", False)
    assert "'x' does not exist" in add_error(daemon, "x", "null",
                                             "chardev-change")
    assert "hotswap" in add_error(daemon, "qmp", "null", "chardev-change")


@pytest.mark.parametrize("data, text", [
    ({"server": False}, "Failed to connect to"),
    ({"server": False, "wait": True}, "'wait' option is incompatible"),
    ({"reconnect": 1}, "incompatible with socket in server listen mode"),
])
def test_failed_device_is_named(daemon, box, data, text):
    desc = add_error(daemon, "s", "socket", addr=unix(box / "s"), **data)
    assert desc.startswith("Failed to add chardev 's': ") and text in desc
    assert set(devices(daemon)) == {"qmp"}
    assert not (box / "s").exists()


@pytest.mark.ours("the reference blocks")
def test_waiting_for_a_client_holds_up_nobody(daemon, box):
    waiter = daemon.client()
    request_id = waiter.send("chardev-add", {"id": "s", "backend": {
        "type": "socket", "data": {"addr": unix(box / "s"), "wait": True}}})
    harness.wait_until((box / "s").exists)
    assert "'s' already exists" in add_error(daemon, "s", "null")
    assert "'s' not found" in daemon.error("chardev-remove", id="s").desc
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(box / "s"))
    assert waiter.reply(request_id)["return"] == {}
    client.close()
    daemon.cmd("chardev-remove", id="s")


@pytest.mark.ours("the reference blocks")
def test_daemon_ends_while_a_device_waits(daemon, box):
    waiter = daemon.client()
    waiter.send("chardev-add", {"id": "s", "backend": {
        "type": "socket", "data": {"addr": unix(box / "s"), "wait": True}}})
    harness.wait_until((box / "s").exists)
    daemon.cmd("quit")
    assert daemon.wait() == 0
    assert not (box / "s").exists()


@pytest.mark.ours("the reference has no descriptor passing")
def test_socket_that_was_passed(daemon, box):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(box / "s"))
    listener.listen(1)
    daemon.cmd("getfd", fdname="l", _fds=[listener.fileno()])
    passed = {"type": "fd", "data": {"str": "l"}}
    add(daemon, "s", "socket", addr=passed)
    assert devices(daemon)["s"][0] == f"disconnected:unix:{box}/s,server=on"
    assert "'l' has not been found" in add_error(daemon, "s2", "socket",
                                                 addr=passed)
    daemon.cmd("chardev-remove", id="s")
    listener.close()


@pytest.mark.ours("the reference has no limit")
def test_number_of_devices_is_limited(daemon):
    for number in range(1023):
        add(daemon, f"n{number}", "null")
    assert "chardev-remove" in add_error(daemon, "more", "null")
    daemon.cmd("chardev-remove", id="n0")
    add(daemon, "more", "null")
