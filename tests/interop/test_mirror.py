# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU mirrors a disk that takes writes into our writable export."""
import hashlib
import random
import threading

import pytest

import harness

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


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mirror(monitor, source_path, nbd_path, target, tls_dir, connect_nbd):
    """Mirrors source_path, which the daemon of monitor serves meanwhile."""
    host, port = target
    monitor.execute("blockdev-add", {
        "driver": "file", "node-name": "src", "filename": str(source_path)})
    monitor.execute("object-add", {
        "qom-type": "tls-creds-x509", "id": "tlsc", "endpoint": "client",
        "dir": str(tls_dir)})
    monitor.execute("blockdev-add", {
        "driver": "nbd", "node-name": "dst", "export": "target",
        "server": {"type": "inet", "host": host, "port": str(port)},
        "tls-creds": "tlsc"})
    monitor.execute("nbd-server-start", {
        "addr": {"type": "unix", "data": {"path": str(nbd_path)}}})
    monitor.execute("block-export-add", {
        "type": "nbd", "id": "e", "node-name": "src", "writable": True})
    writer = Writer(connect_nbd, nbd_path, "src")
    monitor.execute("blockdev-mirror", {
        "job-id": "m", "device": "src", "target": "dst", "sync": "full"})
    ready = monitor.take_event("BLOCK_JOB_READY", device="m", limit=90)
    assert ready["data"]["len"] >= SIZE
    before = writer.count
    harness.wait_until(lambda: writer.count > before + 20,
                       what="writes while ready")
    writer.stop()
    # Without force a ready mirror ends with both sides equal.
    monitor.execute("block-job-cancel", {"device": "m"})
    done = monitor.take_event("BLOCK_JOB_COMPLETED", device="m", limit=90)
    assert "error" not in done["data"], done
    monitor.take_event("JOB_STATUS_CHANGE", id="m", status="null")
    monitor.execute("blockdev-del", {"node-name": "dst"})
    monitor.execute("block-export-del", {"id": "e", "mode": "hard"})
    monitor.take_event("BLOCK_EXPORT_DELETED", id="e")
    monitor.execute("blockdev-del", {"node-name": "src"})


@pytest.fixture
def target(daemon, box, tls_dir):
    """Our writable export over TLS, and the file behind it."""
    path = harness.make_image(box / "target.img", SIZE)
    daemon.add_creds(tls_dir)
    address = daemon.start_nbd_tcp(tls="tls0")
    daemon.add_file(path, "target")
    daemon.add_export("target", writable=True)
    return address, path


@pytest.fixture
def source(box):
    return harness.make_image(box / "source.img", SIZE, {
        offset << 20: harness.random_bytes(1 << 20, seed=offset)
        for offset in range(0, 48, 3)})


def check_equal(daemon, source, path):
    daemon.cmd("nbd-server-stop")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-target")
    daemon.cmd("blockdev-del", node_name="target")
    assert sha256(source) == sha256(path)


@pytest.mark.peers("qemu-storage-daemon")
def test_storage_daemon_mirrors_to_us(daemon, daemons, target, source,
                                      tls_dir, connect_nbd):
    address, path = target
    qsd = daemons(program=harness.REFERENCE, name="qsd")
    mirror(qsd.qmp, source, qsd.nbd_path, address, tls_dir, connect_nbd)
    check_equal(daemon, source, path)


@pytest.mark.peers("qemu-system-x86_64")
def test_emulator_mirrors_to_us(daemon, box, target, source, tls_dir,
                                connect_nbd):
    address, path = target
    emulator = harness.Emulator(box, "-machine", "none")
    try:
        mirror(emulator.qmp, source, box / "qemu.nbd", address, tls_dir,
               connect_nbd)
    finally:
        problem = emulator.finish()
    assert problem is None, f"{problem}: {emulator.log()}"
    check_equal(daemon, source, path)
