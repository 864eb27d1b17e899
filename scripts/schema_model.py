# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads schema/*.json and checks it. Knows nothing of C.

Every mistake in a schema ends here, as a SchemaError that names the file, the
definition and the member, so that the emitters can trust what they are given.
"""
import json
import pathlib
import re

# Built-in types: name -> name in introspection.
BUILTINS = {
    "str": "str", "secret": "str", "any": "any", "bool": "bool",
    "null": "null", "number": "number", "int": "int", "size": "int",
    **{f"{sign}int{bits}": "int" for sign in ("", "u")
       for bits in (8, 16, 32, 64)},
}
# Introspection name -> JSON type, as QEMU's introspection spells it.
JSON_TYPES = {"str": "string", "int": "int", "number": "number",
              "bool": "boolean", "any": "value", "null": "null"}
KINDS = ("enum", "struct", "union", "alternate", "command", "event")
KEYS = {  # kind -> keys besides itself, doc, features and deprecated
    "enum": "values", "struct": "base members option",
    "union": "base members tag cases option", "alternate": "choices",
    "command": "args returns errors since allow-oob text-result",
    "event": "args since rate-limit-ms rate-key",
}
MEMBER_KEYS = {"type", "doc", "default", "optional", "features", "deprecated"}
NAMES = {
    "type": (r"[A-Z][A-Za-z0-9]*", "CamelCase"),
    "command": (r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", "lower-case"),
    "event": (r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", "UPPER_CASE"),
    "member": (r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", "lower-case"),
    "value": (r"[a-z0-9]+([-_.][a-z0-9]+)*", "lower-case"),
}


class SchemaError(Exception):
    """A mistake in the schema; the text says where."""


class Type:
    """A type: a built-in, a definition or an array of another type."""

    def __init__(self, kind, name, source=None):
        self.kind = kind            # builtin, list or one of KINDS
        self.name = name
        self.source = source        # file name, None for built-in and list
        self.doc = ""
        self.features = []
        self.deprecated = None
        self.element = None         # list
        self.values = []            # enum: Member-like, type is None
        self.base = None            # struct, union
        self.members = []           # struct, union: own members
        self.tag = None             # union: the Member
        self.cases = {}             # union: value -> Type
        self.choices = []           # alternate: types
        self.used = False

    def all_members(self):
        """Members of the base, then the own ones."""
        return (self.base.all_members() if self.base else []) + self.members

    def json_type(self):
        """What tells the branches of an alternate apart."""
        if self.kind == "builtin":
            return JSON_TYPES[BUILTINS[self.name]]
        return {"enum": "string", "list": "array"}.get(self.kind, "object")


class Member:
    """A member of an object, an argument, or a value of an enum."""

    def __init__(self, name, typ, doc):
        self.name = name
        self.type = typ
        self.doc = doc
        self.optional = False
        self.default = None
        self.features = []
        self.deprecated = None

    @property
    def required(self):
        return not self.optional and self.default is None


class Command:
    """A command or an event."""

    def __init__(self, name, source):
        self.name = name
        self.source = source
        self.doc = ""
        self.features = []
        self.deprecated = None
        self.members = []           # inline arguments
        self.args = None            # a Type, or None if it takes nothing
        self.boxed = False          # the arguments are a named type
        self.returns = None
        self.errors = []
        self.since = ""
        self.allow_oob = False
        self.text_result = False    # the function gives the result as text
        self.rate_limit_ms = 0
        self.rate_key = None


class Schema:
    """All definitions of a set of files, checked."""

    def __init__(self, paths):
        self.types = {name: Type("builtin", name) for name in BUILTINS}
        self.commands = []
        self.events = []
        self.lists = {}             # element name -> Type
        self.where = ""
        definitions = [d for path in paths for d in self._load(path)]
        for source, kind, name, body in definitions:
            self._declare(source, kind, name, body)
        for source, kind, name, body in definitions:
            self.where = f"{source}: {kind} '{name}'"
            getattr(self, f"_define_{kind}")(name, body)
        for source, kind, name, body in definitions:
            self.where = f"{source}: {kind} '{name}'"
            getattr(self, f"_check_{kind}", lambda *_: None)(name, body)
        self._check_use(definitions)

    def fail(self, text):
        raise SchemaError(f"{self.where}: {text}")

    def user_types(self, *kinds):
        """The types of the given kinds, in the order of the files."""
        return [t for t in self.types.values() if t.kind in kinds]

    # Reading.

    def _load(self, path):
        path = pathlib.Path(path)
        self.where = path.name

        def no_duplicates(pairs):
            seen = set()
            for key, _ in pairs:
                if key in seen:
                    self.fail(f"key '{key}' appears twice in one object")
                seen.add(key)
            return dict(pairs)

        try:
            items = json.loads(path.read_text(encoding="utf-8"),
                               object_pairs_hook=no_duplicates)
        except json.JSONDecodeError as error:
            raise SchemaError(f"{path.name}:{error.lineno}:{error.colno}: "
                              f"{error.msg}") from error
        if not isinstance(items, list):
            self.fail("must be an array of definitions")
        for number, body in enumerate(items):
            self.where = f"{path.name}: definition {number + 1}"
            if not isinstance(body, dict):
                self.fail("must be an object")
            kinds = [k for k in KINDS if k in body]
            if len(kinds) != 1:
                self.fail(f"must have exactly one of {', '.join(KINDS)}")
            yield path.name, kinds[0], body[kinds[0]], body

    def _declare(self, source, kind, name, body):
        self.where = f"{source}: {kind} '{name}'"
        self._name(name, kind if kind in ("command", "event") else "type")
        allowed = {kind, "doc", "features", "deprecated", *KEYS[kind].split()}
        for key in body:
            if key not in allowed:
                self.fail(f"unknown key '{key}'")
        if kind in ("command", "event"):
            table = self.commands if kind == "command" else self.events
            if any(c.name == name for c in table):
                self.fail("is defined twice")
            target = Command(name, source)
            table.append(target)
        else:
            if name in self.types:
                self.fail("is defined twice")
            if name.endswith("List"):
                self.fail("names that end in 'List' are kept for arrays")
            target = self.types[name] = Type(kind, name, source)
        self._common(target, body, "")

    def _common(self, target, body, prefix):
        """doc, features and deprecated, which everything can have."""
        target.doc = body.get("doc", "")
        if not isinstance(target.doc, str) or not target.doc.strip():
            self.fail(f"{prefix}lacks a doc")
        target.features = list(body.get("features", []))
        target.deprecated = body.get("deprecated")
        if target.deprecated is not None:
            if not isinstance(target.deprecated, str) or \
                    not target.deprecated.startswith("use "):
                self.fail(f"{prefix}deprecated must read 'use ...'")
            target.features.insert(0, "deprecated")

    def _name(self, name, what):
        pattern, style = NAMES[what]
        if not isinstance(name, str) or not re.fullmatch(pattern, name):
            self.fail(f"bad {what} name '{name}': must be {style}")

    def _type(self, spec, who):
        if isinstance(spec, list):
            if len(spec) != 1 or not isinstance(spec[0], str):
                self.fail(f"{who}: an array type is a list of one type name")
            element = self._type(spec[0], who)
            if element.name in ("null", "secret", "any"):
                self.fail(f"{who}: no arrays of '{element.name}'")
            if element.name not in self.lists:
                made = Type("list", spec[0] + "List")
                self.lists[element.name] = made
                made.element = element
            return self.lists[element.name]
        if not isinstance(spec, str) or spec not in self.types:
            self.fail(f"{who}: unknown type '{spec}'")
        return self.types[spec]

    def _members(self, body, what="member"):
        if not isinstance(body, dict):
            self.fail(f"{what}s must be an object")
        return [self._member(name, spec, what) for name, spec in body.items()]

    def _member(self, name, spec, what):
        who = f"{what} '{name}'"
        self._name(name, "member")
        if name == "u" or name.startswith("has-") or name.startswith("has_"):
            self.fail(f"{who}: the name is kept for generated code")
        if not isinstance(spec, dict):
            self.fail(f"{who}: must be an object with type and doc")
        for key in spec:
            if key not in MEMBER_KEYS:
                self.fail(f"{who}: unknown key '{key}'")
        if "type" not in spec:
            self.fail(f"{who}: lacks a type")
        member = Member(name, self._type(spec["type"], who), "")
        if member.type.name == "null":
            self.fail(f"{who}: 'null' is for alternates only")
        self._common(member, spec, f"{who}: ")
        member.optional = spec.get("optional", False)
        if "default" in spec:
            if "optional" in spec:
                self.fail(f"{who}: has both default and optional")
            member.default = spec["default"]
        elif not isinstance(member.optional, bool):
            self.fail(f"{who}: optional must be true or false")
        return member

    # One method for each kind of definition.

    def _define_enum(self, name, body):
        values = body.get("values")
        if not isinstance(values, dict) or not values:
            self.fail("values must be an object that is not empty")
        for value, spec in values.items():
            self._name(value, "value")
            member = Member(value, None, "")
            spec = {"doc": spec} if isinstance(spec, str) else spec
            if not isinstance(spec, dict):
                self.fail(f"value '{value}': must be a doc or an object")
            self._common(member, spec, f"value '{value}': ")
            self.types[name].values.append(member)

    def _define_struct(self, name, body):
        target = self.types[name]
        if "base" in body:
            target.base = self._type(body["base"], "base")
            if target.base.kind != "struct":
                self.fail("base must be a struct")
        target.members = self._members(body.get("members", {}))
        if "option" in body:
            target.used = True

    def _define_union(self, name, body):
        self._define_struct(name, body)
        cases = body.get("cases")
        if not isinstance(cases, dict):
            self.fail("cases must be an object")
        for value, spec in cases.items():
            branch = self._type(spec, f"case '{value}'")
            if branch.kind != "struct":
                self.fail(f"case '{value}': must be a struct")
            self.types[name].cases[value] = branch

    def _define_alternate(self, name, body):
        choices = body.get("choices")
        if not isinstance(choices, list) or len(choices) < 2:
            self.fail("choices must be an array of two types or more")
        self.types[name].choices = [
            self._type(c, f"choice '{c}'") for c in choices]

    def _define_arguments(self, target, name, body, suffix):
        args = body.get("args", {})
        if isinstance(args, str):
            target.args = self._type(args, "args")
            target.boxed = True
            if target.args.kind not in ("struct", "union"):
                self.fail("args must name a struct or a union")
        elif args:
            target.members = self._members(args, "argument")
            camel = "".join(p.capitalize() for p in re.split("[-_]", name))
            implicit = Type("struct", camel + suffix, target.source)
            implicit.doc = target.doc
            implicit.members = target.members
            if implicit.name in self.types:
                self.fail(f"type '{implicit.name}' is in the way")
            self.types[implicit.name] = target.args = implicit
        target.since = body.get("since", "")
        if not target.since:
            self.fail("lacks since")

    def _define_command(self, name, body):
        target = next(c for c in self.commands if c.name == name)
        self._define_arguments(target, name, body, "Args")
        if "returns" in body:
            target.returns = self._type(body["returns"], "returns")
        target.errors = body.get("errors", [])
        if not isinstance(target.errors, list) or \
                not all(isinstance(e, str) for e in target.errors):
            self.fail("errors must be an array of phrases")
        target.allow_oob = body.get("allow-oob", False)
        target.text_result = body.get("text-result", False)
        if target.text_result and not target.returns:
            self.fail("text-result without returns")

    def _define_event(self, name, body):
        target = next(e for e in self.events if e.name == name)
        self._define_arguments(target, name, body, "Data")
        if target.boxed:
            self.fail("args must be an object of members")
        target.rate_limit_ms = body.get("rate-limit-ms", 0)
        target.rate_key = body.get("rate-key")
        if target.rate_key and target.rate_key not in \
                [m.name for m in target.members
                 if m.type.name == "str" or m.type.kind == "enum"]:
            self.fail(f"rate-key '{target.rate_key}' is not a str or enum "
                      "argument")

    # Checks that need all definitions.

    def _check_struct(self, name, _body):
        seen, base = {name}, self.types[name].base
        while base:
            if base.name in seen:
                self.fail(f"has itself as a base, through '{base.name}'")
            seen.add(base.name)
            base = base.base
        self._check_members(self.types[name].all_members())

    def _check_union(self, name, body):
        self._check_struct(name, body)
        target = self.types[name]
        members = {m.name: m for m in target.all_members()}
        target.tag = members.get(body.get("tag"))
        if target.tag is None:
            self.fail(f"tag '{body.get('tag')}' is not a member")
        if target.tag.type.kind != "enum" or not target.tag.required:
            self.fail(f"tag '{target.tag.name}' must be a mandatory enum")
        values = [v.name for v in target.tag.type.values]
        for value, branch in target.cases.items():
            if value not in values:
                self.fail(f"case '{value}' is not a value of "
                          f"'{target.tag.type.name}'")
            for member in branch.all_members():
                if member.name in members:
                    self.fail(f"case '{value}': member '{member.name}' is "
                              "also a member of the union")

    def _check_alternate(self, name, _body):
        seen = {}
        for choice in self.types[name].choices:
            kind = choice.json_type()
            if kind == "value" or kind in seen:
                self.fail(f"choice '{choice.name}' cannot be told apart from "
                          f"'{seen.get(kind, 'the others')}'")
            seen[kind] = choice.name

    def _check_command(self, name, _body):
        target = next(c for c in self.commands if c.name == name)
        self._check_members(target.members)

    def _check_event(self, name, _body):
        target = next(e for e in self.events if e.name == name)
        self._check_members(target.members)

    def _check_members(self, members):
        seen = set()
        for member in members:
            key = member.name.replace("-", "_")
            if key in seen:
                self.fail(f"member '{member.name}' appears twice")
            seen.add(key)
            if member.default is not None:
                self._check_default(member)

    def _check_default(self, member):
        name, value = member.type.name, member.default
        limits = re.fullmatch(r"(u?)int(8|16|32|64)", name) or \
            re.fullmatch(r"(u?)int(64)", {"int": "int64", "size": "uint64"}
                         .get(name, ""))
        if member.type.kind == "enum":
            good = value in [v.name for v in member.type.values]
        elif limits:
            bits = int(limits[2]) - (not limits[1])
            low = 0 if limits[1] else -(1 << bits)
            good = type(value) is int and low <= value < 1 << bits
        elif name == "number":
            good = type(value) in (int, float)
        else:
            good = isinstance(value, {"bool": bool, "str": str}.get(name, ()))
        if not good:
            self.fail(f"member '{member.name}': {json.dumps(value)} is not a "
                      f"default that type '{name}' can have")

    def _check_use(self, definitions):
        roots = [t for c in self.commands + self.events
                 for t in (c.args, c.returns) if t]
        todo = roots + [t for t in self.types.values() if t.used]
        for typ in todo:
            typ.used = False
        while todo:
            typ = todo.pop()
            if typ.used:
                continue
            typ.used = True
            todo += [m.type for m in typ.members] + typ.choices
            todo += list(typ.cases.values())
            todo += [t for t in (typ.base, typ.element) if t]
        for source, kind, name, _ in definitions:
            if kind not in ("command", "event") and not self.types[name].used:
                self.where = f"{source}: {kind} '{name}'"
                self.fail("is not used by any command, event or option")
