# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that take long, though nothing makes them wait: while they run,
others on the same thread get their turns."""
import os
import signal
import struct

import pytest

import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference has no extended headers")

SIZE = 4 << 20


def connect(daemon, export, contexts=()):
    client = nbd.RawNbd(daemon.nbd_path)
    client.negotiate_extended()
    if contexts:
        client.set_meta(export, *contexts)
    return client.go(export)


@pytest.mark.parametrize("command", [nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES])
@pytest.mark.parametrize("hard", [False, True])
def test_endless_request_leaves_others_their_turns(daemon, command, hard):
    """Storage that takes each piece at once makes nobody wait."""
    daemon.start_nbd()
    for name, size in ("endless", 1 << 62), ("other", SIZE):
        daemon.cmd("blockdev-add", driver="null-co", node_name=name, size=size)
        daemon.add_export(name, writable=True, iothread="io0")
    with connect(daemon, "endless") as greedy, \
            connect(daemon, "other") as other:
        greedy.send_request(command, 0, greedy.size)
        for _ in range(100):
            assert other.read(0, 512)[0] == 0
        clients = daemon.cmd("query-nbd-clients")
        found, = [c for c in clients if c["export-id"] == "exp-endless"]
        assert found["in-flight"] == 1
        if hard:
            daemon.cmd("block-export-del", id="exp-endless", mode="hard")
            daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-endless")
        else:
            daemon.cmd("nbd-client-drop", connection=found["connection"])
            daemon.qmp.take_event("NBD_CLIENT_DISCONNECTED",
                                  connection=found["connection"])
        assert other.read(0, 512)[0] == 0


def serve_bitmap(daemon, granularity):
    """An export of 1 TiB, with a dirty bitmap."""
    daemon.cmd("blockdev-add", driver="null-co", node_name="disk",
               size=1 << 40)
    daemon.cmd("block-dirty-bitmap-add", node="disk", name="b0",
               granularity=granularity)
    daemon.start_nbd()
    daemon.add_export("disk", writable=True, bitmaps=["b0"])


def test_long_bitmap_leaves_others_their_turns(daemon):
    """What is asked for later need not wait for a look at all bits."""
    serve_bitmap(daemon, 65536)
    with connect(daemon, "disk", ["qemu:dirty-bitmap:b0"]) as client:
        turn = 65536 << 20
        for start, end in ((turn - 65536, turn + 65536), (2 * turn, 3 * turn),
                           (client.size - 65536, client.size)):
            assert client.request(nbd.CMD_WRITE_ZEROES, start,
                                  end - start) == 0
        client.send(client.request_bytes(nbd.CMD_BLOCK_STATUS, 0,
                                         client.size) +
                    client.request_bytes(nbd.CMD_READ, 0, 512, nbd.DF))
        first, second = client.read_reply(), client.read_reply()
        assert (first.type, second.type) == (nbd.CHUNK_DATA,
                                             nbd.CHUNK_STATUS_EXT)
        assert list(struct.iter_unpack(">QQ", second.data[8:])) == [
            (turn - 65536, 0), (131072, 1), (turn - 65536, 0), (turn, 1),
            (client.size - 65536 - 3 * turn, 0), (65536, 1)]


def end_of_client(daemon, client, *requests):
    """Sends requests and is gone at once; what the daemon says of it."""
    os.kill(daemon.pid, signal.SIGSTOP)
    client.send(b"".join(client.request_bytes(*request)
                         for request in requests))
    client.close()
    os.kill(daemon.pid, signal.SIGCONT)
    return daemon.qmp.take_event("NBD_CLIENT_DISCONNECTED")["data"]


@pytest.mark.parametrize("command", [nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES])
def test_endless_request_ends_when_its_peer_is_gone(daemon, command):
    """It would go on for days, and nobody else could have its place."""
    daemon.cmd("blockdev-add", driver="null-co", node_name="disk",
               size=1 << 62)
    daemon.start_nbd(max_connections=1)
    daemon.add_export("disk", writable=True)
    client = connect(daemon, "disk")
    left = end_of_client(daemon, client, (command, 0, client.size))
    assert left["failed-requests"] == left["requests"] == 1
    with connect(daemon, "disk") as other:
        assert other.read(0, 512)[0] == 0


@pytest.mark.parametrize("command", [nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES])
def test_long_request_of_a_peer_that_says_goodbye_is_finished(daemon, command):
    """Who leaves in due form gets all that he has asked for."""
    daemon.cmd("blockdev-add", driver="null-co", node_name="disk",
               size=1 << 40)
    daemon.start_nbd()
    daemon.add_export("disk", writable=True)
    client = connect(daemon, "disk")
    left = end_of_client(daemon, client, (command, 0, client.size),
                         (nbd.CMD_DISC,))
    assert left["requests"] == 1
    assert left["failed-requests"] == 0


def test_look_at_long_bitmaps_ends_when_its_peer_is_gone(daemon):
    serve_bitmap(daemon, 512)
    client = connect(daemon, "disk", ["qemu:dirty-bitmap:b0"])
    left = end_of_client(daemon, client, *[
        (nbd.CMD_BLOCK_STATUS, 0, client.size, nbd.REQ_ONE)] * 32)
    assert left["failed-requests"] == left["requests"] == 32
