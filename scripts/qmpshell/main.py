# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: a person at a prompt, a script, or one command."""
import argparse
import fcntl
import os
import re
import signal
import stat
import sys

from . import grammar, render, schema
from .client import Client, Tls, default_address
from .errors import Offline, ShellError
from .session import Session, error_lines
from .terminal import Editor, history_path

EXIT_ERROR, EXIT_USAGE, EXIT_OFFLINE = 1, 2, 3
LOOK_SECONDS = 1.0

EPILOG = """\
ADDRESS is the path of a UNIX socket, @NAME for an abstract one, or HOST:PORT.
Without it the default monitor of blockferryd is used. Without COMMAND, lines
are read from the terminal, or from standard input if that is something else.

  %(prog)s                                   talk to the default monitor
  %(prog)s qmp.sock query-jobs               one command; its result as JSON
  %(prog)s -t qmp.sock watch query-jobs      a table, again and again
  %(prog)s qmp.sock blockdev-add driver=file node-name=a filename=a.img
  %(prog)s qmp.sock help blockdev-add driver=nbd
  %(prog)s -x set-up.qmp qmp.sock            a script: one command a line

Exit status: 0, 1 a command failed, 2 usage, 3 no connection.
"""


def parser():
    result = argparse.ArgumentParser(
        prog="qmp-shell", usage="%(prog)s [OPTION...] [ADDRESS] "
        "[COMMAND [NAME=VALUE...]]", description="A shell for blockferryd, "
        "and for other programs that speak QMP.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    shown = result.add_mutually_exclusive_group()
    shown.add_argument("-t", "--table", dest="mode", action="store_const",
                       const="table", help="show results as tables where "
                       "there are some; the default on a terminal")
    shown.add_argument("-p", "--pretty", dest="mode", action="store_const",
                       const="pretty", help="show JSON on several lines")
    shown.add_argument("-c", "--compact", dest="mode", action="store_const",
                       const="compact", help="show JSON on one line; the "
                       "default if the output is not a terminal")
    result.add_argument("-x", "--script", metavar="FILE", help="run the "
                        "lines of a file (- for standard input) up to the "
                        "first that fails")
    result.add_argument("-e", "--events", action="store_true", help="also "
                        "print events that come while a script or a command "
                        "runs")
    result.add_argument("-v", "--verbose", action="store_true", help="print "
                        "each message that is sent, without secrets")
    result.add_argument("--tls", metavar="DIR", help="speak TLS, with the "
                        "files of a directory: ca-cert.pem and, if the "
                        "daemon wants a certificate, client-cert.pem and "
                        "client-key.pem")
    result.add_argument("--tls-hostname", metavar="NAME", help="the name "
                        "that the daemon's certificate must be for; the "
                        "default is HOST")
    result.add_argument("words", nargs=argparse.REMAINDER,
                        help=argparse.SUPPRESS)
    return result


def split_words(words):
    """(address or None, words of the command)

    What looks like the name of a command, and is no file, is a command for
    the default monitor.
    """
    if words and words[0] == "--":
        words = words[1:]
    if not words:
        return None, []
    if re.fullmatch(r"[a-z][a-z0-9_-]*\(?(\s.*)?|\{.*", words[0], re.S) and \
            not is_socket(words[0]):
        return None, words
    return words[0], words[1:]


def is_socket(path):
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def trace(direction, message):
    if direction == "->":
        print(direction, render.to_json(grammar.mask(message), "compact"),
              file=sys.stderr)


def complain(error, where=""):
    sys.stdout.flush()
    for line in error_lines(error):
        print(where + line, file=sys.stderr)
        where = ""
    return EXIT_OFFLINE if isinstance(error, Offline) else EXIT_ERROR


# Scripts.

def script_lines(file):
    """(number, line): joined after a backslash, and inside of brackets."""
    pending, first = "", 0
    for number, line in enumerate(file, 1):
        pending += line.rstrip("\n")
        first = first or number
        if pending.endswith("\\") and not pending.endswith("\\\\"):
            pending = pending[:-1] + " "
        elif grammar.is_unfinished(pending):
            pending += " "
        else:
            yield first, pending
            pending, first = "", 0
    if pending:
        yield first, pending


class Unreadable(ShellError):
    """What is wrong is in no line."""


def readable(file, name):
    try:
        yield from file
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"cannot read {name}: {error}") from error


def run_script(session, file, name):
    try:
        number = 0
        for number, line in script_lines(readable(file, name)):
            session.run_line(line)
            sys.stdout.flush()
            if session.ended:
                return 0
        if session.drop_transaction():
            raise ShellError("the transaction is not closed",
                             ["')' on a line of its own runs it"])
    except Unreadable as error:
        return complain(error)
    except ShellError as error:
        return complain(error, f"{name}:{number}: ")
    return 0


def open_and_run(session, path):
    if path == "-":
        return run_script(session, sys.stdin, "standard input")
    try:
        file = open(path, encoding="utf-8")
    except OSError as error:
        return complain(ShellError(f"cannot read {path}: {error.strerror}"))
    with file:
        return run_script(session, file, path)


# The prompt.

class Console:
    """A person at a terminal."""

    def __init__(self, session):
        self.session = session
        self.client = session.client
        self.busy = False
        self.goes_on = False    # the line began before the present prompt
        self.editor = Editor(self._complete, self._look)
        self.path = history_path()
        self.editor.load_history(self.path)
        session.history = self.editor.history
        session.clears = True
        session.out = self.editor.above
        session.show_event = lambda event: self.editor.above(
            render.event_line(event, session.mode))
        signal.signal(signal.SIGIO, self._woken)
        signal.signal(signal.SIGALRM, self._woken)

    # Events that come while a line is typed: the socket raises SIGIO, whose
    # handler Python runs between two key strokes. One that comes just before
    # the line editor waits is not noticed, so a slow timer looks again.

    def _listen(self):
        if self.client.connected:
            fd = self.client.fileno()
            fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
        signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)

    def _woken(self, _number, _frame):
        if self.editor.at_prompt:
            self._look()

    def _look(self):
        if self.busy or not self.client.connected:
            return
        self.busy = True
        try:
            self.client.poll()
        except ShellError as error:
            self.editor.above("\n".join(error_lines(error)), self._prompt())
        finally:
            self.busy = False

    def _complete(self, before, after):
        if self.goes_on:
            return len(before), []
        self.busy = True
        try:
            return self.session.completer.complete(
                before, after, self.session.actions is not None)
        except ShellError:
            return len(before), []
        finally:
            self.busy = False

    def _prompt(self):
        if not self.client.connected:
            return "(offline) "
        if self.goes_on:
            return "...> "
        return "transaction> " if self.session.actions is not None else "qmp> "

    def run(self):
        print(self.session.banner())
        print("TAB completes, 'help COMMAND' explains, Ctrl-D ends the shell.")
        try:
            while not self.session.ended:
                self._one_line()
        except EOFError:
            print()
        finally:
            # The defaults of both signals, which come back at the end of the
            # interpreter, would kill it.
            signal.signal(signal.SIGIO, signal.SIG_IGN)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            signal.setitimer(signal.ITIMER_REAL, 0)
        return 0

    def _read(self):
        """A line, with those that follow while a bracket of it is open."""
        line = self.editor.read(self._prompt())
        try:
            while grammar.is_unfinished(line):
                self.goes_on = True
                line += " " + self.editor.read(self._prompt())
        finally:
            self.goes_on = False
        return line

    def _one_line(self):
        self._listen()
        try:
            line = self._read()
            if line.strip():
                secret = self.session.has_secret(line)
                if not secret:
                    self.editor.add_history(line, self.path)
                self.session.run_line(line)
        except (KeyboardInterrupt, SystemError):
            # input() calls handlers of signals with the interrupt pending,
            # which makes it a SystemError when an event comes with Ctrl-C.
            dropped = self.session.drop_transaction()
            print("\n(the transaction was dropped)" if dropped else "")
        except ShellError as error:
            complain(error)


def run(arguments):
    options = parser().parse_args(arguments)
    address, words = split_words(options.words)
    if address == "":
        parser().error("the address is empty")
    if words and options.script:
        parser().error("a script and a command exclude each other")
    tls = Tls(options.tls, options.tls_hostname) if options.tls else None
    client = Client(address or default_address(), tls=tls,
                    trace=trace if options.verbose else None)
    client.connect()
    docs = schema.load_docs(os.path.dirname(os.path.abspath(__file__))) \
        if client.is_ours() else None
    on_terminal = sys.stdout.isatty()
    session = Session(client, docs,
                      options.mode or ("table" if on_terminal else "compact"))
    if options.events:
        session.show_event = lambda event: print(
            render.event_line(event, session.mode), flush=True)
    if options.script:
        return open_and_run(session, options.script)
    if words:
        session.clears = on_terminal
        if words[0].startswith("{"):
            session.run_line(" ".join(words))
        else:
            session.run_words(grammar.words_of_command(words))
        if session.drop_transaction():
            raise ShellError("the transaction is not closed with ')'")
        return 0
    if not sys.stdin.isatty():
        return open_and_run(session, "-")
    return Console(session).run()


def main(arguments):
    """Runs the shell; returns its exit status."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")
    if sys.stdout is None:
        sys.exit("qmp-shell: standard output is closed")
    try:
        status = run(arguments)
        sys.stdout.flush()
        return status
    except ShellError as error:
        return complain(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        # Nothing more can be written, and is not to be at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return EXIT_ERROR  # who read it has gone
        return complain(ShellError(f"cannot write the output: {error}"))
