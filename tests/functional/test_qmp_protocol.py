# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor's wire protocol: framing, negotiation, errors, recovery."""
import json
import re
import select
import socket
import sys
import threading

import pytest

import harness
import qmp


def errors_before_version(client, data, limit=None):
    """Sends bytes and then query-version; returns the errors in between."""
    client.send_bytes(data)
    request_id = client.send("query-version")
    errors = []
    while True:
        reply = client.read_message(limit)
        if reply.get("id") == request_id:
            assert "return" in reply, reply
            return errors
        assert "error" in reply, reply
        errors.append(reply["error"])


def the_error(client, text, **extra):
    """Sends one value that must give one error; returns its class and desc."""
    reply = client.raw_reply(text)
    assert "error" in reply, reply
    for name, value in extra.items():
        assert reply[name] == value, reply
    return reply["error"]["class"], reply["error"]["desc"]


# Greeting and negotiation.

def test_greeting_comes_first(daemon):
    client = daemon.client(negotiate=False)
    version = client.greeting["QMP"]["version"]
    assert set(version) == {"qemu", "package"}
    assert all(isinstance(version["qemu"][k], int)
               for k in ("major", "minor", "micro"))
    assert set(client.greeting["QMP"]["capabilities"]) <= {"oob"}


@pytest.mark.ours("the version is ours")
def test_version_names_qemu_10_and_blockferry(daemon):
    version = daemon.cmd("query-version")
    assert version["qemu"] == {"major": 10, "minor": 0, "micro": 0}
    assert re.fullmatch(r"blockferry \d+\.\d+.*", version["package"])
    assert daemon.qmp.greeting["QMP"]["version"] == version


def test_commands_wait_for_negotiation(daemon):
    client = daemon.client(negotiate=False)
    reply = client.raw_reply('{"execute":"query-version","id":7}')
    assert reply["error"]["class"] == "CommandNotFound"
    assert "qmp_capabilities" in reply["error"]["desc"]
    assert reply["id"] == 7
    assert client.raw_reply('{"execute":"qmp_capabilities"}') == {"return": {}}
    assert "return" in client.raw_reply('{"execute":"query-version"}')


def test_second_negotiation_is_refused(daemon):
    cls, desc = the_error(daemon.qmp, '{"execute":"qmp_capabilities"}')
    assert cls == "CommandNotFound" and "already complete" in desc


def test_unknown_capability_leaves_negotiation_open(daemon):
    client = daemon.client(negotiate=False)
    cls, desc = the_error(client, '{"execute":"qmp_capabilities",'
                          '"arguments":{"enable":["foo"]}}')
    assert cls == "GenericError" and "foo" in desc
    assert client.raw_reply('{"execute":"qmp_capabilities",'
                            '"arguments":{"enable":[]}}') == {"return": {}}


def test_offered_capabilities_can_be_enabled(daemon):
    client = daemon.client(negotiate=False)
    offered = client.greeting["QMP"]["capabilities"]
    assert client.cmd("qmp_capabilities", enable=offered) == {}
    assert client.cmd("query-version")


def test_errors_are_reported_in_negotiation(daemon):
    client = daemon.client(negotiate=False)
    assert the_error(client, "[1]")[1] == "QMP input must be a JSON object"
    assert the_error(client, "{'a' 1}")[1].startswith("JSON parse error")
    assert client.raw_reply('{"execute":"qmp_capabilities"}') == {"return": {}}


def test_reconnect_starts_from_zero(daemon):
    first = daemon.client()
    first.send_bytes(b'{"execute": "query-ver')
    first.close()
    second = daemon.client(negotiate=False)
    reply = second.raw_reply('{"execute":"query-version"}')
    assert reply["error"]["class"] == "CommandNotFound"


# Framing.

def test_messages_end_with_crlf_on_one_line(daemon):
    client = daemon.client()
    client.cmd("query-version")
    client.cmd("query-commands")
    client.close()
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(harness.LIMIT)
    sock.connect(str(daemon.monitor_path))
    sock.sendall(b'{"execute":"qmp_capabilities"}{"execute":"query-commands"}')
    sock.shutdown(socket.SHUT_WR)
    data = b""
    while block := sock.recv(65536):
        data += block
    sock.close()
    lines = data.split(b"\r\n")
    assert lines.pop() == b"" and len(lines) == 3
    for line in lines:
        json.loads(line)
        assert b"\n" not in line and b"\r" not in line


def test_replies_after_half_close(daemon):
    client = daemon.client()
    client.send("query-version")
    client.sock.shutdown(socket.SHUT_WR)
    assert "return" in client.read_message()
    assert client.at_eof()


def test_output_is_ascii(daemon):
    client = daemon.client()
    client.send_bytes('{"execute":"query-version","id":"näh 😀"}'.encode())
    reply = client.read_message()
    assert reply["id"] == "näh 😀"
    assert all(byte < 128 for byte in client.raw[-1])
    assert b"\\ud83d\\ude00" in client.raw[-1].lower()


def test_no_newline_is_needed_and_commands_may_share_a_packet(daemon):
    client = daemon.client()
    client.send_bytes(b'{"execute":"query-version","id":1}'
                      b'{"execute":"query-version","id":2}\t\r\n '
                      b'{"execute":"query-version","id":3}')
    assert [client.read_message()["id"] for _ in range(3)] == [1, 2, 3]


def test_command_may_come_in_single_bytes(daemon):
    client = daemon.client()
    for byte in b'{ "execute" : "query-version" , "id" : "\\u0041b" }':
        client.send_bytes(bytes([byte]))
    assert client.read_message()["id"] == "Ab"


def test_every_split_of_a_command_works(daemon):
    text = '{"execute":\'query-version\',"id":["é",{"a":-1.5e2}]}'.encode()
    client = daemon.client()
    for cut in range(1, len(text)):
        client.send_bytes(text[:cut])
        client.send_bytes(text[cut:])
        assert client.read_message()["id"] == ["é", {"a": -150}]


def test_single_quotes_are_read_and_never_written(daemon):
    client = daemon.client()
    reply = client.raw_reply(
        "{'execute': 'query-version', 'id': 'it\\'s \"quoted\"'}")
    assert reply["id"] == 'it\'s "quoted"'
    assert b"'id'" not in client.raw[-1]


@pytest.mark.parametrize("value", [
    "null", "true", "false", "0", "-1", "18446744073709551615",
    "9223372036854775807", "-9223372036854775808", '""', '"x"', "[]", "{}",
    '[1, [2, {"a": null}]]', '{"a": {"b": ["c"]}}', '"\\u0000"', "0.5",
    '"\\ud83d\\ude00"', '"\\b\\f\\n\\r\\t\\/\\\\"'])
def test_id_of_any_type_is_echoed(daemon, value):
    client = daemon.client()
    for command in ("query-version", "nosuch"):
        reply = client.raw_reply(
            f'{{"execute":"{command}","id":{value}}}')
        assert "id" in reply and reply["id"] == json.loads(value)


@pytest.mark.parametrize("source, number", [
    ("1.0", 1), ("1.5e3", 1500), ("0.1", 0.1),
    ("18446744073709551616", 18446744073709551616.0)])
def test_number_id_keeps_its_value(daemon, source, number):
    reply = daemon.qmp.raw_reply(
        f'{{"execute":"query-version","id":{source}}}')
    assert reply["id"] == number


def test_no_id_means_no_id(daemon):
    assert "id" not in daemon.qmp.raw_reply('{"execute":"query-version"}')
    assert "id" not in daemon.qmp.raw_reply('{"execute":"nosuch"}')


# Commands that are no commands.

@pytest.mark.parametrize("text", ["[]", '"x"', "[{}]"])
def test_non_object_is_refused(daemon, text):
    reply = daemon.qmp.raw_reply(text)
    assert reply == {"error": {"class": "GenericError",
                               "desc": "QMP input must be a JSON object"}}


@pytest.mark.parametrize("text", ["null ", "true ", "5 "])
def test_top_level_scalar_is_refused(daemon, text):
    assert the_error(daemon.qmp, text)[1] == "QMP input must be a JSON object"


@pytest.mark.parametrize("members, desc", [
    ('"execute":1', "QMP input member 'execute' must be a string"),
    ('"exec-oob":"query-version"', "QMP input member 'exec-oob' is unexpected"),
    ('"execute":"query-version","arguments":[]',
     "QMP input member 'arguments' must be an object"),
    ('"execute":"query-version","foo":1',
     "QMP input member 'foo' is unexpected"),
    ('"arguments":{}', "QMP input lacks member 'execute'"),
])
def test_malformed_command(daemon, members, desc):
    got = the_error(daemon.qmp, f'{{{members},"id":"i"}}', id="i")
    assert got == ("GenericError", desc)


def test_unknown_command(daemon):
    got = the_error(daemon.qmp, '{"execute":"nope","id":null}', id=None)
    assert got == ("CommandNotFound", "The command nope has not been found")


def test_oob_is_refused_for_normal_commands(daemon):
    client = daemon.client(negotiate=False)
    if "oob" not in client.greeting["QMP"]["capabilities"]:
        client.cmd("qmp_capabilities")
        cls, desc = the_error(client, '{"exec-oob":"query-version","id":1}')
        assert "exec-oob" in desc
        return
    client.cmd("qmp_capabilities", enable=["oob"])
    cls, desc = the_error(client, '{"exec-oob":"query-version","id":1}', id=1)
    assert cls == "GenericError" and "does not support OOB" in desc
    cls, _ = the_error(client, '{"exec-oob":"query-version",'
                       '"execute":"query-version"}')
    assert cls == "GenericError"


@pytest.mark.parametrize("arguments, names", [
    ({"size": 1}, "driver"),
    ({"driver": "null-co", "node-name": "n", "nosuch": 1}, "nosuch"),
    ({"driver": "null-co", "node-name": "n", "size": "5"}, "size"),
    ({"driver": "null-co", "node-name": "n", "size": True}, "size"),
    ({"driver": "null-co", "node-name": "n", "size": None}, "size"),
    ({"driver": "null-co", "node-name": "n", "read-only": 1}, "read-only"),
    ({"driver": "null-co", "node-name": 7}, "node-name"),
    ({"driver": "nosuch", "node-name": "n"}, "nosuch"),
    ({"driver": "raw", "node-name": "n"}, "file"),
    ({"driver": "null-co", "node-name": "n", "cache": {"x": 1}}, "cache.x"),
    ({"driver": "null-co", "node-name": "n", "cache": []}, "cache"),
])
def test_bad_argument_is_named_and_has_no_effect(daemon, arguments, names):
    try:
        daemon.execute("blockdev-add", arguments)
    except qmp.QmpError as error:
        assert error.cls == "GenericError" and names in error.desc
    else:
        raise AssertionError("accepted")
    assert daemon.cmd("query-named-block-nodes") == []


def test_float_is_no_integer(daemon):
    reply = daemon.qmp.raw_reply(
        '{"execute":"blockdev-add","arguments":{"driver":"null-co",'
        '"node-name":"n","size":1.0}}')
    assert "size" in reply["error"]["desc"]


def test_integer_out_of_range_is_refused(daemon):
    error = daemon.error("nbd-server-start", max_connections=1 << 32, addr={
        "type": "unix", "data": {"path": str(daemon.nbd_path)}})
    assert "max-connections" in error.desc
    assert "uint32" in error.desc


# JSON rules, and what comes after a broken value.

@pytest.mark.parametrize("text, pattern", [
    ("{'a': 01}", "JSON parse error, stray '01'"),
    ("{'a': +1}", r"JSON parse error, stray '\+'"),
    ("{'a': .5}", r"JSON parse error, stray '\.'"),
    ("{'a': 0x1}", "JSON parse error, "),
    ("{'a': # }", "JSON parse error, stray '#'"),
    ("{'a': 'x\x01'}", "JSON parse error, stray '"),
    ("{'a': 'x\n'}", "JSON parse error, stray '"),
    ("{'a': '\\q'}", "JSON parse error, invalid escape sequence in string"),
    ("{'a': '\\ud800'}",
     r"JSON parse error, \\ud800 is not a valid Unicode character"),
    ("{'a': nul}", "JSON parse error, invalid keyword 'nul'"),
    ("{'a' 1}", "JSON parse error, missing : in object pair"),
    ("{1: 2}", "JSON parse error, key is not a string in object"),
    ("{'a': 1 'b': 2}", "JSON parse error, expected separator in dict"),
    ("['a' 'b']", "JSON parse error, expected separator in list"),
    ("{'a': 1, 'a': 2}", "JSON parse error, duplicate key"),
    ("[1,]", "JSON parse error, expecting value"),
    ("{'a': }", "JSON parse error, expecting value"),
    ("}", "JSON parse error, expecting value"),
    ("]", "JSON parse error, expecting value"),
    ("{]}", "JSON parse error, "),
])
def test_bad_json_is_explained_and_survived(daemon, text, pattern):
    client = daemon.client()
    errors = errors_before_version(client, text.encode() + b"\n")
    assert errors, "no error"
    assert errors[0]["class"] == "GenericError"
    assert re.match(pattern, errors[0]["desc"]), errors


@pytest.mark.parametrize("data", [
    b"{'a': '\xff'}\n", b"{'a': '\xc3\x28'}\n", b"{'a': '\xed\xa0\x80'}\n",
    b"{'a': '\xf8\x88\x80\x80\x80'}\n", b"\xff", b"\x00", b"\x01\n",
    b"{'a': \x00}\n"])
def test_bad_bytes_are_survived(daemon, data):
    client = daemon.client()
    errors = errors_before_version(client, data + b"\n")
    assert errors
    assert all(e["desc"].startswith("JSON parse error") for e in errors)


@pytest.mark.parametrize("data, count", [
    (b'{"execute":"query-version","id":01}\n', 2),
    (b'{"a" 1}', 1),
    (b'{"execute": \x01', 1),
    (b"\x01", 1),
    (b'{"a": [1, {"b": "unfinished \x02\n', 1),
    (b"]", 1),
])
def test_number_of_errors_for_a_broken_value(daemon, data, count):
    client = daemon.client()
    assert len(errors_before_version(client, data)) == count


def test_reset_idiom_drops_unfinished_input(daemon):
    client = daemon.client()
    client.send_bytes(b'{"execute": "quit", "arguments": {"a": [')
    errors = errors_before_version(client, b"\x01")
    assert len(errors) == 1 and daemon.running()


def test_lexical_error_resynchronises_at_line_end(daemon):
    client = daemon.client()
    errors = errors_before_version(client, b"hello, this is HTTP/1.1\r\n")
    assert errors


@pytest.fixture
def deep_python():
    """For reading replies that are as deep."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.parametrize("depth, good", [(1024, True), (1025, False)])
def test_nesting_limit(daemon, deep_python, depth, good):
    client = daemon.client()
    # The command's own braces count as one level.
    nested = b"[" * (depth - 1) + b"]" * (depth - 1)
    data = b'{"execute":"query-version","id":' + nested + b"}"
    if good:
        reply = client.raw_reply(data)
        assert "return" in reply
        return
    errors = errors_before_version(client, data + b"\n")
    assert errors[0]["desc"] == "JSON nesting depth limit exceeded"


@pytest.mark.ours("takes the reference minutes")
def test_token_size_limit(daemon):
    client = daemon.client()
    block = b"x" * (1 << 20)
    client.send_bytes(b'{"execute":"')
    for _ in range(65):
        client.send_bytes(block)
    errors = errors_before_version(client, b'"}\n', limit=60)
    assert errors[0]["desc"] == "JSON token size limit exceeded"


@pytest.mark.ours("takes the reference minutes")
def test_token_count_limit(daemon):
    client = daemon.client()
    client.send_bytes(b"[" + b"0," * (1 << 20) + b"0]")
    errors = errors_before_version(client, b"\n", limit=60)
    assert errors[0]["desc"] in ("JSON token count limit exceeded",
                                 "QMP input must be a JSON object")


@pytest.mark.ours("takes the reference minutes")
def test_long_string_within_limits_is_fine(daemon):
    client = daemon.client()
    text = "y" * (4 << 20)
    reply = client.raw_reply(json.dumps({"execute": "query-version",
                                         "id": text}))
    assert reply["id"] == text


def test_garbage_does_not_end_the_monitor(daemon):
    client = daemon.client()
    for seed in range(20):
        errors_before_version(
            client, harness.random_bytes(2000, seed).replace(b"\r", b"")
            + b"\n\x01\n", limit=60)


# Several clients.

@pytest.mark.ours("the reference serves one client per socket")
def test_several_clients_are_served_at_once(daemon):
    clients = [daemon.client(negotiate=False) for _ in range(8)]
    for number, client in enumerate(clients):
        reply = client.raw_reply('{"execute":"query-version"}')
        assert reply["error"]["class"] == "CommandNotFound"
        if number % 2:
            client.cmd("qmp_capabilities")
    for number, client in enumerate(clients):
        reply = client.raw_reply('{"execute":"query-version"}')
        assert ("return" in reply) == bool(number % 2)


@pytest.mark.ours("the reference serves one client per socket")
def test_events_go_to_all_negotiated_clients(daemon):
    listening, silent = daemon.client(), daemon.client(negotiate=False)
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "n"})
    daemon.start_nbd()
    daemon.add_export("n")
    daemon.cmd("block-export-del", id="exp-n")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-n")
    event = listening.take_event("BLOCK_EXPORT_DELETED", id="exp-n")
    assert isinstance(event["timestamp"]["seconds"], int)
    assert isinstance(event["timestamp"]["microseconds"], int)
    silent.raw_reply('{"execute":"qmp_capabilities"}')
    assert silent.events == []
    with pytest.raises(TimeoutError):
        silent.read_any(limit=0.2)


@pytest.mark.ours("the reference serves one client per socket")
def test_leaving_client_does_not_disturb_others(daemon):
    for _ in range(20):
        client = daemon.client()
        client.send("query-qmp-schema")
        client.close()
    assert daemon.cmd("query-version")


@pytest.mark.ours("the reference serves one client per socket")
def test_clients_work_in_parallel(daemon):
    failures = []

    def work(number):
        try:
            with daemon.client() as client:
                for count in range(30):
                    name = f"n{number}-{count % 3}"
                    client.execute("blockdev-add", {
                        "driver": "null-co", "node-name": name})
                    client.cmd("query-named-block-nodes")
                    client.cmd("blockdev-del", node_name=name)
        except Exception as error:  # shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(harness.LIMIT)
    assert not failures, failures
    assert daemon.cmd("query-named-block-nodes") == []


def test_pipelined_replies_keep_their_order(daemon):
    client = daemon.client()
    data = b"".join(b'{"execute":"query-version","id":%d}' % i
                    for i in range(500))
    client.send_bytes(data)
    assert [client.read_message()["id"] for _ in range(500)] == list(
        range(500))


@pytest.mark.ours("the reference buffers without a limit")
def test_client_that_does_not_read_is_bounded(daemon):
    """Its input is not read any more, and others do not notice."""
    lazy = daemon.client()
    lazy.sock.setblocking(False)
    request = b'{"execute":"query-qmp-schema"}' * 1000
    stuck = False
    for _ in range(2000):
        ready = select.select([], [lazy.sock], [], 1.0)[1]
        if not ready:
            stuck = True
            break
        try:
            lazy.sock.send(request)
        except BlockingIOError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            stuck = True  # closed: a bound as well
            break
    assert stuck, "the daemon reads without end"
    with daemon.client() as other:
        assert other.cmd("query-version", _limit=5)
    status = open(f"/proc/{daemon.pid}/status", encoding="ascii").read()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))
    assert resident < 800_000, f"{resident} KiB"


# Ending.

def test_quit_answers_before_the_end(daemon):
    reply = daemon.qmp.reply(daemon.qmp.send("quit"))
    assert reply["return"] == {}
    assert daemon.qmp.at_eof()
    assert daemon.wait() == 0


def test_quit_closes_exports_with_events(daemon):
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "n"})
    daemon.start_nbd()
    daemon.add_export("n")
    daemon.cmd("quit")
    daemon.qmp.at_eof()
    names = [(e["event"], e.get("data")) for e in daemon.qmp.events]
    assert ("BLOCK_EXPORT_DELETED", {"id": "exp-n"}) in names
    assert daemon.wait() == 0


# Introspection.

def test_schema_is_closed_and_lists_all_commands(daemon):
    schema = daemon.cmd("query-qmp-schema")
    names = [entry["name"] for entry in schema]
    assert len(names) == len(set(names))
    known = set(names)
    used = set()
    for entry in schema:
        used |= {entry[k] for k in ("arg-type", "ret-type", "element-type")
                 if k in entry}
        for member in entry.get("members", []):
            used |= {member["type"]} if "type" in member else set()
        used |= {v["type"] for v in entry.get("variants", [])}
        if "tag" in entry:
            tag = [m for m in entry["members"] if m["name"] == entry["tag"]]
            assert len(tag) == 1 and "default" not in tag[0]
    assert used <= known, used - known
    commands = {e["name"] for e in schema if e["meta-type"] == "command"}
    listed = {c["name"] for c in daemon.cmd("query-commands")}
    assert listed <= commands


def test_query_commands_lists_what_is_needed(daemon):
    listed = {c["name"] for c in daemon.cmd("query-commands")}
    wanted = """query-version query-commands query-qmp-schema quit
        object-add object-del qom-list qom-get qom-set qom-list-types
        qom-list-properties blockdev-add blockdev-del blockdev-reopen
        query-named-block-nodes block_resize nbd-server-start nbd-server-add
        nbd-server-remove nbd-server-stop block-export-add block-export-del
        query-block-exports""".split()
    if not harness.IS_REFERENCE:
        wanted += "getfd closefd add-fd remove-fd query-fdsets".split()
    assert set(wanted) <= listed, set(wanted) - listed


# Pretty printing.

def test_pretty_monitor(daemons, box):
    path = box / "pretty.qmp"
    daemon = daemons("--chardev", f"socket,id=p,path={path},server=on,"
                     "wait=off", "--monitor", "chardev=p,pretty=on")
    daemon.cmd("query-version")
    client = qmp.QmpClient(path, limit=harness.LIMIT)
    client.cmd("query-version")
    text = client.raw[-1]
    assert b"\r\n    \"" in text
    assert text.count(b"\n") == text.count(b"\r\n")
    client.close()
