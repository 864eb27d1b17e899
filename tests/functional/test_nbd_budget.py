# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of all requests together, when peers try to use it up."""
import contextlib
import pathlib

import pytest

import harness
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference has no such limit")

LARGEST = 32 << 20  # of a request
STUCK = 40  # peers; they would like more than twice the budget
MOST = 900 << 20  # the budget is 512 MiB, and a sanitizer has its own


@pytest.fixture
def server(daemon, box):
    """The exports 'disk', with data, and 'zero'."""
    path = harness.make_image(box / "disk.img", LARGEST + (1 << 20), {
        0: harness.random_bytes(LARGEST // 4) * 4})
    daemon.serve_file(path)
    daemon.cmd("blockdev-add", driver="null-co", node_name="zero",
               size=1 << 30, read_zeroes=True)
    daemon.add_export("zero", writable=True)
    daemon.content = path.read_bytes()
    return daemon


def read_nothing(client):
    """Asks for much and takes only the first of it."""
    for _ in range(3):
        client.send_request(nbd.CMD_READ, 0, LARGEST)
    client.recv(16)


def write_for_ever(client):
    """Sends all but the end of a write."""
    client.send_request(nbd.CMD_WRITE, 0, LARGEST)
    client.send(bytes(LARGEST - (1 << 20)))


@contextlib.contextmanager
def pressed(daemon, press):
    with contextlib.ExitStack() as stack:
        for _ in range(STUCK):
            press(stack.enter_context(
                nbd.RawNbd(daemon.nbd_path)).go("zero"))
        yield


def shadow(server):
    """How many bytes the process takes for each that it has asked for."""
    maps = pathlib.Path(f"/proc/{server.pid}/maps").read_text(encoding="utf-8")
    return 5 if "libtsan" in maps else 1  # ThreadSanitizer's notes on memory


@pytest.mark.parametrize("press", (read_nothing, write_for_ever))
def test_memory_is_bounded_and_others_are_served(server, press):
    before = server.resident()
    with pressed(server, press):
        with nbd.RawNbd(server.nbd_path) as client:
            client.go("disk")
            assert client.read(0, LARGEST) == (0, server.content[:LARGEST])
            assert client.write(5, server.content[:LARGEST]) == 0
            assert client.read(5, LARGEST) == (0, server.content[:LARGEST])
            client.disconnect()
        assert server.resident() - before < MOST * shadow(server)


@pytest.mark.parametrize("flags", (0, nbd.DF))
def test_extended_replies_in_pieces(server, flags):
    with pressed(server, read_nothing):
        with nbd.RawNbd(server.nbd_path) as client:
            client.negotiate_extended()
            client.set_meta("disk", "base:allocation")
            client.go("disk")
            assert client.read(7, LARGEST, flags) == (
                0, server.content[7:LARGEST + 7])
            assert client.reply_offset == 7
            assert client.write(0, server.content[9:LARGEST + 9]) == 0
            assert client.read(0, LARGEST, flags) == (
                0, server.content[9:LARGEST + 9])
            assert client.status(0, LARGEST)[1][0] == [(LARGEST, 0)]
            client.disconnect()
