# SPDX-License-Identifier: GPL-2.0-or-later
"""What managers are told about NBD clients that use exports, and what they
can do about them."""
import os
import socket
import time

import pytest

import harness
import rawnbd as nbd
import stuckfs

KIB = 1024
MIB = 1 << 20


def clients(daemon, **arguments):
    return daemon.cmd("query-nbd-clients", **arguments)


def one(daemon, **arguments):
    client, = clients(daemon, **arguments)
    return client


def counted(daemon, **wanted):
    """The only client, once its numbers of requests are these: the daemon has
    counted a request before its reply is there, but not those that a client
    does not wait for."""
    def look():
        client = one(daemon)
        found = {kind.replace("-", "_"): stats["requests"]
                 for kind, stats in client["requests"].items()}
        return client if found == wanted else None
    return harness.wait_until(look, 10, f"requests {wanted}")


def wait_idle(daemon):
    """A request is counted before its reply is sent, and in flight until it
    was."""
    harness.wait_until(lambda: one(daemon)["in-flight"] == 0, 10,
                       "the end of all requests")


def wait_active(daemon):
    """Waits until nobody is negotiating: a client knows that its choice is
    accepted before the daemon has brought it to where it is served."""
    harness.wait_until(lambda: all(c["state"] == "active"
                                   for c in clients(daemon)), 10,
                       "the end of negotiations")


def use(daemon, name="disk"):
    peer = nbd.RawNbd(daemon.nbd_path).go(name)
    wait_active(daemon)
    return peer


@pytest.fixture
def server(daemon, image):
    daemon.serve_file(image)
    return daemon


pytestmark = pytest.mark.ours("the reference has no such commands")


# Who is connected.

def test_nobody(daemon, image):
    assert clients(daemon) == []
    daemon.serve_file(image)
    assert clients(daemon) == []
    assert clients(daemon, export_id="exp-disk") == []
    error = daemon.error("query-nbd-clients", export_id="nope")
    assert error.desc == "Export 'nope' is not found"


def test_client_in_negotiation(server):
    before = time.time_ns()
    with nbd.RawNbd(server.nbd_path):
        client = one(server)
        assert client.keys() == {"connection", "peer", "state", "since-ns"}
        assert client["connection"] == 1
        assert client["state"] == "negotiating"
        assert client["peer"].startswith("unix pid ")
        assert abs(client["since-ns"] - before) < 60e9
        assert clients(server, export_id="exp-disk") == []


def test_several_clients_of_two_exports(server):
    server.execute("blockdev-add", {"driver": "null-co", "node-name": "null",
                                    "size": MIB})
    server.add_export("null")
    peers = [use(server, name) for name in ("disk", "null", "disk")]
    assert [(c["connection"], c["export-id"], c["state"])
            for c in clients(server)] == [
        (1, "exp-disk", "active"), (2, "exp-null", "active"),
        (3, "exp-disk", "active")]
    assert [c["connection"] for c in clients(server, export_id="exp-disk")
            ] == [1, 3]
    peers[0].disconnect()
    harness.wait_until(lambda: len(clients(server)) == 2, 10, "its leaving")
    assert [c["connection"] for c in clients(server)] == [2, 3]
    for peer in peers:
        peer.close()


def test_plain_client_over_tcp(daemon, image):
    daemon.add_file(image)
    address = daemon.start_nbd_tcp()
    daemon.add_export()
    with nbd.RawNbd(address) as peer:
        peer.go("disk")
        wait_active(daemon)
        host, port = peer.sock.getsockname()
        client = one(daemon)
        assert client["peer"] == f"{host}:{port}"
        assert "tls" not in client


def test_tls_client_by_certificate(daemon, image, tls_dir):
    daemon.add_creds(tls_dir)
    daemon.serve_file(image, tls="tls0")
    with nbd.RawNbd(daemon.nbd_path) as peer:
        peer.starttls(harness.client_context(tls_dir))
        assert one(daemon)["state"] == "negotiating"
        peer.go("disk")
        wait_active(daemon)
        tls = one(daemon)["tls"]
        assert tls["version"] == peer.sock.version().replace("v", "")
        # As Python names it, TLS_AES_128_GCM_SHA256.
        assert tls["cipher"].replace("-", "_") in peer.sock.cipher()[0]
        assert tls["name"] == "O=blockferry test,CN=client1"
        assert tls["proved"] is True
        assert tls["records"] == ("own" if "GCM" in tls["cipher"]
                                  else "gnutls")


@pytest.mark.parametrize("engine", ("own", "gnutls"))
def test_record_engine_is_told(daemons, image, tls_dir, engine):
    daemon = daemons(env={"BLOCKFERRY_TLS_RECORDS": "gnutls"}
                     if engine == "gnutls" else {})
    daemon.add_creds(tls_dir, **{
        "verify-peer": False,
        "priority": "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM"})
    daemon.serve_file(image, tls="tls0")
    with nbd.RawNbd(daemon.nbd_path) as peer:
        peer.starttls(harness.client_context(tls_dir, certificate=False))
        peer.go("disk")
        wait_active(daemon)
        tls = one(daemon)["tls"]
        # Only on processors that are fast at it.
        assert tls.pop("cipher-library", "ipsec-mb") == "ipsec-mb"
        assert tls == {
            "version": "TLS1.3", "cipher": "AES-256-GCM", "records": engine,
            "proved": False}


def test_tls_client_by_key(daemon, box, image):
    (box / "keys.psk").write_text(f"alice:{1:064x}\n")
    daemon.cmd("object-add", qom_type="tls-creds-psk", id="psk0",
               endpoint="server", dir=str(box))
    daemon.serve_file(image, tls="psk0")
    handle = pytest.importorskip("nbd").NBD()
    handle.set_uri_allow_local_file(True)
    handle.connect_uri(f"nbds+unix://alice@localhost/disk?socket="
                       f"{daemon.nbd_path}&tls-psk-file={box / 'keys.psk'}")
    wait_active(daemon)
    tls = one(daemon)["tls"]
    assert (tls["name"], tls["proved"]) == ("alice", True)
    handle.shutdown()


# What it does.

def total_bins(stats):
    latency = stats["latency"]
    assert len(latency["bins"]) == len(latency["boundaries"]) + 1
    assert latency["boundaries"] == sorted(latency["boundaries"])
    return sum(latency["bins"])


def test_requests_are_counted_by_kind(server):
    with nbd.RawNbd(server.nbd_path) as peer:
        peer.negotiate_structured()
        peer.set_meta("disk", "base:allocation")
        peer.go("disk")
        wait_active(server)
        assert one(server)["requests"] == {}
        peer.write(0, b"x" * 8 * KIB)
        peer.write(64 * KIB, b"y" * 200 * KIB)
        for _ in range(3):
            assert peer.read(0, 4 * KIB)[0] == 0
        assert peer.read(0, 512 * KIB)[0] == 0
        peer.request(nbd.CMD_WRITE_ZEROES, 0, 16 * KIB)
        peer.request(nbd.CMD_TRIM, 0, 32 * KIB)
        peer.request(nbd.CMD_FLUSH)
        peer.request(nbd.CMD_CACHE, 0, 4 * KIB)
        assert peer.status(0, 64 * KIB)[0] == 0
        client = counted(server, write=2, read=4, write_zeroes=1, trim=1,
                         flush=1, cache=1, block_status=1)
        requests = client["requests"]
        assert {kind: stats["bytes"] for kind, stats in requests.items()} == {
            "write": 208 * KIB, "read": (12 + 512) * KIB,
            "write-zeroes": 16 * KIB, "trim": 32 * KIB, "flush": 0,
            "cache": 4 * KIB, "block-status": 64 * KIB}
        for stats in requests.values():
            assert stats["failed"] == 0
            assert total_bins(stats) == stats["requests"]
            assert 0 < stats["time-ns"] < 60e9
        assert client["failed-requests"] == 0
        assert client["idle-ns"] < 60e9
        wait_idle(server)


def test_failures_are_counted(server):
    with use(server) as peer:
        size = peer.size
        assert peer.read(size, 512)[0] == nbd.EINVAL
        assert peer.write(size, bytes(512)) == nbd.ENOSPC
        assert peer.request(77) == nbd.EINVAL
        assert peer.read(0, 512)[0] == 0
        client = counted(server, read=2, write=1, invalid=1)
        assert client["failed-requests"] == 3
        assert client["requests"]["read"]["failed"] == 1
        assert client["requests"]["read"]["bytes"] == 512
        assert client["requests"]["invalid"]["failed"] == 1


def test_requests_in_flight_and_their_latency(daemon, image, tls_dir):
    """A throttle holds them for a time that is known."""
    daemon.add_file(image)
    daemon.cmd("object-add", qom_type="throttle-group", id="slow",
               limits={"iops-total": 2})
    daemon.start_nbd()
    daemon.add_export(throttle_group="slow")
    with use(daemon) as peer:
        cookies = [peer.send_request(nbd.CMD_READ, 0, 512) for _ in range(4)]
        harness.wait_until(lambda: one(daemon)["in-flight"] >= 2, 10,
                           "requests in flight")
        for _ in cookies:
            assert peer.read_reply(512)[0].error == 0
        client = counted(daemon, read=4)
        stats = client["requests"]["read"]
        latency = stats["latency"]
        assert stats["time-ns"] > 500e6
        # The last of them waited longest, more than half a second.
        assert latency["boundaries"][-2] >= 1 << 28
        wait_idle(daemon)


def test_each_connection_counts_for_itself(server):
    with use(server) as first, use(server) as second:
        first.write(0, bytes(4096))
        for _ in range(2):
            second.read(0, 512)
        found = [{kind: s["requests"] for kind, s in c["requests"].items()}
                 for c in clients(server)]
        assert found == [{"write": 1}, {"read": 2}]


def test_exports_keep_what_their_clients_have_done(server):
    def requests():
        export, = server.cmd("query-block-exports")
        return {kind: (s["requests"], s["bytes"], total_bins(s))
                for kind, s in export["requests"].items()}

    assert requests() == {}
    first, second = use(server), use(server)
    first.read(0, 4096)
    second.read(0, 512)
    second.write(0, bytes(1024))
    assert requests() == {"read": (2, 4608, 2), "write": (1, 1024, 1)}
    for peer in (first, second):
        peer.disconnect()
    harness.wait_until(lambda: clients(server) == [], 10, "their leaving")
    assert requests() == {"read": (2, 4608, 2), "write": (1, 1024, 1)}
    with use(server) as third:
        third.read(0, 512)
        assert requests()["read"] == (3, 5120, 3)


# The server.

def test_server_is_told(daemon, image, tls_dir):
    assert daemon.cmd("query-nbd-server") == {"running": False}
    daemon.serve_file(image)
    daemon.add_export("disk", "second", name="second")
    info = daemon.cmd("query-nbd-server")
    listener, = info.pop("listeners")
    assert info == {**listener, **info}
    assert info == {
        "running": True, "handshake-max-seconds": 10, "max-connections": 100,
        "max-connections-per-address": 0,
        "clients": 0, "negotiating": 0, "waiting": 0, "exports": 2,
        "idle-max-seconds": 0,
        "addresses": [{"type": "unix", "path": str(daemon.nbd_path),
                       "abstract": False, "tight": True}]}
    daemon.cmd("nbd-server-stop")
    assert daemon.cmd("query-nbd-server") == {"running": False}


def test_settings_and_chosen_port_are_told(daemon, image, tls_dir):
    daemon.add_creds(tls_dir)
    daemon.cmd("object-add", qom_type="authz-simple", id="who",
               identity="O=blockferry test,CN=client1")
    daemon.cmd("nbd-server-start", addr={"type": "inet", "data": {
        "host": "127.0.0.1", "port": "0"}}, tls_creds="tls0", tls_authz="who",
        max_connections=1, handshake_max_seconds=0)
    daemon.add_file(image)
    daemon.add_export()
    info = daemon.cmd("query-nbd-server")
    listener, = info.pop("listeners")
    assert info == {**listener, **info}
    address, = info.pop("addresses")
    assert info == {
        "running": True, "tls-creds": "tls0", "tls-mode": "starttls",
        "tls-authz": "who",
        "handshake-max-seconds": 0, "max-connections": 1,
        "max-connections-per-address": 0, "clients": 0,
        "idle-max-seconds": 0, "negotiating": 0,
        "waiting": 0, "exports": 1}
    assert (address["type"], address["host"]) == ("inet", "127.0.0.1")
    with nbd.RawNbd(("127.0.0.1", int(address["port"]))) as peer:
        peer.starttls(harness.client_context(tls_dir))
        peer.go("disk")
        wait_active(daemon)
        assert daemon.cmd("query-nbd-server")["clients"] == 1
        with nbd.RawNbd(("127.0.0.1", int(address["port"])),
                        handshake=False):
            harness.wait_until(
                lambda: daemon.cmd("query-nbd-server")["waiting"] == 1, 10,
                "the one that waits")


def test_abstract_address_is_told(daemon, box):
    daemon.cmd("nbd-server-start", addr={"type": "unix", "data": {
        "path": f"blockferry{box}", "abstract": True}})
    assert daemon.cmd("query-nbd-server")["addresses"] == [
        {"type": "unix", "path": f"blockferry{box}", "abstract": True,
         "tight": True}]


# Coming and going.

def arrival(daemon, **wanted):
    return daemon.qmp.take_event("NBD_CLIENT_CONNECTED", **wanted)["data"]


def departure(daemon, **wanted):
    return daemon.qmp.take_event("NBD_CLIENT_DISCONNECTED", **wanted)["data"]


def test_client_comes_and_goes(server):
    with use(server) as peer:
        peer.read(0, 512)
        peer.read(1 << 40, 512)
        data = arrival(server)
        name = data.pop("peer")
        assert name.startswith("unix pid ")
        assert data == {"connection": 1, "export-id": "exp-disk", "clients": 1}
        peer.disconnect()
        data = departure(server)
        assert 0 < data.pop("duration-ns") < 60e9
        assert data == {
            "connection": 1, "peer": name, "export-id": "exp-disk",
            "reason": "client", "message": "disconnected", "requests": 2,
            "failed-requests": 1, "clients": 0}


def test_client_that_does_not_hear_the_answer(server):
    """It was given the export, but never learns of it."""
    with nbd.RawNbd(server.nbd_path) as peer:
        peer.sock.shutdown(socket.SHUT_RD)
        peer.send_option(nbd.OPT_GO, nbd.go_data("disk"))
        ident = arrival(server)["connection"]
        data = departure(server, connection=ident)
    assert data["reason"] == "connection"
    assert data["clients"] == data["requests"] == 0
    assert "connection lost: cannot write to the socket" in data["message"]
    with use(server) as peer:
        assert one(server)["connection"] > ident


def test_tls_client_is_told_by_name(daemon, image, tls_dir):
    daemon.add_creds(tls_dir)
    daemon.serve_file(image, tls="tls0")
    with nbd.RawNbd(daemon.nbd_path) as peer:
        peer.starttls(harness.client_context(tls_dir))
        peer.go("disk")
        wait_active(daemon)
        data = arrival(daemon)
        assert data["tls"] == one(daemon)["tls"]
        assert data["tls"]["name"] == "O=blockferry test,CN=client1"
    data = departure(daemon)
    assert data["name"] == "O=blockferry test,CN=client1"
    # Without the end that TLS has.
    assert data["reason"] == "connection"
    assert data["message"].startswith("connection lost: ")


@pytest.mark.ours("the reference does not tell threads")
def test_clients_are_spread_before_they_ask(daemons, image, box):
    """They have their thread from the choice of the export on, and keep it."""
    daemon = daemons(
        "--workers", "3", "--blockdev",
        f"driver=file,node-name=disk,filename={image}",
        "--nbd-server", f"addr.type=unix,addr.path={box}/nbd",
        "--export", "nbd,id=e,node-name=disk")
    assert len(daemon.cmd("query-block-exports")) == 1  # it is ready
    peers = [nbd.RawNbd(box / "nbd").go("disk") for _ in range(6)]
    wait_active(daemon)
    before = [client["thread"] for client in clients(daemon)]
    assert sorted(before.count(name) for name in set(before)) == [2, 2, 2]
    for peer in peers:
        assert peer.read(0, 512)[0] == 0
    assert [client["thread"] for client in clients(daemon)] == before
    for peer in peers:
        peer.disconnect()


def test_clients_that_used_no_export_are_not_told(server):
    nbd.RawNbd(server.nbd_path).close()
    with nbd.RawNbd(server.nbd_path) as peer:
        peer.option(nbd.OPT_ABORT)
    with use(server) as peer:
        assert arrival(server)["connection"] == 3
        peer.disconnect()
    assert departure(server)["connection"] == 3
    assert not [e for e in server.qmp.events
                if e["event"].startswith("NBD_CLIENT_")]


def close_it(peer, _daemon):
    peer.close()


def bad_magic(peer, _daemon):
    peer.send(bytes(28))


def long_write(peer, _daemon):
    peer.send_request(nbd.CMD_WRITE, 0, (32 << 20) + 1)


def half_request(peer, _daemon):
    peer.send(peer.request_bytes(nbd.CMD_READ, 0, 512)[:20])
    peer.close()


def drop(_peer, daemon):
    daemon.cmd("nbd-client-drop", connection=1)


def remove(_peer, daemon):
    daemon.cmd("block-export-del", id="exp-disk", mode="hard")


def stop(_peer, daemon):
    daemon.cmd("nbd-server-stop")


@pytest.mark.parametrize("act, reason, words", [
    (close_it, "client", "disconnected"),
    (bad_magic, "protocol", "bad magic"),
    (long_write, "protocol", "above the limit"),
    (half_request, "connection", "middle of a request"),
    (drop, "dropped", "nbd-client-drop"),
    (remove, "export-removed", "export is being removed"),
    (stop, "server-stopped", "server is being stopped"),
])
def test_reasons_are_told(server, act, reason, words):
    with use(server) as peer:
        act(peer, server)
        data = departure(server)
        assert data["reason"] == reason
        assert words in data["message"]
        assert f"connection 1 from {data['peer']}: {data['message']}" in \
            server.log()


def test_departure_is_told_before_the_export_is_deleted(server):
    with use(server):
        server.cmd("block-export-del", id="exp-disk", mode="hard")
        server.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
        assert "NBD_CLIENT_DISCONNECTED" in [
            e["event"] for e in server.qmp.events]


def test_a_flood_of_clients_is_limited(server):
    """Windows of a second with one event each, and one after the last, for
    each of two exports."""
    server.execute("blockdev-add", {"driver": "null-co", "node-name": "null",
                                    "size": MIB})
    server.add_export("null")
    start = time.monotonic()
    for number in range(100):
        if number == 99:  # these leave last, whatever thread serves them
            harness.wait_until(lambda: clients(server) == [], 10,
                               "the others' leaving")
        for name in ("disk", "null"):
            nbd.RawNbd(server.nbd_path).go(name).disconnect()
    harness.wait_until(lambda: clients(server) == [], 10, "their leaving")
    seconds = time.monotonic() - start
    for kind in ("NBD_CLIENT_CONNECTED", "NBD_CLIENT_DISCONNECTED"):
        for export in ("exp-disk", "exp-null"):
            events = [e for e in server.qmp.events if e["event"] == kind
                      and e["data"]["export-id"] == export]
            assert 1 <= len(events) <= seconds + 1
    for export in ("exp-disk", "exp-null"):
        data = departure(server, **{"export-id": export, "clients": 0,
                                    "connection": 199 + (export == "exp-null")})
        assert data["reason"] == "client"


# Dropping.

def test_drop_says_what_it_drops(server):
    with use(server) as first, use(server) as second:
        first.write(0, bytes(4096))
        client = server.cmd("nbd-client-drop", connection=1)
        assert (client["connection"], client["export-id"]) == (1, "exp-disk")
        assert client["requests"]["write"]["bytes"] == 4096
        first.assert_closed()
        harness.wait_until(
            lambda: [c["connection"] for c in clients(server)] == [2], 10,
            "its leaving")
        assert second.read(0, 512)[0] == 0
        # It may come again.
        with use(server) as third:
            assert third.read(0, 512)[0] == 0


def test_drop_in_negotiation(server):
    with nbd.RawNbd(server.nbd_path) as peer:
        client = server.cmd("nbd-client-drop", connection=1)
        assert client["state"] == "negotiating"
        peer.assert_closed()
    harness.wait_until(lambda: clients(server) == [], 10, "its leaving")
    assert "negotiation (waiting for an option), because nbd-client-drop" in \
        server.log()


def test_drop_in_tls_handshake(daemon, image, tls_dir):
    daemon.add_creds(tls_dir)
    daemon.serve_file(image, tls="tls0")
    with nbd.RawNbd(daemon.nbd_path) as peer:
        assert peer.option_type(nbd.OPT_STARTTLS) == nbd.REP_ACK
        daemon.cmd("nbd-client-drop", connection=1)
        peer.assert_closed()


def test_drop_refusals(server):
    assert "no connection 1" in server.error("nbd-client-drop",
                                             connection=1).desc
    for wrong in (-1, "1", 1 << 64, None):
        assert "connection" in server.error("nbd-client-drop",
                                            connection=wrong).desc
    server.cmd("nbd-server-stop")
    assert server.error("nbd-client-drop", connection=1).desc == \
        "NBD server not running"


def test_drop_does_not_wait_for_a_throttle(daemon, image):
    daemon.add_file(image)
    daemon.cmd("object-add", qom_type="throttle-group", id="slow",
               limits={"iops-total": 1})
    daemon.start_nbd()
    daemon.add_export(throttle_group="slow")
    with use(daemon) as peer:
        for _ in range(100):
            peer.send_request(nbd.CMD_READ, 0, 512)
        harness.wait_until(lambda: one(daemon)["in-flight"] > 10, 10,
                           "requests in flight")
        started = time.monotonic()
        daemon.cmd("nbd-client-drop", connection=1)
        departure(daemon, reason="dropped")
        assert time.monotonic() - started < 20


@pytest.fixture
def fs(box):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("/dev/fuse is missing")
    if os.getuid() != 0:
        pytest.skip("needs root to mount")
    fs = stuckfs.StuckFs(box)
    yield fs
    fs.end()


def test_dropped_client_on_stuck_storage(daemon, fs):
    """It stays on the list until storage has answered."""
    try:
        harness.make_image(fs.source / "a.img", MIB)
        daemon.serve_file(fs.mount / "a.img")
        peer = use(daemon)
        fs.stop()
        peer.send_request(nbd.CMD_READ, 0, 4096)
        harness.wait_until(lambda: one(daemon)["in-flight"] == 1, 10,
                           "the request")
        assert daemon.cmd("nbd-client-drop", connection=1,
                          _limit=5)["in-flight"] == 1
        peer.assert_closed()
        assert one(daemon)["state"] == "closing"
        assert "closed already" in daemon.error("nbd-client-drop",
                                                connection=1).desc
    finally:
        fs.go()
    departure(daemon, connection=1, reason="dropped")
    assert clients(daemon) == []
