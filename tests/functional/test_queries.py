# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon tells of its nodes: statistics, write thresholds, and the
graph of nodes and their users."""
import threading

import pytest

import harness
import rawnbd as nbd

KIB = 1024
KINDS = ("rd", "wr", "unmap", "flush")


def stats_of(daemon):
    """{node: its statistics, with what only files tell}."""
    return {item["node-name"]: {**item["stats"],
                                **item.get("driver-specific", {})}
            for item in daemon.cmd("query-blockstats", query_nodes=True)}


def operations(stats):
    return {kind: stats[f"{kind}_operations"] for kind in KINDS}


def add_raw(daemon, node, child, **options):
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": node,
                                    "file": child, **options})


@pytest.fixture
def tree(daemon, image):
    """A raw node 'top' on the file 'disk', served, and a client of it."""
    daemon.add_file(image, discard="unmap")
    add_raw(daemon, "top", "disk", discard="unmap")
    daemon.start_nbd()
    daemon.add_export("top", writable=True)
    client = nbd.RawNbd(daemon.nbd_path)
    client.go("top")
    yield client
    client.close()


# Statistics.

def test_there_are_no_devices(daemon, image):
    daemon.add_file(image)
    assert daemon.cmd("query-block") == []
    assert daemon.cmd("query-blockstats") == []
    assert daemon.cmd("query-blockstats", query_nodes=False) == []


@pytest.mark.ours("the reference counts for devices only")
def test_every_node_on_the_way_counts(daemon, tree):
    before = stats_of(daemon)
    assert all(n == 0 for n in operations(before["top"]).values())
    assert "idle_time_ns" not in before["top"]
    tree.write(0, b"x" * 8 * KIB)
    tree.write(100 * KIB, b"y" * 4 * KIB)
    tree.request(nbd.CMD_WRITE_ZEROES, 64 * KIB, 16 * KIB)
    tree.read(0, 512)
    tree.read(512, 512)
    tree.read(0, 128 * KIB)
    tree.request(nbd.CMD_TRIM, 0, 64 * KIB)
    tree.request(nbd.CMD_FLUSH)
    after = stats_of(daemon)
    for node in ("top", "disk"):
        stats = after[node]
        assert operations(stats) == {"rd": 3, "wr": 3, "unmap": 1, "flush": 1}
        assert stats["rd_bytes"] == 129 * KIB
        assert stats["wr_bytes"] == 28 * KIB
        assert stats["unmap_bytes"] == 64 * KIB
        assert stats["wr_highest_offset"] == 104 * KIB
        assert all(stats[f"{k}_total_time_ns"] > 0 for k in KINDS)
        assert all(stats[f"failed_{k}_operations"] == 0 for k in KINDS)
        assert stats["idle_time_ns"] >= 0
    assert after["disk"]["discard-nb-ok"] == 1
    assert after["disk"]["discard-bytes-ok"] == 64 * KIB
    # A node's time contains that of the node below.
    assert after["top"]["wr_total_time_ns"] >= after["disk"]["wr_total_time_ns"]


@pytest.mark.ours("the reference counts for devices only")
def test_list_is_oldest_first_and_shows_what_is_below(daemon, tree):
    top = daemon.cmd("query-blockstats", query_nodes=True)
    assert [item["node-name"] for item in top] == ["disk", "top"]
    assert top[1]["parent"] == top[0]
    assert "parent" not in top[0]
    assert top[0]["driver-specific"]["driver"] == "file"


@pytest.mark.ours("the reference counts for devices only")
def test_ignored_discards_count_but_reach_no_driver(daemon, image):
    path = daemon.serve_file(image)
    with nbd.RawNbd(path) as client:
        client.go("disk")
        client.request(nbd.CMD_TRIM, 0, 4 * KIB)
    stats = stats_of(daemon)["disk"]
    assert stats["unmap_operations"] == 1
    assert stats["unmap_bytes"] == 4 * KIB
    assert stats["discard-nb-ok"] == 0


@pytest.mark.ours("fault nodes are ours")
def test_failed_requests_count_apart(daemons, image):
    daemon = daemons("--allow-fault-injection")
    daemon.add_file(image)
    daemon.execute("blockdev-add", {
        "driver": "fault", "node-name": "bad", "image": "disk", "rules": [
            {"op": "write", "offset": 0, "bytes": 4096},
            {"op": "read", "offset": 0, "bytes": 4096},
            {"op": "flush"}]})
    path = daemon.start_nbd()
    daemon.add_export("bad", writable=True)
    with nbd.RawNbd(path) as client:
        client.go("bad")
        assert client.request(nbd.CMD_WRITE, 0, 4096, data=b"x" * 4096)
        assert client.request(nbd.CMD_FLUSH)
        client.write(4096, b"x" * 4096)
        assert client.read(0, 512)[0]
    stats = stats_of(daemon)["bad"]
    assert stats["failed_wr_operations"] == 1
    assert stats["failed_rd_operations"] == 1
    assert stats["failed_flush_operations"] >= 1
    assert stats["wr_operations"] == 1 and stats["wr_bytes"] == 4096
    assert stats["rd_operations"] == 0 and stats["rd_total_time_ns"] == 0
    assert stats_of(daemon)["disk"]["failed_wr_operations"] == 0


@pytest.mark.ours("the reference counts for devices only")
def test_what_all_loops_did_is_added_up(daemons):
    """More loops than have a place of their own for numbers."""
    threads = 36
    daemon = daemons(*(word for i in range(threads)
                       for word in ("--object", f"iothread,id=t{i}")))
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "n",
                                    "size": 1 << 20})
    path = daemon.start_nbd()
    for i in range(threads):
        daemon.add_export("n", f"e{i}", name=f"e{i}", iothread=f"t{i}",
                          writable=True)

    def use(name):
        with nbd.RawNbd(path) as client:
            client.go(name)
            for _ in range(20):
                client.write(0, b"x" * 1024)
                client.read(0, 512)

    users = [threading.Thread(target=use, args=(f"e{i}",))
             for i in range(threads)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    stats = stats_of(daemon)["n"]
    assert stats["wr_operations"] == stats["rd_operations"] == 20 * threads
    assert stats["wr_bytes"] == 20 * threads * 1024
    assert stats["rd_bytes"] == 20 * threads * 512


@pytest.mark.ours("the reference counts for devices only")
def test_jobs_count_as_well(daemon, image):
    daemon.add_file(image)
    size = image.stat().st_size
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "to",
                                    "size": size})
    daemon.cmd("blockdev-backup", job_id="b0", device="disk", target="to",
               sync="full")
    daemon.qmp.take_event("BLOCK_JOB_COMPLETED")
    stats = stats_of(daemon)
    assert stats["disk"]["rd_bytes"] > 0
    assert stats["to"]["wr_bytes"] > 0


# Thresholds.

def test_threshold_tells_once(daemon, tree):
    def threshold():
        return {node["node-name"]: node["write_threshold"]
                for node in daemon.cmd("query-named-block-nodes")}

    daemon.cmd("block-set-write-threshold", node_name="disk",
               write_threshold=64 * KIB)
    assert threshold() == {"disk": 64 * KIB, "top": 0}
    tree.write(60 * KIB, b"x" * 4 * KIB)
    tree.read(0, 128 * KIB)
    assert threshold()["disk"] == 64 * KIB
    tree.write(60 * KIB, b"x" * 12 * KIB)
    event = daemon.qmp.take_event("BLOCK_WRITE_THRESHOLD")
    assert event["data"] == {"node-name": "disk",
                             "write-threshold": 64 * KIB,
                             "amount-exceeded": 8 * KIB}
    assert threshold()["disk"] == 0
    tree.write(100 * KIB, b"x" * 4 * KIB)
    # It is armed again by another command, and zeroes count.
    daemon.cmd("block-set-write-threshold", node_name="disk",
               write_threshold=128 * KIB)
    tree.request(nbd.CMD_WRITE_ZEROES, 128 * KIB, 4 * KIB)
    event = daemon.qmp.take_event("BLOCK_WRITE_THRESHOLD")
    assert event["data"]["write-threshold"] == 128 * KIB
    assert event["data"]["amount-exceeded"] == 4 * KIB
    daemon.cmd("query-version")
    assert not [e for e in daemon.qmp.events
                if e["event"] == "BLOCK_WRITE_THRESHOLD"]


def test_threshold_can_be_taken_back(daemon, tree):
    for offset in (4 * KIB, 0):
        daemon.cmd("block-set-write-threshold", node_name="disk",
                   write_threshold=offset)
    tree.write(60 * KIB, b"x" * 4 * KIB)
    daemon.cmd("query-version")
    assert not [e for e in daemon.qmp.events
                if e["event"] == "BLOCK_WRITE_THRESHOLD"]


def test_threshold_needs_a_node(daemon):
    error = daemon.error("block-set-write-threshold", node_name="nope",
                         write_threshold=1)
    assert error.cls == "GenericError"
    assert error.desc == "Device 'nope' not found"


# The graph.

def picture_of(daemon):
    """({(type, name)}, {(parent, child, edge): (permissions, shared)})."""
    graph = daemon.cmd("x-debug-query-block-graph")
    nodes = {n["id"]: (n["type"], n["name"]) for n in graph["nodes"]}
    assert len(nodes) == len(graph["nodes"])
    return set(nodes.values()), {
        (nodes[e["parent"]], nodes[e["child"]][1], e["name"]):
        (set(e["perm"]), set(e["shared-perm"])) for e in graph["edges"]}


ALL = {"consistent-read", "write", "write-unchanged", "resize"}


@pytest.mark.ours("the reference does not name exports")
def test_graph_shows_nodes_and_users(daemon, tree):
    nodes, edges = picture_of(daemon)
    export = ("block-backend", "export 'exp-top'")
    assert nodes == {("block-driver", "disk"), ("block-driver", "top"), export}
    assert edges == {
        (export, "top", "root"): ({"consistent-read", "write"},
                                  ALL - {"resize"}),
        (("block-driver", "top"), "disk", "file"):
            ({"consistent-read", "write"}, ALL - {"resize"}),
    }


def test_graph_shows_jobs(daemon, image):
    daemon.add_file(image)
    daemon.execute("blockdev-add", {
        "driver": "null-co", "node-name": "to", "size": image.stat().st_size})
    daemon.cmd("blockdev-mirror", job_id="m0", device="disk", target="to",
               sync="full", filter_node_name="above")
    nodes, edges = picture_of(daemon)
    job = ("block-job", "m0")
    assert {job, ("block-driver", "above")} <= nodes
    assert (job, "disk", "source") in edges
    assert (job, "to", "target") in edges
    if not harness.IS_REFERENCE:
        perm, shared = edges[job, "to", "target"]
        assert perm == {"write"} and shared == {"write-unchanged"}
    daemon.cmd("job-cancel", id="m0")
    daemon.qmp.take_event("BLOCK_JOB_CANCELLED")


def test_graph_of_nothing_is_empty(daemon):
    assert daemon.cmd("x-debug-query-block-graph") == {"nodes": [],
                                                       "edges": []}


# A node that a job has.

@pytest.mark.parametrize("argument", ["node_name", "device"])
@pytest.mark.ours("the reference does not name the job")
def test_resize_under_a_job_names_it_and_the_way_out(daemon, image, argument):
    daemon.add_file(image)
    size = image.stat().st_size
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "to",
                                    "size": size})
    daemon.cmd("blockdev-mirror", job_id="m0", device="disk", target="to",
               sync="full", filter_node_name="above")
    daemon.qmp.take_event("BLOCK_JOB_READY")
    for node in ("disk", "to", "above"):
        error = daemon.error("block_resize", **{argument: node}, size=2 * size)
        assert error.cls == "GenericError"
        assert error.desc == (f"Device '{node}' is in use by job 'm0'; "
                              "resize it when the job has ended")
    daemon.cmd("block-job-cancel", device="m0")
    daemon.qmp.take_event("BLOCK_JOB_COMPLETED")
    daemon.cmd("block_resize", **{argument: "disk"}, size=2 * size)
