# SPDX-License-Identifier: GPL-2.0-or-later
"""object-add, object-del and the qom-* commands."""
import base64
import contextlib
import os

import pytest

import harness
import rawnbd as nbd


def add(daemon, kind, ident, **properties):
    return daemon.cmd("object-add", qom_type=kind, id=ident, **properties)


def objects(daemon):
    return {p["name"]: p["type"]
            for p in daemon.cmd("qom-list", path="/objects")}


# Adding and removing.

def test_object_comes_and_goes(daemon):
    add(daemon, "secret", "s0", data="x")
    assert objects(daemon)["s0"] == "child<secret>"
    assert daemon.cmd("object-del", id="s0") == {}
    assert "s0" not in objects(daemon)
    add(daemon, "secret", "s0", data="y")


@pytest.mark.parametrize("arguments, words", [
    ({"qom_type": "nosuch", "id": "x"}, ["nosuch"]),
    ({"qom_type": "secret"}, ["id"]),
    ({"id": "x"}, ["qom-type"]),
    ({"qom_type": "secret", "id": "x", "data": "a", "nosuch": 1}, ["nosuch"]),
    ({"qom_type": "secret", "id": "x", "props": {"data": "a"}},
     ["props", "beside 'qom-type'"]),
    ({"qom_type": "secret", "id": "x", "data": 5}, ["data"]),
    ({"qom_type": "secret", "id": "x", "data": "a", "format": "hex"},
     ["hex"]),
    ({"qom_type": "iothread", "id": "x", "poll-max-ns": "1"}, ["poll-max-ns"]),
    ({"qom_type": "iothread", "id": "x", "poll-max-ns": -1}, []),
    ({"qom_type": "iothread", "id": "x", "thread-pool-max": 0},
     ["thread-pool-max"]),
    ({"qom_type": "iothread", "id": "x", "thread-pool-min": 65},
     ["thread-pool-max"]),
    ({"qom_type": "tls-creds-x509", "id": "x", "endpoint": "both"},
     ["both"]),
])
def test_refused_object_is_not_left_behind(daemon, arguments, words):
    error = daemon.error("object-add", **arguments)
    assert error.cls == "GenericError"
    for word in words:
        assert word in error.desc, error.desc
    assert "x" not in objects(daemon)


def test_duplicate_id_is_refused(daemon):
    add(daemon, "secret", "s0", data="first", format="raw")
    error = daemon.error("object-add", qom_type="secret", id="s0",
                         data="eA==", format="base64")
    assert "s0" in error.desc
    assert daemon.cmd("qom-get", path="/objects/s0",
                      property="format") == "raw"


@pytest.mark.parametrize("ident", ("9x", "", "-a", "a b", "a/b", "é", "a,b"))
def test_bad_id_is_refused(daemon, ident):
    assert daemon.error("object-add", qom_type="secret", id=ident, data="x")


@pytest.mark.parametrize("ident", ("a", "A-b_c.9", "x" * 300))
def test_good_ids(daemon, ident):
    add(daemon, "secret", ident, data="x")
    daemon.cmd("object-del", id=ident)


def test_deleting_what_is_not_there(daemon):
    error = daemon.error("object-del", id="nope")
    assert error.cls == "GenericError" and "'nope' not found" in error.desc
    daemon.error("object-del", id="/objects")
    daemon.error("object-del", id="")


# Secrets.

def test_secret_from_data_and_file(daemon, box):
    add(daemon, "secret", "a", data="clear text")
    (box / "pw").write_bytes(b"from a file\n")
    add(daemon, "secret", "b", file=str(box / "pw"))
    assert daemon.cmd("qom-get", path="/objects/b",
                      property="file") == str(box / "pw")
    add(daemon, "secret", "c", format="base64",
        data=base64.b64encode(b"x" * 32).decode())


def encrypt(text, key, iv):
    return harness.run(
        "openssl", "enc", "-aes-256-cbc", "-a", "-A", "-K", key.hex(), "-iv",
        iv.hex(), stdin=text).strip()


@pytest.mark.ours("the reference reads in its main loop")
def test_stuck_files_do_not_hold_up_other_objects(daemon, box):
    """Nobody writes to the FIFO, so reading it does not end."""
    fifo = box / "fifo"
    os.mkfifo(fifo)
    clients = [daemon.client() for _ in range(12)]
    for i, client in enumerate(clients):
        client.send("object-add", {"qom-type": "secret", "id": f"stuck{i}",
                                   "file": str(fifo)})
    try:
        daemon.cmd("object-add", _limit=10, qom_type="secret", id="fine",
                   data="x")
    finally:
        # Readers come and go, so end of file is for those of the moment.
        for client in clients:
            while not client.messages:
                os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
                with contextlib.suppress(TimeoutError):
                    client.messages.append(client.read_message(0.01))


def test_secret_wrapped_by_another(daemon):
    key, iv = bytes(range(32)), bytes(range(16))
    add(daemon, "secret", "master", format="base64",
        data=base64.b64encode(key).decode())
    add(daemon, "secret", "inner", format="base64", keyid="master",
        iv=base64.b64encode(iv).decode(),
        data=encrypt("wrapped password", key, iv))


SIXTEEN = base64.b64encode(bytes(16)).decode()


@pytest.mark.parametrize("properties, words", [
    ({}, ["file", "data"]),
    ({"data": "x", "file": "/y"}, ["file", "data"]),
    ({"file": "/nonexistent/f"}, ["/nonexistent/f"]),
    ({"data": "!!!", "format": "base64"}, ["ase64"]),
    ({"data": "x", "keyid": "nope", "iv": SIXTEEN}, ["nope"]),
    ({"data": "x", "keyid": "short", "iv": SIXTEEN}, ["32"]),
    ({"data": "x" * 16, "keyid": "key"}, ["IV"]),
    ({"data": "x" * 16, "keyid": "key", "iv": "AA=="}, ["16"]),
    ({"data": "x", "keyid": "key", "iv": SIXTEEN}, ["16"]),
])
def test_bad_secret_is_explained(daemon, properties, words):
    add(daemon, "secret", "short", data="short")
    add(daemon, "secret", "key", data="k" * 32)
    error = daemon.error("object-add", qom_type="secret", id="bad",
                         **properties)
    for word in words:
        assert word in error.desc, error.desc


@pytest.mark.ours("the reference reads before its buffer")
def test_empty_ciphertext_is_refused(daemon):
    add(daemon, "secret", "key", data="k" * 32)
    daemon.error("object-add", qom_type="secret", id="bad", data="",
                 keyid="key", iv=SIXTEEN)


def test_secret_is_not_in_the_log(daemon):
    add(daemon, "secret", "s0", data="topsecretword")
    daemon.error("object-add", qom_type="secret", id="s0",
                 data="topsecretword")
    daemon.error("object-add", qom_type="secret", id="9", data="topsecretword")
    assert "topsecretword" not in daemon.log()


# iothreads.

def test_iothread_defaults_and_changes(daemon):
    add(daemon, "iothread", "io9")
    path = {"path": "/objects/io9"}
    assert daemon.cmd("qom-get", property="poll-max-ns", **path) == 32768
    assert daemon.cmd("qom-get", property="poll-grow", **path) == 0
    daemon.cmd("qom-set", property="poll-max-ns", value=0, **path)
    assert daemon.cmd("qom-get", property="poll-max-ns", **path) == 0
    daemon.error("qom-set", property="poll-max-ns", value=-1, **path)
    daemon.error("qom-set", property="poll-max-ns", value="x", **path)
    daemon.cmd("object-del", id="io9")


def test_export_on_an_iothread(daemon, image, connect_nbd):
    add(daemon, "iothread", "io9")
    daemon.add_file(image)
    path = daemon.start_nbd()
    daemon.add_export("disk", iothread="io9", writable=True)
    handle = connect_nbd(path)
    handle.pwrite(b"y" * 512, 0)
    assert handle.pread(512, 0) == b"y" * 512
    error = daemon.error("block-export-add", type="nbd", id="e2",
                         node_name="disk", iothread="nope")
    assert "nope" in error.desc


@pytest.mark.ours("the reference crashes")
def test_iothread_in_use_is_not_deleted_or_kept(daemon, image, connect_nbd):
    add(daemon, "iothread", "io9")
    daemon.add_file(image)
    path = daemon.start_nbd()
    daemon.add_export("disk", iothread="io9")
    handle = connect_nbd(path)
    error = daemon.error("object-del", id="io9")
    assert error.desc == ("object 'io9' is in use by export 'exp-disk', can "
                          "not be deleted")
    assert handle.pread(512, 0)
    daemon.cmd("block-export-del", id="exp-disk", mode="hard")
    daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-disk")
    daemon.cmd("object-del", id="io9")


def threads(daemon):
    """Where connections are served, oldest first, once all are."""
    def look():
        clients = daemon.cmd("query-nbd-clients")
        found = [client.get("thread") for client in clients]
        return found if None not in found else None
    return harness.wait_until(look, 10, "the end of negotiations")


@pytest.mark.ours("newer than the reference")
def test_connections_are_spread_over_iothreads(daemon, image, connect_nbd):
    names = ["ioa", "iob", "ioc"]
    for name in names:
        add(daemon, "iothread", name)
    daemon.add_file(image)
    path = daemon.start_nbd()
    daemon.add_export("disk", iothread=names, writable=True)
    daemon.add_export("disk", "one", name="one", iothread="iob")
    handles = []
    for _ in range(6):
        handles.append(connect_nbd(path))
        threads(daemon)
    assert threads(daemon) == names * 2
    for number, handle in enumerate(handles):
        handle.pwrite(bytes([number]) * 512, number * 512)
    for number, handle in enumerate(handles):
        other = (number + 1) % 6
        assert handle.pread(512, other * 512) == bytes([other]) * 512
    # Those of another export count too.
    connect_nbd(path, "one")
    assert threads(daemon)[-1] == "iob"
    handles[0].shutdown()
    handles[3].shutdown()
    harness.wait_until(lambda: len(daemon.cmd("query-nbd-clients")) == 5, 10,
                       "their leaving")
    for _ in range(3):
        connect_nbd(path)
        threads(daemon)
    assert threads(daemon)[-3:] == ["ioa"] * 3
    for name in names:
        assert "in use" in daemon.error("object-del", id=name).desc
    for ident in ("exp-disk", "one"):
        daemon.cmd("block-export-del", id=ident, mode="hard")
        daemon.qmp.take_event("BLOCK_EXPORT_DELETED", id=ident)
    for name in names:
        daemon.cmd("object-del", id=name)


@pytest.mark.ours("newer than the reference")
@pytest.mark.parametrize("iothread, words", [
    ([], "the list of iothreads is empty"),
    (["io0", "nope"], 'iothread "nope" not found'),
    (["io0", "io1", "io0"], 'iothread "io0" is named twice'),
    ({"io0": 1}, "iothread"), ([1], "iothread")])
def test_lists_of_iothreads_are_checked(daemon, image, iothread, words):
    daemon.add_file(image)
    daemon.start_nbd()
    error = daemon.error("block-export-add", type="nbd", id="e0",
                         node_name="disk", iothread=iothread)
    assert words in error.desc
    daemon.add_export("disk", "e0", iothread=["io0"])
    daemon.cmd("block-export-del", id="e0")


@pytest.mark.ours("newer than the reference")
def test_fixed_iothreads(daemons, image, box):
    """A node that is tied to a thread is served there, unless that is
    forbidden."""
    daemon = daemons("--object", "iothread,id=a", "--object", "iothread,id=b")
    daemon.add_file(image)
    daemon.start_nbd()
    daemon.add_export("disk", "free", iothread=["a", "b"], fixed_iothread=True)
    daemon.cmd("blockdev-add", driver="quorum", node_name="tied",
               vote_threshold=1, children=[{
                   "driver": "null-co", "size": 512}])
    error = daemon.error("block-export-add", type="nbd", id="e1",
                         node_name="tied", iothread=["a", "b"],
                         fixed_iothread=True)
    assert error.desc == (
        "node 'tied' cannot be used from iothread 'a', 'b': its tree is tied "
        "to another loop; leave fixed-iothread out")
    daemon.add_export("tied", "e1", iothread=["a", "b"])
    with nbd.RawNbd(daemon.nbd_path) as peer:
        peer.go("tied")
        assert threads(daemon)[0].startswith("worker")


@pytest.mark.ours("newer than the reference")
def test_iothreads_of_the_command_line(daemons, image, box):
    daemon = daemons(
        "--nbd-server", f"addr.type=unix,addr.path={box}/nbd",
        "--blockdev", f"driver=file,node-name=disk,filename={image}",
        "--export", "type=nbd,id=e0,node-name=disk,iothread.0=io0,"
        "iothread.1=io1", "--export",
        "type=nbd,id=e1,node-name=disk,name=e1,iothread=io1")
    assert len(daemon.cmd("query-block-exports")) == 2
    with nbd.RawNbd(box / "nbd") as first, nbd.RawNbd(box / "nbd") as second:
        first.go("disk")
        harness.wait_until(lambda: "io0" in [
            client.get("thread") for client in daemon.cmd("query-nbd-clients")
        ], 10, "the first client")
        second.go("disk")
        assert threads(daemon) == ["io0", "io1"]


# The object tree.

def test_qom_list_and_paths(daemon):
    add(daemon, "secret", "s0", data="x")
    root = {p["name"]: p["type"] for p in daemon.cmd("qom-list", path="/")}
    assert root["type"] == "string" and "objects" in root
    members = {p["name"]: p["type"]
               for p in daemon.cmd("qom-list", path="/objects/s0")}
    assert members["data"] == "string" and members["type"] == "string"
    assert daemon.cmd("qom-get", path="/objects/s0",
                      property="type") == "secret"
    assert daemon.cmd("qom-get", path="s0", property="format") == "raw"


@pytest.mark.parametrize("command, arguments", [
    ("qom-list", {"path": "/nope"}),
    ("qom-get", {"path": "/objects/nope", "property": "x"}),
    ("qom-set", {"path": "/nope", "property": "x", "value": 1}),
    ("qom-list-properties", {"typename": "nope"}),
])
def test_unknown_path_is_device_not_found(daemon, command, arguments):
    error = daemon.error(command, **arguments)
    assert error.cls == "DeviceNotFound" and "nope" in error.desc


def test_path_that_is_empty(daemon):
    for command, arguments in (("qom-get", {"property": "type"}),
                               ("qom-set", {"property": "type", "value": 1})):
        error = daemon.error(command, path="", **arguments)
        assert (error.cls, error.desc) == (
            "DeviceNotFound", "Device '' not found")
    error = daemon.error("qom-list", path="")
    assert (error.cls, error.desc) == ("GenericError", "Path '' is ambiguous")


def test_unknown_property_is_named(daemon):
    add(daemon, "secret", "s0", data="x")
    error = daemon.error("qom-get", path="/objects/s0", property="nope")
    assert error.cls == "GenericError" and "nope" in error.desc
    daemon.error("qom-set", path="/objects/s0", property="nope", value=1)
    daemon.error("qom-set", path="/objects/s0", property="type", value="x")


def test_list_types(daemon):
    creatable = daemon.cmd("qom-list-types", implements="user-creatable")
    names = {t["name"] for t in creatable}
    assert {"secret", "iothread", "tls-creds-x509"} <= names
    assert not any(t.get("abstract") for t in creatable)
    everything = daemon.cmd("qom-list-types", implements="user-creatable",
                            abstract=True)
    assert len(everything) >= len(creatable)
    assert daemon.cmd("qom-list-types", implements="nosuch") == []


def test_list_properties(daemon):
    properties = {p["name"]: p["type"] for p in daemon.cmd(
        "qom-list-properties", typename="tls-creds-x509")}
    assert properties["dir"] == "string"
    assert properties["verify-peer"] == "bool"
    assert "endpoint" in properties and "sanity-check" in properties


def test_credentials_can_be_read_back(daemon, tls_dir):
    daemon.add_creds(tls_dir)
    path = {"path": "/objects/tls0"}
    assert daemon.cmd("qom-get", property="dir", **path) == str(tls_dir)
    assert daemon.cmd("qom-get", property="endpoint", **path) == "server"
    assert daemon.cmd("qom-get", property="verify-peer", **path) is True
    assert daemon.cmd("qom-get", property="priority", **path) == ""
