# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps against a model: random writes, zeroes and trims from several
connections on several loops, random bitmap commands and transactions between
and during them.

A request that was under way while a command changed a bitmap may or may not be
in it; everything else must be exact. BLOCKFERRY_SEED repeats a run.
"""
import copy
import random

import pytest

import harness
import rawnbd as nbd
from test_bitmaps import bitmaps_of, expected_sha256, sha256

SIZE = 4 << 20
CONNECTIONS = 4
ROUNDS = 60
NODES = ("n0", "n1")
GRANULARITIES = (512, 4096, 65536, 1 << 20)


class Bitmap:
    """must: granules that are dirty; may: those that can be."""

    def __init__(self, granularity, enabled):
        self.granularity, self.enabled = granularity, enabled
        self.must, self.may = set(), set()

    def granules(self, offset, length):
        return range(offset // self.granularity,
                     (offset + length - 1) // self.granularity + 1)

    def covering(self, other, name):
        """The granules of another bitmap as ours."""
        result = set()
        for granule in getattr(other, name):
            start = granule * other.granularity
            result.update(self.granules(start, other.granularity))
        return {g for g in result if g * self.granularity < SIZE}


class Model:
    """Bitmaps by (node, name)."""

    def __init__(self):
        self.bitmaps = {}

    def wrote(self, node, offset, length, but=()):
        for key, bitmap in self.bitmaps.items():
            if key[0] == node and bitmap.enabled and key not in but:
                bitmap.must.update(bitmap.granules(offset, length))
                bitmap.may.update(bitmap.granules(offset, length))

    def apply(self, action, data):
        """Does an action; returns the key of the bitmap it is about."""
        kind = action.removeprefix("block-dirty-bitmap-")
        node = data["node"]
        key = node, data.get("target", data.get("name"))
        if kind == "add":
            self.bitmaps[key] = Bitmap(data["granularity"],
                                       not data["disabled"])
        elif kind == "remove":
            del self.bitmaps[key]
            return key
        bitmap = self.bitmaps[key]
        if kind == "clear":
            bitmap.must, bitmap.may = set(), set()
        elif kind in ("enable", "disable"):
            bitmap.enabled = kind == "enable"
        elif kind == "merge":
            for source in data["bitmaps"]:
                other = self.bitmaps[
                    (node, source) if isinstance(source, str)
                    else (source["node"], source["name"])]
                bitmap.must |= bitmap.covering(other, "must")
                bitmap.may |= bitmap.covering(other, "may")
        return key

    def add_uncertainty(self, under_way):
        """What was under way may be in any bitmap of its node."""
        for node, offset, length in under_way:
            for (owner, _), bitmap in self.bitmaps.items():
                if owner == node:
                    bitmap.may.update(bitmap.granules(offset, length))


class Run:
    """A daemon, connections to both nodes, and the model."""

    def __init__(self, daemon, box, rng):
        self.daemon, self.rng, self.model = daemon, rng, Model()
        self.names = [f"b{i}" for i in range(4)]
        self.connections = []
        daemon.start_nbd()
        for node in NODES:
            path = harness.make_image(box / f"{node}.img", SIZE)
            daemon.add_file(path, node, discard="unmap")
            daemon.add_export(node, writable=True)
        for index in range(CONNECTIONS):
            node = NODES[index % len(NODES)] if index > 1 else "n0"
            client = nbd.RawNbd(daemon.nbd_path)
            client.go(node)
            self.connections.append((node, client))
        self.transactions = "transaction" in [
            c["name"] for c in daemon.cmd("query-commands")]

    def start_requests(self):
        """Sends some on each connection without waiting for the replies."""
        started = []
        for node, client in self.connections:
            for _ in range(self.rng.randrange(6)):
                offset = self.rng.randrange(SIZE)
                length = self.rng.choice((1, 512, 4096, 65536, 262144))
                length = min(length, SIZE - offset)
                command = self.rng.choice((
                    nbd.CMD_WRITE, nbd.CMD_WRITE, nbd.CMD_WRITE_ZEROES,
                    nbd.CMD_TRIM))
                data = b"x" * length if command == nbd.CMD_WRITE else b""
                client.send_request(command, offset, length, data=data)
                started.append((client, node, offset, length))
        return started

    @staticmethod
    def finish_requests(started):
        for client, *_ in started:
            reply, _ = client.read_reply()
            assert reply.error == 0

    def random_action(self, model):
        """One that succeeds in this state of the model."""
        node = self.rng.choice(NODES)
        have = [n for o, n in model.bitmaps if o == node]
        free = [n for n in self.names if n not in have]
        kind = self.rng.choice(("add", "remove", "clear", "enable", "disable",
                                "merge"))
        if not have or (kind == "add" and free):
            return "block-dirty-bitmap-add", {
                "node": node, "name": self.rng.choice(free),
                "granularity": self.rng.choice(GRANULARITIES),
                "disabled": self.rng.random() < 0.3}
        if kind == "add":
            kind = "remove"
        name = self.rng.choice(have)
        if kind != "merge":
            return f"block-dirty-bitmap-{kind}", {"node": node, "name": name}
        sources = []
        for owner, source in self.rng.sample(
                sorted(model.bitmaps),
                self.rng.randrange(len(model.bitmaps) + 1)):
            plain = owner == node and self.rng.random() < 0.5
            sources.append(source if plain
                           else {"node": owner, "name": source})
        return "block-dirty-bitmap-merge", {
            "node": node, "target": name, "bitmaps": sources}

    def change(self, under_way):
        """One command, or a transaction that may be made to fail. Returns the
        bitmaps that have changed."""
        changed = set()
        count = self.rng.randrange(1, 6) if self.transactions else 1
        before = copy.deepcopy(self.model)
        actions = []
        self.model.add_uncertainty(under_way)
        for _ in range(count):
            action, data = self.random_action(self.model)
            changed.add(self.model.apply(action, data))
            self.model.add_uncertainty(under_way)
            actions.append({"type": action, "data": data})
        if count == 1 and self.rng.random() < 0.8:
            self.daemon.execute(actions[0]["type"], actions[0]["data"])
        elif self.transactions and self.rng.random() < 0.4:
            actions.append({"type": "abort", "data": {}})
            assert "Abort" in self.daemon.error(
                "transaction", actions=actions).desc
            self.model = before
            return set()
        elif self.transactions:
            self.daemon.cmd("transaction", actions=actions)
        else:
            self.daemon.execute(actions[0]["type"], actions[0]["data"])
        return changed

    def look(self, node, name):
        """The dirty granules as a client of an export sees them."""
        self.daemon.cmd("block-export-add", type="nbd", id="view", name="view",
                        node_name=node,
                        bitmaps=[{"node": node, "name": name}])
        client = nbd.RawNbd(self.daemon.nbd_path)
        client.negotiate_structured()
        client.set_meta("view", f"qemu:dirty-bitmap:{name}")
        client.go("view")
        error, status = client.status(0, SIZE)
        assert error == 0
        client.close()
        self.daemon.cmd("block-export-del", id="view", mode="hard")
        self.daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="view")
        size = self.model.bitmaps[node, name].granularity
        dirty, position = set(), 0
        for length, flags in status[2]:
            if flags:
                dirty.update(range(position // size,
                                   (position + length) // size))
            position += length
        assert position == SIZE
        return dirty

    def compare(self):
        for node in NODES:
            assert set(bitmaps_of(self.daemon, node)) == {
                n for o, n in self.model.bitmaps if o == node}
        for (node, name), bitmap in self.model.bitmaps.items():
            info = bitmaps_of(self.daemon, node)[name]
            seen = self.look(node, name)
            assert bitmap.must <= seen <= bitmap.may, (node, name)
            assert info["count"] == len(seen) * bitmap.granularity
            assert info["recording"] == bitmap.enabled
            assert info["granularity"] == bitmap.granularity
            assert sha256(self.daemon, node, name) == expected_sha256(
                SIZE, bitmap.granularity, seen)
            bitmap.must, bitmap.may = set(seen), set(seen)

    def round(self):
        started = self.start_requests()
        under_way = [(n, o, s) for _, n, o, s in started]
        if self.rng.random() < 0.5:
            self.finish_requests(started)
            for node, offset, length in under_way:
                self.model.wrote(node, offset, length)
            self.change([])
        else:
            # They end at some moment of the changes.
            changed = set()
            for _ in range(self.rng.randrange(1, 3)):
                changed |= self.change(under_way)
            self.finish_requests(started)
            for request in under_way:
                self.model.wrote(*request, but=changed)
            self.model.add_uncertainty(under_way)
        self.compare()


@pytest.mark.parametrize("run", range(2))
def test_bitmaps_equal_a_model(daemon, box, run):
    state = Run(daemon, box, random.Random(harness.seed()))
    for _ in range(ROUNDS):
        state.round()
