# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of odd, sparse and huge size, and a full disk."""
import os
import random

import pytest

import harness
import rawnbd as nbd


def connect(daemon, export="disk", structured=False):
    client = nbd.RawNbd(daemon.nbd_path)
    if structured:
        client.negotiate_structured()
        client.set_meta(export, "base:allocation")
    return client.go(export)


# Sizes.

@pytest.mark.parametrize("size", (1, 511, 513, 1_000_000, 4097))
def test_odd_size_is_rounded_up_and_reads_zero(daemon, box, size):
    path = harness.make_image(box / "odd.img", size,
                              {0: harness.random_bytes(size)})
    content = path.read_bytes()
    daemon.serve_file(path)
    shown = (size + 511) // 512 * 512
    with connect(daemon, structured=True) as client:
        assert client.size == shown
        assert client.read(0, shown) == (
            0, content + bytes(shown - size))
        assert client.read(shown - 1, 1)[0] == 0
        assert client.request(nbd.CMD_READ, shown, 1) == nbd.EINVAL
        error, found = client.status(0, shown)
        assert error == 0 and sum(n for n, _ in found[0]) == shown


def test_write_into_the_rounding_is_kept(daemon, box):
    path = harness.make_image(box / "odd.img", 1000, {0: b"o" * 1000})
    daemon.serve_file(path)
    with connect(daemon) as client:
        assert client.write(900, b"n" * 124) == 0
        assert client.read(0, 1024) == (0, b"o" * 900 + b"n" * 124)
    assert path.read_bytes()[:1000] == b"o" * 900 + b"n" * 100


def test_empty_image(daemon, box):
    path = harness.make_image(box / "empty.img", 0)
    daemon.serve_file(path)
    with connect(daemon, structured=True) as client:
        assert client.size == 0
        assert client.read(0, 0) == (0, b"")
        assert client.request(nbd.CMD_READ, 0, 1) == nbd.EINVAL
        assert client.request(nbd.CMD_FLUSH) == 0


def test_beyond_two_tebibytes(daemon, box):
    size = (5 << 40) + 512
    path = harness.make_image(box / "huge.img", size)
    daemon.serve_file(path, discard="unmap")
    with connect(daemon, structured=True) as client:
        assert client.size == size
        for offset in ((2 << 40) - 512, 2 << 40, (4 << 40) + 12345,
                       size - 1024):
            data = harness.random_bytes(1024, seed=offset)
            assert client.write(offset, data) == 0
            assert client.read(offset, 1024) == (0, data)
        assert client.request(nbd.CMD_WRITE_ZEROES, 3 << 40, 1 << 20) == 0
        assert client.request(nbd.CMD_TRIM, 2 << 40, 4096) == 0
        error, found = client.status((4 << 40), 1 << 20)
        assert error == 0 and {f for _, f in found[0]} == {0, 3}
        assert client.request(nbd.CMD_READ, size, 1) == nbd.EINVAL
    with open(path, "rb") as file:
        file.seek((4 << 40) + 12345)
        assert file.read(1024) == harness.random_bytes(
            1024, seed=(4 << 40) + 12345)


def test_file_that_shrinks_behind_our_back(daemon, image):
    """Reads beyond the new end are zero or fail; the daemon stays."""
    daemon.serve_file(image)
    with connect(daemon) as client:
        os.truncate(image, 1 << 20)
        error, data = client.read(2 << 20, 65536)
        assert error in (0, nbd.EIO)
        assert not any(data)
        # A large read that begins before the end may end the connection.
        try:
            error, data = client.read(0, 4 << 20)
            assert error in (0, nbd.EIO)
        except nbd.Closed:
            pass
    with connect(daemon) as client:
        assert client.read(0, 512)[0] == 0


def test_map_of_many_extents(daemon, box):
    """More islands than a status reply may need chunks for."""
    count = 3000
    path = harness.make_image(box / "comb.img", count * 16384, {
        n * 16384: b"d" * 4096 for n in range(count)})
    daemon.serve_file(path)
    with connect(daemon, structured=True) as client:
        position, extents = 0, []
        while position < client.size:
            error, found = client.status(position, client.size - position)
            assert error == 0
            position += sum(n for n, _ in found[0])
            extents += found[0]
        data = sum(n for n, flags in extents if flags == 0)
        assert data == count * 4096 and len(extents) >= 2 * count - 1
        assert client.read(0, 1 << 20) == (0, path.read_bytes()[:1 << 20])


# Against a model.

@pytest.mark.parametrize("options", (
    {}, {"cache": {"direct": True}}, {"discard": "unmap"},
    {"detect-zeroes": "unmap", "discard": "unmap"},
    {"cache": {"no-flush": True}}), ids=lambda o: "-".join(o) or "plain")
def test_random_requests_agree_with_a_model(daemon, box, options):
    size = 1 << 20
    path = harness.make_image(box / "m.img", size)
    daemon.serve_file(path, **options)
    model, source = bytearray(size), random.Random(str(options))
    with connect(daemon, structured=True) as client:
        for _ in range(400):
            length = source.choice((1, 511, 512, 4096, 5000, 65536, 100_000))
            offset = source.randrange(0, size - length)
            kind = source.randrange(6)
            if kind < 2:
                data = source.randbytes(length) if kind else bytes(length)
                assert client.write(offset, data,
                                    source.choice((0, nbd.FUA))) == 0
                model[offset:offset + length] = data
            elif kind == 2:
                assert client.request(
                    nbd.CMD_WRITE_ZEROES, offset, length,
                    source.choice((0, nbd.NO_HOLE))) == 0
                model[offset:offset + length] = bytes(length)
            elif kind == 3:
                assert client.request(nbd.CMD_FLUSH) == 0
            else:
                assert client.read(offset, length,
                                   source.choice((0, nbd.DF))) == (
                    0, bytes(model[offset:offset + length]))
        assert client.read(0, size) == (0, bytes(model))
    assert path.read_bytes() == bytes(model)


# A full disk.

@pytest.fixture
def small_disk(box):
    """A 4 MiB file system of its own; needs root."""
    if os.getuid() != 0:
        pytest.skip("needs root to mount")
    place = box / "small"
    place.mkdir()
    harness.run("mount", "-t", "tmpfs", "-o", "size=4m", "none", place)
    yield place
    harness.run("umount", "-l", place)


def test_full_disk_reaches_the_client_as_enospc(daemon, small_disk):
    path = harness.make_image(small_disk / "d.img", 16 << 20)
    daemon.serve_file(path, discard="unmap")
    with connect(daemon) as client:
        errors = [client.write(n << 20, b"f" * (1 << 20)) for n in range(8)]
        assert errors[0] == 0 and errors[-1] == nbd.ENOSPC
        assert set(errors) == {0, nbd.ENOSPC}
        # What was written is still there, and room can be made.
        assert client.read(0, 1 << 20) == (0, b"f" * (1 << 20))
        assert client.request(nbd.CMD_WRITE_ZEROES, 0, 2 << 20) == 0
        assert client.request(nbd.CMD_TRIM, 0, 2 << 20) == 0
        assert client.write(8 << 20, b"g" * (1 << 20)) == 0
        assert client.request(nbd.CMD_FLUSH) == 0
    assert daemon.cmd("query-block-exports")


def test_zeroes_on_a_full_disk(daemon, small_disk):
    path = harness.make_image(small_disk / "d.img", 16 << 20)
    daemon.serve_file(path)
    with connect(daemon) as client:
        assert client.request(nbd.CMD_WRITE_ZEROES, 0, 16 << 20,
                              nbd.NO_HOLE) in (0, nbd.ENOSPC)
        assert client.read(0, 4096) == (0, bytes(4096))


# Block devices.

@pytest.fixture
def loop_device(box):
    """A block device on a file; needs root and the loop driver."""
    if os.getuid() != 0 or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs root and loop devices")
    path = harness.make_image(box / "loop.img", 8 << 20)
    device = harness.run("losetup", "--find", "--show", path).strip()
    yield device
    harness.run("losetup", "-d", device)


def test_block_device(daemon, loop_device):
    error = daemon.error("blockdev-add", driver="file", node_name="x",
                         filename=loop_device)
    assert loop_device in error.desc
    daemon.execute("blockdev-add", {
        "driver": "host_device", "node-name": "disk",
        "filename": loop_device, "discard": "unmap"})
    daemon.start_nbd()
    daemon.add_export("disk", writable=True)
    with connect(daemon, structured=True) as client:
        assert client.size == 8 << 20
        data = harness.random_bytes(1 << 20, seed=1)
        assert client.write(12345, data) == 0
        assert client.read(12345, 1 << 20) == (0, data)
        assert client.request(nbd.CMD_WRITE_ZEROES, 65536, 65536) == 0
        assert client.request(nbd.CMD_TRIM, 1 << 20, 1 << 20) == 0
        assert client.read(65536, 65536) == (0, bytes(65536))
        assert client.request(nbd.CMD_FLUSH) == 0
        error, found = client.status(0, 8 << 20)
        assert error == 0 and sum(n for n, _ in found[0]) == 8 << 20
