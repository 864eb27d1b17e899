# SPDX-License-Identifier: GPL-2.0-or-later
"""A short form of scripts/soak: replication past many changes of TLS keys."""
import pytest

import soak

SECONDS = 12
REKEY = 256  # records; as few as the daemon takes


@pytest.mark.ours("the reference cannot be told to change keys")
@pytest.mark.peers("nbdcopy")
@pytest.mark.parametrize("engines", [("own", "own"), ("gnutls", "gnutls"),
                                     ("own", "gnutls"), ("gnutls", "own")],
                         ids="+".join)
def test_mirror_past_many_keys(engines, daemons, box, tls_dir):
    one = soak.Soak(daemons, box, tls_dir, engines, REKEY, 32 * soak.MIB)
    one.run(SECONDS)
    for site in reversed(one.sites):
        assert site.daemon.finish() is None
    one.check_keys(least=5)
    print(one.report())
