# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks values against what query-qmp-schema says of a daemon."""

SCALARS = {
    "string": str, "number": (int, float), "int": int, "boolean": bool,
    "null": type(None),
}


class Schema:
    def __init__(self, entries):
        self.types = {entry["name"]: entry for entry in entries}

    def command(self, name):
        entry = self.types.get(name)
        return entry if entry and entry["meta-type"] == "command" else None

    def event(self, name):
        entry = self.types.get(name)
        return entry if entry and entry["meta-type"] == "event" else None

    def problems(self, value, type_name, path="", extra=()):
        """Yields what is wrong with a value; extra: member paths that may be
        there though the schema lacks them."""
        entry = self.types[type_name]
        yield from getattr(self, "check_" + entry["meta-type"])(
            value, entry, path, extra)

    def check_builtin(self, value, entry, path, _extra):
        kind = entry["json-type"]
        if kind == "value":
            return
        wanted = SCALARS[kind]
        is_bool = isinstance(value, bool)
        if not isinstance(value, wanted) or is_bool != (kind == "boolean"):
            yield f"{path}: {value!r} is no {kind}"

    def check_enum(self, value, entry, path, _extra):
        if value not in entry["values"]:
            yield f"{path}: {value!r} is none of {entry['values']}"

    def check_array(self, value, entry, path, extra):
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no array"
            return
        for item in value:
            yield from self.problems(item, entry["element-type"],
                                     f"{path}[]", extra)

    def check_alternate(self, value, entry, path, extra):
        tries = [list(self.problems(value, m["type"], path, extra))
                 for m in entry["members"]]
        if all(tries):
            yield f"{path}: {value!r} fits no alternative"

    def members(self, value, entry):
        """All members of an object, with those of its variant."""
        members = {m["name"]: m for m in entry["members"]}
        tag = entry.get("tag")
        if tag is not None and tag in value:
            for variant in entry["variants"]:
                if variant["case"] == value[tag]:
                    members.update(self.members(
                        value, self.types[variant["type"]]))
        return members

    def check_object(self, value, entry, path, extra):
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no object"
            return
        members = self.members(value, entry)
        for name, member in members.items():
            here = f"{path}.{name}"
            if here in extra:
                continue
            if name in value:
                yield from self.problems(value[name], member["type"], here,
                                         extra)
            elif "default" not in member:
                yield f"{here}: is missing"
        for name in value:
            if name not in members and f"{path}.{name}" not in extra:
                yield f"{path}.{name}: is not in the schema"


def key_paths(value, path=""):
    """The set of all member paths in a value; array items are merged."""
    paths = set()
    if isinstance(value, dict):
        for name, item in value.items():
            paths.add(f"{path}.{name}")
            paths |= key_paths(item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            paths |= key_paths(item, f"{path}[]")
    return paths
