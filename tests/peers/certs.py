# SPDX-License-Identifier: GPL-2.0-or-later
"""Throw-away certificates, made with certtool, and pre-shared keys.

A directory has the file names that tls-creds-x509 and libnbd expect:
ca-cert.pem, {server,client}-cert.pem, {server,client}-key.pem; and keys.psk
with the key of PSK_USER, as tls-creds-psk wants it. Nothing here
is fit for use outside of tests and demos: keys are not protected.
"""
import pathlib
import secrets
import shutil
import socket
import subprocess

LEAF = ["signing_key", "encryption_key"]
SERVER = ["tls_www_server", 'dns_name = "localhost"',
          f'dns_name = "{socket.gethostname()}"',
          'ip_address = "127.0.0.1"', 'ip_address = "::1"']
CLIENT = ["tls_www_client"]
VALID = ["expiration_days = 60"]
# Of the private key in the fixture locked_dir.
PASSWORD = "correct horse battery"
PSK_USER = "alice"


def certtool(*arguments):
    result = subprocess.run(["certtool", *map(str, arguments)],
                            capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"certtool {arguments}: {result.stderr}")


def make_key(path, kind="ecdsa"):
    extra = ["--curve=secp256r1"] if kind == "ecdsa" else ["--bits=2048"]
    certtool("--generate-privkey", f"--key-type={kind}", *extra,
             "--outfile", path, "--no-text")


class Authority:
    """A certificate authority with its files in a directory of its own."""

    def __init__(self, directory, name="Test CA", lines=("ca", "cert_signing_key"),
                 valid=VALID):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.key = self.dir / "ca-key.pem"
        self.cert = self.dir / "ca-cert.pem"
        make_key(self.key)
        template = self.template([f'cn = "{name}"', *lines, *valid])
        certtool("--generate-self-signed", "--load-privkey", self.key,
                 "--template", template, "--outfile", self.cert, "--no-text")

    def template(self, lines):
        path = self.dir / "template"
        path.write_text("\n".join(lines) + "\n")
        return path

    def issue(self, directory, role, name=None, lines=None, valid=VALID,
              key_type="ecdsa"):
        """Makes {role}-cert.pem and key in directory, with our CA's copy.

        lines: template lines instead of the usual ones for the role
        """
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        key = directory / f"{role}-key.pem"
        make_key(key, key_type)
        if lines is None:
            lines = LEAF + (SERVER if role == "server" else CLIENT)
        template = self.template([
            f'cn = "{name or role}"', 'organization = "blockferry test"',
            *lines, *valid])
        certtool("--generate-certificate", "--load-privkey", key,
                 "--load-ca-certificate", self.cert, "--load-ca-privkey",
                 self.key, "--template", template, "--outfile",
                 directory / f"{role}-cert.pem", "--no-text")
        shutil.copy(self.cert, directory / "ca-cert.pem")
        return directory

    def revoke(self, certificate, path):
        """Writes a revocation list with one certificate to path."""
        template = self.template(["crl_next_update = 30", "crl_number = 1"])
        certtool("--generate-crl", "--load-ca-privkey", self.key,
                 "--load-ca-certificate", self.cert, "--load-certificate",
                 certificate, "--template", template, "--outfile", path)


def make_set(directory):
    """CA, server, client and a user's key; returns their directory."""
    directory = pathlib.Path(directory)
    authority = Authority(directory / "ca")
    authority.issue(directory, "server", "localhost")
    authority.issue(directory, "client", "client1")
    (directory / "keys.psk").write_text(
        f"{PSK_USER}:{secrets.token_hex(32)}\n")
    return directory
