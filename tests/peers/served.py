# SPDX-License-Identifier: GPL-2.0-or-later
"""One daemon reached over each transport, as real clients name it."""
import harness


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
        """What blockdev-add needs to reach it."""
        if isinstance(self.address, tuple):
            host, port = self.address
            server = {"type": "inet", "host": host, "port": str(port)}
        else:
            server = {"type": "unix", "path": str(self.address)}
        tls = {"tls-creds": "tls0", "tls-hostname": "localhost"} \
            if self.tls else {}
        return {"driver": "nbd", "export": export, "server": server, **tls}

    def image_opts(self, export="disk"):
        """The same for qemu's --image-opts."""
        options = self.options(export)
        server = {f"server.{k}": v for k, v in options.pop("server").items()}
        return ",".join(f"{k}={v}" for k, v in {**options, **server}.items())

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
