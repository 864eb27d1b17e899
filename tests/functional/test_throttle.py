# SPDX-License-Identifier: GPL-2.0-or-later
"""throttle-group objects and throttle nodes."""
import time

import pytest

import harness
import rawnbd as nbd

KINDS = [f"{unit}-{what}" for unit in ("iops", "bps")
         for what in ("total", "read", "write")]
KEYS = sorted([*KINDS, *(f"{k}-max" for k in KINDS),
               *(f"{k}-max-length" for k in KINDS), "iops-size"])
KIB = 1024


def add_group(daemon, ident="tg0", **limits):
    return daemon.cmd("object-add", qom_type="throttle-group", id=ident,
                      limits=limits)


def get_limits(daemon, ident="tg0"):
    return daemon.cmd("qom-get", path=f"/objects/{ident}", property="limits")


def set_limits(daemon, ident="tg0", **limits):
    return daemon.cmd("qom-set", path=f"/objects/{ident}", property="limits",
                      value={k.replace("_", "-"): v
                             for k, v in limits.items()})


def add_throttle(daemon, node, child, group="tg0", **options):
    return daemon.execute("blockdev-add", {
        "driver": "throttle", "node-name": node, "throttle-group": group,
        "file": child, **options})


def qemu_io(path, export, *commands):
    arguments = [a for c in commands for a in ("-c", c)]
    started = time.monotonic()
    text = harness.run("qemu-io", "-f", "raw", *arguments,
                       f"nbd+unix:///{export}?socket={path}")
    assert "failed" not in text, text
    return time.monotonic() - started


# Limits.

def test_all_limits_are_shown(daemon):
    add_group(daemon, **{"iops-total": 100, "bps-read": 5000,
                         "bps-read-max": 6000, "bps-read-max-length": 3})
    limits = get_limits(daemon)
    assert sorted(limits) == KEYS
    assert limits["iops-total"] == 100
    assert limits["bps-read-max"] == 6000
    assert limits["bps-read-max-length"] == 3
    assert limits["bps-write-max-length"] == 1
    assert limits["iops-write"] == 0


def test_both_spellings(daemon):
    daemon.cmd("object-add", qom_type="throttle-group", id="tg0",
               **{"x-iops-total": 100, "x-iops-total-max": 200})
    limits = get_limits(daemon)
    assert limits["iops-total"] == 100 and limits["iops-total-max"] == 200
    assert daemon.cmd("qom-get", path="tg0", property="x-iops-total") == 100
    error = daemon.error("qom-set", path="tg0", property="x-iops-total",
                         value=5)
    assert "cannot be set after initialization" in error.desc
    daemon.cmd("object-add", qom_type="throttle-group", id="none")
    assert get_limits(daemon, "none")["bps-total"] == 0
    names = {p["name"] for p in daemon.cmd("qom-list", path="/objects/tg0")}
    assert {"type", "limits", "x-bps-write-max-length"} <= names


def test_omitted_keys_keep_their_value(daemon):
    add_group(daemon, **{"iops-total": 100, "iops-total-max": 200})
    set_limits(daemon, bps_read=4096)
    limits = get_limits(daemon)
    assert limits["iops-total"] == 100 and limits["bps-read"] == 4096
    # What is refused changes nothing.
    error = daemon.error("qom-set", path="tg0", property="limits",
                         value={"bps-read": 1, "iops-read": 1})
    assert "cannot be used at the same time" in error.desc
    assert get_limits(daemon) == limits
    daemon.error("qom-set", path="tg0", property="limits", value=7)
    daemon.error("qom-set", path="tg0", property="limits", value={"x": 7})
    daemon.error("qom-set", path="tg0", property="limits",
                 value={"bps-read": {"a": 1}})
    assert get_limits(daemon) == limits


@pytest.mark.ours("some of these crash it")
def test_nested_values_are_refused(daemon):
    add_group(daemon)
    value = 1
    for _ in range(500):
        value = [value]
    error = daemon.error("qom-set", path="tg0", property="limits", value=value)
    assert "nested too deeply" in error.desc


@pytest.mark.parametrize("limits, text", [
    ({"bps-total": 1, "bps-read": 1},
     "bps/iops/max total values and read/write values cannot be used at the "
     "same time"),
    ({"iops-total": 1, "iops-write": 1},
     "bps/iops/max total values and read/write values cannot be used at the "
     "same time"),
    ({"bps-read": 5, "bps-read-max": 4},
     "bps_max/iops_max cannot be lower than bps/iops"),
    ({"bps-read-max": 4},
     "bps_max/iops_max require corresponding bps/iops values"),
    ({"iops-total": 10 ** 15 + 1},
     "bps/iops/max values must be within [0, 1000000000000000]"),
    ({"iops-total": -1},
     "bps/iops/max values must be within [0, 1000000000000000]"),
    ({"iops-total": 1, "iops-total-max": 2, "iops-total-max-length": 0},
     "the burst length cannot be 0"),
    ({"iops-total": 1, "iops-total-max-length": 2},
     "burst length set without burst rate"),
    ({"iops-total": 1, "iops-total-max": 10 ** 12,
      "iops-total-max-length": 10 ** 4},
     "burst length too high for this burst rate"),
    ({"iops-size": 4096}, "iops size requires an iops value to be set"),
])
def test_bad_limits_are_refused(daemon, limits, text):
    error = daemon.error("object-add", qom_type="throttle-group", id="tg0",
                         limits=limits)
    assert error.cls == "GenericError" and error.desc == text
    error = daemon.error("object-del", id="tg0")
    assert "not found" in error.desc


# Nodes.

def test_group_in_use_is_not_deleted(daemon, image):
    add_group(daemon)
    daemon.add_file(image)
    error = daemon.error("blockdev-add", driver="throttle", node_name="t0",
                         throttle_group="nope", file="disk")
    assert error.desc == "Throttle group 'nope' does not exist"
    add_throttle(daemon, "t0", "disk")
    error = daemon.error("object-del", id="tg0")
    assert "object 'tg0' is in use, can not be deleted" in error.desc
    if not harness.IS_REFERENCE:
        assert "node 't0'" in error.desc
    daemon.cmd("blockdev-del", node_name="t0")
    daemon.cmd("object-del", id="tg0")


@pytest.mark.peers("qemu-io")
def test_rate_is_kept_and_changes_live(daemon, image):
    """The limits are for the sum of both nodes."""
    add_group(daemon, **{"bps-total": 1 << 20})
    daemon.add_file(image)
    path = daemon.start_nbd()
    for node in ("t0", "t1"):
        add_throttle(daemon, node, "disk")
        daemon.add_export(node, writable=True)
    # What the bucket holds is free, so the last request does not count.
    assert qemu_io(path, "t0", "read 0 512k", "write -z 0 512k", "read 0 4k",
                   "write 0 4k") > 0.85
    assert qemu_io(path, "t1", "read 0 1M", "write 0 4k", "write 0 4k") > 0.85
    set_limits(daemon, bps_total=0)
    assert qemu_io(path, "t0", "read 0 4M", "read 0 4M", "read 0 4M") < 5


@pytest.mark.peers("qemu-io")
def test_reopen_moves_to_another_group(daemon, image):
    add_group(daemon, "slow", **{"iops-total": 1})
    add_group(daemon, "fast")
    daemon.add_file(image)
    add_throttle(daemon, "t0", "disk", "slow")
    path = daemon.start_nbd()
    daemon.add_export("t0", writable=True)
    options = {"driver": "throttle", "node-name": "t0", "file": "disk"}
    daemon.execute("blockdev-reopen",
                   {"options": [{**options, "throttle-group": "fast"}]})
    daemon.cmd("object-del", id="slow")
    assert qemu_io(path, "t0", *["read 0 4k"] * 30) < 10
    daemon.error("blockdev-reopen",
                 options=[{**options, "throttle-group": "slow"}])
    daemon.error("object-del", id="fast")


def test_throttled_requests_do_not_hold_up_removal(daemon, image, connect_nbd):
    """Sixty requests at one a second, and a client that waits for them."""
    nbd = pytest.importorskip("nbd")
    add_group(daemon, **{"iops-total": 1})
    daemon.add_file(image)
    add_throttle(daemon, "t0", "disk")
    path = daemon.start_nbd()
    daemon.add_export("t0", writable=True)
    handle = connect_nbd(path, "t0")
    buffers = [nbd.Buffer(512) for _ in range(60)]
    for i, buffer in enumerate(buffers):
        handle.aio_pread(buffer, i * 512)
    while handle.aio_in_flight() > 58:
        handle.poll(-1)
    started = time.monotonic()
    daemon.cmd("block-export-del", id="exp-t0", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED")
    daemon.cmd("blockdev-del", node_name="t0")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("above", (None, "raw", "copy-on-read"))
def test_large_write_is_one_request(daemon, image, above):
    """However the server does it: a limit counts what clients ask for."""
    daemon.add_file(image, "disk")
    add_group(daemon, **{"iops-write": 1000})
    add_throttle(daemon, "t0", "disk")
    top = "t0"
    if above:
        top = "top"
        daemon.cmd("blockdev-add", driver=above, node_name=top, file="t0")
    daemon.start_nbd()
    daemon.add_export(top, writable=True)
    with nbd.RawNbd(daemon.nbd_path) as client:
        client.go(top)
        for _ in range(3):
            assert client.write(0, b"x" * (1 << 20)) == 0
    stats = {s["node-name"]: s["stats"]
             for s in daemon.cmd("query-blockstats", query_nodes=True)}
    assert stats["t0"]["wr_operations"] == 3
