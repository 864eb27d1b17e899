# SPDX-License-Identifier: GPL-2.0-or-later
"""A network with distance and faults between two programs.

Wraps delay-proxy, which is built with the project. Its commands take effect at
once: each call returns after the proxy has answered.
"""
import json
import subprocess

import harness


class Proxy:
    """A running proxy; listen and connect are "unix:PATH" or "tcp:PORT"."""

    def __init__(self, listen, connect, delay_ms=0, window=None, rate=None,
                 build=harness.BUILD):
        self.listen = listen
        argv = [str(build / "tests/peers/delay-proxy"), "--listen", listen,
                "--connect", connect, "--delay", str(delay_ms)]
        if window:
            argv += ["--window", str(window)]
        if rate:
            argv += ["--rate", str(rate)]
        self.popen = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=harness.ENVIRONMENT)
        answer = self.popen.stdout.readline()
        assert answer == "ready\n", f"delay-proxy said {answer!r}"

    def ask(self, command):
        self.popen.stdin.write(command + "\n")
        self.popen.stdin.flush()
        return self.popen.stdout.readline().strip()

    def tell(self, command):
        answer = self.ask(command)
        assert answer == "ok", f"delay-proxy answered {command!r} by {answer!r}"

    def cut(self):
        """Resets every connection."""
        self.tell("cut")

    def stall(self):
        """Nothing moves any more; connections stay."""
        self.tell("stall")

    def go(self):
        self.tell("go")

    def refuse(self):
        """New connections are closed at once."""
        self.tell("refuse")

    def accept(self):
        self.tell("accept")

    def delay(self, milliseconds):
        self.tell(f"delay {milliseconds}")

    def rate(self, bytes_per_second):
        self.tell(f"rate {bytes_per_second}")

    def stats(self):
        """Counts: accepted, open, up and down (bytes)."""
        return json.loads(self.ask("stats"))

    def close(self):
        if self.popen.poll() is None:
            self.popen.stdin.close()
            self.popen.wait(harness.LIMIT)
        self.popen.stdout.close()
        return self.popen.returncode
