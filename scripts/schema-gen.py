#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Command line of the schema generator.

    schema-gen.py types OUTDIR FILE...   writes types.h and types.c
    schema-gen.py qmp OUTDIR FILE...     writes gen-*.[ch] and qmp-reference.md
    schema-gen.py check FILE...          writes nothing

A mistake in the schema is one line on stderr and exit status 1; then nothing
is written.
"""
import pathlib
import sys

import schema_emit
import schema_model


def main(argv):
    if len(argv) < 3 or argv[1] not in ("types", "qmp", "check"):
        sys.exit(__doc__)
    files = argv[2:] if argv[1] == "check" else argv[3:]
    try:
        schema = schema_model.Schema(files)
    except schema_model.SchemaError as error:
        sys.exit(f"schema-gen: {error}")
    if argv[1] == "check":
        return
    emit = schema_emit.types if argv[1] == "types" else schema_emit.qmp
    for name, text in emit(schema).items():
        pathlib.Path(argv[2], name).write_text(text, encoding="utf-8")


main(sys.argv)
