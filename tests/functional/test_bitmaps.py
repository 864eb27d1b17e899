# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps: commands, refusals and what writes mark."""
import hashlib

import pytest

import rawnbd as nbd

MIB = 1 << 20
BUSY = "Bitmap 'b0' is currently in use by another operation and cannot be used"


def bitmap(daemon, action, node="n0", name="b0", **arguments):
    return daemon.cmd(f"block-dirty-bitmap-{action}", node=node, name=name,
                      **arguments)


def merge(daemon, bitmaps, node="n0", target="b0"):
    return daemon.cmd("block-dirty-bitmap-merge", node=node, target=target,
                      bitmaps=bitmaps)


def refused(daemon, action, **arguments):
    error = daemon.error(f"block-dirty-bitmap-{action}", **arguments)
    assert error.cls == "GenericError"
    return error.desc


def bitmaps_of(daemon, node="n0"):
    for info in daemon.cmd("query-named-block-nodes"):
        if info["node-name"] == node:
            return {b["name"]: b for b in info.get("dirty-bitmaps", [])}
    raise AssertionError(f"no node {node}")


def sha256(daemon, node="n0", name="b0"):
    return daemon.cmd("x-debug-block-dirty-bitmap-sha256", node=node,
                      name=name)["sha256"]


def expected_sha256(size, granularity, dirty):
    """dirty: numbers of the granules."""
    words = [0] * max(1, -(-size // granularity // 64) if size % granularity
                      == 0 else (size // granularity + 64) // 64)
    for granule in dirty:
        words[granule // 64] |= 1 << granule % 64
    return hashlib.sha256(
        b"".join(w.to_bytes(8, "little") for w in words)).hexdigest()


@pytest.fixture
def nodes(daemon):
    daemon.execute("blockdev-add", {
        "driver": "null-co", "node-name": "n0", "size": MIB})
    daemon.execute("blockdev-add", {
        "driver": "null-co", "node-name": "n1", "size": 2 * MIB})
    return daemon


def test_add_checks_in_order(nodes):
    assert refused(nodes, "add", node="zz", name="") == \
        "Bitmap name cannot be empty"
    assert refused(nodes, "add", node="zz", name="b0", granularity=5) == \
        "Cannot find device='zz' nor node-name='zz'"
    for bad in (0, 256, 511, 513, 3 << 20):
        assert refused(nodes, "add", node="n0", name="b0", granularity=bad,
                       persistent=True) == \
            "Granularity must be power of 2 and at least 512"
    assert refused(nodes, "add", node="n0", name="b0", persistent=True) == \
        "Can't store persistent bitmaps to n0: Operation not supported"
    assert refused(nodes, "add", node="n0", name="b" * 1024) == \
        "Bitmap name too long: " + "b" * 1024
    bitmap(nodes, "add", name="b" * 1023)
    bitmap(nodes, "add")
    assert refused(nodes, "add", node="n0", name="b0") == \
        "Bitmap already exists: b0"
    bitmap(nodes, "add", node="n1")


def test_query_shows_newest_first(nodes):
    bitmap(nodes, "add")
    bitmap(nodes, "add", name="b1", granularity=512, disabled=True)
    bitmap(nodes, "add", name="b2", granularity=1 << 31)
    found = bitmaps_of(nodes)
    assert list(found) == ["b2", "b1", "b0"]
    assert found["b0"] == {
        "name": "b0", "count": 0, "granularity": 65536, "recording": True,
        "busy": False, "persistent": False}
    assert found["b1"]["granularity"] == 512 and not found["b1"]["recording"]
    assert "dirty-bitmaps" not in [
        i for i in nodes.cmd("query-named-block-nodes")
        if i["node-name"] == "n1"][0]


@pytest.mark.parametrize("action", ["remove", "clear", "enable", "disable"])
def test_unknown_names_are_told(nodes, action):
    assert refused(nodes, action, node="zz", name="b0") == \
        "Node 'zz' not found"
    assert refused(nodes, action, node="n0", name="b0") == \
        "Dirty bitmap 'b0' not found"


def test_enable_and_disable_are_idempotent(nodes):
    bitmap(nodes, "add")
    for action in ("disable", "disable", "enable", "enable"):
        bitmap(nodes, action)
        assert bitmaps_of(nodes)["b0"]["recording"] == (action == "enable")


def test_merge_refusals(nodes):
    bitmap(nodes, "add")
    bitmap(nodes, "add", node="n1")
    for node, target, sources, text in (
            ("zz", "b0", ["b0"], "Node 'zz' not found"),
            ("n0", "zz", ["b0"], "Dirty bitmap 'zz' not found"),
            ("n0", "b0", ["zz"], "Dirty bitmap 'zz' not found"),
            ("n0", "b0", [{"node": "zz", "name": "b0"}],
             "Node 'zz' not found"),
            ("n0", "b0", [{"node": "n1", "name": "b0"}],
             "Bitmaps are of different sizes (destination size is 1048576, "
             "source size is 2097152) and can't be merged")):
        assert refused(nodes, "merge", node=node, target=target,
                       bitmaps=sources) == text
    merge(nodes, ["b0", {"node": "n0", "name": "b0"}])


@pytest.fixture
def writer(nodes):
    """A raw connection to a writable export of n0."""
    nodes.start_nbd()
    nodes.add_export("n0", writable=True)
    client = nbd.RawNbd(nodes.nbd_path)
    client.go("n0")
    yield client
    client.close()


def test_changes_mark_granules(nodes, writer):
    bitmap(nodes, "add", granularity=4096)
    writer.write(4095, b"x" * 2)
    assert bitmaps_of(nodes)["b0"]["count"] == 2 * 4096
    writer.request(nbd.CMD_WRITE_ZEROES, 65536, 4096)
    assert bitmaps_of(nodes)["b0"]["count"] == 3 * 4096
    assert sha256(nodes) == expected_sha256(MIB, 4096, [0, 1, 16])
    bitmap(nodes, "disable")
    writer.write(MIB - 512, b"x" * 512)
    assert bitmaps_of(nodes)["b0"]["count"] == 3 * 4096
    bitmap(nodes, "clear")
    bitmap(nodes, "enable")
    assert bitmaps_of(nodes)["b0"]["count"] == 0
    writer.write(MIB - 512, b"x" * 512)
    assert sha256(nodes) == expected_sha256(MIB, 4096, [255])


def test_merge_adds_up(nodes, writer):
    bitmap(nodes, "add", granularity=512)
    bitmap(nodes, "add", name="b1", granularity=65536)
    writer.write(0, b"x" * 512)
    bitmap(nodes, "disable", name="b1")
    writer.write(65536, b"x" * 512)
    bitmap(nodes, "add", name="all", granularity=32768, disabled=True)
    merge(nodes, ["b0", {"node": "n0", "name": "b1"}], target="all")
    assert bitmaps_of(nodes)["all"]["count"] == 3 * 32768
    assert not bitmaps_of(nodes)["all"]["recording"]
    assert bitmaps_of(nodes)["b0"]["count"] == 1024


def test_failed_merge_changes_nothing(nodes, writer):
    bitmap(nodes, "add")
    bitmap(nodes, "add", name="b1")
    writer.write(0, b"x")
    bitmap(nodes, "clear", name="b1")
    refused(nodes, "merge", node="n0", target="b1", bitmaps=["b0", "zz"])
    assert bitmaps_of(nodes)["b1"]["count"] == 0


def test_read_only_nodes_may_have_bitmaps(daemon, image):
    daemon.add_file(image, "n0", **{"read-only": True})
    bitmap(daemon, "add")
    assert "b0" in bitmaps_of(daemon)
    bitmap(daemon, "remove")
    daemon.cmd("blockdev-del", node_name="n0")
