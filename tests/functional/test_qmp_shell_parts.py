# SPDX-License-Identifier: GPL-2.0-or-later
"""The modules of qmp-shell by themselves, without a daemon."""
import json

import pytest

import shell  # makes the modules of the shell importable
from qmpshell import complete, grammar, live, manual, render
from qmpshell.client import Splitter, parse_address
from qmpshell.errors import Offline, QmpError, SyntaxFault
from qmpshell.main import split_words
from qmpshell.schema import Schema, load_docs


def member(name, typ, optional=True):
    return {"name": name, "type": typ, **({"default": None} if optional
                                          else {})}


def obj(name, *members, **extra):
    return {"name": name, "meta-type": "object", "members": list(members),
            **extra}


ENTRIES = [
    *({"name": n, "meta-type": "builtin", "json-type": t} for n, t in (
        ("str", "string"), ("int", "int"), ("bool", "boolean"),
        ("null", "null"), ("number", "number"), ("any", "value"))),
    {"name": "add", "meta-type": "command", "arg-type": "1", "ret-type": "0"},
    {"name": "look", "meta-type": "command", "arg-type": "0",
     "ret-type": "[str]"},
    {"name": "transaction", "meta-type": "command", "arg-type": "9",
     "ret-type": "0"},
    {"name": "DONE", "meta-type": "event", "arg-type": "8"},
    obj("0"),
    obj("1", member("kind", "2", False), member("size", "int"),
        member("on", "bool"), member("ratio", "number"),
        member("any", "any"), member("file", "3"), member("bits", "[6]"),
        member("names", "[str]"), member("name", "str"),
        tag="kind", variants=[{"case": "net", "type": "4"},
                              {"case": "null", "type": "0"}]),
    {"name": "2", "meta-type": "enum", "values": ["net", "null"]},
    {"name": "3", "meta-type": "alternate",
     "members": [{"type": "1"}, {"type": "str"}, {"type": "null"}]},
    obj("4", member("addr", "5", False)),
    obj("5", member("host", "str", False), member("port", "str", False)),
    {"name": "6", "meta-type": "alternate",
     "members": [{"type": "str"}, {"type": "7"}]},
    obj("7", member("node", "str", False), member("name", "str", False)),
    obj("8", member("id", "str", False), member("len", "int", False)),
    obj("9", member("actions", "[10]", False)),
    obj("10", member("type", "11", False), tag="type",
        variants=[{"case": "clear", "type": "12"}]),
    {"name": "11", "meta-type": "enum", "values": ["clear"]},
    obj("12", member("data", "7", False)),
    *({"name": f"[{n}]", "meta-type": "array", "element-type": n}
      for n in ("str", "6", "10")),
]


@pytest.fixture
def schema():
    return Schema(ENTRIES)


def parse(schema, line):
    words = grammar.split_line(line)
    return grammar.arguments(words[1:], schema.command("add").args)


# The grammar.

@pytest.mark.parametrize("line, texts", [
    ("", []),
    ("  a   b ", ["a", "b"]),
    (r"a=x\ y b='1 \2' c=\"", ["a=x y", r"b=1 \2", 'c="']),
    (r'a="x \"y\" \\ \z"', [r'a=x "y" \ \z']),
    ('a={"x": [1, "}"]} b', ['a={"x": [1, "}"]}', "b"]),
    ("a={'it': 'has a ] \\' in it'} b", ["a={'it': 'has a ] \\' in it'}",
                                         "b"]),
    ("a=b={ c", ["a=b={", "c"]),
    ("a.b=", ["a.b="]),
])
def test_words(line, texts):
    words = grammar.split_line(line)
    assert [w.text for w in words] == texts
    assert all(w.closed for w in words)


@pytest.mark.parametrize("line", ["a='x", 'a="x', 'a={"x": 1', "a=[1, '"])
def test_open_quote_is_told(line, schema):
    with pytest.raises(SyntaxFault, match="column 5: .* not closed"):
        parse(schema, "add " + line)


@pytest.mark.parametrize("words, value", [
    ("size=1", {"size": 1}),
    ("size=-0x10", {"size": -16}),
    ("size=1.5K", {"size": 1536}),
    ("size=2GiB", {"size": 2 << 30}),
    ("size=1.0001k", {"size": "1.0001k"}),
    ("size=many", {"size": "many"}),
    ("size='1'", {"size": "1"}),
    ("on=on", {"on": True}),
    ("on=no", {"on": False}),
    ("on=maybe", {"on": "maybe"}),
    ("ratio=0.5", {"ratio": 0.5}),
    ("ratio=2", {"ratio": 2}),
    ("name=123", {"name": "123"}),
    ("name=true", {"name": "true"}),
    ("name={x} kind=net", {"name": "{x}", "kind": "net"}),
    ("kind=net addr.port=80 addr.host=h",
     {"kind": "net", "addr": {"port": "80", "host": "h"}}),
    ("addr.port=80", {"addr": {"port": 80}}),       # a branch not chosen
    ("file=null", {"file": None}),
    ("file='null'", {"file": "null"}),
    ("file=node", {"file": "node"}),
    ("file.kind=net file.addr.port=1",
     {"file": {"kind": "net", "addr": {"port": "1"}}}),
    ('file={"kind": "net"}', {"file": {"kind": "net"}}),
    ("names=a,b", {"names": ["a", "b"]}),
    ("names=", {"names": []}),
    ("names=[]", {"names": []}),
    ("names.1=b names.0=1", {"names": ["1", "b"]}),
    ("bits=a bits2=1", {"bits": ["a"], "bits2": 1}),
    ("bits.0=a bits.1.node=n bits.1.name=2",
     {"bits": ["a", {"node": "n", "name": "2"}]}),
    ("any=1", {"any": 1}),
    ("any=TRUE", {"any": True}),
    ("any=x1", {"any": "x1"}),
    ("any.a.0=1", {"any": {"a": [1]}}),
    ("any={'a': True, \"b\": [None, 1.5]}", {"any": {"a": True,
                                                     "b": [None, 1.5]}}),
    ("any={'a': true, 'b': null}", {"any": {"a": True, "b": None}}),
    ("unknown=false", {"unknown": False}),
])
def test_values_follow_their_types(words, value, schema):
    found = parse(schema, "add " + words)
    assert found == value
    assert json.dumps(found) == json.dumps(value)  # True is not 1


@pytest.mark.parametrize("words, message", [
    ("lonely", "expected NAME=VALUE, not 'lonely'"),
    ("=x", "expected NAME=VALUE"),
    ("a=1 a=2", "'a' is given twice"),
    ("a=1 a.b=2", "'a' has a value already"),
    ("a.b=1 a=2", "'a' is given twice"),
    ("a..b=1", "a name between dots is missing"),
    ("a.=1", "a name between dots is missing"),
    ("names.1=a", "must be 0, 1, 2"),
    ("any={1:", "not closed"),
    ("any={x}", "neither JSON nor a Python value"),
    ("any=[NaN]", "neither JSON nor a Python value"),
    ("any={'a': b'bytes'}", "neither JSON nor a Python value"),
    ("any=[__import__('os')]", "neither JSON nor a Python value"),
    pytest.param("any=" + "[" * 5000 + "]" * 5000,
                 "neither JSON nor a Python value", id="deep"),
])
def test_what_cannot_be_understood(words, message, schema):
    with pytest.raises(SyntaxFault, match=message):
        parse(schema, "add " + words)


def test_huge_number_is_left_to_the_daemon(schema):
    assert parse(schema, "add size=" + "9" * 100000) == {"size": "9" * 100000}


def test_raw_messages():
    assert grammar.raw_request("{'execute': 'x', 'id': 7}") == {
        "execute": "x"}
    with pytest.raises(SyntaxFault):
        grammar.raw_request('{"arguments": {}}')


@pytest.mark.parametrize("line, unfinished", [
    ('{"execute": "add",', True),
    ('  {"execute": "add", "arguments": {"name": "}', True),
    ('{"execute": "look"}', False),
    ("{]", False),
    ('add names=["a",', True),
    ('add names=["a", "b"]', False),
    ("add names=[ name=x", True),
    ("add name=x{", False),
    ("add name='[", False),
    ('add name="x', False),
    ("# {", False),
    ("transaction(", False),
    ("", False),
])
def test_lines_go_on_inside_of_brackets(line, unfinished):
    assert grammar.is_unfinished(line) == unfinished


@pytest.mark.parametrize("line, secret", [
    ("object-add qom-type=secret id=s data=x", True),
    ("object-add data=x id=s qom-type=secret", True),
    ("object-ad qom-type=secret data = x", True),
    ('{"execute":"object-add","arguments":{"qom-type":"secret","data":"x"}}',
     True),
    ("set_password protocol=vnc password=x", True),
    ("object-add qom-type=secret id=s file=/x", False),
    ("nbd-server-start addr.type=unix addr.data.path=/secret", False),
    ("object-add qom-type=tls-creds-x509 passwordid=s dir=/x", False),
])
def test_lines_with_secrets_are_known(line, secret):
    assert grammar.has_secret(line) is secret


def test_secrets_are_masked():
    assert grammar.mask({"arguments": [{"qom-type": "secret", "data": "x",
                                        "id": "s"}], "password": "y"}) == {
        "arguments": [{"qom-type": "secret", "data": "***", "id": "s"}],
        "password": "***"}


# Completion.

def completions(schema, before, after="", names=()):
    found = live.Live(lambda command, arguments: None)
    found.names = lambda kind, given: list(names)
    completer = complete.Completer(
        lambda: schema, found, {"help": (complete.COMMAND, ""),
                                "watch": (complete.QUERY, ""),
                                "wait": (complete.EVENT, "")})
    start, candidates = completer.complete(before, after)
    return [before[:start] + c.text for c in candidates]


@pytest.mark.parametrize("before, after, wanted", [
    ("a", "", ["add "]),
    ("h", "", ["help "]),
    ("help l", "", ["help look "]),
    ("help w", "", ["help wait ", "help watch "]),
    ("transaction actions.0.type=clear actions.0.data.n", "", [
        "transaction actions.0.type=clear actions.0.data.name=",
        "transaction actions.0.type=clear actions.0.data.node="]),
    ("wait ", "", ["wait DONE "]),
    ("wait DONE i", "", ["wait DONE id="]),
    ("watch -n 2 lo", "", ["watch -n 2 look "]),
    ("add s", "", ["add size="]),
    ("add size=1 s", "", []),
    ("add k", " kind=net", []),
    ("add a", "", ["add any="]),
    ("add kind=net a", "", ["add kind=net addr.", "add kind=net any="]),
    ("add a", " kind=net", ["add addr.", "add any="]),
    ("add kind=net addr.", "", ["add kind=net addr.host=",
                                "add kind=net addr.port="]),
    ("add kind=net addr.host=a addr.", "", [
        "add kind=net addr.host=a addr.port="]),
    ("add kind=", "", ["add kind=net ", "add kind=null "]),
    ("add on=", "", ["add on=false ", "add on=true "]),
    ("add on=o", "", ["add on=off ", "add on=on "]),
    ("add file", "", ["add file.", "add file="]),
    ("add file=", "", ["add file=null "]),
    ("add file.kind=net file.a", "", ["add file.kind=net file.addr.",
                                      "add file.kind=net file.any="]),
    ("add file.file.k", "", ["add file.file.kind="]),
    ("add bits.", "", ["add bits.0.", "add bits.0="]),
    ("add bits.0=a bits.", "", ["add bits.0=a bits.1.",
                                "add bits.0=a bits.1="]),
    ("add bits.0.n", "", ["add bits.0.name=", "add bits.0.node="]),
    ("transaction( cl", "", ["transaction( clear "]),
    ("transaction( clear n", "", ["transaction( clear name=",
                                  "transaction( clear node="]),
    ("add nosuch.", "", []),
    ("nosuch a", "", []),
    ("add size.x", "", []),
    ("add 'k", "", ["add kind="]),
])
def test_completion(before, after, wanted, schema):
    assert completions(schema, before, after) == wanted


def test_live_names_and_blanks_complete(schema):
    names = [("disk 0", "raw"), ("disk1", "")]
    assert completions(schema, "add file=disk", names=names) == [
        "add file=disk1 ", r"add file=disk\ 0 "]
    assert completions(schema, r"add file=disk\ ", names=names) == [
        r"add file=disk\ 0 "]
    assert completions(schema, "add bits=a,", names=names) == [
        "add bits=a,disk1 ", r"add bits=a,disk\ 0 "]


def test_file_names_complete(tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "disk").touch()
    (tmp_path / ".hidden").touch()
    found = [path for path, _ in live.file_names(f"{tmp_path}/")]
    assert found == [f"{tmp_path}/dir/", f"{tmp_path}/disk"]
    assert live.file_names(f"{tmp_path}/.h") == [(f"{tmp_path}/.hidden", "")]
    assert live.file_names("/nonexistent/x") == []


def test_names_from_an_odd_daemon_are_left_out():
    for answer in (None, {}, [1], [{}], "x", [{"node-name": None}]):
        names = live.Live(lambda command, arguments, answer=answer: answer)
        for kind in ("node", "bitmap", "job", "export", "object:x",
                     "chardev", "fdset", "property", "qom"):
            names.names(kind, {})


# Documentation.

def test_documentation_is_made_in_the_source_tree():
    docs = load_docs(str(shell.SCRIPTS / "qmpshell"))
    assert docs["commands"]["quit"]["doc"]
    assert docs["types"]["SocketAddressType"]["values"]["unix"]["doc"]
    assert load_docs("/nonexistent/share/qmpshell") is None


@pytest.mark.parametrize("entries", [
    {}, [1], [{}], [{"name": "x"}], [{"name": "x", "meta-type": "command"}],
    [{"name": "x", "meta-type": "object", "members": [{"name": "y"}]}],
    [obj("x", tag="y")], [obj("x", tag=1, variants=[])],
    [{"name": "x", "meta-type": "array", "element-type": 1}],
])
def test_odd_introspection_is_refused(entries):
    with pytest.raises(ValueError):
        Schema(entries)


# Hints.

def hints(schema, command, arguments, desc="refused"):
    names = live.Live(lambda *_: None)
    names.names = lambda kind, given: [("disk0", "")]
    return manual.Explainer(schema, names).hints(
        {"execute": command, "arguments": arguments}, QmpError(
            {"class": "GenericError", "desc": desc}))


@pytest.mark.parametrize("command, arguments, wanted", [
    ("ad", {}, "did you mean add"),
    ("zzz", {}, "'help' lists the commands"),
    ("add", {}, "missing: kind=net|null"),
    ("add", {"kind": "net"}, "missing: addr.host=string"),
    ("add", {"kind": "ne", "addr": {}}, "kind is one of: net, null "
     "(did you mean net?)"),
    ("add", {"kind": "null", "sise": 1},
     "there is no 'sise' here: did you mean size?"),
    ("look", {"x": 1}, "known are no arguments"),
    ("add", {"kind": "null", "size": "many"}, 'size is an integer, not '
     '"many"'),
    ("add", {"kind": "null", "on": 1}, "on is a boolean, not 1"),
    ("add", {"kind": "null", "names": ["a", 1]}, "names.1 is a string"),
    ("add", {"kind": "null", "file": {"kind": "x"}}, "file.kind is one of"),
    ("add", {"kind": "null", "file": 5}, "file is an object, not 5"),
    ("add", {"kind": "null", "file": "nope"},
     "file: there is no node 'nope', but disk0"),
])
def test_errors_are_explained(command, arguments, wanted, schema):
    found = hints(schema, command, arguments, "no 'nope'")
    assert any(wanted in hint for hint in found), found


def test_nothing_is_made_up(schema):
    assert hints(schema, "add", {"kind": "null", "file": "disk0"},
                 "disk0 is busy") == []


def test_errors_inside_transactions_are_explained(schema):
    arguments = {"actions": [{"type": "clear", "data": {
        "node": "disk7", "name": "b0"}}]}
    assert hints(schema, "transaction", arguments, "no node 'disk7'") == [
        "node: there is no node 'disk7', but disk0"]
    arguments["actions"][0]["data"].pop("name")
    assert hints(schema, "transaction", arguments) == [
        "missing: actions.0.data.name=string"]


# The stream.

def test_messages_are_split_anywhere():
    messages = [{"return": {}}, {"a": '}]["\\'}, {"b": [{"c": "é"}]}]
    text = "\r\n".join(json.dumps(m, indent=1, ensure_ascii=False)
                       for m in messages).encode()
    for step in (1, 2, 7, len(text)):
        splitter = Splitter()
        found = []
        for start in range(0, len(text), step):
            found += splitter.feed(text[start:start + step])
        assert found == messages


@pytest.mark.parametrize("data", [b"[1]", b"}", b'{"a" 1}',
                                  b"[" * 100000 + b"]" * 100000])
def test_what_is_not_qmp_ends_the_connection(data):
    with pytest.raises(Offline):
        Splitter().feed(data)


def test_addresses():
    assert parse_address("/x/y:1")[1] == "/x/y:1"
    assert parse_address("unix:a:1")[1] == "a:1"
    assert parse_address("@name")[1] == "\0name"
    assert parse_address("host:1")[1] == ("host", "1")
    assert parse_address("[::1]:44")[1] == ("::1", "44")
    assert parse_address(":44")[1] == ("localhost", "44")


# Output.

def test_output_cannot_control_a_terminal():
    evil = "a\x1b[2J\x9b\r\u202e"
    for text in (render.table("x", [{"name": evil}], 200),
                 render.result("x", evil, "compact", 80),
                 render.event_line({"event": evil, "data": {evil: evil}},
                                   "table")):
        assert all(c.isprintable() or c == "\n" for c in text), repr(text)


def test_tables_show_what_there_is():
    rows = [{"id": "j0", "type": "mirror", "status": "running",
             "current-progress": 1, "total-progress": 8}]
    assert render.table("query-jobs", rows, 80).split("\n") == [
        "JOB  TYPE    STATUS    DONE", "j0   mirror  running  12.5%"]
    assert render.table("query-jobs", [], 80) == "(none)"
    assert render.table("x", {}, 80) == "ok"
    assert render.table("x", [{"a": {"b": 1}}], 80) == "A.B\n  1"
    assert render.table("x", [{"a": [1]}], 80) is None
    assert render.table("x", [{"a": "long" * 30}], 80) is None
    assert render.table("x", {"a": 1, "bc": True}, 80) == "a   1\nbc  yes"


def test_times_for_people():
    assert [render.duration(n) for n in (0, 999, 1024, 2_500_000, 3 << 30,
                                         None)] == [
        "0 ns", "999 ns", "1.02 us", "2.5 ms", "3.22 s", ""]
    latency = {"boundaries": [1024, 2048, 4096], "bins": [0, 98, 1, 1]}
    row = {"requests": {"read": {"latency": latency}}}
    for share, end in ((0.5, 2048), (0.98, 2048), (0.99, 4096),
                       (1, float("inf"))):
        assert render.quantile("requests", share)(row) == end
    row["requests"]["write"] = {"latency": {"boundaries": [512],
                                            "bins": [100, 0]}}
    assert render.quantile("requests", 0.5)(row) == 512
    for odd in ({}, {"requests": {}}, {"requests": {"read": {}}},
                {"requests": {"read": {"latency": {"boundaries": [],
                                                   "bins": []}}}}):
        assert render.quantile("requests", 0.5)(odd) is None
    assert render.below(float("inf")) == "longer"


def test_connections_complete():
    known = {"query-nbd-clients": [
        {"connection": 7, "peer": "192.0.2.1:5", "export-id": "e0"},
        {"connection": 12, "peer": "unix pid 3", "state": "negotiating"}]}
    found = live.Live(lambda command, arguments: known.get(command))
    assert live.kinds_of("nbd-client-drop", "connection") == ["connection"]
    assert live.kinds_of("query-nbd-clients", "export-id") == ["export"]
    assert found.names("connection", {}) == [
        ("12", "unix pid 3, negotiating"), ("7", "192.0.2.1:5, uses e0")]


def test_listeners_complete():
    known = {"query-nbd-server": {"running": True, "listeners": [
        {"clients": 3}, {"id": "net", "clients": 1}]}}
    found = live.Live(lambda command, arguments: known.get(command))
    assert live.kinds_of("nbd-server-remove-listener", "id") == ["listener"]
    assert live.kinds_of("nbd-server-add-listener", "id") == []
    assert found.names("listener", {}) == [("net", "1 clients")]
    known["query-nbd-server"] = {"running": False}
    assert found.names("listener", {}) == []


def test_tables_of_odd_replies():
    for command in render.TABLES:
        for value in ([1], [None], "x", 3, {"a": []}, [{}], [[]]):
            render.result(command, value, "table", 80)


@pytest.mark.parametrize("value, text", [
    (0, "0"), (1023, "1023"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"),
    (-2048, "-2 KiB"), (1 << 63, "8 EiB"), ("x", "x")])
def test_sizes(value, text):
    assert render.size(value) == text


@pytest.mark.parametrize("words, address", [
    (["query-jobs"], None), (["job-cancel id=m0"], None),
    (["/tmp/a b", "query-jobs"], "/tmp/a b"), (["q.sock", "x"], "q.sock"),
    (["localhost:1", "x"], "localhost:1"), (["{'execute':", "1}"], None)])
def test_first_word_is_an_address_or_begins_a_command(words, address):
    assert split_words(words) == (
        address, words if address is None else words[1:])
