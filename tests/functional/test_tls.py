# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS on the NBD server: what is refused before it, who is let in, logs."""
import pathlib
import shutil
import ssl
import struct
import threading

import pytest

import certs
import harness
import rawnbd as nbd


@pytest.fixture
def server(daemon, image, tls_dir):
    daemon.add_creds(tls_dir)
    daemon.serve_file(image, tls="tls0")
    return daemon


@pytest.fixture
def client(server):
    with nbd.RawNbd(server.nbd_path) as client:
        yield client


def can_read(address, context):
    """True if a TLS client gets data; False if it is turned away."""
    try:
        with nbd.RawNbd(address) as client:
            client.starttls(context)
            client.go("disk")
            return client.read(0, 512)[0] == 0
    except TimeoutError:
        raise
    except (nbd.Closed, ssl.SSLError, OSError):
        return False


# Before TLS.

@pytest.mark.parametrize("option, data", [
    (nbd.OPT_LIST, b""), (nbd.OPT_INFO, nbd.go_data("disk")),
    (nbd.OPT_GO, nbd.go_data("disk")), (nbd.OPT_STRUCTURED, b""),
    (nbd.OPT_LIST_META, nbd.meta_data("disk", [])), (nbd.OPT_EXT, b""),
    (nbd.OPT_SET_META, nbd.meta_data("disk", ["base:allocation"])),
    (nbd.OPT_PEEK, b"x"), (77, b"payload"), (nbd.OPT_GO, b"")])
def test_option_before_tls_is_refused(client, tls_context, option, data):
    final = client.option(option, data)[-1]
    assert final.type == nbd.ERR_TLS_REQD and final.data
    client.starttls(tls_context)
    client.go("disk")
    assert client.read(0, 512)[0] == 0


def test_export_name_before_tls_closes(client):
    client.send_option(nbd.OPT_EXPORT_NAME, b"disk")
    client.assert_closed()


@pytest.mark.ours("the reference answers that TLS is required")
def test_abort_before_tls_is_acknowledged(client):
    assert client.option_type(nbd.OPT_ABORT) == nbd.REP_ACK
    client.assert_closed()


def test_abort_before_tls_closes(client):
    client.send_option(nbd.OPT_ABORT)
    try:
        client.read_option_reply()
    except nbd.Closed:
        return
    client.assert_closed()


def test_client_that_is_not_fixed_is_closed(server):
    client = nbd.RawNbd(server.nbd_path, flags=0)
    client.send_option(nbd.OPT_EXPORT_NAME, b"disk")
    client.assert_closed()


def test_starttls_with_data_gets_no_further(client):
    client.send_option(nbd.OPT_STARTTLS, b"x")
    assert client.read_option_reply().type == nbd.ERR_INVALID
    try:
        client.send_option(nbd.OPT_GO, nbd.go_data("disk"))
        assert client.read_option_reply().type == nbd.ERR_TLS_REQD
    except nbd.Closed:
        pass


def test_bytes_injected_behind_starttls_are_not_obeyed(server, tls_context):
    """A man in the middle adds plain options behind STARTTLS."""
    client = nbd.RawNbd(server.nbd_path)
    injected = struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_STRUCTURED, 0)
    client.send(struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_STARTTLS, 0)
                + injected)
    assert client.read_option_reply().type == nbd.REP_ACK
    try:
        client.sock = tls_context.wrap_socket(client.sock,
                                              server_hostname="localhost")
    except (ssl.SSLError, OSError):
        return  # the server gave up: fine
    # If it goes on, nothing of the injected may have had an effect.
    assert client.option_type(nbd.OPT_STRUCTURED) == nbd.REP_ACK


def test_state_before_tls_is_forgotten(client, tls_context):
    assert client.option_type(nbd.OPT_STRUCTURED) == nbd.ERR_TLS_REQD
    client.starttls(tls_context)
    data = nbd.meta_data("disk", ["base:allocation"])
    assert client.option_type(nbd.OPT_SET_META, data) == nbd.ERR_INVALID
    assert client.option_type(nbd.OPT_STRUCTURED) == nbd.REP_ACK


def test_garbage_instead_of_a_handshake_closes(server):
    for seed in range(10):
        client = nbd.RawNbd(server.nbd_path)
        assert client.option_type(nbd.OPT_STARTTLS) == nbd.REP_ACK
        client.send(harness.random_bytes(500, seed))
        try:
            while client.sock.recv(4096):
                pass
        except OSError:
            pass
    assert server.cmd("query-version")


# Within TLS.

def test_tls_again_is_invalid(client, tls_context):
    client.starttls(tls_context)
    assert client.option_type(nbd.OPT_STARTTLS) == nbd.ERR_INVALID
    client.go("disk")


def test_all_options_work_within_tls(client, tls_context):
    client.starttls(tls_context)
    assert client.list_exports() == [("disk", "")]
    client.negotiate_structured()
    assert client.set_meta("disk", "base:allocation") == {
        "base:allocation": 0}
    assert client.info("disk") == nbd.REP_ACK
    client.go("disk")
    assert client.status(0, 4096) == (0, {0: [(4096, 0)]})


@pytest.mark.parametrize("version", ("TLSv1_2", "TLSv1_3"))
def test_tls_versions(server, tls_dir, version, image):
    context = harness.client_context(tls_dir)
    context.minimum_version = context.maximum_version = getattr(
        ssl.TLSVersion, version)
    with nbd.RawNbd(server.nbd_path) as client:
        client.starttls(context)
        assert client.sock.version() == version.replace("_", ".")
        client.go("disk")
        assert client.read(0, 1 << 20) == (0, image.read_bytes()[:1 << 20])


@pytest.mark.ours("the reference follows the library's defaults")
@pytest.mark.parametrize("version", ("TLSv1", "TLSv1_1"))
def test_old_tls_versions_are_refused(server, tls_dir, version):
    context = harness.client_context(tls_dir)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = getattr(
            ssl.TLSVersion, version)
    assert not can_read(server.nbd_path, context)


@pytest.mark.ours("the reference ends without close_notify")
def test_disconnect_is_a_clean_end_of_tls(client, tls_context):
    client.starttls(tls_context)
    client.sock.suppress_ragged_eofs = False
    client.go("disk")
    client.send_request(nbd.CMD_DISC)
    assert client.sock.recv(100) == b""


@pytest.mark.ours("the reference ends without close_notify")
def test_the_end_of_tls_is_answered_in_negotiation(client, tls_context):
    client.starttls(tls_context)
    assert client.list_exports()
    client.sock.unwrap().close()  # fails without a close_notify in return


def test_large_transfers_both_ways(client, tls_context, image):
    client.starttls(tls_context)
    client.negotiate_structured()
    client.go("disk")
    data = harness.random_bytes(4 << 20, seed=6)
    assert client.write(0, data) == 0
    assert client.read(0, 4 << 20) == (0, data)
    assert image.read_bytes() == data


def test_pipelined_requests_within_tls(client, tls_context, image):
    client.starttls(tls_context)
    client.go("disk")
    content = image.read_bytes()
    client.send(b"".join(client.request_bytes(
        nbd.CMD_READ, n * 4096, 4096, cookie=n) for n in range(200)))
    left = set(range(200))
    while left:
        reply, data = client.read_reply(4096)
        assert data == content[reply.cookie * 4096:][:4096]
        left.remove(reply.cookie)


# Who is let in.

def test_client_without_certificate_is_turned_away(server, tls_dir):
    context = harness.client_context(tls_dir, certificate=False)
    assert not can_read(server.nbd_path, context)
    server.wait_log(r"(?i)certificate")


def test_client_of_another_authority_is_turned_away(server, tls_dir, box):
    other = certs.Authority(box / "other")
    other.issue(box / "mallory", "client", "mallory")
    shutil.copy(tls_dir / "ca-cert.pem", box / "mallory")
    assert not can_read(server.nbd_path,
                        harness.client_context(box / "mallory"))
    server.wait_log(r"(?i)certificate")


def test_client_with_expired_certificate_is_turned_away(daemon, image, box):
    authority = certs.Authority(box / "ca")
    authority.issue(box / "server", "server")
    authority.issue(box / "late", "client", valid=[
        'activation_date = "2020-01-01 00:00:00"',
        'expiration_date = "2021-01-01 00:00:00"'])
    authority.issue(box / "good", "client")
    daemon.add_creds(box / "server")
    daemon.serve_file(image, tls="tls0")
    assert can_read(daemon.nbd_path, harness.client_context(box / "good"))
    assert not can_read(daemon.nbd_path, harness.client_context(box / "late"))
    daemon.wait_log("expired|not trusted")


@pytest.mark.ours("the reference gives the library's words")
def test_client_whose_certificate_may_not_sign_is_turned_away(daemon, image,
                                                              box):
    authority = certs.Authority(box / "ca")
    authority.issue(box / "server", "server")
    authority.issue(box / "weak", "client", key_type="rsa",
                    lines=["encryption_key", *certs.CLIENT])
    daemon.add_creds(box / "server")
    daemon.serve_file(image, tls="tls0")
    assert not can_read(daemon.nbd_path, harness.client_context(box / "weak"))
    daemon.wait_log("keyUsage of the peer's certificate lacks digitalSignature")


@pytest.mark.ours("the reference gives the library's words")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2,
                                     ssl.TLSVersion.TLSv1_3])
def test_client_that_does_not_trust_us_is_explained(server, tls_dir, box,
                                                    version):
    """With TLS 1.3 it says so before it encrypts anything."""
    certs.Authority(box / "other").issue(box / "mallory", "client")
    for directory, name, alert in (
            (box / "mallory", "localhost", "CA is unknown"),
            (tls_dir, "other.example", "Certificate is bad")):
        context = harness.client_context(directory)
        context.minimum_version = context.maximum_version = version
        with nbd.RawNbd(server.nbd_path) as client, \
                pytest.raises(ssl.SSLCertVerificationError):
            client.starttls(context, name)
        server.wait_log(f"refused with alert '{alert}'; our certificate must")


def test_revoked_client_is_turned_away(daemon, image, box):
    authority = certs.Authority(box / "ca")
    authority.issue(box / "server", "server")
    authority.issue(box / "good", "client")
    authority.issue(box / "bad", "client", "revoked one")
    authority.revoke(box / "bad" / "client-cert.pem",
                     box / "server" / "ca-crl.pem")
    daemon.add_creds(box / "server")
    daemon.serve_file(image, tls="tls0")
    assert can_read(daemon.nbd_path, harness.client_context(box / "good"))
    assert not can_read(daemon.nbd_path, harness.client_context(box / "bad"))
    daemon.wait_log("revoked")


def test_verify_peer_off_lets_everyone_in(daemon, image, tls_dir):
    daemon.add_creds(tls_dir, verify_peer=False)
    daemon.serve_file(image, tls="tls0")
    assert can_read(daemon.nbd_path, harness.client_context(
        tls_dir, certificate=False))


def test_priority_is_obeyed(daemon, image, tls_dir):
    daemon.add_creds(tls_dir,
                     priority="NORMAL:-VERS-ALL:+VERS-TLS1.2")
    daemon.serve_file(image, tls="tls0")
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.starttls(harness.client_context(tls_dir))
        assert client.sock.version() == "TLSv1.2"
        client.go("disk")


def test_rsa_certificates_work(daemon, image, box):
    authority = certs.Authority(box / "ca")
    for role in ("server", "client"):
        authority.issue(box / "rsa", role, key_type="rsa")
    daemon.add_creds(box / "rsa")
    daemon.serve_file(image, tls="tls0")
    assert can_read(daemon.nbd_path, harness.client_context(box / "rsa"))


@pytest.mark.ours("the reference goes on with a copy that nobody sees")
def test_credentials_stay_while_the_server_runs(server, tls_context):
    assert "the NBD server" in server.error("object-del", id="tls0").desc
    assert can_read(server.nbd_path, tls_context)
    server.cmd("nbd-server-stop")
    server.cmd("object-del", id="tls0")


# Credentials: what is checked when they are added.

@pytest.fixture
def authority(box):
    return certs.Authority(box / "ca")


def creds_error(daemon, directory, **arguments):
    error = daemon.error("object-add", qom_type="tls-creds-x509", id="t",
                         endpoint="server", dir=str(directory), **arguments)
    assert error.cls == "GenericError"
    names = [p["name"] for p in daemon.cmd("qom-list", path="/objects")]
    assert "t" not in names
    return error.desc


@pytest.mark.parametrize("missing", ("ca-cert.pem", "server-cert.pem",
                                     "server-key.pem"))
def test_missing_file_is_named(daemon, tls_dir, box, missing):
    shutil.copytree(tls_dir, box / "tls")
    (box / "tls" / missing).unlink()
    desc = creds_error(daemon, box / "tls")
    assert missing in desc and "No such file" in desc


def test_missing_dir_is_named(daemon):
    error = daemon.error("object-add", qom_type="tls-creds-x509", id="t",
                         endpoint="server")
    assert "dir" in error.desc


PAST = ['activation_date = "2020-01-01 00:00:00"',
        'expiration_date = "2021-01-01 00:00:00"']
FUTURE = ['activation_date = "2090-01-01 00:00:00"',
          'expiration_date = "2091-01-01 00:00:00"']


@pytest.mark.parametrize("lines, valid, word", [
    (None, PAST, "expired"),
    (None, FUTURE, "not yet active"),
    (["ca", "cert_signing_key"], certs.VALID, "show a CA"),
    (["encryption_key"], certs.VALID, "digital signature"),
])
def test_unfit_server_certificate_is_explained(daemon, authority, box, lines,
                                               valid, word):
    directory = authority.issue(box / "tls", "server", lines=lines,
                                valid=valid, key_type="rsa")
    desc = creds_error(daemon, directory)
    assert word in desc and "server-cert.pem" in desc


@pytest.mark.parametrize("lines, valid, word", [
    (("ca", "cert_signing_key"), PAST, "expired"),
    (("ca", "cert_signing_key"), FUTURE, "not yet active"),
    (("ca", "crl_signing_key"), certs.VALID, "certificate signing"),
])
def test_unfit_ca_certificate_is_explained(daemon, box, lines, valid, word):
    authority = certs.Authority(box / "ca", lines=lines, valid=valid)
    directory = authority.issue(box / "tls", "server")
    desc = creds_error(daemon, directory)
    assert word in desc and "ca-cert.pem" in desc


def test_critical_purpose_is_checked(daemon, authority, box):
    """certtool marks no purpose critical; a non-critical one is accepted."""
    directory = authority.issue(
        box / "tls", "server", lines=certs.LEAF + ["tls_www_client"])
    daemon.add_creds(directory, "lenient")


def test_foreign_certificate_is_explained(daemon, authority, box):
    directory = authority.issue(box / "tls", "server")
    other = certs.Authority(box / "other")
    shutil.copy(other.cert, directory / "ca-cert.pem")
    desc = creds_error(daemon, directory)
    assert "server-cert.pem" in desc and "issuer" in desc


def test_key_of_another_certificate_is_explained(daemon, authority, box):
    directory = authority.issue(box / "tls", "server")
    certs.make_key(directory / "server-key.pem")
    for sanity in (True, False):
        desc = creds_error(daemon, directory, sanity_check=sanity)
        assert "server-key.pem" in desc and "match" in desc


def test_broken_files_are_explained(daemon, authority, box):
    directory = authority.issue(box / "tls", "server")
    for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
        good = (directory / name).read_bytes()
        for bad in (b"", b"nonsense\n", good[:len(good) // 2]):
            (directory / name).write_bytes(bad)
            assert name in creds_error(daemon, directory)
        (directory / name).write_bytes(good)
    daemon.add_creds(directory)


def test_sanity_check_off_takes_an_expired_certificate(daemon, authority,
                                                       box):
    directory = authority.issue(box / "tls", "server", valid=PAST)
    creds_error(daemon, directory)
    daemon.add_creds(directory, "t", sanity_check=False)


@pytest.mark.ours("the reference notices at the first client only")
def test_bad_priority_is_refused_at_once(daemon, tls_dir):
    assert "BOGUS" in creds_error(daemon, tls_dir, priority="BOGUS")


def test_encrypted_key_needs_its_password(daemon, authority, box):
    directory = authority.issue(box / "tls", "server")
    key = directory / "server-key.pem"
    harness.run("certtool", "--to-p8", "--load-privkey", key, "--outfile",
                box / "enc.pem", "--password", "opensesame", "--pkcs-cipher",
                "aes-256")
    shutil.copy(box / "enc.pem", key)
    assert "server-key.pem" in creds_error(daemon, directory)
    daemon.cmd("object-add", qom_type="secret", id="pw", data="opensesame")
    daemon.cmd("object-add", qom_type="secret", id="no", data="wrong")
    assert "server-key.pem" in creds_error(daemon, directory,
                                           passwordid="no")
    assert "nope" in creds_error(daemon, directory, passwordid="nope")
    daemon.add_creds(directory, passwordid="pw")


def test_client_directory_needs_only_the_authority(daemon, tls_dir, box):
    (box / "c").mkdir()
    shutil.copy(tls_dir / "ca-cert.pem", box / "c")
    daemon.cmd("object-add", qom_type="tls-creds-x509", id="t",
               endpoint="client", dir=str(box / "c"))


def test_server_needs_server_credentials(daemon, tls_dir):
    daemon.cmd("object-add", qom_type="tls-creds-x509", id="c",
               endpoint="client", dir=str(tls_dir))
    daemon.cmd("object-add", qom_type="secret", id="s", data="x")
    address = {"type": "unix", "data": {"path": str(daemon.nbd_path)}}
    for creds, words in (("c", "server endpoint"), ("nope", "nope"),
                         ("s", "'s'")):
        error = daemon.error("nbd-server-start", addr=address,
                             tls_creds=creds)
        assert words in error.desc
    daemon.start_nbd()  # nothing was left behind


def test_certificate_through_an_intermediate(daemon, image, box):
    """The intermediate stands in ca-cert.pem, as the manual asks for."""
    root = certs.Authority(box / "root")
    middle = certs.Authority(box / "middle", "Middle")
    # Let the root sign the intermediate's key.
    template = root.template(['cn = "Middle"', "ca", "cert_signing_key",
                              *certs.VALID])
    certs.certtool("--generate-certificate", "--load-privkey", middle.key,
                   "--load-ca-certificate", root.cert, "--load-ca-privkey",
                   root.key, "--template", template, "--outfile",
                   middle.cert, "--no-text")
    directory = box / "tls"
    middle.issue(directory, "server")
    middle.issue(directory, "client")
    bundle = middle.cert.read_text() + root.cert.read_text()
    (directory / "ca-cert.pem").write_text(bundle)
    daemon.add_creds(directory)
    daemon.serve_file(image, tls="tls0")
    assert can_read(daemon.nbd_path, harness.client_context(directory))


# Logs.

@pytest.mark.ours("the reference logs less")
def test_log_tells_who_connected_and_how(daemon, image, tls_dir, tls_context):
    daemon.add_creds(tls_dir)
    address = daemon.start_nbd_tcp(tls="tls0")
    daemon.add_file(image)
    daemon.add_export("disk")
    daemon.wait_log(rf"(?i)listen.*{address[1]}")
    daemon.wait_log(r"(?i)export.*exp-disk")
    with nbd.RawNbd(address) as client:
        client.starttls(tls_context)
        client.go("disk")
        peer = client.sock.getsockname()[1]
        daemon.wait_log(rf"127\.0\.0\.1:{peer}")
        daemon.wait_log(r"TLS ?v?1\.3")
        daemon.wait_log(r"CN=client1")
        daemon.wait_log(r"AES|CHACHA")
    daemon.cmd("block-export-del", id="exp-disk", mode="hard")
    daemon.wait_log(r"(?i)export.*exp-disk.*(removed|deleted|gone)")


@pytest.mark.ours("the reference logs less")
def test_log_tells_why_a_handshake_failed(daemon, image, tls_dir):
    daemon.add_creds(tls_dir)
    address = daemon.start_nbd_tcp(tls="tls0")
    daemon.add_file(image)
    daemon.add_export("disk")
    context = harness.client_context(tls_dir, certificate=False)
    client = nbd.RawNbd(address)
    peer = client.sock.getsockname()[1]
    try:
        client.starttls(context)
        client.go("disk")
    except (nbd.Closed, ssl.SSLError, OSError):
        pass
    daemon.wait_log(rf"(?m)^.*127\.0\.0\.1:{peer}.*(?i:certificate).*$")


# Many at once.

def test_many_handshakes_at_once(server, tls_context):
    results = []

    def work():
        results.append(can_read(server.nbd_path, tls_context))

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(harness.LIMIT)
    assert results == [True] * 32


def test_half_open_tls_handshakes_do_not_stop_others(server, tls_context):
    half_open = []
    for _ in range(16):
        client = nbd.RawNbd(server.nbd_path)
        assert client.option_type(nbd.OPT_STARTTLS) == nbd.REP_ACK
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        half_open.append(client)
    assert can_read(server.nbd_path, tls_context)
    for client in half_open:
        client.close()


def test_credentials_are_read_once(daemon, image, tls_dir, box, tls_context):
    copy = pathlib.Path(shutil.copytree(tls_dir, box / "tls"))
    daemon.add_creds(copy)
    daemon.serve_file(image, tls="tls0")
    shutil.rmtree(copy)
    assert can_read(daemon.nbd_path, tls_context)


@pytest.mark.parametrize("version", ("TLSv1_2", "TLSv1_3"))
def test_who_leaves_at_the_end_of_the_handshake(server, tls_dir, version):
    """Our last words reach nobody."""
    context = harness.client_context(tls_dir)
    context.maximum_version = context.minimum_version = \
        getattr(ssl.TLSVersion, version)
    for _ in range(20):
        with nbd.RawNbd(server.nbd_path) as client:
            assert client.option_type(nbd.OPT_STARTTLS) == nbd.REP_ACK
            received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(received, to_send,
                                   server_hostname="localhost")
            for _ in ("hello", "finished"):
                while not to_send.pending:
                    try:
                        tls.do_handshake()
                    except ssl.SSLWantReadError:
                        pass
                    if not to_send.pending:
                        received.write(client.sock.recv(65536))
                client.send(to_send.read())
    assert server.cmd("query-nbd-server")["running"]
