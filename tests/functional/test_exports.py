# SPDX-License-Identifier: GPL-2.0-or-later
"""The NBD server and its exports: adding, removing, refusals, events."""
import os
import random
import threading
import time

import pytest

import harness
import qmp
import rawnbd as nbd


def unix(daemon):
    return {"type": "unix", "data": {"path": str(daemon.nbd_path)}}


@pytest.fixture
def nodes(daemon, image):
    """'disk' (a file) and 'null'."""
    daemon.add_file(image, "disk")
    daemon.execute("blockdev-add", {
        "driver": "null-co", "node-name": "null", "size": 1 << 20,
        "read-zeroes": True})
    return daemon


def exports(daemon):
    return daemon.cmd("query-block-exports")


def client_of(daemon, name="disk"):
    return nbd.RawNbd(daemon.nbd_path).go(name)


# The server.

@pytest.mark.parametrize("addr, words", [
    ({"type": "unix", "path": "/tmp/x"}, "addr"),
    ({"type": "unix"}, "data"),
    ({"type": "unix", "data": {}}, "path"),
    ({"type": "carrier-pigeon", "data": {}}, "carrier-pigeon"),
    ({"type": "unix", "data": {"path": "/nonexistent/s"}}, "/nonexistent/s"),
    ({"type": "unix", "data": {"path": "/tmp/" + "x" * 120}}, "too long"),
    ({"type": "inet", "data": {"host": "127.0.0.1"}}, "port"),
    ({"type": "inet", "data": {"host": "127.0.0.1", "port": 10809}}, "port"),
    ({"type": "inet", "data": {"host": "no.such.host.invalid",
                               "port": "0"}}, "no.such.host.invalid"),
    ({"type": "inet", "data": {"host": "127.0.0.1", "port": "0",
                               "ipv4": False, "ipv6": False}}, "IPv"),
])
def test_server_start_refusals(daemon, addr, words):
    error = daemon.error("nbd-server-start", addr=addr)
    assert error.cls == "GenericError" and words in error.desc, error.desc
    assert "not running" in daemon.error("nbd-server-stop").desc
    daemon.start_nbd()


def test_port_in_use_is_told(daemon, daemons):
    address = daemon.start_nbd_tcp()
    other = daemons()
    error = other.error("nbd-server-start", addr={"type": "inet", "data": {
        "host": address[0], "port": str(address[1])}})
    assert "in use" in error.desc


def test_port_range_is_tried(daemon, daemons):
    _, port = daemon.start_nbd_tcp()
    other = daemons()
    other.cmd("nbd-server-start", addr={"type": "inet", "data": {
        "host": "127.0.0.1", "port": str(port), "to": port + 20}})


def test_server_runs_once(daemon):
    daemon.start_nbd()
    assert "already running" in daemon.error(
        "nbd-server-start", addr=unix(daemon)).desc


def test_server_stop_removes_all(nodes):
    path = nodes.start_nbd()
    nodes.add_export("disk", writable=True)
    nodes.add_export("null")
    client = client_of(nodes)
    nodes.cmd("nbd-server-stop")
    deleted = {e["data"]["id"] for e in nodes.qmp.events
               if e["event"] == "BLOCK_EXPORT_DELETED"}
    assert deleted == {"exp-disk", "exp-null"}, "events come before the reply"
    assert exports(nodes) == []
    client.assert_closed()
    assert not os.path.exists(path)
    assert "not running" in nodes.error("nbd-server-stop").desc
    nodes.start_nbd()
    nodes.add_export("disk")
    client_of(nodes).disconnect()


@pytest.mark.ours("the reference hangs")
def test_server_stop_closes_clients_in_handshake(nodes):
    path = nodes.start_nbd()
    nodes.add_export("disk")
    clients = [nbd.RawNbd(path, handshake=False), nbd.RawNbd(path),
               nbd.RawNbd(path)]
    clients[0].read_greeting()
    clients[2].send(b"IHAVE")
    nodes.cmd("nbd-server-stop")
    for client in clients:
        client.assert_closed()


def test_abstract_socket(daemon, image):
    name = f"blockferry-test-{daemon.pid}"
    daemon.cmd("nbd-server-start", addr={"type": "unix", "data": {
        "path": name, "abstract": True}})
    daemon.add_file(image)
    daemon.add_export("disk")
    # How much of the name counts depends on "tight", on by default.
    with nbd.RawNbd("\0" + name) as client:
        client.go("disk")


def test_server_start_does_not_hijack_a_stale_socket(daemon, daemons):
    """A path that a dead server left behind can be used again."""
    daemon.start_nbd()
    path = daemon.nbd_path
    daemon.kill()
    other = daemons()
    other.cmd("nbd-server-start", addr={"type": "unix", "data": {
        "path": str(path)}})
    nbd.RawNbd(path).close()


# Adding.

def test_export_add_needs_a_server(nodes):
    assert "NBD server not running" in nodes.error(
        "block-export-add", type="nbd", id="e", node_name="disk").desc
    assert exports(nodes) == []


@pytest.mark.parametrize("arguments, words", [
    ({"id": "9x"}, "id"),
    ({"id": ""}, "id"),
    ({"id": "used"}, "'used'"),
    ({"node_name": "nope"}, "nope"),
    ({"type": "nosuch"}, "nosuch"),
    ({"name": "taken"}, "'taken'"),
    ({"name": "x" * 4097}, "too long"),
    ({"description": "x" * 4097}, "too long"),
    ({"bitmaps": ["nope"]}, "nope"),
    ({"bitmap": "nope"}, "bitmap"),
    ({"iothread": "nope"}, "nope"),
    ({"writable": "yes"}, "writable"),
])
def test_export_add_refusals(nodes, arguments, words):
    nodes.start_nbd()
    nodes.add_export("null", "used", name="taken")
    before = exports(nodes)
    error = nodes.error("block-export-add", **{
        "type": "nbd", "id": "e", "node_name": "disk", **arguments})
    assert error.cls == "GenericError" and words in error.desc, error.desc
    assert exports(nodes) == before
    with nbd.RawNbd(nodes.nbd_path) as client:
        assert client.list_exports() == [("taken", "")]


def test_query_lists_newest_first(nodes):
    nodes.start_nbd()
    nodes.add_export("disk", "a")
    nodes.add_export("null", "b")
    found = [{k: v for k, v in e.items()
              if k not in ("clients", "stats", "requests")}
             for e in exports(nodes)]
    assert found == [
        {"id": "b", "type": "nbd", "node-name": "null",
         "shutting-down": False},
        {"id": "a", "type": "nbd", "node-name": "disk",
         "shutting-down": False}]


@pytest.mark.ours("statistics of exports")
def test_query_tells_what_clients_did(nodes):
    nodes.start_nbd()
    nodes.add_export("disk", "a", writable=True)
    before = time.time_ns()
    [fresh] = exports(nodes)
    assert fresh["clients"] == 0 and set(fresh["stats"].values()) == {0}
    clients = [client_of(nodes) for _ in range(3)]
    for client in clients:
        assert client.write(1000, b"x" * 600) == 0
        assert client.request(nbd.CMD_WRITE_ZEROES, 4096, 8192) == 0
        assert client.request(nbd.CMD_TRIM, 65536, 65536) == 0
    [found] = exports(nodes)
    assert found["clients"] == 3
    assert "last-flush-ns" not in found["stats"]
    assert clients[0].request(nbd.CMD_FLUSH) == 0
    clients.pop().close()
    assert clients[0].read(0, 512)[0] == 0
    [found] = exports(nodes)
    stats = found["stats"]
    last_change = stats.pop("last-change-ns")
    last_flush = stats.pop("last-flush-ns")
    # The clock for statistics ticks every few milliseconds.
    assert before - 10**8 < last_change <= last_flush <= time.time_ns()
    assert stats == {
        "read-bytes": 512, "read-operations": 1,
        "written-bytes": 1800, "write-operations": 3,
        "zeroed-bytes": 3 * 8192, "zero-operations": 3,
        "trimmed-bytes": 3 * 65536, "trim-operations": 3,
        "flush-operations": 1, "failed-operations": 0}


def test_failed_operations_are_those_that_were_refused_as_well(nodes):
    nodes.start_nbd()
    nodes.add_export("disk", "a", writable=False)
    client = client_of(nodes)
    assert client.write(0, b"x" * 512) == nbd.EPERM
    assert client.read(1 << 40, 512)[0] == nbd.EINVAL
    assert client.read(0, 512)[0] == 0
    [found] = exports(nodes)
    assert found["stats"]["failed-operations"] == 2
    client.close()
    harness.wait_until(lambda: exports(nodes)[0]["clients"] == 0)
    [found] = exports(nodes)
    assert found["stats"]["failed-operations"] == 2


def test_reply_means_connectable(nodes):
    nodes.start_nbd()
    for turn in range(30):
        nodes.add_export("disk", f"e{turn}", name=f"n{turn}")
        client_of(nodes, f"n{turn}").close()


def test_longest_names_and_descriptions(nodes):
    nodes.start_nbd()
    name, text = "ñ" * 2048, "d" * 4096
    nodes.add_export("disk", name=name, description=text)
    with nbd.RawNbd(nodes.nbd_path) as client:
        assert client.list_exports() == [(name, text)]
        client.go(name)


def test_writethrough_export(nodes, image):
    nodes.start_nbd()
    nodes.add_export("disk", writable=True, writethrough=True)
    with client_of(nodes) as client:
        assert client.write(0, b"t" * 4096) == 0
    assert image.read_bytes()[:4096] == b"t" * 4096


# nbd-server-add and -remove, the old forms.

def test_server_add_and_remove(nodes):
    nodes.start_nbd()
    nodes.cmd("nbd-server-add", device="disk", writable=True,
              description="old style")
    nodes.cmd("nbd-server-add", device="null", name="other")
    with nbd.RawNbd(nodes.nbd_path) as client:
        assert client.list_exports() == [("disk", "old style"),
                                         ("other", "")]
    assert {e["id"] for e in exports(nodes)} == {"disk", "other"}
    client = client_of(nodes)
    assert "in use" in nodes.error("nbd-server-remove", name="disk").desc
    nodes.cmd("nbd-server-remove", name="disk", mode="hard")
    nodes.qmp.take_event("BLOCK_EXPORT_DELETED", id="disk")
    client.assert_closed()
    assert "not found" in nodes.error("nbd-server-remove", name="disk").desc


@pytest.mark.parametrize("arguments, words", [
    ({"device": "nope"}, "nope"),
    ({"device": "disk", "name": ""}, "id"),
    ({"device": "disk", "name": "9 bad"}, "id"),
    ({"device": "disk", "name": "null"}, "null"),
    ({"device": "disk", "bitmap": "nope"}, "nope"),
])
def test_server_add_refusals(nodes, arguments, words):
    nodes.start_nbd()
    nodes.cmd("nbd-server-add", device="null")
    error = nodes.error("nbd-server-add", **arguments)
    assert words in error.desc


def test_server_add_needs_a_server(nodes):
    assert "not running" in nodes.error("nbd-server-add", device="disk").desc


def test_server_add_of_read_only_node_is_downgraded(daemon, image):
    daemon.add_file(image, **{"read-only": True})
    daemon.start_nbd()
    daemon.cmd("nbd-server-add", device="disk", writable=True)
    with client_of(daemon) as client:
        assert client.flags & nbd.FLAG_READ_ONLY


# Removing.

def test_del_safe_refuses_with_client(nodes):
    nodes.start_nbd()
    nodes.add_export("disk", writable=True)
    with client_of(nodes) as client:
        error = nodes.error("block-export-del", id="exp-disk")
        assert "exp-disk" in error.desc
        assert client.read(0, 512)[0] == 0
        client.disconnect()
    harness.wait_until(lambda: try_delete(nodes, "exp-disk"))
    nodes.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")


def try_delete(daemon, ident):
    """The daemon may still be busy with the client's leaving."""
    try:
        daemon.cmd("block-export-del", id=ident)
        return True
    except qmp.QmpError:
        return False


def test_del_hard_closes_clients(nodes, image):
    nodes.start_nbd()
    nodes.add_export("disk", writable=True)
    clients = [client_of(nodes) for _ in range(4)]
    nodes.cmd("block-export-del", id="exp-disk", mode="hard")
    nodes.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
    for client in clients:
        client.assert_closed()
    assert exports(nodes) == []
    nodes.cmd("blockdev-del", node_name="disk")


def test_del_hard_with_requests_in_flight(daemon):
    daemon.execute("blockdev-add", {
        "driver": "null-co", "node-name": "slow", "size": 1 << 30,
        "read-zeroes": True, "latency-ns": 300_000_000})
    daemon.start_nbd()
    daemon.add_export("slow", writable=True)
    client = client_of(daemon, "slow")
    for number in range(16):
        client.send_request(nbd.CMD_READ, number * 4096, 4096)
    daemon.cmd("block-export-del", id="exp-slow", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-slow")
    try:
        while True:
            client.read_reply(4096)
    except nbd.Closed:
        pass
    daemon.cmd("blockdev-del", node_name="slow")


def test_del_of_unknown_export(daemon):
    for command, member in (("block-export-del", "id"),
                            ("nbd-server-remove", "name")):
        error = daemon.error(command, **{member: "nope"})
        assert error.cls == "GenericError" and "nope" in error.desc


def test_del_mode_is_checked(nodes):
    nodes.start_nbd()
    nodes.add_export("disk")
    assert "soft" in nodes.error("block-export-del", id="exp-disk",
                                 mode="soft").desc
    assert len(exports(nodes)) == 1


def test_event_means_the_id_is_free(nodes):
    nodes.start_nbd()
    for _ in range(30):
        nodes.add_export("disk")
        nodes.cmd("block-export-del", id="exp-disk")
        nodes.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
    assert not [e for e in nodes.qmp.events
                if e["event"] == "BLOCK_EXPORT_DELETED"]


@pytest.mark.parametrize("mode", ("safe", "hard"))
def test_without_clients_the_reply_means_gone(nodes, image, mode):
    """Id and node are free again for a script that waits for no event."""
    nodes.start_nbd()
    for _ in range(30):
        nodes.add_export("disk")
        nodes.cmd("block-export-del", id="exp-disk", mode=mode)
        nodes.add_export("disk")
        nodes.cmd("nbd-server-remove", name="exp-disk", mode=mode)
        nodes.cmd("blockdev-del", node_name="disk")
        nodes.add_file(image, "disk")


def test_removed_export_leaves_the_list_at_once(nodes):
    nodes.start_nbd()
    nodes.add_export("disk")
    with nbd.RawNbd(nodes.nbd_path) as client:
        nodes.cmd("block-export-del", id="exp-disk")
        nodes.qmp.take_event("BLOCK_EXPORT_DELETED")
        assert client.list_exports() == []
        assert client.option_type(
            nbd.OPT_GO, nbd.go_data("disk")) == nbd.ERR_UNKNOWN


# Permissions.

def test_two_writable_exports_share_a_node(nodes):
    nodes.start_nbd()
    nodes.add_export("disk", "a", name="a", writable=True)
    nodes.add_export("disk", "b", name="b", writable=True)


def test_export_of_a_used_child(nodes):
    nodes.execute("blockdev-add", {"driver": "raw", "node-name": "top",
                                   "file": "disk"})
    nodes.start_nbd()
    nodes.add_export("top", writable=True)
    nodes.add_export("disk")
    assert {e["node-name"] for e in exports(nodes)} == {"top", "disk"}


# Under load.

def test_clients_come_and_go(nodes):
    nodes.start_nbd()
    nodes.add_export("disk", writable=True)
    for _ in range(200):
        client = client_of(nodes)
        client.send_request(nbd.CMD_READ, 0, 4096)
        client.close()
    with client_of(nodes) as client:
        assert client.read(0, 512)[0] == 0


def test_exports_come_and_go_under_load(nodes):
    """Hard removal while clients connect and read."""
    nodes.start_nbd(max_connections=0)
    stop = threading.Event()
    failures = []

    def work(seed):
        source = random.Random(seed)
        while not stop.is_set():
            try:
                with nbd.RawNbd(nodes.nbd_path) as client:
                    if client.option(nbd.OPT_GO, nbd.go_data("disk")
                                     )[-1].type != nbd.REP_ACK:
                        continue
                    for _ in range(source.randrange(20)):
                        error, data = client.read(0, 4096)
                        if error not in (0, nbd.ESHUTDOWN):
                            failures.append(error)
            except (nbd.Closed, ConnectionError):
                continue
            except Exception as error:  # shown below
                failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        nodes.add_export("disk", writable=True)
        nodes.cmd("query-block-exports")
        nodes.cmd("block-export-del", id="exp-disk", mode="hard")
        nodes.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
    stop.set()
    for thread in threads:
        thread.join(harness.LIMIT)
    assert not failures, failures


@pytest.mark.ours("the reference keeps one thread per export")
def test_connections_spread_over_the_loops(nodes):
    """Each worker thread has done something for many busy connections."""
    nodes.start_nbd()
    nodes.add_export("disk")
    clients = [client_of(nodes) for _ in range(16)]
    for _ in range(50):
        for client in clients:
            client.send_request(nbd.CMD_READ, 0, 65536)
        for client in clients:
            client.read_reply(65536)
    busy = 0
    for task in os.listdir(f"/proc/{nodes.pid}/task"):
        with open(f"/proc/{nodes.pid}/task/{task}/schedstat",
                  encoding="ascii") as file:
            if int(file.read().split()[0]) > 2_000_000 and \
                    int(task) != nodes.pid:
                busy += 1
    assert busy >= 2
    for client in clients:
        client.close()
