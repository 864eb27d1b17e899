# SPDX-License-Identifier: GPL-2.0-or-later
"""Help texts, and what to try after an error.

Where there is no documentation, as with QEMU's programs, names and types are
shown all the same.
"""
import difflib
import json
import textwrap

from . import live
from .complete import first_sentence

MAX_HINTS = 6
MAX_DEPTH = 5
KIND_NAMES = {"qom": "object path", "fdset": "descriptor set"}


def wrap(text, width, indent=""):
    return textwrap.wrap(text, max(width, 40), initial_indent=indent,
                         subsequent_indent=indent)


# Members, flattened to the paths that a line has.

class Row:
    """One argument, or a remark in its place if it has no type."""

    def __init__(self, name, member=None, remark=""):
        self.name = name
        self.member = member
        self.remark = remark


def rows_of(typ, given, prefix="", depth=0):
    """Rows of the members of an object; given chooses the branches."""
    for member in typ.members(given):
        name = prefix + member.name
        inner = member.type
        part = given.get(member.name, {})
        if inner.kind == "array" and inner.element().kind == "object":
            name, inner, part = name + ".N", inner.element(), {}
        elif inner.kind == "alternate" and isinstance(part, dict) and part:
            inner = inner.choice("object")
        if inner is None or inner.kind != "object" or depth >= MAX_DEPTH:
            yield Row(name, member)
            continue
        if member.doc:
            yield Row(name, member)
        yield from rows_of(inner, part if isinstance(part, dict) else {},
                           name + ".", depth + 1)
    if typ.tag and given.get(typ.tag) not in [c for c, _ in typ.cases()]:
        branches = [case for case, branch in typ.cases()
                    if branch.own_members()]
        if branches:
            yield Row(prefix + "*", remark="More members depend on "
                      f"{prefix}{typ.tag}; add {prefix}{typ.tag}="
                      f"{branches[0]}, for example, to see them.")


def describe(member):
    """What a member's value can be."""
    text = member.type.text()
    if member.default is not None:
        text += f", default {json.dumps(member.default)}"
    features = [f for f in member.features if f != "deprecated"]
    if member.deprecated or "deprecated" in member.features:
        features.append("deprecated" + (f": {member.deprecated}"
                                        if member.deprecated else ""))
    return ", ".join([text, *features])


def list_rows(rows, width):
    lines = []
    for row in rows:
        if row.member is None:
            lines += [f"    {row.name}"] + wrap(row.remark, width, " " * 8)
            continue
        mark = "*" if row.member.required else " "
        head = wrap(f"{row.name}  {describe(row.member)}", width, "    ")
        head[0] = f"  {mark} {head[0][4:]}"
        lines += head
        lines += wrap(row.member.doc, width, " " * 8) if row.member.doc else []
        for value, doc in enum_values(row.member.type):
            lines += wrap(f"{value}: {doc}", width, " " * 10)
    return lines


def enum_values(typ):
    if typ.kind != "enum":
        return []
    return [(value, doc) for value, doc in typ.values() if doc]


def call_text(call, given, width):
    """The help text of a command or an event."""
    lines = [call.name]
    lines += wrap(call.doc, width, "    ") if call.doc else []
    notes = [f for f in call.features if f != "deprecated"]
    if call.deprecated or "deprecated" in call.features:
        notes.append(f"deprecated: {call.deprecated or 'see the manual'}")
    lines += [f"    ({', '.join(notes)})"] if notes else []
    rows = list(rows_of(call.args, given))
    title = "Arguments (* must be given):" if call.returns else "Data:"
    lines += ["", title] if rows else []
    lines += list_rows(rows, width)
    lines += returns_text(call, width)
    if call.errors:
        lines += ["", "It fails if"]
        for error in call.errors:
            lines += textwrap.wrap(error, width, initial_indent="  - ",
                                   subsequent_indent="    ")
    if call.since:
        lines += ["", f"Since {call.since}."]
    return "\n".join(lines)


def returns_text(call, width):
    typ = call.returns
    if typ is None or typ.kind == "object" and not typ.own_members():
        return []
    lines = ["", f"Returns: {typ.text()}"]
    inner = typ.element() if typ.kind == "array" else typ
    if inner.kind == "object":
        for member in inner.own_members():
            lines += wrap(f"{member.name}  {describe(member)}" +
                          (f" - {member.doc}" if member.doc else ""),
                          width, "    ")
    return lines


def overview(schema, builtins, width):
    """What help without a topic prints."""
    lines = ["Commands of this shell:"]
    for name, (usage, note) in builtins.items():
        lines += [f"  {usage}"] + wrap(note, width, "      ")
    if schema is None:
        return "\n".join([*lines, "", "The daemon's commands are not known."])
    lines += ["", "Commands of the daemon (TAB completes, help COMMAND "
              "explains):"]
    for name in schema.names["command"]:
        doc = first_sentence(schema.command(name).doc)
        line = f"  {name:32} {doc}".rstrip()
        lines.append(line if len(line) <= width else line[:width - 3] + "...")
    return "\n".join(lines)


def search(schema, word, width):
    """Commands and events whose names or texts have a word, or None."""
    lines = []
    for meta in ("command", "event"):
        for name in schema.names[meta]:
            call = schema.command(name) or schema.event(name)
            if word.lower() in f"{name} {call.doc}".lower():
                line = f"  {name:32} {first_sentence(call.doc)}".rstrip()
                lines.append(line if len(line) <= width
                             else line[:width - 3] + "...")
    return "\n".join([f"About '{word}':", *lines]) if lines else None


# What to try after an error.

def nearest(name, names):
    """Up to five names like a name, the nearest first."""
    found = difflib.get_close_matches(name, names, 3, 0.6)
    found += [n for n in names if name and name in n and n not in found]
    return found[:5]


def suggest(name, names, instead):
    found = nearest(name, list(names))
    return f"did you mean {' or '.join(found)}?" if found else instead


class Explainer:
    """Finds out what the daemon can have meant by an error.

    names: a live.Live, to say which ids there are
    others: names of commands that are not the daemon's
    """

    def __init__(self, schema, names, others=()):
        self.schema = schema
        self.live = names
        self.others = others

    def unknown_command(self, name):
        """What to try instead of a command that there is not."""
        known = [*self.schema.names["command"], *self.others]
        return suggest(str(name), known, "'help' lists the commands")

    def hints(self, request, error):
        command = request.get("execute")
        call = self.schema.command(command)
        if call is None:
            return [self.unknown_command(command)]
        arguments = request.get("arguments", {})
        found = list(self._object(call.args, arguments, ""))
        if not found:
            found = list(self._dangling(command, call.args, arguments,
                                        error.desc))
        return found[:MAX_HINTS]

    # Values that do not fit their types.

    def _object(self, typ, value, prefix):
        members = {m.name: m for m in typ.members(value)}
        cases = [case for case, _ in typ.cases()]
        known = not typ.tag or value.get(typ.tag) in cases
        for name in value:
            # Without a valid tag it is not known which members there can be.
            if known and name not in members:
                yield f"there is no '{prefix}{name}' here: " + suggest(
                    name, members, "known are " + (
                        ", ".join(members) or "no arguments"))
        for name, member in members.items():
            if name in value:
                yield from self._value(member.type, value[name],
                                       prefix + name)
            elif member.required:
                yield from self._missing(member, prefix)

    def _missing(self, member, prefix):
        name, typ = prefix + member.name, member.type
        if typ.kind == "object" and typ.own_members():
            for inner in typ.own_members():
                if inner.required:
                    yield from self._missing(inner, name + ".")
            return
        text = f"missing: {name}={typ.text()}"
        yield text + (f" - {first_sentence(member.doc)}" if member.doc else "")

    def _value(self, typ, value, name):
        kind = typ.kind
        if kind == "alternate":
            typ = self._chosen(typ, value)
            if typ is None:
                return
            kind = typ.kind
        if kind == "object" and isinstance(value, dict):
            yield from self._object(typ, value, name + ".")
        elif kind == "array" and isinstance(value, list):
            for index, item in enumerate(value):
                yield from self._value(typ.element(), item, f"{name}.{index}")
        elif kind == "enum":
            yield from self._enum(typ, value, name)
        elif not fits(kind, value):
            yield f"{name} is {with_article(typ.text())}, " \
                f"not {json.dumps(value)}"

    @staticmethod
    def _chosen(typ, value):
        """The choice that a value is for, or None if it fits as it is."""
        if isinstance(value, dict):
            return typ.choice("object") or typ.choices()[0]
        if isinstance(value, list):
            return typ.choice("array") or typ.choices()[0]
        if any(fits(c.kind, value) for c in typ.choices()
               if c.kind != "enum"):
            return None
        return typ.choice("enum") or typ.choices()[0]

    @staticmethod
    def _enum(typ, value, name):
        names = [n for n, _ in typ.values()]
        if value not in names:
            found = nearest(str(value), names)
            text = f"{name} is one of: {', '.join(names)}"
            yield text + (f" (did you mean {found[0]}?)" if found else "")

    # Names of things that do not exist.

    def _dangling(self, command, typ, value, desc, name="", given=None):
        """Follows the types to the strings that the error may be about."""
        given = value if given is None else given
        if isinstance(value, dict):
            if typ.entry is self.schema.actions_entry():
                command, given = value.get(typ.tag), value.get("data", {})
            for key, item in value.items():
                inner = typ.step(key, value)
                if inner is not None:
                    yield from self._dangling(command, inner, item, desc, key,
                                              given)
        elif isinstance(value, list):
            for item in value:
                inner = typ.step("0", value)
                if inner is not None:
                    yield from self._dangling(command, inner, item, desc,
                                              name, given)
        elif isinstance(value, str) and value and (
                value in desc or "not found" in desc):
            yield from self._unknown(str(command), typ, name, value, given)

    def _unknown(self, command, typ, name, value, given):
        kinds = live.kinds_of(command, name)
        if typ.kind == "alternate" and typ.choice("object") and \
                "bitmap" not in kinds:
            kinds = ["node"]
        for kind in kinds:
            if kind == "file":
                continue
            names = [n for n, _ in self.live.names(kind, given)]
            if value in names:
                continue
            what = kind.partition(":")[2] or KIND_NAMES.get(kind, kind)
            if names:
                yield f"{name}: there is no {what} '{value}', but " + \
                    ", ".join(names[:10])
            elif kind != "property":    # else its object is what is wrong
                yield f"{name}: there is no {what} at all"


def fits(kind, value):
    """Whether a value is of a kind of type."""
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    types = {"string": str, "boolean": bool, "null": type(None),
             "array": list, "object": dict}
    return isinstance(value, types.get(kind, object))


def with_article(text):
    return ("an " if text[:1] in "aeiou" else "a ") + text
