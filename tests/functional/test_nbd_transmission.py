# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests and replies, row by row."""
import os
import random
import socket
import struct
import threading

import pytest

import harness
import rawnbd as nbd

SIZE = 4 << 20
LIMIT = 32 << 20


def connect(daemon, export="disk", structured=False, contexts=()):
    client = nbd.RawNbd(daemon.nbd_path)
    if structured:
        client.negotiate_structured()
    if contexts:
        client.set_meta(export, *contexts)
    return client.go(export)


@pytest.fixture
def server(daemon, image):
    """'disk', writable, and 'ro' on the same noise."""
    daemon.serve_file(image, "disk", discard="unmap")
    daemon.execute("blockdev-add", {
        "driver": "null-co", "node-name": "ro", "size": SIZE,
        "read-zeroes": True})
    daemon.add_export("ro")
    return daemon


@pytest.fixture(params=(False, True), ids=("simple", "structured"))
def client(request, server):
    with connect(server, structured=request.param) as client:
        yield client


@pytest.fixture(params=(False, True), ids=("simple", "structured"))
def reader(request, server):
    """A client of the read-only export."""
    with connect(server, "ro", structured=request.param) as client:
        yield client


@pytest.fixture
def status(server):
    """A client with base:allocation."""
    with connect(server, structured=True,
                 contexts=["base:allocation"]) as client:
        yield client


# Reads and writes.

@pytest.mark.parametrize("offset, length", [
    (0, 1), (0, 512), (1, 1), (511, 2), (4095, 4097), (100, 100_000),
    (0, SIZE), (SIZE - 1, 1), (SIZE - 70_000, 70_000), (12345, 1 << 20)])
def test_read_gives_what_the_file_has(client, image, offset, length):
    error, data = client.read(offset, length)
    assert error == 0
    assert data == image.read_bytes()[offset:offset + length]


@pytest.mark.parametrize("offset, length", [
    (0, 1), (511, 2), (4096, 4096), (4095, 4098), (777, 300_000),
    (SIZE - 1, 1), (0, SIZE)])
@pytest.mark.parametrize("flags", (0, nbd.FUA))
def test_written_data_are_in_the_file(client, image, offset, length, flags):
    before = image.read_bytes()
    data = harness.random_bytes(length, seed=9)
    assert client.write(offset, data, flags) == 0
    assert client.read(offset, length) == (0, data)
    assert image.read_bytes() == (before[:offset] + data
                                  + before[offset + length:])


def test_many_requests_in_flight_are_all_answered(client, image):
    content = image.read_bytes()
    source = random.Random(3)
    wanted = {}
    for cookie in range(1, 513):
        length = source.randrange(1, 20_000)
        offset = source.randrange(0, SIZE - length)
        wanted[cookie] = (offset, length)
    block = b"".join(client.request_bytes(nbd.CMD_READ, *wanted[c], cookie=c)
                     for c in wanted)
    sender = threading.Thread(target=client.send, args=(block,))
    sender.start()
    partial = {}
    while wanted:
        if client.structured:
            reply = client.read_reply()
            partial.setdefault(reply.cookie, []).append(reply)
            if reply.flags & nbd.DONE:
                offset, length = wanted.pop(reply.cookie)
                assert client.join_chunks(
                    partial.pop(reply.cookie), offset, length) == (
                        0, content[offset:offset + length])
            continue
        magic, error, cookie = struct.unpack(">IIQ", client.recv(16))
        assert (magic, error) == (nbd.SIMPLE_MAGIC, 0)
        offset, length = wanted.pop(cookie)
        assert client.recv(length) == content[offset:offset + length]
    sender.join()


def test_request_header_in_single_bytes(client):
    data = client.request_bytes(nbd.CMD_WRITE, 4096, 3, data=b"abc")
    for byte in data:
        client.send(bytes([byte]))
    client.read_reply()
    assert client.read(4096, 3) == (0, b"abc")


def test_cookies_come_back_as_they_are(client):
    for cookie in (0, 1, 0xFFFFFFFFFFFFFFFF, 0x2560951367446698):
        client.send_request(nbd.CMD_FLUSH, cookie=cookie)
        reply = client.read_reply()
        found = reply.cookie if isinstance(reply, nbd.Chunk) else \
            reply[0].cookie
        assert found == cookie


def test_32_mib_are_served_in_one_request(daemon, box):
    path = harness.make_image(box / "big.img", LIMIT + 512)
    daemon.serve_file(path, "disk")
    data = harness.random_bytes(LIMIT, seed=2)
    with connect(daemon, structured=True) as client:
        assert client.write(512, data) == 0
        assert client.read(512, LIMIT) == (0, data)
        assert client.read(512, LIMIT, nbd.DF) == (0, data)


def test_zero_length_requests_do_not_disconnect(client):
    for command in (nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES):
        assert client.request(command, 512, 0) == 0
    assert client.read(512, 0) == (0, b"")
    assert client.read(SIZE, 0) == (0, b"")


# Refusals.

@pytest.mark.parametrize("command", (nbd.CMD_READ, nbd.CMD_CACHE))
def test_too_long_request_without_payload_is_refused(client, command):
    assert client.request(command, 0, LIMIT + 1) == nbd.EINVAL
    assert client.request(command, 0, 0xFFFFFFFF) == nbd.EINVAL
    assert client.read(0, 512)[0] == 0


@pytest.mark.parametrize("length", (LIMIT + 1, 0xFFFFFFFF))
def test_too_long_write_ends_the_connection(client, length):
    client.send_request(nbd.CMD_WRITE, 0, length)
    try:
        reply = client.read_reply()
    except nbd.Closed:
        return
    if isinstance(reply, nbd.Chunk):
        assert reply.type == nbd.CHUNK_ERROR
    else:
        assert reply[0].error == nbd.EINVAL
    client.assert_closed()


@pytest.mark.parametrize("offset, length", [
    (SIZE, 1), (SIZE - 1, 2), (1 << 40, 512), ((1 << 64) - 1, 1),
    ((1 << 64) - 512, 1024), ((1 << 63), 512)])
def test_read_past_the_end_is_invalid(client, offset, length):
    assert client.request(nbd.CMD_READ, offset, length) == nbd.EINVAL
    assert client.request(nbd.CMD_CACHE, offset, length) == nbd.EINVAL
    assert client.read(0, 512)[0] == 0


@pytest.mark.ours("the reference says EINVAL; the protocol wants ENOSPC")
@pytest.mark.parametrize("offset, length", [
    (SIZE, 1), (SIZE - 1, 2), (1 << 40, 512), ((1 << 64) - 512, 1024)])
def test_write_past_the_end_has_no_space(client, offset, length):
    assert client.write(offset, bytes(length)) == nbd.ENOSPC
    assert client.request(nbd.CMD_WRITE_ZEROES, offset, length) == nbd.ENOSPC
    assert client.read(0, 512)[0] == 0


def test_failing_write_leaves_the_stream_in_step(client, image):
    before = image.read_bytes()
    for _ in range(20):
        assert client.write(SIZE - 10, b"x" * 100_000) in (
            nbd.ENOSPC, nbd.EINVAL)
    assert client.read(0, 512)[0] == 0
    assert image.read_bytes() == before


@pytest.mark.ours("the reference says EINVAL; the protocol wants EPERM")
def test_write_to_read_only_export_is_not_permitted(reader):
    assert reader.flags & nbd.FLAG_READ_ONLY
    assert reader.write(0, b"x" * 4096) == nbd.EPERM
    assert reader.request(nbd.CMD_TRIM, 0, 4096) == nbd.EPERM
    assert reader.request(nbd.CMD_WRITE_ZEROES, 0, 4096) == nbd.EPERM
    assert reader.read(0, 512) == (0, bytes(512))


def test_refusal_of_a_write_waits_for_its_payload(reader):
    """libnbd takes no reply to a request that it has not sent to its end."""
    reader.send_request(nbd.CMD_WRITE, 0, 100_000)
    reader.send(b"x" * 99_999)
    reader.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        reader.read_reply()
    reader.sock.settimeout(harness.LIMIT)
    reader.send(b"x")
    reply = reader.read_reply()
    assert (reply if reader.structured else reply[0]).cookie == reader.cookie
    assert reader.read(0, 512)[0] == 0


def test_write_to_read_only_export_keeps_the_stream(reader):
    assert reader.write(0, b"x" * 100_000) in (nbd.EPERM, nbd.EINVAL)
    assert reader.read(0, 512) == (0, bytes(512))
    assert reader.request(nbd.CMD_FLUSH) == 0


@pytest.mark.parametrize("command", (8, 9, 99, 0xFFFF))
def test_unknown_command_is_invalid(client, command):
    assert client.request(command, 0, 0) == nbd.EINVAL
    assert client.read(0, 512)[0] == 0


@pytest.mark.parametrize("command, flags", [
    (nbd.CMD_READ, 8), (nbd.CMD_READ, nbd.NO_HOLE), (nbd.CMD_READ, 0x8000),
    (nbd.CMD_FLUSH, nbd.DF), (nbd.CMD_TRIM, nbd.FAST_ZERO),
    (nbd.CMD_WRITE_ZEROES, nbd.REQ_ONE), (nbd.CMD_CACHE, nbd.NO_HOLE)])
def test_unknown_flag_is_invalid(client, command, flags):
    length = 0 if command == nbd.CMD_FLUSH else 512
    assert client.request(command, 0, length, flags) == nbd.EINVAL
    assert client.read(0, 512)[0] == 0


def test_df_needs_structured_replies(server):
    with connect(server) as client:
        assert client.request(nbd.CMD_READ, 0, 512, nbd.DF) == nbd.EINVAL


def test_wrong_request_magic_ends_the_connection(client):
    client.send_request(nbd.CMD_READ, 0, 512, magic=0x12345678)
    try:
        while True:
            client.read_reply(512)
    except (nbd.Closed, AssertionError):
        pass
    client.assert_closed()


def test_fua_is_accepted_on_every_command(client):
    assert client.read(0, 512, nbd.FUA)[0] == 0
    for command in (nbd.CMD_FLUSH, nbd.CMD_TRIM, nbd.CMD_CACHE,
                    nbd.CMD_WRITE_ZEROES):
        length = 0 if command == nbd.CMD_FLUSH else 4096
        assert client.request(command, 0, length, nbd.FUA) == 0


def test_flush_and_cache(client):
    assert client.request(nbd.CMD_FLUSH) == 0
    assert client.request(nbd.CMD_CACHE, 0, SIZE) == 0


def test_disconnect_ends_without_reply(client):
    client.disconnect()


def test_disconnect_completes_what_is_outstanding(server, image):
    client = connect(server, structured=True)
    data = harness.random_bytes(1 << 20, seed=8)
    client.send(client.request_bytes(nbd.CMD_WRITE, 0, len(data), data=data)
                + client.request_bytes(nbd.CMD_READ, 0, 100, nbd.DF)
                + client.request_bytes(nbd.CMD_DISC))
    answered = set()
    try:
        while True:
            reply = client.read_reply()
            answered.add(reply.cookie if isinstance(reply, nbd.Chunk)
                         else reply[0].cookie)
    except nbd.Closed:
        pass
    if not harness.IS_REFERENCE:
        assert len(answered) == 2
    with connect(server) as other:
        assert other.read(0, 1 << 20) == (0, data)


# Zeroes and trim.

@pytest.mark.parametrize("flags", (0, nbd.NO_HOLE, nbd.FUA, nbd.FAST_ZERO,
                                   nbd.FAST_ZERO | nbd.NO_HOLE))
@pytest.mark.parametrize("offset, length", [(0, 65536), (4096, 1 << 20),
                                            (100, 1000), (511, 70_000)])
def test_write_zeroes(client, image, offset, length, flags):
    before = image.read_bytes()
    error = client.request(nbd.CMD_WRITE_ZEROES, offset, length, flags)
    if flags & nbd.FAST_ZERO and error == nbd.ENOTSUP:
        assert image.read_bytes() == before
        return
    assert error == 0
    assert client.read(offset, length) == (0, bytes(length))
    assert image.read_bytes() == (before[:offset] + bytes(length)
                                  + before[offset + length:])


def allocated(path):
    return os.stat(path).st_blocks * 512


def test_trim_frees_space_when_discard_is_unmap(client, image):
    before = allocated(image)
    assert client.request(nbd.CMD_TRIM, 0, 2 << 20) == 0
    assert allocated(image) <= before - (1 << 20)
    assert client.read(2 << 20, 4096)[0] == 0


def test_trim_is_ignored_by_default(daemon, image):
    daemon.serve_file(image)
    before = image.read_bytes()
    with connect(daemon) as client:
        assert client.request(nbd.CMD_TRIM, 0, SIZE) == 0
    assert image.read_bytes() == before


def test_write_zeroes_may_punch_unless_forbidden(client, image):
    assert client.request(nbd.CMD_WRITE_ZEROES, 0, 1 << 20) == 0
    sparse = allocated(image)
    assert client.request(nbd.CMD_WRITE_ZEROES, 2 << 20, 1 << 20,
                          nbd.NO_HOLE) == 0
    assert allocated(image) == sparse
    assert client.request(nbd.CMD_WRITE_ZEROES, 0, 1 << 20, nbd.NO_HOLE) == 0
    assert allocated(image) >= sparse


def test_write_zeroes_take_no_room_by_default(daemon, box):
    """What copies a sparse disk zeroes its holes first, or all of it."""
    path = harness.make_image(box / "sparse.img", SIZE, {1 << 20: b"x" * 4096})
    daemon.serve_file(path)
    before = allocated(path)
    with connect(daemon) as client:
        assert client.request(nbd.CMD_WRITE_ZEROES, 0, SIZE) == 0
        assert client.read(1 << 20, 4096) == (0, bytes(4096))
        assert allocated(path) == before
        assert client.request(nbd.CMD_WRITE_ZEROES, 0, SIZE, nbd.NO_HOLE) == 0
    assert allocated(path) >= SIZE


def test_lengths_beyond_32_mib_without_payload(daemon, box):
    size = 6 << 30
    path = harness.make_image(box / "large.img", size, {5 << 30: b"x" * 4096})
    daemon.serve_file(path, discard="unmap")
    with connect(daemon, structured=True,
                 contexts=["base:allocation"]) as client:
        assert client.request(nbd.CMD_WRITE_ZEROES, 0, 0xFFFFF000) == 0
        assert client.request(nbd.CMD_TRIM, 2 << 30, 0xFFFFF000) == 0
        error, found = client.status(0, 0xFFFFF000)
        assert error == 0
        assert sum(n for n, _ in found[0]) <= 0xFFFFF000


# Structured replies.

def test_structured_read_with_holes(daemon, box):
    path = harness.make_image(box / "s.img", 1 << 20,
                              {1 << 17: b"d" * (1 << 17)})
    daemon.serve_file(path)
    with connect(daemon, structured=True) as client:
        cookie = client.send_request(nbd.CMD_READ, 0, 1 << 20)
        chunks = client.chunks(cookie)
        assert client.join_chunks(chunks, 0, 1 << 20) == (
            0, path.read_bytes())
        cookie = client.send_request(nbd.CMD_READ, 0, 1 << 20, nbd.DF)
        chunks = client.chunks(cookie)
        assert [c.type for c in chunks] == [nbd.CHUNK_DATA]
        assert chunks[0].data[8:] == path.read_bytes()


SPARSE = {1 << 20: b"d" * 65536, (2 << 20) + 100: b"d", 3 << 20: b"d" * 4096}


@pytest.mark.ours("the reference asks for the block status first")
def test_holes_among_data_are_sent_as_holes(daemon, box):
    path = harness.make_image(box / "s.img", SIZE, SPARSE)
    daemon.serve_file(path, cache={"direct": True})
    content = path.read_bytes()
    with connect(daemon, structured=True) as client:
        cookie = client.send_request(nbd.CMD_READ, 0, SIZE)
        chunks = client.chunks(cookie)
        assert client.join_chunks(chunks, 0, SIZE) == (0, content)
        assert [c.type for c in chunks] == [nbd.CHUNK_HOLE,
                                            nbd.CHUNK_DATA] * 3 + [
                                                nbd.CHUNK_HOLE]
        assert sum(len(c.data) for c in chunks) < 80_000
        chunks = client.chunks(
            client.send_request(nbd.CMD_READ, 0, SIZE, nbd.DF))
        assert [c.type for c in chunks] == [nbd.CHUNK_DATA]
        assert chunks[0].data[8:] == content


def test_sparse_reads_agree_with_the_file(daemon, box):
    """Ranges of any place and length, answered in any pieces."""
    source = random.Random(7)
    pattern = {source.randrange(0, SIZE - 70_000):
               b"d" * source.randrange(1, 70_000) for _ in range(30)}
    path = harness.make_image(box / "s.img", SIZE, pattern)
    daemon.serve_file(path)
    content = path.read_bytes()
    with connect(daemon, structured=True) as client:
        for _ in range(300):
            offset = source.randrange(0, SIZE)
            length = source.randrange(1, SIZE - offset + 1)
            flags = source.choice((0, 0, nbd.DF))
            assert client.read(offset, length, flags) == (
                0, content[offset:offset + length])


def test_sparse_replies_in_flight_are_not_mixed_up(daemon, box):
    path = harness.make_image(box / "s.img", SIZE, {
        n << 17: bytes([n + 1]) * 65536 for n in range(32)})
    daemon.serve_file(path, cache={"direct": True})
    content = path.read_bytes()
    with connect(daemon, structured=True) as client:
        wanted = {client.send_request(nbd.CMD_READ, n * 4096, 1 << 20):
                  n * 4096 for n in range(100)}
        partial = {}
        while wanted:
            chunk = client.read_reply()
            partial.setdefault(chunk.cookie, []).append(chunk)
            if chunk.flags & nbd.DONE:
                start = wanted.pop(chunk.cookie)
                assert client.join_chunks(
                    partial.pop(chunk.cookie), start, 1 << 20) == (
                        0, content[start:start + (1 << 20)])


@pytest.mark.ours("the reference asks for the block status first")
def test_zeroes_in_the_page_cache_are_found_in_the_end(daemon, box):
    """Reads that the kernel could pass on unseen are looked at now and then."""
    path = harness.make_image(box / "s.img", SIZE, {0: b"d"})
    assert path.read_bytes()  # now the holes are in the page cache
    daemon.serve_file(path)
    with connect(daemon, structured=True) as client:
        kinds = set()
        for number in range(1000):
            chunks = client.chunks(client.send_request(
                nbd.CMD_READ, (number % 7 + 1) << 18, 1 << 18))
            kinds.update(chunk.type for chunk in chunks)
            if nbd.CHUNK_HOLE in kinds:
                break
        assert nbd.CHUNK_HOLE in kinds


def test_structured_read_of_nothing_is_one_none_chunk(server):
    with connect(server, structured=True) as client:
        chunks = client.chunks(client.send_request(nbd.CMD_READ, 0, 0))
        assert [(c.type, c.flags, c.data) for c in chunks] == [
            (nbd.CHUNK_NONE, nbd.DONE, b"")]


def test_structured_errors_carry_a_text(server):
    with connect(server, structured=True) as client:
        chunks = client.chunks(client.send_request(nbd.CMD_READ, SIZE, 512))
        assert len(chunks) == 1 and chunks[0].type == nbd.CHUNK_ERROR
        error, length = struct.unpack(">IH", chunks[0].data[:6])
        assert error == nbd.EINVAL and length == len(chunks[0].data) - 6 > 0
        chunks[0].data[6:].decode()


# Block status.

def test_status_of_data_and_holes(daemon, box):
    path = harness.make_image(box / "s.img", 4 << 20, {
        1 << 20: b"d" * (1 << 20)})
    daemon.serve_file(path)
    with connect(daemon, structured=True,
                 contexts=["base:allocation"]) as client:
        wanted = [(1 << 20, 3), (1 << 20, 0), (2 << 20, 3)]
        assert client.status(0, 4 << 20) == (0, {0: wanted})
        assert client.status(1 << 19, 1 << 20) == (
            0, {0: [(1 << 19, 3), (1 << 19, 0)]})
        assert client.status(0, 4 << 20, nbd.REQ_ONE) == (0, {0: wanted[:1]})
        assert client.status(100, 10, nbd.REQ_ONE) == (0, {0: [(10, 3)]})


def test_status_follows_writes_and_zeroes(status):
    assert status.status(0, SIZE) == (0, {0: [(SIZE, 0)]})
    assert status.request(nbd.CMD_WRITE_ZEROES, 0, 1 << 20) == 0
    error, found = status.status(0, SIZE)
    assert found[0] == [(1 << 20, 3), (3 << 20, 0)]
    assert status.write(4096, b"x" * 4096) == 0
    error, found = status.status(0, SIZE)
    assert found[0][1] == (4096, 0) and error == 0


def test_status_refusals(status, server):
    assert status.status(0, 0)[0] == nbd.EINVAL
    assert status.status(SIZE, 1)[0] == nbd.EINVAL
    assert status.status(0, SIZE + 1)[0] == nbd.EINVAL
    assert status.status(0, 512, nbd.NO_HOLE)[0] == nbd.EINVAL
    with connect(server) as simple:
        assert simple.request(nbd.CMD_BLOCK_STATUS, 0, 512) == nbd.EINVAL
        assert simple.read(0, 512)[0] == 0


@pytest.mark.parametrize("offset, length", [
    (0, 1), (1, 511), (4095, 2), (0, SIZE), (SIZE - 1, 1)])
def test_status_lengths_fit_the_request(status, offset, length):
    for flags in (0, nbd.REQ_ONE):
        error, found = status.status(offset, length, flags)
        assert error == 0
        lengths = [n for n, _ in found[0]]
        assert lengths and all(lengths)
        assert sum(lengths[:-1]) < length
        if flags:
            assert len(lengths) == 1 and lengths[0] <= length


# Several connections.

def test_flush_covers_all_connections(server, image):
    writers = [connect(server) for _ in range(4)]
    for number, client in enumerate(writers):
        assert client.write(number * 4096, bytes([number + 1]) * 4096) == 0
    assert writers[0].request(nbd.CMD_FLUSH) == 0
    for number, client in enumerate(writers):
        other = writers[(number + 1) % 4]
        assert other.write(1 << 20, b"x") == 0
        assert other.read(number * 4096, 4096)[1] == bytes(
            [number + 1]) * 4096
    for client in writers:
        client.close()


def test_connections_agree_with_a_model(server, image):
    """Four connections with disjoint stripes, then everyone reads all."""
    model = bytearray(image.read_bytes())
    failures = []

    def work(number):
        source = random.Random(number)
        try:
            with connect(server, structured=number % 2 == 1) as client:
                for _ in range(60):
                    stripe = source.randrange(0, 64) * 4 + number
                    start = stripe * 16384 + source.randrange(0, 8192)
                    length = source.randrange(1, 8192)
                    data = source.randbytes(length)
                    if client.write(start, data) != 0:
                        raise AssertionError("write failed")
                    model[start:start + length] = data
        except Exception as error:  # shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(harness.LIMIT)
    assert not failures, failures
    with connect(server) as client:
        assert client.read(0, SIZE) == (0, bytes(model))


def test_direct_io_with_odd_ranges_agrees_with_a_model(daemon, box):
    """Read-modify-write at a sector that several connections share."""
    path = harness.make_image(box / "direct.img", 1 << 20)
    daemon.serve_file(path, cache={"direct": True})
    model = bytearray(1 << 20)
    failures = []

    def work(number):
        source = random.Random(number)
        try:
            with connect(daemon) as client:
                for _ in range(80):
                    # Each owns the bytes n*100..n*100+99 of every sector.
                    sector = source.randrange(0, 64)
                    start = sector * 512 + number * 100
                    data = source.randbytes(source.randrange(1, 100))
                    if client.write(start, data) != 0:
                        raise AssertionError("write failed")
                    model[start:start + len(data)] = data
        except Exception as error:  # shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(harness.LIMIT)
    assert not failures, failures
    assert path.read_bytes() == bytes(model)


def test_two_exports_of_one_node_see_each_other(server):
    server.add_export("disk", "again", name="again", writable=True)
    with connect(server) as one, connect(server, "again") as two:
        assert one.write(0, b"seen" * 128) == 0
        assert two.read(0, 512) == (0, b"seen" * 128)


# TCP.

def resolves(name):
    try:
        return bool(socket.getaddrinfo(name, 0))
    except OSError:
        return False  # a bare container without /etc/hosts


@pytest.mark.parametrize("host", [
    name for name in ("127.0.0.1", "::1", "localhost") if resolves(name)])
def test_tcp_listens_where_told(daemon, image, host):
    _, port = daemon.start_nbd_tcp(host)
    daemon.add_file(image)
    daemon.add_export("disk")
    with nbd.RawNbd((host, port)) as client:
        client.go("disk")
        assert client.read(0, 512)[0] == 0


def test_both_ip_versions_on_one_port(daemon, image):
    _, port = daemon.start_nbd_tcp("")
    daemon.add_file(image)
    daemon.add_export("disk")
    for host in ("127.0.0.1", "::1"):
        with nbd.RawNbd((host, port)) as client:
            client.go("disk")
            assert client.read(0, 512)[0] == 0


def test_replies_are_not_delayed(daemon, image):
    """Without TCP_NODELAY these would take 40 ms each."""
    address = daemon.start_nbd_tcp()
    daemon.add_file(image)
    daemon.add_export("disk")
    with nbd.RawNbd(address) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.negotiate_structured()
        client.go("disk")
        client.sock.settimeout(20)
        for count in range(1000):
            assert client.read(count * 512, 512)[0] == 0
