# SPDX-License-Identifier: GPL-2.0-or-later
"""The property record-engine of TLS credentials, on both sides."""
import ssl

import pytest

import harness
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference has one engine")

TLS13 = "NORMAL:-VERS-ALL:+VERS-TLS1.3"
CHACHA = "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305"
GCM_LAST = "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:+AES-256-GCM"


def serve(daemon, image, tls_dir, **options):
    daemon.add_creds(tls_dir, **options)
    return daemon.serve_file(image, tls="tls0")


def read(daemon, tls_dir, version=None):
    """What a client with Python's TLS is told about by the daemon."""
    context = harness.client_context(tls_dir)
    if version:
        context.maximum_version = version
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.starttls(context)
        client.go("disk")
        assert client.read(0, 65536)[0] == 0
        client_info, = daemon.cmd("query-nbd-clients")
        client.disconnect()
    return client_info["tls"]


def ipsec_mb_lacks(tls_dir):
    """Why record-engine=ipsec-mb is refused here; empty if it is not."""
    result = harness.run(
        harness.PROGRAM, "--check-tls-creds",
        f"dir={tls_dir},endpoint=server,record-engine=ipsec-mb", check=False)
    return result.stdout + result.stderr if result.returncode else ""


def qemu_img(daemon, tls_dir):
    return harness.run(
        "qemu-img", "info", "--object",
        f"tls-creds-x509,id=t,endpoint=client,dir={tls_dir}", "--image-opts",
        f"driver=nbd,export=disk,tls-creds=t,tls-hostname=localhost,"
        f"server.type=unix,server.path={daemon.nbd_path}", check=False)


@pytest.mark.parametrize("variable", [None, "own", "gnutls"])
@pytest.mark.parametrize("engine", ["auto", "own", "gnutls"])
def test_engine_is_what_the_credentials_say(daemons, image, tls_dir, engine,
                                            variable):
    daemon = daemons(env={"BLOCKFERRY_TLS_RECORDS": variable}
                     if variable else {})
    serve(daemon, image, tls_dir, record_engine=engine)
    assert daemon.cmd("query-tls-creds")[0]["record-engine"] == engine
    assert daemon.cmd("qom-get", path="/objects/tls0",
                      property="record-engine") == engine
    tls = read(daemon, tls_dir)
    wanted = variable or "own" if engine == "auto" else engine
    assert (tls["version"], tls["records"]) == ("TLS1.3", wanted)
    assert qemu_img(daemon, tls_dir).returncode == 0


def test_auto_takes_the_other_engine_where_ours_cannot(daemon, image, tls_dir):
    serve(daemon, image, tls_dir)
    assert daemon.cmd("query-tls-creds")[0]["record-engine"] == "auto"
    tls = read(daemon, tls_dir, ssl.TLSVersion.TLSv1_2)
    assert (tls["version"], tls["records"]) == ("TLS1.2", "gnutls")


def test_own_leaves_only_what_it_can_do(daemon, image, tls_dir):
    """What the priority prefers does not count then."""
    serve(daemon, image, tls_dir, record_engine="own", priority=GCM_LAST)
    tls = read(daemon, tls_dir)
    assert (tls["cipher"], tls["records"]) == ("AES-256-GCM", "own")


def test_own_refuses_peers_that_cannot(daemon, image, tls_dir):
    serve(daemon, image, tls_dir, record_engine="own")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        read(daemon, tls_dir, ssl.TLSVersion.TLSv1_2)
    daemon.wait_log("TLS handshake failed.*record-engine 'own'")
    assert read(daemon, tls_dir)["records"] == "own"


@pytest.mark.parametrize("kind, priority, words", [
    ("tls-creds-x509", CHACHA, "leaves no AES-GCM"),
    ("tls-creds-x509", "NORMAL:-VERS-TLS1.3", "leaves no TLS 1.3"),
    ("tls-creds-psk", CHACHA, "leaves no AES-GCM"),
    ("tls-creds-anon", None, "anonymous sessions do not have"),
    ("tls-creds-anon", TLS13, "anonymous sessions do not have")])
def test_own_that_cannot_be_had_is_refused(daemon, tls_dir, box, kind, priority,
                                           words):
    (box / "keys.psk").write_text(f"alice:{1:064x}\n")
    arguments = {"priority": priority} if priority else {}
    error = daemon.error(
        "object-add", qom_type=kind, id="tls0", endpoint="server",
        dir=str(box if "psk" in kind else tls_dir), record_engine="own",
        **arguments)
    assert "record-engine 'own' needs TLS 1.3 with AES-GCM" in error.desc
    assert words in error.desc and "'auto'" in error.desc
    daemon.cmd("object-add", qom_type=kind, id="tls0", endpoint="server",
               dir=str(box if "psk" in kind else tls_dir), **arguments)


def test_ipsec_mb_works_or_is_refused_with_the_reason(daemon, image, tls_dir):
    """It is there if the build has the library and the processor AES-NI."""
    lacks = ipsec_mb_lacks(tls_dir)
    if lacks:
        error = daemon.error("object-add", qom_type="tls-creds-x509",
                             id="tls0", endpoint="server", dir=str(tls_dir),
                             record_engine="ipsec-mb")
        for text in lacks, error.desc:
            assert "record-engine 'ipsec-mb' cannot be had: this " in text
            assert "leave it at 'auto'" in text
        return
    serve(daemon, image, tls_dir, record_engine="ipsec-mb")
    assert daemon.cmd("query-tls-creds")[0]["record-engine"] == "ipsec-mb"
    tls = read(daemon, tls_dir)
    assert (tls["version"], tls["records"]) == ("TLS1.3", "own")
    assert tls["cipher-library"] == "ipsec-mb"
    assert qemu_img(daemon, tls_dir).returncode == 0
    with pytest.raises((ssl.SSLError, ConnectionError)):
        read(daemon, tls_dir, ssl.TLSVersion.TLSv1_2)
    daemon.wait_log("TLS handshake failed.*record-engine 'ipsec-mb'")


def test_ipsec_mb_needs_aes_gcm(daemon, tls_dir):
    error = daemon.error("object-add", qom_type="tls-creds-x509", id="tls0",
                         endpoint="server", dir=str(tls_dir), priority=CHACHA,
                         record_engine="ipsec-mb")
    assert "record-engine 'ipsec-mb'" in error.desc
    assert ("cannot be had" in error.desc) == bool(ipsec_mb_lacks(tls_dir))


@pytest.mark.parametrize("far_engine, cipher", [
    ("own", "AES-128-GCM"), ("gnutls", "AES-256-GCM"),
    ("ipsec-mb", "AES-128-GCM"), ("ipsec-mb", "AES-256-GCM")])
def test_ipsec_mb_changes_keys_by_volume(daemons, box, tls_dir, far_engine,
                                         cipher):
    """Both sides write and read under several keys, with what there is."""
    engine = "own" if ipsec_mb_lacks(tls_dir) else "ipsec-mb"
    if far_engine == "ipsec-mb":
        far_engine = engine
    env = {"BLOCKFERRY_TLS_REKEY_RECORDS": "256",
           "G_MESSAGES_DEBUG": "bf-crypto"}
    size = 16 << 20
    data = harness.random_bytes(size)
    path = harness.make_image(box / "big.img", size, {0: data})
    source, target = daemons(env=env), daemons(name="other", env=env)
    source.add_creds(tls_dir, record_engine=far_engine,
                     priority=f"{TLS13}:-CIPHER-ALL:+{cipher}")
    source.add_file(path)
    source.start_nbd(tls="tls0")
    source.add_export("disk", writable=True)
    target.add_creds(tls_dir, endpoint="client", record_engine=engine)
    target.cmd("blockdev-add", driver="nbd", node_name="far", export="disk",
               tls_creds="tls0", tls_hostname="localhost", connections=1,
               server={"type": "unix", "path": str(source.nbd_path)})
    assert source.cmd("query-nbd-clients")[0]["tls"]["cipher"] == cipher
    target.start_nbd()
    target.add_export("far", writable=True)
    with nbd.RawNbd(target.nbd_path) as client:
        client.go("far")
        assert client.read(0, size) == (0, data)
        turned = data[::-1]
        assert client.write(0, turned) == 0
        assert client.read(0, size) == (0, turned)
        client.disconnect()
    target.cmd("nbd-server-stop")
    target.cmd("blockdev-del", node_name="far")
    for daemon in source, target:
        # gnutls does not tell what it has received.
        daemon.wait_log(r"records by (own: [1-9]\d* key updates sent, [1-9]"
                        r"|gnutls: [1-9])")


def test_unknown_engine_is_refused(daemon, tls_dir):
    error = daemon.error("object-add", qom_type="tls-creds-x509", id="tls0",
                         endpoint="server", dir=str(tls_dir),
                         record_engine="fast")
    assert "record-engine" in error.desc


def test_engine_can_be_changed(daemon, image, tls_dir):
    """Sessions after the next reload have the other one."""
    serve(daemon, image, tls_dir)
    with nbd.RawNbd(daemon.nbd_path) as before:
        before.starttls(harness.client_context(tls_dir))
        before.go("disk")
        daemon.cmd("qom-set", path="/objects/tls0", property="record-engine",
                   value="gnutls")
        assert daemon.cmd("query-tls-creds")[0]["record-engine"] == "auto"
        daemon.cmd("tls-creds-reload")
        assert daemon.cmd("query-tls-creds")[0]["record-engine"] == "gnutls"
        with nbd.RawNbd(daemon.nbd_path) as after:
            after.starttls(harness.client_context(tls_dir))
            after.go("disk")
            for client in before, after:
                assert client.read(0, 4096)[0] == 0
            assert [info["tls"]["records"] for info in
                    daemon.cmd("query-nbd-clients")] == ["own", "gnutls"]
            after.disconnect()
        before.disconnect()


@pytest.mark.parametrize("client_engine", ["own", "gnutls"])
@pytest.mark.parametrize("server_engine", ["own", "gnutls"])
def test_nodes_over_tls_have_engines_too(daemons, image, tls_dir,
                                         client_engine, server_engine):
    source, target = daemons(), daemons(name="other")
    serve(source, image, tls_dir, record_engine=server_engine)
    target.add_creds(tls_dir, endpoint="client", record_engine=client_engine)
    target.cmd("blockdev-add", driver="nbd", node_name="far", export="disk",
               tls_creds="tls0", tls_hostname="localhost",
               server={"type": "unix", "path": str(source.nbd_path)})
    target.start_nbd()
    target.add_export("far")
    with nbd.RawNbd(target.nbd_path) as client:
        client.go("far")
        assert client.read(0, 65536) == (0, image.read_bytes()[:65536])
        client.disconnect()


def test_own_client_refuses_a_server_that_cannot(daemons, image, tls_dir):
    source, target = daemons(), daemons(name="other")
    serve(source, image, tls_dir, priority=CHACHA)
    target.add_creds(tls_dir, endpoint="client", record_engine="own")
    error = target.error(
        "blockdev-add", driver="nbd", node_name="far", export="disk",
        tls_creds="tls0", tls_hostname="localhost",
        server={"type": "unix", "path": str(source.nbd_path)})
    assert "record-engine 'own' leaves only TLS 1.3 with AES-GCM" in error.desc


def test_check_tells_that_own_cannot_be_had(tls_dir):
    def check(*options):
        return harness.run(
            harness.PROGRAM, "--check-tls-creds", ",".join([
                f"dir={tls_dir},endpoint=server,record-engine=own", *options]),
            check=False)

    assert check().returncode == 0
    result = check("priority=" + CHACHA)
    assert result.returncode == 1
    assert "leaves no AES-GCM" in result.stdout + result.stderr
