# SPDX-License-Identifier: GPL-2.0-or-later
"""The schema generator on broken schemas: each must stop it with one line that
says where the mistake is. And what it writes for small good ones."""
import json
import pathlib
import re
import subprocess
import sys

import pytest

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
sys.dont_write_bytecode = True

import schema_emit  # noqa: E402
import schema_model  # noqa: E402

ENUM = {"enum": "E", "doc": "d", "values": {"a": "d", "b-c": "d"}}
STRUCT = {"struct": "S", "doc": "d",
          "members": {"x": {"type": "int", "doc": "d"}}}


def member(typ, **more):
    return {"type": typ, "doc": "d", **more}


def command(args=None, **more):
    return {"command": "c", "doc": "d", "since": "1", "args": args or {},
            **more}


def struct(name="S", **members):
    return {"struct": name, "doc": "d", "members": members}


def union(**more):
    return {"union": "U", "doc": "d", "tag": "t",
            "members": {"t": member("E")}, "cases": {"a": "S"}, **more}


def load(tmp_path, *definitions):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(list(definitions)))
    return schema_model.Schema([path])


BROKEN = [
    ([struct(), {"struct": "S", "doc": "d", "enum": "S"}],
     "x.json: definition 2: must have exactly one of enum, struct, union, "
     "alternate, command, event"),
    ([5], "x.json: definition 1: must be an object"),
    ([{"struct": "s", "doc": "d"}],
     "x.json: struct 's': bad type name 's': must be CamelCase"),
    ([{"command": "Quit", "doc": "d"}],
     "x.json: command 'Quit': bad command name 'Quit': must be lower-case"),
    ([{"event": "quit", "doc": "d"}],
     "x.json: event 'quit': bad event name 'quit': must be UPPER_CASE"),
    ([{"struct": "S"}], "x.json: struct 'S': lacks a doc"),
    ([struct(), struct()], "x.json: struct 'S': is defined twice"),
    ([command(), command()], "x.json: command 'c': is defined twice"),
    ([{**STRUCT, "colour": 1}], "x.json: struct 'S': unknown key 'colour'"),
    ([struct("FooList")],
     "x.json: struct 'FooList': names that end in 'List' are kept for arrays"),
    ([struct(x={"type": "int"})],
     "x.json: struct 'S': member 'x': lacks a doc"),
    ([struct(x={"doc": "d"})],
     "x.json: struct 'S': member 'x': lacks a type"),
    ([struct(x=member("nope"))],
     "x.json: struct 'S': member 'x': unknown type 'nope'"),
    ([struct(x=member(["int", "str"]))],
     "x.json: struct 'S': member 'x': an array type is a list of one type "
     "name"),
    ([struct(x=member(["secret"]))],
     "x.json: struct 'S': member 'x': no arrays of 'secret'"),
    ([struct(x=member("null"))],
     "x.json: struct 'S': member 'x': 'null' is for alternates only"),
    ([struct(x=member("int", size=4))],
     "x.json: struct 'S': member 'x': unknown key 'size'"),
    ([struct(x=member("int", default=1, optional=True))],
     "x.json: struct 'S': member 'x': has both default and optional"),
    ([struct(has_x=member("int"))],
     "x.json: struct 'S': member 'has_x': the name is kept for generated "
     "code"),
    ([struct(X=member("int"))],
     "x.json: struct 'S': bad member name 'X': must be lower-case"),
    ([struct(x=member("int", deprecated="gone"))],
     "x.json: struct 'S': member 'x': deprecated must read 'use ...'"),
    ([command({"x": member("uint8", default=256)})],
     "x.json: command 'c': member 'x': 256 is not a default that type "
     "'uint8' can have"),
    ([command({"x": member("size", default=-1)})],
     "x.json: command 'c': member 'x': -1 is not a default that type 'size' "
     "can have"),
    ([command({"x": member("bool", default=1)})],
     "x.json: command 'c': member 'x': 1 is not a default that type 'bool' "
     "can have"),
    ([ENUM, command({"x": member("E", default="z")})],
     "x.json: command 'c': member 'x': \"z\" is not a default that type 'E' "
     "can have"),
    ([STRUCT, command({"x": member("S", default="z")})],
     "x.json: command 'c': member 'x': \"z\" is not a default that type 'S' "
     "can have"),
    ([command({"x-y": member("int"), "x_y": member("int")})],
     "x.json: command 'c': member 'x_y' appears twice"),
    ([STRUCT, {**struct("T", x=member("int")), "base": "S"}],
     "x.json: struct 'T': member 'x' appears twice"),
    ([{**STRUCT, "base": "S"}],
     "x.json: struct 'S': has itself as a base, through 'S'"),
    ([ENUM, {**STRUCT, "base": "E"}],
     "x.json: struct 'S': base must be a struct"),
    ([{"enum": "E", "doc": "d", "values": {}}],
     "x.json: enum 'E': values must be an object that is not empty"),
    ([{"enum": "E", "doc": "d", "values": {"a b": "d"}}],
     "x.json: enum 'E': bad value name 'a b': must be lower-case"),
    ([{"enum": "E", "doc": "d", "values": {"a": ""}}],
     "x.json: enum 'E': value 'a': lacks a doc"),
    ([ENUM, STRUCT, union(tag="z")],
     "x.json: union 'U': tag 'z' is not a member"),
    ([ENUM, STRUCT, union(members={"t": member("E", optional=True)})],
     "x.json: union 'U': tag 't' must be a mandatory enum"),
    ([ENUM, STRUCT, union(cases={"z": "S"})],
     "x.json: union 'U': case 'z' is not a value of 'E'"),
    ([ENUM, union(cases={"a": "E"})],
     "x.json: union 'U': case 'a': must be a struct"),
    ([ENUM, struct(t=member("int")), union()],
     "x.json: union 'U': case 'a': member 't' is also a member of the union"),
    ([{"alternate": "A", "doc": "d", "choices": ["int", "size"]}],
     "x.json: alternate 'A': choice 'size' cannot be told apart from 'int'"),
    ([{"alternate": "A", "doc": "d", "choices": ["int"]}],
     "x.json: alternate 'A': choices must be an array of two types or more"),
    ([command("int")],
     "x.json: command 'c': args must name a struct or a union"),
    ([command(returns="Nope")],
     "x.json: command 'c': returns: unknown type 'Nope'"),
    ([{"command": "c", "doc": "d"}], "x.json: command 'c': lacks since"),
    ([command(errors="x")],
     "x.json: command 'c': errors must be an array of phrases"),
    ([struct("CArgs"), command({"x": member("int")})],
     "x.json: command 'c': type 'CArgs' is in the way"),
    ([{"event": "E", "doc": "d", "since": "1", "rate-key": "x"}],
     "x.json: event 'E': rate-key 'x' is not a str or enum argument"),
    ([STRUCT],
     "x.json: struct 'S': is not used by any command, event or option"),
]


@pytest.mark.parametrize("definitions, message", BROKEN,
                         ids=[m for _, m in BROKEN])
def test_says_what_is_wrong(tmp_path, definitions, message):
    with pytest.raises(schema_model.SchemaError) as caught:
        load(tmp_path, *definitions)
    assert str(caught.value) == message


def test_broken_json_is_located(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[\n { "enum": }\n]')
    with pytest.raises(schema_model.SchemaError, match="x.json:2:12: "):
        schema_model.Schema([path])


def test_duplicate_key_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[ { "enum": "A", "enum": "B" } ]')
    with pytest.raises(schema_model.SchemaError,
                       match="x.json: key 'enum' appears twice"):
        schema_model.Schema([path])


def test_program_reports_in_one_line(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    done = subprocess.run(
        [sys.executable, "-B", SCRIPTS / "schema-gen.py", "types", tmp_path,
         path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == \
        "schema-gen: x.json: must be an array of definitions\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name, text", [
    ("NbdServerStartArgs", "nbd_server_start_args"),
    ("TlsCredsX509Properties", "tls_creds_x509_properties"),
    ("QMPCapability", "qmp_capability"),
    ("QCryptoTLSCredsEndpoint", "qcrypto_tls_creds_endpoint"),
    ("JSONType", "json_type"),
])
def test_names_in_c(name, text):
    assert schema_emit.snake(name) == text


def test_reserved_words_get_an_underscore():
    assert schema_emit.c_name("short") == "short_"
    assert schema_emit.c_name("errno") == "errno_"
    assert schema_emit.c_name("node-name") == "node_name"


def test_introspection_has_qemus_form(tmp_path):
    schema = load(
        tmp_path, ENUM, STRUCT, union(),
        {"alternate": "A", "doc": "d", "choices": ["U", "str"]},
        command({"a": member("A"), "l": member(["size"], optional=True),
                 "o": member("bool", default=True, features=["unstable"])},
                **{"allow-oob": True, "deprecated": "use d"}))
    entries = {e["name"]: e for e in schema_emit.Introspection(schema).entries}
    assert entries["c"] == {
        "name": "c", "meta-type": "command", "features": ["deprecated"],
        "arg-type": "1", "ret-type": "0", "allow-oob": True}
    assert entries["0"] == {"name": "0", "meta-type": "object", "members": []}
    assert entries["1"]["members"] == [
        {"name": "a", "type": "2"},
        {"name": "l", "type": "[int]", "default": None},
        {"name": "o", "type": "bool", "default": None,
         "features": ["unstable"]}]
    assert entries["[int]"]["element-type"] == "int"
    assert entries["2"] == {"name": "2", "meta-type": "alternate",
                            "members": [{"type": "3"}, {"type": "str"}]}
    assert entries["3"]["tag"] == "t"
    assert entries["3"]["variants"] == [{"case": "a", "type": "5"},
                                        {"case": "b-c", "type": "0"}]
    assert entries["4"] == {"name": "4", "meta-type": "enum",
                            "members": [{"name": "a"}, {"name": "b-c"}],
                            "values": ["a", "b-c"]}
    assert entries["int"] == {"name": "int", "meta-type": "builtin",
                              "json-type": "int"}


def test_prototypes(tmp_path):
    schema = load(tmp_path, STRUCT,
                  command({"id": member("str")}, returns=["S"]),
                  {"event": "GONE", "doc": "d", "since": "1",
                   "args": {"id": member("str"),
                            "n": member("int", optional=True)}})
    files = schema_emit.qmp(schema)
    assert ("bool bf_qmp_co_c(BfQmpCall *call, const BfCArgs *args, "
            "BfSList **ret_value, GError **error);") in \
        " ".join(files["gen-commands.h"].split())
    assert ("json_t *bf_event_build_gone(const char *id, bool has_n, "
            "int64_t n);") in files["gen-events.h"]
    assert "### GONE" in files["qmp-reference.md"]


def test_nothing_is_newer_than_the_program():
    root = SCRIPTS.parent
    version = re.search(r"^  version: '([0-9.]+)'",
                        (root / "meson.build").read_text(), re.M)[1]
    schema = schema_model.Schema(sorted((root / "schema").glob("*.json")))
    numbers = [int(part) for part in version.split(".")]
    assert not [item.name for item in [*schema.commands, *schema.events]
                if [int(part) for part in item.since.split(".")] > numbers]
