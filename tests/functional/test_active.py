# SPDX-License-Identifier: GPL-2.0-or-later
"""blockdev-set-active, allow-inactive and copy-on-read."""
import pytest

import harness
import rawnbd as nbd
import rawserver

pytestmark = pytest.mark.ours("it has no blockdev-set-active yet")


def set_active(daemon, active, node=None):
    names = {"node_name": node} if node else {}
    return daemon.cmd("blockdev-set-active", active=active, **names)


def states(daemon):
    return {n["node-name"]: n["active"]
            for n in daemon.cmd("query-named-block-nodes")}


def test_all_and_one(daemon, image):
    daemon.add_file(image)
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "r0",
                                    "file": "disk"})
    set_active(daemon, False)
    assert states(daemon) == {"disk": False, "r0": False}
    set_active(daemon, False)
    error = daemon.error("blockdev-add", driver="raw", node_name="r1",
                         file="disk")
    assert "Inactive 'disk' can't be a file child of active 'r1'" in error.desc
    set_active(daemon, True, "r0")
    assert states(daemon) == {"disk": True, "r0": True}
    error = daemon.error("blockdev-set-active", active=False,
                         node_name="disk")
    assert error.desc == "Node has active parent node"
    error = daemon.error("blockdev-set-active", active=False, node_name="zz")
    assert error.desc == "Failed to find node with node-name='zz'"


def test_writer_forbids_it(daemon, image, connect_nbd):
    path = daemon.serve_file(image)
    error = daemon.error("blockdev-set-active", active=False,
                         node_name="disk")
    assert error.desc.startswith(
        "Failed to inactivate node: Operation not permitted")
    error = daemon.error("blockdev-set-active", active=False)
    assert error.desc.startswith("Failed to inactivate all nodes: ")
    connect_nbd(path).pwrite(b"x" * 512, 0)


def test_allow_inactive_export_survives(daemon, image, connect_nbd):
    daemon.add_file(image)
    set_active(daemon, False, "disk")
    path = daemon.start_nbd()
    daemon.add_export(writable=True, allow_inactive=True)
    assert states(daemon) == {"disk": False}
    handle = connect_nbd(path)
    with pytest.raises(Exception):
        handle.pwrite(b"x" * 512, 0)
    set_active(daemon, True, "disk")
    handle.pwrite(b"x" * 512, 0)
    set_active(daemon, False)
    with pytest.raises(Exception):
        handle.pwrite(b"x" * 512, 0)


def test_export_activates(daemon, image):
    daemon.add_file(image)
    set_active(daemon, False)
    daemon.start_nbd()
    daemon.add_export(writable=True)
    assert states(daemon) == {"disk": True}


def test_other_program_may_resize(daemon, box):
    path = harness.make_image(box / "d.img", 1 << 20)
    daemon.add_file(path)
    daemon.cmd("blockdev-add", driver="raw", node_name="r0", file="disk")
    daemon.cmd("block-dirty-bitmap-add", node="disk", name="b0")
    for size in (1 << 21, 1 << 16):
        set_active(daemon, False)
        with open(path, "r+b") as file:
            file.truncate(size)
        set_active(daemon, True)
        assert {n["image"]["virtual-size"]
                for n in daemon.cmd("query-named-block-nodes")} == {size}
    daemon.start_nbd()
    daemon.add_export("r0", allow_inactive=True)
    set_active(daemon, False)
    with open(path, "r+b") as file:
        file.truncate(1 << 17)
    set_active(daemon, True)
    daemon.wait_log("was resized while inactive: .* its users do not allow")
    assert states(daemon) == {"disk": True, "r0": True}


class Forgetful(rawserver.RawServer):
    """Leaves flushes unanswered when it is told to."""

    forgets = False

    def answer(self, conn, command, *arguments):
        if command != nbd.CMD_FLUSH or not self.forgets:
            super().answer(conn, command, *arguments)


def is_flush(request):
    return request[0] == nbd.CMD_FLUSH


def test_flush_that_hangs_holds_up_nobody_else(daemon, box):
    """Nor is what was written lost, if the flush fails in the end."""
    server = Forgetful(box / "raw.sock", bytearray(1 << 20))
    daemon.execute("blockdev-add", server.options())
    other = daemon.client()
    other.cmd("blockdev-add", driver="null-co", node_name="fine", size=4096)
    server.forgets = True
    request_id = daemon.qmp.send("blockdev-set-active", {
        "active": False, "node-name": "n0"})
    server.wait_for(lambda: any(map(is_flush, server.requests)))
    other.cmd("blockdev-del", node_name="fine", _limit=5)
    server.forgets = False
    server.drop()
    error = daemon.qmp.reply(request_id)["error"]["desc"]
    assert error == "Failed to inactivate node: node 'n0' cannot flush: " \
        "Input/output error"
    assert states(daemon) == {"n0": True}
    daemon.wait_log("connected to NBD server .* again")
    set_active(daemon, False, "n0")
    assert states(daemon) == {"n0": False}
    server.stop()


def test_flush_that_never_ends_is_given_up(daemon, box):
    server = Forgetful(box / "raw.sock", bytearray(1 << 20))
    daemon.execute("blockdev-add", server.options())
    server.forgets = True
    error = daemon.error("blockdev-set-active", active=False, node_name="n0")
    assert "the flush of node 'n0' did not end within 10 seconds" in error.desc
    assert states(daemon) == {"n0": True}
    server.stop()


@pytest.mark.peers("qemu-io")
def test_copy_on_read_passes(daemon, image):
    daemon.add_file(image)
    error = daemon.error("blockdev-add", driver="copy-on-read",
                         node_name="c0", file="disk", bottom="zz")
    assert error.desc == "Bottom node 'zz' not found"
    daemon.execute("blockdev-add", {"driver": "copy-on-read",
                                    "node-name": "c0", "file": "disk"})
    path = daemon.start_nbd()
    daemon.add_export("c0", writable=True)
    text = harness.run("qemu-io", "-f", "raw", "-c", "write -P 5 4k 64k",
                       "-c", "read -P 5 4k 64k", "-c", "write -z 0 4k", "-c",
                       "read -P 0 0 4k", "-c", "flush",
                       f"nbd+unix:///c0?socket={path}")
    assert "failed" not in text
