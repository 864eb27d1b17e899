# SPDX-License-Identifier: GPL-2.0-or-later
"""The storage side of a live migration, as management software drives it.

The target host starts, exports its empty disk over TLS; the source mirrors to
it while a guest writes; the guest stops, the source switches over and ends;
the guest goes on at the target. Nothing may be lost, twenty times in a row.
"""
import pytest

import harness
import replication

ROUNDS = 20
SIZE = 8 << 20


class OurSide:
    """blockferryd at the source or the target."""

    def __init__(self, start, box, image, tls_dir, name):
        self.daemon = start(name=name)
        self.image = image
        self.daemon.add_creds(tls_dir, "tlss", endpoint="server")
        self.daemon.add_creds(tls_dir, "tlsc", endpoint="client")
        self.daemon.add_file(image, "disk", discard="unmap")
        self.address = self.daemon.start_nbd_tcp(tls="tlss")
        self.daemon.add_export("disk", writable=True)

    @property
    def monitor(self):
        return self.daemon.qmp


class EmulatorSide:
    """qemu-system-x86_64, whose own NBD server stands for its guest."""

    def __init__(self, start, box, image, tls_dir, name):
        self.daemon = start(box, name=name)
        self.monitor = self.daemon.qmp
        self.image = image
        for ident, endpoint in (("tlss", "server"), ("tlsc", "client")):
            self.monitor.execute("object-add", {
                "qom-type": "tls-creds-x509", "id": ident,
                "endpoint": endpoint, "dir": str(tls_dir)})
        self.monitor.execute("blockdev-add", {
            "driver": "file", "node-name": "disk", "filename": str(image),
            "discard": "unmap"})
        while True:
            self.address = "127.0.0.1", harness.free_port()
            try:
                self.monitor.execute("nbd-server-start", {
                    "addr": {"type": "inet", "data": {
                        "host": self.address[0],
                        "port": str(self.address[1])}}, "tls-creds": "tlss"})
                break
            except harness.qmp.QmpError as error:
                assert "in use" in error.desc, error
        self.monitor.execute("block-export-add", {
            "type": "nbd", "id": "exp-disk", "node-name": "disk",
            "name": "disk", "writable": True})


@pytest.fixture
def emulators(request):
    started = []

    def start(*arguments, **options):
        started.append(harness.Emulator(*arguments, **options))
        return started[-1]

    yield start
    problems = [p for p in (e.finish() for e in started) if p]
    assert not problems, "; ".join(problems)


def migrate(source, target, connect_nbd, seed):
    """One migration; the guest is a client of the source, then of the target."""
    guest = replication.Guest(connect_nbd(source.address, tls=True), seed)
    monitor = source.monitor
    monitor.execute("blockdev-add", {
        "driver": "nbd", "node-name": "remote", "export": "disk",
        "discard": "unmap", "tls-creds": "tlsc", "tls-hostname": "localhost",
        "server": {"type": "inet", "host": target.address[0],
                   "port": str(target.address[1])}})
    monitor.execute("blockdev-mirror", {
        "job-id": "mig", "device": "disk", "target": "remote", "sync": "full",
        "copy-mode": "write-blocking" if seed % 2 else "background"})
    monitor.take_event("BLOCK_JOB_READY", device="mig")
    # The guest stops here and its memory follows; then the disk switches over.
    guest.stop()
    if seed % 3 == 0:
        monitor.execute("block-job-cancel", {"device": "mig"})
    else:
        monitor.execute("job-complete", {"id": "mig"})
    end = monitor.take_event("BLOCK_JOB_COMPLETED", device="mig")
    assert "error" not in end["data"], end
    monitor.take_event("JOB_STATUS_CHANGE", id="mig", status="null")
    monitor.execute("block-export-del", {"id": "exp-disk", "mode": "hard"})
    monitor.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
    monitor.execute("nbd-server-stop")
    monitor.execute("blockdev-del", {"node-name": "remote"})
    monitor.execute("blockdev-del", {"node-name": "disk"})
    guest.check(target.image)
    assert harness.sha256(source.image) == harness.sha256(target.image)
    after = replication.Guest(connect_nbd(target.address, tls=True), -seed)
    after.stop()
    after.check(target.image)
    target.monitor.execute("nbd-server-stop")


def make_images(box, seed):
    for name in ("source", "target"):
        (box / f"{name}{seed}.img").unlink(missing_ok=True)
    return (replication.sparse_disk(box / f"source{seed}.img", SIZE, seed),
            harness.make_image(box / f"target{seed}.img", SIZE))


@pytest.mark.timeout(600)
def test_migration_between_two_of_ours(daemons, box, tls_dir, connect_nbd):
    for seed in range(ROUNDS):
        images = make_images(box, seed)
        migrate(*(OurSide(daemons, box, image, tls_dir, f"{name}{seed}")
                  for name, image in zip(("source", "target"), images)),
                connect_nbd, seed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ours", ("source", "target"))
def test_migration_with_an_emulator(ours, daemons, emulators, box, tls_dir,
                                    connect_nbd):
    for seed in range(1, 4):
        images = make_images(box, seed)
        sides = []
        for name, image in zip(("source", "target"), images):
            side, start = ((OurSide, daemons) if name == ours
                           else (EmulatorSide, emulators))
            sides.append(side(start, box, image, tls_dir, f"{name}{seed}"))
        migrate(*sides, connect_nbd, seed)
