# SPDX-License-Identifier: GPL-2.0-or-later
"""Both record engines with what other TLS programs can be made to do."""
import contextlib
import socket
import subprocess

import pytest

import harness
import rawnbd as nbd

SIZE = 1 << 20

pytestmark = pytest.mark.ours("the reference has no TLS from the first byte")


def engine_to_ask_for(name, tls_dir):
    """What a build or a processor without libipsec-mb has instead of it."""
    result = harness.run(
        harness.PROGRAM, "--check-tls-creds",
        f"dir={tls_dir},endpoint=server,record-engine={name}", check=False)
    assert not result.returncode or name == "ipsec-mb"
    return "own" if result.returncode else name


@pytest.fixture(params=("own", "gnutls", "ipsec-mb"))
def server(request, daemon, box, tls_dir):
    """(host, port); behind TLS is NBD at once."""
    # Without letters, which s_client may take for commands.
    data = bytes(byte | 0x80 for byte in harness.random_bytes(SIZE))
    path = harness.make_image(box / "disk.img", SIZE, {0: data})
    daemon.add_creds(tls_dir, record_engine=engine_to_ask_for(request.param,
                                                             tls_dir))
    daemon.add_file(path)
    where = daemon.start_nbd_tcp(tls="tls0", tls_mode="immediate")
    daemon.add_export("disk", writable=True)
    return where


@contextlib.contextmanager
def talk(box, argv):
    """A client that speaks through the program, whose log it gives too."""
    ours, theirs = socket.socketpair()
    log = box / "program.log"
    with open(log, "ab") as stderr, subprocess.Popen(
            [str(a) for a in argv], stdin=theirs, stdout=theirs,
            stderr=stderr, env=harness.ENVIRONMENT) as program:
        theirs.close()
        try:
            client = nbd.RawNbd(ours)
            client.negotiate_structured()
            yield client.go("disk"), log
            client.send_request(nbd.CMD_DISC)
        finally:
            ours.close()
            try:
                program.wait(harness.LIMIT)
            finally:
                program.kill()


def check_transfers(client, data, writes=True):
    for offset, length in ((0, 1), (5, 70000), (100, 300_000)):
        assert client.read(offset, length) == (
            0, data[offset:offset + length])
        if writes:
            assert client.write(offset, data[offset:offset + length]) == 0


@pytest.mark.peers("openssl")
@pytest.mark.parametrize("suite", ("TLS_AES_128_GCM_SHA256",
                                   "TLS_AES_256_GCM_SHA384"))
def test_openssl_changes_keys(daemon, server, suite, box, tls_dir):
    """s_client does so when told: K wants a new key of us as well, k does not.
    """
    data = (box / "disk.img").read_bytes()
    with talk(box, [
            "openssl", "s_client", "-brief", "-connect", "%s:%d" % server,
            "-ciphersuites", suite, "-cert", tls_dir / "client-cert.pem",
            "-key", tls_dir / "client-key.pem", "-CAfile",
            tls_dir / "ca-cert.pem", "-verify_return_error"]) as (client, log):
        for number, command in enumerate(b"KkkKK"):
            check_transfers(client, data)
            client.send(bytes([command]) + b"\n")
            harness.wait_until(
                lambda n=number: log.read_text().count("KEYUPDATE") == n + 1)
        check_transfers(client, data)
        info, = daemon.cmd("query-nbd-clients")
        assert info["tls"]["version"] == "TLS1.3"


@pytest.mark.peers("openssl")
def test_openssl_need_not_say_hello_twice(server, box, tls_dir):
    """The key that it offers first is taken."""
    data = (box / "disk.img").read_bytes()
    with talk(box, [
            "openssl", "s_client", "-quiet", "-msg", "-msgfile",
            box / "messages", "-connect", "%s:%d" % server, "-cert",
            tls_dir / "client-cert.pem", "-key", tls_dir / "client-key.pem",
            "-CAfile", tls_dir / "ca-cert.pem"]) as (client, _):
        check_transfers(client, data)
    assert (box / "messages").read_text().count("ClientHello") == 1


@pytest.mark.peers("gnutls-cli")
@pytest.mark.parametrize("argument", (
    "--priority=NORMAL", "--recordsize=4096", "--recordsize=512",
    "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.3:%DISABLE_TLS13_COMPAT_MODE"))
def test_gnutls_client(server, argument, box, tls_dir):
    data = (box / "disk.img").read_bytes()
    with talk(box, [
            "gnutls-cli", "--logfile", box / "gnutls.log", "--x509cafile",
            tls_dir / "ca-cert.pem", "--x509certfile",
            tls_dir / "client-cert.pem", "--x509keyfile",
            tls_dir / "client-key.pem", "--port", server[1], "localhost",
            argument]) as (client, _):
        # It loses what it has read beyond such a record.
        check_transfers(client, data, writes="=512" not in argument)


@pytest.mark.peers("nbdcopy")
@pytest.mark.parametrize("engine", ("own", "ipsec-mb"))
def test_nbdcopy_both_ways_under_several_keys(daemons, box, tls_dir, engine):
    daemon = daemons(env={"BLOCKFERRY_TLS_REKEY_RECORDS": "256",
                          "G_MESSAGES_DEBUG": "bf-crypto"})
    size = 16 * SIZE
    path = harness.make_image(box / "big.img", size,
                              {0: harness.random_bytes(size)})
    daemon.add_creds(tls_dir, record_engine=engine_to_ask_for(engine, tls_dir))
    daemon.add_file(path)
    daemon.start_nbd(tls="tls0")
    daemon.add_export("disk", writable=True)
    uri = (f"nbds+unix://localhost/disk?socket={daemon.nbd_path}"
           f"&tls-certificates={tls_dir}")
    harness.run("nbdcopy", "--connections=1", uri, box / "copy.img")
    daemon.wait_log(r"records by own: [1-9]\d* key updates sent")
    assert (box / "copy.img").read_bytes() == path.read_bytes()
    (box / "copy.img").write_bytes(harness.random_bytes(size))
    harness.run("nbdcopy", "--connections=1", "--flush", box / "copy.img", uri)
    assert (box / "copy.img").read_bytes() == path.read_bytes()
