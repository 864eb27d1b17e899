# SPDX-License-Identifier: GPL-2.0-or-later
"""One export that each transport leads to, for real clients."""
import pytest

import harness
from served import Served

TRANSPORTS = ("unix", "tcp", "tls-unix", "tls")
SIZE = 24 << 20


@pytest.fixture
def sparse_image(box):
    """Islands of noise in a sparse file."""
    return harness.make_image(box / "disk.img", SIZE, {
        offset << 20: harness.random_bytes(700_000, seed=offset)
        for offset in (0, 3, 9, 17, 23)})


@pytest.fixture(params=TRANSPORTS)
def served(request, daemon, tls_dir, sparse_image):
    return Served(daemon, request.param, tls_dir, sparse_image)
