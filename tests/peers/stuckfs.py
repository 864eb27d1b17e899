#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system that stops answering, or loses power, on command.

stuckfs.py SOURCE MOUNTPOINT CONTROL [cached]

Shows the files of SOURCE at MOUNTPOINT. CONTROL is a UNIX socket that takes
lines: "stop" makes every operation wait (but for those of this process),
"go" lets them all go on, "count NAME" gives the number of calls of an
operation so far, and "lose SEED" gives every sector that was written after
the file's last fsync, and not with O_DSYNC, one of the contents that it had
since then: so may a disk that reorders what is in its cache. Class StuckFs
starts and ends it for a test.
"""
import errno
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading

SECTOR = 512


class Unsafe:
    """What power loss may do to the files: the caller has the mutex."""

    def __init__(self):
        self.sectors = {}  # path -> {sector: its earlier contents}

    def write(self, path, file, data, offset, is_safe):
        first, end = offset // SECTOR, -(-(offset + len(data)) // SECTOR)
        old = os.pread(file, (end - first) * SECTOR, first * SECTOR)
        sectors = self.sectors.setdefault(path, {})
        for at in range(0, len(old), SECTOR):
            sector = first + at // SECTOR
            if is_safe:
                sectors.pop(sector, None)
            else:
                sectors.setdefault(sector, []).append(old[at:at + SECTOR])

    def sync(self, path):
        self.sectors.pop(path, None)

    def lose(self, seed):
        choice = random.Random(seed).choice
        for path, sectors in self.sectors.items():
            file = os.open(path, os.O_RDWR)
            for sector, contents in sorted(sectors.items()):
                data = choice([None, *contents])
                if data is not None:
                    os.pwrite(file, data, sector * SECTOR)
            os.close(file)
        self.sectors.clear()


class StuckFs:
    """The mounted file system, seen from a test."""

    def __init__(self, box, cached=False):
        self.source, self.mount = box / "src", box / "mnt"
        self.source.mkdir()
        self.mount.mkdir()
        control = box / "stuckfs"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(control))
        listener.listen(1)
        listener.settimeout(20)
        self.log = open(box / "stuckfs.log", "wb")
        self.process = subprocess.Popen(
            ["/usr/bin/python3", __file__, self.source, self.mount, control,
             *(["cached"] if cached else [])],
            stdout=self.log, stderr=self.log)
        try:
            # It connects once the mount answers.
            self.control = listener.accept()[0].makefile("rw")
        except TimeoutError:
            self.process.kill()
            raise RuntimeError((box / "stuckfs.log").read_text()) from None
        finally:
            listener.close()

    def command(self, text):
        self.control.write(text + "\n")
        self.control.flush()
        return self.control.readline().strip()

    def stop(self):
        self.command("stop")

    def go(self):
        self.command("go")

    def count(self, operation):
        return int(self.command(f"count {operation}"))

    def lose(self, seed):
        """Power fails: what no fsync has covered is old or new."""
        self.command(f"lose {seed}")

    def end(self):
        """Fails what still waits, and unmounts."""
        self.process.kill()
        self.process.wait()
        subprocess.run(["umount", "-l", self.mount], check=False)
        self.control.close()
        self.log.close()


def main():
    import fusepy  # not needed by those who only import StuckFs

    class Files(fusepy.Operations):
        """Operations on the source, by descriptor where there is one."""

        use_ns = True
        lock = ioctl = None  # the kernel does these by itself

        def __init__(self, root):
            self.root = root
            self.running = threading.Event()
            self.running.set()
            self.counts = {}
            self.mutex = threading.Lock()
            self.unsafe = Unsafe()
            self.thread = threading.local()

        def __call__(self, operation, path, *arguments):
            with self.mutex:
                self.counts[operation] = self.counts.get(operation, 0) + 1
            self.running.wait()
            if not hasattr(self, operation):
                raise fusepy.FuseOSError(errno.EFAULT)
            return getattr(self, operation)(self.root + path, *arguments)

        def getattr(self, path, fh=None):
            status = os.lstat(path)
            result = {key: getattr(status, key) for key in (
                "st_mode", "st_size", "st_nlink", "st_uid", "st_gid",
                "st_blocks")}
            for key in ("st_atime", "st_mtime", "st_ctime"):
                result[key] = getattr(status, key + "_ns")
            return result

        def readdir(self, path, fh):
            return [".", "..", *os.listdir(path)]

        def open(self, path, flags):
            if flags & os.O_ACCMODE == os.O_WRONLY:
                flags ^= os.O_WRONLY | os.O_RDWR  # write() reads what was
            return os.open(path, flags & ~os.O_DIRECT)

        def create(self, path, mode, fi=None):
            return os.open(path, os.O_RDWR | os.O_CREAT, mode)

        def read(self, path, size, offset, fh):
            return os.pread(fh, size, offset)

        def write(self, path, data, offset, fh):
            with self.mutex:
                self.unsafe.write(path, fh, data, offset,
                                  self.thread.flags & os.O_DSYNC)
                return os.pwrite(fh, data, offset)

        def truncate(self, path, length, fh=None):
            os.truncate(path, length)

        def fsync(self, path, datasync, fh):
            with self.mutex:
                self.unsafe.sync(path)
            return 0

        def flush(self, path, fh):
            return 0

        def release(self, path, fh):
            os.close(fh)
            return 0

        def unlink(self, path):
            os.unlink(path)

        def mknod(self, path, mode, device):
            os.mknod(path, mode, device)

        def chmod(self, path, mode):
            os.chmod(path, mode)

        def utimens(self, path, times=None):
            os.utime(path, ns=times)

    files = Files(sys.argv[1])

    class Fuse(fusepy.FUSE):
        """Keeps the flags of a write, which show whether it is to be safe."""

        def write(self, path, buf, size, offset, fip):
            files.thread.flags = fip.contents.flags
            return super().write(path, buf, size, offset, fip)

    def control():
        sock = socket.socket(socket.AF_UNIX)
        while not os.path.ismount(sys.argv[2]):
            pass
        os.stat(sys.argv[2])
        sock.connect(sys.argv[3])
        stream = sock.makefile("rw")
        for line in stream:
            words = line.split()
            answer = "ok"
            if words[0] == "stop":
                files.running.clear()
            elif words[0] == "go":
                files.running.set()
            elif words[0] == "lose":
                with files.mutex:
                    files.unsafe.lose(int(words[1]))
            else:
                answer = str(files.counts.get(words[1], 0))
            stream.write(answer + "\n")
            stream.flush()

    threading.Thread(target=control, daemon=True).start()
    # Without the page cache every request comes here.
    options = {} if "cached" in sys.argv else {"direct_io": True}
    Fuse(files, sys.argv[2], foreground=True, nothreads=False,
         **options)


if __name__ == "__main__":
    pathlib.Path(sys.argv[2]).mkdir(exist_ok=True)
    main()
