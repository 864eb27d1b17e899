# SPDX-License-Identifier: GPL-2.0-or-later
"""The nbd driver as a client of the daemon's own NBD server."""
import threading

import nbd as libnbd
import pytest

import harness
import qmp
import rawnbd as nbd

pytestmark = pytest.mark.ours("an own client")

SIZE = 1 << 20


def own(daemon, name="disk", node="n0", **more):
    return {"driver": "nbd", "node-name": node, "export": name,
            "server": {"type": "unix", "path": str(daemon.nbd_path)}, **more}


def test_client_of_our_own_export(daemon, image, connect_nbd):
    daemon.serve_file(image)
    daemon.execute("blockdev-add", own(daemon))
    daemon.add_export("n0", name="again", writable=True)
    handle = connect_nbd(daemon.nbd_path, "again")
    data = image.read_bytes()
    assert handle.pread(1 << 20, 12345) == data[12345:12345 + (1 << 20)]
    handle.pwrite(b"z" * 100_000, 54321)
    handle.flush()
    # Draining the node behind it does not wait for it.
    requests = [handle.aio_pread(libnbd.Buffer(65536), n << 16)
                for n in range(32)]
    for _ in range(5):
        daemon.execute("blockdev-reopen", {"options": [
            {"driver": "file", "node-name": "disk", "filename": str(image),
             "read-only": False}]})
    while handle.aio_in_flight():
        handle.poll(1000)
    assert all(handle.aio_command_completed(c) for c in requests)
    handle.shutdown()
    daemon.cmd("block-export-del", id="exp-n0", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-n0")
    daemon.cmd("blockdev-del", node_name="n0")
    assert image.read_bytes()[54321:154321] == b"z" * 100_000


def test_draining_both_ends_of_our_own_server_ends(daemon, image,
                                                   connect_nbd):
    """What is under way in the client needs the other end, which is parked."""
    daemon.serve_file(image)
    daemon.execute("blockdev-add", own(daemon))
    daemon.add_export("n0", name="again")
    stop = threading.Event()
    counts = [0] * 4

    def read(n):
        handle = connect_nbd(daemon.nbd_path, "again")
        while not stop.is_set():
            handle.pread(65536, n << 16)
            counts[n] += 1

    threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    harness.wait_until(lambda: all(counts), what="the first reads")
    other = daemon.client()
    request = daemon.qmp.send("blockdev-reopen", {"options": [
        {"driver": "file", "node-name": "disk", "filename": str(image)},
        own(daemon)]})
    assert other.cmd("query-version")
    message = daemon.qmp.reply(request, 20)
    if "error" in message:
        assert "did not end within 10 seconds" in message["error"]["desc"]
    before = list(counts)
    harness.wait_until(lambda: all(
        now > then for now, then in zip(counts, before)), what="more reads")
    stop.set()
    for thread in threads:
        thread.join(harness.LIMIT)


@pytest.mark.parametrize("host", (None, "127.0.0.1", "0.0.0.0"))
def test_node_behind_its_own_export_is_refused(daemon, image, host):
    """It would wait for itself; after a reconnection it would."""
    daemon.add_file(image)
    if host:
        _, port = daemon.start_nbd_tcp(host)
        server = {"type": "inet", "host": "127.0.0.1", "port": str(port)}
    else:
        daemon.start_nbd()
        server = {"type": "unix", "path": str(daemon.nbd_path)}
    daemon.add_export("disk", name="disk", writable=True)
    daemon.execute("blockdev-add", {
        "driver": "nbd", "node-name": "n0", "export": "disk",
        "reconnect-delay": 2, "server": server})
    # Now the export's name goes to the node itself.
    daemon.cmd("block-export-del", id="exp-disk", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
    daemon.add_export("n0", ident="loop", name="disk")
    raw = nbd.RawNbd(("127.0.0.1", port) if host else daemon.nbd_path)
    raw.negotiate_structured()
    raw.go("disk")
    error, _ = raw.read(0, 512)
    assert error == nbd.EIO
    daemon.wait_log("requests fail until it is back")
    raw.disconnect()
    daemon.cmd("block-export-del", id="loop", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="loop")
    daemon.cmd("blockdev-del", node_name="n0")


def test_node_cannot_get_behind_its_own_export(daemon):
    """The client is there first; what leads back to it comes after."""
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "disk",
                                    "size": SIZE})
    raw = {"driver": "raw", "node-name": "top", "file": "disk"}
    daemon.execute("blockdev-add", raw)
    daemon.execute("blockdev-add", {
        "driver": "quorum", "node-name": "votes", "vote-threshold": 1,
        "children": ["top"]})
    daemon.start_nbd()
    daemon.add_export("votes", name="disk")
    daemon.execute("blockdev-add", own(daemon, **{"read-only": True}))
    with pytest.raises(qmp.QmpError, match="would wait for itself"):
        daemon.execute("blockdev-reopen", {"options": [
            {**raw, "file": "n0"}]})
    error = daemon.error("x-blockdev-change", parent="votes", node="n0")
    assert "would wait for itself" in error.desc
    daemon.cmd("block-export-del", id="exp-votes", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-votes")
    daemon.cmd("x-blockdev-change", parent="votes", node="n0")


@pytest.mark.parametrize("command", ("blockdev-mirror", "blockdev-backup"))
def test_no_job_copies_a_node_onto_itself(daemon, command):
    for node in ("disk", "other"):
        daemon.execute("blockdev-add", {
            "driver": "null-co", "node-name": node, "size": SIZE})
    daemon.start_nbd()
    for node in ("disk", "other"):
        daemon.add_export(node, writable=True)
    daemon.execute("blockdev-add", own(daemon))
    job = {"job_id": "j", "target": "n0", "sync": "full"}
    error = daemon.error(command, device="disk", **job)
    assert "comes to the source 'disk'" in error.desc
    daemon.cmd(command, device="other", **job)
    daemon.cmd("block-job-cancel", device="j")


def test_own_server_on_the_command_line_is_told(daemons, box, image):
    daemon = daemons(
        "--blockdev", f"file,node-name=disk,filename={image}",
        "--nbd-server", f"addr.type=unix,addr.path={box}/own.sock",
        "--export", "nbd,id=e,node-name=disk,name=disk",
        "--blockdev", "nbd,node-name=n0,export=disk,read-only=on,"
        f"server.type=unix,server.path={box}/own.sock", monitor=False)
    daemon.expected = {1}
    assert daemon.wait() == 1
    assert "this daemon, which serves clients only when its start is " \
        "complete" in daemon.log()
