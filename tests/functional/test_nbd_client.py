# SPDX-License-Identifier: GPL-2.0-or-later
"""The nbd driver seen from outside: servers that hang, lie and come back.

Servers that keep to the protocol are in tests/interop/test_nbd_node.py, the
single messages in tests/unit/test-driver-nbd*.c.
"""
import random
import signal
import socket
import struct
import threading
import time

import nbd as libnbd
import pytest

import harness
import nbdservers
import qmp
import rawnbd as nbd
import rawserver

pytestmark = pytest.mark.ours("an own client")

SIZE = 1 << 20


@pytest.fixture
def serve(box):
    """A function that starts servers of a class derived from RawServer."""
    started = []

    def start(kind=rawserver.RawServer, size=SIZE):
        server = kind(box / f"raw{len(started)}.sock", bytearray(size))
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def add(daemon, server, **more):
    daemon.execute("blockdev-add", server.options(**more))


def add_error(daemon, server, **more):
    return daemon.error("blockdev-add", **{
        key.replace("-", "_"): value
        for key, value in server.options(**more).items()}).desc


def export_through(daemon, connect_nbd):
    """A libnbd handle on an export of the node."""
    daemon.start_nbd()
    daemon.add_export("n0", name="through", writable=True)
    return connect_nbd(daemon.nbd_path, "through")


# The monitor is never blocked.


class Silent(rawserver.RawServer):
    def greet(self, conn):
        self.recv(conn, 1 << 20)


def test_silent_server_does_not_block_the_monitor(daemon, serve):
    server = serve(Silent)
    other = daemon.client()
    daemon.qmp.send("blockdev-add", server.options())
    server.wait_for(lambda: server.accepted == 1)
    started = time.monotonic()
    for _ in range(50):
        assert other.cmd("query-named-block-nodes") == []
    assert time.monotonic() - started < 10
    # The test ends with the command under way: SIGTERM must end it.


def test_sigterm_ends_an_opening_that_is_tried_again(daemon, box):
    daemon.qmp.send("blockdev-add", {
        "driver": "nbd", "node-name": "n0", "open-timeout": 3600,
        "server": {"type": "unix", "path": str(box / "nobody.sock")}})
    daemon.client().cmd("query-version")
    started = time.monotonic()
    daemon.popen.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert time.monotonic() - started < 8


def test_silent_server_on_the_command_line_can_be_ended(daemons, serve):
    server = serve(Silent)
    daemon = daemons("--blockdev", "driver=nbd,node-name=n0,export=disk,"
                     f"server.type=unix,server.path={server.path}",
                     monitor=False)
    server.wait_for(lambda: server.accepted == 1)
    daemon.popen.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0


class StopsAnswering(rawserver.RawServer):
    """Answers until it is told not to."""

    answering = True

    def answer(self, conn, *request):
        if self.answering:
            super().answer(conn, *request)


def test_deleting_a_node_whose_server_hangs_takes_seconds(daemon, serve,
                                                          connect_nbd):
    server = serve(StopsAnswering)
    add(daemon, server)
    handle = export_through(daemon, connect_nbd)
    handle.pwrite(b"x" * 512, 0)
    handle.shutdown()
    server.answering = False
    daemon.cmd("block-export-del", id="exp-n0", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-n0")
    started = time.monotonic()
    daemon.cmd("blockdev-del", node_name="n0")
    assert time.monotonic() - started < 10
    server.answering = True
    add(daemon, server)  # the name is free


class Drips(rawserver.RawServer):
    """Answers a read at 0 by single bytes of a long error text: it is never
    silent."""

    def answer(self, conn, command, cookie, offset, length, data):
        if command != nbd.CMD_READ or offset != 0:
            super().answer(conn, command, cookie, offset, length, data)
            return
        conn.sendall(struct.pack(">IHHQI", nbd.CHUNK_MAGIC, 0,
                                 nbd.CHUNK_ERROR, cookie, 6 + 60000) +
                     struct.pack(">IH", nbd.EIO, 60000))
        while not self.stopped.wait(0.1):  # for longer than an hour
            conn.sendall(b"x")
        raise rawserver.Gone

    def __init__(self, path, data):
        self.stopped = threading.Event()
        super().__init__(path, data)

    def stop(self):
        self.stopped.set()
        super().stop()


def test_dripping_server_does_not_keep_an_export(daemon, serve):
    """Two exports of its node are removed, one after the other."""
    server = serve(Drips)
    add(daemon, server, **{"reconnect-delay": 3600, "silence-timeout": 3600})
    daemon.start_nbd()
    clients = []
    for name in ("one", "two"):
        daemon.add_export("n0", name, name=name)
        clients.append(nbd.RawNbd(daemon.nbd_path).go(name))
    clients[0].send_request(nbd.CMD_READ, 0, 4096)
    server.wait_for(lambda: (nbd.CMD_READ, 0, 0, 4096) in server.requests)
    clients[1].send_request(nbd.CMD_READ, 4096, 4096)
    for name in ("one", "two"):
        daemon.cmd("block-export-del", id=name, mode="hard")
    for name in ("one", "two"):
        daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id=name)
    daemon.cmd("blockdev-del", node_name="n0")


def test_deleting_while_connections_are_being_made(daemon, serve):
    """The node is there with the first connection; the others are on the way."""
    server = serve()
    server.flags |= nbd.FLAG_MULTI
    for connections in list(range(1, 17)) * 2:
        add(daemon, server, connections=connections)
        daemon.cmd("blockdev-del", node_name="n0")


# Lost connections.


def test_requests_wait_for_a_server_that_comes_back(daemon, serve,
                                                    connect_nbd):
    server = serve()
    add(daemon, server, **{"reconnect-delay": 60})
    handle = export_through(daemon, connect_nbd)
    handle.pwrite(b"a" * 4096, 0)
    server.stop()
    result = []

    def read():
        result.append(handle.pread(4096, 0))

    thread = threading.Thread(target=read)
    thread.start()
    daemon.wait_log("node 'n0': lost NBD server .*: the server closed the "
                    "connection")
    assert daemon.cmd("query-version")["qemu"]
    server.listen()
    thread.join(harness.LIMIT)
    assert result == [bytearray(b"a" * 4096)]
    daemon.wait_log("node 'n0': connected to NBD server .* again")


def test_requests_fail_when_the_delay_is_over(daemon, serve, connect_nbd):
    server = serve()
    add(daemon, server, **{"reconnect-delay": 1})
    handle = export_through(daemon, connect_nbd)
    server.stop()
    started = time.monotonic()
    with pytest.raises(Exception, match="Input/output error"):
        handle.pread(512, 0)
    elapsed = time.monotonic() - started
    assert 0.5 < elapsed < 8
    daemon.wait_log("requests fail until it is back")
    server.listen()
    harness.wait_until(lambda: can_read(handle), what="the connection")


def test_reason_is_told_when_the_export_is_another_one(daemon, serve,
                                                       connect_nbd):
    server = serve()
    add(daemon, server, **{"reconnect-delay": 60})
    handle = export_through(daemon, connect_nbd)
    server.data += bytes(512)
    server.drop()
    daemon.wait_log("node 'n0': cannot connect again: NBD server .*: the size "
                    f"of the export has changed from {SIZE} to {SIZE + 512}")
    del server.data[SIZE:]
    assert handle.pread(512, 0) == bytes(512)


@pytest.mark.parametrize("delay", (0, 1, 2))
@pytest.mark.parametrize("connections", (1, 4))
def test_server_that_only_accepts_is_given_up(daemon, serve, connect_nbd,
                                              connections, delay):
    server = serve(StopsAnswering)
    server.flags |= nbd.FLAG_MULTI
    add(daemon, server, **{"reconnect-delay": delay, "silence-timeout": 1,
                           "connections": connections})
    handle = export_through(daemon, connect_nbd)
    assert can_read(handle)
    server.answering = False
    for _ in range(2):
        server.requests.clear()
        assert not can_read(handle)
        assert len(server.requests) <= max(2, delay + 1)
    daemon.wait_log("lost (a connection to )?NBD server .*: nothing came for "
                    "1 s")
    server.answering = True
    harness.wait_until(lambda: can_read(handle), what="the connection")


def test_server_that_only_accepts_is_waited_for(daemon, serve, connect_nbd):
    server = serve(StopsAnswering)
    add(daemon, server, **{"reconnect-delay": 60, "silence-timeout": 1})
    handle = export_through(daemon, connect_nbd)
    server.answering = False
    cookie = handle.aio_pread(libnbd.Buffer(512), 0)
    server.wait_for(lambda: len(server.requests) == 3)
    server.answering = True
    while not handle.aio_command_completed(cookie):
        handle.poll(-1)


def add_read_only(daemon, server, connect_nbd, **more):
    """A read-only node, a handle through it, and how to reopen it."""
    options = server.options(**{"reconnect-delay": 60, **more})

    def reopen(method, read_only):
        return method("blockdev-reopen", options=[
            {**options, "read-only": read_only}])

    daemon.execute("blockdev-add", {**options, "read-only": True})
    daemon.start_nbd()
    daemon.add_export("n0", name="through")
    return connect_nbd(daemon.nbd_path, "through"), reopen


def can_write(daemon, connect_nbd, parallel=1):
    """Through an export of its own."""
    daemon.add_export("n0", "e-writable", name="writable", writable=True)
    handle = connect_nbd(daemon.nbd_path, "writable")
    requests = [handle.aio_pwrite(libnbd.Buffer(512), n * 512, flags=1)
                for n in range(parallel)]
    while handle.aio_in_flight():
        handle.poll(1000)
    assert all(handle.aio_command_completed(c) for c in requests)
    handle.shutdown()
    daemon.cmd("block-export-del", id="e-writable", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="e-writable")


def test_read_only_node_needs_no_writable_export(daemon, serve, connect_nbd):
    server = serve()
    handle, reopen = add_read_only(daemon, server, connect_nbd)
    server.flags = nbd.FLAG_READ_ONLY | 1
    server.drop()
    assert handle.pread(512, 0) == bytes(512)
    assert "read-only" in reopen(daemon.error, False).desc
    server.flags = rawserver.ALL_FLAGS
    server.drop()
    assert handle.pread(512, 0) == bytes(512)
    reopen(daemon.cmd, False)
    can_write(daemon, connect_nbd)
    server.flags = nbd.FLAG_READ_ONLY | rawserver.ALL_FLAGS
    server.drop()
    daemon.wait_log("cannot connect again: .*the export has become read-only")


def test_reopening_takes_the_export_as_it_is(daemon, serve, connect_nbd):
    """It had more when the node was opened, and then less to begin with."""
    server = serve()
    for first, then in ((rawserver.ALL_FLAGS, 1 | nbd.FLAG_FLUSH),
                        (1 | nbd.FLAG_READ_ONLY, rawserver.ALL_FLAGS)):
        server.flags = first
        handle, reopen = add_read_only(daemon, server, connect_nbd)
        server.flags = then
        server.drop()
        assert handle.pread(512, 0) == bytes(512)
        reopen(daemon.cmd, False)
        can_write(daemon, connect_nbd)
        server.drop()
        assert handle.pread(512, 0) == bytes(512)
        can_write(daemon, connect_nbd)
        handle.shutdown()
        daemon.cmd("nbd-server-stop")
        daemon.cmd("blockdev-del", node_name="n0")


def wait_until_all_are_used(handle, server, count=4):
    def read():
        requests = [handle.aio_pread(libnbd.Buffer(512), 0) for _ in range(32)]
        while handle.aio_in_flight():
            handle.poll(1000)
        assert all(handle.aio_command_completed(c) for c in requests)
        return len(server.used) == count

    server.used.clear()
    harness.wait_until(read, what="all connections")


def test_reopening_looks_at_all_connections(daemon, serve, connect_nbd):
    class OneDiffers(rawserver.RawServer):
        """Only the last of four connections can write."""
        less = False
        answered = 0
        used = set()

        def answer(self, conn, *request):
            self.used.add(conn)
            super().answer(conn, *request)

        def answer_go(self, conn):
            with self.changed:
                self.answered += 1
                less = self.less and self.answered % 4
                self.flags = nbd.FLAG_MULTI | (
                    1 | nbd.FLAG_READ_ONLY if less else rawserver.ALL_FLAGS)
                result = super().answer_go(conn)
                self.changed.notify_all()
            return result

    server = serve(OneDiffers)
    handle, reopen = add_read_only(daemon, server, connect_nbd, connections=4)
    wait_until_all_are_used(handle, server)
    server.less = True
    server.drop()
    wait_until_all_are_used(handle, server)
    assert "read-only" in reopen(daemon.error, False).desc
    server.less = False
    server.drop()
    wait_until_all_are_used(handle, server)
    reopen(daemon.cmd, False)
    can_write(daemon, connect_nbd, 32)


def test_zeroes_by_writing_are_flushed_once(daemon, serve, connect_nbd):
    server = serve(size=8 << 20)
    server.flags = 1 | nbd.FLAG_FLUSH
    add(daemon, server)
    handle = export_through(daemon, connect_nbd)
    handle.zero(8 << 20, 0, flags=1)
    commands = [request[0] for request in server.requests]
    assert commands.count(nbd.CMD_FLUSH) == 1
    assert commands.count(nbd.CMD_WRITE) > 1


def test_server_that_comes_and_goes_does_not_fill_the_log(daemon, serve,
                                                          connect_nbd):
    class OneReply(rawserver.RawServer):
        def answer(self, conn, *request):
            super().answer(conn, *request)
            raise rawserver.Gone

    server = serve(OneReply)
    add(daemon, server, **{"reconnect-delay": 60})
    handle = export_through(daemon, connect_nbd)
    started = time.monotonic()
    for _ in range(200):
        handle.pread(512, 0)
    assert server.accepted >= 100
    seconds = time.monotonic() - started
    assert daemon.log().count("lost NBD server") <= seconds + 2


def can_read(handle):
    try:
        return handle.pread(512, 0) == bytes(512)
    except Exception:
        return False


def test_no_acknowledged_write_is_lost_when_connections_break(
        daemon, serve, connect_nbd):
    """Connections break at any moment while four clients write."""
    server = serve(size=4 << 20)
    server.flags |= nbd.FLAG_MULTI
    add(daemon, server, **{"reconnect-delay": 60, "connections": 4})
    export_through(daemon, connect_nbd)
    seed = random.randrange(1 << 32)
    print("seed", seed)
    done = threading.Event()

    def breaker():
        rng = random.Random(seed)
        for _ in range(25):
            done.wait(rng.uniform(0.01, 0.08))
            server.drop()
        done.set()

    model = [bytearray(1 << 20) for _ in range(4)]

    def writer(n):
        rng = random.Random(seed + n)
        handle = connect_nbd(daemon.nbd_path, "through")
        while not done.is_set():
            length = rng.randrange(1, 40) * 512
            offset = rng.randrange(0, (1 << 20) - length)
            data = rng.randbytes(length)
            handle.pwrite(data, (n << 20) + offset)
            model[n][offset:offset + length] = data
            offset = rng.randrange(0, (1 << 20) - length)
            assert handle.pread(length, (n << 20) + offset) == \
                model[n][offset:offset + length]
        handle.flush()

    failures = []

    def run(target, *arguments):
        try:
            target(*arguments)
        except Exception as error:
            failures.append(error)
            done.set()

    threads = [threading.Thread(target=run, args=(writer, n))
               for n in range(4)]
    threads.append(threading.Thread(target=run, args=(breaker,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures
    assert server.data == b"".join(model)
    assert server.accepted > 10


# Servers with large blocks.


class LargeBlocks(rawserver.RawServer):
    """Refuses what is not made of whole blocks."""

    BLOCK = 4096
    bad = ()

    def answer_go(self, conn):
        self.reply(conn, nbd.OPT_GO, nbd.REP_INFO, struct.pack(
            ">HIII", nbd.INFO_BLOCK_SIZE, self.BLOCK, 2 * self.BLOCK,
            16 * self.BLOCK))
        return super().answer_go(conn)

    def answer(self, conn, command, cookie, offset, length, data):
        if command != nbd.CMD_FLUSH and (
                offset % self.BLOCK or length % self.BLOCK or not length or
                offset + length > len(self.data)):
            self.bad += ((command, offset, length),)
            self.simple(conn, cookie, nbd.EINVAL)
        elif command == nbd.CMD_BLOCK_STATUS:
            # Every other block is a hole.
            extents = [struct.pack(">II", self.BLOCK, at // self.BLOCK % 2)
                       for at in range(offset, offset + length, self.BLOCK)]
            self.chunk(conn, cookie, nbd.CHUNK_STATUS,
                       struct.pack(">I", 3) + b"".join(extents))
        else:
            super().answer(conn, command, cookie, offset, length, data)


def test_server_with_large_blocks_gets_whole_ones(daemon, serve):
    server = serve(LargeBlocks)
    add(daemon, server, discard="unmap")
    # An offset, so that the clients' ranges are shifted as well.
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "r0",
                                    "file": "n0", "offset": 512,
                                    "discard": "unmap"})
    daemon.start_nbd()
    daemon.add_export("r0", writable=True)
    raw = nbd.RawNbd(daemon.nbd_path)
    raw.negotiate_structured()
    raw.set_meta("r0", "base:allocation")
    raw.go("r0")
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    model = bytearray(SIZE - 512)
    for _ in range(200):
        offset = rng.randrange(raw.size)
        length = rng.randrange(1, min(100_000, raw.size - offset) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            assert raw.read(offset, length) == \
                (0, model[offset:offset + length])
        elif kind == 1:
            data = rng.randbytes(length)
            assert raw.write(offset, data) == 0
            model[offset:offset + length] = data
        elif kind == 2:
            assert raw.request(nbd.CMD_WRITE_ZEROES, offset, length) == 0
            model[offset:offset + length] = bytes(length)
        elif kind == 3:
            check_status(raw, offset, length)
        else:
            command = (nbd.CMD_CACHE, nbd.CMD_TRIM)[kind - 4]
            assert raw.request(command, offset, length) == 0
    raw.disconnect()
    assert server.bad == ()
    assert server.data[512:] == model


@pytest.mark.ours("the reference prefers what is smallest")
def test_block_sizes_of_the_server_are_told_to_clients(daemon, serve):
    class PrefersLarge(LargeBlocks):
        def answer_go(self, conn):
            self.reply(conn, nbd.OPT_GO, nbd.REP_INFO, struct.pack(
                ">HIII", nbd.INFO_BLOCK_SIZE, 512, 1 << 16, 2 << 20))
            return rawserver.RawServer.answer_go(self, conn)

    add(daemon, serve(PrefersLarge))
    daemon.start_nbd()
    daemon.add_export("n0")
    with nbd.RawNbd(daemon.nbd_path) as raw:
        raw.go("n0", nbd.INFO_BLOCK_SIZE)
        assert struct.unpack(">III", raw.infos[nbd.INFO_BLOCK_SIZE]) == (
            512, 1 << 16, 2 << 20)


def check_status(raw, offset, length):
    error, contexts = raw.status(offset, length)
    assert error == 0
    at = offset + 512
    for bytes_, flags in contexts[0]:
        end = at + bytes_
        assert end == offset + 512 + length or end % 4096 == 0
        assert flags == at // 4096 % 2 and at // 4096 == (end - 1) // 4096
        at = end
    assert offset + 512 < at <= offset + 512 + length


# Credentials.


def test_credentials_in_use_cannot_be_deleted(daemon, daemons, tls_dir, image):
    peer = daemons()
    peer.add_creds(tls_dir)
    path = peer.serve_file(image, tls="tls0")
    nbdservers.add_client_creds(daemon, tls_dir)
    daemon.cmd("object-add", qom_type="tls-creds-x509", id="wrong",
               endpoint="server", dir=str(tls_dir))
    options = {"driver": "nbd", "node_name": "n0", "export": "disk",
               "server": {"type": "unix", "path": str(path)},
               "tls_creds": "client0", "tls_hostname": "localhost"}
    daemon.cmd("blockdev-add", **options)
    error = daemon.error("object-del", id="client0")
    assert error.desc == \
        "object 'client0' is in use by node 'n0', can not be deleted"
    daemon.cmd("blockdev-del", node_name="n0")
    # A name that the certificate does not have, or no name at all.
    for name, text in (("elsewhere", "elsewhere"), (None, "hostname")):
        wrong = {k: v for k, v in options.items() if k != "tls_hostname"}
        if name:
            wrong["tls_hostname"] = name
        assert text in daemon.error("blockdev-add", **wrong).desc
    assert "client endpoint" in daemon.error(
        "blockdev-add", **{**options, "tls_creds": "wrong"}).desc
    assert daemon.error("blockdev-add", **{**options, "tls_creds": "none"}
                        ).desc == "No TLS credentials with id 'none'"
    plain = {k: v for k, v in options.items() if not k.startswith("tls")}
    error = daemon.error("blockdev-add", **plain).desc
    assert "the server requires TLS; give tls-creds" in error
    daemon.cmd("object-del", id="client0")


def test_plain_server_is_refused_with_credentials(daemon, daemons, tls_dir,
                                                  image):
    path = daemons().serve_file(image)
    nbdservers.add_client_creds(daemon, tls_dir)
    error = daemon.error(
        "blockdev-add", driver="nbd", node_name="n0", export="disk",
        server={"type": "unix", "path": str(path)}, tls_creds="client0",
        tls_hostname="localhost").desc
    assert "Denied by server for option 5 (starttls)" in error
    assert "server reported: TLS not configured" in error


# Hostile servers.


class Liar(rawserver.RawServer):
    """Sends what it should, with one piece of it changed at random."""

    def __init__(self, path, data, seed):
        self.rng = random.Random(seed)
        super().__init__(path, data)

    def serve(self, conn):
        conn.settimeout(0.2)  # the client may wait for what it was told of
        super().serve(Lie(conn, self.rng))


class Lie:
    """A socket that changes some of what is sent."""

    def __init__(self, conn, rng):
        self.conn, self.rng = conn, rng

    def sendall(self, data):
        data = bytearray(data)
        chance = self.rng.random()
        if not data.startswith(tuple(struct.pack(">I", magic) for magic in (
                nbd.SIMPLE_MAGIC, nbd.CHUNK_MAGIC, nbd.EXTENDED_CHUNK_MAGIC))):
            chance *= 4  # most get through the handshake
        if chance < 0.05:
            self.conn.shutdown(socket.SHUT_RDWR)
        elif chance < 0.10:
            data = data[:self.rng.randrange(len(data) + 1)]
        elif chance < 0.20:
            data[self.rng.randrange(min(len(data), 40))] ^= \
                1 << self.rng.randrange(8)
        elif chance < 0.25:
            place = self.rng.randrange(max(1, min(len(data), 36) - 4))
            data[place:place + 4] = struct.pack(">I", self.rng.choice(
                (0, 1, 0x7fffffff, 0x80000000, 0xffffffff)))
        elif chance < 0.30:
            data = data + data
        self.conn.sendall(data)

    def __getattr__(self, name):
        return getattr(self.conn, name)


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status
                    if line.startswith("VmRSS"))


@pytest.mark.parametrize("extended", (False, True))
def test_lying_server_does_no_harm(daemon, box, extended):
    """Whatever it says, requests end, the monitor answers, memory is bounded."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    before = memory_kib(daemon.pid)
    rng = random.Random(seed)
    daemon.start_nbd()
    opened = 0
    for turn in range(60):
        server = Liar(box / f"liar{turn}.sock", bytearray(SIZE),
                      rng.randrange(1 << 32))
        server.extended = extended
        try:
            add(daemon, server)
            opened += 1
            use_for_a_while(daemon, rng)
        except qmp.QmpError as error:
            assert "liar" in error.desc or "size" in error.desc, error
        finally:
            server.stop()
    assert opened > 20  # of 40, on average
    assert memory_kib(daemon.pid) - before < 200 << 10


def use_for_a_while(daemon, rng):
    daemon.add_export("n0", name="through", writable=True)
    raw = nbd.RawNbd(daemon.nbd_path)
    raw.negotiate_structured()
    raw.set_meta("through", "base:allocation")
    raw.go("through")
    for _ in range(12):
        offset = rng.randrange(raw.size - 65536) if raw.size > 65536 else 0
        length = min(rng.randrange(1, 65536), raw.size)
        choice = rng.randrange(4)
        if choice == 0:
            raw.read(offset, length)
        elif choice == 1:
            raw.write(offset, bytes(length))
        elif choice == 2:
            raw.status(offset, max(length, 1))
        else:
            raw.request(nbd.CMD_FLUSH)
    raw.disconnect()
    daemon.cmd("block-export-del", id="exp-n0", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-n0")
    daemon.cmd("blockdev-del", node_name="n0")


@pytest.mark.parametrize("where", ("greeting", "option", "request"))
def test_endless_talk_ends(daemon, serve, where):
    """A server that never stops talking is not listened to for ever."""

    class Endless(rawserver.RawServer):
        def greet(self, conn):
            if where == "greeting":
                while True:
                    conn.sendall(b"x" * 65536)
            super().greet(conn)

        def answer_go(self, conn):
            if where == "option":
                while True:
                    self.reply(conn, nbd.OPT_GO, nbd.REP_INFO,
                               struct.pack(">H", 99) + b"x" * 60000)
            return super().answer_go(conn)

        def answer(self, conn, command, cookie, *_):
            while True:
                self.chunk(conn, cookie, nbd.CHUNK_ERROR,
                           struct.pack(">IH", 5, 60000) + b"x" * 60000, 0)

    server = serve(Endless)
    if where != "request":
        error = add_error(daemon, server)
        assert "NBD server" in error, error
        return
    add(daemon, server)
    daemon.start_nbd()
    daemon.add_export("n0", name="through")
    raw = nbd.RawNbd(daemon.nbd_path)
    raw.negotiate_structured()
    raw.go("through")
    assert raw.read(0, 4096)[0] == nbd.EIO
    daemon.wait_log("broke the protocol in its reply to a read")


def test_black_hole_address_is_given_up_by_sigterm(daemon):
    """192.0.2.0/24 is for documentation: nobody answers, or no route."""
    daemon.qmp.send("blockdev-add", {
        "driver": "nbd", "node-name": "n0",
        "server": {"type": "inet", "host": "192.0.2.1", "port": "10809"}})
    assert daemon.client().cmd("query-version")


def test_reopen_and_names(daemon, serve):
    server = serve()
    add(daemon, server)
    info = daemon.cmd("query-named-block-nodes")[0]
    assert info["image"]["filename"] == \
        f"nbd+unix:///disk?socket={server.path}"
    assert info["drv"] == "nbd" and not info["ro"]
    error = daemon.error("block_resize", node_name="n0", size=SIZE * 2)
    assert "Cannot grow NBD nodes: 'n0' has" in error.desc, error
    for size in SIZE, SIZE // 2:
        daemon.cmd("block_resize", node_name="n0", size=size)
        assert daemon.cmd("query-named-block-nodes")[0]["image"][
            "virtual-size"] == SIZE
    options = server.options(**{"read-only": True})
    daemon.execute("blockdev-reopen", {"options": [options]})
    assert daemon.cmd("query-named-block-nodes")[0]["ro"]
    options["server"] = {"type": "unix", "path": "/elsewhere"}
    with pytest.raises(Exception, match="Cannot change the option 'server'"):
        daemon.execute("blockdev-reopen", {"options": [options]})
