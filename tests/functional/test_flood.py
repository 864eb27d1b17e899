# SPDX-License-Identifier: GPL-2.0-or-later
"""Floods of connections that never get on with their negotiation."""
import contextlib
import os
import signal
import socket
import struct
import threading

import pytest

import harness
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference has no such limits")

FLOOD = 300
PLACES = 256  # in negotiation

FLAGS = struct.pack(">I", 3)
STARTTLS = FLAGS + struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_STARTTLS, 0)
HALF_HELLO = STARTTLS + b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(
    200)

# What peers send before they are silent. Nothing is read ahead, so they need
# not wait for replies; the last two are closed.
PHASES = {
    "tls": (b"", FLAGS, FLAGS + b"IHAVE", STARTTLS, HALF_HELLO,
            STARTTLS + bytes(50), b"\xff" * 50),
    "plain": (b"", FLAGS, FLAGS + b"IHAVE", FLAGS + struct.pack(
        ">QII", nbd.IHAVEOPT, nbd.OPT_GO, 1000) + bytes(10),
        FLAGS + struct.pack(">QII", nbd.IHAVEOPT, 77, 1 << 20) + bytes(5000),
        FLAGS + bytes(50), b"\xff" * 50),
}


@pytest.fixture(params=["tls", "plain"])
def kind(request):
    return request.param


@pytest.fixture
def address(daemon, image, tls_dir, kind):
    """A server that would wait for each peer for ever."""
    if kind == "tls":
        daemon.add_creds(tls_dir)
    daemon.add_file(image)
    where = daemon.start_nbd_tcp(tls="tls0" if kind == "tls" else None,
                                 handshake_max_seconds=0, max_connections=2)
    daemon.add_export("disk")
    return where


def connect(address, source="127.0.0.1"):
    return socket.create_connection(address, harness.LIMIT, (source, 0))


@pytest.fixture
def flood(address, kind):
    """Starts a flood from the addresses given, in turn."""
    with contextlib.ExitStack() as stack:
        def start(*sources):
            for i in range(FLOOD):
                sock = stack.enter_context(
                    connect(address, sources[i % len(sources)]))
                # A place may have been taken away already.
                with contextlib.suppress(ConnectionError):
                    sock.sendall(PHASES[kind][i % len(PHASES[kind])])
        yield start


def serve(address, kind, tls_context):
    """A good client, which stays."""
    client = nbd.RawNbd(connect(address))
    if kind == "tls":
        client.starttls(tls_context)
    client.go("disk")
    assert client.read(0, 4096)[0] == 0
    return client


def negotiating(daemon):
    return daemon.cmd("query-nbd-server")["negotiating"]


@pytest.mark.parametrize("sources", [
    ["127.0.0.2"], ["127.0.0.1"], [f"127.0.1.{i + 1}" for i in range(100)]],
    ids=["other", "same", "many"])
def test_good_clients_are_served_during_a_flood(daemon, address, kind, flood,
                                                tls_context, sources):
    flood(*sources)
    clients = [serve(address, kind, tls_context) for _ in range(2)]
    # Two sevenths of the flood were garbage.
    assert PLACES >= negotiating(daemon) > FLOOD // 2
    assert daemon.cmd("query-version")
    for client in clients:
        assert client.read(0, 4096)[0] == 0
        client.disconnect()


def test_places_are_shared_by_address(daemon, address, kind, tls_context):
    """Who has most of them loses the most silent one, and is told about."""
    with contextlib.ExitStack() as stack:
        few = [stack.enter_context(connect(address, "127.0.0.3"))
               for _ in range(5)]
        for sock in few:
            sock.recv(18, socket.MSG_WAITALL)
        many = [stack.enter_context(connect(address, "127.0.0.2"))
                for _ in range(PLACES - len(few))]
        for sock in many:
            assert len(sock.recv(18, socket.MSG_WAITALL)) == 18
        assert negotiating(daemon) == PLACES
        serve(address, kind, tls_context).disconnect()
        data = daemon.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
        assert data["reason"] == "limit"
        assert data["peer"].startswith("127.0.0.2:")
        assert f"all {PLACES} places in negotiation are taken, " \
            f"{len(many)} of them by its address" in data["message"]
        assert data["message"] in daemon.log()
        assert data["peer"] in {
            "%s:%d" % sock.getsockname() for sock in many[:10]}
        # The few have been silent for longer, and may go on.
        for sock in few:
            client = nbd.RawNbd(sock, handshake=False)
            client.send(FLAGS)
            assert client.option_type(nbd.OPT_ABORT) == nbd.REP_ACK


class Talkers:
    """A flood of connections that ask for one thing after another."""

    def __init__(self, address, sources):
        self.unsent = {}
        for i in range(FLOOD):
            sock = connect(address, sources[i % len(sources)])
            sock.setblocking(False)
            self.unsent[sock] = FLAGS
        self.ends = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def talk(self, sock):
        """Returns whether the server still listens."""
        with contextlib.suppress(BlockingIOError):
            if sock.recv(1 << 16) == b"":
                return False
        data = self.unsent[sock] or 64 * struct.pack(
            ">QII", nbd.IHAVEOPT, nbd.OPT_LIST, 0)
        with contextlib.suppress(BlockingIOError):
            data = data[sock.send(data):]
        self.unsent[sock] = data
        return True

    def run(self):
        live = list(self.unsent)
        while live and not self.ends:
            for sock in list(live):
                try:
                    if not self.talk(sock):
                        live.remove(sock)
                except ConnectionError:
                    live.remove(sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ends = True
        self.thread.join()
        for sock in self.unsent:
            sock.close()


@pytest.mark.parametrize("kind", ["plain"], indirect=True)
def test_places_of_those_who_talk_are_shared_as_well(daemon, address):
    """It is nobody's turn to be silent: the oldest has to go."""
    with Talkers(address, ["127.0.0.2", "127.0.0.4"]):
        harness.wait_until(lambda: negotiating(daemon) == PLACES)
        for _ in range(50):
            serve(address, "plain", None).disconnect()
        harness.wait_until(lambda: "it has negotiated for" in daemon.log())


def test_only_users_of_exports_count_as_connections(daemon, address, kind,
                                                    tls_context):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(address)) for _ in range(10)]
        for sock in idle:
            assert len(sock.recv(18, socket.MSG_WAITALL)) == 18
        users = [serve(address, kind, tls_context) for _ in range(2)]
        late = stack.enter_context(connect(address))
        harness.wait_until(
            lambda: daemon.cmd("query-nbd-server")["waiting"] == 1)
        users[0].disconnect()
        assert len(late.recv(18, socket.MSG_WAITALL)) == 18
        users[1].disconnect()


def test_choice_waits_while_all_places_are_taken(daemon, address, kind,
                                                 tls_context):
    def negotiated():
        client = nbd.RawNbd(connect(address))
        if kind == "tls":
            client.starttls(tls_context)
        return client

    clients = [negotiated() for _ in range(3)]
    clients[0].go("disk")
    clients[1].go("disk")
    clients[2].send_option(nbd.OPT_GO, nbd.go_data("disk"))
    clients[0].disconnect()
    clients[2].keep_infos([clients[2].read_option_reply() for _ in range(3)])
    assert clients[2].size
    assert clients[2].read(0, 512)[0] == 0
    clients[1].disconnect()
    clients[2].disconnect()


def test_flood_ends_with_the_server(daemon, address, flood):
    flood("127.0.0.2", "127.0.0.3")
    daemon.cmd("nbd-server-stop")
    daemon.cmd("query-version")


def in_negotiation(address, kind, tls_context, source="127.0.0.1"):
    client = nbd.RawNbd(connect(address, source))
    if kind == "tls":
        client.starttls(tls_context)
    return client


def test_place_that_is_not_taken_goes_to_who_waits_outside(
        daemon, address, kind, tls_context):
    """A client waits for a place, gets it, and what it wants is gone."""
    daemon.add_export("disk", ident="second", name="second")
    user, late, other = (in_negotiation(address, kind, tls_context)
                         for _ in range(3))
    user.go("disk")
    other.go("disk")
    late.send_option(nbd.OPT_GO, nbd.go_data("second"))
    with contextlib.closing(connect(address)) as outside:
        harness.wait_until(
            lambda: daemon.cmd("query-nbd-server")["waiting"] == 1)
        daemon.cmd("block-export-del", id="second")
        daemon.qmp.take_event("BLOCK_EXPORT_DELETED")
        user.disconnect()
        assert late.read_option_reply()[1] == nbd.ERR_UNKNOWN
        assert len(outside.recv(18, socket.MSG_WAITALL)) == 18
    other.disconnect()
    late.close()


def test_who_waits_for_a_place_makes_room_in_negotiation(
        daemon, address, kind, tls_context):
    """Else one address could keep all others away from other listeners."""
    local = {"type": "inet", "host": "127.0.0.1", "port": "0", "ipv6": False}
    where = daemon.cmd("nbd-server-add-listener", id="one", addr=local,
                       max_connections=1)["addresses"][0]
    full = (where["host"], int(where["port"]))
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(nbd.RawNbd(connect(full, "127.0.0.2")))
                for _ in range(PLACES)]
        many[0].go("disk")
        for client in many[1:]:
            client.send_option(nbd.OPT_GO, nbd.go_data("disk"))
        silent = stack.enter_context(connect(address, "127.0.0.3"))
        assert len(silent.recv(18, socket.MSG_WAITALL)) == 18
        assert negotiating(daemon) == PLACES
        serve(address, kind, tls_context).disconnect()
        data = daemon.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
        assert data["peer"].startswith("127.0.0.2:")
        assert "waited for a place" in data["message"]


def enter(address, source):
    client = nbd.RawNbd(connect(address, source))
    client.go("disk")
    assert client.read(0, 512)[0] == 0
    return client


def test_one_address_does_not_take_all_places(daemon, image):
    daemon.add_file(image)
    address = daemon.start_nbd_tcp(max_connections=10,
                                   max_connections_per_address=2)
    more = daemon.cmd("nbd-server-add-listener", id="more", addr={
        "type": "inet", "host": "127.0.0.1", "port": "0"},
        max_connections_per_address=3)["addresses"][0]
    assert daemon.cmd("query-nbd-server")["max-connections-per-address"] == 2
    daemon.add_export("disk")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(enter(address, "127.0.0.2"))
        early = stack.enter_context(nbd.RawNbd(connect(address, "127.0.0.2")))
        second = stack.enter_context(enter(address, "127.0.0.2"))
        assert second.flags & nbd.FLAG_MULTI
        early.send_option(nbd.OPT_GO, nbd.go_data("disk"))
        late = stack.enter_context(nbd.RawNbd(
            connect(address, "127.0.0.2"), handshake=False))
        harness.wait_until(
            lambda: daemon.cmd("query-nbd-server")["waiting"] == 1)
        # Others get in, and so does this one where more are allowed.
        for _ in range(2):
            stack.enter_context(enter(address, "127.0.0.3"))
        third = stack.enter_context(enter((more["host"], int(more["port"])),
                                          "127.0.0.2"))
        for client in early, late:
            client.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.sock.recv(1)
            client.sock.settimeout(harness.LIMIT)
        first.disconnect()
        second.disconnect()
        assert early.read_option_reply()
        third.disconnect()
        late.read_greeting()


def test_one_who_leaves_can_make_room_for_two(daemon, image):
    """One waits for a place of the listener, one for a place of the address."""
    daemon.add_file(image)
    full = daemon.start_nbd_tcp(max_connections=1)
    more = daemon.cmd("nbd-server-add-listener", id="more", addr={
        "type": "inet", "host": "127.0.0.1", "port": "0"},
        max_connections_per_address=1)["addresses"][0]
    daemon.add_export("disk")
    with contextlib.ExitStack() as stack:
        same = stack.enter_context(nbd.RawNbd(connect(
            (more["host"], int(more["port"])), "127.0.0.2")))
        other = stack.enter_context(nbd.RawNbd(connect(full, "127.0.0.3")))
        first = enter(full, "127.0.0.2")
        for client in same, other:
            client.send_option(nbd.OPT_GO, nbd.go_data("disk"))
            client.sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.sock.recv(1)
            client.sock.settimeout(harness.LIMIT)
        first.disconnect()
        assert same.read_option_reply() and other.read_option_reply()


def test_one_connection_per_address_clears_multi_conn(daemon, image):
    daemon.add_file(image)
    address = daemon.start_nbd_tcp(max_connections_per_address=1)
    daemon.add_export("disk")
    with enter(address, "127.0.0.2") as client:
        assert not client.flags & nbd.FLAG_MULTI


def test_who_has_spoken_while_nobody_listened_stays(daemon, address, kind):
    """What a busy daemon has not read yet counts, too."""
    spoken = 200
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(connect(address, "127.0.0.2"))
                for _ in range(PLACES)]
        for sock in many:
            assert len(sock.recv(18, socket.MSG_WAITALL)) == 18
        os.kill(daemon.pid, signal.SIGSTOP)
        late = stack.enter_context(connect(address, "127.0.0.3"))
        clients = [nbd.RawNbd(sock, handshake=False)
                   for sock in many[:spoken]]
        for client in clients:
            client.send(FLAGS)
            client.send_option(nbd.OPT_LIST)
        os.kill(daemon.pid, signal.SIGCONT)
        assert len(late.recv(18, socket.MSG_WAITALL)) == 18
        for client in clients:
            assert client.read_option_reply()
        data = daemon.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
        assert data["reason"] == "limit"
        assert data["peer"] in {
            "%s:%d" % sock.getsockname() for sock in many[spoken:]}
