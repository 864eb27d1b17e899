# SPDX-License-Identifier: GPL-2.0-or-later
"""An address that does not answer: connecting to it hangs.

A listening socket whose queue is full and who never accepts: Linux drops what
comes in addition, as a firewall would.
"""
import pathlib
import select
import socket

import harness

SYN_SENT = 2  # TCP_SYN_SENT, <netinet/tcp.h>


class BlackHole:
    """A TCP port; port: 0 for any."""

    def __init__(self, port=0, host="127.0.0.1"):
        self.host = host
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(self.family)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((host, port))
        self.sock.listen(0)
        self.port = self.sock.getsockname()[1]
        self.fillers = []
        while self.answers():
            assert len(self.fillers) < 16, "the queue does not fill up"

    def answers(self):
        """Takes a place of the queue; False if there was none."""
        filler = socket.socket(self.family)
        filler.setblocking(False)
        filler.connect_ex((self.host, self.port))
        if select.select([], [filler], [], 0.3)[1]:
            self.fillers.append(filler)
            return True
        filler.close()
        return False

    def knocking(self):
        """How many connections to it are being made; IPv4 only."""
        where = f"0100007F:{self.port:04X}"
        lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
        fields = [line.split() for line in lines]
        return sum(f[2] == where and int(f[3], 16) == SYN_SENT
                   for f in fields)

    def wait_knock(self):
        harness.wait_until(self.knocking, what="somebody connects and")

    def close(self):
        """The port is free again; whoever still connects is refused."""
        self.sock.close()
        for filler in self.fillers:
            filler.close()
