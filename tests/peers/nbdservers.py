# SPDX-License-Identifier: GPL-2.0-or-later
"""Real NBD servers that serve one raw file as the export "disk".

Each is started by running argv() and reached by the options of an nbd node;
nodes are to be opened with an open-timeout, because programs take their time.
"""
import os
import signal

import harness

KINDS = ("qemu-nbd", "nbdkit", "nbd-server", "qemu-storage-daemon", "ours")
EXPORT = "disk"
# What nbd nodes are tested with; nbd-server over TCP only.
CASES = [f"{kind}/{transport}" for kind in KINDS
         for transport in ("unix", "tcp", "tls")
         if (kind, transport) != ("nbd-server", "unix")]


class Server:
    """One server. address: path of a UNIX socket, or (host, port)."""

    def __init__(self, kind, box, path, transport, tls_dir, limit=8):
        self.kind, self.box, self.path = kind, box, path
        self.tls = transport.startswith("tls")
        self.tls_dir, self.limit = tls_dir, limit
        self.is_unix = transport in ("unix", "tls-unix")
        self.address = box / "peer.sock" if self.is_unix else (
            "127.0.0.1", harness.free_port())

    def options(self, **more):
        """What blockdev-add needs to reach it."""
        if self.is_unix:
            server = {"type": "unix", "path": str(self.address)}
        else:
            server = {"type": "inet", "host": self.address[0],
                      "port": str(self.address[1])}
        tls = {"tls-creds": "client0", "tls-hostname": "localhost"} \
            if self.tls else {}
        return {"driver": "nbd", "server": server, "export": EXPORT,
                "open-timeout": 20, **tls, **more}

    def argv(self):
        return getattr(self, "argv_" + self.kind.replace("-", "_"))()

    def qemu_objects(self):
        return ["--object", "tls-creds-x509,id=t,endpoint=server,"
                f"dir={self.tls_dir}"] if self.tls else []

    def argv_qemu_nbd(self):
        where = ["-k", self.address] if self.is_unix else \
            ["-b", self.address[0], "-p", self.address[1]]
        tls = ["--tls-creds", "t"] if self.tls else []
        return ["qemu-nbd", "-f", "raw", "-t", "-x", EXPORT, "--discard=unmap",
                f"--shared={self.limit}", *self.qemu_objects(), *tls, *where,
                self.path]

    def argv_nbdkit(self):
        where = ["-U", self.address] if self.is_unix else \
            ["-i", self.address[0], "-p", self.address[1]]
        tls = ["--tls=require", f"--tls-certificates={self.tls_dir}"] \
            if self.tls else []
        return ["nbdkit", "-f", "-e", EXPORT, *tls, *where, "file", self.path]

    def argv_nbd_server(self):
        where = [f"unixsock = {self.address}"] if self.is_unix else []
        port = harness.free_port() if self.is_unix else self.address[1]
        tls = [f"certfile = {self.tls_dir}/server-cert.pem",
               f"keyfile = {self.tls_dir}/server-key.pem",
               f"cacertfile = {self.tls_dir}/ca-cert.pem",
               "force_tls = true"] if self.tls else []
        config = self.box / "nbd-server.conf"
        config.write_text("\n".join([
            "[generic]", "allowlist = true", "listenaddr = 127.0.0.1",
            f"port = {port}", *where, *tls, f"[{EXPORT}]",
            f"exportname = {self.path}", "flush = true", "fua = true",
            "trim = true"]) + "\n")
        # It always goes to the background, so stop() ends it.
        return ["nbd-server", "-C", config, "-p", self.pid_file]

    @property
    def pid_file(self):
        return self.box / "nbd-server.pid"

    def stop(self):
        """Ends a server that spawn() cannot end."""
        if self.kind == "nbd-server" and self.pid_file.exists():
            os.kill(int(self.pid_file.read_text()), signal.SIGTERM)

    def argv_qemu_storage_daemon(self):
        return self.daemon_argv("qemu-storage-daemon")

    def argv_ours(self):
        return self.daemon_argv(harness.PROGRAM)

    def daemon_argv(self, program):
        where = f"addr.type=unix,addr.path={self.address}" if self.is_unix \
            else f"addr.type=inet,addr.host={self.address[0]}," \
            f"addr.port={self.address[1]}"
        tls = ",tls-creds=t" if self.tls else ""
        return [program, *self.qemu_objects(), "--blockdev",
                f"file,node-name={EXPORT},filename={self.path},discard=unmap",
                "--nbd-server", where + tls, "--export",
                f"nbd,id=e,node-name={EXPORT},name={EXPORT},writable=on"]


def add_client_creds(daemon, tls_dir, ident="client0", **more):
    """Credentials for nodes, on the daemon under test."""
    daemon.cmd("object-add", qom_type="tls-creds-x509", id=ident,
               endpoint="client", dir=str(tls_dir), **more)
