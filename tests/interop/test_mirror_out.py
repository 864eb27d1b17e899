# SPDX-License-Identifier: GPL-2.0-or-later
"""Our mirror job to real servers, while clients write to its source."""
import random
import threading

import pytest

import harness
import nbdservers
import rawnbd as nbd

SIZE = 24 << 20
ISLANDS = (0, 3, 9, 17, 23)

pytestmark = pytest.mark.peers("nbdkit", "nbd-server", "qemu-nbd",
                               "qemu-storage-daemon")


@pytest.fixture
def source(box):
    return harness.make_image(box / "source.img", SIZE, {
        offset << 20: harness.random_bytes(700_000, seed=offset)
        for offset in ISLANDS})


@pytest.fixture(params=nbdservers.CASES)
def server(request, box, spawn, tls_dir):
    kind, transport = request.param.split("/")
    target = harness.make_image(box / "target.img", SIZE)
    server = nbdservers.Server(kind, box, target, transport, tls_dir)
    spawn("server", server.argv())
    yield server
    server.stop()


@pytest.fixture
def pair(daemon, server, source, tls_dir):
    if server.tls:
        nbdservers.add_client_creds(daemon, tls_dir)
    daemon.execute("blockdev-add", server.options(
        **{"node-name": "dst", "discard": "unmap"}))
    daemon.serve_file(source, "src", discard="unmap")
    return daemon


class Load:
    """Two connections that write until they are stopped."""

    def __init__(self, daemon):
        self.stop = threading.Event()
        self.errors = []
        self.count = 0
        self.threads = [threading.Thread(target=self.run, args=(daemon, seed))
                        for seed in (1, 2)]
        for thread in self.threads:
            thread.start()

    def run(self, daemon, seed):
        rng = random.Random(seed)
        try:
            with nbd.RawNbd(daemon.nbd_path).go("src") as client:
                while not self.stop.is_set():
                    offset = rng.randrange(SIZE // 4096) * 4096
                    assert client.write(offset, rng.randbytes(4096)) == 0
                    self.count += 1
        except Exception as error:
            self.errors.append(error)

    def finish(self, more=0):
        """Ends it after `more` further writes."""
        wanted = self.count + more
        harness.wait_until(lambda: self.errors or self.count >= wanted,
                           what="writes")
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        assert self.errors == []


def mirror(daemon, **arguments):
    daemon.execute("blockdev-mirror", {
        "job-id": "m", "device": "src", "target": "dst", "sync": "full",
        **{k.replace("_", "-"): v for k, v in arguments.items()}})
    daemon.qmp.take_event("BLOCK_JOB_READY", device="m")


def wait_end(daemon):
    end = daemon.qmp.take_event("BLOCK_JOB_COMPLETED", device="m")
    assert "error" not in end["data"], end
    daemon.qmp.take_event("JOB_STATUS_CHANGE", id="m", status="null")


@pytest.mark.parametrize("mode", ("background", "write-blocking"))
def test_pivot_under_load(pair, server, source, mode):
    load = Load(pair)
    mirror(pair, copy_mode=mode, granularity=4096)
    pair.cmd("block-job-complete", device="m")
    wait_end(pair)
    before = harness.sha256(source)
    load.finish()
    assert harness.sha256(source) == before  # clients write to the target now
    with nbd.RawNbd(pair.nbd_path).go("src") as client:
        assert client.write(SIZE - 4096, b"last" * 1024) == 0
        assert client.request(nbd.CMD_FLUSH) == 0
    pair.cmd("block-export-del", id="exp-src", mode="hard")
    pair.qmp.take_event("BLOCK_EXPORT_DELETED", id="exp-src")
    pair.cmd("blockdev-del", node_name="dst")
    assert server.path.read_bytes()[-4096:] == b"last" * 1024


@pytest.mark.parametrize("sync, mode", (
    ("full", "background"), ("full", "write-blocking"),
    ("none", "background"), ("incremental", "background")))
def test_copy_under_load_is_equal(pair, server, source, sync, mode):
    more = {}
    if sync != "full":
        harness.run("cp", "--sparse=always", source, server.path)
    if sync == "incremental":
        pair.cmd("block-dirty-bitmap-add", node="src", name="b")
        Load(pair).finish(50)
        more["bitmap"] = "b"
    if sync != "none":
        load = Load(pair)
    mirror(pair, sync=sync, copy_mode=mode, **more)
    if sync == "none":
        load = Load(pair)
    load.finish(50)
    pair.cmd("block-job-cancel", device="m")
    wait_end(pair)
    pair.cmd("blockdev-del", node_name="dst")
    assert harness.sha256(server.path) == harness.sha256(source)


def test_quiet_copy_is_equal_and_sparse(pair, server, source):
    mirror(pair)
    pair.cmd("block-job-cancel", device="m")
    wait_end(pair)
    pair.cmd("blockdev-del", node_name="dst")
    assert harness.sha256(server.path) == harness.sha256(source)
    if server.kind != "nbd-server":  # it does not tell what is zero
        assert server.path.stat().st_blocks <= source.stat().st_blocks + 2048
