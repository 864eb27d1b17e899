# SPDX-License-Identifier: GPL-2.0-or-later
"""What managers are told about NBD clients that are turned away."""
import ssl
import time

import pytest

import certs
import harness
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference has no such event")


@pytest.fixture
def server(daemon, image, tls_dir):
    daemon.add_creds(tls_dir)
    daemon.serve_file(image, tls="tls0")
    return daemon


def attempt(daemon, act):
    """Runs act(client) with a client that is turned away."""
    with nbd.RawNbd(daemon.nbd_path) as client:
        try:
            act(client)
        except TimeoutError:
            raise
        except (nbd.Closed, ssl.SSLError, OSError):
            pass


def no_certificate(client, tls_dir):
    client.starttls(harness.client_context(tls_dir, certificate=False))
    client.option(nbd.OPT_LIST)


def garbage(client, _tls_dir):
    assert client.option_type(nbd.OPT_STARTTLS) == nbd.REP_ACK
    client.send(bytes(64))
    while client.sock.recv(4096):
        pass


def absent(client, tls_dir):
    client.starttls(harness.client_context(tls_dir))
    client.send_option(nbd.OPT_EXPORT_NAME, b"nope")
    client.assert_closed()


@pytest.mark.parametrize("act, reason, stage, words", [
    (no_certificate, "certificate", "TLS handshake", "No certificate was found"),
    (garbage, "tls-handshake", "TLS handshake", "TLS handshake failed"),
    (lambda c, d: c.option(nbd.OPT_LIST), "tls-required",
     "waiting for an option", "does not use TLS"),
    (lambda c, d: c.send_option(nbd.OPT_EXPORT_NAME, b"disk"), "tls-required",
     "export name", "does not use TLS"),
    (lambda c, d: c.send_option(nbd.OPT_LIST, magic=7), "protocol",
     "waiting for an option", "bad magic"),
    (lambda c, d: c.send(b"abc"), "connection", "waiting for an option", ""),
    (absent, "export-unknown", "export name", "'nope', which does not exist"),
])
def test_rejections_are_told(server, tls_dir, act, reason, stage, words):
    attempt(server, lambda client: act(client, tls_dir))
    data = server.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
    assert (data["reason"], data["stage"]) == (reason, stage)
    assert words in data["message"] and data["message"] in server.log()
    assert data["message"].startswith(f"connection 1 from {data['peer']}: ")


def test_foreign_certificate_is_told_by_name(server, tls_dir, box):
    other = certs.Authority(box / "other")
    other.issue(box / "mallory", "client", "mallory")
    (box / "mallory" / "ca-cert.pem").write_bytes(
        (tls_dir / "ca-cert.pem").read_bytes())

    def act(client):
        client.starttls(harness.client_context(box / "mallory"))
        client.option(nbd.OPT_LIST)

    attempt(server, act)
    data = server.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
    assert data["reason"] == "certificate"
    assert data["name"] == "O=blockferry test,CN=mallory"


@pytest.mark.parametrize("name, shown", [(b"", "''"), (b"a\0b", "'a\ufffdb'"),
                                         (b"\xff", "'\ufffd'")])
def test_odd_names_are_told(daemon, name, shown):
    daemon.start_nbd()
    attempt(daemon, lambda client: client.send_option(nbd.OPT_EXPORT_NAME,
                                                      name))
    data = daemon.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
    assert data["reason"] == "export-unknown"
    assert f"wants export {shown}, which" in data["message"]


def test_tls_client_of_a_plain_server_is_told(daemon):
    daemon.start_nbd()
    attempt(daemon, lambda client: client.option(nbd.OPT_STARTTLS))
    data = daemon.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
    assert data["reason"] == "tls-unavailable" and "tls-creds" in data["message"]


def test_a_flood_of_rejections_is_limited(server):
    """Windows of a second with one event each, and one after the last."""
    start = time.monotonic()
    for number in range(200):
        if number == 199:
            # Two loops may see their clients leave in another order.
            harness.wait_until(
                lambda: server.cmd("query-nbd-server")["clients"] == 0)
        attempt(server, lambda client: client.option(nbd.OPT_LIST))
    server.cmd("query-version")
    seconds = time.monotonic() - start
    events = [e for e in server.qmp.events
              if e["event"] == "NBD_CLIENT_REJECTED"]
    assert 1 <= len(events) <= seconds + 1
    server.qmp.take_event("NBD_CLIENT_REJECTED", connection=200)


def test_user_with_a_wrong_key_is_told_by_name(daemon, box):
    for name, keys in (("keys.psk", f"alice:{1:064x}\n"),
                       ("wrong.psk", f"alice:{2:064x}\n")):
        (box / name).write_text(keys)
    daemon.cmd("object-add", qom_type="tls-creds-psk", id="psk0",
               endpoint="server", dir=str(box))
    daemon.start_nbd("psk0")
    assert harness.run(
        "nbdinfo", f"nbds+unix://alice@localhost/?socket={daemon.nbd_path}&"
        f"tls-psk-file={box / 'wrong.psk'}", check=False).returncode
    data = daemon.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
    assert (data["reason"], data["name"]) == ("tls-handshake", "alice")
