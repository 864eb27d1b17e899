# SPDX-License-Identifier: GPL-2.0-or-later
"""Extended headers: lengths of 64 bits, payloads that say so, their replies."""
import struct

import pytest

import harness
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference has no extended headers")

SIZE = 4 << 20
LIMIT = 32 << 20
GIB = 1 << 30
CONTEXTS = ("base:allocation", "qemu:allocation-depth",
            "qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b1")


@pytest.fixture
def server(daemon, image):
    """'disk' with all kinds of contexts, and 'ro'."""
    daemon.add_file(image, discard="unmap")
    for name in ("b0", "b1"):
        daemon.cmd("block-dirty-bitmap-add", node="disk", name=name)
    daemon.start_nbd()
    daemon.add_export("disk", writable=True, bitmaps=["b0", "b1"],
                      allocation_depth=True)
    daemon.cmd("blockdev-add", driver="null-co", node_name="ro", size=SIZE,
               read_zeroes=True)
    daemon.add_export("ro")
    return daemon


def connect(daemon, contexts=(), export="disk"):
    client = nbd.RawNbd(daemon.nbd_path)
    client.negotiate_extended()
    if contexts:
        client.ids = client.set_meta(export, *contexts)
    return client.go(export)


@pytest.fixture
def client(server):
    with connect(server, CONTEXTS) as client:
        yield client


@pytest.fixture
def huge(daemon, box):
    """12 GiB of holes with data at both ends."""
    path = harness.make_image(box / "huge.img", 12 * GIB, {
        0: b"d" * 65536, 12 * GIB - 65536: b"d" * 65536})
    daemon.serve_file(path, discard="unmap")
    return daemon


# Negotiation.

def test_option_is_acknowledged_once(server):
    with nbd.RawNbd(server.nbd_path) as client:
        assert client.option_type(nbd.OPT_EXT, b"x") == nbd.ERR_INVALID
        client.negotiate_extended()
        assert client.option_type(nbd.OPT_EXT) == nbd.ERR_INVALID
        client.go("disk")
        assert client.read(0, 512)[0] == 0


def test_structured_replies_are_included(server):
    with nbd.RawNbd(server.nbd_path) as client:
        client.negotiate_extended()
        assert client.option_type(nbd.OPT_STRUCTURED) == \
            nbd.ERR_EXT_HEADER_REQD
        assert client.set_meta("disk", "base:allocation")
        client.go("disk")
        assert client.flags & nbd.FLAG_DF


def test_structured_replies_may_come_before(server):
    with nbd.RawNbd(server.nbd_path) as client:
        client.negotiate_structured()
        client.set_meta("disk", "base:allocation")
        client.negotiate_extended()
        client.go("disk")
        assert client.status(0, SIZE)[1] == {0: [(SIZE, 0)]}


def test_export_name_is_no_longer_allowed(server):
    with nbd.RawNbd(server.nbd_path) as client:
        client.negotiate_extended()
        client.send_option(nbd.OPT_EXPORT_NAME, b"disk")
        client.assert_closed()


@pytest.mark.parametrize("export", ("disk", "ro", None))
def test_status_payload_is_offered_with_contexts_only(server, export):
    """But who asks what there is learns of it without them."""
    with nbd.RawNbd(server.nbd_path) as client:
        client.info("disk")
        assert not client.flags & nbd.FLAG_STATUS_PAYLOAD
        client.negotiate_extended()
        client.info("disk")
        assert client.flags & nbd.FLAG_STATUS_PAYLOAD
        if export is not None:
            client.set_meta(export, "base:allocation")
        client.go("disk")
        assert bool(client.flags & nbd.FLAG_STATUS_PAYLOAD) == (
            export == "disk")


def test_status_of_one_context_is_not_cut_for_the_others(daemon):
    """As many extents fit in as if no others had been selected."""
    daemon.cmd("blockdev-add", driver="null-co", node_name="disk",
               size=8 << 20)
    daemon.start_nbd()
    names = [f"b{number}" for number in range(200)]
    for name in names:
        daemon.cmd("block-dirty-bitmap-add", node="disk", name=name,
                   granularity=512)
    daemon.cmd("block-export-add", id="e", type="nbd", node_name="disk",
               writable=True, bitmaps=names)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.negotiate_extended()
        ids = list(client.set_meta("disk", *(f"qemu:dirty-bitmap:{name}"
                                             for name in names)).values())
        client.go("disk")
        for offset in range(0, 8 << 20, 4096):
            assert client.write(offset, bytes(512)) == 0
        error, found = client.status(0, 8 << 20, 0, ids[:1])
        assert error == 0
        assert found == {ids[0]: [(512, 1), (3584, 0)] * 2048}


def test_extended_headers_before_tls_are_forgotten(daemon, image, tls_dir,
                                                   tls_context):
    daemon.add_creds(tls_dir)
    daemon.serve_file(image, tls="tls0")
    with nbd.RawNbd(daemon.nbd_path) as client:
        assert client.option_type(nbd.OPT_EXT) == nbd.ERR_TLS_REQD
        client.starttls(tls_context)
        client.negotiate_extended()
        client.go("disk")
        assert client.read(0, SIZE) == (0, image.read_bytes())


# Headers.

def test_all_replies_are_extended_and_name_the_offset(client):
    for command, offset, length, flags, data in (
            (nbd.CMD_READ, 512, 512, 0, b""), (nbd.CMD_READ, 5, 0, 0, b""),
            (nbd.CMD_READ, SIZE, 512, 0, b""), (nbd.CMD_FLUSH, 0, 0, 0, b""),
            (nbd.CMD_WRITE, 7, 3, nbd.PAYLOAD_LEN, b"abc"),
            (nbd.CMD_TRIM, 4096, 4096, 0, b""), (99, 77, 1, 0, b""),
            (nbd.CMD_CACHE, 1, 2, 0, b""),
            (nbd.CMD_WRITE_ZEROES, 9, 9, 0, b""),
            (nbd.CMD_BLOCK_STATUS, 3, 5, 0, b""),
            (nbd.CMD_READ, (1 << 64) - 1, (1 << 64) - 1, 0, b"")):
        cookie = client.send_request(command, offset, length, flags, data)
        client.chunks(cookie)  # fails on any other magic
        assert client.reply_offset == offset


def test_success_without_data_is_a_none_chunk(client):
    for command, length in ((nbd.CMD_FLUSH, 0), (nbd.CMD_TRIM, 4096),
                            (nbd.CMD_WRITE_ZEROES, 4096), (nbd.CMD_CACHE, 1)):
        chunks = client.chunks(client.send_request(command, 0, length))
        assert [(c.type, c.flags, c.data) for c in chunks] == [
            (nbd.CHUNK_NONE, nbd.DONE, b"")]


@pytest.mark.parametrize("magic", (nbd.REQUEST_MAGIC, 0x12345678, 0xFFFFFFFF))
def test_compact_request_ends_the_connection(client, magic):
    client.send_request(nbd.CMD_READ, 0, 512, magic=magic)
    try:
        chunk = client.read_reply()
        assert chunk.type == nbd.CHUNK_ERROR
    except nbd.Closed:
        return
    client.assert_closed()


def test_extended_request_without_the_option_ends_the_connection(server):
    with nbd.RawNbd(server.nbd_path) as client:
        client.negotiate_structured()
        client.go("disk")
        client.send_request(nbd.CMD_READ, magic=nbd.EXTENDED_REQUEST_MAGIC)
        try:
            client.read_reply()
        except nbd.Closed:
            return
        client.assert_closed()


def test_extended_data_agree_with_the_file(client, image):
    model = bytearray(image.read_bytes())
    for offset, length in ((0, 1), (511, 70000), (12345, 1 << 20), (0, SIZE)):
        data = harness.random_bytes(length, seed=length)
        assert client.write(offset, data) == 0
        model[offset:offset + length] = data
        assert client.read(offset, length) == (0, data)
        assert client.read(offset, length, nbd.DF) == (0, data)
    assert image.read_bytes() == model


def test_write_without_the_payload_flag_has_its_data(client):
    """The client should have set it; the data come all the same."""
    data = b"plain" * 100
    assert client.request(nbd.CMD_WRITE, 100, len(data), 0, data) == 0
    assert client.read(100, len(data)) == (0, data)


def test_requests_in_single_bytes(client):
    for byte in client.request_bytes(nbd.CMD_BLOCK_STATUS, 0, 12,
                                     nbd.PAYLOAD_LEN,
                                     struct.pack(">QI", 4096, 0)) + \
            client.request_bytes(nbd.CMD_READ, 0, 3):
        client.send(bytes([byte]))
    replies = {client.read_reply().type for _ in range(2)}
    assert replies == {nbd.CHUNK_STATUS_EXT, nbd.CHUNK_DATA}


# Lengths of 64 bits.

def test_zeroes_and_trim_beyond_4_gib(huge):
    with connect(huge, ["base:allocation"]) as client:
        assert client.write(6 * GIB, b"w" * 4096) == 0
        assert client.request(nbd.CMD_WRITE_ZEROES, 4096,
                              12 * GIB - 65536 - 4096) == 0
        assert client.read(6 * GIB, 4096) == (0, bytes(4096))
        assert client.read(0, 4096) == (0, b"d" * 4096)
        assert client.request(nbd.CMD_TRIM, 0, 12 * GIB) == 0
        assert client.request(nbd.CMD_FLUSH) == 0


def test_status_beyond_4_gib(huge):
    with connect(huge, ["base:allocation"]) as client:
        assert client.status(0, 12 * GIB) == (0, {0: [
            (65536, 0), (12 * GIB - 2 * 65536, 3), (65536, 0)]})
        assert client.status(65536, 8 * GIB, nbd.REQ_ONE) == (
            0, {0: [(8 * GIB, 3)]})


@pytest.mark.parametrize("length", (
    SIZE + 1, 1 << 32, (1 << 32) - 1, (1 << 32) + 512, 1 << 63, (1 << 64) - 1,
    (1 << 64) - SIZE))
def test_lengths_beyond_the_export_are_refused(client, length):
    for offset in (0, 1, SIZE, (1 << 64) - 1):
        for command, error in (
                (nbd.CMD_READ, nbd.EINVAL), (nbd.CMD_CACHE, nbd.EINVAL),
                (nbd.CMD_TRIM, nbd.EINVAL), (nbd.CMD_WRITE_ZEROES, nbd.ENOSPC),
                (nbd.CMD_BLOCK_STATUS, nbd.EINVAL)):
            assert client.request(command, offset, length) == error
    assert client.read(0, 512)[0] == 0


# Payloads.

@pytest.mark.parametrize("command", (
    nbd.CMD_READ, nbd.CMD_FLUSH, nbd.CMD_TRIM, nbd.CMD_CACHE,
    nbd.CMD_WRITE_ZEROES, 8, 99))
def test_payload_of_a_command_without_is_dropped(client, command):
    for length in (0, 1, 512, 100_000):
        assert client.request(command, 0, length, nbd.PAYLOAD_LEN,
                              b"p" * length) == nbd.EINVAL
    assert client.read(0, 512)[0] == 0


def test_payload_flag_needs_extended_headers(server):
    with nbd.RawNbd(server.nbd_path) as client:
        client.negotiate_structured()
        client.go("disk")
        for command in (nbd.CMD_READ, nbd.CMD_TRIM, nbd.CMD_BLOCK_STATUS):
            assert client.request(command, 0, 512, nbd.PAYLOAD_LEN) == \
                nbd.EINVAL
        assert client.request(nbd.CMD_WRITE, 0, 3, nbd.PAYLOAD_LEN,
                              b"abc") == nbd.EINVAL
        assert client.read(0, 512)[0] == 0


@pytest.mark.parametrize("command", (nbd.CMD_READ, nbd.CMD_WRITE, 99,
                                     nbd.CMD_BLOCK_STATUS))
@pytest.mark.parametrize("length", (LIMIT + 1, 1 << 32, 1 << 63,
                                    (1 << 64) - 1))
def test_payload_beyond_the_limit_ends_the_connection(client, command, length):
    client.send_request(command, 0, length, nbd.PAYLOAD_LEN)
    try:
        assert client.read_reply().type == nbd.CHUNK_ERROR
    except nbd.Closed:
        return
    client.assert_closed()


def test_payload_of_32_mib_is_dropped_in_step(client):
    data = bytes(LIMIT)
    assert client.request(nbd.CMD_BLOCK_STATUS, 0, LIMIT, nbd.PAYLOAD_LEN,
                          data) == nbd.EINVAL
    assert client.request(nbd.CMD_TRIM, 0, LIMIT, nbd.PAYLOAD_LEN,
                          data) == nbd.EINVAL
    assert client.write(SIZE - 5, data) == nbd.ENOSPC
    assert client.read(0, 512)[0] == 0


def test_write_to_read_only_export_keeps_the_stream(server):
    with connect(server, export="ro") as client:
        assert client.write(0, b"x" * 100_000) == nbd.EPERM
        assert client.read(0, 512) == (0, bytes(512))


# BLOCK_STATUS with a payload.

def test_status_of_chosen_contexts(client):
    assert client.write(1 << 20, b"x" * 65536) == 0
    everything = client.status(0, SIZE)[1]
    assert sorted(everything) == sorted(client.ids.values())
    ids = sorted(everything)
    for chosen in ([ids[0]], [ids[3]], ids[1:3], [ids[3], ids[0]], ids[::-1]):
        assert client.status(0, SIZE, 0, chosen) == (
            0, {number: everything[number] for number in chosen})
        error, one = client.status(0, SIZE, nbd.REQ_ONE, chosen)
        assert error == 0 and all(len(found) == 1 for found in one.values())


def test_status_payload_that_is_not_valid(client):
    ids = list(client.ids.values())
    for bad in ([], [ids[0], ids[0]], ids + [ids[0]], [999], [ids[0], 999],
                [0xFFFFFFFF], list(range(1000))):
        assert client.status(0, SIZE, 0, bad) == (nbd.EINVAL, {})
    for data in (b"", b"1234567", bytes(8), bytes(9), bytes(11), bytes(13)):
        assert client.request(nbd.CMD_BLOCK_STATUS, 0, len(data),
                              nbd.PAYLOAD_LEN, data) == nbd.EINVAL
    for offset, length in ((0, 0), (0, SIZE + 1), (SIZE, 1), (1, 1 << 63),
                           (1, (1 << 64) - 1)):
        assert client.status(offset, length, 0, ids)[0] == nbd.EINVAL
    assert client.status(0, SIZE, nbd.NO_HOLE, ids)[0] == nbd.EINVAL
    assert client.status(0, SIZE, 0, ids)[0] == 0


def test_status_payload_without_contexts_is_refused(server):
    with connect(server) as client:
        assert client.status(0, 512)[0] == nbd.EINVAL
        assert client.status(0, 512, 0, [0])[0] == nbd.EINVAL
        assert client.status(0, 512, 0, [])[0] == nbd.EINVAL
        assert client.read(0, 512)[0] == 0


def test_many_requests_with_payload_in_flight(client):
    ids = sorted(client.ids.values())
    for number in range(200):
        client.send_request(
            nbd.CMD_BLOCK_STATUS, 0, 8 + 4 * 2, nbd.PAYLOAD_LEN,
            struct.pack(">QII", SIZE, ids[0], ids[number % 3 + 1]))
    seen = {}
    while len(seen) < 200 or not all(seen.values()):
        chunk = client.read_reply()
        assert chunk.type == nbd.CHUNK_STATUS_EXT
        seen[chunk.cookie] = bool(chunk.flags & nbd.DONE)


def test_sparse_reads_with_extended_headers(huge):
    with connect(huge) as client:
        cookie = client.send_request(nbd.CMD_READ, GIB, 1 << 20)
        chunks = client.chunks(cookie)
        assert [c.type for c in chunks] == [nbd.CHUNK_HOLE]
        assert client.join_chunks(chunks, GIB, 1 << 20) == (0, bytes(1 << 20))
        assert client.read(0, LIMIT)[0] == 0
