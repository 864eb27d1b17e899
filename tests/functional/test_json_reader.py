# SPDX-License-Identifier: GPL-2.0-or-later
"""Texts, right and wrong ones, read by the daemon and by a second reader.

Both must find the same values and the same errors in the same order; values
come back as the id of a reply. BLOCKFERRY_SEED repeats a run, and
BLOCKFERRY_TEXTS says how many texts there are.
"""
import json
import os
import random

import pytest

import harness
from jsonref import Noise, Reader

TEXTS = int(os.environ.get("BLOCKFERRY_TEXTS", 2000))
BATCH = 40  # texts under way at once
COMMAND = b'{"execute":"query-version","id":'
# Ends what a text may have left open, and costs one error.
RESET = b"\x01\n"


def alike(one, other):
    """Equality that tells booleans from numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def fits(outcome, reply):
    """Is that the reply to what the second reader found?"""
    kind, value = outcome
    is_parse_error = reply.get("error", {}).get("desc", "").startswith(
        "JSON parse error, ")
    if kind == "error":
        return is_parse_error and "id" not in reply
    if is_parse_error:
        return False
    if not isinstance(value, dict):
        return reply["error"]["desc"] == "QMP input must be a JSON object"
    if ("id" in value) != ("id" in reply) or not alike(
            value.get("id"), reply.get("id")):
        return False
    return value.keys() - {"id"} != {"execute"} or \
        value["execute"] != "query-version" or "return" in reply


def frames(source):
    """What is sent for each text, ended by a command that marks its end."""
    noise = Noise(source)
    for number in range(TEXTS):
        text = noise.text()
        if source.random() < 0.8:
            text = COMMAND + text + b"}"
        yield text + RESET + COMMAND + b'"text %d"}' % number


def test_both_readers_agree(daemon):
    source = random.Random(harness.seed())
    client, reader = daemon.client(), Reader()
    todo, kinds = list(frames(source)), {"value": 0, "error": 0}
    for at in range(0, len(todo), BATCH):
        batch = [(data, reader.feed(data)) for data in todo[at:at + BATCH]]
        client.send_bytes(b"".join(data for data, _ in batch))
        for data, outcomes in batch:
            for number, outcome in enumerate(outcomes):
                reply = client.read_message()
                assert fits(outcome, reply), (data, number, outcome, reply)
                kinds[outcome[0]] += 1
    # Beyond the commands that mark ends, and their resets.
    assert min(kinds.values()) > TEXTS * 1.3, kinds


def listed(part, count, brackets="[]"):
    return brackets[0] + ", ".join(
        part(n) for n in range(count)) + brackets[1]


# Each above 256 KiB.
LARGE = {
    "string": '"' + "0123456789abcdef" * 20000 + '"',
    "escapes": '"' + r"\n\u00e9\ud83d\ude00\"\\\u0001" * 12000 + '"',
    "other letters": '"' + "\u00e9\u20ac\U0001f600'" * 30000 + '"',
    "digits": listed(lambda n: str(n % 10), 120000),
    "integers": listed(lambda n: str((-1) ** n * (n ** 4 % 2 ** 63)), 25000),
    "large integers": listed(lambda n: str(2 ** 64 - 1 - n), 15000),
    "fractions": listed(lambda n: f"{n}.{n}", 30000),
    "exponents": listed(lambda n: f"-{n}.5e{n % 40 - 20}", 30000),
    "words": listed(lambda n: ("true", "false", "null")[n % 3], 60000),
    "short strings": listed(lambda n: f'"{n % 77}"', 60000),
    "strings with escapes": listed(lambda n: rf'"\n{n}\u00e9"', 30000),
    "empty arrays": listed(lambda n: "[]", 80000),
    "empty objects": listed(lambda n: "{}", 80000),
    "objects": listed(lambda n: f'{{"a": {n}, "b c": ["x", {{}}]}}', 15000),
    "members": listed(lambda n: f'"key {n}": {n}', 25000, "{}"),
    "levels": "[" * 200 + '{"a": [' + "1, " * 100000 + "2]}" + "]" * 200,
    "spaces": "[" + " \n\t\r" * 80000 + "1" + " " * 9999 + "]",
}


@pytest.mark.parametrize("quote", ('"', "'"), ids=("double", "single"))
@pytest.mark.parametrize("kind", LARGE)
def test_large_values_come_back(daemon, kind, quote):
    text = LARGE[kind]
    if quote == "'":
        text = text.replace("'", r"\'").replace(r'\"', "\0").replace(
            '"', "'").replace("\0", '"')
    client, other = daemon.client(), daemon.client()
    client.send_bytes(COMMAND + text.encode() + b"}")
    assert "qemu" in other.cmd("query-version")
    reply = client.read_message()
    assert reply["return"]["qemu"]
    assert alike(reply["id"], json.loads(LARGE[kind]))


@pytest.mark.parametrize("data, outcomes", [
    (b'{"a":[1,2.5,"x",null]}', [("value", {"a": [1, 2.5, "x", None]})]),
    (b"{'a':1,'a':2}[]", [("error", None), ("value", [])]),
    (b'{"id":01}\n', [("error", None), ("error", None)]),
    (b'"\\ud83d\\ude00\xc0\x80"', [("value", "\U0001f600\0")]),
    (b'"\\ud83d"', [("error", None)]), (b'"\xef\xbf\xbf"', [("error", None)]),
    (b"{]}", [("error", None), ("error", None)]),
    (b"-} tru\x01\n5 ", [("error", None), ("error", None), ("value", 5)]),
    (b"1e400 ", [("value", 1.7976931348623157e308)]),
    (b'["x\n"', [("error", None)])])
def test_second_reader_knows_the_rules(data, outcomes):
    assert Reader().feed(data) == outcomes
    reader = Reader()
    assert [o for byte in data for o in reader.feed(bytes([byte]))] == outcomes
