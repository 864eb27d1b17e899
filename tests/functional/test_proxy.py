# SPDX-License-Identifier: GPL-2.0-or-later
"""The network between our daemon and a client, as other tests bend it."""
import time

import nbd
import pytest

DELAY_MS = 20


@pytest.fixture
def far(daemon, image, box, proxies):
    """A proxy before an export of the image, and its socket."""
    path = box / "far"
    proxy = proxies(f"unix:{path}", f"unix:{daemon.serve_file(image)}",
                    delay_ms=DELAY_MS)
    return proxy, path


def test_data_arrives_late_and_whole(far, image, connect_nbd):
    proxy, path = far
    handle = connect_nbd(path)
    start = time.monotonic()
    data = handle.pread(1 << 20, 4096)
    assert time.monotonic() - start >= 2 * DELAY_MS / 1000
    assert data == image.read_bytes()[4096:4096 + (1 << 20)]
    stats = proxy.stats()
    assert stats["accepted"] == stats["open"] == 1
    assert stats["down"] > 1 << 20 and stats["up"] > 0


def test_cut_connection_fails_at_once_and_a_new_one_works(far, connect_nbd):
    proxy, path = far
    handle = connect_nbd(path)
    proxy.cut()
    with pytest.raises(nbd.Error):
        handle.pread(512, 0)
    proxy.refuse()
    with pytest.raises(nbd.Error):
        connect_nbd(path)
    proxy.accept()
    assert len(connect_nbd(path).pread(512, 0)) == 512
    assert proxy.stats()["accepted"] == 3


def test_stalled_network_goes_on_where_it_was(far, connect_nbd):
    proxy, path = far
    proxy.delay(0)
    handle = connect_nbd(path)
    proxy.stall()
    buffer = nbd.Buffer(512)
    cookie = handle.aio_pread(buffer, 0)
    assert handle.poll(100) == 0  # nothing came
    proxy.go()
    while not handle.aio_command_completed(cookie):
        handle.poll(-1)
    assert len(buffer.to_bytearray()) == 512
