# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the functional and interop tests.

Each test has a private directory with a short path (UNIX socket paths are at
most 107 bytes) and starts its own daemons there, so that all tests can run in
parallel. The machinery is in peers/harness.py.

BLOCKFERRYD names the program under test; with qemu-storage-daemon there, the
tests of what we do alike run against the reference, and those marked "ours"
are skipped.
"""
import concurrent.futures
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))

import certs  # noqa: E402
import harness  # noqa: E402
import proxy  # noqa: E402


def pytest_collection_modifyitems(items):
    for item in items:
        mark = item.get_closest_marker("ours")
        if mark and harness.IS_REFERENCE:
            item.add_marker(pytest.mark.skip(reason=f"ours: {mark.args[0]}"))
        mark = item.get_closest_marker("peers")
        for name in mark.args if mark else ():
            if shutil.which(name) is None and not (
                    pathlib.Path("/usr/sbin") / name).exists():
                item.add_marker(pytest.mark.skip(reason=f"{name} is missing"))


@pytest.fixture(scope="session")
def removals():
    """Directories are removed beside the tests: to free an image of thousands
    of extents on ext4 with -o discard takes seconds, but no processor."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def box(removals):
    """A private directory with a short path."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="bf-"))
    yield path
    removals.submit(shutil.rmtree, path, ignore_errors=True)


@pytest.fixture
def daemons(box, request):
    """A function that starts daemons, all of which must end cleanly."""
    started = []

    def start(*arguments, **options):
        options.setdefault("name", f"daemon{len(started) or ''}")
        daemon = harness.Daemon(box, *arguments, **options)
        started.append(daemon)
        return daemon

    yield start
    problems = [p for p in (d.finish() for d in reversed(started)) if p]
    for daemon in started:
        request.node.add_report_section(
            "teardown", f"{daemon.name}'s log", daemon.log()[-8000:])
    assert not problems, "; ".join(problems)


@pytest.fixture
def daemon(daemons):
    """A daemon with a monitor and two worker loops."""
    return daemons()


@pytest.fixture
def spawn(box, request):
    """A function that starts other programs: spawn(name, argv)."""
    started = []

    def start(name, argv, **options):
        process = harness.Process(box, [str(a) for a in argv], name, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.running():
            process.popen.kill()
            process.popen.wait()
        request.node.add_report_section(
            "teardown", f"{process.name}'s log", process.log()[-4000:])


@pytest.fixture(scope="session")
def tls_dir(tmp_path_factory):
    """CA, server and client certificates for localhost."""
    return certs.make_set(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def locked_dir(tls_dir, tmp_path_factory):
    """Credentials whose private key needs certs.PASSWORD."""
    directory = tmp_path_factory.mktemp("locked")
    shutil.copytree(tls_dir, directory, dirs_exist_ok=True)
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", tls_dir / "server-key.pem",
         "-out", directory / "server-key.pem", "-v2", "aes256", "-passout",
         f"pass:{certs.PASSWORD}"], check=True, capture_output=True)
    return directory


@pytest.fixture(scope="session")
def tls_context(tls_dir):
    """An ssl.SSLContext with our client certificate."""
    return harness.client_context(tls_dir)


@pytest.fixture
def image(box):
    """A 4 MiB image of noise."""
    return harness.make_image(box / "disk.img", 4 << 20, {0: harness.random_bytes(4 << 20)})


@pytest.fixture
def connect_nbd(tls_dir):
    """A function that gives connected libnbd handles.

    connect_nbd(path, export) or connect_nbd((host, port), export, tls=True);
    sizes=False does not ask for the sizes of blocks.
    """
    nbd = pytest.importorskip("nbd")
    handles = []

    def connect(address, export="disk", tls=False, contexts=(), sizes=True):
        handle = nbd.NBD()
        handles.append(handle)
        handle.set_request_block_size(sizes)
        handle.set_export_name(export)
        if tls:
            handle.set_tls(nbd.TLS_REQUIRE)
            handle.set_tls_certificates(str(tls_dir))
        for context in contexts:
            handle.add_meta_context(context)
        if isinstance(address, tuple):
            handle.connect_tcp(address[0], str(address[1]))
        else:
            handle.connect_unix(str(address))
        return handle

    yield connect
    handles.clear()  # closes them


@pytest.fixture
def proxies():
    """A function that starts delay proxies: see peers/proxy.py."""
    started = []

    def start(*arguments, **options):
        started.append(proxy.Proxy(*arguments, **options))
        return started[-1]

    yield start
    assert all(p.close() == 0 for p in started)
