# SPDX-License-Identifier: GPL-2.0-or-later
"""The line editor: readline, its history, and output above the line.

Text that comes while a line is being typed is printed above it, and the line
is drawn again by readline itself, which alone knows what the screen shows (it
may be searching the history). Python's module lacks the functions that this
takes, so they are called in the library that the module is linked to;
where they cannot be found, such text waits until the line is finished.
"""
import ctypes
import os
import shutil
import sys

from .render import clean

try:
    import readline
except ImportError:
    readline = None

HISTORY_MAX_LINES = 2000
DETAILS_MAX = 14        # candidates up to this number are shown with notes


def history_path():
    """Where lines are kept from run to run."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(
        os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "blockferry", "qmp-history")


class Screen:
    """The functions of the readline library that Python does not offer."""

    def __init__(self):
        library = ctypes.PyDLL(readline.__file__)
        self._clear = library.rl_clear_visible_line
        self._update = library.rl_forced_update_display
        self._prompt = library.rl_set_prompt
        self._flush = library.fflush

    def clear_line(self):
        self._clear()
        self._flush(None)

    def draw_line(self, prompt=None):
        if prompt is not None:
            self._prompt(prompt.encode())
        self._update()

    @classmethod
    def find(cls):
        """A Screen, or None where the functions are not there."""
        try:
            return cls()
        except (AttributeError, OSError):
            return None


def in_columns(texts, width):
    """Short texts side by side, as lines."""
    longest = max(map(len, texts)) + 2
    per_line = max(1, width // longest)
    rows = -(-len(texts) // per_line)
    lines = ("".join(text.ljust(longest) for text in texts[row::rows])
             for row in range(rows))
    return [line.rstrip() for line in lines]


def list_candidates(found, width):
    """Candidates as lines, with notes if they are not too many."""
    shown = [clean(c.text.rstrip()) for c in found]
    if len(found) > DETAILS_MAX or not any(c.note for c in found):
        return in_columns(shown, width)
    longest = max(map(len, shown)) + 1
    lines = (f"{text.ljust(longest)} {clean(c.note)}".rstrip()
             for text, c in zip(shown, found))
    return [line if len(line) < width else line[:width - 4] + "..."
            for line in lines]


class Editor:
    """Reads lines from a person.

    complete(before, after): as Completer.complete()
    on_prompt(): called when a prompt is shown, and whenever it may be a good
    time to look for events
    """

    def __init__(self, complete, on_prompt):
        self.complete = complete
        self.on_prompt = on_prompt
        self.at_prompt = False
        self.waiting = []       # texts to print above the line
        self.found = []         # what readline has yet to be given
        self.notes = []         # the candidates that it was given last
        self.prompt = ""
        self.screen = Screen.find() if readline else None
        if readline:
            self._set_up()

    def _set_up(self):
        readline.set_auto_history(False)
        readline.set_completer_delims(" \t\n")
        readline.set_completer(self._candidate)
        readline.set_pre_input_hook(self._prompt_is_shown)
        for line in ("tab: complete", "set show-all-if-ambiguous on",
                     "set bell-style none"):
            readline.parse_and_bind(line)
        if self.screen:
            readline.set_completion_display_matches_hook(self._display)

    # Reading.

    def _prompt_is_shown(self):
        self.at_prompt = True
        self.on_prompt()

    def read(self, prompt):
        """One line; EOFError and KeyboardInterrupt as input() has them."""
        self.prompt = prompt
        try:
            return input(prompt)
        finally:
            self.at_prompt = False
            self._print_waiting()

    # Output above the line.

    def above(self, text, prompt=None):
        """Prints text; above the line, if one is being typed.

        prompt: takes the place of the line's prompt, unless it is None
        """
        self.waiting.append(text)
        if not self.at_prompt:
            self._print_waiting()
        elif self.screen:
            self.prompt = self.prompt if prompt is None else prompt
            self.screen.clear_line()
            self._print_waiting()
            self.screen.draw_line(prompt)

    def _print_waiting(self):
        texts, self.waiting = self.waiting, []
        for text in texts:
            print(text)
        sys.stdout.flush()

    # Completion.

    def _candidate(self, _text, state):
        if state == 0:
            self.found = self._find()
        if state < len(self.found):
            return self.found[state]
        self.found = []
        return None

    def _find(self):
        line = readline.get_line_buffer()
        begin, end = readline.get_begidx(), readline.get_endidx()
        start, found = self.complete(line[:end], line[end:])
        self.notes = found
        # readline replaces what it takes for the word, which is less than
        # ours if ours has a blank in it.
        typed = line[start:begin]
        return [c.text[len(typed):] for c in found
                if c.text.startswith(typed)]

    def _display(self, _substitution, _matches, _longest):
        self.screen.clear_line()
        width = shutil.get_terminal_size().columns
        print(self.prompt + readline.get_line_buffer())
        print("\n".join(list_candidates(self.notes, width)))
        sys.stdout.flush()
        self.screen.draw_line()

    # History.

    def load_history(self, path):
        """Reads the lines of earlier runs; what cannot be read is not."""
        if not readline:
            return
        readline.set_history_length(HISTORY_MAX_LINES)
        try:
            readline.read_history_file(path)
            if readline.get_current_history_length() > HISTORY_MAX_LINES:
                readline.write_history_file(path)
        except OSError:
            pass

    def add_history(self, line, path):
        """Remembers a line, for this run and, if there is a path, later."""
        if not readline:
            return
        last = readline.get_current_history_length()
        if last and readline.get_history_item(last) == line:
            return
        readline.add_history(line)
        if not path:
            return
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            readline.append_history_file(1, path)
        except (OSError, AttributeError):
            pass

    @staticmethod
    def history():
        """All lines that are remembered, oldest first."""
        if not readline:
            return []
        count = readline.get_current_history_length()
        return [readline.get_history_item(i + 1) or "" for i in range(count)]
