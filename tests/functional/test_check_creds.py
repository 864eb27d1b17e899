# SPDX-License-Identifier: GPL-2.0-or-later
"""Tools for TLS credentials: the check before use, and the set-up script."""
import os
import shutil
import stat

import pytest

import certs
import harness
from harness import run

pytestmark = pytest.mark.ours("the reference has no such tools")
SCRIPT = harness.TESTS.parent / "scripts" / "make-tls-creds"


def check(options, **more):
    """Status and text of the check."""
    text = ",".join([options] + [f"{k.replace('_', '-')}={v}"
                                 for k, v in more.items()])
    result = run(harness.PROGRAM, "--check-tls-creds", text, check=False)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture
def authority(box):
    return certs.Authority(box / "ca", valid=["expiration_days = 400"])


def test_good_directory(authority, box):
    authority.issue(box / "tls", "server", "localhost",
                    valid=["expiration_days = 100"])
    status, text = check(f"dir={box}/tls", endpoint="server",
                         hostname="localhost")
    assert status == 0 and "errors: 0, warnings: 0" in text
    assert "names 'localhost', '" in text and "'127.0.0.1', '::1'" in text
    assert "ECDSA-SHA256" in text and "CN=Test CA" in text


def test_everything_wrong_is_listed(authority, box):
    directory = authority.issue(
        box / "tls", "server", lines=["ca", "cert_signing_key"],
        valid=['activation_date = "2020-01-01 00:00:00"',
               'expiration_date = "2021-01-01 00:00:00"'])
    certs.make_key(directory / "server-key.pem")
    (directory / "server-key.pem").chmod(0o644)
    (directory / "ca-crl.pem").write_text("rubbish")
    (directory / "dh-params.pem").write_text("rubbish")
    status, text = check(f"dir={directory}", endpoint="server",
                         hostname="other.example", priority="BOGUS")
    assert status == 1
    for words in ("has expired", "show a CA", "do not match", "Cannot load CRL",
                  "DH parameters", "other.example", "BOGUS", "mode 0644"):
        assert words in text, words
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) >= 7 and f"errors: {len(errors)}" in text


def test_soon_ending_certificate_is_a_warning(authority, box):
    authority.issue(box / "tls", "server", valid=["expiration_days = 29"])
    status, text = check(f"dir={box}/tls", endpoint="server")
    assert status == 0 and "warnings: 1" in text and "ends in 2" in text


def test_weak_keys_and_signatures(box):
    authority = certs.Authority(box / "ca")
    directory = authority.issue(box / "tls", "server")
    certs.certtool("--generate-privkey", "--key-type=rsa", "--bits=1024",
                   "--outfile", directory / "server-key.pem", "--no-text")
    template = authority.template(['cn = "weak"', *certs.LEAF, *certs.SERVER,
                                   *certs.VALID])
    certs.certtool("--generate-certificate", "--hash=sha1", "--load-privkey",
                   directory / "server-key.pem", "--load-ca-certificate",
                   authority.cert, "--load-ca-privkey", authority.key,
                   "--template", template, "--outfile",
                   directory / "server-cert.pem", "--no-text")
    status, text = check(f"dir={directory}", endpoint="server")
    assert status == 1
    assert "weak key" in text and "1024 bits" in text
    assert "weak signature" in text and "SHA1" in text


def test_revoked_certificate(authority, box):
    directory = authority.issue(box / "tls", "client")
    authority.revoke(directory / "client-cert.pem", directory / "ca-crl.pem")
    status, text = check(f"dir={directory}", endpoint="client")
    assert status == 1 and "has been revoked" in text


def test_key_with_a_password(authority, box):
    directory = authority.issue(box / "tls", "server")
    run("openssl", "pkcs8", "-topk8", "-in", directory / "server-key.pem",
        "-out", box / "k", "-passout", "pass:sesame")
    shutil.copy(box / "k", directory / "server-key.pem")
    for password, status in (("sesame", 0), ("simsala", 1)):
        (box / "password").write_text(password)
        assert check(f"dir={directory}", endpoint="server",
                     password_file=box / "password")[0] == status
    assert check(f"dir={directory}", endpoint="server")[0] == 1
    status, text = check(f"dir={directory}", endpoint="server",
                         password_file=box / "none")
    assert status == 1 and "password-file" in text


def test_keys_of_both_sides(box):
    (box / "keys.psk").write_text("alice:00\nbob:xy\ncarol\n")
    (box / "keys.psk").chmod(0o600)
    status, text = check(f"dir={box}", endpoint="server",
                         qom_type="tls-creds-psk")
    assert status == 1
    assert "Line 2 of" in text and "Line 3 of" in text and "8 bits" in text
    assert "xy" not in text


def test_unreadable_file_tells_its_rights(authority, box):
    """By a user who may not read it, as the daemon's might be."""
    directory = authority.issue(box / "tls", "server")
    for path in (box, directory):
        path.chmod(0o755)
    shutil.copy(harness.PROGRAM, box / "program")
    argv = [box / "program", "--check-tls-creds",
            f"dir={directory},endpoint=server"]
    if os.geteuid() == 0:
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                *argv]
        (directory / "server-key.pem").chmod(0o640)
    else:
        (directory / "server-key.pem").chmod(0o040)
    result = run(*argv, check=False)
    assert result.returncode == 1
    line = next(row for row in result.stdout.splitlines()
                if "server-key.pem: Permission denied" in row)
    assert "has mode 0" in line and "this process runs as user" in line


def test_options_are_checked(box):
    assert check(f"dir={box}")[0] == 1
    status, text = check(f"dir={box}", endpoint="middle")
    assert status == 1 and "endpoint" in text
    status, text = check(f"dir={box}", endpoint="server", colour="red")
    assert status == 1 and "colour" in text


# The set-up script.

@pytest.fixture
def made(box):
    run(SCRIPT, "--host", "server.example", "--host", "10.1.2.3", "--client",
        "one", "--client", "two", box / "set")
    return box / "set"


def test_made_set_is_good_and_private(made):
    checks = [
        (f"dir={made}/server", {"endpoint": "server", "hostname": host})
        for host in ("server.example", "10.1.2.3")]
    checks += [(f"dir={made}/clients/{name}", {"endpoint": "client"})
               for name in ("one", "two")]
    checks += [(f"dir={made}/psk/server", {
        "endpoint": "server", "qom_type": "tls-creds-psk"})]
    checks += [(f"dir={made}/psk/clients/{name}", {
        "endpoint": "client", "qom_type": "tls-creds-psk", "username": name})
        for name in ("one", "two")]
    for options, more in checks:
        status, text = check(options, **more)
        assert status == 0 and "warnings: 0" in text, text
    for path in made.rglob("*.*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    # A client gets its own key and nobody else's.
    keys = (made / "psk" / "clients" / "one" / "keys.psk").read_text()
    assert keys.startswith("one:") and "two" not in keys
    assert not (made / "server" / "ca-key.pem").exists()


def test_made_keys_are_of_their_users_alone(box):
    """A dot stands for itself."""
    for names in (("axb", "a.b"), ("a.b", "axb")):
        made = box / names[0]
        arguments = [word for name in names for word in ("--client", name)]
        for _ in "made", "renewed":
            run(SCRIPT, "--host", "localhost", *arguments, made)
        everyone = (made / "psk" / "server" / "keys.psk").read_text()
        keys = [(made / "psk" / "clients" / name / "keys.psk").read_text()
                for name in names]
        assert everyone == "".join(keys)
        for name, text in zip(names, keys):
            assert text.startswith(name + ":") and text.count("\n") == 1


@pytest.mark.peers("nbdinfo")
def test_made_set_works(daemon, image, made):
    run(SCRIPT, "--host", "localhost", "--client", "one", made)  # renewed
    for kind in ("x509", "psk"):
        daemon.cmd("object-add", qom_type=f"tls-creds-{kind}", id=kind,
                   endpoint="server",
                   dir=str(made / ("server" if kind == "x509" else
                                   "psk/server")))
    daemon.add_file(image)
    for kind, query in (
            ("x509", f"tls-certificates={made}/clients/one"),
            ("psk", f"tls-psk-file={made}/psk/clients/one/keys.psk")):
        daemon.start_nbd(kind)
        daemon.add_export("disk")
        user = "one@" if kind == "psk" else ""
        run("nbdinfo", "--size", f"nbds+unix://{user}localhost/disk?socket="
            f"{daemon.nbd_path}&{query}")
        daemon.cmd("nbd-server-stop")


def test_script_keeps_authority_and_keys(made):
    before = {p: (made / p).read_bytes() for p in (
        "ca/ca-cert.pem", "ca/ca-key.pem", "psk/clients/one/keys.psk",
        "server/server-cert.pem")}
    run(SCRIPT, "--client", "one", "--client", "three", made)
    same = {p for p, data in before.items() if (made / p).read_bytes() == data}
    assert set(before) - same == {"server/server-cert.pem"}
    users = (made / "psk" / "server" / "keys.psk").read_text().split()
    assert [u.split(":")[0] for u in users] == ["one", "two", "three"]


@pytest.mark.parametrize("arguments, words", [
    ((), "Usage"), (("--days", "x", "d"), "no number of days"),
    (("--client", "a b", "d"), "'a b'"), (("--host", 'x"', "d"), "must have"),
    (("--client", "../x", "d"), "must have"), (("--colour", "d"), "--colour"),
    (("--key-type", "dsa", "d"), "dsa"), (("d", "e"), "more than one")])
def test_script_refuses_nonsense(box, arguments, words):
    result = run(SCRIPT, *arguments, check=False, cwd=box)
    assert result.returncode == 1 and words in result.stderr
    assert list(box.iterdir()) == []
