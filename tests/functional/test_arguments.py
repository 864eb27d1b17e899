# SPDX-License-Identifier: GPL-2.0-or-later
"""Wrong arguments of every command, made from what the daemon tells of itself.

What is right is tested by hand, which is checked here as well.
"""
import ast
import json
import pathlib
import re

import pytest

import harness
import qmp
from misuse import UNKNOWN, Misuses
from qapi import Schema

TESTS = pathlib.Path(__file__).resolve().parent.parent
BATCH = 200  # requests under way at once
FORM = re.compile("Invalid parameter type|Parameter '.*' (is missing|is unex|"
                  "does not accept)")
SPARED = {"quit"}  # with the fewest arguments

pytestmark = pytest.mark.ours("it names less, and some commands are ours")


@pytest.fixture
def schema(daemon):
    return Schema(daemon.cmd("query-qmp-schema"))


def replies(client, requests):
    """Yields (misuse, reply)."""
    for at in range(0, len(requests), BATCH):
        part = requests[at:at + BATCH]
        first = client.last_id + 1
        for command, misuse in part:
            client.send(command, misuse.arguments)
        for number, (command, misuse) in enumerate(part, first):
            yield command, misuse, client.reply(number)


def complaints(command, misuse, reply):
    """What is wrong with the answer to a wrong argument."""
    text = f"{command} {json.dumps(misuse.arguments)}: {misuse.kind} " \
        f"{misuse.name}: "
    if "error" not in reply:
        yield text + "accepted"
    elif reply["error"]["class"] != "GenericError" or \
            f"'{misuse.name}'" not in reply["error"]["desc"]:
        yield text + str(reply["error"])


@pytest.mark.parametrize("kind", ("type", "value", "missing", "unknown"))
def test_wrong_argument_is_refused_by_name(daemon, schema, kind):
    misuses = Misuses(schema)
    requests = [(command["name"], misuse)
                for command in daemon.cmd("query-commands")
                for misuse in misuses.of(command["name"])
                if misuse.kind == kind]
    found = [text for triple in replies(daemon.client(), requests)
             for text in complaints(*triple)]
    assert not found, f"{len(found)} of {len(requests)}:\n" + "\n".join(
        found[:30])


def test_wrong_arguments_are_made_for_every_command(daemon, schema):
    """What the test above stands on finds nested and repeated things."""
    made = {(command["name"], misuse.kind, misuse.name)
            for command in daemon.cmd("query-commands")
            for misuse in Misuses(schema).of(command["name"])}
    for command in daemon.cmd("query-commands"):
        assert (command["name"], "unknown", UNKNOWN) in made
    assert {("nbd-server-start", "missing", "addr.data.path"),
            ("nbd-server-start", "type", "max-connections"),
            ("object-add", "value", "policy"),
            ("object-add", "missing", "rules[0].match"),
            ("blockdev-add", "type", "cache.direct"),
            ("blockdev-add", "unknown", f"cache.{UNKNOWN}"),
            ("blockdev-reopen", "type", "options[0].read-only"),
            ("transaction", "missing", "actions[0].data.node")} <= made


def test_fewest_arguments_have_the_right_form(daemons, schema):
    """They name things that do not exist; that is all that is wrong."""
    daemon = daemons()
    for command in daemon.cmd("query-commands"):
        if command["name"] in SPARED:
            continue
        for arguments in Misuses(schema).smallest_uses(command["name"]):
            try:
                daemon.execute(command["name"], arguments)
            except qmp.QmpError as error:
                assert not FORM.match(error.desc), (command, arguments, error)


# What stands beside the code.

def test_every_command_and_event_is_documented(daemon, schema):
    """In the schema's files, as in the reference that is made from them."""
    docs = {}
    for path in (TESTS.parent / "schema").glob("*.json"):
        for entry in json.loads(path.read_text()):
            for kind in ("command", "event"):
                if kind in entry:
                    docs[kind, entry[kind]] = entry
    told = {(entry["meta-type"], entry["name"]): entry
            for entry in schema.types.values()
            if entry["meta-type"] in ("command", "event")}
    assert set(told) == set(docs)
    reference = (harness.BUILD / "qmp/qmp-reference.md").read_text()
    for (kind, name), entry in docs.items():
        assert f"### {name}\n\n{entry['doc']}\n" in reference
        members = schema.types[told[kind, name]["arg-type"]]["members"]
        for member in members if isinstance(entry.get("args"), dict) else ():
            assert entry["args"][member["name"]]["doc"], (name, member)


def words_of_tests():
    """All whole string constants in tests that someone has written."""
    words = set()
    for path in [*TESTS.glob("functional/*.py"), *TESTS.glob("interop/*.py")]:
        if path.name != pathlib.Path(__file__).name:
            words |= {node.value for node in ast.walk(ast.parse(
                path.read_text())) if isinstance(node, ast.Constant)
                and isinstance(node.value, str)}
    return words


def test_every_command_and_event_has_a_test(schema):
    names = {entry["name"] for entry in schema.types.values()
             if entry["meta-type"] in ("command", "event")}
    missing = names - words_of_tests()
    assert not missing, f"no test names {sorted(missing)}"
