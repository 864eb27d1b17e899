# SPDX-License-Identifier: GPL-2.0-or-later
"""Types as query-qmp-schema describes them, joined with documentation.

The introspection of the daemon at hand says what exists. The documentation,
plain data made by the schema generator, adds texts, defaults and type names
where it knows them; nothing depends on it.
"""
import json
import os
import sys

SCALARS = {"string": "string", "int": "integer", "number": "number",
           "boolean": "boolean", "null": "null", "value": "any"}
NO_DOC = {}


class Member:
    """A member of an object: an argument, or a part of one."""

    def __init__(self, entry, typ, doc):
        self.name = entry["name"]
        self.type = typ
        self.required = "default" not in entry
        self.features = entry.get("features", [])
        self.doc = doc.get("doc", "")
        self.default = doc.get("default")
        self.deprecated = doc.get("deprecated")


class Type:
    """A type of the introspection; doc is what is known of it besides.

    kind: string, integer, number, boolean, null, any, enum, array, object or
    alternate
    """

    def __init__(self, schema, entry, spec):
        self.schema = schema
        self.entry = entry
        self.spec = spec                # as the documentation spells it
        self.doc = schema.doc_of_type(spec)
        meta = entry.get("meta-type")
        self.kind = SCALARS.get(entry.get("json-type"), "any") \
            if meta == "builtin" else meta

    @property
    def secret(self):
        return self.spec == "secret"

    # Enumerations, arrays, alternates.

    def values(self):
        """[(value, doc)] of an enumeration."""
        names = [m["name"] for m in self.entry.get("members", [])] or \
            self.entry.get("values", [])
        docs = self.doc.get("values", {})
        return [(name, docs.get(name, NO_DOC).get("doc", ""))
                for name in names]

    def element(self):
        spec = self.spec[0] if isinstance(self.spec, list) else None
        return self.schema.type(self.entry.get("element-type"), spec)

    def choices(self):
        members = self.entry.get("members", [])
        specs = self.doc.get("choices", [])
        if len(specs) != len(members):
            specs = [None] * len(members)
        return [self.schema.type(m["type"], s)
                for m, s in zip(members, specs)]

    def choice(self, *kinds):
        """The first choice of an alternate that has one of the kinds."""
        return next((c for c in self.choices() if c.kind in kinds), None)

    # Objects.

    @property
    def tag(self):
        return self.entry.get("tag")

    def cases(self):
        """[(value of the tag, Type of the branch)] of a union."""
        docs = self.doc.get("cases", {})
        return [(v["case"], self.schema.type(v["type"], docs.get(v["case"])))
                for v in self.entry.get("variants", [])]

    def own_members(self):
        docs = self.doc.get("members", {})
        return [Member(entry, self.schema.type(
                    entry["type"], docs.get(entry["name"], NO_DOC).get("type")),
                    docs.get(entry["name"], NO_DOC))
                for entry in self.entry.get("members", [])]

    def members(self, given=NO_DOC):
        """Members of an object, with those of the branch given names."""
        members = self.own_members()
        value = given.get(self.tag) if self.tag else None
        if isinstance(value, str):
            for case, branch in self.cases():
                if case == value:
                    members += branch.members(given)
        return members

    def member(self, name, given=NO_DOC):
        return next((m for m in self.members(given) if m.name == name), None)

    def step(self, name, given):
        """The type that a name or an index leads to, or None.

        given: the value so far, a dictionary if it is known
        """
        if self.kind == "alternate":
            inner = self.choice("array" if name.isdigit() else "object")
            return inner.step(name, given) if inner else None
        if self.kind == "array":
            return self.element() if name.isdigit() else None
        if self.kind == "object":
            found = self.member(name, given if isinstance(given, dict)
                                else NO_DOC)
            return found.type if found else None
        return None

    def text(self):
        """What a value looks like, in a few words."""
        if self.kind == "enum":
            names = [name for name, _ in self.values()]
            shown = "|".join(names[:8])
            return shown + ("|..." if len(names) > 8 else "")
        if self.kind == "array":
            return f"list of {self.element().text()}"
        if self.kind == "alternate":
            return " or ".join(c.text() for c in self.choices())
        if self.kind == "object" and isinstance(self.spec, str):
            return f"object {self.spec}"
        if self.kind == "integer" and self.spec == "size":
            return "integer (bytes)"
        return self.kind


class Call:
    """A command or an event."""

    def __init__(self, schema, entry, doc):
        self.name = entry["name"]
        self.features = entry.get("features", [])
        self.allow_oob = entry.get("allow-oob", False)
        self.args = schema.type(entry.get("arg-type"), doc.get("args"))
        self.returns = schema.type(entry["ret-type"], doc.get("returns")) \
            if "ret-type" in entry else None    # None for an event
        self.doc = doc.get("doc", "")
        self.errors = doc.get("errors", [])
        self.since = doc.get("since")
        self.deprecated = doc.get("deprecated")


# What entries have besides their names: a text, or a list of objects that
# have these texts.
TEXT = object()
SHAPES = {
    "builtin": {"json-type": TEXT},
    "enum": {},
    "array": {"element-type": TEXT},
    "object": {"members": ("name", "type")},
    "alternate": {"members": ("type",)},
    "command": {"arg-type": TEXT, "ret-type": TEXT},
    "event": {"arg-type": TEXT},
}


def has_texts(value, names):
    return isinstance(value, dict) and all(
        isinstance(value.get(name), str) for name in names)


def check_entry(entry):
    """Raises ValueError if an entry is not one of introspection."""
    if not has_texts(entry, ("name", "meta-type")):
        raise ValueError("an entry lacks its name")
    shape = dict(SHAPES.get(entry["meta-type"], {}))
    if "tag" in entry:
        shape.update({"tag": TEXT, "variants": ("case", "type")})
    for key, names in shape.items():
        value = entry.get(key)
        good = isinstance(value, str) if names is TEXT else \
            isinstance(value, list) and all(has_texts(v, names)
                                            for v in value)
        if not good:
            raise ValueError(f"'{entry['name']}' has no good {key}")


class Schema:
    """The interface of one daemon.

    entries: the result of query-qmp-schema; ValueError if it cannot be one
    docs: the documentation, or None
    """

    def __init__(self, entries, docs=None):
        if not isinstance(entries, list):
            raise ValueError("the introspection is not a list")
        for entry in entries:
            check_entry(entry)
        self.docs = docs or {}
        self.entries = {e["name"]: e for e in entries}
        self.names = {
            meta: sorted(e["name"] for e in entries if e["meta-type"] == meta)
            for meta in ("command", "event")}

    def doc_of_type(self, spec):
        if isinstance(spec, str):
            return self.docs.get("types", NO_DOC).get(spec, NO_DOC)
        return NO_DOC

    def type(self, name, spec=None):
        entry = self.entries.get(name) or {"name": name,
                                           "meta-type": "builtin"}
        return Type(self, entry, spec)

    def _call(self, meta, name):
        entry = self.entries.get(name)
        if not entry or entry["meta-type"] != meta:
            return None
        return Call(self, entry,
                    self.docs.get(meta + "s", NO_DOC).get(name, NO_DOC))

    def command(self, name):
        """The command of this name, or None."""
        return self._call("command", name)

    def event(self, name):
        return self._call("event", name)

    def action(self, name):
        """The type of the data of an action of a transaction, or None."""
        actions = self.actions()
        branch = actions and actions.member("data", {actions.tag: name})
        return branch.type if branch else None

    def actions(self):
        """The union of the actions of a transaction, or None."""
        call = self.command("transaction")
        member = call and call.args.member("actions")
        if not member or member.type.kind != "array":
            return None
        return member.type.element()

    def actions_entry(self):
        actions = self.actions()
        return actions.entry if actions else None

    def action_names(self):
        actions = self.actions()
        return [case for case, _ in actions.cases()] if actions else []


def load_docs(directory):
    """The documentation: a file beside the package, else the source tree's.

    directory: where the package is
    """
    path = os.path.join(os.path.dirname(directory), "qmp-doc.json")
    scripts = os.path.dirname(directory)
    sources = os.path.join(os.path.dirname(scripts), "schema")
    try:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        if os.path.exists(os.path.join(scripts, "schema_docs.py")):
            return docs_of_tree(scripts, sources)
    except (OSError, ValueError):
        pass
    return None


def docs_of_tree(scripts, sources):
    """Makes the documentation from schema/*.json, in a source tree."""
    sys.path.insert(0, scripts)
    try:
        import schema_docs
        import schema_model
    finally:
        sys.path.remove(scripts)
    files = sorted(os.path.join(sources, name)
                   for name in os.listdir(sources) if name.endswith(".json"))
    try:
        return schema_docs.docs(schema_model.Schema(files))
    except schema_model.SchemaError as error:
        raise ValueError(str(error)) from error
