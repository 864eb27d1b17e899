# SPDX-License-Identifier: GPL-2.0-or-later
"""One user of one daemon: runs lines, and has the shell's own commands.

A line is a command of the daemon, a whole message ({"execute": ...}), a
command of the shell, or a part of transaction( ... ). Failures are
ShellErrors; the caller decides whether to go on after one.
"""
import collections
import shutil
import sys
import time

from . import grammar, manual, render
from .complete import COMMAND, EVENT, MODE, QUERY, Completer
from .errors import Late, QmpError, ShellError, SyntaxFault
from .live import QUERY_LIMIT, Live
from .schema import Schema

EVENTS_KEPT = 1000
SCHEMA_LIMIT = 30.0
WATCH_SECONDS = 2.0

# name -> (usage, what it does, how its words are completed)
BUILTINS = {
    "help": ("help [COMMAND|EVENT|WORD [NAME=VALUE...]]",
             "Explains a command; NAME=VALUE chooses among its branches.",
             COMMAND),
    "watch": ("watch [-n SECONDS] [-c TIMES] COMMAND [NAME=VALUE...]",
              "Runs a command again and again, until Ctrl-C.", QUERY),
    "wait": ("wait [-t SECONDS] EVENT [NAME=VALUE...]",
             "Waits for an event with such data; those that have come since "
             "the last one waited for count.", EVENT),
    "transaction(": ("transaction( [ACTION [NAME=VALUE...]] )",
                     "Collects actions, one a line, and runs them as one at "
                     "the closing bracket.", COMMAND),
    "output": ("output table|pretty|compact",
               "Chooses how replies are shown.", MODE),
    "history": ("history [WORD]", "Lists earlier lines that have a word.", ""),
    "reconnect": ("reconnect", "Connects to the same address again.", ""),
    "exit": ("exit", "Ends the shell; the daemon stays.", ""),
}


class Session:
    """Runs lines for one user.

    client: a connected Client; its callbacks are set here
    docs: the documentation for blockferryd's own commands, or None
    mode: one of render.MODES
    show_event: called with each event; None to drop them
    clear: whether watch clears the screen
    """

    def __init__(self, client, docs=None, mode="compact", show_event=None,
                 out=print):
        self.client = client
        self.docs = docs
        self.mode = mode
        self.out = out
        self.show_event = show_event
        self.events = collections.deque(maxlen=EVENTS_KEPT)
        self.actions = None         # of an open transaction
        self.transaction = {}       # its arguments besides the actions
        self.history = list         # replaced by who has one
        self.clears = False         # whether watch clears the screen
        self.ended = False
        self._schema = None
        client.on_event = self._event
        client.on_late = self._late
        self.live = Live(self._ask)
        self.completer = Completer(
            lambda: self.schema, self.live,
            {name: (kind, note) for name, (_, note, kind) in BUILTINS.items()})

    # What the daemon is asked without being told to.

    @property
    def schema(self):
        """The interface of the daemon, or None if it cannot be had."""
        if self._schema is None and self.client.connected:
            try:
                self._schema = Schema(
                    self.client.execute("query-qmp-schema",
                                        limit=SCHEMA_LIMIT),
                    self.docs if self.client.is_ours() else None)
            except (ShellError, ValueError):
                return None
        return self._schema

    def _ask(self, command, arguments=None):
        """The result of a query, or None."""
        if self.schema is None or command not in self.schema.names["command"]:
            return None
        known = {m.name for m in self.schema.command(command).args.members()}
        if arguments and not known.issuperset(arguments):
            return None
        try:
            return self.client.execute(command, arguments, QUERY_LIMIT)
        except ShellError:
            return None

    # Output.

    def width(self):
        return shutil.get_terminal_size().columns if sys.stdout.isatty() \
            else 1 << 16

    def text_width(self):
        return min(self.width(), 80)

    def show(self, command, value):
        self.out(render.result(command, value, self.mode, self.width()))

    def _event(self, event):
        self.events.append(event)
        if self.show_event:
            self.show_event(event)

    def _late(self, command, message):
        error = message.get("error")
        text = str(QmpError(error)) if isinstance(error, dict) else \
            render.to_json(message.get("return"), "compact")
        self.out(f"[{command}, interrupted before, has ended: "
                 f"{render.clean(text)}]")

    # Lines.

    def run_line(self, line):
        """Runs a line of text."""
        line = line.strip()
        if not line or line.startswith("#"):
            return
        if line.startswith("{"):
            self.perform(grammar.raw_request(line))
            return
        self.run_words(grammar.split_line(line))

    def run_words(self, words):
        """Runs a line that was split into words."""
        grammar.check_words(words)
        name = words[0].text
        if name in BUILTINS and name != "transaction(":
            getattr(self, "_do_" + name)(words[1:])
        elif self.actions is not None or name == "transaction(":
            self._in_transaction(words)
        else:
            self.perform(self.request(words))

    def request(self, words):
        """The message that words make."""
        name = words[0].text
        call = self.schema.command(name) if self.schema else None
        try:
            arguments = grammar.arguments(words[1:], call and call.args)
        except SyntaxFault as fault:
            if self.schema and call is None:
                fault = SyntaxFault(f"there is no command '{name}'", [
                    self._explainer().unknown_command(name)])
            raise self._with_names(fault, words, call and call.args)
        request = {"execute": name}
        if arguments:
            request["arguments"] = arguments
        return request

    @staticmethod
    def _with_names(fault, words, typ):
        """The fault with the names of the arguments that there are."""
        if typ is not None and typ.kind == "object":
            members = typ.members(grammar.given_so_far(words[1:]))
            names = ", ".join(m.name for m in members) or "no arguments"
            fault.hints.append(f"{words[0].text} takes {names}")
        return fault

    def perform(self, request):
        """Runs a message and shows the result."""
        value = self.result(request)
        self.show(request.get("execute"), value)

    def result(self, request):
        """Runs a message; an error comes with what to try."""
        try:
            return self.client.run(request)
        except QmpError as error:
            error.hints += self._hints(request, error)
            raise

    def _explainer(self):
        words = [word for word in BUILTINS if word != "transaction("]
        return manual.Explainer(self.schema, self.live, words)

    def _hints(self, request, error):
        if self.schema is None:
            return []
        try:
            return self._explainer().hints(request, error)
        except (AttributeError, KeyError, TypeError):
            return []   # a message that is not well formed

    def has_secret(self, line):
        """Whether a line is not to be stored."""
        if grammar.has_secret(line):
            return True
        if self.schema is None:
            return False
        if line.lstrip().startswith("{"):
            return self._sends_secret(line)
        words = grammar.split_line(line)
        call = self.schema.command(words[0].text) if words else None
        return call is not None and any(
            _is_secret(call.args, word, words[1:]) for word in words[1:])

    def _sends_secret(self, line):
        """Whether a whole message has a secret in it."""
        try:
            request = grammar.raw_request(line.strip())
        except SyntaxFault:
            return False
        call = self.schema.command(request.get("execute"))
        return call is not None and _holds_secret(
            call.args, request.get("arguments", {}))

    # Transactions.

    def _in_transaction(self, words):
        if words[0].text == "transaction(":
            if self.actions is not None:
                raise SyntaxFault("transaction( is open already",
                                  ["')' runs it, Ctrl-C drops it"])
            words = self._open_transaction(words[1:])
        last = bool(words) and words[-1].text == ")"
        if words[:1] and words[0].text == ")" and len(words) > 1:
            raise SyntaxFault("nothing may follow ')'")
        words = words[:-1] if last else words
        if words:
            self.actions.append(self._action(words))
        if last:
            self._close_transaction()

    def _open_transaction(self, words):
        """Begins one; words with = in front are its own arguments."""
        own = []
        while words and "=" in words[0].text:
            own.append(words.pop(0))
        call = self.schema.command("transaction") if self.schema else None
        self.transaction = grammar.arguments(own, call and call.args)
        self.actions = []
        return words

    def _action(self, words):
        name = words[0].text
        typ = self.schema.action(name) if self.schema else None
        if self.schema and typ is None and self.schema.action_names():
            raise SyntaxFault(
                f"'{name}' is no action of a transaction",
                [manual.suggest(name, self.schema.action_names(),
                                "known are " + ", ".join(
                                    self.schema.action_names()))])
        try:
            data = grammar.arguments(words[1:], typ)
        except SyntaxFault as fault:
            raise self._with_names(fault, words, typ)
        return {"type": name, "data": data}

    def _close_transaction(self):
        arguments = {**self.transaction, "actions": self.actions}
        self.drop_transaction()
        self.perform({"execute": "transaction", "arguments": arguments})

    def drop_transaction(self):
        """Forgets an open transaction; tells whether there was one."""
        was_open = self.actions is not None
        self.actions, self.transaction = None, {}
        return was_open

    # The shell's own commands.

    def _do_help(self, words):
        width = self.text_width()
        if not words:
            self.out(manual.overview(
                self.schema, {n: b[:2] for n, b in BUILTINS.items()},
                self.width()))
            return
        name = words[0].text
        if name in BUILTINS:
            usage, note, _ = BUILTINS[name]
            self.out("\n".join([usage, *manual.wrap(note, width, "    ")]))
            return
        if self.schema is None:
            raise ShellError("the daemon's commands are not known")
        call = self.schema.command(name) or self.schema.event(name)
        if call:
            given = grammar.given_so_far(words[1:])
            self.out(manual.call_text(call, given, width))
            return
        found = manual.search(self.schema, name, self.width())
        if found is None:
            known = self.schema.names["command"] + self.schema.names["event"]
            raise ShellError(f"there is no help about '{name}'", [
                manual.suggest(name, known, "'help' lists the commands")])
        self.out(found)

    def _do_watch(self, words):
        options, words = take_options(words, "nc", "watch")
        if not words:
            raise SyntaxFault("watch needs a command",
                              [BUILTINS["watch"][0]])
        seconds = options.get("n", WATCH_SECONDS)
        times = options.get("c")
        request = self.request(words)
        shown = self.show_event
        recent = collections.deque(maxlen=10)
        self.show_event = recent.append if shown else None
        try:
            while times is None or times > 0:
                self._watch_once(request, seconds, recent)
                times = None if times is None else times - 1
                if times != 0:
                    self._pause(seconds)
        except KeyboardInterrupt:
            self.out("")
        finally:
            self.show_event = shown

    def _watch_once(self, request, seconds, recent):
        try:
            text = render.result(request["execute"], self.result(request),
                                 self.mode, self.width())
        except QmpError as error:
            text = f"error: {render.clean(error)}"
        lines = [text]
        if self.clears:
            head = f"every {seconds:g} s, Ctrl-C ends: {request['execute']}"
            lines = [f"\x1b[H\x1b[2J{head}", "", text]
        if recent:
            lines += ["", *(render.event_line(e, self.mode) for e in recent)]
            if not self.clears:
                recent.clear()
        self.out("\n".join(lines))

    def _pause(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.client.poll(deadline)

    def _do_wait(self, words):
        options, words = take_options(words, "t", "wait")
        if not words:
            raise SyntaxFault("wait needs an event", [BUILTINS["wait"][0]])
        name = words[0].text
        call = self.schema.event(name) if self.schema else None
        if self.schema and call is None:
            raise SyntaxFault(f"there is no event {name}", [manual.suggest(
                name, self.schema.names["event"], "known are " + ", ".join(
                    self.schema.names["event"]))])
        wanted = grammar.arguments(words[1:], call and call.args)
        deadline = time.monotonic() + options["t"] if "t" in options else None
        event = self._next_event(name, wanted, deadline)
        self.out(render.event_line(event, self.mode))

    def _next_event(self, name, wanted, deadline):
        while True:
            while self.events:
                event = self.events.popleft()
                if event.get("event") == name and contains(
                        event.get("data", {}), wanted):
                    return event
            came = self.client.poll(deadline)
            if not came and time.monotonic() >= deadline:
                raise Late(f"no such {name} came in time")

    def _do_output(self, words):
        mode = words[0].text if words else ""
        if mode not in render.MODES:
            raise SyntaxFault(f"output is one of {', '.join(render.MODES)}")
        self.mode = mode

    def _do_history(self, words):
        wanted = words[0].text if words else ""
        for line in self.history():
            if wanted in line:
                self.out(render.clean(line))

    def _do_reconnect(self, _words):
        self._schema = None
        self.events.clear()
        self.client.connect()
        self.out(self.banner())

    def _do_exit(self, _words):
        self.ended = True

    def banner(self):
        return f"Connected to {render.clean(self.client.version())} at " \
            f"{self.client.address}."


def contains(value, wanted):
    """Whether a value has all that is wanted of it."""
    if isinstance(wanted, dict) and isinstance(value, dict):
        return all(key in value and contains(value[key], part)
                   for key, part in wanted.items())
    return value == wanted and isinstance(value, bool) == isinstance(
        wanted, bool)


def take_options(words, letters, command):
    """Options with a number each, from the front: ({letter: number}, rest)"""
    options = {}
    while words and words[0].text.startswith("-"):
        letter, value = words[0].text[1:2], words[0].text[2:]
        if letter not in letters or not letter:
            raise SyntaxFault(f"{command} has no option {words[0].text}",
                              [BUILTINS[command][0]])
        words = words[1:]
        if not value and words:
            value, words = words[0].text, words[1:]
        try:
            options[letter] = float(value)
        except ValueError:
            options[letter] = -1.0
        if not 0 < options[letter] < 1e6:
            raise SyntaxFault(f"-{letter} needs a number above 0, "
                              f"not '{value}'")
    return options, words


def _is_secret(typ, word, words):
    name, _ = word.split()
    given = grammar.given_so_far(words)
    for part in name.split("."):
        if typ is None:
            return False
        typ = typ.step(part, given)
        given = given.get(part, {}) if isinstance(given, dict) else {}
    return typ is not None and typ.secret


def _holds_secret(typ, value):
    """Whether a value has a secret somewhere."""
    if typ is None or typ.secret:
        return typ is not None
    items = value.items() if isinstance(value, dict) else \
        ((str(i), v) for i, v in enumerate(value)) \
        if isinstance(value, list) else ()
    return any(_holds_secret(typ.step(key, value), item)
               for key, item in items)


def error_lines(error):
    """What is shown of a failure."""
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() \
        else 1 << 16
    return [f"error: {render.clean(error)}"] + [
        line for hint in error.hints
        for line in manual.wrap(render.clean(hint), width, "  ")]
