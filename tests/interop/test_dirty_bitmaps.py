# SPDX-License-Identifier: GPL-2.0-or-later
"""Real NBD clients look at our dirty bitmaps, over every transport."""
import json

import pytest

from harness import run

KIB = 1024


@pytest.fixture
def tracked(served):
    """An export "tracked" with a bitmap that has seen two writes."""
    daemon = served.daemon
    daemon.cmd("block-dirty-bitmap-add", node="disk", name="b0",
               granularity=64 * KIB)
    daemon.add_export("disk", "tracked", name="tracked", writable=True,
                      bitmaps=["b0"], allocation_depth=True)
    served.qemu_io("write -P 1 128k 64k", "write -z 1M 100k")
    return served


def dirty(size):
    return [(0, 128 * KIB, 0), (128 * KIB, 64 * KIB, 1),
            (192 * KIB, 832 * KIB, 0), (1024 * KIB, 128 * KIB, 1),
            (1152 * KIB, size - 1152 * KIB, 0)]


@pytest.mark.peers("nbdinfo", "qemu-io")
def test_nbdinfo_maps_bitmap(tracked):
    ranges = json.loads(run("nbdinfo", "--map=qemu:dirty-bitmap:b0", "--json",
                            tracked.uri("tracked")))
    size = tracked.path.stat().st_size
    assert [(r["offset"], r["length"], r["type"]) for r in ranges] == \
        dirty(size)
    listed = json.loads(run("nbdinfo", "--json", "--no-content",
                            tracked.uri("tracked")))
    assert listed["exports"][0]["contexts"] == [
        "base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0"]


@pytest.mark.peers("nbdinfo", "qemu-io")
def test_nbdinfo_maps_depth(tracked):
    ranges = json.loads(run("nbdinfo", "--map=qemu:allocation-depth",
                            "--json", tracked.uri("tracked")))
    assert [(r["length"], r["type"]) for r in ranges] == [
        (tracked.path.stat().st_size, 1)]


@pytest.mark.peers("qemu-img", "qemu-io")
def test_qemu_img_maps_bitmap(tracked):
    ranges = json.loads(tracked.qemu_img(
        "map", "--output=json", "--image-opts",
        tracked.image_opts("tracked") + ",x-dirty-bitmap=qemu:dirty-bitmap:b0"))
    size = tracked.path.stat().st_size
    # The client shows dirty ranges as holes.
    assert [(r["start"], r["length"], int(not r["data"]))
            for r in ranges] == dirty(size)


@pytest.mark.peers("qemu-io")
def test_libnbd_sees_all_contexts_at_once(tracked):
    nbd = pytest.importorskip("nbd")
    handle = nbd.NBD()
    for context in ("base:allocation", "qemu:dirty-bitmap:b0"):
        handle.add_meta_context(context)
    if tracked.tls:
        handle.set_tls(nbd.TLS_REQUIRE)
        handle.set_tls_certificates(str(tracked.tls_dir))
    handle.set_uri_allow_local_file(True)
    handle.connect_uri(tracked.uri("tracked"))
    assert handle.can_meta_context("qemu:dirty-bitmap:b0")
    found = {}

    def extents(context, offset, entries, error):
        found[context] = list(zip(entries[0::2], entries[1::2]))

    handle.block_status(2 << 20, 0, extents)
    assert set(found) == {"base:allocation", "qemu:dirty-bitmap:b0"}
    assert found["qemu:dirty-bitmap:b0"][:2] == [(128 * KIB, 0),
                                                 (64 * KIB, 1)]
    handle.shutdown()
