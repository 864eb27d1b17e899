# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps: commands, refusals and what writes mark."""
import hashlib
import json

import pytest

import harness
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


# As seen by NBD clients.

def client_of(daemon, name="n0", *contexts):
    """A connection with structured replies; returns it and {name: id}."""
    client = nbd.RawNbd(daemon.nbd_path)
    client.negotiate_structured()
    found = client.set_meta(name, *contexts) if contexts else {}
    client.go(name)
    return client, found


def test_export_refusals(nodes):
    nodes.start_nbd()
    bitmap(nodes, "add")
    bitmap(nodes, "add", node="n1")
    bitmap(nodes, "add", node="n0", name="off", disabled=True)

    def why(*bitmaps, **arguments):
        error = nodes.error("block-export-add", type="nbd", id="e0",
                            node_name="n0", bitmaps=list(bitmaps), **arguments)
        assert nodes.cmd("query-block-exports") == []
        return error.desc

    assert why("zz") == "Bitmap 'zz' is not found"
    assert why("b0") == "Enabled bitmap 'b0' incompatible with readonly export"
    assert why({"node": "zz", "name": "b0"}) == "Node 'zz' not found"
    assert why({"node": "n0", "name": "zz"}) == "Dirty bitmap 'zz' not found"
    assert "2097152 bytes" in why({"node": "n1", "name": "b0"})
    assert why("off", "zz", writable=True) == "Bitmap 'zz' is not found"
    assert not bitmaps_of(nodes)["off"]["busy"]


@pytest.mark.peers("nbdkit", "qemu-img")
def test_extents_keep_to_the_block_size(daemon, spawn, box):
    """Clients take what is shorter than a block for clean."""
    sock = box / "4k.sock"
    spawn("4k", ["nbdkit", "-f", "-U", sock, "--filter=blocksize-policy",
                 "memory", "size=1M", "blocksize-minimum=4096",
                 "blocksize-preferred=4096", "blocksize-maximum=1M",
                 "blocksize-error-policy=error"])
    harness.wait_until(sock.exists)
    daemon.execute("blockdev-add", {
        "driver": "nbd", "node-name": "n0", "export": "",
        "server": {"type": "unix", "path": str(sock)}})
    bitmap(daemon, "add", granularity=512)
    path = daemon.start_nbd()
    daemon.add_export("n0", writable=True, bitmaps=["b0"])
    with nbd.RawNbd(path).go("n0") as client:
        for offset in (65536 + 512, 65536 + 2048, MIB - 512):
            assert client.write(offset, b"x" * 512) == 0
    with nbd.RawNbd(path) as client:
        client.negotiate_structured()
        client.set_meta("n0", "qemu:dirty-bitmap:b0")
        client.go("n0", nbd.INFO_BLOCK_SIZE)
        extents, = client.status(0, MIB)[1].values()
        assert extents == [(65536, 0), (4096, 1), (MIB - 65536 - 8192, 0),
                           (4096, 1)]
    dirty = [(e["start"], e["length"]) for e in json.loads(harness.run(
        "qemu-img", "map", "--output=json", "--image-opts",
        f"driver=nbd,server.type=unix,server.path={path},export=n0,"
        "x-dirty-bitmap=qemu:dirty-bitmap:b0")) if not e["data"]]
    assert dirty == [(65536, 4096), (MIB - 4096, 4096)]


@pytest.mark.ours("the reference lets the bitmap go with its node")
def test_bitmap_of_a_job_is_not_exported(nodes):
    """Its node goes when the job ends, and the export moves to another one."""
    nodes.execute("blockdev-add", {
        "driver": "null-co", "node-name": "to", "size": MIB})
    nodes.cmd("blockdev-backup", job_id="j0", device="n0", target="to",
              sync="none", filter_node_name="filter")
    nodes.start_nbd()
    bitmap(nodes, "add", node="filter", disabled=True)
    error = nodes.error("block-export-add", type="nbd", id="e0",
                        node_name="filter", bitmaps=["b0"])
    assert "'filter', which a job has made" in error.desc
    nodes.cmd("job-cancel", id="j0")
    nodes.qmp.take_event("JOB_STATUS_CHANGE", id="j0", status="null")


def test_exported_bitmap_is_busy(nodes):
    nodes.start_nbd()
    bitmap(nodes, "add")
    bitmap(nodes, "add", name="b1")
    nodes.add_export("n0", "e0", writable=True, bitmaps=["b0"])
    assert bitmaps_of(nodes)["b0"]["busy"]
    for action in ("remove", "clear", "enable", "disable"):
        assert refused(nodes, action, node="n0", name="b0") == BUSY
    for target, source in (("b0", "b1"), ("b1", "b0")):
        assert refused(nodes, "merge", node="n0", target=target,
                       bitmaps=[source]) == BUSY
    assert refused(nodes, "merge", node="n0", target="b0", bitmaps=[]) == BUSY
    assert nodes.error("block-export-add", type="nbd", id="e1", name="y",
                       node_name="n0", writable=True,
                       bitmaps=["b0"]).desc == BUSY
    assert sha256(nodes) == expected_sha256(MIB, 65536, [])
    nodes.cmd("block-export-del", id="e0")
    nodes.qmp.take_event("BLOCK_EXPORT_DELETED", id="e0")
    bitmap(nodes, "clear")
    bitmap(nodes, "remove")


def test_bitmap_of_another_node_keeps_it(nodes):
    nodes.start_nbd()
    nodes.execute("blockdev-add", {
        "driver": "null-co", "node-name": "n2", "size": MIB})
    bitmap(nodes, "add", node="n2")
    nodes.add_export("n0", "e0", bitmaps=[{"node": "n2", "name": "b0"}])
    assert nodes.error("blockdev-del", node_name="n2").desc == \
        "Node n2 is in use by export 'e0'"
    nodes.cmd("block-export-del", id="e0")
    nodes.qmp.take_event("BLOCK_EXPORT_DELETED", id="e0")
    nodes.cmd("blockdev-del", node_name="n2")


def test_bitmap_is_found_through_filters(daemons):
    daemon = daemons("--allow-fault-injection")
    daemon.execute("blockdev-add", {
        "driver": "null-co", "node-name": "n0", "size": MIB})
    daemon.execute("blockdev-add", {
        "driver": "fault", "node-name": "x0", "image": "n0"})
    daemon.cmd("object-add", qom_type="throttle-group", id="tg")
    daemon.execute("blockdev-add", {
        "driver": "throttle", "node-name": "t0", "throttle-group": "tg",
        "file": "x0"})
    daemon.execute("blockdev-add", {
        "driver": "raw", "node-name": "r0", "file": "n0"})
    daemon.start_nbd()
    bitmap(daemon, "add", disabled=True)
    assert daemon.error("block-export-add", type="nbd", id="e0",
                        node_name="r0", bitmaps=["b0"]).desc == \
        "Bitmap 'b0' is not found"
    daemon.add_export("t0", bitmaps=["b0"])
    client, found = client_of(daemon, "t0", "qemu:dirty-bitmap:b0")
    assert found == {"qemu:dirty-bitmap:b0": 2}
    client.close()


CONTEXTS = ["base:allocation", "qemu:allocation-depth",
            "qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:a:b"]


@pytest.fixture
def offering(nodes):
    """n0 with all kinds of contexts."""
    nodes.start_nbd()
    bitmap(nodes, "add")
    bitmap(nodes, "add", name="a:b")
    nodes.add_export("n0", writable=True, bitmaps=["b0", "a:b", "b0"],
                     allocation_depth=True)
    return nodes


@pytest.mark.parametrize("queries, listed", [
    ((), CONTEXTS),
    (("base:",), CONTEXTS[:1]),
    (("qemu:",), CONTEXTS[1:]),
    (("qemu:dirty-bitmap:",), CONTEXTS[2:]),
    (("qemu:dirty-bitmap:b0", "qemu:", "base:allocation"), CONTEXTS),
    (("qemu:dirty-bitmap:a:b", "qemu:dirty-bitmap:a:b"), CONTEXTS[3:]),
    (("qemu:dirty-bitmap:a:", "qemu:dirty-bitmap:a", "qemu", "", "other:b0",
      "qemu:dirty-bitmap", "dirty-bitmap:b0"), []),
])
def test_contexts_are_listed_and_selected(offering, queries, listed):
    client = nbd.RawNbd(offering.nbd_path)
    client.negotiate_structured()
    assert client.list_meta("n0", *queries) == listed
    selected = client.set_meta("n0", *queries)
    exact = [c for c in CONTEXTS if c in queries]
    assert selected == {c: CONTEXTS.index(c) for c in exact}
    client.close()


def test_all_contexts_come_in_one_reply(offering):
    client, found = client_of(offering, "n0", *CONTEXTS)
    assert list(found.values()) == [0, 1, 2, 3]
    assert client.write(65536 + 10, b"x" * 65536) == 0
    error, status = client.status(0, MIB)
    dirty = [(65536, 0), (131072, 1), (MIB - 196608, 0)]
    assert error == 0 and list(status) == [0, 1, 2, 3]
    assert status[2] == status[3] == dirty
    # A part, in the middle of granules, and one extent only.
    assert client.status(65000, 1000)[1][2] == [(536, 0), (464, 1)]
    status = client.status(100, MIB - 100, flags=nbd.REQ_ONE)[1]
    assert [len(e) for e in status.values()] == [1] * 4
    assert status[2] == [(65436, 0)]
    client.close()


def test_only_bitmap_needs_no_allocation(offering):
    client, found = client_of(offering, "n0", "qemu:dirty-bitmap:a:b")
    assert found == {"qemu:dirty-bitmap:a:b": 3}
    assert client.request(nbd.CMD_WRITE_ZEROES, MIB - 512, 512) == 0
    assert client.status(0, MIB) == (0, {3: [(MIB - 65536, 0), (65536, 1)]})
    client.close()


def test_selection_does_not_survive_another_export(offering):
    """The same name, but what was selected is gone."""
    client = nbd.RawNbd(offering.nbd_path)
    client.negotiate_structured()
    client.set_meta("n0", "qemu:dirty-bitmap:a:b")
    offering.cmd("block-export-del", id="exp-n0", mode="hard")
    offering.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-n0")
    offering.add_export("n0", writable=True, bitmaps=["b0"])
    client.go("n0")
    assert client.status(0, MIB)[0] == 22
    client.close()


def test_number_of_extents_is_limited(daemon):
    """More dirty granules than a reply may have extents."""
    size = 160 << 20
    daemon.execute("blockdev-add", {
        "driver": "null-co", "node-name": "n0", "size": size})
    daemon.start_nbd()
    bitmap(daemon, "add", granularity=512)
    daemon.add_export("n0", writable=True, bitmaps=["b0"])
    client, _ = client_of(daemon, "n0", "qemu:dirty-bitmap:b0")
    step, batch = 1024, 200
    for start in range(0, size, step * batch):
        offsets = range(start, min(start + step * batch, size), step)
        client.send(b"".join(
            client.request_bytes(nbd.CMD_WRITE_ZEROES, o, 512)
            for o in offsets))
        for _ in offsets:
            assert client.read_reply()[0].error == 0
    error, status = client.status(0, size)
    assert error == 0 and len(status[2]) == 131072
    assert set(status[2][0::2]) == {(512, 1)}
    assert set(status[2][1::2]) == {(512, 0)}
    client.close()


def test_old_command_exports_a_bitmap(nodes):
    nodes.start_nbd()
    bitmap(nodes, "add", disabled=True)
    assert nodes.error("nbd-server-add", device="n0", bitmap="zz").desc == \
        "Bitmap 'zz' is not found"
    nodes.cmd("nbd-server-add", device="n0", bitmap="b0")
    client, found = client_of(nodes, "n0", "qemu:dirty-bitmap:b0")
    assert len(found) == 1
    client.close()
