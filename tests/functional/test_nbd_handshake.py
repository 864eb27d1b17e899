# SPDX-License-Identifier: GPL-2.0-or-later
"""Option haggling, row by row, without TLS."""
import socket
import struct

import pytest

import harness
import rawnbd as nbd

KNOWN_FLAGS_RO = 0x050F
KNOWN_FLAGS_RW = 0x0D6D


@pytest.fixture
def server(daemon, image):
    """Two exports: 'disk' (writable, described) and 'ro'."""
    daemon.serve_two(image)
    return daemon


@pytest.fixture
def client(server):
    with nbd.RawNbd(server.nbd_path) as client:
        yield client


# Connection set-up.

def test_greeting_sets_the_two_handshake_flags(client):
    assert client.handshake_flags == nbd.FIXED_NEWSTYLE | nbd.NO_ZEROES


@pytest.mark.parametrize("flags", (4, 7, 0x80000003, 0xFFFFFFFF))
def test_unknown_client_flag_closes(server, flags):
    client = nbd.RawNbd(server.nbd_path, flags=flags)
    client.assert_closed()


def test_client_that_says_nothing_is_ignored(server):
    for _ in range(5):
        nbd.RawNbd(server.nbd_path, handshake=False).close()
    assert nbd.RawNbd(server.nbd_path).go("disk")


def test_not_fixed_client_may_only_name_an_export(server):
    client = nbd.RawNbd(server.nbd_path, flags=2)
    client.export_name("disk")
    assert client.read(0, 512)[0] == 0
    client = nbd.RawNbd(server.nbd_path, flags=0)
    client.export_name("disk", zeroes=124)
    assert client.write(0, b"x" * 512) == 0
    client = nbd.RawNbd(server.nbd_path, flags=0)
    client.send_option(nbd.OPT_LIST)
    client.assert_closed()


def test_bad_option_magic_closes(client):
    client.send_option(nbd.OPT_LIST, magic=nbd.IHAVEOPT + 1)
    client.assert_closed()


@pytest.mark.parametrize("option", (nbd.OPT_GO, nbd.OPT_LIST, 99))
def test_option_longer_than_32_mib_closes(client, option):
    client.send_option(option, length=(32 << 20) + 1)
    client.assert_closed()


def test_large_unknown_option_is_skipped(client):
    data = bytes(1 << 20)
    assert client.option_type(4000, data) == nbd.ERR_UNSUP
    assert client.list_exports()


def test_option_in_single_bytes(client):
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = nbd.go_data("disk", [nbd.INFO_BLOCK_SIZE])
    for byte in struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_GO,
                            len(data)) + data:
        client.send(bytes([byte]))
    while client.read_option_reply().type != nbd.REP_ACK:
        pass
    assert client.read(0, 512)[0] == 0


# Single options.

@pytest.mark.parametrize("before", ([], [nbd.OPT_LIST], [99] * 40))
@pytest.mark.parametrize("requests", (0, 1, 20))
def test_all_in_one_piece(server, image, before, requests):
    """Nobody has to wait for answers, whose number is known."""
    data = image.read_bytes()
    with nbd.RawNbd(server.nbd_path, handshake=False) as client:
        client.read_greeting()
        wish = nbd.go_data("disk")
        client.send(b"".join([
            struct.pack(">I", 3),
            *(struct.pack(">QII", nbd.IHAVEOPT, option, 0)
              for option in before),
            struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_GO, len(wish)), wish,
            *(client.request_bytes(nbd.CMD_READ, 512 * i, 512)
              for i in range(requests)),
            client.request_bytes(nbd.CMD_DISC)]))
        for option in [*before, nbd.OPT_GO]:
            while True:
                reply = client.read_option_reply()
                assert reply.option == option
                if reply.type not in (nbd.REP_SERVER, nbd.REP_INFO):
                    break
        assert reply.type == nbd.REP_ACK
        found = {}
        for _ in range(requests):
            simple, block = client.read_reply(512)
            assert simple.error == 0
            found[simple.cookie] = block
        assert b"".join(block for _, block in sorted(found.items())) \
            == data[:512 * requests]
        client.assert_closed()


def test_abort_is_acknowledged_and_closes(client):
    assert client.option_type(nbd.OPT_ABORT) == nbd.REP_ACK
    client.assert_closed()


def test_list_gives_oldest_first_with_description(client):
    assert client.list_exports() == [("disk", "first disk"), ("ro", "")]


@pytest.mark.parametrize("option", (nbd.OPT_LIST, nbd.OPT_STRUCTURED,
                                    nbd.OPT_STARTTLS))
def test_data_where_none_is_due_is_refused(client, option):
    final = client.option(option, b"surplus")[-1]
    if option == nbd.OPT_STARTTLS:
        assert final.type in (nbd.ERR_INVALID, nbd.ERR_POLICY)
    else:
        assert final.type == nbd.ERR_INVALID
    assert final.data, "an error reply has a text"
    assert len(client.list_exports()) == 2


@pytest.mark.parametrize("option", (4, 12, 13, 255, 0xFFFFFFFF, 0))
def test_unknown_option_is_unsupported(client, option):
    final = client.option(option, b"payload")[-1]
    assert final.type == nbd.ERR_UNSUP and final.data
    assert len(client.list_exports()) == 2


def test_starttls_without_tls_is_a_matter_of_policy(client):
    assert client.option_type(nbd.OPT_STARTTLS) == nbd.ERR_POLICY
    assert len(client.list_exports()) == 2


def test_structured_reply_twice_is_invalid(client):
    assert client.option_type(nbd.OPT_STRUCTURED) == nbd.REP_ACK
    assert client.option_type(nbd.OPT_STRUCTURED) == nbd.ERR_INVALID
    client.structured = True
    assert client.go("disk").read(0, 4096)[0] == 0


def test_many_options_on_one_connection(client):
    for _ in range(300):
        assert client.info("disk") == nbd.REP_ACK
    client.go("disk")


def test_export_name_enters_transmission(client):
    client.export_name("disk")
    assert client.size == 4 << 20 and client.flags == KNOWN_FLAGS_RW
    assert client.read(0, 512)[0] == 0


@pytest.mark.parametrize("name", ("nope", "Disk", "", "x" * 5000))
def test_export_name_of_unknown_export_closes(client, name):
    client.send_option(nbd.OPT_EXPORT_NAME, name.encode())
    client.assert_closed()


@pytest.mark.ours("the reference cuts the name at the NUL byte")
def test_export_name_with_nul_closes(client):
    client.send_option(nbd.OPT_EXPORT_NAME, b"disk\0")
    client.assert_closed()


# INFO and GO.

def test_info_gives_size_flags_and_description(client):
    assert client.info("disk") == nbd.REP_ACK
    assert set(client.infos) == {nbd.INFO_DESCRIPTION, nbd.INFO_BLOCK_SIZE,
                                 nbd.INFO_EXPORT}
    assert client.infos[nbd.INFO_DESCRIPTION] == b"first disk"
    assert (client.size, client.flags) == (4 << 20, KNOWN_FLAGS_RW)
    assert client.info("ro", nbd.INFO_NAME) == nbd.REP_ACK
    assert client.infos[nbd.INFO_NAME] == b"ro"
    assert nbd.INFO_DESCRIPTION not in client.infos
    assert client.flags == KNOWN_FLAGS_RO


def test_info_then_go_tell_the_same(client):
    client.negotiate_structured()
    client.info("disk", nbd.INFO_BLOCK_SIZE, nbd.INFO_NAME)
    told = dict(client.infos)
    client.go("disk", nbd.INFO_BLOCK_SIZE, nbd.INFO_NAME)
    assert client.infos == told
    assert client.flags == KNOWN_FLAGS_RW | nbd.FLAG_DF


def test_block_size_is_told(client):
    client.info("disk", nbd.INFO_BLOCK_SIZE)
    assert struct.unpack(">III", client.infos[nbd.INFO_BLOCK_SIZE]) == (
        1, 4096, 32 << 20)


def test_unknown_and_repeated_infos_are_ignored(client):
    assert client.info("disk", 999, 3, 3, 0, 0xFFFF) == nbd.REP_ACK
    assert client.info("disk", *([nbd.INFO_NAME] * 100)) == nbd.REP_ACK


def test_max_connections_of_one_clears_multi_conn(daemon, image):
    daemon.add_file(image, "disk")
    daemon.start_nbd(max_connections=1)
    daemon.add_export("disk", writable=True)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("disk")
        assert client.flags == KNOWN_FLAGS_RW & ~nbd.FLAG_MULTI


@pytest.mark.parametrize("option", (nbd.OPT_INFO, nbd.OPT_GO))
def test_unknown_export_is_named(client, option):
    final = client.option(option, nbd.go_data("nope"))[-1]
    assert final.type == nbd.ERR_UNKNOWN and b"nope" in final.data
    final = client.option(option, nbd.go_data("n" * 4096))[-1]
    assert final.type == nbd.ERR_UNKNOWN and len(final.data) < 1000
    client.go("disk")


@pytest.mark.parametrize("data", [
    b"", b"\0\0\0", struct.pack(">I", 4) + b"di",
    struct.pack(">I", 0xFFFFFFFF) + b"disk\0\0", nbd.string("disk"),
    nbd.string("disk") + b"\0", nbd.string("disk") + b"\0\2\0\3",
    nbd.go_data("disk") + b"x", nbd.go_data("disk", [3]) + b"\0\3",
    nbd.go_data("x" * 4097), nbd.go_data(b"di\0k"),
])
@pytest.mark.parametrize("option", (nbd.OPT_INFO, nbd.OPT_GO))
def test_malformed_info_is_invalid_and_survived(client, option, data):
    final = client.option(option, data)[-1]
    assert final.type == nbd.ERR_INVALID and final.data
    client.go("disk")
    assert client.read(0, 512)[0] == 0


def test_default_export_has_the_empty_name(daemon, image):
    daemon.add_file(image, "disk")
    daemon.start_nbd()
    daemon.add_export("disk", name="")
    with nbd.RawNbd(daemon.nbd_path) as client:
        assert client.list_exports() == [("", "")]
        client.go("")
        assert client.size == 4 << 20


# Metadata contexts.

def test_list_meta_offers_base_allocation(client):
    assert client.list_meta("disk") == ["base:allocation"]
    assert client.list_meta("disk", "base:") == ["base:allocation"]
    assert client.list_meta("disk", "base:allocation",
                            "base:allocation") == ["base:allocation"]
    for query in ("base:nope", "other:", "nocolon", "", "base", ":", "qemu:"):
        assert client.list_meta("disk", query) == []


def test_set_meta_selects(client):
    client.negotiate_structured()
    assert client.set_meta("disk") == {}
    assert client.set_meta("disk", "base:") == {}
    assert client.set_meta("disk", "nope", "x:y") == {}
    ids = client.set_meta("disk", "base:allocation", "x:y", "base:allocation")
    assert list(ids) == ["base:allocation"]
    client.go("disk")
    assert client.status(0, 65536)[1][ids["base:allocation"]]


def test_set_meta_needs_structured_replies(client):
    data = nbd.meta_data("disk", ["base:allocation"])
    assert client.option_type(nbd.OPT_SET_META, data) == nbd.ERR_INVALID
    client.negotiate_structured()
    client.go("disk")
    assert client.status(0, 512)[0] == nbd.EINVAL


def test_list_meta_works_without_structured_replies(client):
    assert client.list_meta("disk", "base:") == ["base:allocation"]


def test_meta_of_unknown_export(client):
    client.negotiate_structured()
    for option in (nbd.OPT_LIST_META, nbd.OPT_SET_META):
        assert client.option_type(option, nbd.meta_data(
            "nope", ["base:allocation"])) == nbd.ERR_UNKNOWN


def test_failing_set_meta_clears_the_selection(client):
    client.negotiate_structured()
    client.set_meta("disk", "base:allocation")
    client.option(nbd.OPT_SET_META, nbd.meta_data("nope", []))
    client.go("disk")
    assert client.status(0, 512)[0] == nbd.EINVAL


def test_selection_is_bound_to_its_export(client):
    client.negotiate_structured()
    client.set_meta("disk", "base:allocation")
    client.go("ro")
    assert client.status(0, 512)[0] == nbd.EINVAL


@pytest.mark.parametrize("data", [
    b"", nbd.string("disk"), nbd.string("disk") + b"\0\0",
    nbd.meta_data("disk", ["base:allocation"], count=2),
    nbd.meta_data("disk", [], count=0xFFFFFFFF),
    nbd.string("disk") + struct.pack(">II", 1, 0xFFFFFFF0) + b"base:",
    nbd.meta_data("x" * 4097, []),
])
def test_malformed_meta_is_invalid_and_survived(client, data):
    client.negotiate_structured()
    for option in (nbd.OPT_LIST_META, nbd.OPT_SET_META):
        assert client.option_type(option, data) == nbd.ERR_INVALID
    client.go("disk")


@pytest.mark.ours("the reference takes the surplus for the next option")
def test_surplus_behind_meta_queries_is_invalid(client):
    client.negotiate_structured()
    data = nbd.meta_data("disk", ["base:allocation"]) + b"surplus"
    assert client.option_type(nbd.OPT_SET_META, data) == nbd.ERR_INVALID
    client.go("disk")


def test_long_meta_query_is_not_served(client):
    client.negotiate_structured()
    data = nbd.meta_data("disk", ["base:" + "x" * 5000, "base:allocation"])
    final = client.option(nbd.OPT_SET_META, data)[-1]
    assert final.type in (nbd.REP_ACK, nbd.ERR_INVALID)
    client.go("disk")


def test_many_meta_queries(client):
    client.negotiate_structured()
    assert client.set_meta("disk", *(["x:y"] * 20000),
                           "base:allocation").keys() == {"base:allocation"}


# Extended headers have tests of their own; the reference is too old for them.

def test_extended_headers_are_answered(client):
    kind = client.option_type(nbd.OPT_EXT)
    assert kind in (nbd.ERR_UNSUP, nbd.REP_ACK)


# Limits.

def test_connections_beyond_the_limit_wait(daemon, image):
    daemon.add_file(image, "disk")
    daemon.start_nbd(max_connections=2)
    daemon.add_export("disk")
    first, second = (nbd.RawNbd(daemon.nbd_path) for _ in range(2))
    first.go("disk")
    second.go("disk")
    third = nbd.RawNbd(daemon.nbd_path, handshake=False)
    third.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        third.sock.recv(18)
    third.sock.settimeout(harness.LIMIT)
    first.disconnect()
    third.read_greeting()
    third.close()
    second.close()


def test_half_open_handshakes_hold_slots_until_their_limit(daemon, image):
    daemon.add_file(image, "disk")
    arguments = {} if harness.IS_REFERENCE else {"handshake_max_seconds": 1}
    daemon.start_nbd(max_connections=3, **arguments)
    daemon.add_export("disk")
    half_open = [nbd.RawNbd(daemon.nbd_path, handshake=False, limit=20)
                 for _ in range(3)]
    half_open[1].send(struct.pack(">I", 3))
    half_open[2].send(struct.pack(">I", 3))
    half_open[2].send(struct.pack(">QI", nbd.IHAVEOPT, nbd.OPT_GO))
    patient = nbd.RawNbd(daemon.nbd_path, handshake=False, limit=20)
    patient.read_greeting()
    patient.send(struct.pack(">I", 3))
    patient.go("disk")
    assert patient.read(0, 512)[0] == 0
    half_open[0].read_greeting()
    for client in half_open:
        while True:
            try:
                if not client.sock.recv(100):
                    break
            except ConnectionResetError:
                break
    patient.disconnect()


@pytest.mark.ours("the limit is fixed in the reference")
def test_handshake_limit_does_not_end_transmission(daemon, image):
    daemon.add_file(image, "disk")
    daemon.start_nbd(handshake_max_seconds=1)
    daemon.add_export("disk")
    silent = nbd.RawNbd(daemon.nbd_path)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("disk")
        silent.assert_closed()  # ends when the limit does
        assert client.read(0, 512)[0] == 0


@pytest.mark.ours("the limit is fixed in the reference")
@pytest.mark.parametrize("before", ([nbd.OPT_LIST], [nbd.OPT_STRUCTURED],
                                    [99] * 40))
def test_handshake_limit_holds_after_options(daemon, image, before):
    """Wherever they were done."""
    daemon.add_file(image, "disk")
    daemon.start_nbd(handshake_max_seconds=1)
    daemon.add_export("disk")
    with nbd.RawNbd(daemon.nbd_path) as silent:
        for option in before:
            silent.option(option)
        silent.assert_closed()
    event = daemon.qmp.take_event("NBD_CLIENT_REJECTED")
    assert event["data"]["reason"] == "timeout"


@pytest.mark.ours("the limit is fixed in the reference")
def test_handshake_limit_of_zero_is_none(daemon, image):
    daemon.add_file(image, "disk")
    daemon.start_nbd(handshake_max_seconds=0)
    daemon.add_export("disk")
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.sock.settimeout(2)
        with pytest.raises(TimeoutError):
            client.sock.recv(1)
        client.go("disk")
