# SPDX-License-Identifier: GPL-2.0-or-later
"""One daemon reached over each transport, as real clients name it."""
import certs
import harness


class Served:
    """An export and the ways in which clients spell its address.

    transport: "unix", "tcp", "tls" and "psk" (both on TCP), "tls-unix"
    creds: more members of the server's credentials
    """

    def __init__(self, daemon, transport, tls_dir, path, writable=True,
                 **creds):
        self.daemon, self.transport, self.path = daemon, transport, path
        self.tls_dir = tls_dir
        self.psk = transport == "psk"
        self.tls = self.psk or transport.startswith("tls")
        if self.tls:
            daemon.execute("object-add", {**self.creds("server"), **creds})
        tls = "tls0" if self.tls else None
        if transport.endswith("unix"):
            self.address = daemon.start_nbd(tls)
        else:
            self.address = daemon.start_nbd_tcp(tls=tls)
        daemon.add_file(path, "disk", discard="unmap")
        daemon.add_export("disk", writable=writable, description="the disk")

    user = certs.PSK_USER

    @property
    def psk_file(self):
        return self.tls_dir / "keys.psk"

    def creds(self, endpoint="client"):
        """Credentials tls0, as object-add takes them."""
        user = {"username": self.user} \
            if self.psk and endpoint == "client" else {}
        return {"qom-type": "tls-creds-psk" if self.psk else "tls-creds-x509",
                "id": "tls0", "endpoint": endpoint, "dir": str(self.tls_dir),
                **user}

    def uri(self, export="disk"):
        """For libnbd's programs."""
        scheme, user, query = "nbds" if self.tls else "nbd", "", []
        if self.psk:
            user = self.user + "@"
            query.append(f"tls-psk-file={self.psk_file}")
        elif self.tls:
            query.append(f"tls-certificates={self.tls_dir}")
        if isinstance(self.address, tuple):
            host, port = self.address
            base = f"{scheme}://{user}{host}:{port}/{export}"
        else:
            base = f"{scheme}+unix://{user}/{export}"
            query.append(f"socket={self.address}")
        return base + ("?" + "&".join(query) if query else "")

    def options(self, export="disk"):
        """What blockdev-add needs to reach it."""
        if isinstance(self.address, tuple):
            host, port = self.address
            server = {"type": "inet", "host": host, "port": str(port)}
        else:
            server = {"type": "unix", "path": str(self.address)}
        tls = {"tls-creds": "tls0"} if self.tls else {}
        if self.tls and not self.psk:
            tls["tls-hostname"] = "localhost"
        return {"driver": "nbd", "export": export, "server": server, **tls}

    def image_opts(self, export="disk"):
        """The same for qemu's --image-opts."""
        options = self.options(export)
        server = {f"server.{k}": v for k, v in options.pop("server").items()}
        return ",".join(f"{k}={v}" for k, v in {**options, **server}.items())

    def qemu_tls(self):
        if not self.tls:
            return []
        kind, *rest = self.creds().items()
        return ["--object", ",".join([kind[1], *(f"{k}={v}" for k, v in rest)])]

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
