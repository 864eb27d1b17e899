# SPDX-License-Identifier: GPL-2.0-or-later
"""The names that rules are compared with are those of the reference."""
import re
import ssl

import pytest

import certs
import harness
import rawnbd as nbd

# As openssl takes them; '+' joins parts of one name.
SUBJECTS = [
    "/C=GB/ST=London/L=London/O=Example, Org/CN=client1",
    "/CN=client1/O=Example, Org/C=GB",
    "/O=a\"b;c<d>e\\\\f=g/CN=#x",
    "/O= leading and trailing /CN=two  spaces",
    "/DC=org/DC=example/OU=Unit/CN=one+UID=u1",
    "/C=DE/O=B\u00e4r & S\u00f6hne/CN=\u65e5\u672c/emailAddress=a@example.org",
    "/CN=x/serialNumber=77/title=Dr/GN=G/SN=S/street=1 Road/postalCode=1234",
    "/O=x/ferry=unknown/CN=y",
    "".join(f"/OU={n:>064}" for n in range(30)),
]


def issue(authority, directory, subject):
    directory.mkdir()
    key, request = directory / "client-key.pem", directory / "request.pem"
    certs.make_key(key)
    config = directory / "openssl.conf"
    config.write_text("oid_section=oids\n[oids]\nferry=1.2.3.4.5\n[req]\ndistinguished_name=dn\nstring_mask=utf8only\n"
                      "[dn]\n[x]\nextendedKeyUsage=clientAuth\n")
    harness.run("openssl", "req", "-new", "-utf8", "-config", config, "-key",
                key, "-subj", subject, "-out", request)
    harness.run("openssl", "x509", "-req", "-in", request, "-CA",
                authority.cert, "-CAkey", authority.key, "-CAcreateserial",
                "-extfile", config, "-extensions", "x", "-days", "2",
                "-out", directory / "client-cert.pem")
    (directory / "ca-cert.pem").write_bytes(authority.cert.read_bytes())
    return harness.client_context(directory)


def is_let_in(daemon, context):
    try:
        with nbd.RawNbd(daemon.nbd_path) as client:
            client.starttls(context)
            return client.option(nbd.OPT_LIST)[-1].type == nbd.REP_ACK
    except TimeoutError:
        raise
    except (nbd.Closed, ssl.SSLError, OSError):
        return False


def denied_name(daemon, context):
    """The name of a client that is denied, from the log."""
    pattern = re.compile("authz check for (.*) is denied"
                         if daemon.is_reference else
                         "of the server does not allow '(.*)': only ")
    before = len(pattern.findall(daemon.log()))
    assert not is_let_in(daemon, context)
    return harness.wait_until(
        lambda: pattern.findall(daemon.log())[before:])[0]


@pytest.mark.ours("compares both")
@pytest.mark.peers(harness.REFERENCE, "openssl")
@pytest.mark.parametrize("subject", SUBJECTS, ids=range(len(SUBJECTS)))
def test_identity_is_that_of_the_reference(daemons, box, subject):
    authority = certs.Authority(box / "ca")
    authority.issue(box / "server", "server")
    pair = [daemons(), daemons(program=harness.REFERENCE, workers=False)]
    for daemon in pair:
        daemon.cmd("object-add", qom_type="authz-simple", id="a0",
                   identity="nobody")
        daemon.add_creds(box / "server")
        daemon.start_nbd("tls0", tls_authz="a0")
    context = issue(authority, box / "client", subject)
    name, = {denied_name(daemon, context) for daemon in pair}
    for daemon in pair:
        daemon.cmd("qom-set", path="a0", property="identity", value=name)
        assert is_let_in(daemon, context), (subject, name)
        daemon.cmd("qom-set", path="a0", property="identity", value=name + "x")
        assert denied_name(daemon, context) == name
