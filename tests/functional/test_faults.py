# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers that die, lie, stall or talk nonsense; the daemon goes on."""
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest

import harness
import rawnbd as nbd

SIZE = 4 << 20
PROMPT = 2.0
REQUESTS = 20_000


def connect(daemon, export="disk"):
    return nbd.RawNbd(daemon.nbd_path).go(export)


@pytest.fixture
def server(daemon, image):
    daemon.serve_file(image)
    return daemon


def assert_serving(daemon, export="disk"):
    with connect(daemon, export) as client:
        started = time.monotonic()
        assert client.read(0, 4096)[0] == 0
        assert client.write(8192, b"alive" * 100) == 0
        assert time.monotonic() - started < PROMPT
    started = time.monotonic()
    daemon.cmd("query-block-exports")
    assert time.monotonic() - started < PROMPT


def resident_kib(daemon):
    status = open(f"/proc/{daemon.pid}/status", encoding="ascii").read()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))


# Clients that die.

CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
import rawnbd as nbd
client = nbd.RawNbd(sys.argv[2]).go("disk")
data = b"k" * 65536
print("ready", flush=True)
while True:
    for n in range(32):
        client.send_request(nbd.CMD_WRITE, n * 65536, 65536, 0, data)
    for n in range(32):
        client.read_reply()
"""


def test_clients_killed_in_mid_write(server):
    """Whatever part of a request arrived, the export stays usable."""
    for turn in range(10):
        children = [subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(harness.TESTS / "peers"),
             str(server.nbd_path)], stdout=subprocess.PIPE)
            for _ in range(2)]
        for child in children:
            assert child.stdout.readline() == b"ready\n"
        # Some work, then an end at an arbitrary point.
        with connect(server) as client:
            for _ in range(turn * 5):
                client.read(0, 4096)
        for child in children:
            child.send_signal(signal.SIGKILL)
            child.communicate()
        assert_serving(server)
    harness.wait_until(lambda: try_remove(server))


def try_remove(daemon):
    """Safe removal works once the daemon has noticed all ends."""
    reply = daemon.qmp.reply(daemon.qmp.send("block-export-del",
                                             {"id": "exp-disk"}))
    return "return" in reply


@pytest.mark.parametrize("part", (1, 27, 28, 29, 2000))
def test_connection_cut_inside_a_request(server, image, part):
    before = image.read_bytes()
    for _ in range(10):
        client = connect(server)
        data = client.request_bytes(nbd.CMD_WRITE, 0, 4096, data=b"c" * 4096)
        client.send(data[:part])
        client.close()
    assert_serving(server)
    assert image.read_bytes()[:4096] == before[:4096], "a torn write"


def test_connection_cut_with_replies_due(server):
    for _ in range(20):
        client = connect(server)
        client.send(b"".join(client.request_bytes(nbd.CMD_READ, 0, 1 << 20)
                             for _ in range(16)))
        client.close()
    assert_serving(server)


# Nonsense.

def test_garbage_on_the_nbd_port(server):
    for seed in range(60):
        client = nbd.RawNbd(server.nbd_path, handshake=False)
        try:
            client.send(harness.random_bytes(3000, seed))
            while client.sock.recv(65536):
                pass
        except (nbd.Closed, OSError):
            pass
        client.close()
    for text in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\0\xff",
                 b"SSH-2.0-x\r\n", b'{"execute":"quit"}', b"\0" * 1000):
        client = nbd.RawNbd(server.nbd_path, handshake=False)
        try:
            client.send(text)
            client.sock.settimeout(0.2)
            while client.sock.recv(65536):
                pass
        except (nbd.Closed, OSError):
            pass
        client.close()
    assert_serving(server)


def mutated(source, data):
    data = bytearray(data)
    for _ in range(source.randrange(1, 4)):
        kind = source.randrange(3)
        position = source.randrange(len(data))
        if kind == 0:
            data[position] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 1:
            del data[position:position + source.randrange(1, 9)]
        else:
            data[position:position] = source.randbytes(source.randrange(1, 9))
        data = data or bytearray(b"\0")
    return bytes(data)


def test_mutated_conversations(server):
    """Valid conversations with small faults, sent in one go."""
    base = nbd.RawNbd.__new__(nbd.RawNbd)
    base.cookie = 1
    head = struct.pack(">I", 3)

    def option(number, data=b""):
        return struct.pack(">QII", nbd.IHAVEOPT, number, len(data)) + data

    talk = (head + option(nbd.OPT_STRUCTURED) + option(nbd.OPT_LIST)
            + option(nbd.OPT_SET_META,
                     nbd.meta_data("disk", ["base:allocation"]))
            + option(nbd.OPT_GO, nbd.go_data("disk", [3]))
            + base.request_bytes(nbd.CMD_READ, 0, 4096)
            + base.request_bytes(nbd.CMD_BLOCK_STATUS, 0, SIZE)
            + base.request_bytes(nbd.CMD_WRITE_ZEROES, 4096, 4096)
            + base.request_bytes(nbd.CMD_FLUSH)
            + base.request_bytes(nbd.CMD_DISC))
    source = random.Random(7)
    for _ in range(300):
        client = nbd.RawNbd(server.nbd_path, handshake=False, limit=5)
        try:
            client.send(mutated(source, talk))
            client.sock.shutdown(1)
            while client.sock.recv(1 << 20):
                pass
        except (nbd.Closed, OSError):
            pass
        client.close()
    assert_serving(server)


# Clients that stall.

def stuff(client, request, limit=REQUESTS):
    """Sends requests until the server stops taking them."""
    client.sock.settimeout(0.5)
    count = 0
    try:
        while count < limit:
            client.send(request)
            count += 1
    except TimeoutError:
        pass
    return count


@pytest.mark.ours("the reference hangs at hard removal")
@pytest.mark.parametrize("command, length", [
    (nbd.CMD_READ, 1 << 20), (nbd.CMD_READ, 4096)])
def test_client_that_does_not_read(server, image, command, length):
    """It is throttled, bounded in memory, and harms nobody else."""
    server.add_export("disk", "other", name="other", writable=True)
    before = resident_kib(server)
    lazy = [connect(server) for _ in range(4)]
    for client in lazy:
        count = stuff(client, client.request_bytes(command, 0, length))
        assert count < REQUESTS, "requests are read without end"
    assert resident_kib(server) - before < 600_000
    assert_serving(server)
    assert_serving(server, "other")
    server.cmd("block-export-del", id="exp-disk", mode="hard", _limit=10)
    server.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk", limit=10)
    assert_serving(server, "other")
    for client in lazy:
        client.close()


def test_lazy_client_goes_on_when_it_reads(server, image):
    client = connect(server)
    count = stuff(client, client.request_bytes(nbd.CMD_READ, 0, 65536,
                                               cookie=1), 500)
    client.sock.settimeout(harness.LIMIT)
    content = image.read_bytes()[:65536]
    # A request may be cut where sending stopped; whole ones are answered.
    for _ in range(max(count - 1, 1)):
        reply, data = client.read_reply(65536)
        assert (reply.error, data) == (0, content)


@pytest.mark.ours("the reference makes each list in one piece")
def test_clients_that_do_not_read_their_lists(daemon):
    """Lists are made as they are read, while exports come and go."""
    names = [f"disk{n}" for n in range(500)]
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "n",
                                    "size": 1 << 20})
    daemon.start_nbd(handshake_max_seconds=0)
    for name in names:
        daemon.cmd("block-export-add", type="nbd", id=name, node_name="n",
                   name=name, description="d" * 4096)
    before = daemon.resident()
    lazy = [nbd.RawNbd(daemon.nbd_path) for _ in range(50)]
    for client in lazy:
        client.send_option(nbd.OPT_LIST)
    for client in lazy:
        assert client.read_option_reply().type == nbd.REP_SERVER
    assert daemon.resident() - before < 200 << 20
    for name in names[0], names[250]:
        daemon.cmd("block-export-del", id=name)
    daemon.cmd("block-export-add", type="nbd", id="late", node_name="n",
               name="late")
    for client in lazy:
        found = [name for name, _ in client.read_list()]
        assert [name for name in found if name != names[250]] == \
            names[1:250] + names[251:] + ["late"]
        client.close()


def test_client_that_stalls_inside_a_write(server):
    """Payloads announced and not sent bind little memory and no one else."""
    before = resident_kib(server)
    stalled = []
    for _ in range(16):
        client = connect(server)
        client.send_request(nbd.CMD_WRITE, 0, SIZE)
        client.send(b"x" * 1000)
        stalled.append(client)
    assert_serving(server)
    assert resident_kib(server) - before < 16 * 10_000
    server.cmd("block-export-del", id="exp-disk", mode="hard", _limit=10)
    server.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk", limit=10)
    for client in stalled:
        client.assert_closed()


def test_client_that_trickles(server):
    """A byte at a time on one connection does not slow another."""
    stop = threading.Event()
    slow = connect(server)

    def trickle():
        data = slow.request_bytes(nbd.CMD_WRITE, 0, 100_000,
                                  data=bytes(100_000))
        for byte in data:
            if stop.is_set():
                return
            slow.send(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        assert_serving(server)
        with connect(server) as client:
            for number in range(200):
                started = time.monotonic()
                assert client.read(number * 512, 512)[0] == 0
                assert time.monotonic() - started < PROMPT
    finally:
        stop.set()
        thread.join()
        slow.close()


@pytest.mark.ours("the reference has a limit of its own")
def test_many_idle_connections(daemon, image):
    daemon.add_file(image)
    daemon.start_nbd(max_connections=0)
    daemon.add_export("disk", writable=True)
    before = resident_kib(daemon)
    idle = [connect(daemon) for _ in range(300)]
    per_connection = (resident_kib(daemon) - before) / 300
    assert per_connection < 1500, f"{per_connection:.0f} KiB each"
    assert_serving(daemon)
    daemon.cmd("nbd-server-stop")
    for client in idle:
        client.assert_closed()


def test_running_out_of_descriptors(daemons, image):
    """accept() fails for a while, then all goes on."""
    import resource
    daemon = daemons()
    daemon.add_file(image)
    daemon.start_nbd(max_connections=0)
    daemon.add_export("disk", writable=True)
    assert_serving(daemon)
    used = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE,
                     (used + 8, used + 8))
    crowd = []
    for _ in range(30):
        crowd.append(nbd.RawNbd(daemon.nbd_path, handshake=False))
    assert daemon.qmp.cmd("query-version")
    # It must not spin: half a second of waiting costs little.
    start = cpu_ticks(daemon)
    waited = time.monotonic()
    harness.wait_until(lambda: time.monotonic() - waited > 0.5)
    spent = (cpu_ticks(daemon) - start) / os.sysconf("SC_CLK_TCK")
    if not harness.IS_REFERENCE:
        assert spent < 0.4, f"{spent:.2f} s of CPU while out of descriptors"
    for client in crowd:
        client.close()
    assert_serving(daemon)


def cpu_ticks(daemon):
    with open(f"/proc/{daemon.pid}/stat", encoding="ascii") as file:
        return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))


# The machine ends.

def test_daemon_killed_under_load_leaves_a_usable_image(server, daemons,
                                                        image):
    client = connect(server)
    for number in range(64):
        client.send_request(nbd.CMD_WRITE, number * 4096, 4096,
                            data=b"z" * 4096)
    server.kill()
    other = daemons()
    other.add_file(image)
    os.unlink(server.nbd_path)
    other.start_nbd()
    other.add_export("disk", writable=True)
    assert_serving(other)
