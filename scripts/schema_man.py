# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual page of all commands, events and types, from their documentation
as data (schema_docs.py).
"""
import json

HEAD = r'''.\" Generated from the schema; do not edit.
.TH BLOCKFERRY-QMP 7 "" "blockferry" "Miscellaneous"
.SH NAME
blockferry\-qmp \- commands, events and types of blockferryd's monitor
.SH DESCRIPTION
A monitor of
.BR blockferryd (8)
speaks QMP, the JSON protocol of QEMU. After its greeting a client sends
.IR qmp_capabilities ,
and then commands:
.PP
.nf
{"execute": "query-version"}
{"execute": "blockdev-add", "arguments": {"driver": "file", "node-name": "d", "filename": "d.img"}}
.fi
.PP
Each gets one reply, {"return": ...} or {"error": {"class": ..., "desc": ...}};
events come in between. Members in [brackets] are optional.
.BR qmp\-shell (1)
takes the same commands as words.
'''
TAIL = r'''.SH SEE ALSO
.BR blockferryd (8),
.BR blockferry\-nbd (8),
.BR qmp\-shell (1)
'''


def plain(text):
    """Text that roff prints as it is."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("\n", " ")
    return r"\&" + text if text[:1] in ".'" else text


def spelled(typ):
    return f"list of {typ[0]}" if isinstance(typ, list) else typ


def value(default):
    return default if isinstance(default, str) else json.dumps(default)


def paragraph(term, text):
    return f".TP\n.B {plain(term)}\n{plain(text)}\n"


def member(name, item):
    term = f"[{name}]" if "optional" in item or "default" in item else name
    text = f"({spelled(item['type'])}) {item['doc']}"
    if "default" in item:
        text += f" Default: {value(item['default'])}."
    if "deprecated" in item:
        text += f" Deprecated: {item['deprecated']}"
    return paragraph(term, text)


def members(typ):
    text = "".join(member(*pair) for pair in typ.get("members", {}).items())
    text += "".join(paragraph(value, item["doc"])
                    for value, item in typ.get("values", {}).items())
    if "choices" in typ:
        text += ".PP\nOne of: " + plain(", ".join(
            spelled(c) for c in typ["choices"])) + ".\n"
    for value, branch in typ.get("cases", {}).items():
        text += paragraph(value, f"has the members of {branch} as well")
    return text


def call(name, item, types):
    text = f".SS {plain(name)}\n{plain(item['doc'])}\n"
    if "args" in item:
        text += members(types[item["args"]])
    if "returns" in item:
        text += f".PP\nReturns {plain(spelled(item['returns']))}.\n"
    if item.get("errors"):
        text += f".PP\nFails if {plain('; '.join(item['errors']))}.\n"
    if "deprecated" in item:
        text += f".PP\nDeprecated: {plain(item['deprecated'])}\n"
    return text


def man(docs):
    types = docs["types"]
    used = {i.get("args") for kind in ("commands", "events")
            for i in docs[kind].values()}
    text = HEAD
    for kind in ("commands", "events"):
        text += f".SH {kind.upper()}\n" + "".join(
            call(name, item, types)
            for name, item in sorted(docs[kind].items()))
    text += ".SH TYPES\n" + "".join(
        f".SS {plain(name)}\n{plain(item['doc'])}\n" + members(item)
        for name, item in sorted(types.items()) if name not in used)
    return text + TAIL
