# SPDX-License-Identifier: GPL-2.0-or-later
"""Kills of the daemon, and failures of power, under clients that write.

BLOCKFERRY_ROUNDS says how many crashes each test makes at least, BLOCKFERRY_SEED
repeats a run as far as timing allows.
"""
import functools
import itertools
import os
import random
import socket

import pytest

import harness
import rawnbd as nbd
from durability import Disk, Writer
from stuckfs import StuckFs

SIZE = 1 << 20
ROUNDS = int(os.environ.get("BLOCKFERRY_ROUNDS", 20))
KILLS = 100  # they take a tenth of a second each
CONNECTIONS = 2  # a flush on one covers what the other wrote

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def source():
    return random.Random(harness.seed())


@pytest.fixture
def fs(box):
    fs = StuckFs(box)
    yield fs
    fs.end()


def read_all(address):
    with nbd.RawNbd(address) as client:
        error, data = client.go("disk").read(0, SIZE)
    assert error == 0
    return data


def serve_file(daemons, path, **options):
    """Returns the address of an export, and the daemons to kill."""
    daemon = daemons()
    return daemon.serve_file(path, **options), [daemon]


def serve_writethrough(daemons, path):
    daemon = daemons()
    daemon.add_file(path)
    daemon.start_nbd()
    daemon.add_export("disk", writable=True, writethrough=True)
    return daemon.nbd_path, [daemon]


def serve_through_nbd(daemons, path):
    """By a daemon that has it from another one."""
    back, front = daemons(), daemons()
    front.execute("blockdev-add", {
        "driver": "nbd", "node-name": "disk", "export": "disk",
        "server": {"type": "unix", "path": str(back.serve_file(path))}})
    front.start_nbd()
    front.add_export("disk", writable=True)
    return front.nbd_path, [front, back]


SERVERS = {
    "cached": serve_file,
    "direct": functools.partial(serve_file, cache={"direct": True}),
    "writethrough": serve_writethrough,
    "nbd": serve_through_nbd}


class Crashes:
    """Daemons one after the other on one file, each of which is killed."""

    def __init__(self, daemons, path, server, source):
        self.daemons, self.path, self.server = daemons, path, server
        self.source = source
        self.disk = Disk(path.read_bytes(), server == "writethrough")

    def check(self, address, power_loss):
        """What the file has is allowed, and is what the next daemon shows."""
        content = self.path.read_bytes()
        problems = self.disk.problems(content, power_loss)
        assert not (found := list(itertools.islice(problems, 10))), found
        assert read_all(address) == content
        self.disk.restart(content)

    def run(self, rounds, power=None):
        """power: (file system that loses it, its path of the file)"""
        for number in range(rounds + 1):
            print(f"round {number}")
            address, daemons = SERVERS[self.server](
                self.daemons, power[1] if power else self.path)
            self.check(address, power is not None)
            if number == rounds:
                return
            writer = Writer([address] * CONNECTIONS, self.disk, self.source)
            assert writer.clients[0].flags & nbd.FLAG_MULTI
            writer.run(self.source.randrange(10, 150), daemons)
            if power:
                power[0].lose(self.source.getrandbits(32))


@pytest.mark.parametrize("server", ("cached", "direct", "nbd"))
def test_killed_daemon_loses_nothing(daemons, box, server, source):
    path = harness.make_image(box / "disk.img", SIZE, {
        0: harness.random_bytes(SIZE // 2)})
    Crashes(daemons, path, server, source).run(max(ROUNDS, KILLS))


@pytest.mark.parametrize("server", SERVERS)
def test_power_failure_spares_what_was_flushed(daemons, fs, server, source):
    """A disk with a cache that reorders loses all that no fsync covered."""
    path = harness.make_image(fs.source / "disk.img", SIZE, {
        0: harness.random_bytes(SIZE // 2)})
    Crashes(daemons, path, server, source).run(
        ROUNDS, (fs, fs.mount / "disk.img"))


def test_addresses_of_a_killed_daemon_are_free_at_once(daemons, box):
    """The kernel may be at its rings for longer."""
    port = harness.free_port()
    path = box / "monitor"
    arguments = ("--chardev", f"socket,id=m,path={path},server=on,wait=off",
                 "--monitor", "chardev=m", "--nbd-server",
                 f"addr.type=inet,addr.host=127.0.0.1,addr.port={port}",
                 "--blockdev", "driver=null-co,node-name=n0,size=1048576",
                 "--export", "nbd,id=e,node-name=n0,name=disk,writable=on")
    for _ in range(ROUNDS):
        daemon = daemons(*arguments)
        daemon.cmd("query-version")
        clients = [nbd.RawNbd(("127.0.0.1", port)) for _ in range(4)]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            for each in clients:
                each.go("disk").send_request(nbd.CMD_WRITE, 0, 4096)
            daemon.kill()
        for each in clients:
            each.close()
