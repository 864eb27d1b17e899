# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that write, and the contents that a disk may have after a crash.

Disk knows for each sector what was written to it, which of that was
acknowledged and which is durable. Writer keeps many requests in flight on
several connections; sectors in flight are never written twice, so that the
order of the contents of each sector is known.
"""
import collections
import select
import struct

import rawnbd as nbd

SECTOR = 512
MAX_SECTORS = 160
DEPTH = 12  # requests in flight on each connection

# A write, with the index of its content in each of its sectors.
Write = collections.namedtuple("Write", "sectors fua")
# A flush, with the writes that were acknowledged before it was sent.
Flush = collections.namedtuple("Flush", "writes")


class Disk:
    """What each sector may hold: the contents from its durable one on.

    writethrough: every write that is acknowledged is durable
    """

    def __init__(self, content, writethrough=False):
        self.writethrough = writethrough
        self.restart(content)

    def restart(self, content):
        """The disk is found to be like this, and that is durable."""
        self.contents = [[content[at:at + SECTOR]]
                         for at in range(0, len(content), SECTOR)]
        self.acknowledged = [0] * len(self.contents)
        self.durable = [0] * len(self.contents)
        self.unflushed = []

    def write(self, offset, data, fua):
        """A write is about to be sent; returns what acknowledge() takes."""
        first, end = offset // SECTOR, -(-(offset + len(data)) // SECTOR)
        sectors = {}
        for sector in range(first, end):
            contents = self.contents[sector]
            start = sector * SECTOR - offset
            piece = data[max(start, 0):start + SECTOR]
            skip = max(-start, 0)
            contents.append(contents[-1][:skip] + piece
                            + contents[-1][skip + len(piece):])
            sectors[sector] = len(contents) - 1
        return Write(sectors, fua or self.writethrough)

    def flush(self):
        """A flush is about to be sent; returns what acknowledge() takes."""
        return Flush(list(self.unflushed))

    def acknowledge(self, request):
        if isinstance(request, Flush):
            for write in request.writes:
                self.keep(self.durable, write)
            done = set(map(id, request.writes))
            self.unflushed = [w for w in self.unflushed if id(w) not in done]
            return
        self.keep(self.acknowledged, request)
        if request.fua:
            self.keep(self.durable, request)
        else:
            self.unflushed.append(request)

    @staticmethod
    def keep(oldest, write):
        for sector, index in write.sectors.items():
            oldest[sector] = max(oldest[sector], index)

    def problems(self, content, power_loss):
        """Yields what must not be; without power_loss the kernel keeps what
        was acknowledged."""
        oldest = self.durable if power_loss else self.acknowledged
        for sector, contents in enumerate(self.contents):
            found = content[sector * SECTOR:(sector + 1) * SECTOR]
            if found in contents[oldest[sector]:]:
                continue
            yield f"sector {sector} " + (
                f"has content {contents.index(found)} of {len(contents)}; "
                f"{self.acknowledged[sector]} was acknowledged and "
                f"{self.durable[sector]} flushed"
                if found in contents else "is torn")


class Writer:
    """Connections that write what a random.Random says."""

    def __init__(self, addresses, disk, source):
        self.disk, self.random = disk, source
        self.serial = 0
        self.busy = set()  # sectors
        self.clients = [nbd.RawNbd(a).go("disk") for a in addresses]
        self.by_socket = {client.sock: client for client in self.clients}
        self.pending = {client: {} for client in self.clients}

    def run(self, replies, servers):
        """Keeps the connections full for that many replies; then kills the
        servers and reads what was sent before."""
        while replies > 0:
            self.fill()
            for sock in select.select(self.by_socket, [], [], 15)[0]:
                self.take(self.by_socket[sock])
                replies -= 1
        self.fill()
        for server in servers:
            server.kill()
        for client in self.clients:
            try:
                while True:
                    self.take(client)
            except nbd.Closed:
                client.close()

    def fill(self):
        for client in self.clients:
            while len(self.pending[client]) < DEPTH:
                self.send(client)

    def take(self, client):
        reply, _ = client.read_reply()
        assert reply.error == 0, reply
        request = self.pending[client].pop(reply.cookie)
        self.disk.acknowledge(request)
        if isinstance(request, Write):
            self.busy -= request.sectors.keys()

    def place(self):
        """Offset and length, sometimes odd, of what is not in flight."""
        count = self.random.choice((1, 2, 8, 8, 9, MAX_SECTORS))
        first = self.random.randrange(len(self.disk.contents) - count + 1)
        if not self.busy.isdisjoint(range(first, first + count)):
            return None
        offset, length = first * SECTOR, count * SECTOR
        if self.random.random() < 0.2:
            offset += self.random.randrange(SECTOR // 2)
            length -= SECTOR // 2 + self.random.randrange(SECTOR // 2)
        return offset, length

    def data(self, offset, length):
        """Names its write and its place in each 16 bytes."""
        self.serial += 1
        return b"".join(struct.pack(">QQ", self.serial, n) for n in range(
            offset // 16, (offset + length) // 16 + 1))[:length]

    def send(self, client):
        place = self.place()
        if place is None or self.random.random() < 0.12:
            request = self.disk.flush()
            cookie = client.send_request(nbd.CMD_FLUSH)
        else:
            request, cookie = self.send_write(client, *place)
        self.pending[client][cookie] = request

    def send_write(self, client, offset, length):
        fua = self.random.choice((0, 0, nbd.FUA))
        if self.random.random() < 0.15:
            data = bytes(length)
            command, flags = nbd.CMD_WRITE_ZEROES, fua | self.random.choice(
                (0, nbd.NO_HOLE))
        else:
            data = self.data(offset, length)
            command, flags = nbd.CMD_WRITE, fua
        request = self.disk.write(offset, data, fua)
        self.busy |= request.sectors.keys()
        cookie = client.send_request(
            command, offset, length, flags,
            data if command == nbd.CMD_WRITE else b"")
        return request, cookie
