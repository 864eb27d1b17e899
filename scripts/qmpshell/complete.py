# SPDX-License-Identifier: GPL-2.0-or-later
"""What may come next in a line.

The answer is computed from the text up to the cursor, from the types of the
introspection, and from queries for live names; the line editor is not known
here. The values given elsewhere in the line choose the branches of unions.
"""
import json

from . import grammar, live

# Commands of the shell -> how their words are completed.
EVENT, COMMAND, QUERY, MODE = "event", "command", "query", "mode"


class Candidate:
    """A text that may stand in place of the word at the cursor."""

    def __init__(self, text, note=""):
        self.text = text
        self.note = note


def escape(text):
    """Takes the meaning from blanks, quotes and backslashes."""
    return "".join("\\" + c if c.isspace() or c in "\\'\"" else c
                   for c in text)


def argument_note(member):
    words = ["*" if member.required else " ", member.type.text()]
    if member.default is not None:
        words.append(f"(default {json.dumps(member.default)})")
    if member.doc:
        words.append("- " + first_sentence(member.doc))
    return " ".join(words)


def action_at(command, path, given):
    """The action whose data a path of the command transaction leads into."""
    if command != "transaction" or path[0] != "actions" or len(path) < 3:
        return None
    for part in path[:2]:
        given = given.get(part) if isinstance(given, dict) else None
    return given.get("type") if isinstance(given, dict) else None


def first_sentence(text):
    return text.split(". ")[0].rstrip(".")


class Completer:
    """Completes lines for one daemon.

    schema: a function that returns the Schema, or None
    names: a live.Live
    builtins: the shell's own commands: name -> (kind of words, note)
    """

    def __init__(self, schema, names, builtins):
        self.get_schema = schema
        self.live = names
        self.builtins = builtins

    def complete(self, before, after="", in_transaction=False):
        """(position, [Candidate]): what may replace the text from there on.

        before, after: the line up to the cursor, and what follows it
        """
        words = grammar.split_line(before)
        if words and words[-1].end == len(before):
            current = words.pop()
        else:
            current = grammar.Word(len(before))
        schema = self.get_schema()
        if schema is None:
            return current.start, []
        after = grammar.split_line(after)
        found = list(self._line(schema, words, current, after,
                                in_transaction))
        found.sort(key=lambda c: c.text)
        return current.start, found

    # The first words.

    def _line(self, schema, words, current, after, in_transaction):
        if words and words[0].text == "transaction(":
            words = words[1:]
            in_transaction = True
        if not words:
            return self._first(schema, current.text, in_transaction)
        name = words[0].text
        kind, _ = self.builtins.get(name, (None, ""))
        if kind is None and in_transaction:
            return self._arguments(name, schema.action(name), words[1:],
                                   current, after)
        if kind in (EVENT, QUERY):
            words = [words[0]] + self._without_options(words[1:])
        if kind is None:
            call = schema.command(name)
            return self._arguments(name, call and call.args, words[1:],
                                   current, after)
        if kind == MODE:
            return self._plain(("compact", "pretty", "table"), current.text)
        if kind == QUERY and len(words) > 1:
            return self._line(schema, words[1:], current, after, False)
        if kind and len(words) > 1:
            call = schema.event(words[1].text) or \
                schema.command(words[1].text)
            return self._arguments(words[1].text, call and call.args,
                                   words[2:], current, after)
        return self._topics(schema, kind, current.text)

    @staticmethod
    def _without_options(words):
        while words and words[0].text.startswith("-"):
            words = words[2:]
        return words

    @staticmethod
    def _plain(names, start):
        return (Candidate(name + " ") for name in names
                if name.startswith(start))

    def _topics(self, schema, kind, start):
        """Words after help, watch and wait."""
        if kind == COMMAND:
            yield from self._plain(self.builtins, start)
        for meta in ("command", "event"):
            if kind in (meta, COMMAND) or kind == QUERY and meta == "command":
                yield from self._calls(schema, meta, start)

    @staticmethod
    def _calls(schema, meta, start):
        for name in schema.names[meta]:
            if name.startswith(start):
                call = schema.command(name) or schema.event(name)
                yield Candidate(name + " ", first_sentence(call.doc))

    def _first(self, schema, start, in_transaction):
        if in_transaction:
            names = [*schema.action_names(), ")"]
            yield from self._plain(names, start)
            return
        yield from self._calls(schema, "command", start)
        for name, (_, note) in self.builtins.items():
            if name.startswith(start):
                yield Candidate(name + " ", note)

    # Arguments.

    def _arguments(self, command, typ, words, current, after):
        if typ is None:
            return []
        given = grammar.given_so_far(words + after)
        name, value = current.split()
        path = name.split(".")
        if value is None:
            return self._names(typ, path[:-1], path[-1], given)
        command = action_at(command, path, given) or command
        return self._values(command, typ, path, value, given)

    @staticmethod
    def _walk(typ, path, given):
        """The type at a path, and what is given there."""
        for part in path:
            typ = typ.step(part, given)
            given = given.get(part, {}) if isinstance(given, dict) else {}
            if typ is None:
                break
        return typ, given

    def _names(self, typ, parents, start, given):
        typ, here = self._walk(typ, parents, given)
        prefix = "".join(part + "." for part in parents)
        here = here if isinstance(here, dict) else {}
        if typ is not None and typ.kind == "alternate":
            typ = typ.choice("object") or typ.choice("array")
        if typ is None:
            return
        if typ.kind == "array":
            index = str(sum(key.isdigit() for key in here))
            for end in self._ends(typ.element()):
                yield Candidate(prefix + index + end, typ.text())
        if typ.kind != "object":
            return
        for member in typ.members(here):
            if not member.name.startswith(start):
                continue
            if isinstance(here.get(member.name, {}), dict):
                for end in self._ends(member.type):
                    yield Candidate(prefix + member.name + end,
                                    argument_note(member))

    @staticmethod
    def _ends(typ):
        """How an argument's name goes on: a value, a part of it, or both."""
        if typ.kind == "alternate":
            inner = typ.choice("object", "array")
            kinds = {c.kind for c in typ.choices()} - {"object", "array"}
            return ["="] * bool(kinds) + ["."] * bool(inner)
        if typ.kind == "object":
            return ["."]
        if typ.kind == "array" and typ.element().kind in (
                "object", "array", "alternate"):
            simple = typ.element().kind == "alternate"
            return ["="] * simple + ["."]
        return ["="]

    def _values(self, command, typ, path, value, given):
        typ, _ = self._walk(typ, path, given)
        if typ is None or typ.secret:
            return
        before = ".".join(path) + "="
        names = [part for part in path if not part.isdigit()]
        last = names[-1] if names else ""
        place = given
        for part in path[:-1]:
            place = place.get(part, {}) if isinstance(place, dict) else {}
        place = {**given, **(place if isinstance(place, dict) else {})}
        if typ.kind == "array":
            done, comma, value = value.rpartition(",")
            before += escape(done + comma)
            typ = typ.element()
        for text, note in self._of_type(command, typ, last, value, place):
            # A '#' begins the names that a daemon gives to its own nodes.
            if text.startswith(value) and (value or text[:1] != "#"):
                end = "" if text.endswith("/") else " "
                yield Candidate(before + escape(text) + end, note)

    def _of_type(self, command, typ, last, value, given):
        """[(text, note)] of values that an argument can have."""
        if typ.kind == "enum":
            return typ.values()
        if typ.kind == "boolean":
            words = grammar.FALSE + grammar.TRUE if value else ("false", "true")
            return [(word, "") for word in words]
        if typ.kind == "null":
            return [("null", "")]
        if typ.kind == "alternate":
            found = []
            refers = typ.choice("object") and typ.choice("string")
            for choice in typ.choices():
                name = "node-name" if refers and choice.kind == "string" and \
                    "node" not in live.kinds_of("", last) and \
                    "bitmap" not in live.kinds_of("", last) else last
                found += self._of_type("" if refers else command, choice,
                                       name, value, given)
            return found
        found = []
        if typ.kind in ("string", "integer"):
            for kind in live.kinds_of(command, last):
                found += live.file_names(value) if kind == "file" else \
                    self.live.names(kind, given)
        return found
