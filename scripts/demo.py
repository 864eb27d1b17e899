#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The show behind scripts/quickstart: a disk travels over TLS.

demo.py DAEMON [--serve] [IMAGE]

It works in a directory of its own under /tmp, which is removed at the end, and
ends the daemon in every case.
"""
import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import pathlib
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests" / "peers"))

import certs  # noqa: E402
import qmp  # noqa: E402

DEMO_SIZE = 256 << 20
HOST = "127.0.0.1"
STEP_LIMIT = 60


def step(text):
    print(f"\n==> {text}", flush=True)


def show(direction, text):
    """Prints a QMP message, without the id that the client adds."""
    message = json.loads(text)
    message.pop("id", None)
    print(f"  {direction} {json.dumps(message)}", flush=True)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def make_disk(path, seed):
    """A sparse image with islands of data, as a used disk has."""
    source = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(DEMO_SIZE)
        for _ in range(48):
            file.seek(source.randrange(0, DEMO_SIZE - (1 << 20), 4096))
            file.write(source.randbytes(1 << 20))


def run(*argv):
    print("  $ " + " ".join(shlex.quote(str(a)) for a in argv), flush=True)
    result = subprocess.run([str(a) for a in argv], timeout=STEP_LIMIT * 10)
    if result.returncode:
        raise SystemExit(f"quickstart: {argv[0]} failed")


def end_with_parent():
    """Runs in the daemon before it starts: it gets SIGTERM if we die."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Demo:
    def __init__(self, box, daemon):
        self.box = box
        self.program = daemon
        self.tls = box / "tls"
        self.monitor = box / "qmp.sock"
        self.process = None
        self.client = None
        self.port = None

    # The daemon.

    def start(self):
        """Starts it with a monitor socket that is open already."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.monitor))
        listener.listen(16)
        argv = [self.program, "--chardev",
                f"socket,id=qmp,fd={listener.fileno()},server=on,wait=off",
                "--monitor", "chardev=qmp"]
        print("  $ " + " ".join(argv), flush=True)
        self.process = subprocess.Popen(
            argv, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL,
            preexec_fn=end_with_parent)
        listener.close()
        try:
            self.client = qmp.QmpClient(self.monitor, limit=STEP_LIMIT,
                                        trace=show)
        except (qmp.QmpClosed, OSError) as error:
            raise SystemExit(f"quickstart: {self.program} does not answer: "
                             f"{error}") from None

    def stop(self):
        if self.client:
            self.client.close()
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    # Set-up over QMP.

    def add_disk(self, node, path, **options):
        self.client.execute("blockdev-add", {
            "driver": "raw", "node-name": node,
            **({"read-only": True} if "read_only" in options else {}),
            "file": {"driver": "file" if path.is_file() else "host_device",
                     "filename": str(path)}})
        self.client.execute("block-export-add", {
            "type": "nbd", "id": f"export-{node}", "node-name": node,
            "name": node, "writable": "read_only" not in options})

    def start_server(self):
        for _ in range(20):
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                self.port = probe.getsockname()[1]
            try:
                self.client.execute("nbd-server-start", {
                    "addr": {"type": "inet", "data": {
                        "host": HOST, "port": str(self.port)}},
                    "tls-creds": "tls0"})
                return
            except qmp.QmpError as error:
                if "in use" not in error.desc:
                    raise
        raise SystemExit("quickstart: found no free port")

    def set_up(self, disk, target):
        self.client.execute("object-add", {
            "qom-type": "tls-creds-x509", "id": "tls0", "endpoint": "server",
            "dir": str(self.tls), "verify-peer": True})
        self.start_server()
        self.add_disk("disk", disk, read_only=True)
        self.add_disk("target", target)
        self.client.execute("query-block-exports")

    # The clients.

    def uri(self, export):
        return (f"nbds://{HOST}:{self.port}/{export}"
                f"?tls-certificates={self.tls}")

    def qemu_img(self, *arguments):
        return ["qemu-img", arguments[0], "--object",
                f"tls-creds-x509,id=tls0,endpoint=client,dir={self.tls}",
                *arguments[1:]]

    def qemu_image(self, export):
        return ("driver=nbd,tls-creds=tls0,server.type=inet,"
                f"server.host={HOST},server.port={self.port},export={export}")

    def copy_out(self, disk):
        by_qemu, by_nbdcopy = self.box / "out-qemu", self.box / "out-nbdcopy"
        run(*self.qemu_img("convert", "--image-opts",
                           self.qemu_image("disk"), "-O", "raw", by_qemu))
        run("nbdcopy", self.uri("disk"), by_nbdcopy)
        expected = sha256(disk)
        for copy in (by_qemu, by_nbdcopy):
            compare("disk", expected, copy.name, sha256(copy))

    def copy_in(self, source, target):
        run("nbdcopy", source, self.uri("target"))
        self.client.execute("block-export-del", {
            "id": "export-target", "mode": "hard"})
        self.client.take_event("BLOCK_EXPORT_DELETED", id="export-target")
        self.client.execute("blockdev-del", {"node-name": "target"})
        compare(source.name, sha256(source), "target", sha256(target))

    def explain(self, serving):
        step("By hand" if serving else "By hand, with --serve")
        print(f"""\
  monitor      {self.monitor}
               socat - UNIX-CONNECT:{self.monitor}   (package socat)
  NBD URI      {self.uri('disk')}
  clients      nbdinfo '{self.uri('disk')}'
               nbdcopy '{self.uri('disk')}' copy.img
               qemu-img info --object tls-creds-x509,id=tls0,endpoint=client,"""
              f"dir={self.tls} \\\n                   --image-opts "
              f"{self.qemu_image('disk')}", flush=True)


def compare(name, expected, other, found):
    if expected != found:
        raise SystemExit(f"quickstart: {other} differs from {name}")
    print(f"  sha256 of {name} and {other} are equal: {found[:16]}...",
          flush=True)


def padded(image, box):
    """The image, or a copy filled up with zeroes to whole sectors.

    An export's size is a multiple of 512; the hash must be of the same bytes.
    """
    if not image.is_file() or image.stat().st_size % 512 == 0:
        return image
    copy = box / "disk.img"
    shutil.copy(image, copy)
    os.truncate(copy, (image.stat().st_size + 511) // 512 * 512)
    print(f"  {image} is filled up to whole sectors in a copy")
    return copy


def show_all(demo, options):
    step("Throw-away certificates and disks")
    certs.make_set(demo.tls)
    print(f"  {demo.tls}: CA, server and client certificate")
    if options.image:
        disk = padded(pathlib.Path(options.image), demo.box)
    else:
        disk = demo.box / "disk.img"
        make_disk(disk, seed=1)
    print(f"  disk to serve: {disk}")
    source, target = demo.box / "source.img", demo.box / "target.img"
    make_disk(source, seed=2)
    with open(target, "wb") as file:
        file.truncate(DEMO_SIZE)

    step("Start the daemon and talk QMP to it")
    demo.start()
    demo.set_up(disk, target)

    step("Copy the disk out over TLS, with two clients")
    demo.copy_out(disk)

    step("Copy another disk in over TLS")
    demo.copy_in(source, target)

    demo.explain(options.serve)
    if options.serve:
        print("\nServing until Ctrl-C.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            demo.process.wait()
    else:
        print("\nDone: the disk travelled both ways over TLS.")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("daemon")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("image", nargs="?")
    options = parser.parse_args()
    # A signal becomes an exception, so that the daemon is always ended.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="blockferry-demo-") as box:
        demo = Demo(pathlib.Path(box), options.daemon)
        try:
            show_all(demo, options)
        finally:
            demo.stop()


main()
