# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD with TLS from the first byte (tls-mode=immediate)."""
import socket
import ssl

import pytest

import harness
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference has STARTTLS only")


@pytest.fixture
def server(daemon, image, tls_dir):
    daemon.add_creds(tls_dir)
    daemon.add_file(image)
    daemon.start_nbd("tls0", tls_mode="immediate")
    daemon.add_export("disk")
    return daemon


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(harness.LIMIT)
    sock.connect(str(path))
    return sock


def secured(path, context):
    return nbd.RawNbd(context.wrap_socket(connect(path),
                                          server_hostname="localhost"))


def test_all_is_within_tls(server, image, tls_context):
    with secured(server.nbd_path, tls_context) as client:
        assert [name for name, _ in client.list_exports()] == ["disk"]
        assert client.option_type(nbd.OPT_STARTTLS) == nbd.ERR_INVALID
        client.negotiate_structured()
        client.go("disk")
        assert client.read(0, 512)[0] == 0  # the choice was accepted before
        info, = server.cmd("query-nbd-clients")
        assert info["tls"]["name"] == "O=blockferry test,CN=client1"
        client.disconnect()
    server.wait_log("from the first byte")
    info = server.cmd("query-nbd-server")
    assert info["tls-mode"] == info["listeners"][0]["tls-mode"] == "immediate"


def test_who_comes_without_a_certificate_is_turned_away(server, tls_dir,
                                                        tls_context):
    with pytest.raises((nbd.Closed, ssl.SSLError, OSError)):
        secured(server.nbd_path, harness.client_context(
            tls_dir, certificate=False)).list_exports()
    data = server.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
    assert data["reason"] == "certificate"
    secured(server.nbd_path, tls_context).close()


def test_plain_client_is_turned_away(server, tls_context):
    """It gets no greeting, and what it says without one is no handshake."""
    with nbd.RawNbd(server.nbd_path, handshake=False) as client:
        client.send(b"\0\0\0\3" + b"IHAVEOPT" + bytes(20))
        with pytest.raises(nbd.Closed):
            client.recv(18)
    data = server.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
    assert (data["reason"], data["stage"]) == ("tls-handshake",
                                               "TLS handshake")
    secured(server.nbd_path, tls_context).close()


def test_probes_of_the_port_are_not_logged(server, tls_context):
    connect(server.nbd_path).close()
    with secured(server.nbd_path, tls_context) as client:
        client.go("disk")
        client.disconnect()
    server.wait_log("connection 2 .*disk")
    assert "connection 1 " not in server.log()


def test_authorization_comes_before_the_greeting(server, tls_dir, tls_context):
    server.cmd("nbd-server-add-listener", id="guarded", tls_creds="tls0",
               tls_mode="immediate", tls_authz="nobody", addr={
                   "type": "unix", "path": str(server.dir / "guarded")})
    with pytest.raises((nbd.Closed, ssl.SSLError, OSError)):
        secured(server.dir / "guarded", tls_context)
    data = server.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
    assert data["reason"] == "authorization"


def test_it_needs_credentials(daemon):
    error = daemon.error("nbd-server-start", tls_mode="immediate", addr={
        "type": "unix", "data": {"path": str(daemon.nbd_path)}})
    assert "tls-mode 'immediate' needs tls-creds" in error.desc
    assert not daemon.cmd("query-nbd-server")["running"]


def test_command_line(daemons, image, tls_dir, tls_context, box):
    daemon = daemons(
        "--object", f"tls-creds-x509,id=tls0,dir={tls_dir},endpoint=server",
        "--blockdev", f"file,node-name=disk,filename={image}",
        "--nbd-server", f"addr.type=unix,addr.path={box}/nbd,tls-creds=tls0,"
        "tls-mode=immediate",
        "--export", "nbd,id=e,node-name=disk")
    daemon.wait_log("export 'e' added")
    with secured(box / "nbd", tls_context) as client:
        client.go("disk")
        assert client.read(0, 512)[0] == 0
        client.disconnect()
