# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients without requests: they rest without stacks and buffers, and nobody
can tell."""
import contextlib
import pathlib
import re

import pytest

import harness
import rawnbd as nbd

pytestmark = pytest.mark.ours("it is about our coroutines")

KIB = 1024
MIB = 1 << 20
MANY = 300
SOME = 24
# What is below each stack of a coroutine, and nowhere else.
GUARD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ---p 0+ 00:00 0 *$", re.M)
GUARD_BYTES = 64 * KIB


def stacks(daemon):
    maps = pathlib.Path(f"/proc/{daemon.pid}/maps").read_text(encoding="utf-8")
    return sum(int(end, 16) - int(start, 16) == GUARD_BYTES
               for start, end in GUARD.findall(maps))


def wait_rest(daemon, peers):
    """Until fewer stacks are there than would be needed for half of them."""
    harness.wait_until(lambda: stacks(daemon) < len(peers) // 2, 20,
                       "the rest of all clients")


class Service:
    """A daemon, and a way to connect to it."""

    def __init__(self, daemon, way, context):
        self.daemon, self.way, self.context = daemon, way, context

    def start(self, image, creds, **arguments):
        tls = self.daemon.add_creds(creds) if self.way == "tls" else None
        self.daemon.add_file(image)
        start = self.daemon.start_nbd if self.way == "unix" else \
            self.daemon.start_nbd_tcp
        self.address = start(tls=tls, max_connections=0, **arguments)
        self.daemon.add_export(writable=True)

    def connect(self, stack):
        peer = stack.enter_context(nbd.RawNbd(self.address))
        if self.way == "tls":
            peer.starttls(self.context)
        return peer.go("disk")


@pytest.fixture(params=("unix-fresh", "unix-used", "tcp-fresh", "tls-used"))
def service(request, daemon, tls_context):
    """The way, and whether its clients rest because they have asked for nothing
    yet, or for nothing for a while."""
    way, state = request.param.split("-")
    found = Service(daemon, way, tls_context)
    found.state = state
    return found


@pytest.fixture
def stack():
    with contextlib.ExitStack() as found:
        yield found


@pytest.fixture
def peers(service, image, tls_dir, stack):
    """Clients that rest."""
    service.start(image, tls_dir)
    found = [service.connect(stack) for _ in range(SOME)]
    if service.state == "used":
        for number, peer in enumerate(found):
            data = bytes([number + 1]) * 64 * KIB
            assert peer.write(number * 64 * KIB, data) == 0
            assert peer.read(number * 64 * KIB, 64 * KIB) == (0, data)
    # They know that they may go on before the daemon has brought them to where
    # they are served.
    harness.wait_until(lambda: [c["state"] for c in service.daemon.cmd(
        "query-nbd-clients")] == ["active"] * SOME, 20, "all clients")
    wait_rest(service.daemon, found)
    return found


def wait_left(daemon, count, reason, text):
    """Until so many have left for this reason: there is an event for some of
    them, and a line in the log for each."""
    line = re.compile(rf"connection \d+ from .*: {text}$", re.M)
    harness.wait_until(lambda: len(line.findall(daemon.log())) == count, 20,
                       text)
    event = daemon.qmp.take_event("NBD_CLIENT_DISCONNECTED")
    assert event["data"]["reason"] == reason


def test_many_clients_have_no_stacks(daemon, image, stack):
    """Those of their negotiations are gone at once, not after a while."""
    service = Service(daemon, "unix", None)
    service.start(image, None)
    for _ in range(MANY):
        service.connect(stack)
    assert stacks(daemon) < MANY // 4
    clients = daemon.cmd("query-nbd-clients")
    assert len(clients) == MANY


def test_rest_ends_and_begins_again(service, peers):
    for turn in range(2):
        for number, peer in enumerate(peers):
            offset = number * 64 * KIB
            data = bytes([7 * number + turn & 255]) * 4096
            assert peer.write(offset, data) == 0
            assert peer.read(offset, 4096) == (0, data)
            assert peer.request(nbd.CMD_FLUSH) == 0
        wait_rest(service.daemon, peers)


def test_many_requests_at_once_end_a_rest(peers):
    for peer in peers:
        cookies = {peer.send_request(nbd.CMD_READ, n * 512, 512)
                   for n in range(32)}
        for _ in range(32):
            reply, _ = peer.read_reply(512)
            assert reply.error == 0
            cookies.remove(reply.cookie)


def test_request_in_pieces_ends_a_rest(peers):
    for peer in peers:
        data = b"piece" * 1000
        message = peer.request_bytes(nbd.CMD_WRITE, 512, len(data), data=data)
        for start in (0, 1, 27, 28, 29, 1000):
            end = {0: 1, 1: 27, 27: 28, 28: 29, 29: 1000}.get(start)
            peer.send(message[start:end])
        assert peer.read_reply()[0].error == 0
        assert peer.read(512, len(data)) == (0, data)


@pytest.mark.parametrize("way", ("disc", "close"))
def test_resting_clients_leave(service, peers, way):
    for peer in peers:
        if way == "disc":
            peer.send_request(nbd.CMD_DISC)
        elif service.way == "tls":
            peer.sock.unwrap().close()
        else:
            peer.close()
    wait_left(service.daemon, SOME, "client", "disconnected")
    for peer in peers if way == "disc" else ():
        peer.assert_closed()


def test_resting_client_is_dropped(service, peers):
    daemon = service.daemon
    clients = daemon.cmd("query-nbd-clients")
    assert {client["in-flight"] for client in clients} == {0}
    daemon.cmd("nbd-client-drop", connection=clients[0]["connection"])
    wait_left(daemon, 1, "dropped", "closed, because nbd-client-drop .*")
    peers[0].assert_closed()
    assert peers[1].read(0, 512)[0] == 0


def test_export_of_resting_clients_is_removed(service, peers):
    service.daemon.cmd("block-export-del", id="exp-disk", mode="hard")
    wait_left(service.daemon, SOME, "export-removed",
              "closed, because the export is being removed")
    for peer in peers:
        peer.assert_closed()


def test_server_of_resting_clients_is_stopped(service, peers):
    service.daemon.cmd("nbd-server-stop")
    wait_left(service.daemon, SOME, "server-stopped",
              "closed, because the NBD server is being stopped")
    for peer in peers:
        peer.assert_closed()


def test_daemon_ends_with_resting_clients(service, peers):
    service.daemon.cmd("quit")
    for peer in peers:
        peer.assert_closed()
    assert service.daemon.wait() == 0


def test_graph_changes_below_resting_clients(service, peers, image):
    service.daemon.execute("blockdev-reopen", {"options": [{
        "driver": "file", "node-name": "disk", "filename": str(image),
        "cache": {"no-flush": True}}]})
    for peer in peers:
        assert peer.read(0, 512)[0] == 0


def test_rest_does_not_hide_who_is_idle(daemon, image, stack):
    """A rest begins within two seconds, the limit ends it after three."""
    service = Service(daemon, "unix", None)
    service.start(image, None, idle_max_seconds=3)
    found = [service.connect(stack) for _ in range(SOME)]
    for peer in found:
        assert peer.read(0, 512)[0] == 0
    wait_left(service.daemon, SOME, "idle",
              "closed, because it has asked for nothing .*")
    for peer in found:
        peer.assert_closed()

