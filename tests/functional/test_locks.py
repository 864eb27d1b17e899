# SPDX-License-Identifier: GPL-2.0-or-later
"""Image locks, as QEMU takes them: who may open what at the same time."""
import fcntl
import os
import struct

import pytest

import harness
import qmp
from harness import run

SIZE = 1 << 20
# One byte per permission in each of two ranges of the file.
TAKEN, UNSHARED = 100, 200
CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE = range(4)
F_OFD_GETLK = 36


@pytest.fixture
def disk(box):
    return harness.make_image(box / "d.img", SIZE)


@pytest.fixture
def qcow2(box):
    path = box / "d.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    return path


def is_locked(path, byte):
    """Does anyone hold a lock on this byte?"""
    with open(path, "r+b") as file:
        request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1,
                              0)
        answer = fcntl.fcntl(file, F_OFD_GETLK, request)
    return struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK


def locks(path):
    return ({n for n in range(4) if is_locked(path, TAKEN + n)},
            {n for n in range(4) if is_locked(path, UNSHARED + n)})


def machine(box, path, name="qemu"):
    """A virtual machine, stopped, with a disk that it wants to itself."""
    return harness.Emulator(
        box, "-drive", f"if=none,id=d,format=raw,file={path}", "-device",
        "virtio-blk-pci,drive=d", name=name)


# What we hold.

def test_locks_follow_the_users(daemon, disk):
    daemon.add_file(disk)
    assert locks(disk) == (set(), set())
    daemon.start_nbd()
    daemon.add_export("disk")
    assert locks(disk) == ({CONSISTENT_READ}, {RESIZE})
    daemon.add_export("disk", "rw", name="rw", writable=True)
    assert locks(disk) == ({CONSISTENT_READ, WRITE}, {RESIZE})
    for ident in ("rw", "exp-disk"):
        daemon.cmd("block-export-del", id=ident)
        daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id=ident)
    assert locks(disk) == (set(), set())
    daemon.cmd("blockdev-del", node_name="disk")


@pytest.mark.ours("the reference has no descriptor passing")
def test_nodes_with_one_descriptor_have_locks_of_their_own(daemon, disk):
    with open(disk, "r+b") as file:
        added = daemon.cmd("add-fd", _fds=[file.fileno()])
    path = f"/dev/fdset/{added['fdset-id']}"
    daemon.start_nbd()
    for node in ("n0", "n1"):
        daemon.add_file(path, node)
        daemon.add_export(node, writable=True)
    held = ({CONSISTENT_READ, WRITE}, {RESIZE})
    assert locks(disk) == held
    daemon.cmd("block-export-del", id="exp-n1")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-n1")
    assert locks(disk) == held
    daemon.cmd("blockdev-del", node_name="n1")
    assert locks(disk) == held
    daemon.cmd("block-export-del", id="exp-n0")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-n0")
    assert locks(disk) == (set(), set())


def test_locking_can_be_turned_off(daemon, disk):
    daemon.serve_file(disk, locking="off")
    assert locks(disk) == (set(), set())


def test_locks_are_gone_after_an_end(daemon, disk):
    daemon.serve_file(disk)
    assert locks(disk) != (set(), set())
    daemon.finish()
    assert locks(disk) == (set(), set())


# Others first.

@pytest.mark.peers("qemu-system-x86_64")
def test_disk_of_a_running_machine_is_refused(daemon, disk, box):
    emulator = machine(box, disk)
    try:
        assert emulator.qmp, emulator.log()
        daemon.start_nbd()
        try:
            daemon.add_file(disk)
            daemon.add_export("disk", writable=True)
        except qmp.QmpError as error:
            assert "write" in error.desc and "lock" in error.desc
        else:
            raise AssertionError("both write to one disk")
        # Reading with force-share is possible.
        daemon.add_file(disk, "shared", **{"read-only": True,
                                           "force-share": True})
        daemon.add_export("shared")
    finally:
        assert emulator.finish() is None
    # Now it is free.
    nodes = [n["node-name"] for n in daemon.cmd("query-named-block-nodes")]
    if "disk" not in nodes:
        daemon.add_file(disk)
    daemon.add_export("disk", writable=True)


def test_image_in_use_as_qcow2_is_refused(daemon, daemons, qcow2):
    qsd = daemons(program=harness.REFERENCE, name="qsd")
    qsd.execute("blockdev-add", {
        "driver": "qcow2", "node-name": "q",
        "file": {"driver": "file", "filename": str(qcow2)}})
    daemon.start_nbd()
    with pytest.raises(qmp.QmpError) as caught:
        daemon.add_file(qcow2)
        daemon.add_export("disk", writable=True)
    assert "write" in caught.value.desc and "lock" in caught.value.desc
    qsd.cmd("blockdev-del", node_name="q")
    nodes = [n["node-name"] for n in daemon.cmd("query-named-block-nodes")]
    if "disk" not in nodes:
        daemon.add_file(qcow2)
    daemon.add_export("disk", writable=True)


def test_resize_of_a_disk_in_use_is_refused(daemon, daemons, disk):
    qsd = daemons(program=harness.REFERENCE, name="qsd")
    qsd.serve_file(disk, writable=False)
    daemon.add_file(disk)
    error = daemon.error("block_resize", node_name="disk", size=4096)
    assert "resize" in error.desc
    assert disk.stat().st_size == SIZE


# We first.

@pytest.mark.peers("qemu-system-x86_64")
def test_machine_does_not_get_our_disk(daemon, disk, box):
    daemon.serve_file(disk)
    emulator = machine(box, disk)
    assert emulator.finish() is None
    assert emulator.qmp is None, "both write to one disk"
    assert "lock" in emulator.log()
    daemon.cmd("nbd-server-stop")
    daemon.cmd("blockdev-del", node_name="disk")
    again = machine(box, disk, "again")
    assert again.finish() is None
    assert again.qmp, again.log()


@pytest.mark.peers("qemu-io")
def test_qcow2_user_does_not_get_our_image(daemon, qcow2):
    daemon.serve_file(qcow2)
    result = run("qemu-io", "-f", "qcow2", "-c", "read 0 512", qcow2,
                 check=False)
    assert result.returncode and "lock" in result.stderr
    daemon.cmd("nbd-server-stop")
    result = run("qemu-io", "-f", "qcow2", "-c", "read 0 512", qcow2)


@pytest.mark.peers("qemu-img")
def test_nobody_resizes_our_disk(daemon, disk):
    daemon.serve_file(disk, writable=False)
    result = run("qemu-img", "resize", "-f", "raw", disk, "2M", check=False)
    assert result.returncode and "lock" in result.stderr
    assert disk.stat().st_size == SIZE


def test_two_daemons_may_share_a_raw_disk(daemon, daemons, disk):
    """Raw users share writing with each other, as QEMU's do."""
    daemon.serve_file(disk)
    other = daemons()
    other.serve_file(disk)
    qsd = daemons(program=harness.REFERENCE, name="qsd")
    qsd.serve_file(disk)


@pytest.mark.parametrize("first_direct", (False, True))
def test_readers_share_with_anyone(daemon, disk, first_direct):
    daemon.serve_file(disk, writable=False, cache={"direct": first_direct})
    run("qemu-io", "-r", "-f", "raw", "-c", "read 0 512", disk)
    run("qemu-io", "-f", "raw", "-c", "write 0 512", disk)


@pytest.mark.peers("qemu-system-x86_64")
def test_no_image_is_made_where_a_machine_has_its_disk(daemon, box, disk):
    disk.write_bytes(b"x" * SIZE)
    guest = machine(box, disk)
    try:
        daemon.cmd("blockdev-create", job_id="c0", options={
            "driver": "file", "filename": str(disk), "size": 4096})
        daemon.qmp.take_event("JOB_STATUS_CHANGE", id="c0", status="concluded")
        job, = daemon.cmd("query-jobs")
        assert f"'{disk}' is in use" in job["error"]
        assert disk.read_bytes() == b"x" * SIZE
    finally:
        assert guest.finish() is None
