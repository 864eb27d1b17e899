# SPDX-License-Identifier: GPL-2.0-or-later
"""What has broken other NBD servers, by its public name.

Each test does to our server what broke another one. All end alike: the server
serves whoever comes next, and the sanitizers have nothing to say.
"""
import contextlib
import random
import socket
import ssl
import struct
import threading

import pytest

import certs
import harness
import qmp
import rawnbd as nbd

SIZE = 4 << 20
U32_MAX = 0xFFFFFFFF
NAMED_OPTIONS = (nbd.OPT_EXPORT_NAME, nbd.OPT_INFO, nbd.OPT_GO,
                 nbd.OPT_LIST_META, nbd.OPT_SET_META)


@pytest.fixture
def server(daemon, image):
    daemon.serve_file(image)
    return daemon


def check_alive(daemon, export="disk"):
    """A client in good faith gets what it wants."""
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.negotiate_structured()
        client.go(export)
        assert client.read(0, 512)[0] == 0


def reset(client):
    """Ends a connection as a port scanner does: by RST where there is one."""
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                           struct.pack("ii", 1, 0))
    client.close()


def option_bytes(option, data=b"", length=None):
    length = len(data) if length is None else length
    return struct.pack(">QII", nbd.IHAVEOPT, option, length) + data


def named_data(option, name):
    """The payload of an option that begins with the name of an export."""
    if option == nbd.OPT_EXPORT_NAME:
        return name
    if option in (nbd.OPT_INFO, nbd.OPT_GO):
        return nbd.go_data(name)
    return nbd.meta_data(name, ["base:allocation"])


def send_named(daemon, option, data):
    """Sends an option; the final reply, None if the server has closed."""
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.negotiate_structured()
        try:
            if option == nbd.OPT_EXPORT_NAME:
                client.send_option(option, data)
                client.assert_closed()
                return None
            return client.option(option, data)[-1]
        except nbd.Closed:
            return None


# Clients that do not finish the negotiation.

@pytest.mark.ours("the reference may hang")
@pytest.mark.parametrize("progress", (
    b"", struct.pack(">I", 3), struct.pack(">I", 3) + b"IHAVE",
    struct.pack(">I", 3) + option_bytes(nbd.OPT_GO, length=100),
    struct.pack(">I", 3) + option_bytes(nbd.OPT_LIST) * 3))
def test_cve_2024_7409_stop_while_clients_negotiate(server, progress):
    """The server is stopped while connections are in their handshake."""
    clients = [nbd.RawNbd(server.nbd_path, handshake=False)
               for _ in range(40)]
    for client in clients:
        client.read_greeting()
        client.send(progress)
    server.cmd("nbd-server-stop")
    for client in clients:
        with contextlib.suppress(nbd.Closed):
            while True:
                client.recv(1)
        client.close()
    server.start_nbd()
    server.add_export()
    check_alive(server)


@pytest.mark.ours("the reference has no limit that can be set")
def test_cve_2024_7409_idle_connections_are_bounded(daemon, image):
    """Idle connections keep nobody out, and end by the limit."""
    daemon.add_file(image)
    daemon.start_nbd(max_connections=5, handshake_max_seconds=1)
    daemon.add_export()
    idle = [nbd.RawNbd(daemon.nbd_path, handshake=False) for _ in range(50)]
    check_alive(daemon)
    for client in idle:
        client.read_greeting()
        client.assert_closed()
        client.close()


def conversation():
    """What a client sends until its first reply to a read, in pieces."""
    return [
        struct.pack(">I", 3),
        option_bytes(nbd.OPT_STRUCTURED),
        option_bytes(nbd.OPT_LIST),
        option_bytes(nbd.OPT_SET_META,
                     nbd.meta_data("disk", ["base:allocation"])),
        option_bytes(nbd.OPT_INFO, nbd.go_data("disk")),
        option_bytes(nbd.OPT_GO, nbd.go_data("disk", [nbd.INFO_BLOCK_SIZE])),
        struct.pack(">IHHQQI", nbd.REQUEST_MAGIC, 0, nbd.CMD_WRITE, 1, 0, 100)
        + bytes(100),
        struct.pack(">IHHQQI", nbd.REQUEST_MAGIC, 0, nbd.CMD_READ, 1, 0, 512),
    ]


@pytest.mark.parametrize("end", (reset, nbd.RawNbd.close),
                         ids=("reset", "close"))
def test_cve_2017_9524_client_leaves_at_any_byte(server, end):
    """Whoever connects may go at once, having read nothing."""
    text = b"".join(conversation())
    for count in range(len(text)):
        client = nbd.RawNbd(server.nbd_path, handshake=False)
        client.send(text[:count])
        end(client)
    check_alive(server)


def test_cve_2017_7539_client_leaves_between_messages(daemon, image):
    """A port scan over TCP: every stage of a negotiation ends in a reset."""
    address = daemon.start_nbd_tcp()
    daemon.add_file(image)
    daemon.add_export("disk", writable=True)
    pieces = conversation()
    for count in range(len(pieces) + 1):
        for _ in range(5):
            client = nbd.RawNbd(address, handshake=False)
            client.read_greeting()
            with contextlib.suppress(nbd.Closed):
                for piece in pieces[:count]:
                    client.send(piece)
            reset(client)
    with nbd.RawNbd(address) as client:
        client.go("disk")
        assert client.read(0, 512)[0] == 0


def test_cve_2013_7441_closing_early_does_not_end_the_server(server):
    """The process that accepts survives clients without an export."""
    pid = server.pid
    for _ in range(100):
        nbd.RawNbd(server.nbd_path, handshake=False).close()
        with nbd.RawNbd(server.nbd_path) as client:
            client.send_option(nbd.OPT_EXPORT_NAME, b"nope")
    assert server.running() and server.pid == pid
    check_alive(server)


def test_cve_2019_14850_export_is_not_used_before_it_is_chosen(server):
    """Who only looks costs the export nothing and holds nothing of it."""
    clients = [nbd.RawNbd(server.nbd_path) for _ in range(10)]
    for client in clients:
        client.list_exports()
        assert client.info("disk") == nbd.REP_ACK
        client.list_meta("disk")
    server.cmd("block-export-del", id="exp-disk")  # "safe": no clients
    server.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
    server.cmd("blockdev-del", node_name="disk")
    for client in clients:
        assert client.option_type(nbd.OPT_GO, nbd.go_data("disk")) == \
            nbd.ERR_UNKNOWN
        client.close()


def test_cve_2019_14851_go_to_another_export_than_info_was_for(server):
    """INFO of one export, GO to another, in any order and number."""
    server.cmd("blockdev-add", driver="null-co", node_name="small",
               size=1 << 20, read_zeroes=True)
    server.add_export("small")
    names = ["disk", "small", "nope"]
    source = random.Random(14851)
    for _ in range(30):
        with nbd.RawNbd(server.nbd_path) as client:
            client.negotiate_structured()
            for _ in range(source.randrange(6)):
                client.info(source.choice(names))
                client.option(nbd.OPT_SET_META, nbd.meta_data(
                    source.choice(names), ["base:allocation"]))
            client.option(nbd.OPT_GO, nbd.go_data("nope"))
            final = source.choice(names[:2])
            client.go(final)
            assert client.size == {"disk": SIZE, "small": 1 << 20}[final]
            assert client.read(0, 512)[0] == 0
            assert client.request(nbd.CMD_READ, client.size, 1) == nbd.EINVAL


# Names and lengths.

@pytest.mark.parametrize("option", NAMED_OPTIONS)
@pytest.mark.parametrize("length", (256, 1024, 3900, 4000, 4095, 4096))
def test_cve_2020_10761_long_name_of_an_unknown_export(server, option, length):
    """The error text that quotes the name stays within a string's limit."""
    final = send_named(server, option, named_data(option, b"%" * length))
    if option != nbd.OPT_EXPORT_NAME:
        assert final.type == nbd.ERR_UNKNOWN and len(final.data) <= 4096
    check_alive(server)


@pytest.mark.parametrize("option", NAMED_OPTIONS)
@pytest.mark.parametrize("length", (255, 257, 4097, 8192, 1 << 16, 1 << 20))
def test_cve_2017_15118_name_longer_than_a_buffer(server, option, length):
    """Names that do not fit where others keep them."""
    final = send_named(server, option, named_data(option, b"n" * length))
    if option != nbd.OPT_EXPORT_NAME:
        wanted = {nbd.ERR_UNKNOWN} if length <= 4096 else {
            nbd.ERR_INVALID, nbd.ERR_TOO_BIG}
        assert final.type in wanted
    check_alive(server)


@pytest.mark.parametrize("option", NAMED_OPTIONS[1:])
@pytest.mark.parametrize("length", (U32_MAX, U32_MAX - 1, U32_MAX - 5,
                                    0x80000000, 0x7FFFFFFF, 4096, 300, 100,
                                    11))
def test_cve_2022_26495_name_length_that_overflows(server, option, length):
    """A length to which nothing may be added without a check."""
    for rest in (bytes(6), b"x" * 6):
        data = struct.pack(">I", length) + b"disk" + rest
        assert send_named(server, option, data).type == nbd.ERR_INVALID
    check_alive(server)


@pytest.mark.parametrize("option", NAMED_OPTIONS)
def test_cve_2022_26496_option_longer_than_its_name(server, option):
    """The option's own length belies the name's, both ways."""
    for name_length, length in ((1 << 16, 1 << 16), (5000, 4096),
                                (4096, 1 << 17), (10, 1 << 18)):
        data = (struct.pack(">I", name_length) + b"x" * length)[:length]
        final = send_named(server, option, data)
        if option != nbd.OPT_EXPORT_NAME:
            assert final.type in (nbd.ERR_INVALID, nbd.ERR_TOO_BIG)
    check_alive(server)


@pytest.mark.parametrize("option", (*NAMED_OPTIONS, nbd.OPT_LIST,
                                    nbd.OPT_STRUCTURED, nbd.OPT_ABORT, 77))
def test_cve_2017_15119_large_options(server, option):
    """Payloads that are announced and hardly ever come cost no memory."""
    memory = server.resident()
    clients = [nbd.RawNbd(server.nbd_path) for _ in range(20)]
    for client in clients:
        with contextlib.suppress(nbd.Closed):
            client.send_option(option, bytes(1000), length=32 << 20)
    check_alive(server)
    assert server.resident() < memory + (64 << 20)
    for client in clients:
        client.close()
    for length in ((32 << 20) + 1, 0x80000000, U32_MAX):
        with nbd.RawNbd(server.nbd_path) as client:
            client.send_option(option, length=length)
            if option != nbd.OPT_ABORT:
                client.assert_closed()
    check_alive(server)


# TLS.

@pytest.fixture
def secure(daemon, image, tls_dir):
    daemon.add_creds(tls_dir)
    daemon.serve_file(image, tls="tls0")
    return daemon


def test_cve_2021_3716_options_before_starttls_have_no_effect(secure,
                                                              tls_context):
    """What a man in the middle negotiates in plain is not kept."""
    with nbd.RawNbd(secure.nbd_path) as client:
        for option, data in (
                (nbd.OPT_STRUCTURED, b""), (nbd.OPT_EXT, b""),
                (nbd.OPT_SET_META, nbd.meta_data("disk", ["base:"]))):
            assert client.option_type(option, data) == nbd.ERR_TLS_REQD
        client.starttls(tls_context)
        client.go("disk")
        assert not client.flags & nbd.FLAG_DF
        assert client.read(0, 512)[0] == 0  # simple replies
        assert client.request(nbd.CMD_READ, 0, 512, nbd.DF) == nbd.EINVAL


@pytest.mark.parametrize("injected", (
    option_bytes(nbd.OPT_STRUCTURED), option_bytes(nbd.OPT_EXT),
    option_bytes(nbd.OPT_ABORT), option_bytes(nbd.OPT_GO, nbd.go_data("disk")),
    b"\0"), ids=("structured", "extended", "abort", "go", "byte"))
def test_cve_2021_3716_options_behind_starttls_have_no_effect(
        secure, tls_context, injected):
    """Plain bytes in the same packet as STARTTLS are not obeyed."""
    with nbd.RawNbd(secure.nbd_path) as client:
        client.send(option_bytes(nbd.OPT_STARTTLS) + injected)
        assert client.read_option_reply().type == nbd.REP_ACK
        with pytest.raises((ssl.SSLError, OSError, nbd.Closed)):
            client.sock = tls_context.wrap_socket(
                client.sock, server_hostname="localhost")
            client.option(nbd.OPT_LIST)
    with nbd.RawNbd(secure.nbd_path) as client:
        client.starttls(tls_context)
        client.go("disk")


@pytest.mark.ours("the reference has other rules for names")
def test_cve_2013_6410_rules_match_whole_names(daemon, image, box):
    """A name that only begins as an allowed one is another name."""
    authority = certs.Authority(box / "ca")
    authority.issue(box / "server", "server", "localhost")
    names = ("red", "re", "redder", "xred", "Red")
    for name in names:
        authority.issue(box / name, "client", name)
    daemon.add_creds(box / "server")
    daemon.start_nbd("tls0")
    daemon.cmd("object-add", qom_type="authz-list", id="for-red", rules=[
        {"match": "O=blockferry test,CN=red", "policy": "allow",
         "format": "exact"}])
    daemon.add_file(image)
    daemon.add_export("disk", tls_authz="for-red")
    for name in names:
        with nbd.RawNbd(daemon.nbd_path) as client:
            client.starttls(harness.client_context(box / name))
            final = client.option_type(nbd.OPT_GO, nbd.go_data("disk"))
            assert final == (nbd.REP_ACK if name == "red"
                             else nbd.ERR_UNKNOWN), name


# Block status.

@pytest.fixture
def large(daemon, box):
    """More than 4 GiB with little in them."""
    path = harness.make_image(box / "large.img", 12 << 30,
                              {0: b"d" * 4096, 11 << 30: b"d" * 4096})
    daemon.serve_file(path)
    return daemon


def with_status(daemon):
    client = nbd.RawNbd(daemon.nbd_path)
    client.negotiate_structured()
    client.set_meta("disk", "base:allocation")
    return client.go("disk")


def test_cve_2025_47711_status_of_the_longest_range(large):
    """An extent of just 4 GiB or more must not become one of nothing."""
    with with_status(large) as client:
        for offset in (0, 1, 512, 4096, 1 << 20, (4 << 30) - 1, 4 << 30,
                       (8 << 30) - 512):
            for length in (U32_MAX, U32_MAX - 1, U32_MAX - 511, 1 << 31):
                length = min(length, (12 << 30) - offset)
                for flags in (0, nbd.REQ_ONE):
                    error, found = client.status(offset, length, flags)
                    extents = found[0]
                    assert error == 0 and all(n > 0 for n, _ in extents)
                    assert sum(n for n, _ in extents[:-1]) < length
                    if flags:
                        assert len(extents) == 1
                        assert extents[0][0] <= length


def test_cve_2025_47712_status_that_overflows_when_aligned(daemon, box):
    """Rounding up to the block size does not wrap at 4 GiB."""
    path = harness.make_image(box / "large.img", 12 << 30,
                              {0: b"d" * 4096, 11 << 30: b"d" * 4096})
    daemon.serve_file(path, cache={"direct": True})
    with with_status(daemon) as client:
        for offset in (0, 1, 511, 513, 4095, (4 << 30) - 1, (8 << 30) - 1):
            for length in (U32_MAX, U32_MAX - 1, U32_MAX - 511,
                           U32_MAX - 4095):
                error, found = client.status(offset, length)
                assert error == 0
                assert found[0] and all(n > 0 for n, _ in found[0])
                assert sum(n for n, _ in found[0][:-1]) < length
    check_alive(daemon)


# Without a number: what the reference's 7.2 does.

@pytest.mark.ours("the reference takes the surplus for the next option")
@pytest.mark.parametrize("option", (nbd.OPT_LIST_META, nbd.OPT_SET_META))
def test_option_smuggled_behind_the_last_meta_query(server, option):
    """Surplus that is a whole option is dropped, not obeyed."""
    with nbd.RawNbd(server.nbd_path) as client:
        client.negotiate_structured()
        data = nbd.meta_data("disk", ["base:allocation"])
        for smuggled in (option_bytes(nbd.OPT_ABORT),
                         option_bytes(nbd.OPT_GO, nbd.go_data("disk")),
                         option_bytes(nbd.OPT_LIST)):
            assert client.option_type(option, data + smuggled) == \
                nbd.ERR_INVALID
        assert client.list_exports() == [("disk", "")]
        client.go("disk")
        assert client.read(0, 512)[0] == 0


def fill_with_replies(client, count=200):
    """Requests far more data than the sockets hold, and reads none."""
    client.send(b"".join(
        client.request_bytes(nbd.CMD_READ, (number % 4) << 20, 1 << 20)
        for number in range(count)))


@pytest.mark.parametrize("how", ("block-export-del", "nbd-server-remove",
                                 "nbd-server-stop"))
def test_removal_while_a_client_does_not_read(server, how):
    """Replies that nobody takes do not keep the export."""
    clients = [nbd.RawNbd(server.nbd_path).go("disk") for _ in range(3)]
    for client in clients:
        fill_with_replies(client)
        client.recv(16)  # the server is at it
    if how == "block-export-del":
        server.cmd(how, id="exp-disk", mode="hard")
    elif how == "nbd-server-remove":
        server.cmd(how, name="exp-disk", mode="hard")
    else:
        server.cmd(how)
    server.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
    server.cmd("blockdev-del", node_name="disk")
    for client in clients:
        client.close()


@pytest.mark.ours("the reference may crash")
def test_client_of_an_iothread_leaves(daemon):
    """Clients go with requests in flight while their loop changes."""
    daemon.cmd("object-add", qom_type="iothread", id="io9")
    daemon.cmd("blockdev-add", driver="null-co", node_name="slow",
               size=SIZE, read_zeroes=True, latency_ns=20_000_000)
    daemon.start_nbd()
    daemon.add_export("slow", iothread="io9", writable=True)
    failures = []

    def come_and_go(number):
        source = random.Random(number)
        try:
            for _ in range(20):
                client = nbd.RawNbd(daemon.nbd_path).go("slow")
                for _ in range(source.randrange(1, 20)):
                    client.send_request(nbd.CMD_READ, 0, 65536)
                if source.randrange(2):
                    client.send_request(nbd.CMD_DISC)
                client.close()
        except Exception as error:  # shown below
            failures.append(error)

    threads = [threading.Thread(target=come_and_go, args=(n,))
               for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(harness.LIMIT)
    assert not failures, failures
    check_alive(daemon, "slow")
    harness.wait_until(lambda: is_removed(daemon, "exp-slow"))
    daemon.cmd("blockdev-del", node_name="slow")
    daemon.cmd("object-del", id="io9")


def is_removed(daemon, ident):
    """Removes an export as soon as its last client is gone."""
    try:
        daemon.cmd("block-export-del", id=ident)
    except qmp.QmpError:
        return False
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id=ident)
    return True
