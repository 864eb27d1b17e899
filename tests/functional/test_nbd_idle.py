# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that hold a place and do nothing, or do not take their replies."""
import struct

import pytest

import proxy as proxies
import rawnbd as nbd

pytestmark = pytest.mark.ours("the reference has no limit")

MIB = 1 << 20


def gone(daemon):
    event = daemon.qmp.take_event("NBD_CLIENT_DISCONNECTED")
    return event["data"]["reason"], event["data"]["message"]


def serve(daemon, image, seconds, **arguments):
    daemon.add_file(image)
    daemon.start_nbd(idle_max_seconds=seconds, **arguments)
    daemon.add_export(writable=True)
    return daemon.nbd_path


IDLE = ("idle", "closed, because it has asked for nothing for 1 s "
                "(idle-max-seconds)")
STALLED = ("stalled", "closed, because it has not taken its replies for 1 s "
                      "(idle-max-seconds)")


def test_silent_client_is_closed(daemon, image):
    with nbd.RawNbd(serve(daemon, image, 1)) as peer:
        peer.go("disk")
        peer.assert_closed()
    assert gone(daemon) == IDLE
    daemon.wait_log("connection 1 from .*: closed, because it has asked for "
                    "nothing")
    assert daemon.cmd("query-nbd-clients") == []


def test_end_is_in_due_form_over_tls(daemon, image, tls_dir, tls_context):
    daemon.add_creds(tls_dir)
    with nbd.RawNbd(serve(daemon, image, 1, tls="tls0")) as peer:
        assert peer.option_type(nbd.OPT_STARTTLS) == nbd.REP_ACK
        peer.sock = tls_context.wrap_socket(
            peer.sock, server_hostname="localhost",
            suppress_ragged_eofs=False)
        peer.go("disk")
        assert peer.sock.recv(1) == b""
    assert gone(daemon) == IDLE


def test_client_that_waits_for_storage_stays(daemon, image):
    """For longer than it might be idle: a throttle holds its requests."""
    daemon.cmd("object-add", qom_type="throttle-group", id="slow",
               limits={"iops-total": 1})
    daemon.add_file(image)
    daemon.start_nbd(idle_max_seconds=1)
    daemon.add_export(throttle_group="slow")
    with nbd.RawNbd(daemon.nbd_path) as peer:
        peer.go("disk")
        for _ in range(4):
            peer.send_request(nbd.CMD_READ, 0, 512)
        for _ in range(4):
            assert peer.read_reply(512)[0].error == 0
        peer.assert_closed()
    assert gone(daemon) == IDLE


@pytest.mark.parametrize("rest", (0, 20), ids=("payload", "header"))
def test_client_that_stops_inside_a_request_is_closed(daemon, image, rest):
    with nbd.RawNbd(serve(daemon, image, 1)) as peer:
        peer.go("disk")
        header = struct.pack(">IHHQQI", nbd.REQUEST_MAGIC, 0, nbd.CMD_WRITE,
                             1, 0, 64 << 10)
        peer.send(header[:rest or None] + (b"" if rest else bytes(999)))
        peer.assert_closed()
    assert gone(daemon) == IDLE


@pytest.mark.parametrize("way", ("unix", "tcp", "tls"))
def test_client_that_takes_no_replies_is_closed(daemon, image, tls_dir,
                                                tls_context, way):
    daemon.add_file(image)
    if way == "tls":
        daemon.add_creds(tls_dir)
    tls = "tls0" if way == "tls" else None
    address = daemon.start_nbd(idle_max_seconds=1) if way == "unix" else \
        daemon.start_nbd_tcp(tls=tls, idle_max_seconds=1)
    daemon.add_export()
    with nbd.RawNbd(address) as peer:
        if tls:
            peer.starttls(tls_context)
        peer.go("disk")
        for _ in range(64):
            peer.send_request(nbd.CMD_READ, 0, MIB)
        assert gone(daemon) == STALLED
        # Also with what it could have taken at the end.
        taken = 0
        with pytest.raises(nbd.Closed):
            while True:
                peer.recv(MIB)
                taken += MIB
        assert taken < 64 * MIB
    daemon.wait_log("not taken its replies")


def test_client_that_takes_its_replies_slowly_stays(daemon, image, box):
    """One reply takes longer than the limit."""
    path = serve(daemon, image, 2)
    proxy = proxies.Proxy(f"unix:{box}/slow", f"unix:{path}", rate=MIB,
                          window=256 << 10)
    try:
        with nbd.RawNbd(box / "slow") as peer:
            peer.go("disk")
            data = image.read_bytes()
            assert peer.read(0, 4 * MIB) == (0, data)
            assert gone(daemon)[0] == "idle"
    finally:
        proxy.close()


def test_limit_is_that_of_the_listener(daemon, image, box):
    path = serve(daemon, image, 1)
    daemon.cmd("nbd-server-add-listener", id="patient", addr={
        "type": "unix", "path": str(box / "patient")})
    assert [item["idle-max-seconds"] for item in
            daemon.cmd("query-nbd-server")["listeners"]] == [1, 0]
    with nbd.RawNbd(box / "patient") as patient, nbd.RawNbd(path) as peer:
        patient.go("disk")
        peer.go("disk")
        peer.assert_closed()
        assert patient.read(0, 512)[0] == 0


def test_removal_of_the_export_comes_first(daemon, image):
    """Who is being disconnected anyway is not idle."""
    with nbd.RawNbd(serve(daemon, image, 600)) as peer:
        peer.go("disk")
        daemon.qmp.take_event("NBD_CLIENT_CONNECTED")
        daemon.cmd("block-export-del", id="exp-disk", mode="hard")
        assert gone(daemon)[0] == "export-removed"
        peer.assert_closed()


def test_system_gives_up_who_takes_nothing_over_tcp(daemon, image):
    """Without a limit of ours: that is what user-timeout-ms is for."""
    daemon.add_file(image)
    daemon.cmd("nbd-server-start", addr={"type": "inet", "data": {
        "host": "127.0.0.1", "port": "0", "user-timeout-ms": 1000,
        "keep-alive-idle": 100, "keep-alive-interval": 10,
        "keep-alive-count": 3}})
    daemon.add_export()
    address, = daemon.cmd("query-nbd-server")["addresses"]
    with nbd.RawNbd((address["host"], int(address["port"]))) as peer:
        peer.go("disk")
        for _ in range(64):
            peer.send_request(nbd.CMD_READ, 0, MIB)
        reason, message = gone(daemon)
        assert reason == "connection"
        assert "timed out" in message


@pytest.mark.parametrize("member, value", (
    ("keep-alive-count", 128), ("keep-alive-idle", 32768),
    ("keep-alive-interval", 40000), ("user-timeout-ms", (1 << 32) - 1)))
def test_numbers_above_those_of_the_system_are_refused(daemon, member, value):
    error = daemon.error("nbd-server-start", addr={"type": "inet", "data": {
        "host": "127.0.0.1", "port": "0", member: value}})
    assert error.desc.startswith(f"{member} is {value}, but can be ")
    assert daemon.cmd("query-nbd-server") == {"running": False}
