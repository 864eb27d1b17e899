# SPDX-License-Identifier: GPL-2.0-or-later
"""Several listeners of one NBD server, each with rules of its own."""
import os
import socket
import ssl

import pytest

import certs
import harness
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference listens at one address")

LOCAL = {"type": "inet", "host": "127.0.0.1", "port": "0", "ipv6": False}


def unix(path):
    return {"type": "unix", "path": str(path)}


def add(daemon, ident, addr, **arguments):
    """Returns where the listener can be reached."""
    info = daemon.cmd("nbd-server-add-listener", id=ident, addr=addr,
                      **arguments)
    assert info["id"] == ident
    where = info["addresses"][0]
    if where["type"] == "inet":
        return where["host"], int(where["port"])
    return where["path"]


def listeners(daemon):
    return {item.get("id"): item
            for item in daemon.cmd("query-nbd-server")["listeners"]}


def names(peer):
    return [name for name, _ in peer.list_exports()]


def is_open(address):
    """Whether somebody listens there."""
    try:
        nbd.RawNbd(address, handshake=False).close()
        return True
    except OSError:
        return False


def use(daemon, address, context=None, name="disk"):
    """A client that uses an export, as the daemon knows too."""
    peer = nbd.RawNbd(address)
    if context:
        peer.starttls(context)
    peer.go(name)
    harness.wait_until(lambda: all(c["state"] != "negotiating" for c in
                                   daemon.cmd("query-nbd-clients")), 10,
                       "the end of negotiations")
    return peer


@pytest.fixture
def both(daemon, image, tls_dir):
    """A UNIX socket in plain, and TCP with TLS."""
    daemon.add_creds(tls_dir)
    daemon.serve_file(image)
    daemon.tcp = add(daemon, "net", LOCAL, tls_creds="tls0")
    return daemon


# Who comes in where.

def test_plain_and_tls_in_one_process(both, tls_context):
    with nbd.RawNbd(both.nbd_path) as plain, nbd.RawNbd(both.tcp) as peer:
        assert names(plain) == ["disk"]
        assert plain.option_type(nbd.OPT_STARTTLS) == nbd.ERR_POLICY
        assert peer.option_type(nbd.OPT_LIST) == nbd.ERR_TLS_REQD
        peer.starttls(tls_context)
        assert names(peer) == ["disk"]
        plain.go("disk")
        peer.go("disk")
        assert plain.write(4096, b"x" * 512) == 0
        assert peer.read(4096, 512) == (0, b"x" * 512)
        harness.wait_until(lambda: len(both.cmd(
            "query-nbd-clients", export_id="exp-disk")) == 2, 10, "both")
        assert [(c.get("listener"), "tls" in c)
                for c in both.cmd("query-nbd-clients")] == [
            (None, False), ("net", True)]


def test_an_export_made_later_is_seen_through_all(both, tls_context):
    both.cmd("blockdev-add", driver="null-co", node_name="null", size=1 << 20)
    both.add_export("null")
    with nbd.RawNbd(both.nbd_path) as plain, nbd.RawNbd(both.tcp) as peer:
        peer.starttls(tls_context)
        assert names(plain) == names(peer) == ["disk", "null"]


def test_query_tells_all_with_their_ports(both):
    info = both.cmd("query-nbd-server")
    assert info["addresses"][0]["path"] == str(both.nbd_path)
    assert "tls-creds" not in info
    first, second = info["listeners"]
    assert first["addresses"] == info["addresses"]
    assert first.keys() == {"addresses", "handshake-max-seconds",
                            "max-connections", "max-connections-per-address",
                            "idle-max-seconds", "clients", "waiting"}
    assert (second["id"], second["tls-creds"]) == ("net", "tls0")
    assert second["addresses"][0]["port"] == str(both.tcp[1]) != "0"
    assert (second["clients"], second["waiting"]) == (0, 0)
    both.wait_log("NBD server listening on 127.0.0.1:%d .TLS required., by "
                  "listener 'net'" % both.tcp[1])
    with nbd.RawNbd(both.tcp):
        harness.wait_until(lambda: listeners(both)["net"]["clients"] == 1, 10,
                           "the client")
        assert listeners(both)[None]["clients"] == 0
        assert both.cmd("query-nbd-server")["clients"] == 1


def test_authorization_is_that_of_the_listener(both, box, tls_dir,
                                               tls_context):
    """The same client may come in here and not there."""
    both.cmd("object-add", qom_type="authz-simple", id="other",
             identity="CN=somebody else")
    closed = add(both, "closed", unix(box / "closed"), tls_creds="tls0",
                 tls_authz="other")
    with nbd.RawNbd(both.tcp) as peer:
        peer.starttls(tls_context)
        assert names(peer) == ["disk"]
    with pytest.raises((nbd.Closed, ssl.SSLError, OSError)):
        with nbd.RawNbd(closed) as peer:
            peer.starttls(tls_context)
            names(peer)
    both.wait_log("tls-authz 'other' of the server does not allow")


def test_restricted_export_is_not_there_for_plain_clients(both, tls_context):
    both.cmd("object-add", qom_type="authz-simple", id="one",
             identity="O=blockferry test,CN=client1")
    both.cmd("blockdev-add", driver="null-co", node_name="null", size=1 << 20,
             read_zeroes=True)
    both.add_export("null", tls_authz="one")
    with nbd.RawNbd(both.nbd_path) as plain, nbd.RawNbd(both.tcp) as peer:
        assert names(plain) == ["disk"]
        assert plain.option_type(nbd.OPT_GO, nbd.go_data("null")) == \
            nbd.ERR_UNKNOWN
        peer.starttls(tls_context)
        assert names(peer) == ["disk", "null"]
        peer.go("null")
        assert peer.read(0, 512) == (0, bytes(512))
    both.wait_log("wants export 'null', which tls-authz 'one' does not allow "
                  "for '.no name.': it has proved no name")


def test_restricted_export_needs_one_listener_with_names(daemon, image,
                                                         tls_dir):
    daemon.serve_file(image)
    daemon.cmd("blockdev-add", driver="null-co", node_name="null", size=512)
    error = daemon.error("block-export-add", type="nbd", id="e1",
                         node_name="null", tls_authz="one")
    assert "without TLS its clients prove no name" in error.desc
    daemon.add_creds(tls_dir, **{"verify-peer": False})
    add(daemon, "net", LOCAL, tls_creds="tls0")
    error = daemon.error("block-export-add", type="nbd", id="e1",
                         node_name="null", tls_authz="one")
    assert "does not go with the tls-creds of the NBD server" in error.desc
    daemon.add_creds(tls_dir, "tls1")
    add(daemon, "named", LOCAL, tls_creds="tls1")
    daemon.add_export("null", tls_authz="one")


def test_reloaded_credentials_hold_for_their_listener(daemon, image, box):
    """And only for those that come in there."""
    for name in ("first", "second"):
        authority = certs.Authority(box / f"ca-{name}", name)
        authority.issue(box / name, "server")
        authority.issue(box / name, "client")
    for ident in ("a", "b"):
        (box / ident).mkdir()
        for file in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
            (box / ident / file).write_bytes(
                (box / "first" / file).read_bytes())
        daemon.add_creds(box / ident, ident)
    daemon.serve_file(image, tls="a")
    other = add(daemon, "other", unix(box / "other"), tls_creds="b")
    old, new = (harness.client_context(box / n) for n in ("first", "second"))
    before = use(daemon, other, old)
    for file in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
        (box / "b" / file).write_bytes((box / "second" / file).read_bytes())
    daemon.cmd("tls-creds-reload")
    for address, context in ((daemon.nbd_path, old), (other, new)):
        with use(daemon, address, context) as peer:
            assert peer.read(0, 512)[0] == 0
    with pytest.raises((nbd.Closed, ssl.SSLError, OSError)):
        with nbd.RawNbd(other) as peer:
            peer.starttls(old)
            peer.go("disk")
    assert before.read(0, 512)[0] == 0
    before.close()


# Limits.

def test_each_listener_has_its_own_limit(both, box):
    small = add(both, "small", unix(box / "small"), max_connections=1)
    with use(both, small) as peer:
        assert peer.flags & nbd.FLAG_MULTI == 0
        with nbd.RawNbd(small, handshake=False) as second:
            harness.wait_until(lambda: listeners(both)["small"]["waiting"], 10,
                               "its waiting")
            # The others are not full.
            with use(both, both.nbd_path) as other:
                assert other.flags & nbd.FLAG_MULTI
                assert other.read(0, 512)[0] == 0
            info = both.cmd("query-nbd-server")
            assert info["waiting"] == 1
            assert listeners(both)["small"]["clients"] == 1
            peer.disconnect()
            second.read_greeting()


def test_silent_client_takes_no_place_at_its_listener(both, box):
    small = add(both, "small", unix(box / "small"), max_connections=1)
    with nbd.RawNbd(small) as silent, nbd.RawNbd(small) as user:
        user.go("disk")
        assert user.read(0, 512)[0] == 0
        assert names(silent) == ["disk"]


def test_choice_waits_for_a_place_at_its_listener(both, box):
    small = add(both, "small", unix(box / "small"), max_connections=1)
    with use(both, small) as first, nbd.RawNbd(both.nbd_path) as other:
        with nbd.RawNbd(small, handshake=False) as second:
            harness.wait_until(lambda: listeners(both)["small"]["waiting"], 10,
                               "its waiting")
            other.go("disk")
            first.disconnect()
            second.read_greeting()
        assert other.read(0, 512)[0] == 0


def test_each_listener_has_its_own_time_for_handshakes(both, box):
    hasty = add(both, "hasty", unix(box / "hasty"), handshake_max_seconds=1)
    with nbd.RawNbd(both.nbd_path) as patient, nbd.RawNbd(hasty) as peer:
        peer.assert_closed()
        assert names(patient) == ["disk"]
    both.wait_log("negotiation did not end within 1 s")


# Removal.

def test_removal_keeps_those_that_use_an_export(both, tls_context):
    with use(both, both.tcp, tls_context) as user, \
            nbd.RawNbd(both.tcp) as negotiating:
        error = both.error("object-del", id="tls0")
        assert "in use" in error.desc
        both.cmd("nbd-server-remove-listener", id="net")
        both.wait_log("does not listen on 127.0.0.1:%d any more" % both.tcp[1])
        assert not is_open(both.tcp)
        assert list(listeners(both)) == [None]
        negotiating.assert_closed()
        assert user.read(0, 512)[0] == 0
        client, = both.cmd("query-nbd-clients", export_id="exp-disk")
        assert client["listener"] == "net"
        # Its credentials are free, though its client goes on.
        both.cmd("object-del", id="tls0")
        assert user.write(0, b"y" * 512) == 0
        assert user.read(0, 512) == (0, b"y" * 512)
        user.disconnect()
    with use(both, both.nbd_path) as peer:
        assert peer.read(0, 512) == (0, b"y" * 512)


def test_hard_removal_disconnects_all(both, tls_context):
    with use(both, both.tcp, tls_context) as user, \
            use(both, both.nbd_path) as other:
        both.cmd("nbd-server-remove-listener", id="net", mode="hard")
        user.assert_closed()
        event = both.qmp.take_event("NBD_CLIENT_DISCONNECTED")
        assert event["data"]["reason"] == "listener-removed"
        assert "nbd-server-remove-listener" in event["data"]["message"]
        assert other.read(0, 512)[0] == 0
    both.cmd("object-del", id="tls0")


def test_address_and_id_can_be_used_again(daemon, image, box):
    daemon.serve_file(image)
    for _ in range(20):
        path = add(daemon, "more", unix(box / "more"))
        with nbd.RawNbd(path) as peer:
            assert names(peer) == ["disk"]
            daemon.cmd("nbd-server-remove-listener", id="more", mode="hard")
            assert not os.path.exists(path)


def test_those_that_wait_are_closed(daemon, image, box):
    daemon.serve_file(image)
    path = add(daemon, "more", unix(box / "more"), max_connections=1)
    with use(daemon, path) as user, \
            nbd.RawNbd(path, handshake=False) as waiting:
        harness.wait_until(lambda: listeners(daemon)["more"]["waiting"], 10,
                           "its waiting")
        daemon.cmd("nbd-server-remove-listener", id="more")
        waiting.assert_closed()
        assert user.read(0, 512)[0] == 0


def test_stop_ends_all(both, box, tls_context):
    path = add(both, "more", unix(box / "more"))
    with use(both, both.tcp, tls_context) as peer, use(both, path) as other:
        both.cmd("nbd-server-stop")
        peer.assert_closed()
        other.assert_closed()
    assert not is_open(both.tcp)
    assert not os.path.exists(path)
    assert both.cmd("query-nbd-server") == {"running": False}
    both.cmd("object-del", id="tls0")
    both.start_nbd()
    assert list(listeners(both)) == [None]


def test_stop_with_many_clients_everywhere(daemon, image, box):
    daemon.serve_file(image)
    paths = [add(daemon, f"l{n}", unix(box / f"l{n}")) for n in range(8)]
    peers = []
    for path in paths:
        peers.append(nbd.RawNbd(path, handshake=False))
        peers.append(nbd.RawNbd(path))
        peers.append(nbd.RawNbd(path).go("disk"))
    daemon.cmd("nbd-server-stop")
    for peer in peers:
        with peer:
            try:
                while peer.sock.recv(4096):
                    pass
            except ConnectionResetError:
                pass


# Refusals.

def test_refusals(daemon, image, box, tls_dir):
    addr = unix(box / "more")
    error = daemon.error("nbd-server-add-listener", id="more", addr=addr)
    assert error.desc == "NBD server not running"
    error = daemon.error("nbd-server-remove-listener", id="more")
    assert error.desc == "NBD server not running"
    daemon.serve_file(image)
    for ident in ("", "9", "a b", "é"):
        error = daemon.error("nbd-server-add-listener", id=ident, addr=addr)
        assert error.desc.startswith(f"Invalid listener id '{ident}'")
    error = daemon.error("nbd-server-add-listener", id="more", addr=addr,
                         tls_creds="nope")
    assert error.desc == "No TLS credentials with id 'nope'"
    error = daemon.error("nbd-server-add-listener", id="more", addr=addr,
                         tls_authz="nope")
    assert "needs tls-creds" in error.desc
    daemon.add_creds(tls_dir)
    error = daemon.error("nbd-server-add-listener", id="more", addr=unix(
        box / "no" / "such"), tls_creds="tls0")
    assert "Failed to bind socket" in error.desc
    daemon.cmd("object-del", id="tls0")  # nothing has kept it
    error = daemon.error("nbd-server-add-listener", id="more",
                         addr=unix(daemon.nbd_path))
    assert "another server is listening there" in error.desc
    add(daemon, "more", addr)
    error = daemon.error("nbd-server-add-listener", id="more", addr=unix(
        box / "other"))
    assert "already has a listener 'more'" in error.desc
    assert not os.path.exists(box / "other")
    error = daemon.error("nbd-server-remove-listener", id="less")
    assert "has no listener 'less'" in error.desc


def test_number_of_listeners_has_a_limit(daemon, box):
    daemon.start_nbd()
    for n in range(63):
        add(daemon, f"l{n}", unix(box / f"l{n}"))
    error = daemon.error("nbd-server-add-listener", id="more",
                         addr=unix(box / "more"))
    assert error.desc == "the NBD server can have 64 listeners at most"
    daemon.cmd("nbd-server-remove-listener", id="l7")
    add(daemon, "more", unix(box / "more"))


def test_passed_descriptor(daemon, image, box):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(box / "passed"))
        sock.listen(8)
        daemon.serve_file(image)
        daemon.cmd("getfd", fdname="sock", _fds=[sock.fileno()])
    add(daemon, "passed", {"type": "fd", "str": "sock"})
    with nbd.RawNbd(box / "passed") as peer:
        assert names(peer) == ["disk"]


def test_node_that_would_wait_for_itself_is_found(daemon, box):
    """Also if it comes through a listener that was added."""
    daemon.cmd("blockdev-add", driver="null-co", node_name="n0", size=1 << 20)
    daemon.cmd("blockdev-add", driver="raw", node_name="top", file="n0")
    daemon.start_nbd()
    path = add(daemon, "more", unix(box / "more"))
    daemon.add_export("top", writable=True)
    daemon.cmd("blockdev-add", driver="nbd", node_name="own", export="top",
               server=unix(path))
    error = daemon.error("blockdev-reopen", options=[
        {"driver": "raw", "node-name": "top", "file": "own"}])
    assert "would wait for itself" in error.desc


# The command line.

def test_listeners_of_the_command_line(daemons, box, image):
    daemon = daemons(
        "--nbd-server", f"addr.type=unix,addr.path={box}/first",
        "--nbd-server", f"id=second,addr.type=unix,addr.path={box}/second,"
        "max-connections=1",
        "--blockdev", f"driver=file,node-name=disk,filename={image}",
        "--export", "type=nbd,id=e0,node-name=disk")
    assert list(listeners(daemon)) == [None, "second"]
    for path in ("first", "second"):
        with use(daemon, box / path) as peer:
            assert peer.read(0, 512)[0] == 0
            assert bool(peer.flags & nbd.FLAG_MULTI) == (path == "first")
    daemon.cmd("nbd-server-stop")


def test_listener_needs_a_server_on_the_command_line(box):
    result = harness.run(harness.PROGRAM, "--nbd-server",
                         f"id=more,addr.type=unix,addr.path={box}/more",
                         check=False)
    assert result.returncode == 1
    assert "NBD server not running" in result.stderr
