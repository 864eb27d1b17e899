# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests share: daemons as child processes, images, waiting.

Nothing here knows pytest; the fixtures are in conftest.py. Every wait has a
limit, and every daemon must end cleanly: exit status 0 after SIGTERM and no
complaint of a sanitizer in its log.
"""
import hashlib
import os
import pathlib
import random
import re
import signal
import socket
import ssl
import subprocess
import time

import qmp

TESTS = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("BLOCKFERRY_BUILD",
                                    TESTS.parent / "build-check"))
PROGRAM = os.environ.get("BLOCKFERRYD") or str(BUILD / "blockferryd")
REFERENCE = "qemu-storage-daemon"
IS_REFERENCE = REFERENCE in pathlib.Path(PROGRAM).name

# Sanitizers make everything slower; a limit is for what hangs.
LIMIT = 30.0
# Debian's programs, whatever else the caller's PATH has in front of them. GLib's
# own allocator would hide errors from ASan and show false ones to TSan.
ENVIRONMENT = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
               "G_SLICE": "always-malloc"}
COMPLAINT = re.compile(
    r"(ERROR: (Address|Leak|Undefined|Memory)\w*Sanitizer|runtime error:|"
    r"WARNING: ThreadSanitizer|CRITICAL \*\*|-CRITICAL|\bBail out!|"
    r"assertion failed)")


def wait_until(condition, limit=LIMIT, what="the condition"):
    """Polls for what has no event to wait for; returns its true value.

    That is the state of another process: its log, its files, its descriptors,
    whether it still exists, and whether it has noticed that a client left.
    """
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.005)


def seed():
    """The seed of a test at random: printed, and set by BLOCKFERRY_SEED."""
    number = int(os.environ.get("BLOCKFERRY_SEED", 0)) or \
        random.SystemRandom().randrange(1, 1 << 32)
    print(f"BLOCKFERRY_SEED={number}")
    return number


def free_port():
    """A TCP port that was free a moment ago, below the ephemeral range."""
    while True:
        port = random.randrange(10900, 32000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Process:
    """A child whose output goes to a file and who must end cleanly."""

    def __init__(self, directory, argv, name, pass_fds=(), env=None,
                 stdin=subprocess.DEVNULL):
        self.dir = directory
        self.log_path = directory / f"{name}.log"
        self.name = name
        self.expected = {0}
        environment = {
            "ASAN_OPTIONS": "detect_leaks=1:exitcode=99",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=98",
            "TSAN_OPTIONS": f"exitcode=97:suppressions={TESTS}/tsan.supp", **ENVIRONMENT, **(env or {})}
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                argv, cwd=directory, stdin=stdin, stdout=log, stderr=log,
                pass_fds=pass_fds, env=environment)
        self.pid = self.popen.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_log(self, pattern, limit=LIMIT):
        """Waits until a line of the log matches; returns the match."""
        return wait_until(lambda: re.search(pattern, self.log()), limit,
                          f"{self.name}'s log /{pattern}/")

    def wait(self, limit=LIMIT):
        return self.popen.wait(limit)

    def running(self):
        return self.popen.poll() is None

    def resident(self):
        """Bytes of memory that it uses."""
        with open(f"/proc/{self.pid}/statm", encoding="utf-8") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def kill(self):
        """SIGKILL, as part of a test."""
        self.expected = {-signal.SIGKILL}
        self.popen.kill()
        self.popen.wait(LIMIT)

    def finish(self):
        """SIGTERM if still running; complains about an unclean end."""
        if self.running():
            self.popen.send_signal(signal.SIGTERM)
        try:
            status = self.popen.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            return f"{self.name} did not end after SIGTERM"
        complaint = COMPLAINT.search(self.log())
        if complaint:
            return f"{self.name} said: {complaint.group(0)}"
        if status not in self.expected:
            return f"{self.name} ended with status {status}"
        return None


class Daemon(Process):
    """The daemon under test (or the reference) with a QMP monitor.

    The monitor's socket is opened here and handed over, so that a client may
    connect at once, without waiting for anything. The reference begins when
    the first has (wait=on): one who comes while it starts may never be greeted,
    as two of its threads then set that connection up at the same time.
    """

    WORKERS = ("--object", "iothread,id=io0", "--object", "iothread,id=io1")

    def __init__(self, directory, *arguments, program=PROGRAM, name="daemon",
                 monitor=True, workers=True, env=None, extra_fds=(),
                 stdin=subprocess.DEVNULL):
        self.program = program
        self.is_reference = REFERENCE in pathlib.Path(program).name
        self.monitor_path = directory / f"{name}.qmp"
        self.clients = []
        self.main_client = None
        argv = [program, *(self.WORKERS if workers else ())]
        fds = list(extra_fds)
        listener = None
        if monitor:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(self.monitor_path))
            listener.listen(64)
            fds.append(listener.fileno())
            wait = "on" if self.is_reference else "off"
            argv += ["--chardev", f"socket,id=qmp,fd={listener.fileno()},"
                     f"server=on,wait={wait}", "--monitor", "chardev=qmp"]
        super().__init__(directory, argv + [str(a) for a in arguments], name,
                         fds, env, stdin)
        if listener:
            listener.close()

    # Monitor.

    def client(self, **options):
        """A new monitor connection."""
        client = qmp.QmpClient(self.monitor_path, limit=LIMIT, **options)
        self.clients.append(client)
        return client

    @property
    def qmp(self):
        """The one connection that most tests need."""
        if self.main_client is None:
            self.main_client = self.client()
        return self.main_client

    def cmd(self, command, /, **arguments):
        """As QmpClient.cmd()."""
        return self.qmp.cmd(command, **arguments)

    def execute(self, command, arguments=None):
        return self.qmp.execute(command, arguments)

    def error(self, command, /, **arguments):
        """Runs a command that must fail; returns the QmpError."""
        try:
            value = self.qmp.cmd(command, **arguments)
        except qmp.QmpError as error:
            return error
        raise AssertionError(f"{command} succeeded with {value!r}")

    def finish(self):
        for client in self.clients:
            client.close()
        return super().finish()

    # What many tests set up.

    @property
    def nbd_path(self):
        return self.dir / f"{self.name}.nbd"

    def start_nbd(self, tls=None, **arguments):
        """An NBD server on a UNIX socket; tls: id of credentials."""
        if tls:
            arguments["tls_creds"] = tls
        self.cmd("nbd-server-start", addr={
            "type": "unix", "data": {"path": str(self.nbd_path)}}, **arguments)
        return self.nbd_path

    def start_nbd_tcp(self, host="127.0.0.1", tls=None, **arguments):
        """An NBD server on TCP; returns (host, port)."""
        if tls:
            arguments["tls_creds"] = tls
        while True:
            port = free_port()
            try:
                self.cmd("nbd-server-start", addr={
                    "type": "inet", "data": {"host": host, "port": str(port)}},
                    **arguments)
                return host, port
            except qmp.QmpError as error:
                if "in use" not in error.desc:
                    raise

    def add_creds(self, directory, ident="tls0", **arguments):
        self.cmd("object-add", **{
            "qom_type": "tls-creds-x509", "id": ident, "endpoint": "server",
            "dir": str(directory), **arguments})
        return ident

    def add_file(self, path, node="disk", **options):
        """A raw file as one node (no format layer)."""
        self.execute("blockdev-add", {"driver": "file", "node-name": node,
                                      "filename": str(path), **options})
        return node

    def add_export(self, node="disk", ident=None, **arguments):
        ident = ident or f"exp-{node}"
        self.cmd("block-export-add", type="nbd", id=ident, node_name=node,
                 **arguments)
        return ident

    def serve_two(self, path):
        """The exports 'disk', writable and described, and 'ro'."""
        self.add_file(path, "disk", discard="unmap")
        self.start_nbd()
        self.add_export("disk", writable=True, description="first disk")
        self.execute("blockdev-add", {
            "driver": "null-co", "node-name": "ro", "size": 1 << 20,
            "read-zeroes": True})
        self.add_export("ro")

    def serve_file(self, path, node="disk", writable=True, tls=None,
                   **options):
        """Node, server on a UNIX socket and export in one go."""
        self.add_file(path, node, **options)
        self.start_nbd(tls)
        self.add_export(node, writable=writable)
        return self.nbd_path


class Emulator(Process):
    """A stopped qemu-system-x86_64 with a QMP monitor."""

    def __init__(self, directory, *arguments, name="qemu"):
        path = directory / f"{name}.qmp"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(4)
        super().__init__(directory, [
            "qemu-system-x86_64", "-nodefaults", "-S", "-display", "none",
            "-accel", "tcg", "-chardev",
            f"socket,id=qmp,fd={listener.fileno()},server=on,wait=on",
            "-mon", "chardev=qmp,mode=control",
            *map(str, arguments)], name, [listener.fileno()])
        listener.close()
        try:
            self.qmp = qmp.QmpClient(path, limit=LIMIT)
        except (qmp.QmpClosed, OSError):
            self.qmp = None  # it did not start
            self.expected = {1}

    def finish(self):
        if self.qmp:
            self.qmp.close()
        return super().finish()


def run(*argv, limit=60, check=True, env=None, stdin=None, cwd=None, umask=-1):
    """Runs a program to its end; returns its standard output."""
    result = subprocess.run(
        [str(a) for a in argv], capture_output=True, text=True, timeout=limit,
        env={**ENVIRONMENT, **(env or {})}, input=stdin, cwd=cwd, umask=umask)
    if check and result.returncode:
        raise AssertionError(f"{argv}: status {result.returncode}\n"
                             f"{result.stdout}{result.stderr}")
    return result.stdout if check else result


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def client_context(directory, certificate=True):
    """For sessions whose end has to be announced, to who looks for it."""
    context = ssl.create_default_context(
        cafile=str(pathlib.Path(directory) / "ca-cert.pem"))
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if certificate:
        context.load_cert_chain(str(pathlib.Path(directory) / "client-cert.pem"),
                                str(pathlib.Path(directory) / "client-key.pem"))
    return context


def make_image(path, size, pattern=None):
    """A sparse file; pattern: {offset: bytes}."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in (pattern or {}).items():
            file.seek(offset)
            file.write(data)
    return path


def random_bytes(count, seed=1):
    return random.Random(seed).randbytes(count)
