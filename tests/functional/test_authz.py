# SPDX-License-Identifier: GPL-2.0-or-later
"""Authorization: who may connect, and which exports exist for whom."""
import itertools
import json
import os
import ssl
import statistics
import threading
import time

import pytest

import certs
import harness
import qmp
import rawnbd as nbd

RED = "O=blockferry test,CN=red"
BLUE = "O=blockferry test,CN=blue"


@pytest.fixture(scope="session")
def tenants(tmp_path_factory):
    """Directories of a server and of two clients."""
    top = tmp_path_factory.mktemp("tenants")
    authority = certs.Authority(top / "ca")
    authority.issue(top / "server", "server", "localhost")
    for name in ("red", "blue"):
        authority.issue(top / name, "client", name)
    return top


def context(tenants, name):
    return harness.client_context(tenants / name)


def allow(name, form="exact"):
    return {"match": name, "policy": "allow", "format": form}


def add_list(daemon, ident, *rules):
    daemon.cmd("object-add", qom_type="authz-list", id=ident,
               rules=list(rules))


def set_rules(daemon, ident, *rules):
    daemon.cmd("qom-set", path=ident, property="rules", value=list(rules))


def add_null(daemon, *names):
    for name in names:
        daemon.cmd("blockdev-add", driver="null-co", node_name=name,
                   size=1 << 20, read_zeroes=True)


@pytest.fixture
def server(daemon, tenants):
    """One server with an export for each tenant and one for both."""
    daemon.add_creds(tenants / "server")
    daemon.start_nbd("tls0")
    add_list(daemon, "for-red", allow(RED))
    add_list(daemon, "for-blue", allow(BLUE))
    add_null(daemon, "red-disk", "blue-disk", "common")
    daemon.add_export("red-disk", tls_authz="for-red", description="of red")
    daemon.add_export("blue-disk", tls_authz="for-blue")
    daemon.add_export("common")
    return daemon


def connect(daemon, tenants, name):
    client = nbd.RawNbd(daemon.nbd_path)
    client.starttls(context(tenants, name))
    return client


def names(client):
    return [name for name, _ in client.list_exports()]


def is_let_in(daemon, tenants, name):
    """Whether the server goes on after the handshake."""
    try:
        with connect(daemon, tenants, name) as client:
            return bool(client.option(nbd.OPT_LIST))
    except TimeoutError:
        raise
    except (nbd.Closed, ssl.SSLError, OSError):
        return False


# Exports.

def test_tenants_see_their_own_exports_only(server, tenants):
    for who, other in (("red", "blue"), ("blue", "red")):
        with connect(server, tenants, who) as client:
            assert names(client) == [f"{who}-disk", "common"]
            client.negotiate_structured()
            for option in (nbd.OPT_INFO, nbd.OPT_GO):
                assert client.option_type(option, nbd.go_data(
                    f"{other}-disk")) == nbd.ERR_UNKNOWN
            assert client.info("common") == nbd.REP_ACK
            client.go(f"{who}-disk")
            assert client.read(0, 512) == (0, bytes(512))


def all_bytes(client):
    """What the server sends until it closes the connection."""
    data = b""
    try:
        while chunk := client.sock.recv(65536):
            data += chunk
    except TimeoutError:
        raise
    except (ssl.SSLError, OSError):
        pass
    return data


def test_denied_is_answered_as_absent(server, tenants):
    """Byte for byte, for each option that names an export."""
    absent, denied = "blue-dusk", "blue-disk"

    def answers(name):
        with connect(server, tenants, "red") as client:
            client.negotiate_structured()
            for option, data in (
                    (nbd.OPT_INFO, nbd.go_data(name)),
                    (nbd.OPT_INFO, nbd.go_data(name, [nbd.INFO_BLOCK_SIZE])),
                    (nbd.OPT_LIST_META, nbd.meta_data(name, [])),
                    (nbd.OPT_SET_META, nbd.meta_data(name, ["base:allocation"])),
                    (nbd.OPT_GO, nbd.go_data(name))):
                client.send_option(option, data)
            client.send_option(nbd.OPT_EXPORT_NAME, name.encode())
            return all_bytes(client)

    expected = answers(absent)
    assert expected.count(absent.encode()) == 5
    assert answers(denied).replace(denied.encode(), b"") == \
        expected.replace(absent.encode(), b"")
    server.wait_log("wants export 'blue-dusk', which does not exist")
    server.wait_log("wants export 'blue-disk', which tls-authz 'for-blue' does "
                    f"not allow for '{RED}': no rule matches it")
    event = server.qmp.take_event("NBD_CLIENT_REJECTED", reason="export-denied")
    assert event["data"]["name"] == RED
    assert event["data"]["export"] == "blue-disk"
    assert server.qmp.take_event("NBD_CLIENT_REJECTED", export="blue-dusk",
                                 reason="export-unknown")


def test_denied_takes_as_long_as_absent(server, tenants):
    """Over 2000 pairs of tries, whose order alternates."""
    data = {True: nbd.go_data("blue-disk"), False: nbd.go_data("blue-dusk")}
    times = {True: [], False: []}
    with connect(server, tenants, "red") as client:
        for number in range(2000):
            for denied in (number % 2 == 0, number % 2 == 1):
                start = time.perf_counter()
                kind = client.option_type(nbd.OPT_GO, data[denied])
                times[denied].append(time.perf_counter() - start)
                assert kind == nbd.ERR_UNKNOWN
    slower = statistics.mean(
        a > b for a, b in zip(times[True], times[False]))
    assert 0.4 < slower < 0.6
    ratio = statistics.median(times[True]) / statistics.median(times[False])
    assert 0.8 < ratio < 1.25


def test_rules_of_an_export_change_live(server, tenants):
    with connect(server, tenants, "red") as waiting, \
            connect(server, tenants, "blue") as busy:
        busy.go("blue-disk")
        assert names(waiting) == ["red-disk", "common"]
        set_rules(server, "for-blue", allow(RED))
        # The rights of a connection in negotiation are settled anew,
        assert names(waiting) == ["red-disk", "blue-disk", "common"]
        # and who uses an export goes on.
        assert busy.read(0, 512) == (0, bytes(512))
        with connect(server, tenants, "blue") as client:
            assert names(client) == ["common"]
        server.cmd("qom-set", path="for-blue", property="policy",
                   value="allow")
        with connect(server, tenants, "blue") as client:
            assert names(client) == ["blue-disk", "common"]
            waiting.go("blue-disk")


def test_rules_change_under_many_clients(server, tenants):
    """Whatever is under way, nobody sees what no rule has ever allowed."""
    set_rules(server, "for-red", allow(RED))
    ended = threading.Event()
    seen = {"red": [], "blue": []}

    def look(who):
        while not ended.is_set():
            with connect(server, tenants, who) as client:
                seen[who] += [tuple(names(client)) for _ in range(5)]

    threads = [threading.Thread(target=look, args=(who,))
               for who in ("red", "blue") * 3]
    for thread in threads:
        thread.start()
    for number in itertools.count():
        if number >= 60 and all(len(found) > 20 for found in seen.values()):
            break
        assert all(thread.is_alive() for thread in threads)
        if number % 3 == 0:
            set_rules(server, "for-blue", allow(BLUE), allow(RED))
        elif number % 3 == 1:
            set_rules(server, "for-blue")
        else:
            server.cmd("object-del", id="for-blue")
            add_list(server, "for-blue", allow(BLUE))
        server.cmd("block-export-del", id="exp-common")
        server.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-common")
        server.add_export("common")
    ended.set()
    for thread in threads:
        thread.join(harness.LIMIT)
    assert all("red-disk" in exports for exports in seen["red"])
    assert not any("red-disk" in exports for exports in seen["blue"])


def test_object_is_deleted_and_added_again(server, tenants):
    with connect(server, tenants, "red") as client:
        assert names(client) == ["red-disk", "common"]
        server.cmd("object-del", id="for-red")
        assert names(client) == ["common"]
        assert client.info("red-disk") == nbd.ERR_UNKNOWN
        server.cmd("object-add", qom_type="authz-simple", id="for-red",
                   identity=RED)
        assert names(client) == ["red-disk", "common"]
        server.cmd("qom-set", path="for-red", property="identity", value=BLUE)
        assert names(client) == ["common"]
        # Something else under that id allows nobody.
        server.cmd("object-del", id="for-red")
        server.cmd("object-add", qom_type="secret", id="for-red", data="x")
        assert names(client) == ["common"]
        assert client.option_type(
            nbd.OPT_GO, nbd.go_data("red-disk")) == nbd.ERR_UNKNOWN
    server.wait_log("'for-red' is not a QAuthZ subclass")


def test_exports_come_and_go(server, tenants):
    add_null(server, "new")
    with connect(server, tenants, "red") as client:
        assert names(client) == ["red-disk", "common"]
        server.add_export("new", tls_authz="for-red")
        assert names(client) == ["red-disk", "common", "new"]
        server.cmd("block-export-del", id="exp-red-disk")
        server.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-red-disk")
        assert names(client) == ["common", "new"]
        server.cmd("block-export-del", id="exp-new")
        server.cmd("block-export-del", id="exp-blue-disk")
        assert names(client) == ["common"]
        client.go("common")


def test_old_command_takes_it_too(server, tenants):
    add_null(server, "old")
    server.cmd("nbd-server-add", device="old", tls_authz="for-blue")
    with connect(server, tenants, "red") as client:
        assert "old" not in names(client)
    with connect(server, tenants, "blue") as client:
        client.go("old")


def test_globs(server, tenants):
    with connect(server, tenants, "red") as client:
        for pattern, fits in (("*", True), ("*,CN=red", True), ("*CN=r?d", True),
                              ("O=*test,CN=*", True), ("CN=*", False),
                              ("*CN=blue", False), ("o=*", False)):
            set_rules(server, "for-blue", allow(pattern, "glob"))
            assert ("blue-disk" in names(client)) == fits, pattern
        set_rules(server, "for-blue", {**allow("*red", "glob"),
                                       "policy": "deny"}, allow("*", "glob"))
        assert "blue-disk" not in names(client)


def test_list_file_is_followed(server, tenants, box):
    def write(value):
        (box / "new").write_text(
            value if isinstance(value, str) else json.dumps(value))
        os.rename(box / "new", box / "rules.json")

    write({"rules": [allow(BLUE)]})
    server.cmd("object-del", id="for-red")
    server.cmd("object-add", qom_type="authz-listfile", id="for-red",
               filename=str(box / "rules.json"))
    with connect(server, tenants, "red") as client:
        assert names(client) == ["common"]
        write({"rules": [allow(BLUE), allow("*red", "glob")]})
        server.wait_log("was read again, 2 rules")
        assert names(client) == ["red-disk", "common"]
        write("{")
        server.wait_log("denies everybody until")
        assert names(client) == ["common"]
        with connect(server, tenants, "blue") as other:
            assert names(other) == ["blue-disk", "common"]
        assert client.option_type(
            nbd.OPT_GO, nbd.go_data("red-disk")) == nbd.ERR_UNKNOWN
        server.wait_log("its file cannot be used: File '.*rules.json': JSON")
        write({"policy": "allow"})
        server.wait_log("was read again, 0 rules")
        client.go("red-disk")


def test_real_clients(server, tenants):
    """qemu-img and libnbd's programs."""
    def qemu_img(who, export):
        return harness.run(
            "qemu-img", "info", "--object",
            f"tls-creds-x509,id=t,endpoint=client,dir={tenants / who}",
            "--image-opts", f"driver=nbd,server.type=unix,server.path="
            f"{server.nbd_path},export={export},tls-creds=t,"
            "tls-hostname=localhost", check=False)

    def nbdinfo(who, *arguments, export=""):
        return harness.run(
            "nbdinfo", *arguments, f"nbds+unix://localhost/{export}?socket="
            f"{server.nbd_path}&tls-certificates={tenants / who}", check=False)

    for who, other in (("red", "blue"), ("blue", "red")):
        assert "virtual size: 1 MiB" in qemu_img(who, f"{who}-disk").stdout
        refused = qemu_img(who, f"{other}-disk")
        assert refused.returncode and f"export '{other}-disk' not present" in \
            refused.stderr
        assert nbdinfo(who, "--size", export=f"{who}-disk").stdout == "1048576\n"
        assert nbdinfo(who, "--size", export=f"{other}-disk").returncode
        listing = nbdinfo(who, "--list").stdout
        assert f'export="{who}-disk"' in listing
        assert f"{other}-disk" not in listing


@pytest.mark.ours("built with libpam or not")
def test_pam_says_who_exists(server, tenants):
    """No account has such a name, so that nearly every service denies it."""
    server.cmd("object-del", id="for-red")
    try:
        server.cmd("object-add", qom_type="authz-pam", id="for-red",
                   service="blockferry-test")
    except qmp.QmpError as error:
        assert "not available in this build" in error.desc
        return
    with connect(server, tenants, "red") as client:
        assert names(client) == ["common"]
        assert client.option_type(
            nbd.OPT_GO, nbd.go_data("red-disk")) == nbd.ERR_UNKNOWN
    server.wait_log(f"does not allow for '{RED}': Unable to")


# The server.

@pytest.fixture
def guarded(daemon, tenants):
    """A server with a tls-authz of its own, whose object does not exist."""
    daemon.add_creds(tenants / "server")
    daemon.start_nbd("tls0", tls_authz="a0")
    add_null(daemon, "disk")
    daemon.add_export("disk")
    return daemon


def test_server_denies_and_allows(guarded, tenants):
    def who():
        return [name for name in ("red", "blue")
                if is_let_in(guarded, tenants, name)]

    assert who() == []  # nobody knows a0
    add_list(guarded, "a0", allow(RED))
    assert who() == ["red"]
    set_rules(guarded, "a0", allow("*", "glob"))
    assert who() == ["red", "blue"]
    guarded.cmd("object-del", id="a0")
    assert who() == []
    guarded.cmd("object-add", qom_type="authz-simple", id="a0", identity=BLUE)
    assert who() == ["blue"]


@pytest.mark.ours("the reference tells no event and less in the log")
def test_denial_is_explained(guarded, tenants):
    assert not is_let_in(guarded, tenants, "red")
    guarded.wait_log(
        r"connection \d+ from .*: negotiation failed \(authorization\): "
        f"tls-authz 'a0' of the server does not allow '{RED}': "
        "Cannot find QAuthZ object ID a0; add it by object-add")
    event = guarded.qmp.take_event("NBD_CLIENT_REJECTED")["data"]
    assert event["reason"] == "authorization"
    assert event["stage"] == "authorization"
    assert event["name"] == RED and event["peer"] and event["connection"] == 1
    assert "Cannot find QAuthZ object ID a0" in event["message"]


@pytest.mark.ours("the reference looks at the handshake only")
def test_server_changes_its_mind_in_negotiation(guarded, tenants):
    guarded.cmd("object-add", qom_type="authz-simple", id="a0", identity=RED)
    with connect(guarded, tenants, "red") as client:
        assert names(client) == ["disk"]
        guarded.cmd("object-del", id="a0")
        assert names(client) == []
        assert client.option_type(
            nbd.OPT_GO, nbd.go_data("disk")) == nbd.ERR_UNKNOWN


@pytest.mark.ours("the reference ignores tls-authz then")
def test_rules_about_nameless_clients_are_refused(daemon, tenants):
    address = {"type": "unix", "data": {"path": str(daemon.nbd_path)}}

    def refusal(**arguments):
        return daemon.error("nbd-server-start", addr=address, tls_authz="a0",
                            **arguments).desc

    desc = refusal()
    assert "tls-authz 'a0' needs tls-creds" in desc
    daemon.add_creds(tenants / "server", "lax", verify_peer=False)
    desc = refusal(tls_creds="lax")
    assert "tls-authz 'a0'" in desc and "tls-creds 'lax'" in desc
    assert "verify-peer" in desc

    add_null(daemon, "disk")
    for tls in (None, "lax"):
        daemon.start_nbd(tls)
        for command, arguments in (
                ("block-export-add", {"type": "nbd", "id": "e", "node-name": "disk"}),
                ("nbd-server-add", {"device": "disk"})):
            desc = daemon.error(command, **arguments, tls_authz="a0").desc
            assert "tls-authz 'a0'" in desc and "tls-creds" in desc
            assert tls is None or "verify-peer" in desc
        daemon.cmd("nbd-server-stop")


@pytest.mark.ours("the reference has no such option for exports")
def test_command_line(daemons, tenants, box):
    daemon = daemons(
        "--object", f"tls-creds-x509,id=t,endpoint=server,dir={tenants / 'server'}",
        "--object", f"authz-simple,id=a0,identity={RED.replace(',', ',,')}",
        "--object", "authz-list,id=a1,policy=allow",
        "--blockdev", "null-co,node-name=disk,size=1048576,read-zeroes=on",
        "--nbd-server", f"addr.type=unix,addr.path={box}/daemon.nbd,"
        "tls-creds=t,tls-authz=a1",
        "--export", "nbd,id=e,node-name=disk,name=disk,tls-authz=a0")
    daemon.cmd("query-version")  # it has started
    for who, expected in (("red", ["disk"]), ("blue", [])):
        with connect(daemon, tenants, who) as client:
            assert names(client) == expected


# Pre-shared keys: the name is the user's.

@pytest.fixture
def psk_server(daemon, box):
    (box / "keys.psk").write_text("".join(
        f"{user}:{n:064x}\n" for n, user in enumerate(("alice", "bob"), 1)))
    daemon.cmd("object-add", qom_type="tls-creds-psk", id="psk0",
               endpoint="server", dir=str(box))
    add_list(daemon, "a0", allow("*", "glob"))
    add_list(daemon, "a1", allow("alice"))
    daemon.start_nbd("psk0", tls_authz="a0")
    add_null(daemon, "disk")
    daemon.add_export("disk", tls_authz="a1")
    return daemon


def psk_size(daemon, box, user):
    """What nbdinfo says about the size of the export."""
    return harness.run(
        "nbdinfo", "--size", f"nbds+unix://{user}@localhost/disk?socket="
        f"{daemon.nbd_path}&tls-psk-file={box / 'keys.psk'}",
        check=False).stdout.strip()


@pytest.mark.ours("the reference ignores tls-authz then")
def test_users_of_keys_are_authorized(psk_server, box):
    def sizes():
        return [psk_size(psk_server, box, user) for user in ("alice", "bob")]

    assert sizes() == ["1048576", ""]
    psk_server.wait_log("wants export 'disk', which tls-authz 'a1' does not "
                        "allow for 'bob'")
    set_rules(psk_server, "a1", allow("bob"))
    assert sizes() == ["", "1048576"]
    set_rules(psk_server, "a1", allow("?*", "glob"))
    set_rules(psk_server, "a0", {**allow("bob"), "policy": "deny"},
              allow("alice"))
    assert sizes() == ["1048576", ""]
    event = psk_server.qmp.take_event("NBD_CLIENT_REJECTED",
                                      reason="authorization")
    assert event["data"]["name"] == "bob"
    psk_server.cmd("object-del", id="a0")
    assert sizes() == ["", ""]


@pytest.mark.ours("the reference ignores tls-authz then")
def test_anonymous_clients_cannot_be_authorized(daemon):
    daemon.cmd("object-add", qom_type="tls-creds-anon", id="anon0",
               endpoint="server")
    desc = daemon.error("nbd-server-start", addr={
        "type": "unix", "data": {"path": str(daemon.nbd_path)}},
        tls_creds="anon0", tls_authz="a0").desc
    assert "tls-authz 'a0'" in desc and "tls-creds 'anon0'" in desc
