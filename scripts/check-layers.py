#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Fail if a file includes a header that its layer may not see (L1, L2).

The tables are those of the layer section in the architecture page; a new
layer or a foreign library with one home is one line here.
"""
import pathlib
import re
import sys

MAY_INCLUDE = {  # layer -> layers below it that it may use
    "core": "", "schema": "core", "proto": "core", "crypto": "core schema",
    "io": "core schema proto crypto", "block": "core schema proto crypto io",
    "serve": "core schema proto crypto io block",
    "qmp": "core schema crypto io block serve", "main": "core schema block serve qmp",
}
LAYER_OF = [  # path prefix -> layer; the first match wins
    ("server/core/", "core"), ("server/proto/", "proto"), ("server/io/", "io"),
    ("server/crypto/", "crypto"), ("server/main/", "main"),
    ("server/", "serve"), ("block/", "block"), ("qmp/", "qmp"),
] + [(f"include/{layer}/", layer) for layer in MAY_INCLUDE]
ONLY_IN = {  # foreign header -> its one home
    "liburing.h": "server/core/ring.c", "gnutls/": "server/crypto/",
    "jansson.h": "qmp/", "curl/": "block/drivers/curl.c",
    "security/": "server/crypto/authz-pam.c",
    "intel-ipsec-mb.h": "server/crypto/tls13-aead-ipsec-mb.c",
    "rbd/": "block/drivers/rbd.c", "iscsi/": "block/drivers/iscsi.c",
}
HOME_HEADERS = ("include/qmp/",)  # jansson.h may show in the layer's headers
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)


def problems(root):
    for path in sorted(p for d in ("include", "server", "block", "qmp")
                       for p in (root / d).rglob("*.[ch]")):
        name = path.relative_to(root).as_posix()
        layer = next((la for pre, la in LAYER_OF if name.startswith(pre)), None)
        if layer is None:
            yield f"{name}: belongs to no layer"
            continue
        allowed = {layer, *MAY_INCLUDE[layer].split()}
        for header in INCLUDE.findall(path.read_text()):
            other = header.split("/")[0]
            if other in MAY_INCLUDE and other not in allowed:
                yield f"{name}: {layer} must not include {header}"
            for prefix, home in ONLY_IN.items():
                homes = (home,) + (HOME_HEADERS if home == "qmp/" else ())
                if header.startswith(prefix) and not name.startswith(homes):
                    yield f"{name}: {header} belongs in {home}"


if __name__ == "__main__":
    found = list(problems(pathlib.Path(sys.argv[1] if sys.argv[1:] else ".")))
    sys.exit("\n".join(found) if found else 0)
