# SPDX-License-Identifier: GPL-2.0-or-later
"""The documentation of a checked schema as plain data, for programs that show
it: the introspection has names and types, but neither texts nor defaults.

The result has "commands" and "events", by name, and "types", by type name.
A type is spelled as in the schema: a name, or a list of one name. Members of
a base are repeated where they are inherited.
"""


def type_name(typ):
    return [type_name(typ.element)] if typ.kind == "list" else typ.name


def member(item):
    result = {"doc": item.doc, "type": type_name(item.type)}
    if item.optional:
        result["optional"] = True
    if item.default is not None:
        result["default"] = item.default
    if item.deprecated:
        result["deprecated"] = item.deprecated
    return result


def definition(typ):
    result = {"doc": typ.doc}
    if typ.kind == "enum":
        result["values"] = {
            v.name: {"doc": v.doc, **({"deprecated": v.deprecated}
                                      if v.deprecated else {})}
            for v in typ.values}
    elif typ.kind == "alternate":
        result["choices"] = [type_name(c) for c in typ.choices]
    else:
        result["members"] = {m.name: member(m) for m in typ.all_members()}
    if typ.kind == "union":
        result["cases"] = {value: branch.name
                           for value, branch in typ.cases.items()}
    return result


def call(item):
    result = {"doc": item.doc, "since": item.since}
    if item.args:
        result["args"] = item.args.name
    if item.returns:
        result["returns"] = type_name(item.returns)
    if item.errors:
        result["errors"] = item.errors
    if item.deprecated:
        result["deprecated"] = item.deprecated
    return result


def docs(schema):
    kinds = ("enum", "struct", "union", "alternate")
    return {"commands": {c.name: call(c) for c in schema.commands},
            "events": {e.name: call(e) for e in schema.events},
            "types": {t.name: definition(t)
                      for t in schema.user_types(*kinds)}}
