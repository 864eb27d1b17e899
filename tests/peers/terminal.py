# SPDX-License-Identifier: GPL-2.0-or-later
"""A program in a real terminal, and what its screen shows.

The terminal is tmux with a server of its own for each test. Screens are
compared with text files, functional/screens/NAME, in which what differs from
run to run is replaced by a word. BLOCKFERRY_NEW_SCREENS=1 writes them anew;
look at the difference before committing it.
"""
import difflib
import os
import pathlib
import re
import shlex
import subprocess

import harness

SCREENS = harness.TESTS / "functional" / "screens"
WIDTH, HEIGHT = 90, 30
TIME = (r"\d\d:\d\d:\d\d\.\d\d\d", "HH:MM:SS.mmm")


class Terminal:
    """A terminal in which a program runs."""

    def __init__(self, directory, argv, env=None, replace=()):
        """replace: [(pattern, word)] of what differs from run to run"""
        self.socket = str(directory / "tmux")
        self.replace = [*replace, (re.escape(str(directory)), "DIR"), TIME]
        command = shlex.join(map(str, argv))
        # The last line shows how the program ended.
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(WIDTH),
                   "-y", str(HEIGHT), f"{command}; echo \"[status $?]\"; "
                   "exec cat", env=env)

    def _tmux(self, *arguments, env=None):
        return subprocess.run(
            ["tmux", "-S", self.socket, *arguments], check=True,
            capture_output=True, text=True, timeout=harness.LIMIT,
            env={**harness.ENVIRONMENT, "TERM": "xterm", "LC_ALL": "C.UTF-8",
                 **(env or {})}).stdout

    def type(self, text):
        """Types text as it is."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys):
        """Presses keys by tmux's names: Enter, Tab, Up, C-c, C-r ..."""
        self._tmux("send-keys", *keys)

    def clear(self):
        """Empties the screen but for the line that is being typed."""
        self.press("C-l")

    def screen(self):
        """The lines of the screen, with what differs replaced."""
        text = self._tmux("capture-pane", "-p")
        for pattern, word in self.replace:
            text = re.sub(pattern, word, text)
        return text.rstrip("\n") + "\n"

    def wait(self, pattern):
        """Waits until a pattern is on the screen; returns the match."""
        try:
            return harness.wait_until(
                lambda: re.search(pattern, self.screen(), re.M),
                what=f"/{pattern}/ on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.screen()}") from None

    def check(self, name, pattern):
        """Waits for a pattern and until the screen is as in a file."""
        self.wait(pattern)
        path = SCREENS / f"{name}.txt"
        if os.environ.get("BLOCKFERRY_NEW_SCREENS"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(self.screen())
        wanted = path.read_text()
        try:
            harness.wait_until(lambda: self.screen() == wanted)
        except AssertionError:
            difference = difflib.unified_diff(
                wanted.splitlines(), self.screen().splitlines(),
                str(path.relative_to(harness.TESTS)), "the screen",
                lineterm="")
            raise AssertionError("\n".join(difference)) from None

    def close(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"],
                       check=False, capture_output=True,
                       timeout=harness.LIMIT)
        pathlib.Path(self.socket).unlink(missing_ok=True)
