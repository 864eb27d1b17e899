# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs scripts/qmp-shell, and makes its modules importable."""
import sys

import harness

SCRIPTS = harness.TESTS.parent / "scripts"
PROGRAM = SCRIPTS / "qmp-shell"

if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))


def environment(directory):
    """What keeps a shell away from the files of who runs the tests."""
    return {"XDG_STATE_HOME": str(directory / "state"),
            "XDG_RUNTIME_DIR": str(directory), "RUNTIME_DIRECTORY": "",
            "HOME": str(directory)}


def shell(daemon, *words, stdin="", program=PROGRAM):
    """Runs a shell that talks to a daemon; returns the finished process.

    words: options, then the command; the address is put between them
    """
    options = []
    words = list(map(str, words))
    while words and words[0].startswith("-"):
        options.append(words.pop(0))
        if options[-1] == "-x":
            options.append(words.pop(0))
    return harness.run(program, *options, daemon.monitor_path, *words,
                       check=False, stdin=stdin,
                       env=environment(daemon.dir))


def output(daemon, *words, **options):
    """The output of a shell that must succeed."""
    result = shell(daemon, *words, **options)
    assert result.returncode == 0, result
    assert result.stderr == "", result.stderr
    return result.stdout


def complaint(daemon, *words, status=1, **options):
    """What a shell says that must fail."""
    result = shell(daemon, *words, **options)
    assert result.returncode == status, result
    return result.stderr
