# SPDX-License-Identifier: GPL-2.0-or-later
"""blockdev-add, -del, -reopen, queries and resizing."""
import json
import os

import pytest

import harness
import qmp
import rawnbd as nbd


def add(daemon, **options):
    return daemon.execute("blockdev-add", options)


def refused(daemon, options):
    """blockdev-add that must fail and leave nothing; returns the text."""
    before = daemon.cmd("query-named-block-nodes")
    with pytest.raises(qmp.QmpError) as caught:
        daemon.execute("blockdev-add", options)
    assert caught.value.cls == "GenericError"
    assert daemon.cmd("query-named-block-nodes") == before
    return caught.value.desc


def node(daemon, name):
    return next(n for n in daemon.cmd("query-named-block-nodes")
                if n["node-name"] == name)


def size_of(daemon, name):
    return node(daemon, name)["image"]["virtual-size"]


@pytest.fixture
def disk(box):
    return harness.make_image(box / "d.img", 1 << 20, {0: b"x" * 4096})


def file_node(path, name="f0", **options):
    return {"driver": "file", "node-name": name, "filename": str(path),
            **options}


# Adding.

def test_node_is_described(daemon, disk):
    daemon.execute("blockdev-add", {
        "driver": "raw", "node-name": "r0", "file": file_node(disk)})
    found = node(daemon, "r0")
    assert found["drv"] == "raw" and found["ro"] is False
    assert found["file"] == str(disk)
    assert found["backing_file_depth"] == 0 and found["encrypted"] is False
    assert found["detect_zeroes"] == "off"
    assert found["cache"] == {"writeback": True, "direct": False,
                              "no-flush": False}
    assert found["write_threshold"] == 0
    assert found["iops"] == found["bps"] == 0
    image = found["image"]
    assert image["virtual-size"] == 1 << 20
    below = {"driver": "null-co", "size": 512, "read-zeroes": True}
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "r1",
                                    "file": below})
    text = node(daemon, "r1")["file"]
    assert text.startswith("json:")  # there is no file
    assert json.loads(text[5:]) == {"driver": "raw", "file": below}
    assert image["filename"] == str(disk) and image["format"] == "raw"
    assert node(daemon, "f0")["drv"] == "file"


def test_queries_list_newest_first(daemon):
    for name in ("a", "b", "c"):
        add(daemon, driver="null-co", **{"node-name": name})
    names = [n["node-name"] for n in daemon.cmd("query-named-block-nodes")]
    assert names == ["c", "b", "a"]


def test_inline_children_get_automatic_names(daemon, disk):
    daemon.execute("blockdev-add", {
        "driver": "raw", "node-name": "r0",
        "file": {"driver": "file", "filename": str(disk)}})
    names = [n["node-name"] for n in daemon.cmd("query-named-block-nodes")]
    child = next(n for n in names if n != "r0")
    assert child.startswith("#block")
    assert "owned" in daemon.error("blockdev-del", node_name=child).desc or \
        "in use" in daemon.error("blockdev-del", node_name=child).desc


@pytest.mark.parametrize("name", ("a", "Z9", "a-b_c.d", "n" * 31))
def test_good_names(daemon, name):
    add(daemon, driver="null-co", **{"node-name": name})
    daemon.cmd("blockdev-del", node_name=name)


@pytest.mark.parametrize("name, words", [
    ("9x", "9x"), ("", ""), ("a b", "a b"), ("#block1", "#block1"),
    ("n" * 32, "too long"), ("é", "")])
def test_bad_names(daemon, name, words):
    assert words in refused(daemon, {"driver": "null-co", "node-name": name})


@pytest.mark.parametrize("options, words", [
    ({"driver": "null-co"}, "node-name"),
    ({"driver": "nosuch", "node-name": "n"}, "nosuch"),
    ({"driver": "raw", "node-name": "n", "file": "nosuch"}, "nosuch"),
    (file_node("/nonexistent/x"), "No such file"),
    (file_node("/tmp"), "/tmp"),
    (file_node("/dev/null"), "/dev/null"),
    ({"driver": "host_device", "node-name": "n", "filename": "/etc/passwd"},
     "/etc/passwd"),
    ({"driver": "null-co", "node-name": "n", "latency-ns": -1}, "latency-ns"),
    ({"driver": "null-co", "node-name": "n", "detect-zeroes": "unmap"},
     "discard"),
    ({"driver": "null-co", "node-name": "n", "discard": "maybe"}, "maybe"),
    ({"driver": "null-co", "node-name": "n", "force-share": True},
     "force-share"),
])
def test_refusals_are_explained(daemon, options, words):
    assert words in refused(daemon, options)


@pytest.mark.parametrize("size", (True, 1.5, None, [], {}))
def test_size_of_another_type_is_refused(daemon, size):
    assert refused(daemon, {"driver": "null-co", "node-name": "n",
                            "size": size}) == \
        "Invalid parameter type for 'size', expected: integer"


@pytest.mark.ours("the reference crashes")
@pytest.mark.parametrize("size", (-1, -512, (1 << 63) - 1, (1 << 64) - 1))
def test_impossible_size_is_refused(daemon, size):
    assert "size" in refused(daemon, {"driver": "null-co", "node-name": "n",
                                      "size": size})


@pytest.mark.parametrize("name", ("offset", "size"))
@pytest.mark.parametrize("value, words", [
    *((value, "Invalid parameter type for '{}', expected: integer")
      for value in ("x", True, 1.5, 1 << 63)),
    (-512, "Parameter '{}' expects a non-negative")])
def test_window_of_a_wrong_type_is_refused(daemon, disk, name, value, words):
    assert refused(daemon, {
        "driver": "raw", "node-name": "n", name: value,
        "file": file_node(disk)}).startswith(words.format(name))


def test_duplicate_name_is_refused(daemon):
    add(daemon, driver="null-co", **{"node-name": "n"})
    assert "Duplicate" in refused(daemon, {"driver": "null-co",
                                           "node-name": "n"})


def test_missing_file_is_named(daemon):
    desc = refused(daemon, file_node("/nonexistent/name"))
    assert "'/nonexistent/name'" in desc


def test_failing_parent_takes_its_child_along(daemon, disk):
    refused(daemon, {"driver": "raw", "node-name": "r0", "offset": 1 << 30,
                     "file": file_node(disk)})
    add(daemon, **file_node(disk))


@pytest.mark.parametrize("options", [
    {"driver": "raw", "file": "n0", "offset": 8 << 20},
    {"driver": "quorum", "vote-threshold": 1, "children": ["n0", "n1"]}])
def test_failing_parent_leaves_others_alone(daemon, disk, options):
    """Nobody waits for what it would do to nodes that are in use."""
    add(daemon, **file_node(disk, "n0"))
    add(daemon, **{"driver": "null-co", "node-name": "n1", "size": 512})
    refused(daemon, {"node-name": "top", **options})
    stats = {s["node-name"]: s["stats"]
             for s in daemon.cmd("query-blockstats", query_nodes=True)}
    assert stats["n0"]["flush_operations"] == 0
    assert stats["n1"]["flush_operations"] == 0


@pytest.mark.parametrize("options", [
    {"driver": "quorum", "vote-threshold": 1, "children": ["n0", "gone"]},
    {"driver": "quorum", "vote-threshold": 1, "children": ["gone", "n0"]},
    {"driver": "copy-before-write", "file": "n0", "target": "gone"},
    {"driver": "copy-before-write", "file": "gone", "target": "n0"},
    {"driver": "copy-on-read", "file": "gone"},
    {"driver": "snapshot-access", "file": "gone"},
    {"driver": "throttle", "throttle-group": "tg", "file": "gone"},
    {"driver": "raw", "file": "gone"}])
def test_child_that_is_not_there(daemon, options):
    """The half of a node that was made goes without a trace."""
    daemon.cmd("object-add", qom_type="throttle-group", id="tg")
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "n0"})
    with pytest.raises(qmp.QmpError, match="gone"):
        daemon.execute("blockdev-add", {"node-name": "top", **options})
    daemon.cmd("blockdev-del", node_name="n0")
    assert daemon.cmd("query-named-block-nodes") == []


def test_unreadable_file_is_refused(daemon, disk, box):
    if os.getuid() == 0:
        os.symlink("loop", box / "loop")
        assert "loop" in refused(daemon, file_node(box / "loop"))
    else:
        disk.chmod(0)
        assert "denied" in refused(daemon, file_node(disk))


def test_aio_choices(daemon, disk):
    for number, aio in enumerate(("threads", "io_uring")):
        add(daemon, **file_node(disk, f"f{number}", aio=aio))
    assert "direct" in refused(daemon, file_node(disk, "n", aio="native"))
    add(daemon, **file_node(disk, "f9", aio="native",
                            cache={"direct": True}))


def test_auto_read_only(daemon, disk, box):
    """Only a file that cannot be written makes the node read-only."""
    link = box / "ro"
    link.mkdir()
    copy = harness.make_image(link / "d.img", 4096)
    add(daemon, **file_node(copy, "w", **{"auto-read-only": True}))
    daemon.start_nbd()
    daemon.add_export("w", writable=True)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("w")
        assert client.write(0, b"x" * 512) == 0


def test_read_only_node_is_not_exported_writable(daemon, disk):
    add(daemon, **file_node(disk, **{"read-only": True}))
    daemon.start_nbd()
    error = daemon.error("block-export-add", type="nbd", id="e",
                         node_name="f0", writable=True)
    assert "read-only" in error.desc
    daemon.add_export("f0")


# The raw driver.

@pytest.fixture
def window(daemon, disk):
    def make(**options):
        daemon.execute("blockdev-add", {
            "driver": "raw", "node-name": "r0", "file": file_node(disk),
            **options})
        daemon.start_nbd()
        daemon.add_export("r0", writable=True)
        return nbd.RawNbd(daemon.nbd_path).go("r0")
    return make


def test_raw_window(window, disk):
    with window(offset=8192, size=4096) as client:
        assert client.size == 4096
        assert client.write(0, b"w" * 4096) == 0
        assert client.request(nbd.CMD_READ, 4096, 1) == nbd.EINVAL
    data = disk.read_bytes()
    assert data[8192:12288] == b"w" * 4096
    assert data[:8192] == b"x" * 4096 + bytes(4096)


def test_raw_offset_alone_takes_the_rest(window):
    with window(offset=(1 << 20) - 1024) as client:
        assert client.size == 1024


@pytest.mark.parametrize("options, words", [
    ({"offset": (1 << 20) + 512}, "ffset"),
    ({"offset": 512, "size": 1 << 20}, "size"),
    ({"size": 1000}, "512"),
    ({"offset": -512}, ""),
])
def test_raw_window_must_fit(daemon, disk, options, words):
    assert words in refused(daemon, {
        "driver": "raw", "node-name": "r0", "file": file_node(disk),
        **options})


@pytest.mark.parametrize("options", [{"offset": 4096},
                                     {"offset": 4096, "size": 4096}])
def test_what_a_window_is_cut_from_is_not_resized(daemon, disk, options):
    add(daemon, **file_node(disk))
    add(daemon, driver="raw", file="f0", **{"node-name": "r0"}, **options)
    for size in 2048, 2 << 20:
        error = daemon.error("block_resize", node_name="f0", size=size)
        assert "r0" in error.desc, error
    add(daemon, driver="raw", file="f0", **{"node-name": "whole"})
    daemon.cmd("blockdev-del", node_name="r0")
    daemon.cmd("block_resize", node_name="f0", size=2 << 20)
    assert size_of(daemon, "whole") == 2 << 20


def test_raw_on_a_named_child(daemon, disk):
    add(daemon, **file_node(disk))
    add(daemon, driver="raw", file="f0", **{"node-name": "r0"})
    error = daemon.error("blockdev-del", node_name="f0")
    assert "in use" in error.desc and "f0" in error.desc
    daemon.cmd("blockdev-del", node_name="r0")
    daemon.cmd("blockdev-del", node_name="f0")


# null.

def test_null_drivers(daemon):
    daemon.start_nbd()
    for driver in ("null-co", "null-aio"):
        add(daemon, driver=driver, size=1 << 20,
            **{"node-name": driver, "read-zeroes": True,
               "latency-ns": 1000000})
        daemon.add_export(driver, writable=True)
        with nbd.RawNbd(daemon.nbd_path) as client:
            client.go(driver)
            assert client.write(0, b"gone" * 128) == 0
            assert client.read(0, 512) == (0, bytes(512))
    add(daemon, driver="null-co", **{"node-name": "d"})
    assert size_of(daemon, "d") == 1 << 30


@pytest.mark.ours("the reference may give uninitialised memory")
def test_null_never_shows_old_memory(daemon):
    add(daemon, driver="null-co", size=1 << 20, **{"node-name": "n"})
    daemon.start_nbd()
    daemon.add_export("n", writable=True)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("n")
        assert client.write(0, b"old" * 10000) == 0
        assert client.read(0, 1 << 20) == (0, bytes(1 << 20))


# Deleting.

def test_del_of_unknown_node(daemon):
    error = daemon.error("blockdev-del", node_name="nope")
    assert error.cls == "GenericError" and "nope" in error.desc


def test_del_refuses_what_is_exported(daemon, disk):
    daemon.serve_file(disk)
    error = daemon.error("blockdev-del", node_name="disk")
    assert "disk" in error.desc and "in use" in error.desc
    daemon.cmd("block-export-del", id="exp-disk")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
    daemon.cmd("blockdev-del", node_name="disk")


def open_files(daemon):
    found = []
    for entry in os.listdir(f"/proc/{daemon.pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{daemon.pid}/fd/{entry}"))
        except OSError:
            continue
    return found


def test_del_has_closed_the_file_when_it_replies(daemon, disk):
    for _ in range(20):
        add(daemon, **file_node(disk))
        assert str(disk) in open_files(daemon)
        daemon.cmd("blockdev-del", node_name="f0")
        assert str(disk) not in open_files(daemon)


def test_add_and_del_leak_nothing(daemon, disk):
    add(daemon, **file_node(disk))
    daemon.cmd("blockdev-del", node_name="f0")
    before = len(open_files(daemon))
    for _ in range(100):
        add(daemon, **file_node(disk))
        daemon.cmd("blockdev-del", node_name="f0")
        refused(daemon, file_node("/nonexistent"))
    assert len(open_files(daemon)) <= before


# Reopening.

def reopen(daemon, *options):
    return daemon.execute("blockdev-reopen", {"options": list(options)})


def test_reopen_turns_read_only_on_and_off(daemon, disk):
    add(daemon, **file_node(disk))
    reopen(daemon, file_node(disk, **{"read-only": True}))
    assert node(daemon, "f0")["ro"]
    daemon.start_nbd()
    daemon.error("block-export-add", type="nbd", id="e", node_name="f0",
                 writable=True)
    reopen(daemon, file_node(disk))
    assert not node(daemon, "f0")["ro"]
    daemon.add_export("f0", writable=True)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("f0")
        assert client.write(0, b"y" * 512) == 0


def test_reopen_resets_what_is_not_given(daemon, disk):
    add(daemon, **file_node(disk, cache={"no-flush": True}))
    assert node(daemon, "f0")["cache"]["no-flush"]
    reopen(daemon, file_node(disk, cache={"direct": True}))
    cache = node(daemon, "f0")["cache"]
    assert cache["direct"] and not cache["no-flush"]
    reopen(daemon, file_node(disk))
    assert not node(daemon, "f0")["cache"]["direct"]


def test_reopen_refusals_change_nothing(daemon, disk, box):
    other = harness.make_image(box / "o.img", 1 << 20)
    add(daemon, **file_node(disk))
    add(daemon, driver="null-co", size=1 << 20, **{"node-name": "n"})
    before = daemon.cmd("query-named-block-nodes")
    null = {"driver": "null-co", "node-name": "n"}
    cases = [
        ([{"driver": "file", "filename": str(disk)}], "node-name"),
        ([file_node(disk, "nope")], "nope"),
        ([file_node(other)], "filename"),
        ([null], "size"),
        ([file_node(disk, **{"read-only": True}), null], "size"),
        ([{**file_node(disk), "driver": "raw", "file": "n"}], ""),
    ]
    for options, words in cases:
        with pytest.raises(qmp.QmpError) as caught:
            if "driver" in options[0] and options[0]["driver"] == "raw":
                options[0].pop("filename")
            reopen(daemon, *options)
        assert words in caught.value.desc, caught.value.desc
        assert daemon.cmd("query-named-block-nodes") == before


def inline_nodes(disk):
    """A node in a node in a node, each with its options."""
    file = {"driver": "file", "node-name": "file", "filename": str(disk)}
    middle = {"driver": "raw", "node-name": "middle", "file": file}
    return {"driver": "raw", "node-name": "top", "file": middle}


def test_reopen_of_nodes_that_only_follow(daemon, disk):
    """They keep their children, and these what they have."""
    top = inline_nodes(disk)
    daemon.execute("blockdev-add", top)
    daemon.execute("blockdev-reopen", {"options": [
        {**top["file"]["file"], "cache": {"no-flush": True}}]})
    for _ in range(3):
        daemon.execute("blockdev-reopen", {"options": [
            {**top, "file": "middle", "read-only": True}]})
    nodes = {n["node-name"]: n for n in daemon.cmd("query-named-block-nodes")}
    assert all(n["ro"] for n in nodes.values())
    assert [nodes[n]["cache"]["no-flush"] for n in (
        "top", "middle", "file")] == [False, False, True]


def test_reopen_under_load(daemon, disk):
    """Requests wait while options change, and none is lost."""
    add(daemon, **file_node(disk))
    daemon.start_nbd()
    daemon.add_export("f0", writable=True)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("f0")
        for turn in range(30):
            cookies = [client.send_request(
                nbd.CMD_WRITE, n * 4096, 4096, 0, bytes([turn]) * 4096)
                for n in range(32)]
            direct = bool(turn % 2)
            reopen(daemon, file_node(disk, cache={"direct": direct}))
            errors = [client.read_reply()[0].error for _ in cookies]
            assert errors == [0] * 32
        assert client.read(0, 32 * 4096) == (0, bytes([29]) * 32 * 4096)


def test_reopen_may_insert_and_remove_a_window(daemon, disk):
    """The parent's child changes while clients are connected."""
    add(daemon, **file_node(disk))
    add(daemon, **file_node(disk, "f1"))
    add(daemon, driver="raw", file="f0", **{"node-name": "top"})
    daemon.start_nbd()
    daemon.add_export("top", writable=True)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("top")
        assert client.write(0, b"a" * 512) == 0
        for child in ("f1", "f0", "f1"):
            reopen(daemon, {"driver": "raw", "node-name": "top",
                            "file": child})
            assert client.read(0, 512) == (0, b"a" * 512)
            assert client.write(512, b"b" * 512) == 0
    daemon.cmd("blockdev-del", node_name="f0")


# Resizing.

def test_resize(daemon, disk):
    add(daemon, **file_node(disk))
    daemon.cmd("block_resize", node_name="f0", size=2 << 20)
    assert disk.stat().st_size == size_of(daemon, "f0") == 2 << 20
    daemon.cmd("block_resize", node_name="f0", size=4096)
    assert disk.stat().st_size == 4096


@pytest.mark.parametrize("arguments, words", [
    ({"size": 512}, "node-name"),
    ({"node-name": "nope", "size": 512}, "nope"),
    ({"device": "nope", "size": 512}, "nope"),
    ({"node-name": "f0", "size": -1}, "size"),
    ({"node-name": "f0"}, "size"),
    ({"node-name": "ro", "size": 512}, "read-only"),
])
def test_resize_refusals(daemon, disk, arguments, words):
    add(daemon, **file_node(disk))
    add(daemon, **file_node(disk, "ro", **{"read-only": True}))
    with pytest.raises(qmp.QmpError) as caught:
        daemon.execute("block_resize", arguments)
    assert words in caught.value.desc, caught.value.desc
    assert disk.stat().st_size == 1 << 20


def test_exported_node_is_not_resized(daemon, disk):
    daemon.serve_file(disk)
    error = daemon.error("block_resize", node_name="disk", size=4096)
    assert "disk" in error.desc
    assert disk.stat().st_size == 1 << 20


def test_fixed_window_is_not_resized(daemon, disk):
    daemon.execute("blockdev-add", {
        "driver": "raw", "node-name": "r0", "size": 4096,
        "file": file_node(disk)})
    assert daemon.error("block_resize", node_name="r0", size=8192)
    assert size_of(daemon, "r0") == 4096


def test_query_flat(daemon, disk):
    add(daemon, **file_node(disk))
    flat = daemon.cmd("query-named-block-nodes", flat=True)
    assert [n["node-name"] for n in flat] == ["f0"]


# Detecting zeroes and discarding.

@pytest.mark.parametrize("mode, punches", [
    ("off", False), ("on", False), ("unmap", True)])
def test_detect_zeroes(daemon, box, mode, punches):
    path = harness.make_image(box / "z.img", 1 << 20,
                              {0: harness.random_bytes(1 << 20)})
    daemon.serve_file(path, discard="unmap", **{"detect-zeroes": mode})
    before = os.stat(path).st_blocks
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go("disk")
        assert client.write(0, bytes(1 << 19)) == 0
        assert client.write((1 << 19) + 1, bytes(4096) + b"x") == 0
        assert client.read(0, 1 << 19) == (0, bytes(1 << 19))
    assert (os.stat(path).st_blocks < before) == punches
    data = path.read_bytes()
    assert data[(1 << 19) + 1:(1 << 19) + 4097 + 1] == bytes(4096) + b"x"
