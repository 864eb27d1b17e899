# SPDX-License-Identifier: GPL-2.0-or-later
"""quorum nodes: votes, repairs, events, children that come and go."""
import struct

import pytest

import harness
import rawnbd as nbd

SIZE = 1 << 20


@pytest.fixture
def disks(daemon, box):
    """Three equal images, each in a node of its own."""
    data = harness.random_bytes(SIZE)
    paths = [harness.make_image(box / f"d{i}.img", SIZE, {0: data})
             for i in range(3)]
    for i, path in enumerate(paths):
        daemon.add_file(path, f"f{i}")
    return paths


def add_quorum(daemon, count=3, threshold=2, **options):
    return daemon.execute("blockdev-add", {
        "driver": "quorum", "node-name": "q0", "vote-threshold": threshold,
        "children": [f"f{i}" for i in range(count)],
        **{k.replace("_", "-"): v for k, v in options.items()}})


def add_faulty(daemon, box, *rules):
    """f0 and so on: files behind fault nodes, with the rules of each."""
    for i, mine in enumerate(rules):
        daemon.add_file(harness.make_image(box / f"d{i}", SIZE), f"d{i}")
        daemon.execute("blockdev-add", {"driver": "fault", "rules": mine,
                                        "node-name": f"f{i}", "image": f"d{i}"})


def corrupt(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def serve(daemon, connect_nbd):
    path = daemon.start_nbd()
    daemon.add_export("q0", writable=True)
    return connect_nbd(path, "q0")


def test_writes_go_to_all(daemon, disks, connect_nbd):
    add_quorum(daemon)
    handle = serve(daemon, connect_nbd)
    handle.pwrite(b"abc" * 1000, 777)
    handle.zero(4096, 65536)
    handle.flush()
    contents = {path.read_bytes() for path in disks}
    assert len(contents) == 1
    assert contents.pop()[777:3777] == b"abc" * 1000


def test_majority_wins_and_is_told(daemon, disks, connect_nbd):
    good = disks[0].read_bytes()
    corrupt(disks[1], 4096, b"bad")
    add_quorum(daemon)
    handle = serve(daemon, connect_nbd)
    assert handle.pread(8192, 0) == good[:8192]
    event = daemon.qmp.take_event("QUORUM_REPORT_BAD")
    assert event["data"] == {"type": "read", "node-name": "f1",
                             "sector-num": 0, "sectors-count": 16}
    assert disks[1].read_bytes() != good


def test_losers_are_mended(daemon, disks, connect_nbd):
    good = disks[0].read_bytes()
    corrupt(disks[2], 512, b"bad")
    add_quorum(daemon, rewrite_corrupted=True)
    handle = serve(daemon, connect_nbd)
    assert handle.pread(SIZE, 0) == good
    assert disks[2].read_bytes() == good


def test_last_version_wins_a_tie(daemon, box, connect_nbd):
    for i, letter in enumerate(b"ABBAC"):
        path = box / f"tie{i}.img"
        path.write_bytes(bytes([letter]) * 512)
        daemon.add_file(path, f"f{i}")
    add_quorum(daemon, count=5, threshold=1)
    handle = serve(daemon, connect_nbd)
    assert handle.pread(512, 0) == b"B" * 512
    events = [daemon.qmp.take_event("QUORUM_REPORT_BAD") for _ in range(3)]
    assert [event["data"]["node-name"] for event in events] == [
        "f4", "f3", "f0"]


def test_no_majority_fails(daemon, disks, connect_nbd):
    corrupt(disks[1], 1024, b"one")
    corrupt(disks[2], 1024, b"two")
    add_quorum(daemon)
    handle = serve(daemon, connect_nbd)
    with pytest.raises(Exception):
        handle.pread(512, 1024)
    event = daemon.qmp.take_event("QUORUM_FAILURE")
    assert event["data"] == {"reference": "q0", "sector-num": 2,
                             "sectors-count": 1}
    if not harness.IS_REFERENCE:  # it hangs up
        handle.pread(512, 0)


def test_fifo_reads_the_first(daemon, disks, connect_nbd):
    corrupt(disks[0], 0, b"first")
    add_quorum(daemon, read_pattern="fifo")
    handle = serve(daemon, connect_nbd)
    assert handle.pread(5, 0) == b"first"


@pytest.mark.parametrize("options, text", [
    ({"count": 0}, "Number of provided children must be 1 or more"),
    ({"threshold": 4}, "threshold may not exceed children count"),
    ({"threshold": 0}, "Parameter 'vote-threshold' expects a value >= 1"),
    ({"blkverify": True}, "blkverify=on can only be set if there are exactly "
     "two files and vote-threshold is 2"),
    ({"count": 2, "blkverify": True, "rewrite_corrupted": True},
     "rewrite-corrupted=on cannot be used with blkverify=on"),
])
def test_bad_options_are_refused(daemon, disks, options, text):
    with pytest.raises(harness.qmp.QmpError) as caught:
        add_quorum(daemon, **options)
    assert caught.value.desc == text


def test_children_come_and_go(daemon, disks, box, connect_nbd):
    good = disks[0].read_bytes()
    add_quorum(daemon)
    handle = serve(daemon, connect_nbd)
    corrupt(disks[1], 0, b"bad")
    daemon.cmd("x-blockdev-change", parent="q0", child="children.1")
    daemon.cmd("blockdev-del", node_name="f1")
    error = daemon.error("x-blockdev-change", parent="q0", child="children.0")
    assert error.desc == ("The number of children cannot be lower than the "
                          "vote threshold 2")
    error = daemon.error("x-blockdev-change", parent="q0", child="children.1")
    assert "does not have child 'children.1'" in error.desc
    daemon.add_file(harness.make_image(box / "n.img", SIZE, {0: good}), "n")
    daemon.cmd("x-blockdev-change", parent="q0", node="n")
    error = daemon.error("x-blockdev-change", parent="q0", node="n")
    assert error.desc == "The node n already has a parent"
    corrupt(disks[2], 0, b"bad")
    assert handle.pread(4096, 0) == good[:4096]
    handle.pwrite(b"new", 0)
    handle.flush()
    assert (box / "n.img").read_bytes()[:3] == b"new"
    daemon.error("x-blockdev-change", parent="q0")
    daemon.error("x-blockdev-change", parent="f0", node="n")
    error = daemon.error("x-blockdev-change", parent="zz", node="n")
    assert "zz" in error.desc


@pytest.mark.ours("for tests of ours")
def test_failing_child_is_outvoted(daemons, box, connect_nbd):
    daemon = daemons("--allow-fault-injection")
    add_faulty(daemon, box, [], [], [{"op": "any"}])
    add_quorum(daemon)
    handle = serve(daemon, connect_nbd)
    handle.pwrite(b"x" * 512, 0)
    event = daemon.qmp.take_event("QUORUM_REPORT_BAD")
    assert event["data"]["type"] == "write"
    assert event["data"]["error"] == "Input/output error"
    assert event["data"]["node-name"] == "f2"
    assert handle.pread(512, 0) == b"x" * 512
    handle.flush()


@pytest.mark.ours("fault nodes")
def test_child_that_is_coming_can_be_asked_about(daemons, box):
    """It waits for a write that takes long; queries do not."""
    daemon = daemons("--allow-fault-injection")
    add_faulty(daemon, box,
               [{"op": "write", "delay-ms": 1500, "errno": ""}], [])
    add_quorum(daemon, 1, 1)
    path = daemon.start_nbd()
    daemon.add_export("q0", writable=True)
    with nbd.RawNbd(path).go("q0") as client:
        client.send_request(nbd.CMD_WRITE, 0, 512, data=b"x" * 512)
        harness.wait_until(
            lambda: daemon.cmd("query-nbd-clients")[0]["in-flight"] == 1)
        other = daemon.client()
        change = other.send("x-blockdev-change", {"parent": "q0", "node": "f1"})
        asked = 0
        while daemon.cmd("query-nbd-clients")[0]["in-flight"] == 1:
            daemon.cmd("query-named-block-nodes")
            daemon.cmd("query-named-block-nodes", flat=True)
            asked += 1
        assert asked > 0
        assert other.reply(change)["return"] == {}


@pytest.mark.ours("fault nodes")
def test_requests_that_overlap_find_children_equal(daemons, box):
    """Children take their time, each its own; what they have is the same."""
    daemon = daemons("--allow-fault-injection")
    slow = [{"op": "write", "errno": "", "delay-ms": 5, "probability": 50}]
    add_faulty(daemon, box, slow, slow)
    add_quorum(daemon, count=2)
    path = daemon.start_nbd()
    daemon.add_export("q0", writable=True)
    with nbd.RawNbd(path) as client:
        client.go("q0")
        for i in range(50):
            for shift in (0, 512):
                client.send_request(nbd.CMD_WRITE, shift, 4096,
                                    data=bytes([i]) * 4096)
            read = client.send_request(nbd.CMD_READ, 0, 8192)
            for _ in range(3):
                error, cookie = struct.unpack(">4xIQ", client.recv(16))
                assert error == 0
                if cookie == read:
                    client.recv(8192)
    assert (box / "d0").read_bytes() == (box / "d1").read_bytes()
    daemon.cmd("query-version")
    assert not [e for e in daemon.qmp.events if "QUORUM" in e["event"]]


@pytest.mark.peers("qemu-io")
def test_real_client(daemon, disks):
    add_quorum(daemon)
    path = daemon.start_nbd()
    daemon.add_export("q0", writable=True)
    text = harness.run("qemu-io", "-f", "raw", "-c", "write -P 3 0 300k", "-c",
                       "read -P 3 0 300k", "-c", "write -z 64k 64k", "-c",
                       "read -P 0 64k 64k", "-c", "discard 0 64k", "-c",
                       "flush", f"nbd+unix:///q0?socket={path}")
    assert "failed" not in text
