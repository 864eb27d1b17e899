# SPDX-License-Identifier: GPL-2.0-or-later
"""Authorities and certificates are replaced while clients stream over TLS."""
import shutil
import ssl
import threading

import pytest

import certs
import harness
import rawnbd as raw

pytestmark = pytest.mark.ours("the reference cannot reload")
CLIENTS = 8
ROUNDS = 20
BLOCK = 64 << 10


class Stream(threading.Thread):
    """Reads all the time over one connection, and compares."""

    def __init__(self, address, context, content):
        super().__init__(daemon=True)
        self.peer = raw.RawNbd(address)
        self.peer.starttls(context)
        self.peer.go("disk")
        self.content = content
        self.ending = threading.Event()
        self.moved = threading.Event()
        self.blocks = 0
        self.error = None

    def run(self):
        try:
            while not self.ending.is_set():
                offset = self.blocks * BLOCK % len(self.content)
                data = self.content[offset:offset + BLOCK]
                assert self.peer.read(offset, BLOCK) == (0, data)
                self.blocks += 1
                self.moved.set()
            self.peer.disconnect()
        except Exception as error:  # pylint: disable=broad-except
            self.error = error
            self.moved.set()

    def wait_progress(self):
        """Until a read has ended that began after this call."""
        for _ in range(2):
            self.moved.clear()
            assert self.moved.wait(harness.LIMIT)
            assert self.error is None, self.error


def seen_serial(address, directory):
    """The serial number of the certificate that a new client sees."""
    with raw.RawNbd(address) as peer:
        peer.starttls(harness.client_context(directory))
        serial = int(peer.sock.getpeercert()["serialNumber"], 16)
        peer.go("disk")
        assert peer.read(0, 512)[0] == 0
        return serial


def is_refused(address, directory):
    """With its own authority, but without a look at the server's."""
    context = harness.client_context(directory)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with raw.RawNbd(address) as peer:
            peer.starttls(context)
            peer.go("disk")
            peer.read(0, 512)
        return False
    except TimeoutError:
        raise
    except (raw.Closed, OSError):
        return True


def install(source, target):
    """Each file at once, as a careful tool does."""
    for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
        shutil.copy(source / name, target / f".{name}")
        (target / f".{name}").rename(target / name)


def test_rotation_under_load(daemon, image, box):
    first = certs.Authority(box / "ca-first", "First CA")
    first.issue(box / "tls", "server")
    first.issue(box / "old", "client")
    daemon.add_creds(box / "tls")
    daemon.serve_file(image, tls="tls0")
    address, content = daemon.nbd_path, image.read_bytes()
    context = harness.client_context(box / "old")
    streams = [Stream(address, context, content) for _ in range(CLIENTS)]
    for stream in streams:
        stream.start()
    serials = {seen_serial(address, box / "old")}
    for n in range(ROUNDS):
        authority = certs.Authority(box / f"ca{n}", f"CA {n}")
        authority.issue(box / f"new{n}", "server")
        authority.issue(box / f"new{n}", "client")
        install(box / f"new{n}", box / "tls")
        daemon.cmd("tls-creds-reload", id="tls0")
        serial = seen_serial(address, box / f"new{n}")
        assert serial not in serials
        assert f"{serial:x}" == daemon.cmd("query-tls-creds")[0][
            "certificates"][0]["serial"].lstrip("0")
        serials.add(serial)
    for stream in streams:
        stream.wait_progress()
    assert is_refused(address, box / "old")
    assert is_refused(address, box / f"new{ROUNDS - 2}")
    daemon.wait_log("known issuer|No certificate was found")
    for stream in streams:
        stream.ending.set()
    for stream in streams:
        stream.join(harness.LIMIT)
        assert stream.error is None and not stream.is_alive()
        assert stream.blocks >= 2
    assert len(serials) == ROUNDS + 1
