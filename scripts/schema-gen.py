#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Command line of the schema generator.

    schema-gen.py types OUTDIR FILE...   writes types.h and types.c
    schema-gen.py qmp OUTDIR FILE...     writes gen-*.[ch] and qmp-reference.md
    schema-gen.py docs OUTDIR FILE...    writes qmp-doc.json, for qmp-shell
    schema-gen.py man OUTDIR FILE...     writes blockferry-qmp.7
    schema-gen.py check FILE...          writes nothing

A mistake in the schema is one line on stderr and exit status 1; then nothing
is written.
"""
import json
import pathlib
import sys

import schema_docs
import schema_emit
import schema_man
import schema_model

EMITTERS = {
    "types": schema_emit.types,
    "qmp": schema_emit.qmp,
    "docs": lambda schema: {
        "qmp-doc.json": json.dumps(schema_docs.docs(schema))},
    "man": lambda schema: {
        "blockferry-qmp.7": schema_man.man(schema_docs.docs(schema))},
}


def main(argv):
    if len(argv) < 3 or argv[1] not in (*EMITTERS, "check"):
        sys.exit(__doc__)
    files = argv[2:] if argv[1] == "check" else argv[3:]
    try:
        schema = schema_model.Schema(files)
    except schema_model.SchemaError as error:
        sys.exit(f"schema-gen: {error}")
    if argv[1] == "check":
        return
    for name, text in EMITTERS[argv[1]](schema).items():
        pathlib.Path(argv[2], name).write_text(text, encoding="utf-8")


main(sys.argv)
