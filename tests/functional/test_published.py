# SPDX-License-Identifier: GPL-2.0-or-later
"""What has been published about TLS for NBD and about secrets in the last ten
years, as people copy it: it works, or the error names today's form. (What has
been published about secrets on the command line: test_secrets.)"""
import base64
import os
import shutil

import pytest

import harness
import qmp
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference does not explain")

PASSWORD = "letmein"


def encrypted_directory(tls_dir, box):
    directory = box / "locked"
    shutil.copytree(tls_dir, directory)
    harness.run("openssl", "pkcs8", "-topk8", "-in",
                tls_dir / "server-key.pem", "-out",
                directory / "server-key.pem", "-passout", f"pass:{PASSWORD}")
    return directory


def openssl_recipe(box):
    """Master key, initialisation vector, encrypted data: three commands."""
    script = f"""
        openssl rand -base64 32 > key.b64
        KEY=$(base64 -d key.b64 | hexdump -v -e '/1 "%02X"')
        openssl rand -base64 16 > iv.b64
        IV=$(base64 -d iv.b64 | hexdump -v -e '/1 "%02X"')
        printf "%s" "{PASSWORD}" |
            openssl enc -aes-256-cbc -a -K $KEY -iv $IV > secret.b64
    """
    harness.run("sh", "-ec", script, cwd=box)
    return (box / "iv.b64").read_text().strip()


def test_walk_through_over_qmp(daemon, image, tls_dir, box):
    """Master key, password, credentials, server, export, client."""
    directory = encrypted_directory(tls_dir, box)
    iv = openssl_recipe(box)
    daemon.cmd("object-add", qom_type="secret", id="secmaster0",
               format="base64", file=str(box / "key.b64"))
    daemon.cmd("object-add", qom_type="secret", id="sec0", keyid="secmaster0",
               format="base64", iv=iv, file=str(box / "secret.b64"))
    daemon.cmd("object-add", qom_type="tls-creds-x509", id="tls0",
               endpoint="server", dir=str(directory), passwordid="sec0",
               verify_peer=True)
    daemon.add_file(image, "disk0")
    address = daemon.start_nbd_tcp(tls="tls0")
    daemon.cmd("nbd-server-add", device="disk0", writable=True)
    with nbd.RawNbd(address) as client:
        client.starttls(harness.client_context(tls_dir))
        client.go("disk0")
        assert client.read(0, 512) == (0, image.read_bytes()[:512])
        client.disconnect()
    harness.wait_until(lambda: daemon.cmd("query-nbd-clients") == [], 10,
                       "the client's leaving")
    daemon.cmd("nbd-server-remove", name="disk0")
    daemon.cmd("nbd-server-stop")


def test_walk_through_on_the_command_line(daemons, image, tls_dir, box):
    directory = encrypted_directory(tls_dir, box)
    iv = openssl_recipe(box)
    data = (box / "secret.b64").read_text().replace("\n", "")
    daemon = daemons(
        "--object", f"secret,id=secmaster0,format=base64,file={box}/key.b64",
        "--object", f"secret,id=sec0,keyid=secmaster0,format=base64,"
        f"data={data},iv={iv}",
        "--object", f"tls-creds-x509,id=tls0,dir={directory},endpoint=server,"
        "verify-peer=yes,passwordid=sec0",
        "--blockdev", f"file,node-name=disk0,filename={image}",
        "--nbd-server", f"addr.type=unix,addr.path={box}/nbd,tls-creds=tls0",
        "--export", "nbd,id=e,node-name=disk0")
    daemon.wait_log("export 'e' added")
    with nbd.RawNbd(box / "nbd") as client:
        client.starttls(harness.client_context(tls_dir))
        client.go("disk0")
        client.disconnect()


@pytest.mark.parametrize("command, arguments, words", [
    ("object-add", {"qom-type": "tls-creds-x509", "id": "t", "props": {
        "endpoint": "server", "dir": "/x"}}, "beside 'qom-type' and 'id'"),
    ("object-add", {"qom-type": "secret", "id": "s", "props": {
        "data": "letmein"}}, "beside 'qom-type' and 'id'"),
    ("object-add", {"qom-type": "secret", "id": "s", "data": "letmein",
                    "loaded": True}, "leave it out"),
    ("object-add", {"qom-type": "tls-creds-psk", "id": "s", "dir": "/x",
                    "loaded": True}, "leave it out"),
    ("nbd-server-start", {"addr": {"host": "localhost", "port": "9000"},
                          "tls-creds": "tls0"},
     "'addr.type' is missing: an address is {\"type\": \"inet\", \"data\": "),
    ("nbd-server-start", {"addr": {"type": "inet", "host": "localhost",
                                   "port": "9000"}},
     "'addr.data' is missing: an address is {\"type\": \"inet\", \"data\": "),
    ("nbd-server-start", {"addr": {"type": "unix", "path": "/x"}},
     "'addr.data' is missing: an address is"),
    ("nbd-server-start", {"addr": {"type": "inet", "data": {
        "host": "localhost", "port": 9000}}},
     "'addr.data.port', expected: string"),
    ("nbd-server-start", {"addr": {"type": "inet", "data": {
        "host": "localhost", "port": "0"}}, "tls-creds": "tls0"}, "tls0"),
    ("nbd-server-add", {"device": "disk9"}, "disk9"),
    ("nbd-server-add", {"id": "disk0"}, "'device' is missing"),
])
def test_old_forms_are_explained(daemon, command, arguments, words):
    with pytest.raises(qmp.QmpError) as caught:
        daemon.execute(command, arguments)
    assert words in caught.value.desc
    assert PASSWORD not in caught.value.desc


def test_secret_in_base64(daemon):
    """printf letmein | base64, and a key that is too short."""
    daemon.cmd("object-add", qom_type="secret", id="s", format="base64",
               data=base64.b64encode(PASSWORD.encode()).decode())
    daemon.cmd("object-add", qom_type="secret", id="short", data="short")
    error = daemon.error(
        "object-add", qom_type="secret", id="x", keyid="short",
        format="base64", iv=base64.b64encode(bytes(16)).decode(),
        data=base64.b64encode(os.urandom(16)).decode())
    assert "Key should be 32 bytes in length" in error.desc
