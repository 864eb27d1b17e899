# SPDX-License-Identifier: GPL-2.0-or-later
"""config-save: what it writes makes the same set-up again."""
import json
import os
import random
import re
import stat

import pytest

import harness
import qapi
import qmp
from certs import PASSWORD
from test_secrets import IV, KEY, b64, encrypt

pytestmark = pytest.mark.ours("the reference cannot save its set-up")

SIZE = 4 << 20
SUBJECT = "CN=client1,O=blockferry test"


def commands(text):
    return [json.loads(line) for line in text.splitlines()
            if line.startswith("{")]


def arguments_of(text, command, ident):
    """The arguments of the command that makes something of this name."""
    name = "node-name" if command == "blockdev-add" else "id"
    found, = [c["arguments"] for c in commands(text)
              if c["execute"] == command and c["arguments"][name] == ident]
    return found


def without_names(value):
    """Names that the daemon chooses, and numbers of what clients did, differ
    from run to run."""
    text = re.sub(r"#block\d+", "#block", json.dumps(value, sort_keys=True))
    value = json.loads(text)
    for item in value:
        for member in ("stats", "requests"):
            item.pop(member, None)
    return value


def picture(daemon):
    """Everything that the queries tell of the set-up."""
    objects = {}
    for item in daemon.cmd("qom-list", path="/objects"):
        if item["name"] == "type":
            continue
        path = f"/objects/{item['name']}"
        objects[item["name"]] = {
            p["name"]: daemon.cmd("qom-get", path=path, property=p["name"])
            for p in daemon.cmd("qom-list", path=path)
            if p["name"] != "data"}
    graph = daemon.cmd("x-debug-query-block-graph")
    nodes = daemon.cmd("query-named-block-nodes")
    names = {n["id"]: re.sub(r"^#block.*", "#block", n["name"])
             for n in graph["nodes"]}
    return {
        "objects": objects,
        "nodes": sorted(without_names(nodes),
                        key=lambda n: json.dumps(n, sort_keys=True)),
        # Children of a quorum are numbered anew.
        "edges": sorted((names[e["parent"]], names[e["child"]],
                         e["name"].rstrip("0123456789"),
                         sorted(e["perm"]), sorted(e["shared-perm"]))
                        for e in graph["edges"]),
        "server": daemon.cmd("query-nbd-server"),
        "exports": without_names(daemon.cmd("query-block-exports")),
        "chardevs": [c for c in daemon.cmd("query-chardev")
                     if c["label"] != "qmp"],
    }


def assert_same(before, after):
    for part, value in before.items():
        if isinstance(value, list):
            lost = [item for item in value if item not in after[part]]
            new = [item for item in after[part] if item not in value]
            assert not lost and not new, f"{part}: {lost} became {new}"
        assert after[part] == value, part


@pytest.fixture
def restart(daemons, box):
    """A function that saves, kills the daemon and starts another one."""
    def run(daemon, **arguments):
        path = box / "saved.conf"
        info = daemon.cmd("config-save", filename=str(path), **arguments)
        assert info["filename"] == str(path) and "text" not in info
        daemon.kill()
        return path, daemons("--config", path, workers=False)
    return run


def add_objects(daemon, box, locked_dir, tls_dir):
    (box / "key.b64").write_text(b64(KEY))
    (box / "plain").write_text("x")
    for ident, members in (
            ("plain", {"file": str(box / "plain")}),
            ("master", {"file": str(box / "key.b64"), "format": "base64"}),
            ("password", {"data": b64(encrypt(PASSWORD.encode())),
                          "keyid": "master", "iv": b64(IV),
                          "format": "base64"})):
        daemon.execute("object-add", {"qom-type": "secret", "id": ident,
                                      **members})
    daemon.add_creds(locked_dir, passwordid="password")
    daemon.add_creds(tls_dir, "psk", qom_type="tls-creds-psk",
                     verify_peer=True)
    daemon.cmd("object-add", qom_type="iothread", id="io9", poll_max_ns=1000)
    daemon.cmd("object-add", qom_type="throttle-group", id="tg0",
               limits={"iops-total": 5000})
    daemon.cmd("qom-set", path="/objects/tg0", property="limits",
               value={"bps-total": 1 << 30})
    daemon.cmd("object-add", qom_type="authz-list", id="who", rules=[])
    daemon.cmd("qom-set", path="/objects/who", property="rules", value=[
        {"match": "*,O=blockferry test", "format": "glob",
         "policy": "allow"},
        {"match": "O=blockferry test,*", "format": "glob",
         "policy": "allow"}])
    daemon.cmd("object-add", qom_type="authz-simple", id="nobody",
               identity='Jos\u00e9 "the\\first", Esq.')
    # Made again after what needs it.
    daemon.cmd("object-del", id="master")
    daemon.execute("object-add", {
        "qom-type": "secret", "id": "master", "format": "base64",
        "file": str(box / "key.b64")})


def add_nodes(daemon, box):
    for name in ("a", "b", "c"):
        harness.make_image(box / f"{name}.img", SIZE, {
            4096: name.encode() * 4096})
    add = daemon.execute
    add("blockdev-add", {
        "driver": "raw", "node-name": "top", "discard": "unmap",
        "detect-zeroes": "unmap", "file": {
            "driver": "file", "node-name": "below", "cache": {"direct": True},
            "filename": str(box / "a.img")}})
    daemon.add_file(box / "b.img", "b0", **{"read-only": True})
    add("blockdev-add", {"driver": "raw", "node-name": "window",
                         "file": "b0", "read-only": True, "size": 1 << 20,
                         "offset": 4096})
    add("blockdev-add", {"driver": "null-co", "node-name": "n\u0030",
                         "size": 1 << 20, "read-zeroes": True})
    add("blockdev-add", {"driver": "throttle", "node-name": "slow",
                         "throttle-group": "tg0", "file": "n0"})
    # A newer node becomes the child of an older one.
    daemon.add_file(box / "c.img", "c0", **{"read-only": True})
    add("blockdev-reopen", {"options": [{
        "driver": "raw", "node-name": "window", "file": "c0",
        "read-only": True, "size": 1 << 20, "offset": 4096}]})
    # A child that came later, and one that has gone.
    for number in range(3):
        add("blockdev-add", {"driver": "null-co", "node-name": f"q{number}",
                             "size": 1 << 20, "read-zeroes": True})
    add("blockdev-add", {"driver": "quorum", "node-name": "quorum",
                         "vote-threshold": 1, "children": ["q0", "q1"]})
    daemon.cmd("x-blockdev-change", parent="quorum", node="q2")
    daemon.cmd("x-blockdev-change", parent="quorum", child="children.0")
    add("blockdev-add", {"driver": "null-co", "node-name": "asleep",
                         "size": 1 << 20})
    daemon.cmd("blockdev-set-active", node_name="asleep", active=False)


def add_rest(daemon):
    daemon.cmd("chardev-add", id="ring", backend={
        "type": "ringbuf", "data": {"size": 4096}})
    daemon.cmd("chardev-add", id="more", backend={"type": "socket", "data": {
        "addr": {"type": "unix", "data": {
            "path": str(daemon.dir / "more.sock"), "mode": "0600"}},
        "server": True, "wait": False}})
    daemon.start_nbd(tls="tls0", tls_authz="who", max_connections=7,
                     max_connections_per_address=3, handshake_max_seconds=9)
    for ident in ("plain", "gone"):
        daemon.cmd("nbd-server-add-listener", id=ident, max_connections=3,
                   addr={"type": "unix", "path": str(daemon.dir / f"{ident}.sock")})
    daemon.cmd("nbd-server-remove-listener", id="gone")
    daemon.add_export("top", "e-top", writable=True, name="disk",
                      description="a \"disk\"\twith\u00e4", iothread="io9",
                      throttle_group="tg0", tls_authz="who")
    daemon.add_export("window", "e-window")
    daemon.add_export("below", "e-below")
    daemon.add_export("quorum", "e-quorum")
    daemon.add_export("asleep", "e-asleep", allow_inactive=True)


@pytest.fixture
def rich(daemons, box, locked_dir, tls_dir):
    daemon = daemons(name="daemon")
    add_objects(daemon, box, locked_dir, tls_dir)
    add_nodes(daemon, box)
    add_rest(daemon)
    return daemon


def test_set_up_comes_back(rich, restart, connect_nbd):
    before = picture(rich)
    path, again = restart(rich)
    again.name = rich.name  # its sockets have this name
    assert_same(before, picture(again))
    handle = connect_nbd(rich.nbd_path, "disk", tls=True)
    assert handle.pread(8192, 4096) == b"a" * 4096 + bytes(4096)
    handle.pwrite(b"w" * 512, 0)
    window = connect_nbd(rich.nbd_path, "window", tls=True)
    assert window.pread(512, 0) == b"c" * 512
    plain = connect_nbd(rich.dir / "plain.sock", "window")
    assert plain.pread(512, 0) == b"c" * 512
    assert not stat.S_IMODE(os.stat(path).st_mode) & 0o077


def test_second_save_equals_the_first(rich, restart):
    path, again = restart(rich)
    first = path.read_text()
    assert again.cmd("config-save")["text"] == first
    again.cmd("config-save", filename=str(path))
    assert path.read_text() == first
    assert [p.name for p in path.parent.glob("saved.conf*")] == ["saved.conf"]


def test_link_stays_a_link(daemon, box):
    link, target = box / "link.conf", box / "target.conf"
    target.write_text("old")
    link.symlink_to(target)
    daemon.cmd("config-save", filename=str(link))
    assert link.is_symlink() and target.read_text() != "old"
    target.unlink()
    assert "leads nowhere" in daemon.error(
        "config-save", filename=str(link)).desc
    assert link.is_symlink() and not target.exists()


def test_text_is_short_and_ordered(rich):
    info = rich.cmd("config-save")
    text = info["text"]
    names = [c["execute"] for c in commands(text)]
    assert info["commands"] == len(names) and info["left-out"] == []
    assert sorted(set(names), key=names.index) == [
        "object-add", "chardev-add", "blockdev-add", "nbd-server-start",
        "nbd-server-add-listener", "block-export-add"]
    assert arguments_of(text, "block-export-add", "e-window") == {
        "type": "nbd", "id": "e-window", "node-name": "window"}
    assert arguments_of(text, "blockdev-add", "top")["file"] == {
        "driver": "file", "node-name": "below", "cache": {"direct": True},
        "filename": str(rich.dir / "a.img")}
    assert arguments_of(text, "blockdev-add", "quorum")["children"] == [
        "q1", "q2"]
    assert arguments_of(text, "object-add", "tg0") == {
        "qom-type": "throttle-group", "id": "tg0",
        "limits": {"iops-total": 5000, "bps-total": 1 << 30}}
    assert PASSWORD not in text and b64(KEY) not in text
    assert '"qmp"' not in text  # of the command line


def test_each_number_of_the_server_is_saved(daemon):
    """Also those that its commands get some day."""
    schema = qapi.Schema(daemon.cmd("query-qmp-schema"))
    given = {}
    for command, path in (("nbd-server-start", {"type": "unix", "data": {
            "path": str(daemon.nbd_path)}}),
                          ("nbd-server-add-listener", {
                              "type": "unix", "path": str(daemon.dir / "l")})):
        members = schema.types[schema.command(command)["arg-type"]]["members"]
        given[command] = {"addr": path, **{
            m["name"]: 50 + number for number, m in enumerate(members)
            if m["type"] == "int"}}
        if command == "nbd-server-add-listener":
            given[command]["id"] = "more"
        daemon.execute(command, given[command])
    saved = {c["execute"]: c["arguments"] for c in commands(
        daemon.cmd("config-save")["text"])}
    assert {command: saved[command] for command in given} == given


def test_nothing_gives_nothing(daemons):
    daemon = daemons(workers=False)
    info = daemon.cmd("config-save")
    assert info["commands"] == 0 and info["left-out"] == []
    assert all(line.startswith("#") for line in info["text"].splitlines())


# Nodes that are made inline, and others' use of them.

def add_inline(daemon, box, name="below"):
    """A node with a child that takes its settings from it."""
    harness.make_image(box / "a.img", SIZE, {0: b"a" * 4096})
    child = {"driver": "file", "filename": str(box / "a.img")}
    daemon.execute("blockdev-add", {
        "driver": "raw", "node-name": "top", "read-only": True,
        "cache": {"no-flush": True},
        "file": {**child, "node-name": name} if name else child})


def test_node_comes_before_who_uses_its_child(daemon, box, restart):
    """Also if it is younger."""
    harness.make_image(box / "b.img", SIZE)
    daemon.add_file(box / "b.img", "b0", **{"read-only": True})
    user = {"driver": "raw", "node-name": "user", "read-only": True}
    daemon.execute("blockdev-add", {**user, "file": "b0"})
    add_inline(daemon, box)
    daemon.execute("blockdev-reopen", {"options": [{**user,
                                                    "file": "below"}]})
    before = picture(daemon)
    path, again = restart(daemon)
    assert_same(before, picture(again))
    text = path.read_text()
    assert text.index('"top"') < text.index('"user"')


def test_child_that_has_lost_who_made_it(daemon, box, restart):
    """It keeps what it had from there."""
    add_inline(daemon, box)
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "user",
                                    "read-only": True, "file": "below"})
    daemon.cmd("blockdev-del", node_name="top")
    before = picture(daemon)
    path, again = restart(daemon)
    assert_same(before, picture(again))
    child = arguments_of(path.read_text(), "blockdev-add", "user")["file"]
    assert child["read-only"] and child["cache"]["no-flush"]


@pytest.mark.parametrize("more", ({}, {"force-share": True}),
                         ids=("alone", "force-share"))
def test_child_stays_read_only_that_was_so_by_its_maker(daemon, box, restart,
                                                        more):
    """auto-read-only makes nothing writable that was to be read-only."""
    add_inline(daemon, box)
    daemon.execute("blockdev-reopen", {"options": [{
        "driver": "raw", "node-name": "top", "read-only": True,
        "auto-read-only": True, **more, "file": "below"}]})
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "user",
                                    "file": "below"})
    daemon.cmd("blockdev-del", node_name="top")
    before = picture(daemon)
    path, again = restart(daemon)
    assert_same(before, picture(again))
    child = arguments_of(path.read_text(), "blockdev-add", "user")["file"]
    assert child["read-only"] and child["auto-read-only"]


def test_child_that_fell_back_may_be_writable_again(daemons, box, image,
                                                    restart):
    """What the storage said is not taken for what was asked for."""
    daemons(name="other").serve_file(image, writable=False)
    daemon = daemons()
    daemon.execute("blockdev-add", {
        "driver": "raw", "node-name": "top", "auto-read-only": True, "file": {
            "driver": "nbd", "node-name": "below", "export": "disk",
            "server": {"type": "unix", "path": str(box / "other.nbd")}}})
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "user",
                                    "file": "below"})
    daemon.cmd("blockdev-del", node_name="top")
    before = picture(daemon)
    assert [n["ro"] for n in before["nodes"]
            if n["node-name"] == "below"] == [True]
    path, again = restart(daemon)
    assert_same(before, picture(again))
    child = arguments_of(path.read_text(), "blockdev-add", "user")["file"]
    assert not child.get("read-only") and child["auto-read-only"]


def test_shared_child_without_a_name_is_left_out(daemon, box):
    add_inline(daemon, box, None)
    name, = [n["node-name"] for n in daemon.cmd("query-named-block-nodes")
             if n["node-name"].startswith("#")]
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "user",
                                    "read-only": True, "file": name})
    info = daemon.cmd("config-save", incomplete=True)
    left, = info["left-out"]
    assert left["id"] == "user" and name in left["reason"]
    assert arguments_of(info["text"], "blockdev-add", "top")


def test_reopened_child_inline(daemon, box, restart):
    """What a reopen gives to an inline child is what is saved."""
    add_inline(daemon, box)
    daemon.execute("blockdev-reopen", {"options": [{
        "driver": "raw", "node-name": "top", "file": {
            "driver": "file", "node-name": "below",
            "filename": str(box / "a.img"), "cache": {"direct": True}}}]})
    before = picture(daemon)
    path, again = restart(daemon)
    assert_same(before, picture(again))
    top = arguments_of(path.read_text(), "blockdev-add", "top")
    assert "read-only" not in top
    assert top["file"]["cache"] == {"direct": True}


class Noise:
    """Changes of the graph at random; some of them are refused."""

    def __init__(self, daemon, source):
        self.daemon, self.random, self.count = daemon, source, 0
        self.made = []

    def name(self):
        self.count += 1
        return f"n{self.count}"

    def some_node(self):
        """Any node that is there, those made inline included."""
        return self.random.choice([
            n["node-name"] for n in self.daemon.cmd("query-named-block-nodes")
            if not n["node-name"].startswith("#")] or ["none"])

    def options(self, depth=0):
        """Of a new node, with children that are new or there."""
        random = self.random
        options = random.choice((
            {}, {"read-only": True}, {"cache": {"no-flush": True}},
            {"detect-zeroes": "on"}, {"discard": "unmap"}))
        if depth == 0 or random.random() < 0.7:
            options = {**options, "node-name": self.name()}
        if depth == 2 or random.random() < 0.3:
            return {**options, "driver": "null-co", "size": 1 << 20,
                    "read-zeroes": True}
        driver = random.choice(("raw", "copy-on-read", "throttle", "quorum"))
        options["driver"] = driver
        if driver == "quorum":
            return {**options, "vote-threshold": 1, "children": [
                self.child(depth) for _ in range(random.randrange(1, 4))]}
        if driver == "throttle":
            options["throttle-group"] = "tg0"
        return {**options, "file": self.child(depth)}

    def child(self, depth):
        return self.some_node() if self.random.random() < 0.5 else \
            self.options(depth + 1)

    def add(self):
        options = self.options()
        self.daemon.execute("blockdev-add", options)
        self.made.append(options)

    def reopen(self):
        """Another child for a node that has one."""
        options = self.random.choice(self.made or [{}])
        if "file" not in options:
            return
        self.daemon.execute("blockdev-reopen", {"options": [
            {**options, "file": self.some_node()}]})

    def delete(self):
        self.daemon.cmd("blockdev-del", node_name=self.some_node())

    def export(self):
        name = self.name()
        self.daemon.cmd("block-export-add", type="nbd", id=name, name=name,
                        node_name=self.some_node())

    def activate(self):
        self.daemon.cmd("blockdev-set-active", node_name=self.some_node(),
                        active=False)

    def step(self):
        step = self.random.choice((self.add, self.add, self.reopen,
                                   self.delete, self.export, self.activate))
        try:
            step()
            return 1
        except qmp.QmpError:
            return 0  # the graph does not allow it

    def run(self, rounds):
        """How many steps were done, the text and the picture: of the last round
        after which nothing was left out. That is rare: somebody uses a child
        that has no name."""
        done, last = 0, (0, None, None)
        for _ in range(rounds):
            done += sum(self.step() for _ in range(10))
            info = self.daemon.cmd("config-save", incomplete=True)
            if not info["left-out"]:
                last = done, info["text"], picture(self.daemon)
        return last


def make_at_random(daemon, source):
    daemon.cmd("object-add", qom_type="throttle-group", id="tg0")
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "first",
                                    "size": 1 << 20, "read-zeroes": True})
    daemon.start_nbd()
    return Noise(daemon, source).run(6)


@pytest.mark.parametrize("number", range(3))
def test_set_up_at_random(daemons, box, number):
    source = random.Random(harness.seed() + number)
    done = 0
    while done <= 10:  # else it went wrong early, and there is little to see
        daemon = daemons()
        done, text, before = make_at_random(daemon, source)
        daemon.kill()
    path = box / "saved.conf"
    path.write_text(text)
    again = daemons("--config", path, workers=False)
    assert_same(before, picture(again))
    assert again.cmd("config-save")["text"] == text


def test_child_that_was_reopened_by_its_automatic_name(daemon, image, restart):
    child = {"driver": "file", "filename": str(image)}
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "top",
                                    "file": child})
    name, = [n["node-name"] for n in daemon.cmd("query-named-block-nodes")
             if n["node-name"][0] == "#"]
    daemon.execute("blockdev-reopen", {"options": [
        {**child, "node-name": name, "discard": "unmap"}]})
    path, again = restart(daemon)
    assert again.cmd("config-save")["text"] == path.read_text()
    assert '"discard": "unmap"' in path.read_text()


def test_child_that_woke_up_below_a_sleeping_node(daemon, restart):
    daemon.execute("blockdev-add", {
        "driver": "quorum", "node-name": "top", "vote-threshold": 1,
        "active": False, "children": [
            {"driver": "raw", "node-name": "woken", "file": {
                "driver": "null-co", "node-name": "below", "size": 1 << 20}},
            {"driver": "null-co", "node-name": "asleep", "size": 1 << 20}]})
    daemon.start_nbd()
    daemon.add_export("woken")
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "user",
                                    "file": "below"})
    active = {n["node-name"]: n["active"]
              for n in daemon.cmd("query-named-block-nodes")}
    assert active == {"top": False, "woken": True, "below": True,
                      "asleep": False, "user": True}
    before = picture(daemon)
    path, again = restart(daemon)
    assert_same(before, picture(again))
    assert again.cmd("config-save")["text"] == path.read_text()


# What cannot be saved.

def test_secret_in_clear_is_never_written(daemon, box):
    path = box / "saved.conf"
    daemon.cmd("object-add", qom_type="secret", id="sec0", data="Open Sesame")
    error = daemon.error("config-save", filename=str(path))
    assert "secret 'sec0' was given as data" in error.desc
    assert "incomplete=true" in error.desc and not path.exists()
    info = daemon.cmd("config-save", filename=str(path), incomplete=True)
    left, = info["left-out"]
    assert left["kind"] == "object" and left["id"] == "sec0"
    text = path.read_text()
    assert "Sesame" not in text
    assert f"# Left out: {left['reason']}\n" in text
    assert '"io0"' in text  # the rest is there


def test_what_needs_a_missing_thing_ends_the_start(daemon, box, locked_dir):
    path = box / "saved.conf"
    daemon.cmd("object-add", qom_type="secret", id="sec0", data=PASSWORD)
    daemon.add_creds(locked_dir, passwordid="sec0")
    daemon.cmd("config-save", filename=str(path), incomplete=True)
    result = harness.run(harness.PROGRAM, "--config", path, check=False)
    assert result.returncode == 1
    line = 1 + [line for line, text in enumerate(path.read_text().splitlines())
                if '"tls0"' in text][0]
    assert f"{path}:{line}: No secret with id 'sec0'" in result.stderr


def test_passed_descriptors_are_left_out(daemon, box, image):
    with open(image, "rb") as file:
        daemon.cmd("add-fd", fdset_id=1, _fds=[file.fileno()])
    daemon.add_file("/dev/fdset/1", "passed", **{"read-only": True})
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "top",
                                    "read-only": True, "file": "passed"})
    left, = daemon.cmd("config-save", incomplete=True)["left-out"]
    assert (left["kind"], left["id"]) == ("node", "passed")
    assert "descriptor" in left["reason"]


@pytest.mark.parametrize("path", (
    "/proc/self/fd/{fd}", "/proc/thread-self/fd/{fd}", "/proc/{pid}/fd/{fd}",
    "/dev/fd/{fd}", "//dev/../proc//self/fd/{fd}"))
def test_objects_from_a_descriptor_are_left_out(daemons, tls_dir, path):
    """A directory that only this process has open, and a file in it."""
    fd = os.open(tls_dir, os.O_RDONLY)
    try:
        daemon = daemons(extra_fds=[fd])
    finally:
        os.close(fd)
    directory = path.format(fd=fd, pid=daemon.pid)
    daemon.add_creds(directory)
    daemon.cmd("object-add", qom_type="secret", id="sec0",
               file=f"{directory}/ca-cert.pem")
    for left, kind in zip(daemon.cmd("config-save", incomplete=True)[
            "left-out"], ("tls-creds-x509 'tls0'", "secret 'sec0'"),
            strict=True):
        assert left["reason"].startswith(kind), left
        assert f"'{directory}" in left["reason"]
        assert "a descriptor that was passed to this process" in left["reason"]


def test_objects_from_standard_input_are_left_out(daemon):
    daemon.cmd("object-add", qom_type="secret", id="sec0", file="/dev/stdin")
    left, = daemon.cmd("config-save", incomplete=True)["left-out"]
    assert "'/dev/stdin', a descriptor" in left["reason"]


def test_own_client_is_left_out(daemon, image):
    daemon.serve_file(image)
    daemon.execute("blockdev-add", {
        "driver": "nbd", "node-name": "loop", "export": "disk",
        "server": {"type": "unix", "path": str(daemon.nbd_path)}})
    left, = daemon.cmd("config-save", incomplete=True)["left-out"]
    assert left["id"] == "loop" and "own export 'disk'" in left["reason"]


def test_bitmaps_of_exports_are_left_out(daemon, image, restart):
    daemon.add_file(image)
    daemon.cmd("block-dirty-bitmap-add", node="disk", name="b0")
    daemon.start_nbd()
    daemon.add_export("disk", writable=True, bitmaps=["b0"])
    assert "bitmaps" in daemon.error("config-save").desc
    path, again = restart(daemon, incomplete=True)
    assert [e["id"] for e in again.cmd("query-block-exports")] == ["exp-disk"]


def test_bitmaps_of_nodes_are_left_out(daemon, image, restart):
    """One that is made anew would know of no earlier write."""
    daemon.add_file(image)
    for name in ("b0", "b1"):
        daemon.cmd("block-dirty-bitmap-add", node="disk", name=name)
    reason = "node 'disk' can only be saved without its dirty bitmaps " \
        "('b0', 'b1'), which end with the daemon"
    assert reason in daemon.error("config-save").desc
    assert daemon.cmd("config-save", incomplete=True)["left-out"] == [
        {"kind": "node", "id": "disk", "reason": reason}]
    path, again = restart(daemon, incomplete=True)
    assert reason in path.read_text()
    node, = again.cmd("query-named-block-nodes")
    assert "dirty-bitmaps" not in node


def test_write_thresholds_are_saved(daemon, image, restart):
    daemon.execute("blockdev-add", {
        "driver": "raw", "node-name": "top",
        "file": {"driver": "file", "node-name": "below",
                 "filename": str(image)}})
    for name, offset in (("top", 4096), ("below", (1 << 64) - 1)):
        daemon.cmd("block-set-write-threshold", node_name=name,
                   write_threshold=offset)
    before = picture(daemon)
    path, again = restart(daemon)
    assert_same(before, picture(again))
    assert f'"write-threshold": {(1 << 64) - 1}}}' in path.read_text()


def test_write_threshold_of_a_node_without_a_name_is_left_out(daemon, image):
    daemon.execute("blockdev-add", {
        "driver": "raw", "node-name": "top",
        "file": {"driver": "file", "filename": str(image)}})
    name, = (n["node-name"] for n in daemon.cmd("query-named-block-nodes")
             if n["node-name"] != "top")
    daemon.cmd("block-set-write-threshold", node_name=name,
               write_threshold=512)
    assert f"write threshold of node '{name}'" in \
        daemon.error("config-save").desc


@pytest.mark.parametrize("odd", (b"\xff", b"\xef\xb7\x90"),
                         ids=("bytes", "noncharacter"))
def test_name_that_json_cannot_say_is_left_out(daemons, box, image, odd):
    """A restart would open the file of another name."""
    name = os.fsencode(box) + b"/x" + odd + b".img"
    os.rename(image, name)
    secret = os.fsencode(box) + b"/s" + odd
    with open(secret, "wb") as file:
        file.write(b"x")
    daemon = daemons("--blockdev", os.fsdecode(
        b"driver=raw,node-name=top,file.driver=file,file.filename=" + name),
        "--object", os.fsdecode(b"secret,id=sec0,file=" + secret))
    error = daemon.error("config-save")
    assert "object 'sec0' has the text" in error.desc
    info = daemon.cmd("config-save", incomplete=True)
    assert [(i["kind"], i["id"]) for i in info["left-out"]] == [
        ("object", "sec0"), ("node", "top")]
    assert commands(info["text"])[2:] == []  # the two iothreads


def test_snapshot_is_left_out(daemon, image):
    daemon.add_file(image)
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "old",
                                    "size": SIZE})
    daemon.execute("blockdev-add", {
        "driver": "copy-before-write", "node-name": "cbw", "file": "disk",
        "target": "old"})
    left, = daemon.cmd("config-save", incomplete=True)["left-out"]
    assert left["id"] == "cbw" and "snapshot" in left["reason"]


# Jobs.

@pytest.mark.parametrize("job", ("mirror", "backup"))
def test_filters_of_jobs_are_not_saved(daemon, image, restart, job):
    daemon.serve_file(image)
    before = daemon.cmd("config-save")["text"]
    daemon.execute("blockdev-add", {"driver": "null-co", "node-name": "target",
                                    "size": SIZE})
    daemon.execute(f"blockdev-{job}", {
        "job-id": "j0", "device": "disk", "target": "target", "sync": "full",
        "speed": 1})
    text = daemon.cmd("config-save")["text"]
    target = '{"execute": "blockdev-add", "arguments": {"driver": ' \
        f'"null-co", "node-name": "target", "size": {SIZE}}}}}\n'
    assert text.replace(target, "") == before and target in text
    path, again = restart(daemon)
    assert again.cmd("query-jobs") == []
    assert again.cmd("config-save")["text"] == text


def test_export_follows_a_mirror(daemon, image, box, restart, connect_nbd):
    daemon.serve_file(image)
    other = harness.make_image(box / "other.img", SIZE)
    daemon.add_file(other, "other")
    daemon.cmd("blockdev-mirror", job_id="j0", device="disk", target="other",
               sync="full")
    daemon.qmp.take_event("BLOCK_JOB_READY")
    daemon.cmd("job-complete", id="j0")
    daemon.qmp.take_event("BLOCK_JOB_COMPLETED")
    text = daemon.cmd("config-save")["text"]
    assert arguments_of(text, "block-export-add", "exp-disk")["node-name"] == "other"


def test_target_that_a_job_has_made(daemon, image, box):
    """It belongs to no monitor, but an export is on it in the end."""
    daemon.serve_file(image)
    daemon.cmd("drive-mirror", job_id="j0", device="disk", sync="full",
               target=str(box / "other.img"), format="raw", node_name="mine")
    daemon.qmp.take_event("BLOCK_JOB_READY")
    assert '"mine"' not in daemon.cmd("config-save")["text"]
    daemon.cmd("job-complete", id="j0")
    daemon.qmp.take_event("BLOCK_JOB_COMPLETED")
    text = daemon.cmd("config-save")["text"]
    assert arguments_of(text, "block-export-add", "exp-disk")["node-name"] == "mine"
    assert "job" not in text
    made = arguments_of(text, "blockdev-add", "mine")
    assert str(box / "other.img") in json.dumps(made)


def test_target_without_a_name_is_left_out(daemon, image, box):
    daemon.serve_file(image)
    daemon.cmd("drive-mirror", job_id="j0", device="disk", sync="full",
               target=str(box / "other.img"), format="raw")
    daemon.qmp.take_event("BLOCK_JOB_READY")
    daemon.cmd("job-complete", id="j0")
    daemon.qmp.take_event("BLOCK_JOB_COMPLETED")
    left, = daemon.cmd("config-save", incomplete=True)["left-out"]
    assert left["kind"] == "node" and left["id"].startswith("#block")
    assert "no name of its own" in left["reason"]


# Files.

def test_file_is_replaced_whole(daemon, box):
    path = box / "saved.conf"
    path.write_text("old")
    path.chmod(0o666)
    daemon.cmd("config-save", filename=str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == daemon.cmd("config-save")["text"]


@pytest.mark.parametrize("name, message", [
    ("gone/saved.conf", "No such file"), ("dir", "dir'"), ("", "''"),
    ("x" * 256, "too long")])
def test_file_that_cannot_be_written(daemon, box, name, message):
    (box / "dir").mkdir()
    path = str(box / name) if name else ""
    error = daemon.error("config-save", filename=path)
    assert message in error.desc
    assert not [p for p in box.iterdir() if p.name.startswith(
        (".", "dir.", "saved"))]


def test_what_is_no_file_is_not_replaced(daemon, box):
    """As /dev/null and /dev/stdout would be."""
    os.mkfifo(box / "pipe")
    error = daemon.error("config-save", filename=str(box / "pipe"))
    assert "pipe' is not a regular file" in error.desc
    assert stat.S_ISFIFO(os.stat(box / "pipe").st_mode)


def test_read_only_monitor_may_not(daemons, box):
    daemon = daemons("--chardev", f"socket,id=r,path={box}/r,server=on,"
                     "wait=off", "--monitor", "r,read-only=on")
    daemon.cmd("query-version")
    client = qmp.QmpClient(box / "r", limit=harness.LIMIT)
    with client, pytest.raises(qmp.QmpError, match="read-only"):
        client.cmd("config-save")
