# SPDX-License-Identifier: GPL-2.0-or-later
"""What the NBD protocol document demands of a server, sentence by sentence.

The table nbd-conformance.txt has a row for each sentence with MUST or SHOULD
that concerns a server, and names the test that shows it. Those that other files
do not show anyway are here. A row without a test fails, and so does a test of
this file without a row.
"""
import ast
import pathlib
import struct

import pytest

import harness
import rawnbd as nbd

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE / "nbd-conformance.txt"
SIZE = 4 << 20
ERRORS = {"EPERM": nbd.EPERM, "EROFS": nbd.EPERM, "EIO": nbd.EIO,
          "ENOMEM": nbd.ENOMEM, "ENOSPC": nbd.ENOSPC, "EDQUOT": nbd.ENOSPC,
          "EFBIG": nbd.ENOSPC, "EOVERFLOW": nbd.EIO, "EOPNOTSUPP": nbd.EIO}


# The table.

def rows():
    """(section, what, test) of each row."""
    found = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            fields = [field.strip() for field in line.split("|")]
            assert len(fields) == 3 and all(fields), f"a bad row: {line}"
            found.append(tuple(fields))
    return found


def functions_of(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body
            if isinstance(node, ast.FunctionDef)
            and node.name.startswith("test_")}


def test_each_row_has_its_test():
    found = rows()
    assert len(found) > 100
    assert len({what for _, what, _ in found}) == len(found), "a row twice"
    for _, what, test in found:
        name, _, function = test.partition("::")
        path = HERE / f"test_{name}.py"
        assert path.exists() and function in functions_of(path), \
            f"no test for: {what} ({test})"


def test_each_test_has_its_row():
    about_the_table = {"test_each_row_has_its_test",
                       "test_each_test_has_its_row"}
    for name in ("nbd_conformance", "nbd_extended"):
        listed = {test.partition("::")[2] for _, _, test in rows()
                  if test.startswith(name + "::")}
        assert functions_of(HERE / f"test_{name}.py") - about_the_table == \
            listed


# Servers and clients.

@pytest.fixture
def server(daemon, image):
    """'disk', writable and described, and 'ro'."""
    daemon.serve_two(image)
    return daemon


@pytest.fixture
def client(server):
    """In negotiation."""
    with nbd.RawNbd(server.nbd_path) as client:
        yield client


@pytest.fixture
def user(client):
    """With structured replies and base:allocation, on 'disk'."""
    client.negotiate_structured()
    client.set_meta("disk", "base:allocation")
    return client.go("disk")


@pytest.fixture
def direct(daemon, box):
    """An export with a smallest block above 1, data and holes."""
    path = harness.make_image(box / "direct.img", SIZE,
                              {1 << 20: harness.random_bytes(1 << 20)})
    daemon.serve_file(path, cache={"direct": True})
    return daemon


def faulty(daemons, box, *rules):
    """A server whose storage misbehaves by rules."""
    daemon = daemons("--allow-fault-injection")
    path = harness.make_image(box / "faulty.img", SIZE, {0: b"d" * SIZE})
    daemon.execute("blockdev-add", {
        "driver": "fault", "node-name": "disk", "rules": list(rules),
        "image": {"driver": "file", "filename": str(path)}})
    daemon.start_nbd()
    daemon.add_export("disk", writable=True)
    return daemon


def block_sizes(client):
    return struct.unpack(">III", client.infos[nbd.INFO_BLOCK_SIZE])


# Strings and the session.

def test_strings_of_the_server_are_short_utf8(client):
    for option, data in (
            (nbd.OPT_GO, nbd.go_data("x" * 4096)), (nbd.OPT_LIST, b"x"),
            (nbd.OPT_GO, nbd.go_data("ü" * 2000)), (4711, b""),
            (nbd.OPT_GO, nbd.go_data(b"\xff\xfe\x01" * 100)),
            (nbd.OPT_LIST_META, nbd.meta_data("y" * 4096, []))):
        text = client.option(option, data)[-1].data
        assert 0 < len(text) <= 256 and b"\0" not in text
        text.decode()


def test_unwelcome_client_gets_errors_and_no_disconnect(client):
    for number in range(200):
        kind = client.option_type(1000 + number, bytes(number))
        assert kind == nbd.ERR_UNSUP
        assert client.option_type(nbd.OPT_GO, b"bad") == nbd.ERR_INVALID
        assert client.option_type(
            nbd.OPT_INFO, nbd.go_data(f"no{number}")) == nbd.ERR_UNKNOWN
    client.go("disk")


def test_baseline_is_there(client):
    assert client.option_type(nbd.OPT_LIST) == nbd.REP_ACK
    assert client.info("disk") == nbd.REP_ACK
    assert nbd.INFO_EXPORT in client.infos
    client.go("disk")
    assert client.write(0, b"base" * 128) == 0
    assert client.read(0, 512) == (0, b"base" * 128)
    client.disconnect()


# Replies.

def test_simple_replies_only_unless_negotiated(client):
    client.go("disk")
    for command, offset, length, flags in (
            (nbd.CMD_READ, 0, 512, 0), (nbd.CMD_READ, SIZE, 512, 0),
            (nbd.CMD_FLUSH, 0, 0, 0), (nbd.CMD_READ, 0, 512, nbd.DF),
            (nbd.CMD_BLOCK_STATUS, 0, 512, 0), (99, 0, 0, 0)):
        client.send_request(command, offset, length, flags)
        reply = client.read_reply(length)
        assert isinstance(reply, tuple) and isinstance(reply[0], nbd.Simple)


def test_no_simple_reply_to_read_when_structured(user):
    for offset, length, flags in (
            (0, 512, 0), (SIZE, 1, 0), (0, 512, 0x8000), (0, 512, nbd.REQ_ONE),
            (0, 0, 0), ((1 << 64) - 1, 0xFFFFFFFF, 0), (0, (32 << 20) + 1, 0)):
        cookie = user.send_request(nbd.CMD_READ, offset, length, flags)
        assert user.chunks(cookie)[-1].flags == nbd.DONE


def test_errors_come_with_a_text_when_structured(user):
    for command, offset, length, flags in (
            (nbd.CMD_READ, SIZE, 1, 0), (nbd.CMD_TRIM, SIZE, 1, 0),
            (nbd.CMD_WRITE_ZEROES, SIZE, 1, 0), (nbd.CMD_CACHE, SIZE, 1, 0),
            (nbd.CMD_BLOCK_STATUS, SIZE, 1, 0), (nbd.CMD_FLUSH, 0, 0, nbd.DF),
            (99, 0, 0, 0)):
        chunks = user.chunks(user.send_request(command, offset, length, flags))
        assert [(c.type, c.flags) for c in chunks] == [
            (nbd.CHUNK_ERROR, nbd.DONE)]
        error, size = struct.unpack(">IH", chunks[0].data[:6])
        assert error != 0 and 0 < size <= 4096
        assert chunks[0].data[6:6 + size].decode()
        assert len(chunks[0].data) == 6 + size


def test_done_is_set_once_and_last(daemon, box):
    path = harness.make_image(box / "s.img", SIZE, {
        n << 18: b"d" * (1 << 17) for n in range(16)})
    daemon.serve_file(path)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.negotiate_structured()
        client.set_meta("disk", "base:allocation")
        client.go("disk")
        for command in (nbd.CMD_READ, nbd.CMD_BLOCK_STATUS):
            chunks = client.chunks(client.send_request(command, 0, SIZE))
            assert [c.flags for c in chunks] == \
                [0] * (len(chunks) - 1) + [nbd.DONE]


def test_data_come_in_one_chunk(user):
    for offset, length in ((0, SIZE), (1, 100_000), (511, 1 << 20)):
        chunks = user.chunks(user.send_request(nbd.CMD_READ, offset, length))
        assert [c.type for c in chunks] == [nbd.CHUNK_DATA]


def test_hole_chunks_are_well_formed(daemon, box):
    path = harness.make_image(box / "s.img", SIZE, {1 << 20: b"d" * 4096})
    daemon.serve_file(path)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.negotiate_structured()
        client.go("disk")
        holes = 0
        for offset, length in ((0, SIZE), (0, 1 << 20), (1, 65536),
                               (1 << 20, 8192), (SIZE - 5000, 5000)):
            chunks = client.chunks(
                client.send_request(nbd.CMD_READ, offset, length))
            for chunk in chunks:
                if chunk.type == nbd.CHUNK_HOLE:
                    start, size = struct.unpack(">QI", chunk.data)
                    assert size > 0 and start >= offset
                    assert start + size <= offset + length
                    holes += 1
            assert client.join_chunks(chunks, offset, length)[1] == \
                path.read_bytes()[offset:offset + length]
        assert holes > 0


def test_chunks_of_odd_reads_meet_at_sectors(daemon, box):
    path = harness.make_image(box / "s.img", SIZE, {
        n << 17: b"d" * (1 << 16) for n in range(32)})
    daemon.serve_file(path)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.negotiate_structured()
        client.go("disk")
        for offset, length in ((0, SIZE), (1, SIZE - 2), (777, 3 << 20)):
            chunks = client.chunks(
                client.send_request(nbd.CMD_READ, offset, length))
            for chunk in chunks:
                start = struct.unpack(">Q", chunk.data[:8])[0]
                assert start == offset or start % 512 == 0
            assert client.join_chunks(chunks, offset, length)[0] == 0


def test_failing_read_is_an_error_and_the_connection_lives(daemons, box):
    daemon = faulty(daemons, box, {"op": "read", "offset": 1 << 20, "errno": "EIO",
                         "bytes": 4096})
    for structured in (False, True):
        with nbd.RawNbd(daemon.nbd_path) as client:
            if structured:
                client.negotiate_structured()
            client.go("disk")
            for flags in (0, nbd.DF) if structured else (0,):
                assert client.read(0, SIZE, flags)[0] == nbd.EIO
                assert client.read(0, 4096, flags)[0] == 0


def test_failed_simple_read_has_no_payload(client):
    client.go("disk")
    client.send_request(nbd.CMD_READ, SIZE, 4096)
    assert client.read_reply(4096)[0].error == nbd.EINVAL
    assert client.request(nbd.CMD_FLUSH) == 0  # in step


def test_unfragmented_reads_of_64_kib(daemon, box):
    path = harness.make_image(box / "s.img", SIZE, {32768: b"d" * 4096})
    daemon.serve_file(path)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.negotiate_structured()
        client.go("disk")
        for offset, length in ((0, 65536), (1, 65535), (0, 1)):
            chunks = client.chunks(
                client.send_request(nbd.CMD_READ, offset, length, nbd.DF))
            assert [c.type for c in chunks] == [nbd.CHUNK_DATA]
            assert chunks[0].data[8:] == \
                path.read_bytes()[offset:offset + length]


# TLS.

def test_plain_server_never_demands_tls(client):
    for option in (*range(2, 15), 99):
        if option != nbd.OPT_ABORT:
            for data in (b"", nbd.go_data("nope"), nbd.meta_data("nope", [])):
                assert client.option_type(option, data) != nbd.ERR_TLS_REQD


def test_nothing_is_told_before_tls(daemon, image, tls_dir):
    daemon.add_creds(tls_dir)
    daemon.serve_file(image, tls="tls0")
    with nbd.RawNbd(daemon.nbd_path) as client:
        for option in (nbd.OPT_INFO, nbd.OPT_GO):
            for name in ("disk", "nope"):
                replies = client.option(option, nbd.go_data(name))
                assert [r.type for r in replies] == [nbd.ERR_TLS_REQD]


def test_end_of_tls_is_announced(daemon, image, tls_dir, tls_context):
    """close_notify precedes the end, for DISC and for ABORT."""
    daemon.add_creds(tls_dir)
    daemon.serve_file(image, tls="tls0")
    for leave in (lambda c: c.option(nbd.OPT_ABORT),
                  lambda c: c.go("disk").send_request(nbd.CMD_DISC)):
        with nbd.RawNbd(daemon.nbd_path) as client:
            assert client.option_type(nbd.OPT_STARTTLS) == nbd.REP_ACK
            client.sock = tls_context.wrap_socket(
                client.sock, server_hostname="localhost",
                suppress_ragged_eofs=False)
            leave(client)
            assert client.sock.recv(1) == b""


# The end.

def test_options_during_a_shutdown_are_refused(daemon, image):
    """The server is in the middle of very many of them, which wait for the
    client to read the replies."""
    daemon.serve_file(image)
    daemon.add_export("disk", "long", name="long", description="d" * 4000)
    options = 200
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.send(struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_LIST, 0)
                    * options)
        daemon.qmp.send("nbd-server-stop")
        replies = []
        with pytest.raises(nbd.Closed):
            while True:
                replies.append(client.read_option_reply())
    final = [r.type for r in replies if r.type != nbd.REP_SERVER]
    refused = final.count(nbd.ERR_SHUTDOWN)
    assert final == [nbd.REP_ACK] * (len(final) - refused) + \
        [nbd.ERR_SHUTDOWN] * refused
    assert refused > 0
    assert b"shutting down" in replies[-1].data


@pytest.mark.parametrize("how", ("removal", "stop"))
@pytest.mark.parametrize("way", ("plain", "chunks", "tls"))
def test_requests_in_flight_are_answered_at_the_end(daemon, tls_dir,
                                                    tls_context, how, way):
    """Each is done or gets ESHUTDOWN, and TLS ends in due form."""
    daemon.cmd("blockdev-add", driver="null-co", node_name="slow",
               size=1 << 30, read_zeroes=True, latency_ns=200_000_000)
    if way == "tls":
        daemon.add_creds(tls_dir)
    daemon.start_nbd("tls0" if way == "tls" else None)
    daemon.add_export("slow", writable=True)
    with nbd.RawNbd(daemon.nbd_path) as client:
        if way == "tls":
            assert client.option_type(nbd.OPT_STARTTLS) == nbd.REP_ACK
            client.sock = tls_context.wrap_socket(
                client.sock, server_hostname="localhost",
                suppress_ragged_eofs=False)
        elif way == "chunks":
            client.negotiate_structured()
        client.go("slow")
        cookies = set()
        for number in range(20):
            data = bytes(4096) if number % 2 else b""
            cookies.add(client.send_request(
                nbd.CMD_WRITE if number % 2 else nbd.CMD_FLUSH,
                length=len(data), data=data))
        # It knows that its choice is accepted before it is served.
        harness.wait_until(lambda: [c["state"] for c in daemon.cmd(
            "query-nbd-clients")] == ["active"], 10, "the client")
        if how == "stop":
            daemon.qmp.send("nbd-server-stop")
        else:
            daemon.qmp.send("block-export-del",
                            {"id": "exp-slow", "mode": "hard"})
        while cookies:
            reply = client.read_reply()
            if isinstance(reply, nbd.Chunk):
                cookie, error = reply.cookie, struct.unpack(
                    ">I", reply.data[:4])[0]
            else:
                cookie, error = reply[0].cookie, reply[0].error
            assert error in (0, nbd.ESHUTDOWN)
            cookies.remove(cookie)
        assert client.sock.recv(1) == b""


# Block sizes.

def test_block_sizes_are_told_and_sound(direct, box):
    harness.make_image(box / "odd.img", 512 * 7)
    direct.add_file(box / "odd.img", "odd", cache={"direct": True})
    direct.add_export("odd")
    direct.cmd("blockdev-add", driver="null-co", node_name="null", size=12345)
    direct.add_export("null")
    for export in ("disk", "odd", "null"):
        with nbd.RawNbd(direct.nbd_path) as client:
            assert client.info(export, nbd.INFO_BLOCK_SIZE) == nbd.REP_ACK
            small, good, most = block_sizes(client)
            assert small & (small - 1) == 0 and 1 <= small <= 65536
            assert client.size % small == 0
            assert good & (good - 1) == 0 and good >= max(small, 512)
            assert most % small == 0 or most == 0xFFFFFFFF
            assert most >= min(good, client.size) and most >= 1 << 20


def test_block_size_is_true(direct):
    """Who asks learns what the storage needs."""
    with nbd.RawNbd(direct.nbd_path) as client:
        client.go("disk", nbd.INFO_BLOCK_SIZE)
        assert block_sizes(client)[0] in (512, 4096)


@pytest.mark.ours("the reference refuses INFO")
def test_block_sizes_are_not_demanded(direct):
    """INFO tells what GO would: who does not ask may do without."""
    with nbd.RawNbd(direct.nbd_path) as client:
        for infos, smallest in (((), {1}), ((nbd.INFO_BLOCK_SIZE,),
                                            {512, 4096})):
            assert client.info("disk", *infos) == nbd.REP_ACK
            told = client.infos
            assert block_sizes(client)[0] in smallest
        client.go("disk", nbd.INFO_BLOCK_SIZE)
        assert client.infos == told


@pytest.mark.parametrize("way", ("go", "name", "info"))
def test_unaligned_requests_are_served(direct, box, way):
    """Read-modify-write for clients that have not agreed on sizes with GO."""
    path = box / "direct.img"
    model = bytearray(path.read_bytes())
    with nbd.RawNbd(direct.nbd_path) as client:
        if way == "go":
            client.go("disk")
            assert block_sizes(client)[0] == 1
        elif way == "name":
            client.export_name("disk")
        else:
            client.info("disk", nbd.INFO_BLOCK_SIZE)
            client.go("disk")
        for offset, length in ((0, 1), (1, 511), (511, 2), (4095, 4098),
                               ((1 << 20) - 3, 6), (SIZE - 1, 1), (777, 70000),
                               (12345, 1 << 20)):
            data = harness.random_bytes(length, seed=length)
            assert client.write(offset, data) == 0
            model[offset:offset + length] = data
            assert client.read(offset, length) == (0, data)
        for offset, length in ((3, 5), (4097, 8191), (1 << 20, 100_001)):
            assert client.request(nbd.CMD_WRITE_ZEROES, offset, length) == 0
            model[offset:offset + length] = bytes(length)
            assert client.read(offset, length) == (0, bytes(length))
        assert client.request(nbd.CMD_TRIM, 5, 5) == 0
        assert client.request(nbd.CMD_CACHE, 5, 5) == 0
        assert client.request(nbd.CMD_FLUSH) == 0
        assert client.read(0, SIZE) == (0, bytes(model))
    assert path.read_bytes() == model


@pytest.mark.ours("the reference serves them")
@pytest.mark.parametrize("negotiate", (None, nbd.RawNbd.negotiate_structured,
                                       nbd.RawNbd.negotiate_extended))
def test_unaligned_requests_against_the_agreement(direct, box, negotiate):
    """Who has asked for sizes with GO keeps to them: EINVAL, no disconnect."""
    content = (box / "direct.img").read_bytes()
    with nbd.RawNbd(direct.nbd_path) as client:
        if negotiate:
            negotiate(client)
            client.set_meta("disk", "base:allocation")
        client.go("disk", nbd.INFO_BLOCK_SIZE)
        small = block_sizes(client)[0]
        for offset, length in ((0, 1), (1, small), (small, small - 1),
                               (small // 2, small), (SIZE - 1, 1)):
            assert client.read(offset, length)[0] == nbd.EINVAL
            assert client.write(offset, b"x" * length) == nbd.EINVAL
            for command in (nbd.CMD_CACHE, nbd.CMD_WRITE_ZEROES):
                assert client.request(command, offset, length) == nbd.EINVAL
            if negotiate:
                assert client.status(offset, length)[0] == nbd.EINVAL
            # A hint, which QEMU gives for parts of blocks as well.
            assert client.request(nbd.CMD_TRIM, offset, length) == 0
        assert client.read(0, 0)[0] == 0
        assert client.request(nbd.CMD_FLUSH) == 0
        assert client.read(0, SIZE) == (0, content)
        assert client.write(small, content[:small]) == 0
        assert client.read(small, small) == (0, content[:small])


# Options.

def test_flags_are_sound(client):
    for name, structured in (("disk", False), ("ro", False), ("disk", True),
                             ("ro", True)):
        if structured and not client.structured:
            client.negotiate_structured()
        client.info(name)
        flags = client.flags
        assert flags & 1
        assert bool(flags & nbd.FLAG_DF) == structured
        assert bool(flags & nbd.FLAG_READ_ONLY) == (name == "ro")
        if not flags & nbd.FLAG_ZEROES:
            assert not flags & nbd.FLAG_FAST_ZERO


def test_what_flags_expose_is_supported(user):
    for flag, command, length, bits in (
            (nbd.FLAG_FLUSH, nbd.CMD_FLUSH, 0, 0),
            (nbd.FLAG_FUA, nbd.CMD_WRITE_ZEROES, 4096, nbd.FUA),
            (nbd.FLAG_TRIM, nbd.CMD_TRIM, 4096, 0),
            (nbd.FLAG_ZEROES, nbd.CMD_WRITE_ZEROES, 4096, nbd.NO_HOLE),
            (nbd.FLAG_CACHE, nbd.CMD_CACHE, 4096, 0),
            (nbd.FLAG_FAST_ZERO, nbd.CMD_WRITE_ZEROES, 4096, nbd.FAST_ZERO)):
        assert user.flags & flag
        assert user.request(command, 0, length, bits) in (
            (0, nbd.ENOTSUP) if bits & nbd.FAST_ZERO else (0,))
    assert user.flags & nbd.FLAG_DF
    assert user.read(0, 512, nbd.DF)[0] == 0
    assert not user.flags & (nbd.FLAG_ROTATIONAL | nbd.FLAG_RESIZE)


def test_data_behind_abort_are_ignored(client):
    assert client.option_type(nbd.OPT_ABORT, b"why" * 1000) == nbd.REP_ACK
    client.assert_closed()


def test_abort_without_waiting_is_survived(server):
    for _ in range(20):
        with nbd.RawNbd(server.nbd_path) as client:
            client.send_option(nbd.OPT_ABORT)
    with nbd.RawNbd(server.nbd_path) as client:
        client.go("disk")


def test_unknown_export_gets_no_info(client):
    for option in (nbd.OPT_INFO, nbd.OPT_GO):
        replies = client.option(option, nbd.go_data("nope", [0, 1, 2, 3]))
        assert [r.type for r in replies] == [nbd.ERR_UNKNOWN]


def test_infos_have_their_lengths_and_come_once(client):
    for asked in ((), (0, 1, 2, 3), (1, 1, 3, 3)):
        replies = client.option(nbd.OPT_INFO, nbd.go_data("disk", asked))
        assert replies[-1] == (nbd.OPT_INFO, nbd.REP_ACK, b"")
        kinds = [struct.unpack(">H", r.data[:2])[0] for r in replies[:-1]]
        assert len(set(kinds)) == len(kinds) and nbd.INFO_EXPORT in kinds
        lengths = {k: len(r.data) for k, r in zip(kinds, replies)}
        assert lengths[nbd.INFO_EXPORT] == 12
        assert lengths[nbd.INFO_BLOCK_SIZE] == 14
        assert lengths[nbd.INFO_DESCRIPTION] == 2 + len("first disk")
        assert lengths.get(nbd.INFO_NAME, 6) == 2 + len("disk")


@pytest.mark.parametrize("flags", (1, 3))
def test_no_padding_follows_go(server, flags):
    with nbd.RawNbd(server.nbd_path, flags=flags) as client:
        client.go("disk")
        cookie = client.send_request(nbd.CMD_FLUSH)
        assert client.recv(16) == struct.pack(">IIQ", nbd.SIMPLE_MAGIC, 0,
                                              cookie)


@pytest.fixture
def contexts(daemon, image):
    """An export with all kinds of contexts."""
    daemon.add_file(image)
    for name in ("b0", "b1"):
        daemon.cmd("block-dirty-bitmap-add", node="disk", name=name)
    daemon.start_nbd()
    daemon.add_export("disk", writable=True, bitmaps=["b0", "b1"],
                      allocation_depth=True)
    return daemon


ALL_CONTEXTS = ("base:allocation", "qemu:allocation-depth",
                "qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b1")


def test_listed_contexts_have_names_and_no_id(contexts):
    with nbd.RawNbd(contexts.nbd_path) as client:
        replies = client.option(nbd.OPT_LIST_META, nbd.meta_data("disk", []))
        assert len(replies) == 5 and replies[-1].type == nbd.REP_ACK
        for reply in replies[:-1]:
            assert reply.data[:4] == bytes(4)
            namespace, colon, leaf = reply.data[4:].decode().partition(":")
            assert namespace in ("base", "qemu") and colon and leaf
        assert tuple(client.list_meta("disk")) == ALL_CONTEXTS
        for name in ALL_CONTEXTS:
            assert client.list_meta("disk", name) == [name]


def test_selected_contexts_have_ids_of_their_own(contexts):
    with nbd.RawNbd(contexts.nbd_path) as client:
        client.negotiate_structured()
        ids = client.set_meta("disk", *ALL_CONTEXTS)
        assert tuple(ids) == ALL_CONTEXTS and len(set(ids.values())) == 4
        assert client.set_meta("disk") == {}
        client.go("disk")
        assert client.status(0, 512)[0] == nbd.EINVAL


# Block status.

def test_status_has_one_chunk_per_context(contexts):
    for wanted in (ALL_CONTEXTS, ALL_CONTEXTS[:1], ALL_CONTEXTS[2:],
                   ALL_CONTEXTS[1:3]):
        with nbd.RawNbd(contexts.nbd_path) as client:
            client.negotiate_structured()
            ids = client.set_meta("disk", *wanted)
            client.go("disk")
            assert client.write(1 << 20, b"x" * 100) == 0
            for flags in (0, nbd.REQ_ONE, nbd.FUA):
                chunks = client.chunks(client.send_request(
                    nbd.CMD_BLOCK_STATUS, 0, SIZE, flags))
                assert all(c.type == nbd.CHUNK_STATUS for c in chunks)
                assert all(len(c.data) > 4 and len(c.data) % 8 == 4
                           for c in chunks)
                found = [struct.unpack(">I", c.data[:4])[0] for c in chunks]
                assert sorted(found) == sorted(ids.values())


def test_neighbouring_extents_differ(contexts):
    with nbd.RawNbd(contexts.nbd_path) as client:
        client.negotiate_structured()
        client.set_meta("disk", *ALL_CONTEXTS)
        client.go("disk")
        for n in range(0, 32, 3):
            assert client.write(n << 16, b"x" * (2 << 16)) == 0
        error, found = client.status(0, SIZE)
        assert error == 0
        for extents in found.values():
            assert all(a[1] != b[1] for a, b in zip(extents, extents[1:]))


def test_allocation_has_two_flags(daemon, box):
    path = harness.make_image(box / "s.img", SIZE, {1 << 20: b"d" * 65536})
    daemon.serve_file(path, discard="unmap")
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.negotiate_structured()
        client.set_meta("disk", "base:allocation")
        client.go("disk")
        assert client.request(nbd.CMD_WRITE_ZEROES, 0, 65536, nbd.NO_HOLE) == 0
        _, found = client.status(0, SIZE)
        assert {flags for _, flags in found[0]} <= {0, 1, 2, 3}
        assert {0, 3} <= {flags for _, flags in found[0]}
        for offset, flags in ((0, 0), (1 << 20, 0)):
            if not client.status(offset, 4096)[1][0][0][1] & 1:
                assert client.write(offset, b"w" * 4096) == 0


def test_status_keeps_to_the_block_size(direct, box):
    odd = box / "odd.img"
    odd.write_bytes(b"d" * 1_000_001)
    direct.add_file(odd, "odd", cache={"direct": True})
    direct.add_export("odd")
    for name in ("disk", "odd"):
        with nbd.RawNbd(direct.nbd_path) as client:
            client.negotiate_structured()
            client.set_meta(name, "base:allocation")
            client.go(name, nbd.INFO_BLOCK_SIZE)
            small = block_sizes(client)[0]
            size = client.size
            for offset, length in ((0, size), (small, small),
                                   (size - small, small),
                                   (size // 4 // small * small, size // 2)):
                for flags in (0, nbd.REQ_ONE):
                    _, found = client.status(offset, length, flags)
                    assert all(n % small == 0 and n for n, _ in found[0])


# Commands and errors.

def test_fua_is_accepted_with_status(user):
    assert user.status(0, 4096, nbd.FUA)[0] == 0


def test_cache_changes_nothing(user, image):
    before = image.read_bytes()
    assert user.write(4096, b"new" * 100) == 0
    for offset, length in ((0, SIZE), (1, 1), (4096, 300), (SIZE - 1, 1)):
        assert user.request(nbd.CMD_CACHE, offset, length) == 0
    assert user.read(0, SIZE)[1] == before[:4096] + b"new" * 100 + \
        before[4396:]


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_of_storage_are_told(daemons, box, name):
    daemon = faulty(daemons, box, {"op": "any", "errno": name})
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.negotiate_structured()
        client.go("disk")
        assert client.write(0, b"x" * 512) == ERRORS[name]
        assert client.read(0, 512)[0] == ERRORS[name]
        assert client.request(nbd.CMD_FLUSH) == ERRORS[name]
        assert client.request(nbd.CMD_WRITE_ZEROES, 0, 4096) == ERRORS[name]


def test_only_fast_zeroes_may_be_unsupported(daemons, box):
    daemon = faulty(daemons, box, {"op": "write-zeroes", "errno": "EOPNOTSUPP"})
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("disk")
        assert client.request(nbd.CMD_WRITE_ZEROES, 0, 65536,
                              nbd.FAST_ZERO) == nbd.ENOTSUP
        assert client.read(0, 65536) == (0, b"d" * 65536)
        for flags in (0, nbd.NO_HOLE, nbd.FUA):
            assert client.request(nbd.CMD_WRITE_ZEROES, 0, 65536, flags) == 0
        assert client.read(0, 65536) == (0, bytes(65536))


def test_errors_of_misuse(client):
    client.negotiate_structured()
    client.go("disk")
    for command, error in (
            (nbd.CMD_READ, nbd.EINVAL), (nbd.CMD_TRIM, nbd.EINVAL),
            (nbd.CMD_CACHE, nbd.EINVAL), (nbd.CMD_WRITE_ZEROES, nbd.ENOSPC)):
        for offset, length in ((SIZE - 1, 2), (SIZE, 1), ((1 << 64) - 1, 1)):
            assert client.request(command, offset, length) == error


def test_overflow_is_not_said(client):
    client.negotiate_structured()
    client.go("disk")
    for length in (0xFFFFFFFF, (32 << 20) + 1, SIZE + 1):
        for command in (nbd.CMD_READ, nbd.CMD_CACHE, nbd.CMD_TRIM,
                        nbd.CMD_WRITE_ZEROES, nbd.CMD_BLOCK_STATUS):
            assert client.request(command, 0, length) in (
                nbd.EINVAL, nbd.ENOSPC)
