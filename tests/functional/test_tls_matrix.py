# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that can be wrong with TLS, against every client.

For each fault: what object-add says of it, what each client sees, what the log
says, and that the server goes on. The cases are made from three tables.
"""
import dataclasses
import os
import re
import shutil
import subprocess

import pytest

import certs
import harness
import rawnbd as raw
import starttls

pytestmark = pytest.mark.ours("other texts, and a log without causes")

KEY = "00112233445566778899aabbccddeeff" * 2
OTHER_KEY = "ffeeddccbbaa99887766554433221100" * 2
PAST = ['activation_date = "2020-01-01 00:00:00"',
        'expiration_date = "2021-01-01 00:00:00"']
FUTURE = ['activation_date = "2090-01-01 00:00:00"',
          'expiration_date = "2091-01-01 00:00:00"']
VALID = ["expiration_days = 100"]


# Clients: each tries to read the export; returns (success, all its output).

@dataclasses.dataclass
class Attempt:
    """How a client connects: files, kind of credentials, name of the server."""
    directory: object
    kind: str = "x509"
    host: str = "localhost"
    user: str = "alice"
    priority: str = ""


def output(*argv, stdin=""):
    result = subprocess.run(
        [str(a) for a in argv], text=True, timeout=60, input=stdin,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
        env={**harness.ENVIRONMENT, "LC_ALL": "C"}, check=False)
    return result.returncode == 0, result.stdout


def qemu_img(path, attempt):
    options = f"driver=nbd,export=disk,server.type=unix,server.path={path}"
    if attempt.kind == "plain":
        return output("qemu-img", "info", "--image-opts", options)
    creds = f"tls-creds-{attempt.kind},id=c,endpoint=client"
    if attempt.kind != "anon":
        creds += f",dir={attempt.directory}"
    if attempt.kind == "psk":
        creds += f",username={attempt.user}"
    if attempt.kind == "x509":
        # Its own checks would hide ours.
        creds += ",sanity-check=off"
        options += f",tls-hostname={attempt.host}"
    if attempt.priority:
        creds += f",priority={attempt.priority}"
    return output("qemu-img", "info", "--object", creds, "--image-opts",
                  options + ",tls-creds=c")


def nbdsh(port, attempt):
    """By TCP, because over UNIX sockets it does not check the server."""
    lines = ["import nbd", "h = nbd.NBD()", "h.set_export_name('disk')"]
    if attempt.kind != "plain":
        lines.append("h.set_tls(nbd.TLS_REQUIRE)")
    if attempt.kind == "psk":
        lines += [f"h.set_tls_psk_file('{attempt.directory}/keys.psk')",
                  f"h.set_tls_username('{attempt.user}')"]
    elif attempt.kind == "x509":
        lines.append(f"h.set_tls_certificates('{attempt.directory}')")
    host = "127.0.0.2" if attempt.host == "other" else "127.0.0.1"
    lines += [f"h.connect_tcp('{host}', '{port}')",
              "assert len(h.pread(512, 0)) == 512"]
    return output("/usr/bin/python3", "-c", "\n".join(lines))


def gnutls_cli(path, attempt):
    relay = starttls.Relay(path)
    argv = ["gnutls-cli", "--port", relay.port, "--sni-hostname",
            attempt.host, "--verify-hostname", attempt.host, "--priority",
            attempt.priority or {
                "psk": "NORMAL:-KX-ALL:+ECDHE-PSK", "x509": "NORMAL",
                "anon": "NORMAL:-VERS-TLS1.3:-KX-ALL:+ANON-DH"}[attempt.kind]]
    if attempt.kind == "x509":
        directory = attempt.directory
        argv += ["--x509cafile", directory / "ca-cert.pem"]
        if (directory / "client-cert.pem").exists():
            argv += ["--x509certfile", directory / "client-cert.pem",
                     "--x509keyfile", directory / "client-key.pem"]
    elif attempt.kind == "psk":
        keys = dict(line.split(":") for line in
                    (attempt.directory / "keys.psk").read_text().split())
        argv += [f"--pskusername={attempt.user}",
                 f"--pskkey={keys[attempt.user]}"]
    # A message that the server refuses, so that there is an answer to wait
    # for: with TLS 1.3 a refusal comes behind the handshake.
    text = output(*argv, "127.0.0.1", stdin="x" * 8 + "\n")[1]
    relay.close()
    refused = "Handshake was completed" not in text or "alert" in text
    return not refused, text


CLIENTS = {"qemu-img": qemu_img, "nbdsh": nbdsh, "gnutls-cli": gnutls_cli}


# The world: authorities and good directories, once for all cases.

class World:
    def __init__(self, path):
        self.path = path
        self.ca = certs.Authority(path / "ca", valid=VALID)
        self.other = certs.Authority(path / "other", "Other CA", valid=VALID)
        self.server = self.ca.issue(path / "server", "server", valid=VALID)
        self.client = self.ca.issue(path / "client", "client", valid=VALID)
        self.bare = path / "bare"
        self.bare.mkdir()
        shutil.copy(self.ca.cert, self.bare)
        self.psk = self.keys("psk", f"alice:{KEY}")

    def keys(self, name, *lines):
        directory = self.path / name
        directory.mkdir(exist_ok=True)
        (directory / "keys.psk").touch(mode=0o600)
        (directory / "keys.psk").write_text("\n".join(lines) + "\n")
        return directory

    def copy(self, source, name):
        shutil.copytree(source, self.path / name)
        return self.path / name

    def weak(self, name, role):
        """With an RSA key of 1024 bits."""
        directory = self.copy(self.server if role == "server" else self.client,
                              name)
        key = directory / f"{role}-key.pem"
        key.unlink()
        certs.certtool("--generate-privkey", "--key-type=rsa", "--bits=1024",
                       "--outfile", key, "--no-text")
        template = self.ca.template([
            f'cn = "weak {role}"', *certs.LEAF, *VALID,
            *(certs.SERVER if role == "server" else certs.CLIENT)])
        certs.certtool("--generate-certificate", "--load-privkey", key,
                       "--load-ca-certificate", self.ca.cert,
                       "--load-ca-privkey", self.ca.key, "--template",
                       template, "--outfile", directory / f"{role}-cert.pem",
                       "--no-text")
        return directory

    def encrypted(self, name):
        directory = self.copy(self.server, name)
        key = directory / "server-key.pem"
        harness.run("openssl", "pkcs8", "-topk8", "-in", key, "-out",
                    self.path / "k", "-passout", "pass:sesame")
        shutil.move(self.path / "k", key)
        return directory


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def make_foreign(w, name):
    directory = w.other.issue(w.path / name, "server", valid=VALID)
    shutil.copy(w.ca.cert, directory)
    return directory


def make_authority(w, name):
    directory = w.copy(w.server, name)
    shutil.copy(w.ca.cert, directory / "server-cert.pem")
    shutil.copy(w.ca.key, directory / "server-key.pem")
    return directory


def make_dated(valid):
    return lambda w, name: w.ca.issue(w.path / name, "server", valid=valid)


def make_lines(*lines, key_type="ecdsa"):
    return lambda w, name: w.ca.issue(
        w.path / name, "server", lines=list(lines), valid=VALID,
        key_type=key_type)


def make_mismatch(w, name):
    directory = w.copy(w.server, name)
    certs.make_key(directory / "server-key.pem")
    return directory


def make_unreadable(w, name):
    """Also for root, who may read everything but this."""
    directory = w.copy(w.server, name)
    (directory / "server-key.pem").unlink()
    os.symlink(directory / "server-key.pem", directory / "server-key.pem")
    return directory


def make_missing(w, name):
    directory = w.copy(w.server, name)
    (directory / "server-cert.pem").unlink()
    return directory


def make_revoked(w, name):
    directory = w.copy(w.server, name)
    w.ca.revoke(directory / "server-cert.pem", directory / "ca-crl.pem")
    return directory


def make_client_cert(w, name):
    directory = w.copy(w.server, name)
    for kind in ("cert", "key"):
        shutil.copy(w.client / f"client-{kind}.pem",
                    directory / f"server-{kind}.pem")
    return directory


# The server's faults: how they are made, what object-add says, and, if they
# can be loaded without checks, what each client sees; None if it does not mind.

SERVER_FAULTS = {
    "ca-wrong": (make_foreign, "known issuer.*server-cert.pem", {
        "qemu-img": "known issuer|not trusted",
        "nbdsh": "certificate verification",
        "gnutls-cli": "issuer is unknown"}),
    "authority-as-server": (make_authority, "show a CA.*CA:FALSE", {
        "qemu-img": "TLS handshake failed", "nbdsh": "alert",
        "gnutls-cli": "alert"}),
    "expired": (make_dated(PAST), "has expired.*issue a new", {
        "qemu-img": "expired|not trusted",
        "nbdsh": "certificate verification",
        "gnutls-cli": "expired"}),
    "not-yet-valid": (make_dated(FUTURE), "not yet active.*clock", {
        "qemu-img": "not yet|not trusted",
        "nbdsh": "certificate verification",
        "gnutls-cli": "not yet"}),
    "wrong-key-usage": (
        make_lines("encryption_key", *certs.SERVER, key_type="rsa"),
        "does not permit digital signature", {
            "qemu-img": "TLS handshake failed", "nbdsh": "alert",
            "gnutls-cli": "alert"}),
    "wrong-purpose": (make_lines(*certs.LEAF, *certs.CLIENT,
                                 'dns_name = "localhost"'), None, {
        "nbdsh": "certificate verification",
        "gnutls-cli": "does not match the intended purpose"}),
    "weak-key": (lambda w, name: w.weak(name, "server"),
                 "weak key.*1024 bits", {}),
    "key-mismatch": (make_mismatch, "do not match.*first certificate", None),
    "encrypted-key": (lambda w, name: w.encrypted(name),
                      "set 'passwordid'", None),
    "unreadable": (make_unreadable, "server-key.pem: Too many levels", None),
    "missing": (make_missing, "server-cert.pem: No such file.*holds", None),
    "revoked": (make_revoked, "revoked.*ca-crl.pem", {}),
    "client-cert-as-server": (make_client_cert, None, {
        "qemu-img": "does not match the hostname", "nbdsh": "match|owner|name",
        "gnutls-cli": "does not match"}),
}


def serve(daemon, image, client, kind, directory=None, **arguments):
    """Returns the address for that client: a path or a port."""
    tls = None
    if kind:
        tls = "tls0"
        daemon.cmd("object-add", **{
            "qom_type": f"tls-creds-{kind}", "id": tls, "endpoint": "server",
            **({"dir": str(directory)} if directory else {}), **arguments})
    daemon.add_file(image)
    if client == "nbdsh":
        address = daemon.start_nbd_tcp("0.0.0.0", tls)[1]
    else:
        address = daemon.start_nbd(tls)
    daemon.add_export("disk", writable=True)
    return address


def assert_lives(daemon, client, address, attempt=None):
    """A good client is served, if the credentials are good."""
    assert daemon.cmd("query-version")
    if attempt:
        good, text = CLIENTS[client](address, attempt)
        assert good, text
    else:
        with raw.RawNbd(("127.0.0.1", address) if client == "nbdsh"
                        else address) as peer:
            assert peer.option_type(raw.OPT_ABORT) == raw.REP_ACK


@pytest.mark.parametrize("fault", SERVER_FAULTS)
def test_object_add_explains_the_fault(daemon, world, box, fault):
    make, words, _ = SERVER_FAULTS[fault]
    directory = make(world, f"add-{fault}")
    if words is None:
        daemon.add_creds(directory)
        warnings = " ".join(daemon.cmd("query-tls-creds")[0]["warnings"])
        assert "lacks serverAuth" in warnings
        daemon.wait_log("extendedKeyUsage.*lacks serverAuth.*issue")
        return
    error = daemon.error("object-add", qom_type="tls-creds-x509", id="tls0",
                         endpoint="server", dir=str(directory))
    assert re.search(words, error.desc), error.desc
    assert str(directory) in error.desc and "property 'dir'" in error.desc


def test_object_add_explains_a_wrong_password(daemon, world):
    directory = world.encrypted("add-wrong-password")
    daemon.cmd("object-add", qom_type="secret", id="pw", data="simsala")
    error = daemon.error("object-add", qom_type="tls-creds-x509", id="tls0",
                         endpoint="server", dir=str(directory),
                         passwordid="pw")
    assert re.search("Decryption has failed.*'passwordid'.*does not open the key",
                     error.desc), error.desc
    assert "simsala" not in error.desc + daemon.log()


@pytest.mark.peers("qemu-img", "nbdsh", "gnutls-cli")
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("fault", [
    f for f, row in SERVER_FAULTS.items() if row[2] is not None])
def test_client_of_a_faulty_server(daemon, world, image, fault, client):
    make, _, sees = SERVER_FAULTS[fault]
    directory = make(world, f"{client}-{fault}")
    address = serve(daemon, image, client, "x509", directory,
                    sanity_check=False)
    good, text = CLIENTS[client](address, Attempt(world.client))
    print(text)
    words = sees.get(client)
    assert good == (words is None), text
    if words:
        assert re.search(words, text), text
        daemon.wait_log("connection 1 .*(handshake|TLS|closed)")
    assert_lives(daemon, client, address)


def client_dir(name, **options):
    """A client with a certificate of its own."""
    def make(w, client):
        path = w.path / f"{client}-client-{name}"
        authority = w.other if options.get("foreign") else w.ca
        authority.issue(path, "client", name, lines=options.get("lines"),
                        valid=options.get("valid", VALID))
        shutil.copy(w.ca.cert, path)
        return Attempt(path)
    return make


def weak_client(w, client):
    return Attempt(w.weak(f"{client}-weak-client", "client"))


def server_cert_client(w, client):
    path = w.copy(w.client, f"{client}-server-cert")
    for kind in ("cert", "key"):
        shutil.copy(w.server / f"server-{kind}.pem",
                    path / f"client-{kind}.pem")
    return Attempt(path)


def with_keys(user, key):
    return lambda w, client: Attempt(w.keys(f"{client}-{user}-{key[:2]}",
                                            f"{user}:{key}"), "psk", user=user)


ANY = "."  # the peer is told no more than TLS allows
# The client's faults: the server's kind of credentials, how it connects, what
# it sees, and what the log says.
CLIENT_FAULTS = {
    "no-certificate": ("x509", lambda w, c: Attempt(w.bare), ANY,
                       "No certificate was found.*signed by a CA in"),
    "other-authority": ("x509", client_dir("stranger", foreign=True), ANY,
                        "(No certificate was found|known issuer).*ca-cert"),
    "expired": ("x509", client_dir("late", valid=PAST), ANY,
                "has expired.*CN=late.*issue a new one"),
    "not-yet-valid": ("x509", client_dir("early", valid=FUTURE), ANY,
                      "not yet activated.*CN=early.*clock"),
    "server-cert-as-client": ("x509", server_cert_client, ANY,
                              "purpose.*CN=server.*lacks clientAuth"),
    "weak-key": ("x509", weak_client, ANY,
                 "insecure algorithm.*CN=weak client"),
    "revoked": ("x509", client_dir("revoked"), ANY,
                "has been revoked.*CN=revoked"),
    "name-mismatch": ("x509", lambda w, c: Attempt(w.client, host="other"),
                      "match|owner|certificate verification",
                      "handshake failed.*(not accept our|alert)|broke off"),
    "unknown-user": ("psk", with_keys("mallory", KEY), ANY,
                     "the user 'mallory' is not in .*keys.psk"),
    "wrong-key": ("psk", with_keys("alice", OTHER_KEY), ANY,
                  "the user 'alice' must have the key that is in"),
    "anon-against-x509": ("x509", lambda w, c: Attempt(None, "anon"), ANY,
                          "handshake failed.*by certificates"),
    # It breaks off, as it would for any other reason.
    "psk-against-x509": ("x509", lambda w, c: Attempt(w.psk, "psk"), ANY,
                         "handshake failed"),
    "x509-against-psk": ("psk", lambda w, c: Attempt(w.client), ANY,
                         "handshake failed.*by pre-shared keys"),
    "x509-against-anon": ("anon", lambda w, c: Attempt(w.client), ANY,
                          "handshake failed.*without authentication"),
    "old-tls": ("x509", lambda w, c: Attempt(
        w.client, priority="NORMAL:-VERS-ALL:+VERS-TLS1.1"), ANY,
        "handshake failed.*TLS 1.2 or later"),
    "plain-client": ("x509", lambda w, c: Attempt(None, "plain"),
                     "TLS|not permitted|tls", None),
    "plain-server": (None, lambda w, c: Attempt(w.client),
                     "TLS|tls", None),
}
# What a client cannot do.
NOT_POSSIBLE = {("anon-against-x509", "nbdsh"), ("old-tls", "nbdsh"),
                ("plain-client", "gnutls-cli"), ("plain-server", "gnutls-cli")}


@pytest.mark.peers("qemu-img", "nbdsh", "gnutls-cli")
@pytest.mark.parametrize("fault, client", [
    (f, c) for f in CLIENT_FAULTS for c in CLIENTS
    if (f, c) not in NOT_POSSIBLE])
def test_faulty_client(daemon, world, image, box, fault, client):
    kind, make, sees, log = CLIENT_FAULTS[fault]
    attempt = make(world, client)
    directory = {"x509": world.server, "psk": world.psk}.get(kind)
    if fault == "revoked":
        directory = box / "server"
        shutil.copytree(world.server, directory)
        world.ca.revoke(attempt.directory / "client-cert.pem",
                        directory / "ca-crl.pem")
    address = serve(daemon, image, client, kind, directory)
    good, text = CLIENTS[client](address, attempt)
    print(text)
    assert not good, text
    assert re.search(sees, text), text
    if log:
        daemon.wait_log(f"connection 1 .*({log})")
    assert_lives(daemon, client, address, {
        "x509": Attempt(world.client),
        "psk": Attempt(world.psk, "psk")}.get(kind))
