# SPDX-License-Identifier: GPL-2.0-or-later
"""Failures that are told to the user, each with what to try."""


class ShellError(Exception):
    """A failure; hints are further lines that say what to try."""

    def __init__(self, text, hints=()):
        super().__init__(text)
        self.hints = list(hints)


class SyntaxFault(ShellError):
    """The line cannot be understood."""


class QmpError(ShellError):
    """The daemon has refused a command."""

    def __init__(self, error):
        self.cls = str(error.get("class", "GenericError"))
        self.desc = str(error.get("desc", "unknown error"))
        super().__init__(self.desc if self.cls == "GenericError"
                         else f"{self.cls}: {self.desc}")


class Offline(ShellError):
    """There is no connection, or it was lost."""


class Late(ShellError):
    """No reply came in time."""
