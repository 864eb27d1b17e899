# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU sends a disk that takes writes into our writable export."""
import random
import threading

import pytest

import harness
from served import Served

pytestmark = pytest.mark.peers("qemu-storage-daemon", "qemu-system-x86_64")
SIZE = 48 << 20


class Writer:
    """Keeps writing to an export until stopped."""

    def __init__(self, connect_nbd, path, export):
        self.handle = connect_nbd(path, export)
        self.stopping = threading.Event()
        self.count = 0
        self.failure = None
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        source = random.Random(4)
        try:
            while not self.stopping.is_set():
                length = source.choice((512, 4096, 65536))
                offset = source.randrange(0, SIZE - length)
                self.handle.pwrite(source.randbytes(length), offset)
                self.count += 1
                self.stopping.wait(0.0005)
            self.handle.flush()
        except Exception as error:  # shown by stop()
            self.failure = error

    def stop(self):
        self.stopping.set()
        self.thread.join(harness.LIMIT)
        assert self.failure is None, self.failure
        return self.count


class Source:
    """A disk of QEMU's, `src`, with a writing client, and our export, `dst`."""

    def __init__(self, monitor, path, nbd_path, target):
        self.qmp, self.path, self.nbd_path = monitor, path, nbd_path
        self.execute("blockdev-add", **{
            "driver": "file", "node-name": "src", "filename": str(path),
            "discard": "unmap"})
        if target.tls:
            self.execute("object-add", **{
                "qom-type": "tls-creds-x509", "id": "tls0",
                "endpoint": "client", "dir": str(target.tls_dir)})
        self.execute("blockdev-add", **{
            **target.options(), "node-name": "dst", "discard": "unmap"})
        self.execute("nbd-server-start", addr={
            "type": "unix", "data": {"path": str(nbd_path)}})
        self.execute("block-export-add", **{
            "type": "nbd", "id": "e", "node-name": "src", "writable": True})

    def execute(self, command, **arguments):
        return self.qmp.execute(command, arguments)

    def writer(self, connect_nbd):
        return Writer(connect_nbd, self.nbd_path, "src")

    def wait_completed(self):
        done = self.qmp.take_event("BLOCK_JOB_COMPLETED", device="j",
                                   limit=90)["data"]
        assert "error" not in done and done["offset"] == done["len"], done
        self.qmp.take_event("JOB_STATUS_CHANGE", id="j", status="null")

    def mirror(self, connect_nbd, sync, mode):
        writer = self.writer(connect_nbd) if sync == "full" else None
        self.execute("blockdev-mirror", **{
            "job-id": "j", "device": "src", "target": "dst", "sync": sync,
            "copy-mode": mode})
        self.qmp.take_event("BLOCK_JOB_READY", device="j", limit=90)
        writer = writer or self.writer(connect_nbd)
        before = writer.count
        harness.wait_until(lambda: writer.count > before + 20,
                           what="writes while ready")
        writer.stop()
        # Without force a ready mirror ends with both sides equal.
        self.execute("block-job-cancel", device="j")
        self.wait_completed()

    def backup_incremental(self, connect_nbd):
        self.execute("block-dirty-bitmap-add", node="src", name="b")
        for _ in range(3):
            writer = self.writer(connect_nbd)
            harness.wait_until(lambda: writer.count > 50, what="writes")
            writer.stop()
            self.execute("blockdev-backup", **{
                "job-id": "j", "device": "src", "target": "dst",
                "sync": "incremental", "bitmap": "b"})
            self.wait_completed()

    def release(self):
        self.execute("blockdev-del", **{"node-name": "dst"})
        self.execute("block-export-del", id="e", mode="hard")
        self.qmp.take_event("BLOCK_EXPORT_DELETED", id="e")
        self.execute("blockdev-del", **{"node-name": "src"})


@pytest.fixture
def image(box):
    return harness.make_image(box / "source.img", SIZE, {
        offset << 20: harness.random_bytes(1 << 20, seed=offset)
        for offset in range(0, 48, 3)})


@pytest.fixture(params=("unix", "tcp", "tls"))
def target(request, daemon, box, tls_dir):
    """Our writable export, and the file behind it."""
    path = harness.make_image(box / "target.img", SIZE)
    return Served(daemon, request.param, tls_dir, path)


@pytest.fixture(params=("storage-daemon", "emulator"))
def source(request, daemons, box, image, target):
    if request.param == "emulator":
        emulator = harness.Emulator(box, "-machine", "none")
        yield Source(emulator.qmp, image, box / "qemu.nbd", target)
        problem = emulator.finish()
        assert problem is None, f"{problem}: {emulator.log()}"
    else:
        qsd = daemons(program=harness.REFERENCE, name="qsd")
        yield Source(qsd.qmp, image, qsd.nbd_path, target)


def check_equal(source, target):
    source.release()
    target.release()
    assert harness.sha256(source.path) == harness.sha256(target.path)
    # A job copies whole clusters, but no holes.
    assert target.path.stat().st_blocks < source.path.stat().st_blocks * 3 // 2


@pytest.mark.parametrize("mode", ("background", "write-blocking"))
def test_full_mirror_to_us(source, target, mode, connect_nbd):
    source.mirror(connect_nbd, "full", mode)
    check_equal(source, target)


def test_new_writes_are_mirrored_to_us(source, target, connect_nbd):
    harness.run("cp", "--sparse=always", source.path, target.path)
    source.mirror(connect_nbd, "none", "background")
    check_equal(source, target)


def test_incremental_backup_to_us(source, target, connect_nbd):
    harness.run("cp", "--sparse=always", source.path, target.path)
    source.backup_incremental(connect_nbd)
    check_equal(source, target)
