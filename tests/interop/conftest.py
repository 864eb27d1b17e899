# SPDX-License-Identifier: GPL-2.0-or-later
"""One daemon reached over each transport, as real clients name it."""
import pytest

import harness

TRANSPORTS = ("unix", "tcp", "tls-unix", "tls")
SIZE = 24 << 20


class Served:
    """An export and the ways in which clients spell its address."""

    def __init__(self, daemon, transport, tls_dir, path):
        self.daemon, self.transport, self.path = daemon, transport, path
        self.tls_dir = tls_dir
        self.tls = transport.startswith("tls")
        creds = daemon.add_creds(tls_dir) if self.tls else None
        if transport.endswith("unix"):
            self.address = daemon.start_nbd(creds)
        else:
            self.address = daemon.start_nbd_tcp(tls=creds)
        daemon.add_file(path, "disk", discard="unmap")
        daemon.add_export("disk", writable=True, description="the disk")

    def uri(self, export="disk"):
        """For libnbd's programs."""
        scheme, query = "nbds" if self.tls else "nbd", []
        if self.tls:
            query.append(f"tls-certificates={self.tls_dir}")
        if isinstance(self.address, tuple):
            host, port = self.address
            base = f"{scheme}://{host}:{port}/{export}"
        else:
            base = f"{scheme}+unix:///{export}"
            query.append(f"socket={self.address}")
        return base + ("?" + "&".join(query) if query else "")

    def options(self, export="disk"):
        """For qemu's --image-opts and blockdev-add."""
        result = {"driver": "nbd", "export": export}
        if isinstance(self.address, tuple):
            result.update({"server.type": "inet",
                           "server.host": self.address[0],
                           "server.port": str(self.address[1])})
        else:
            result.update({"server.type": "unix",
                           "server.path": str(self.address)})
        if self.tls:
            result.update({"tls-creds": "tls0", "tls-hostname": "localhost"})
        return result

    def image_opts(self, export="disk"):
        return ",".join(f"{k}={v}" for k, v in self.options(export).items())

    def qemu_tls(self):
        return ["--object", "tls-creds-x509,id=tls0,endpoint=client,"
                f"dir={self.tls_dir}"] if self.tls else []

    def qemu_img(self, command, *arguments, **options):
        return harness.run("qemu-img", command, *self.qemu_tls(), *arguments,
                           **options)

    def qemu_io(self, *commands):
        flags = [word for c in commands for word in ("-c", c)]
        return harness.run("qemu-io", *self.qemu_tls(), *flags,
                           "--image-opts", self.image_opts())

    def release(self):
        """Removes the export and the node, so that the file is complete."""
        self.daemon.cmd("block-export-del", id="exp-disk", mode="hard")
        self.daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
        self.daemon.cmd("blockdev-del", node_name="disk")


@pytest.fixture
def sparse_image(box):
    """Islands of noise in a sparse file."""
    return harness.make_image(box / "disk.img", SIZE, {
        offset << 20: harness.random_bytes(700_000, seed=offset)
        for offset in (0, 3, 9, 17, 23)})


@pytest.fixture(params=TRANSPORTS)
def served(request, daemon, tls_dir, sparse_image):
    return Served(daemon, request.param, tls_dir, sparse_image)
