# SPDX-License-Identifier: GPL-2.0-or-later
"""What real NBD clients can do with our server, beyond test_matrix.py."""
import json
import time

import pytest

import harness
from harness import run


@pytest.mark.peers("qemu-img")
def test_qemu_img_compares(served, box):
    same = box / "same.img"
    same.write_bytes(served.path.read_bytes())
    local = f"driver=raw,file.driver=file,file.filename={same}"
    text = served.qemu_img("compare", "--image-opts", served.image_opts(),
                           local)
    assert "identical" in text
    with open(same, "r+b") as file:
        file.seek(5 << 20)
        file.write(b"x")
    result = served.qemu_img("compare", "--image-opts", served.image_opts(),
                             local, check=False)
    assert result.returncode == 1 and "mismatch" in result.stdout


@pytest.mark.peers("qemu-img")
def test_qemu_img_map_and_info(served):
    ranges = json.loads(served.qemu_img(
        "map", "--output=json", "--image-opts", served.image_opts()))
    assert any(r["zero"] for r in ranges) and any(r["data"] for r in ranges)
    assert sum(r["length"] for r in ranges) == served.path.stat().st_size
    info = json.loads(served.qemu_img(
        "info", "--output=json", "--image-opts", served.image_opts()))
    assert info["virtual-size"] == served.path.stat().st_size


@pytest.mark.peers("qemu-io")
def test_qemu_io_patterns(served):
    text = served.qemu_io(
        "write -P 0xa5 65536 131072", "write -P 0x5a -f 1000 3000",
        "write -z 1M 64k", "write -z -u 2M 64k", "discard 4M 1M",
        "aio_write -P 0x11 6M 64k", "aio_flush", "flush",
        "read -P 0xa5 65536 131072", "read -P 0x5a 1000 3000",
        "read -P 0 1M 64k", "read -P 0 2M 64k", "read -P 0x11 6M 64k")
    assert "failed" not in text.lower(), text
    served.release()
    data = served.path.read_bytes()
    assert data[65536:65536 + 131072] == b"\xa5" * 131072
    assert data[1000:4000] == b"\x5a" * 3000
    assert data[1 << 20:(1 << 20) + 65536] == bytes(65536)
    assert data[6 << 20:(6 << 20) + 65536] == b"\x11" * 65536


@pytest.mark.peers("qemu-io")
def test_qemu_io_at_odd_places_of_an_aligned_export(daemon, box):
    """QEMU agrees on block sizes, and discards parts of blocks all the same."""
    path = harness.make_image(box / "direct.img", 1 << 20,
                              {0: harness.random_bytes(1 << 20)})
    data = bytearray(path.read_bytes())
    daemon.serve_file(path, cache={"direct": True})
    run("qemu-io", *[word for c in (
        "write -P 0xa5 1 1", "write -P 0x5a 1000 777", "write -z 5000 12345",
        "discard 40099 10000", "discard 45000 3", "write -zu 60001 5000",
        "read -P 0x5a 1000 777", "write -P 0x11 1048175 401", "flush")
        for word in ("-c", c)], "--image-opts",
        f"driver=nbd,server.type=unix,server.path={daemon.nbd_path},"
        "export=disk")
    data[1:2], data[1000:1777] = b"\xa5", b"\x5a" * 777
    data[5000:17345], data[60001:65001] = bytes(12345), bytes(5000)
    data[1048175:] = b"\x11" * 401
    assert path.read_bytes() == data


@pytest.mark.peers("nbdinfo")
def test_nbdinfo_tells_export(served):
    size = served.path.stat().st_size
    assert int(run("nbdinfo", "--size", served.uri())) == size
    info = json.loads(run("nbdinfo", "--json", "--no-content", served.uri()))
    assert info["TLS"] is served.tls
    export = info["exports"][0]
    assert export["export-size"] == size
    assert export["description"] == "the disk"
    assert "base:allocation" in export["contexts"]
    wanted = {"is_read_only": False, "can_df": True, "can_fast_zero": True,
              "can_flush": True, "can_fua": True, "can_multi_conn": True,
              "can_trim": True, "can_zero": True, "is_rotational": False}
    assert wanted.items() <= export.items()
    for question in ("flush", "fua", "multi-conn", "trim", "zero", "df"):
        run("nbdinfo", "--can", question, served.uri())
    if served.tls:
        run("nbdinfo", "--is", "tls", served.uri())


@pytest.mark.peers("nbdinfo")
def test_nbdinfo_lists_exports(served):
    served.daemon.execute("blockdev-add", {
        "driver": "null-co", "node-name": "second", "size": 1 << 20,
        "read-zeroes": True})
    served.daemon.add_export("second", name="other/näme")
    info = json.loads(run("nbdinfo", "--list", "--json", served.uri("")))
    names = [e["export-name"] for e in info["exports"]]
    assert names == ["disk", "other/näme"]
    assert info["exports"][1]["export-size"] == 1 << 20


@pytest.mark.peers("nbdinfo")
def test_nbdinfo_maps_data_and_holes(served):
    rows = [line.split(None, 3) for line in
            run("nbdinfo", "--map", served.uri()).splitlines()]
    position = 0
    for offset, length, _kind, _text in rows:
        assert int(offset) == position
        position += int(length)
    assert position == served.path.stat().st_size
    data = {int(r[0]) >> 20 for r in rows if r[2] == "0"}
    assert data == {0, 3, 9, 17, 23}
    assert {r[2] for r in rows} <= {"0", "2", "3"}
    total = run("nbdinfo", "--map", "--totals", served.uri())
    assert "%" in total


@pytest.mark.peers("nbdsh")
def test_nbdsh_script(served):
    script = f"""
h.set_uri_allow_local_file(True)
h.connect_uri({served.uri()!r})
""" + """
assert h.get_size() == %d
assert h.can_multi_conn() and h.can_fua() and h.can_zero()
h.pwrite(b'blockferry' * 100, 12345, nbd.CMD_FLAG_FUA)
assert h.pread(1000, 12345) == b'blockferry' * 100
h.zero(4096, 8192)
assert h.pread(4096, 8192) == bytearray(4096)
h.trim(4096, 16384)
h.flush()
h.cache(65536, 0)
bufs = [nbd.Buffer.from_bytearray(bytearray([i]) * 4096) for i in range(64)]
cookies = [h.aio_pwrite(b, (1 << 20) + i * 4096) for i, b in enumerate(bufs)]
while h.aio_in_flight():
    h.poll(-1)
assert all(h.aio_command_completed(c) for c in cookies)
for i in range(64):
    assert h.pread(4096, (1 << 20) + i * 4096) == bytearray([i]) * 4096
try:
    h.set_strict_mode(0)
    h.pread(512, h.get_size())
    raise SystemExit('read past the end was served')
except nbd.Error as error:
    assert error.errnum == 22, error
print('all is well')
""" % served.path.stat().st_size
    assert "all is well" in run("nbdsh", "-c", script)


@pytest.mark.peers("qemu-nbd")
def test_qemu_nbd_lists_exports(served):
    if isinstance(served.address, tuple):
        where = ["-b", served.address[0], "-p", served.address[1]]
    else:
        where = ["-k", served.address]
    tls = served.qemu_tls() + ["--tls-creds", "tls0", "--tls-hostname",
                               "localhost"] if served.tls else []
    text = run("qemu-nbd", "-L", *where, *tls)
    assert "exports available: 1" in text
    assert " export: 'disk'" in text and "description: the disk" in text
    assert f"size:  {served.path.stat().st_size}" in text
    assert "( flush fua trim zeroes df multi cache fast-zero )" in text
    assert "min block: 1\n" in text and "max block: 33554432" in text
    assert "   base:allocation" in text


@pytest.mark.peers("nbdinfo")
def test_tebibyte_of_holes_is_mapped_quickly(daemon, box):
    size = 1 << 40
    path = harness.make_image(box / "big.img", size, {
        (1 << 39) + 4096: b"island", size - 4096: b"end"})
    address = daemon.serve_file(path)
    uri = f"nbd+unix:///disk?socket={address}"
    started = time.monotonic()
    rows = run("nbdinfo", "--map", uri).splitlines()
    elapsed = time.monotonic() - started
    assert elapsed < 3.0, f"{elapsed:.1f} s; sanitizers allow for 3"
    assert sum(int(r.split()[1]) for r in rows) == size
    assert len(rows) >= 4


@pytest.mark.peers("qemu-img", "nbdcopy")
def test_plain_client_is_refused_by_tls_server(daemon, tls_dir, sparse_image):
    daemon.add_creds(tls_dir)
    path = daemon.serve_file(sparse_image, tls="tls0")
    result = run("qemu-img", "info", f"nbd+unix:///disk?socket={path}",
                 check=False)
    assert result.returncode and "TLS negotiation required" in result.stderr
    result = run("nbdinfo", f"nbd+unix:///disk?socket={path}", check=False)
    assert result.returncode


@pytest.mark.peers("qemu-img", "nbdinfo")
def test_tls_client_is_refused_by_plain_server(daemon, tls_dir, sparse_image):
    path = daemon.serve_file(sparse_image)
    result = run("nbdinfo", f"nbds+unix:///disk?socket={path}"
                 f"&tls-certificates={tls_dir}", check=False)
    assert result.returncode
    result = run("qemu-img", "info", "--object", "tls-creds-x509,id=t,"
                 f"endpoint=client,dir={tls_dir}", "--image-opts",
                 f"driver=nbd,server.type=unix,server.path={path},export=disk,"
                 "tls-creds=t,tls-hostname=localhost", check=False)
    assert "Denied by server for option 5" in result.stderr
