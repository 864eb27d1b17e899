# SPDX-License-Identifier: GPL-2.0-or-later
"""Wrong arguments of a command, made from query-qmp-schema.

Every object that a command can take, in any depth and with each branch of a
union, is a place; in a place each member can be missing, have a wrong type or
an unknown value, and a member can be there that does not exist. All else is
right, so that there is one thing only to complain of.
"""
import collections

UNKNOWN = "no-such-argument"
# A value of each JSON type, and the types that take it.
VALUES = (
    (None, {"null"}), (True, {"boolean"}), (5, {"int", "number"}),
    (1.5, {"number"}), ("no-such-value", {"string"}), ([], {"array"}),
    ({}, {"object"}))

# name: as messages have it, with its path but for values of an enum
Misuse = collections.namedtuple("Misuse", "kind name arguments")


class Place:
    """One object: path is its name with a dot, or empty; wrap makes the
    command's arguments from it."""

    def __init__(self, path, wrap, sample, members):
        self.path, self.wrap = path, wrap
        self.sample, self.members = sample, members

    def with_member(self, name, value):
        return self.wrap({**self.sample, name: value})

    def without(self, name):
        return self.wrap({k: v for k, v in self.sample.items() if k != name})


class Misuses:
    def __init__(self, schema):
        self.types = schema.types

    def smallest_uses(self, command):
        """Yields the fewest arguments, for each form that they can have."""
        for sample, _ in self.branches(self.types[
                self.types[command]["arg-type"]]):
            yield sample

    def of(self, command):
        """Yields every Misuse of a command."""
        for place in self.places(self.types[command]["arg-type"], "",
                                 lambda value: value, set()):
            yield Misuse("unknown", place.path + UNKNOWN,
                         place.with_member(UNKNOWN, 1))
            for name, member in place.members.items():
                path = place.path + name
                if "default" not in member:
                    yield Misuse("missing", path, place.without(name))
                yield from self.wrong(member["type"], path, name,
                                      lambda value, name=name, place=place:
                                      place.with_member(name, value))

    def wrong(self, type_name, path, leaf, wrap):
        """Yields values that a member, or an item of it, cannot have."""
        entry = self.types[type_name]
        accepted = self.json_types(type_name)
        for value, kinds in VALUES:
            if not accepted & (kinds | {"value"}):
                yield Misuse("type", path, wrap(value))
        if entry["meta-type"] == "enum":
            yield Misuse("value", leaf, wrap("no-such-value"))
        elif entry["meta-type"] == "array":
            yield from self.wrong(entry["element-type"], f"{path}[0]",
                                  f"{leaf}[0]", lambda value: wrap([value]))

    def json_types(self, type_name):
        entry = self.types[type_name]
        kind = entry["meta-type"]
        if kind == "builtin":
            return {entry["json-type"]}
        if kind == "alternate":
            return set().union(*(self.json_types(m["type"])
                                 for m in entry["members"]))
        return {"string" if kind == "enum" else kind}

    def places(self, type_name, path, wrap, seen):
        """Yields the places in values of a type, each type once."""
        entry = self.types[type_name]
        kind = entry["meta-type"]
        if kind == "array":
            yield from self.places(entry["element-type"],
                                   path[:-1] + "[0]." if path else "",
                                   lambda value: wrap([value]), seen)
        elif kind == "alternate":
            for choice in entry["members"]:
                yield from self.places(choice["type"], path, wrap, seen)
        elif kind == "object" and type_name not in seen:
            seen.add(type_name)
            for sample, members in self.branches(entry):
                place = Place(path, wrap, sample, members)
                yield place
                for name, member in members.items():
                    yield from self.places(
                        member["type"], f"{path}{name}.",
                        lambda value, name=name, place=place:
                        place.with_member(name, value), seen)

    def branches(self, entry):
        """Yields (smallest value, members) for each form of an object."""
        base = {m["name"]: m for m in entry["members"]}
        if "tag" not in entry:
            yield self.smallest(base), base
            return
        of_case = {v["case"]: v["type"] for v in entry["variants"]}
        tag = entry["tag"]
        for case in self.types[base[tag]["type"]]["values"]:
            branch = self.types[of_case[case]] if case in of_case else None
            for sample, members in self.branches(branch) if branch else [
                    ({}, {})]:
                yield ({**self.smallest(base), **sample, tag: case},
                       {**base, **members})

    def smallest(self, members):
        return {name: self.sample(member["type"])
                for name, member in members.items() if "default" not in member}

    def sample(self, type_name):
        """A value that is right as far as the schema goes."""
        entry = self.types[type_name]
        kind = entry["meta-type"]
        if kind == "builtin":
            return {"string": "x", "int": 1, "number": 1, "boolean": True,
                    "null": None, "value": "x"}[entry["json-type"]]
        if kind == "enum":
            return entry["values"][0]
        if kind == "array":
            return []
        if kind == "alternate":
            choices = [m["type"] for m in entry["members"]]
            return self.sample(min(choices, key=lambda name: self.types[name][
                "meta-type"] == "object"))
        return next(self.branches(entry))[0]
