# SPDX-License-Identifier: GPL-2.0-or-later
"""The stand-alone server of one image, with the options of qemu-nbd."""
import os
import pathlib
import signal
import socket
import struct
import subprocess

import nbd
import pytest

import harness
import rawnbd
import rawserver

SIZE = 4 << 20

pytestmark = pytest.mark.ours("it is a program of its own")


@pytest.fixture
def program(box):
    """The daemon by its second name."""
    path = box / "blockferry-nbd"
    path.symlink_to(harness.PROGRAM)
    return path


@pytest.fixture
def image(box):
    return harness.make_image(box / "disk.img", SIZE, {
        1 << 20: harness.random_bytes(1 << 20)})


@pytest.fixture
def serve(program, spawn, box, image):
    def start(*arguments, path=None, name="standalone"):
        server = spawn(name, [program, "-k", box / "s", *arguments,
                              path or image])
        server.wait_log("NBD server listening|: .*: ")
        return server
    return start


def uri(box, export=""):
    return f"nbd+unix:///{export}?socket={box}/s"


def run(program, *arguments, **options):
    return harness.run(program, *arguments, check=False, **options)


def refusal(program, *arguments, **options):
    """The message of a start that fails."""
    result = run(program, *arguments, **options)
    assert result.returncode == 1 and result.stdout == "", result
    return result.stderr


def test_it_ends_with_its_last_client(serve, box, image):
    server = serve("-x", "disk")
    with rawnbd.RawNbd(box / "s") as client:
        client.go("disk")
        assert client.write(0, b"x" * 512) == 0
        client.disconnect()
    assert server.wait() == 0
    assert image.read_bytes()[:512] == b"x" * 512
    assert not (box / "s").exists()


def test_who_fails_in_negotiation_does_not_end_it(serve, box):
    server = serve("-x", "disk", "-e", "0")
    with pytest.raises(nbd.Error, match="other"):
        handle_for(box, "other")
    with rawnbd.RawNbd(box / "s") as first:
        first.go("disk")
        with rawnbd.RawNbd(box / "s") as second:
            second.go("disk")
            second.disconnect()
        assert server.running()
        first.disconnect()
    assert server.wait() == 0


def test_persistent_until_a_signal(serve, box):
    server = serve("-t")
    for _ in range(2):
        with rawnbd.RawNbd(box / "s") as client:
            client.go("")
            client.disconnect()
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0


def handle_for(box, export=""):
    handle = nbd.NBD()
    handle.connect_uri(uri(box, export))
    return handle


def test_one_client_by_default_and_read_only(serve, box):
    serve("-r", "-D", "a disk", "-A")
    handle = nbd.NBD()
    handle.add_meta_context("qemu:allocation-depth")
    handle.set_full_info(True)
    handle.connect_uri(uri(box))
    assert handle.is_read_only() and not handle.can_multi_conn()
    assert handle.can_meta_context("qemu:allocation-depth")
    assert handle.get_export_description() == "a disk"
    handle.shutdown()


def test_offset(serve, box, image):
    server = serve("-o", "0x100000")
    handle = handle_for(box)
    assert handle.get_size() == SIZE - (1 << 20)
    assert handle.pread(1 << 20, 0) == harness.random_bytes(1 << 20)
    handle.pwrite(b"y" * 512, 0)
    handle.shutdown()
    assert server.wait() == 0
    assert image.read_bytes()[1 << 20:][:512] == b"y" * 512


@pytest.mark.parametrize("mode, trims", (
    ("on", True), ("unmap", True), ("off", False), ("ignore", False)))
def test_discard_modes(serve, box, image, mode, trims):
    serve(f"--discard={mode}")
    before = os.stat(image).st_blocks
    handle = handle_for(box)
    handle.trim(1 << 20, 1 << 20)
    handle.shutdown()
    assert (os.stat(image).st_blocks < before) == trims


@pytest.mark.parametrize("mode", ("writeback", "none", "writethrough",
                                  "directsync", "unsafe"))
def test_cache_modes(serve, box, mode):
    serve(f"--cache={mode}", "--discard=unmap", "--detect-zeroes=unmap",
          "--aio=io_uring")
    handle = handle_for(box)
    handle.pwrite(b"z" * 4096, 4096)
    assert handle.pread(4096, 4096) == b"z" * 4096
    handle.shutdown()


def test_image_opts(serve, box, image):
    serve("--image-opts", path=f"driver=raw,offset=1048576,file.driver=file,"
          f"file.filename={image}")
    handle = handle_for(box)
    assert handle.get_size() == SIZE - (1 << 20)
    handle.shutdown()


@pytest.mark.parametrize("options", (
    "driver=raw,file.driver=file,file.filename={},read-only=on",
    "driver=file,filename={},read-only=on"))
def test_image_opts_may_forbid_writing(program, serve, box, image, options):
    options = options.format(image)
    assert "read-only" in refusal(program, "-k", box / "s", "--image-opts",
                                  options)
    serve("-r", "--image-opts", path=options)
    handle = handle_for(box)
    assert handle.is_read_only()
    handle.shutdown()


@pytest.mark.peers("qemu-img")
def test_tls(program, serve, box, tls_dir):
    serve("-t", "-x", "disk", "--object",
          f"tls-creds-x509,id=t,endpoint=server,dir={tls_dir}",
          "--tls-creds", "t", "-e", "2")
    creds = ("--object", f"tls-creds-x509,id=c,endpoint=client,dir={tls_dir}")
    info = harness.run(
        "qemu-img", "info", *creds, "--image-opts",
        f"driver=nbd,server.type=unix,server.path={box}/s,export=disk,"
        "tls-creds=c,tls-hostname=localhost")
    assert "4 MiB" in info
    listed = harness.run(program, "-L", "-k", box / "s", *creds,
                         "--tls-creds", "c", "--tls-hostname", "localhost")
    assert "export: 'disk'" in listed
    assert "TLS" in refusal(program, "-L", "-k", box / "s")
    assert "hostname" in refusal(program, "-L", "-k", box / "s", *creds,
                                 "--tls-creds", "c", "--tls-hostname",
                                 "elsewhere.example")


@pytest.mark.peers("qemu-nbd")
def test_lists_as_qemu_nbd_does(program, serve, spawn, box, image):
    serve("-t", "-x", "disk", "-D", "a disk", "-e", "0")
    theirs = box / "theirs"
    qemu = spawn("qemu-nbd", ["qemu-nbd", "-f", "raw", "-t", "-r", "-x", "r",
                              "-k", theirs, image])
    harness.wait_until(theirs.exists, what="qemu-nbd's socket")
    for path in (box / "s", theirs):
        ours = harness.run(program, "-L", "-r", "-t", "-e", "3", "-k",
                           path).splitlines()
        assert "  transaction size: 32-bit" in ours  # not in QEMU 7.2's
        ours.remove("  transaction size: 32-bit")
        assert ours == harness.run("qemu-nbd", "-L", "-k", path).splitlines()
    qemu.popen.terminate()


def test_lists_over_tcp(program, spawn, image):
    port = str(harness.free_port())
    server = spawn("tcp", [program, "-t", "-b", "127.0.0.1", "-p", port,
                           image])
    server.wait_log("NBD server listening on 127.0.0.1:" + port)
    listed = harness.run(program, "-L", "-b", "127.0.0.1", "-p", port)
    assert listed.startswith("exports available: 1\n export: ''\n  size:  ")


# Servers that lie about their exports: what they send, and what is said of it.

def server_reply(option, kind, data=b""):
    return struct.pack(">QIII", rawnbd.REPLY_MAGIC, option, kind,
                       len(data)) + data


def listed(name=b"disk", length=None):
    return server_reply(rawnbd.OPT_LIST, rawnbd.REP_SERVER, struct.pack(
        ">I", len(name) if length is None else length) + name)


def info(data):
    return server_reply(rawnbd.OPT_INFO, rawnbd.REP_INFO, data)


def ack(option):
    return server_reply(option, rawnbd.REP_ACK)


LIST_END = ack(rawnbd.OPT_LIST)
SIZE_INFO = info(struct.pack(">HQH", rawnbd.INFO_EXPORT, SIZE, 1))
LIARS = {
    "silence at once": ({rawnbd.OPT_LIST: b""}, "closed the connection"),
    "a refusal": ({rawnbd.OPT_LIST: server_reply(
        rawnbd.OPT_LIST, rawnbd.ERR_POLICY, b"no")}, "no"),
    "another kind": ({rawnbd.OPT_LIST: server_reply(
        rawnbd.OPT_LIST, rawnbd.REP_INFO)}, "unexpected reply"),
    "another option": ({rawnbd.OPT_LIST: ack(rawnbd.OPT_GO)}, "instead"),
    "a name longer than its reply": (
        {rawnbd.OPT_LIST: listed(length=1000)}, "unexpected reply"),
    "2^32-1 bytes": ({rawnbd.OPT_LIST: struct.pack(
        ">QIII", rawnbd.REPLY_MAGIC, rawnbd.OPT_LIST, rawnbd.REP_SERVER,
        0xffffffff)}, "too long"),
    "names without end": ({rawnbd.OPT_LIST: listed() * 10002},
                          "more than 10000 replies"),
    "half a size": ({rawnbd.OPT_LIST: listed() + LIST_END,
                     rawnbd.OPT_INFO: info(b"\0\0\0")},
                    "unexpected reply"),
    "information without end": ({rawnbd.OPT_LIST: listed() + LIST_END,
                                 rawnbd.OPT_INFO: SIZE_INFO * 100},
                                "more than 64 replies"),
    "contexts without end": (
        {rawnbd.OPT_LIST: listed() + LIST_END,
         rawnbd.OPT_INFO: SIZE_INFO + ack(rawnbd.OPT_INFO),
         rawnbd.OPT_LIST_META: server_reply(
             rawnbd.OPT_LIST_META, rawnbd.REP_META,
             struct.pack(">I", 0) + b"x:y") * 1002},
        "more than 1000 replies"),
}


class Liar(rawserver.RawServer):
    answers = {}

    def answer_option(self, conn):
        _, option, length = struct.unpack(">QII", self.recv(conn, 16))
        self.recv(conn, length)
        if option == rawnbd.OPT_STRUCTURED:
            conn.sendall(ack(option))
        elif self.answers.get(option):
            conn.sendall(self.answers[option])
        else:
            raise rawserver.Gone
        return True


@pytest.mark.parametrize("lie", LIARS)
def test_lies_about_exports_are_found_out(program, box, lie):
    server = Liar(box / "liar", bytearray())
    server.answers, text = LIARS[lie]
    result = run(program, "-L", "-k", box / "liar")
    server.stop()
    assert result.returncode == 1 and result.stdout == "", result
    assert text in result.stderr and "liar" in result.stderr


def test_what_a_server_calls_its_exports_is_no_terminal_code(program, box):
    server = Liar(box / "liar", bytearray())
    server.answers = {rawnbd.OPT_LIST: listed(b"a\x1b[2Jb\n\xff") + LIST_END,
                      rawnbd.OPT_INFO: SIZE_INFO + ack(rawnbd.OPT_INFO),
                      rawnbd.OPT_LIST_META: ack(rawnbd.OPT_LIST_META)}
    output = harness.run(program, "-L", "-k", box / "liar")
    server.stop()
    assert output.splitlines()[1] == " export: 'a?[2Jb?\ufffd'"


def test_long_texts_are_listed_whole(program, box):
    server = Liar(box / "liar", bytearray())
    name, text = b"n" * 4000, b"d" * 4000
    server.answers = {
        rawnbd.OPT_LIST: listed(name) + LIST_END,
        rawnbd.OPT_INFO: SIZE_INFO + info(
            struct.pack(">H", rawnbd.INFO_DESCRIPTION) + text)
        + ack(rawnbd.OPT_INFO),
        rawnbd.OPT_LIST_META: server_reply(
            rawnbd.OPT_LIST_META, rawnbd.REP_META,
            struct.pack(">I", 0) + b"c" * 1000) + ack(rawnbd.OPT_LIST_META)}
    output = harness.run(program, "-L", "-k", box / "liar").splitlines()
    server.stop()
    assert output[1] == f" export: '{name.decode()}'"
    assert output[2] == f"  description: {text.decode()}"
    assert output[-1] == "   " + "c" * 1000


def test_fork_and_pid_file(program, box, image):
    pid_file = box / "pid"
    result = run(program, "--fork", "--pid-file", pid_file, "-k", box / "s",
                 "-x", "disk", image, umask=0)
    assert result.returncode == 0, result
    assert (box / "s").stat().st_mode & 0o777 == 0o777
    pid = int(pid_file.read_text())
    handle_for(box, "disk").shutdown()
    harness.wait_until(lambda: not pid_file.exists(), what="its end")
    harness.wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists(),
                       what="its exit")
    failed = run(program, "--fork", "-k", box / "s", box / "absent")
    assert failed.returncode == 1 and "absent" in failed.stderr


def test_socket_activation(program, image):
    handle = nbd.NBD()
    handle.set_export_name("disk")
    handle.connect_systemd_socket_activation(
        [str(program), "-x", "disk", str(image)])
    assert handle.get_size() == SIZE
    handle.shutdown()


def test_activation_goes_with_no_address(program, box, image):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(box / "a"))
        listener.listen(1)
        script = 'exec 3<&0; LISTEN_FDS={} LISTEN_PID=$$ exec "$@"'

        def start(count, *arguments):
            return subprocess.run(
                ["sh", "-c", script.format(count), "sh", program, *arguments,
                 image], stdin=listener, capture_output=True, text=True,
                timeout=30)
        for option in ("-k/s", "-b127.0.0.1", "-p1"):
            result = start(1, option)
            assert result.returncode == 1
            assert "can't be set when using socket activation" in result.stderr
        assert "takes one socket" in start(2).stderr
        result = start(1, "-L")
        assert "-L can't be set when using socket" in result.stderr


def test_activation_without_its_socket_fails(program, image):
    script = 'exec 3<&-; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
    result = run("sh", "-c", script, "sh", program, image)
    assert result.returncode == 1
    assert "descriptor 3 is not open" in result.stderr
    assert "File descriptor '3' is not a socket" in result.stderr


def test_other_formats_are_not_served_as_they_are(program, box):
    image = box / "disk.qcow2"
    image.write_bytes(b"QFI\xfb" + bytes(65532))
    assert "is a qcow2 image" in refusal(program, "-k", box / "s", image)
    assert "only raw" in refusal(program, "-f", "qcow2", image)


def test_raw_by_wish(serve, box):
    image = box / "disk.qcow2"
    image.write_bytes(b"QFI\xfb" + bytes(65532))
    serve("-f", "raw", path=image)
    handle = handle_for(box)
    assert handle.pread(4, 0) == b"QFI\xfb"
    handle.shutdown()


@pytest.mark.parametrize("arguments, text", [
    ((), "Invalid number of arguments"),
    (("a", "b"), "Invalid number of arguments"),
    (("-k", "s", "a"), "socket path must be absolute"),
    (("-k", "/s", "-p", "1", "a"), "-k cannot be given together with -p"),
    (("-e", "-1", "a"), "Invalid shared device number '-1'"),
    (("-o", "1k", "a"), "Invalid offset '1k'"),
    (("--handshake-limit", "x", "a"), "Invalid handshake limit 'x'"),
    (("-x", "n" * 5000, "a"), "too long"),
    (("-n", "--cache=none", "a"), "can only be specified once"),
    (("--aio=threads", "--aio=threads", "a"),
     "--aio can only be specified once"),
    (("--discard=off", "--discard=on", "a"),
     "--discard can only be specified once"),
    (("nbd:unix:/tmp/s",), "there is no file 'nbd:unix:/tmp/s'; give an NBD "
     "server as --image-opts driver=nbd,server.type=inet,"),
    (("nbd+unix:///x?socket=s",), "--image-opts driver=nbd"),
    (("nbd://localhost",), "--image-opts driver=nbd"),
    (('json:{"driver":"raw"}',), "--image-opts driver=NAME,KEY=VALUE"),
    (("driver=file,filename=a",), "give --image-opts driver=NAME"),
    (("file.filename=a",), "give --image-opts driver=NAME"),
    (("file:a",), "give the path of a file"),
    (("http://a/b",), "give the path of a file"),
    (("--image-opts", 'json:{"driver":"raw"}'), "takes no JSON"),
    (("--image-opts", '{"driver":"raw"}'), "takes no JSON"),
    (("--cache=much", "a"), "Invalid cache mode 'much'"),
    (("--aio=uring", "a"),
     "Invalid aio mode 'uring': expected threads, native or io_uring"),
    (("--discard=much", "a"),
     "Invalid discard mode 'much': expected ignore or unmap"),
    (("--detect-zeroes=1", "a"), "Invalid detect-zeroes mode '1': expected "),
    (("--tls-authz", "z", "a"), "not permitted without --tls-creds"),
    (("--tls-hostname", "h", "a"), "only supported with export list"),
    (("--image-opts", "-f", "raw", "a"), "mutually exclusive"),
    (("-L", "--tls-hostname", "h"), "not permitted without --tls-creds"),
    (("-L", "a"), "incompatible with a file name"),
    (("-L", "-x", "n"), "incompatible with per-device settings"),
    (("-L", "--fork"), "incompatible with forking"),
    (("-L", "--tls-creds", "c", "--tls-authz", "z"),
     "incompatible with export list"),
    (("-c", "/dev/nbd0", "a"), "use nbd-client"),
    (("-s", "a"), "overlays are not available"),
    (("-T", "nbd_*", "a"), "--trace nbd_*: there are no trace events"),
    (("--trace=help", "a"), "--trace help: there are no trace events"),
    (("-l", "snap", "a"), "snapshots are not available"),
    (("--bogus",), "unrecognized option"),
    (("--tls-creds", "zz", "-k", "/nowhere/s", "a"),
     "No TLS credentials with id 'zz'"),
    (("-B", "b", "/dev/null/x"), "/dev/null/x"),
])
def test_what_is_wrong_is_said(program, arguments, text):
    message = refusal(program, *arguments)
    assert text in message and message.startswith("blockferry-nbd: ")


@pytest.mark.parametrize("name", ["nbd:disk", "json:a", "driver=a", "a:b"])
def test_file_of_a_strange_name_is_served(program, spawn, box, name):
    (box / name).write_bytes(bytes(SIZE))
    server = spawn("strange", ["env", "-C", box, program, "-k", box / "s", name])
    server.wait_log("NBD server listening")
    handle = handle_for(box)
    assert handle.get_size() == SIZE
    handle.shutdown()


def test_of_other_options_the_last_one_holds(serve, box):
    """As with qemu-nbd."""
    serve("-x", "a", "-x", "b", "--detect-zeroes=off", "--detect-zeroes=on")
    handle = handle_for(box, "b")
    handle.shutdown()


def test_help_and_version(program):
    assert "Usage: blockferry-nbd" in harness.run(program, "--help")
    assert harness.run(program, "-V").startswith("blockferry-nbd version ")
    assert "  secret\n" in harness.run(program, "--object", "help")
    assert "  data=<" in harness.run(program, "--object", "secret,help")
