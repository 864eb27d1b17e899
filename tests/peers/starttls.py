# SPDX-License-Identifier: GPL-2.0-or-later
"""A relay for TLS programs that know nothing of NBD.

It listens on TCP; for each client it connects to an NBD server, negotiates as
far as STARTTLS, and then passes bytes both ways: the client's TLS handshake is
with the server itself.
"""
import socket
import threading

import rawnbd as raw


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Relay:
    """address: where the NBD server listens; port: where we do."""

    def __init__(self, address):
        self.address = address
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            server = raw.RawNbd(self.address)
            assert server.option_type(raw.OPT_STARTTLS) == raw.REP_ACK
            server.sock.settimeout(None)
            back = threading.Thread(target=pump, args=(server.sock, peer),
                                    daemon=True)
            back.start()
            pump(peer, server.sock)
            back.join()
            peer.close()
            server.close()

    def close(self):
        # accept() does not return because of close() alone.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
