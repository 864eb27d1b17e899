# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS credentials of all kinds: who gets in, deletion, reload, queries."""
import os
import re
import shutil
import signal
import socket
import ssl
import struct

import pytest

import certs
import harness
import nbdservers
import rawnbd as raw
import rawserver
import starttls
from harness import run

pytestmark = pytest.mark.ours("the reference has no such commands")
KEY = "00112233445566778899aabbccddeeff" * 2
OTHER_KEY = "ffeeddccbbaa99887766554433221100" * 2


def write_keys(directory, *lines):
    directory.mkdir(exist_ok=True)
    path = directory / "keys.psk"
    path.touch(mode=0o600)
    path.write_text("".join(line + "\n" for line in lines))
    return directory


def add_dh_params(directory):
    """Other servers search for primes otherwise, which may take a minute."""
    directory.mkdir(exist_ok=True)
    certs.certtool("--get-dh-params", "--bits", "2048", "--outfile",
                   directory / "dh-params.pem")
    return directory


@pytest.fixture
def psk(box):
    """Two users, and the directory of one of them."""
    write_keys(box / "alice", f"alice:{KEY}")
    return write_keys(box / "psk", f"alice:{KEY}", f"bob:{OTHER_KEY}")


@pytest.fixture
def psk_server(daemon, image, psk):
    daemon.cmd("object-add", qom_type="tls-creds-psk", id="tls0",
               endpoint="server", dir=str(psk))
    daemon.serve_file(image, tls="tls0")
    return daemon


def psk_uri(server, user="alice"):
    return f"nbds+unix://{user}@/disk?socket={server.nbd_path}" \
           f"&tls-psk-file={server.dir}/psk/keys.psk"


def qemu_img(server, creds, limit=60, check=True):
    return run("qemu-img", "info", "--object", creds, "--image-opts",
               f"driver=nbd,export=disk,server.type=unix,server.path="
               f"{server.nbd_path},tls-creds=c", limit=limit, check=check)


# Pre-shared keys.

@pytest.mark.peers("nbdcopy")
def test_nbdcopy_reads_with_a_key(psk_server, image, box):
    run("nbdcopy", psk_uri(psk_server), box / "copy.img")
    assert (box / "copy.img").read_bytes() == image.read_bytes()
    psk_server.wait_log("TLS1.3 AES-128-GCM alice")


@pytest.mark.peers("qemu-img")
def test_qemu_img_reads_with_a_key(psk_server, box):
    text = qemu_img(psk_server, "tls-creds-psk,id=c,endpoint=client,"
                    f"username=alice,dir={box}/psk")
    assert "4 MiB" in text


@pytest.fixture
def relay(psk_server):
    relay = starttls.Relay(psk_server.nbd_path)
    yield relay
    relay.close()


@pytest.mark.peers("gnutls-cli")
def test_gnutls_client_with_a_key(relay):
    result = run("gnutls-cli", "--port", relay.port, "--pskusername=alice",
                 f"--pskkey={KEY}", "--priority",
                 "NORMAL:-KX-ALL:+ECDHE-PSK:+DHE-PSK", "127.0.0.1",
                 check=False, stdin="")
    assert "Handshake was completed" in result.stdout, result.stderr
    assert "AES-128-GCM" in result.stdout and "TLS1.3" in result.stdout


@pytest.mark.peers("openssl")
@pytest.mark.parametrize("version, ciphers, suite", (
    ("tls1_2", "PSK", "DHE-PSK-AES128-GCM-SHA256"),
    ("tls1_2", "DEFAULT", "DHE-PSK-AES128-GCM-SHA256"),
    ("tls1_3", "PSK", "TLS_AES_128_GCM_SHA256")))
def test_openssl_client_with_a_key(relay, version, ciphers, suite):
    """It would rather have ChaCha20, or exchanges that need certificates."""
    result = run("openssl", "s_client", "-connect", f"127.0.0.1:{relay.port}",
                 f"-{version}", "-psk", KEY, "-psk_identity", "alice",
                 "-cipher", ciphers, "-ciphersuites", "TLS_CHACHA20_POLY1305_"
                 "SHA256:TLS_AES_128_GCM_SHA256", check=False, stdin="")
    assert f"Cipher is {suite}" in result.stdout, result.stderr


@pytest.mark.peers("openssl")
@pytest.mark.parametrize("arguments, words", (
    (("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"),
     "needs AES-128-GCM or CHACHA20-POLY1305"),
    (("-tls1_2", "-cipher", "DHE-PSK-AES128-CBC-SHA256"),
     "no cipher or no key exchange in common.*'priority'")))
def test_missing_cipher_is_explained(psk_server, relay, arguments, words):
    """The key, which may be right, is not to blame."""
    run("openssl", "s_client", "-connect", f"127.0.0.1:{relay.port}", "-psk",
        KEY, "-psk_identity", "alice", *arguments, check=False, stdin="")
    psk_server.wait_log(f"TLS handshake failed: No supported cipher.*{words}")
    assert "must have the key" not in psk_server.log()


@pytest.mark.parametrize("user", ("alice", "mallory"))
@pytest.mark.parametrize("versions", ("+VERS-TLS1.3", "+VERS-TLS1.2"))
def test_node_with_a_wrong_key_is_told(psk_server, box, user, versions):
    keys = write_keys(box / "m", f"alice:{OTHER_KEY}", f"mallory:{KEY}")
    psk_server.cmd("object-add", qom_type="tls-creds-psk", id="c",
                   endpoint="client", dir=str(keys), username=user,
                   priority=f"NORMAL:-VERS-ALL:{versions}")
    error = psk_server.error(
        "blockdev-add", driver="nbd", node_name="n", export="disk",
        tls_creds="c", server={"type": "unix", "path": str(
            psk_server.nbd_path)})
    assert "the peer must have our user name, with the same key" in error.desc


def test_server_that_takes_tls_and_hangs_up(daemon, box, tls_dir):
    """What it has said before is heard, though it hears nothing any more."""
    class HangsUp(rawserver.RawServer):
        alert = b""

        def answer_option(self, conn):
            _, option, _ = struct.unpack(">QII", self.recv(conn, 16))
            assert option == raw.OPT_STARTTLS
            self.reply(conn, option, raw.REP_ACK, b"")
            conn.sendall(self.alert)
            raise rawserver.Gone

    daemon.add_creds(tls_dir, endpoint="client", ident="c")
    server = HangsUp(box / "raw.sock", bytearray(1 << 20))
    for server.alert, words in (
            (b"", "does not accept our credentials"),
            (b"\x15\x03\x03\x00\x02\x02\x28", "'Handshake failed'")):
        for _ in range(10):
            error = daemon.error("blockdev-add", **{
                k.replace("-", "_"): v for k, v in server.options(**{
                    "tls-creds": "c", "tls-hostname": "localhost"}).items()})
            assert "TLS handshake failed" in error.desc
            assert re.search(words, error.desc), error.desc
    server.stop()


@pytest.mark.peers("nbdcopy")
def test_wrong_keys_are_refused_and_explained(psk_server, psk, box):
    write_keys(psk, f"alice:{OTHER_KEY}")
    mallory = write_keys(box / "m", f"alice:{KEY}", f"mallory:{KEY}")
    for user, words in (("alice", "must have the key"),
                        ("mallory", "is not in")):
        uri = f"nbds+unix://{user}@/disk?socket={psk_server.nbd_path}" \
              f"&tls-psk-file={mallory}/keys.psk"
        assert run("nbdinfo", uri, check=False).returncode != 0
        psk_server.wait_log(f"the user '{user}' {words}.*keys.psk")
    assert KEY not in psk_server.log()


def test_users_come_and_go(psk_server, psk):
    bob = psk_uri(psk_server, "bob")
    run("nbdinfo", "--size", bob)
    write_keys(psk, f"alice:{KEY}")
    # The client needs the key, so it has a copy.
    copy = write_keys(psk_server.dir / "copy", f"bob:{OTHER_KEY}")
    bob = bob.replace(str(psk), str(copy))
    assert run("nbdinfo", "--size", bob, check=False).returncode != 0
    write_keys(psk, f"alice:{KEY}", f"bob:{OTHER_KEY}")
    run("nbdinfo", "--size", bob)


@pytest.mark.parametrize("line, words", [
    ("alice:xyz", "Line 1 of"), ("alice", "is not USER:HEXKEY"),
    ("# nobody", "There is no user")])
def test_bad_file_of_keys_is_explained(daemon, box, line, words):
    write_keys(box / "psk", line)
    error = daemon.error("object-add", qom_type="tls-creds-psk", id="t",
                         endpoint="server", dir=str(box / "psk"))
    assert words in error.desc and "keys.psk" in error.desc
    assert "'dir'" in error.desc


def test_username_is_for_clients(daemon, psk):
    error = daemon.error("object-add", qom_type="tls-creds-psk", id="t",
                         endpoint="server", dir=str(psk), username="alice")
    assert "username should not be set when endpoint=server" in error.desc
    error = daemon.error("object-add", qom_type="tls-creds-psk", id="t",
                         endpoint="client", dir=str(psk))
    assert "Username qemu not found in PSK file" in error.desc


# Nodes of ours, with all kinds, against all servers.

PSK_SERVERS = ("qemu-nbd", "qemu-storage-daemon", "nbdkit", "ours")


def server_argv(kind, box, image, creds):
    path = box / "peer.sock"
    if kind == "nbdkit":
        return ["nbdkit", "-f", "-e", "disk", "--tls=require", "-U", path,
                f"--tls-psk={box}/psk/keys.psk", "file", image]
    if kind == "qemu-nbd":
        return ["qemu-nbd", "-f", "raw", "-t", "-x", "disk", "--shared=8",
                "--object", creds, "--tls-creds", "t", "-k", path, image]
    program = harness.PROGRAM if kind == "ours" else kind
    return [program, "--object", creds, "--blockdev",
            f"file,node-name=disk,filename={image}", "--nbd-server",
            f"addr.type=unix,addr.path={path},tls-creds=t", "--export",
            "nbd,id=e,node-name=disk,name=disk,writable=on"]


def copy_node(daemon, peer, box, image):
    """Reads all of a node by exporting it again."""
    harness.wait_until(lambda: (box / "peer.sock").exists()
                       or not peer.running(), what="the server's socket")
    assert peer.running(), peer.log()
    daemon.execute("blockdev-add", {
        "driver": "nbd", "node-name": "remote", "export": "disk",
        "server": {"type": "unix", "path": str(box / "peer.sock")},
        "tls-creds": "c", "open-timeout": 20})
    daemon.start_nbd()
    daemon.add_export("remote", name="again")
    run("nbdcopy", f"nbd+unix:///again?socket={daemon.nbd_path}",
        box / "copy.img")
    assert (box / "copy.img").read_bytes() == image.read_bytes()
    assert "node 'remote'" in daemon.error("object-del", id="c").desc


@pytest.mark.peers("qemu-nbd", "nbdkit", "qemu-storage-daemon", "nbdcopy")
@pytest.mark.parametrize("kind", PSK_SERVERS)
def test_node_with_a_key(daemon, spawn, box, image, psk, kind):
    add_dh_params(psk)
    peer = spawn("peer", server_argv(
        kind, box, image, f"tls-creds-psk,id=t,endpoint=server,dir={psk}"))
    daemon.cmd("object-add", qom_type="tls-creds-psk", id="c",
               username="alice", endpoint="client", dir=str(psk))
    copy_node(daemon, peer, box, image)


@pytest.mark.peers("qemu-nbd", "qemu-storage-daemon", "nbdcopy")
@pytest.mark.parametrize("kind", ("qemu-nbd", "qemu-storage-daemon", "ours"))
def test_anonymous_node(daemon, spawn, box, image, kind):
    directory = add_dh_params(box / "dh")
    peer = spawn("peer", server_argv(
        kind, box, image, f"tls-creds-anon,id=t,endpoint=server,dir={directory}"))
    daemon.cmd("object-add", qom_type="tls-creds-anon", id="c",
               endpoint="client")
    copy_node(daemon, peer, box, image)


@pytest.mark.peers("qemu-img")
def test_anonymous_qemu_img(daemon, image):
    daemon.cmd("object-add", qom_type="tls-creds-anon", id="tls0",
               endpoint="server")
    daemon.serve_file(image, tls="tls0")
    assert "4 MiB" in qemu_img(daemon, "tls-creds-anon,id=c,endpoint=client")


# Keys under a password.

@pytest.mark.peers("openssl")
@pytest.mark.parametrize("form", ("pkcs8", "traditional"))
@pytest.mark.parametrize("kind", ("rsa", "ecdsa"))
def test_password_of_both_kinds_of_key(daemon, box, form, kind):
    directory = certs.Authority(box / "ca").issue(box / "tls", "server",
                                                  key_type=kind)
    key = directory / "server-key.pem"
    if form == "pkcs8":
        run("openssl", "pkcs8", "-topk8", "-in", key, "-out", box / "k",
            "-passout", "pass:sesame")
    else:
        run("openssl", "rsa" if kind == "rsa" else "ec", "-aes256", "-in", key,
            "-out", box / "k", "-passout", "pass:sesame",
            *(["-traditional"] if kind == "rsa" else []))
        assert "Proc-Type: 4,ENCRYPTED" in (box / "k").read_text()
    shutil.copy(box / "k", key)
    daemon.cmd("object-add", qom_type="secret", id="pw", data="sesame")
    daemon.cmd("object-add", qom_type="secret", id="bad", data="simsala")
    for more, words in (({}, "set 'passwordid'"),
                        ({"passwordid": "bad"}, "does not open the key")):
        error = daemon.error("object-add", qom_type="tls-creds-x509", id="t",
                             endpoint="server", dir=str(directory), **more)
        assert words in error.desc and "server-key.pem" in error.desc
    daemon.add_creds(directory, "t", passwordid="pw")
    # The object holds a copy of the secret.
    daemon.cmd("object-del", id="pw")
    daemon.cmd("tls-creds-reload", id="t")


# Intermediates, revocation, strength.

@pytest.mark.peers("nbdinfo")
def test_chain_through_intermediates_in_the_file(daemon, image, box):
    root = certs.Authority(box / "root", "Root")
    middle = certs.Authority(box / "middle", "Middle")
    template = root.template(['cn = "Middle"', "ca", "cert_signing_key",
                              *certs.VALID])
    certs.certtool("--generate-certificate", "--load-privkey", middle.key,
                   "--load-ca-certificate", root.cert, "--load-ca-privkey",
                   root.key, "--template", template, "--outfile",
                   middle.cert, "--no-text")
    for role in ("server", "client"):
        middle.issue(box / "tls", role)
        with open(box / "tls" / f"{role}-cert.pem", "a") as file:
            file.write(middle.cert.read_text())
    shutil.copy(root.cert, box / "tls" / "ca-cert.pem")
    daemon.add_creds(box / "tls")
    daemon.serve_file(image, tls="tls0")
    run("nbdinfo", "--size", f"nbds+unix://localhost/disk?socket="
        f"{daemon.nbd_path}&tls-certificates={box}/tls")
    info = daemon.cmd("query-tls-creds", id="tls0")[0]
    assert [c["role"] for c in info["certificates"]] == [
        "own", "intermediate", "ca"]


def test_own_revoked_certificate_is_refused(daemon, box):
    authority = certs.Authority(box / "ca")
    directory = authority.issue(box / "tls", "server")
    authority.revoke(directory / "server-cert.pem", directory / "ca-crl.pem")
    error = daemon.error("object-add", qom_type="tls-creds-x509", id="t",
                         endpoint="server", dir=str(directory))
    assert "revoked" in error.desc and "ca-crl.pem" in error.desc
    daemon.add_creds(directory, "t", sanity_check=False)


def test_all_faults_are_named_at_once(daemon, box):
    directory = certs.Authority(box / "ca").issue(
        box / "tls", "server", lines=["ca", "cert_signing_key"],
        valid=['activation_date = "2020-01-01 00:00:00"',
               'expiration_date = "2021-01-01 00:00:00"'])
    certs.make_key(directory / "server-key.pem")
    error = daemon.error("object-add", qom_type="tls-creds-x509", id="t",
                         endpoint="server", dir=str(directory),
                         priority="BOGUS")
    for words in ("has expired", "show a CA", "do not match", "BOGUS"):
        assert words in error.desc


# Reload.

def subject(address, directory, authority):
    """What a new client sees; the directory has its own certificate."""
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(str(directory / "client-cert.pem"),
                            str(directory / "client-key.pem"))
    with raw.RawNbd(address) as client:
        client.starttls(context)
        names = dict(n[0] for n in client.sock.getpeercert()["subject"])
        client.go("disk")
        assert client.read(0, 512)[0] == 0
        return names["commonName"]


@pytest.fixture
def rotation(daemon, image, box):
    """A server with a first certificate, and its authority."""
    authority = certs.Authority(box / "ca")
    authority.issue(box / "tls", "server", "first")
    authority.issue(box / "client", "client")
    daemon.add_creds(box / "tls")
    daemon.serve_file(image, tls="tls0")
    return authority


@pytest.mark.parametrize("ident", (True, False))
def test_reload_takes_new_files(daemon, rotation, box, ident):
    ca = box / "client" / "ca-cert.pem"
    assert subject(daemon.nbd_path, box / "client", ca) == "first"
    rotation.issue(box / "tls", "server", "second")
    assert subject(daemon.nbd_path, box / "client", ca) == "first"
    daemon.cmd("tls-creds-reload", **({"id": "tls0"} if ident else {}))
    assert subject(daemon.nbd_path, box / "client", ca) == "second"


def test_bad_files_leave_the_old_in_force(daemon, rotation, box):
    ca = box / "client" / "ca-cert.pem"
    rotation.issue(box / "tls", "server", "second")
    certs.make_key(box / "tls" / "server-key.pem")
    error = daemon.error("tls-creds-reload")
    assert "'tls0'" in error.desc and "do not match" in error.desc
    assert "stays in force" in error.desc
    assert subject(daemon.nbd_path, box / "client", ca) == "first"
    info = daemon.cmd("query-tls-creds")[0]
    assert "CN=first" in info["certificates"][0]["subject"]


def test_reload_of_some_goes_on_after_a_failure(daemon, rotation, box, psk):
    daemon.cmd("object-add", qom_type="tls-creds-psk", id="a",
               endpoint="server", dir=str(psk))
    write_keys(psk, "rubbish")
    rotation.issue(box / "tls", "server", "second")
    error = daemon.error("tls-creds-reload")
    assert "'a'" in error.desc and "tls0" not in error.desc
    ca = box / "client" / "ca-cert.pem"
    assert subject(daemon.nbd_path, box / "client", ca) == "second"


def test_reload_of_what_is_not_there(daemon):
    daemon.cmd("tls-creds-reload")
    assert "nope" in daemon.error("tls-creds-reload", id="nope").desc
    daemon.cmd("object-add", qom_type="secret", id="s", data="x")
    assert "'s'" in daemon.error("tls-creds-reload", id="s").desc


def test_revocation_takes_effect_by_reload(daemon, rotation, box):
    context = harness.client_context(box / "client")
    with raw.RawNbd(daemon.nbd_path) as old:
        old.starttls(context)
        old.go("disk")
        rotation.revoke(box / "client" / "client-cert.pem",
                        box / "tls" / "ca-crl.pem")
        daemon.cmd("tls-creds-reload", id="tls0")
        assert old.read(0, 512)[0] == 0
        with pytest.raises((raw.Closed, OSError)):
            with raw.RawNbd(daemon.nbd_path) as new:
                new.starttls(context)
                new.go("disk")
                new.read(0, 512)
        daemon.wait_log("has been revoked")
        assert old.read(4096, 512)[0] == 0


def test_properties_change_with_the_next_reload(daemon, rotation, box):
    rotation.issue(box / "other", "server", "other")
    daemon.cmd("qom-set", path="tls0", property="dir",
               value=str(box / "other"))
    daemon.cmd("tls-creds-reload", id="tls0")
    ca = box / "client" / "ca-cert.pem"
    assert subject(daemon.nbd_path, box / "client", ca) == "other"
    for name, value in (("endpoint", "client"), ("verify-peer", False)):
        error = daemon.error("qom-set", path="tls0", property=name,
                             value=value)
        assert name in error.desc and "cannot be changed" in error.desc


def test_node_reconnects_with_new_credentials(daemons, image, box):
    """After the authority has changed on both sides."""
    server, client = daemons(), daemons()
    for n in range(2):
        authority = certs.Authority(box / f"ca{n}")
        for role in ("server", "client"):
            authority.issue(box / "tls", role, "localhost")
        if n == 0:
            server.add_creds(box / "tls")
            server.serve_file(image, tls="tls0")
            nbdservers.add_client_creds(client, box / "tls", "c")
            client.execute("blockdev-add", {
                "driver": "nbd", "node-name": "remote", "export": "disk",
                "server": {"type": "unix", "path": str(server.nbd_path)},
                "tls-creds": "c", "tls-hostname": "localhost",
                "reconnect-delay": 30})
            client.start_nbd()
            client.add_export("remote", name="again")
    uri = f"nbd+unix:///again?socket={client.nbd_path}"
    run("nbdcopy", uri, box / "copy.img")
    server.cmd("nbd-server-stop")
    server.cmd("tls-creds-reload")
    client.cmd("tls-creds-reload")
    server.start_nbd("tls0")
    server.add_export("disk", writable=True)
    run("nbdcopy", uri, box / "copy.img")
    assert (box / "copy.img").read_bytes() == image.read_bytes()


def test_sighup_reloads_if_wanted(daemons, box, image):
    authority = certs.Authority(box / "ca")
    authority.issue(box / "tls", "server", "first")
    authority.issue(box / "client", "client")
    daemon = daemons("--sighup=reload")
    daemon.add_creds(box / "tls")
    daemon.serve_file(image, tls="tls0")
    authority.issue(box / "tls", "server", "second")
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait_log("'tls0' reloaded")
    ca = box / "client" / "ca-cert.pem"
    assert subject(daemon.nbd_path, box / "client", ca) == "second"
    (box / "tls" / "server-key.pem").unlink()
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait_log("not reloaded.*server-key.pem")
    assert subject(daemon.nbd_path, box / "client", ca) == "second"


def test_sighup_ends_by_default(daemon):
    daemon.cmd("query-version")
    os.kill(daemon.pid, signal.SIGHUP)
    assert daemon.wait() == 0


def test_sighup_takes_two_values(box):
    result = run(harness.PROGRAM, "--sighup=maybe", check=False)
    assert result.returncode == 1
    assert "reload" in result.stderr and "end" in result.stderr


# Queries and events.

def test_query_describes_certificates(daemon, tls_dir):
    daemon.add_creds(tls_dir)
    info = daemon.cmd("query-tls-creds")[0]
    assert info["id"] == "tls0" and info["qom-type"] == "tls-creds-x509"
    assert info["endpoint"] == "server" and info["verify-peer"] is True
    assert info["dir"] == str(tls_dir) and info["users"] == []
    assert {os.path.basename(f) for f in info["files"]} == {
        "ca-cert.pem", "server-cert.pem", "server-key.pem"}
    own, ca = info["certificates"]
    assert own["role"] == "own" and ca["role"] == "ca"
    assert own["subject"] == "O=blockferry test,CN=localhost"
    assert own["issuer"] == ca["subject"] == "CN=Test CA"
    assert own["names"] == ["localhost", socket.gethostname(), "127.0.0.1",
                            "::1"]
    assert own["days-left"] in (59, 60) and own["key-bits"] == 256
    assert own["key-kind"] == "EC/ECDSA"
    assert own["signature-kind"] == "ECDSA-SHA256"
    assert int(own["serial"], 16) > 0
    assert info["warnings"] == []


def test_query_tells_who_uses_them(psk_server):
    info = psk_server.cmd("query-tls-creds", id="tls0")[0]
    assert info["users"] == ["the NBD server"]
    assert info["certificates"] == []
    assert "nope" in psk_server.error("query-tls-creds", id="nope").desc


def test_event_for_what_ends_soon(daemon, box):
    authority = certs.Authority(box / "ca", valid=["expiration_days = 400"])
    authority.issue(box / "tls", "server", valid=["expiration_days = 5"])
    client = daemon.client()
    daemon.add_creds(box / "tls")
    event = client.take_event("TLS_CREDS_EXPIRING")
    assert event["data"]["days"] == 7
    assert event["data"]["days-left"] in (4, 5)
    assert event["data"]["file"].endswith("server-cert.pem")
    warnings = daemon.cmd("query-tls-creds")[0]["warnings"]
    assert any("run tls-creds-reload before that" in w for w in warnings)


# Deletion.

def test_credentials_in_use_are_not_deleted(psk_server):
    error = psk_server.error("object-del", id="tls0")
    assert error.desc == "object 'tls0' is in use by the NBD server, can " \
        "not be deleted"
    psk_server.cmd("nbd-server-stop")
    psk_server.cmd("object-del", id="tls0")


def test_failed_start_leaves_credentials_free(daemon, psk, box):
    daemon.cmd("object-add", qom_type="tls-creds-psk", id="t",
               endpoint="server", dir=str(psk))
    daemon.error("nbd-server-start", tls_creds="t", addr={
        "type": "unix", "data": {"path": str(box / "no" / "such" / "dir")}})
    daemon.cmd("object-del", id="t")
