# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors over the monitor: getfd, add-fd, /dev/fdset, socket hand-over."""
import os
import socket

import pytest

import harness
import qmp
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference has no descriptor passing")


def send(daemon, command, descriptors, **arguments):
    return daemon.cmd(command, _fds=descriptors, **arguments)


@pytest.fixture
def opened(image):
    """Descriptors of the image: (read-write, read-only)."""
    pair = os.open(image, os.O_RDWR), os.open(image, os.O_RDONLY)
    yield pair
    for descriptor in pair:
        os.close(descriptor)


def descriptor_count(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def wait_descriptors(daemon, count):
    """Waits until it has so many: they are closed off the main loop."""
    harness.wait_until(lambda: descriptor_count(daemon) == count,
                       what=f"{count} descriptors")


# Named descriptors.

def test_getfd_and_closefd(daemon, opened):
    daemon.cmd("query-version")
    before = descriptor_count(daemon)
    send(daemon, "getfd", opened[:1], fdname="f")
    send(daemon, "getfd", opened[:1], fdname="f")  # replaces
    wait_descriptors(daemon, before + 1)
    daemon.cmd("closefd", fdname="f")
    wait_descriptors(daemon, before)
    assert "'f' not found" in daemon.error("closefd", fdname="f").desc


def test_getfd_without_descriptor(daemon):
    error = daemon.error("getfd", fdname="f")
    assert "SCM_RIGHTS" in error.desc


def test_getfd_with_a_bad_name_closes_the_descriptor(daemon, opened):
    daemon.cmd("query-version")
    before = descriptor_count(daemon)
    with pytest.raises(qmp.QmpError) as caught:
        send(daemon, "getfd", opened[:1], fdname="9f")
    assert "fdname" in caught.value.desc
    wait_descriptors(daemon, before)


def test_surplus_descriptors_are_closed(daemon, opened):
    daemon.cmd("query-version")
    before = descriptor_count(daemon)
    send(daemon, "getfd", [opened[0]] * 10, fdname="f")
    send(daemon, "query-version", [opened[0]] * 16)
    daemon.cmd("query-version")
    send(daemon, "query-version", [opened[0]] * 3)
    send(daemon, "query-version", [opened[0]])
    daemon.cmd("closefd", fdname="f")
    harness.wait_until(lambda: descriptor_count(daemon) <= before + 1)


def test_named_descriptors_belong_to_their_client(daemon, opened):
    send(daemon, "getfd", opened[:1], fdname="f")
    with daemon.client() as other:
        with pytest.raises(qmp.QmpError):
            other.cmd("closefd", fdname="f")
    before = descriptor_count(daemon)
    other = daemon.client()
    other.cmd("getfd", _fds=opened[:1], fdname="g")
    other.close()
    harness.wait_until(lambda: descriptor_count(daemon) <= before)


def test_nbd_server_on_a_named_descriptor(daemon, box, image):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(box / "s"))
    listener.listen(4)
    send(daemon, "getfd", [listener.fileno()], fdname="listener")
    daemon.cmd("nbd-server-start", addr={"type": "fd", "data": {
        "str": "listener"}})
    listener.close()
    daemon.add_file(image)
    daemon.add_export("disk")
    with nbd.RawNbd(box / "s") as client:
        client.go("disk")
        assert client.read(0, 512)[0] == 0
    assert "not found" in daemon.error("closefd", fdname="listener").desc
    daemon.cmd("nbd-server-stop")
    daemon.wait_log(f"NBD server on unix:{box}/s stopped")


@pytest.mark.parametrize("name", ("nope", "3"))
def test_nbd_server_on_unknown_descriptor(daemon, name):
    error = daemon.error("nbd-server-start", addr={"type": "fd", "data": {
        "str": name}})
    assert name in error.desc


def test_nbd_server_on_what_is_no_socket(daemon, opened):
    send(daemon, "getfd", opened[:1], fdname="file")
    error = daemon.error("nbd-server-start", addr={"type": "fd", "data": {
        "str": "file"}})
    assert "socket" in error.desc


# Sets.

def test_fdsets(daemon, opened):
    first = send(daemon, "add-fd", opened[:1], opaque="rw")
    assert set(first) == {"fdset-id", "fd"}
    second = send(daemon, "add-fd", opened[1:], fdset_id=first["fdset-id"])
    third = send(daemon, "add-fd", opened[:1])
    assert second["fdset-id"] == first["fdset-id"] != third["fdset-id"]
    sets = {s["fdset-id"]: s["fds"] for s in daemon.cmd("query-fdsets")}
    assert {f["fd"]: f.get("opaque") for f in sets[first["fdset-id"]]} == {
        first["fd"]: "rw", second["fd"]: None}
    daemon.cmd("remove-fd", fdset_id=first["fdset-id"], fd=second["fd"])
    daemon.cmd("remove-fd", fdset_id=first["fdset-id"])
    assert [s["fdset-id"] for s in daemon.cmd("query-fdsets")] == [
        third["fdset-id"]]
    error = daemon.error("remove-fd", fdset_id=first["fdset-id"])
    assert "not found" in error.desc
    error = daemon.error("remove-fd", fdset_id=third["fdset-id"], fd=9999)
    assert "9999" in error.desc


def test_fdset_refusals(daemon, opened):
    assert "SCM_RIGHTS" in daemon.error("add-fd").desc
    with pytest.raises(qmp.QmpError):
        send(daemon, "add-fd", opened[:1], fdset_id=-1)
    assert daemon.cmd("query-fdsets") == []


def test_image_from_an_fdset(daemon, opened, image):
    """The file itself need not be reachable for the daemon."""
    number = send(daemon, "add-fd", opened[:1])["fdset-id"]
    name = f"/dev/fdset/{number}"
    image.rename(image.with_suffix(".moved"))
    daemon.serve_file(name)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("disk")
        assert client.write(0, b"z" * 512) == 0
    assert image.with_suffix(".moved").read_bytes()[:512] == b"z" * 512
    daemon.cmd("block-export-del", id="exp-disk", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED")
    daemon.cmd("blockdev-del", node_name="disk")
    daemon.cmd("remove-fd", fdset_id=number)
    assert daemon.cmd("query-fdsets") == []


def test_fdset_needs_matching_access(daemon, opened):
    number = send(daemon, "add-fd", opened[1:])["fdset-id"]
    name = f"/dev/fdset/{number}"
    error = daemon.error("blockdev-add", driver="file", node_name="d",
                         filename=name)
    assert "atching" in error.desc or name in error.desc
    daemon.add_file(name, "ro", **{"read-only": True})
    error = daemon.error("blockdev-add", driver="file", node_name="d",
                         filename="/dev/fdset/77")
    assert "/dev/fdset/77" in error.desc


@pytest.mark.parametrize("flag", [os.O_APPEND, os.O_PATH])
def test_fdset_refuses_what_cannot_be_a_disk(daemon, image, flag):
    """With O_APPEND, writes would go to the end of the file."""
    descriptor = os.open(image, os.O_RDWR | flag)
    try:
        send(daemon, "add-fd", [descriptor], fdset_id=6)
    finally:
        os.close(descriptor)
    for read_only in (False, True):
        error = daemon.error("blockdev-add", driver="file", node_name="f0",
                             filename="/dev/fdset/6", read_only=read_only)
        assert "without O_APPEND and O_PATH" in error.desc


@pytest.mark.parametrize("name", ["", " 3", "+3", "-3", "3x", "9" * 30])
def test_fdset_names(daemon, opened, name):
    send(daemon, "add-fd", opened[:1], fdset_id=3)
    error = daemon.error("blockdev-add", driver="file", node_name="f0",
                         filename=f"/dev/fdset/{name}")
    assert "Failed to find fdset" in error.desc


def test_fdset_survives_its_client(daemon, opened):
    with daemon.client() as client:
        number = client.cmd("add-fd", _fds=opened[:1])["fdset-id"]
    daemon.add_file(f"/dev/fdset/{number}")
