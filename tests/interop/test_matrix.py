# SPDX-License-Identifier: GPL-2.0-or-later
"""Every client over every transport, to a writable and a read-only export.

A client copies the disk; writes MARK at PLACE if it may, and is told if it may
not; and the disk must have that and nothing else. What clients can do beyond
that is in test_clients.py.
"""
import contextlib
import json
import os
import re
import socket
import struct
import subprocess

import pytest

import harness
import rawnbd
from harness import run
from served import Served
from starttls import Relay

SIZE = 4 << 20
PLACE, LENGTH, MARK = 1 << 20, 128 << 10, 0x5A
REFUSAL = "(?i)read.only|permi|not permitted"
PATTERN = 0xA5  # on the second MiB, for clients that compare by themselves

pytestmark = pytest.mark.peers("qemu-img", "qemu-io", "nbdcopy", "nbdinfo",
                               "nbdsh", "nbd-client", "fio", "nbdkit",
                               "openssl")


class Client:
    """One client of one server."""

    CREDS = {}  # of the server, beyond the usual

    def __init__(self, served, box, daemons):
        self.served, self.box, self.daemons = served, box, daemons

    def look(self, writable):
        """Reads what is known of the export, and its data."""
        raise NotImplementedError

    def write(self, source):
        """Writes MARK; source: a file with the data that the disk then has.

        Returns True, or a text that says why not.
        """
        raise NotImplementedError

    def same(self, copy):
        assert copy.read_bytes() == self.served.path.read_bytes()


def outcome(result):
    """What write() returns, from a finished process."""
    return result.returncode == 0 or result.stdout + result.stderr


class QemuImg(Client):
    def look(self, writable):
        self.served.qemu_img("convert", "--image-opts",
                             self.served.image_opts(), "-O", "raw",
                             self.box / "copy")
        self.same(self.box / "copy")

    def write(self, source):
        return outcome(self.served.qemu_img(
            "convert", "-n", "--target-image-opts", "-f", "raw", source,
            self.served.image_opts(), check=False))


class QemuIo(Client):
    def look(self, writable):
        self.io(f"read -P {PATTERN} 1M 1M", "read -P 0 0 1M", read_only=True)

    def write(self, source):
        return outcome(self.io(f"write -P {MARK} {PLACE} {LENGTH}", "flush",
                               check=False))

    def io(self, *commands, read_only=False, check=True):
        words = [word for c in commands for word in ("-c", c)]
        return run("qemu-io", *(["-r"] if read_only else []),
                   *self.served.qemu_tls(), *words, "--image-opts",
                   self.served.image_opts(), check=check)


class Nbdcopy(Client):
    OPTIONS = ("--connections=4", "--requests=64")

    def look(self, writable):
        run("nbdcopy", *self.OPTIONS, self.served.uri(), self.box / "copy")
        self.same(self.box / "copy")

    def write(self, source):
        return outcome(run("nbdcopy", *self.OPTIONS, "--flush", source,
                           self.served.uri(), check=False))


class Nbdinfo(Client):
    def look(self, writable):
        uri = self.served.uri()
        assert int(run("nbdinfo", "--size", uri)) == SIZE
        is_read_only = run("nbdinfo", "--is", "read-only", uri, check=False)
        assert is_read_only.returncode == (2 if writable else 0)
        assert is_read_only.stderr == ""
        info = json.loads(run("nbdinfo", "--json", "--no-content", uri))
        assert info["TLS"] is self.served.tls

    write = None


class Nbdsh(Client):
    def look(self, writable):
        self.sh(f"assert h.get_size() == {SIZE}",
                f"assert h.is_read_only() is {not writable}",
                f"data = h.pread({SIZE}, 0)",
                f"assert data == open('{self.served.path}', 'rb').read()")

    def write(self, source):
        # Without its own checks, so that the server has to refuse.
        return outcome(self.sh(
            "h.set_strict_mode(0)",
            f"h.pwrite(bytes([{MARK}]) * {LENGTH}, {PLACE}, nbd.CMD_FLAG_FUA)",
            check=False))

    def sh(self, *lines, check=True):
        return run("nbdsh", "-c", "\n".join([
            "h.set_uri_allow_local_file(True)",
            f"h.connect_uri({self.served.uri()!r})", *lines]), check=check)


class NbdClient(Client):
    """Its other actions need a kernel with nbd."""

    def look(self, writable):
        address = self.served.address
        argv = ["-l", *address] if isinstance(address, tuple) else \
            ["-l", "-unix", address]
        if self.served.tls:
            directory = self.served.tls_dir
            argv += ["-tlshostname", "localhost", "-certfile",
                     directory / "client-cert.pem", "-keyfile",
                     directory / "client-key.pem", "-cacertfile",
                     directory / "ca-cert.pem"]
        result = run("/usr/sbin/nbd-client", *argv, check=False)
        text = result.stdout + result.stderr
        assert re.search(r"^disk\b", text, re.M), text

    write = None


class Fio(Client):
    """libnbd without leave to read the files that a URI names."""

    CREDS = {"verify-peer": False}  # because it has no certificate

    def look(self, writable):
        self.fio("--rw=read", PATTERN, "--offset=1m", "--size=1m")

    def write(self, source):
        result = self.fio("--rw=write", MARK, f"--offset={PLACE}",
                          f"--size={LENGTH}", "--do_verify=1", "--end_fsync=1",
                          check=False)
        return outcome(result)

    def fio(self, mode, pattern, *arguments, check=True):
        uri = re.sub(r"tls-[a-z-]*=[^&]*&?", "", self.served.uri())
        return run("fio", "--name=matrix", "--ioengine=nbd", f"--uri={uri}",
                   mode, "--bs=16k", "--iodepth=8", "--verify=pattern",
                   f"--verify_pattern={pattern:#x}", *arguments, check=check,
                   cwd=self.box)


class Nbdkit(Client):
    """Its nbd plugin, which passes on what another client asks."""

    def look(self, writable):
        self.nbdkit(f'nbdcopy "$uri" {self.box}/copy && '
                    '(nbdinfo --is read-only "$uri"; '
                    f'test $? = {2 if writable else 0})')
        self.same(self.box / "copy")

    def write(self, source):
        return outcome(self.nbdkit(f'nbdcopy --flush {source} "$uri"',
                                   check=False))

    def nbdkit(self, command, check=True):
        served = self.served
        where = [f"socket={served.address}"]
        if isinstance(served.address, tuple):
            host, port = served.address
            where = [f"hostname={host}", f"port={port}"]
        tls = []
        if served.psk:
            tls = ["tls=require", f"tls-psk={served.psk_file}",
                   f"tls-username={served.user}"]
        elif served.tls:
            tls = ["tls=require", f"tls-certificates={served.tls_dir}"]
        return run("nbdkit", "-U", "-", "nbd", *where, "export=disk", *tls,
                   "--run", command, check=check)


class Ours(Client):
    """Our nbd driver under an export, which a raw client uses."""

    def look(self, writable):
        daemon = self.daemon = self.daemons()
        if self.served.tls:
            daemon.execute("object-add", self.served.creds())
        daemon.execute("blockdev-add", {
            **self.served.options(), "node-name": "n0",
            "read-only": not writable})
        daemon.start_nbd()
        daemon.add_export("n0", name="through", writable=writable)
        with rawnbd.RawNbd(daemon.nbd_path) as client:
            assert client.go("through").size == SIZE
            assert client.read(0, SIZE) == (0, self.served.path.read_bytes())

    def write(self, source):
        with rawnbd.RawNbd(self.daemon.nbd_path) as client:
            error = client.go("through").write(
                PLACE, bytes([MARK]) * LENGTH, rawnbd.FUA)
        return error == 0 or os.strerror(error)


class ReferenceTester(Client):
    """What the tester of the reference server does to a server: options that
    do not exist, requests that are too large, many at once, flushes among
    writes, ends in due form and without a word."""

    def look(self, writable):
        data = self.served.path.read_bytes()
        with self.connected() as client:
            assert client.option_type(0x7654321) == rawnbd.ERR_UNSUP
            assert client.list_exports() == [("disk", "the disk")]
            assert client.go("disk").size == SIZE
            for offset, length in ((0, 1 << 30), (0, 0xFFFFFFFF), (SIZE, 1),
                                   (SIZE - 1, 2), (1 << 63, 1)):
                assert client.request(rawnbd.CMD_READ, offset, length) == \
                    rawnbd.EINVAL
            assert client.read(SIZE, 0) == client.read(0, 0) == (0, b"")
            self.read_many(client, data)
            client.disconnect()
        with self.connected() as client:
            client.go("disk").send_request(rawnbd.CMD_READ, 0, SIZE)

    @staticmethod
    def read_many(client, data):
        wanted = {}
        for number in range(100):
            offset, length = number * 40_009, 1 + number * 999
            cookie = client.send_request(rawnbd.CMD_READ, offset, length)
            wanted[cookie] = data[offset:offset + length]
        while wanted:
            magic, error, cookie = struct.unpack(">IIQ", client.recv(16))
            assert (magic, error) == (rawnbd.SIMPLE_MAGIC, 0)
            text = wanted.pop(cookie)
            assert client.recv(len(text)) == text

    def write(self, source):
        pieces = 32
        length = LENGTH // pieces
        with self.connected() as client:
            client.go("disk")
            for number in range(pieces):
                client.send_request(
                    rawnbd.CMD_WRITE, PLACE + number * length, length,
                    rawnbd.FUA if number % 3 else 0, bytes([MARK]) * length)
                client.send_request(rawnbd.CMD_FLUSH)
            errors = {client.read_reply()[0].error
                      for _ in range(2 * pieces)}
            assert client.read(0, SIZE) == (
                0, self.served.path.read_bytes())
            client.disconnect()
        return errors == {0} or os.strerror(max(errors))

    @contextlib.contextmanager
    def connected(self):
        served = self.served
        if served.psk:
            # Python's own TLS has no such keys.
            with contextlib.closing(Relay(served.address)) as relay, \
                    self.through_openssl(relay.port) as sock:
                yield rawnbd.RawNbd(sock, handshake=False)
            return
        with rawnbd.RawNbd(served.address) as client:
            if served.tls:
                client.starttls(harness.client_context(served.tls_dir))
            yield client

    @contextlib.contextmanager
    def through_openssl(self, port):
        user, key = self.served.psk_file.read_text().split()[0].split(":")
        ours, theirs = socket.socketpair()
        with subprocess.Popen(
                ["openssl", "s_client", "-quiet", "-psk", key, "-psk_identity",
                 user, "-ciphersuites", "TLS_AES_128_GCM_SHA256", "-connect",
                 f"127.0.0.1:{port}"], stdin=theirs, stdout=theirs,
                stderr=subprocess.DEVNULL,
                env=harness.ENVIRONMENT) as program, ours:
            theirs.close()
            try:
                yield ours
            finally:
                program.kill()


CLIENTS = {"tester": ReferenceTester, "qemu-img": QemuImg,
           "qemu-io": QemuIo, "nbdcopy": Nbdcopy,
           "nbdinfo": Nbdinfo, "nbdsh": Nbdsh, "nbd-client": NbdClient,
           "fio": Fio, "nbdkit": Nbdkit, "ours": Ours}
TRANSPORTS = ("unix", "tcp", "tls-unix", "tls", "psk")
NO_KEYS = ("nbd-client", "fio")  # they cannot be given a pre-shared key


@pytest.mark.parametrize("access", ("writable", "read-only"))
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", CLIENTS)
def test_client(name, transport, access, box, daemon, daemons, tls_dir):
    path = harness.make_image(box / "disk.img", SIZE, {
        1 << 20: bytes([PATTERN]) * (1 << 20),
        3 << 20: harness.random_bytes(1 << 19)})
    before = after = path.read_bytes()
    marked = before[:PLACE] + bytes([MARK]) * LENGTH + before[PLACE + LENGTH:]
    (box / "source").write_bytes(marked)
    served = Served(daemon, transport, tls_dir, path, access == "writable",
                    **CLIENTS[name].CREDS)
    client = CLIENTS[name](served, box, daemons)
    if transport == "psk" and name in NO_KEYS:
        with pytest.raises(AssertionError):
            client.look(access == "writable")
        daemon.wait_log(
            "TLS handshake failed: .*key exchange here is by pre-shared key")
    else:
        client.look(access == "writable")
        if client.write is not None:
            told = client.write(box / "source")
            if access == "writable":
                assert told is True
                after = marked
            else:
                assert re.search(REFUSAL, str(told)), told
    served.release()
    assert path.read_bytes() == after
