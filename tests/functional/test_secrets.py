# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets: the recipe with openssl, where they come from, what is refused, and
that their bytes are nowhere but in memory of their own.

A secret cannot be read back, so that it was understood is seen by unlocking the
private key of TLS credentials with it.
"""
import base64
import contextlib
import ctypes
import os
import pathlib
import resource
import socket
import subprocess

import pytest

import harness
import memory
from certs import PASSWORD

KEY, IV = bytes(range(32)), bytes(range(16, 32))


def b64(data):
    return base64.b64encode(data).decode()


def add(daemon, ident, **properties):
    return daemon.cmd("object-add", qom_type="secret", id=ident, **properties)


def refused(daemon, **properties):
    return daemon.error("object-add", qom_type="secret", id="bad",
                        **properties).desc


def encrypt(data, key=KEY, iv=IV, *options):
    return subprocess.run(
        ["openssl", "enc", "-aes-256-cbc", "-K", key.hex(), "-iv", iv.hex(),
         *options], input=data, capture_output=True, check=True).stdout


def unlocks(daemon, locked_dir, ident):
    """Whether the secret is PASSWORD."""
    arguments = {"qom_type": "tls-creds-x509", "id": "unlocked",
                 "endpoint": "server", "dir": str(locked_dir),
                 "passwordid": ident}
    if ident == "wrong":
        return "Decryption" not in daemon.error("object-add",
                                                **arguments).desc
    daemon.cmd("object-add", **arguments)
    daemon.cmd("object-del", id="unlocked")
    return True


# The published recipe.

def test_recipe_with_openssl(daemons, box, locked_dir):
    """Line by line as the documentation of these objects has it."""
    script = f"""
        set -e
        openssl rand -base64 32 > key.b64
        KEY=$(base64 -d key.b64 | hexdump -v -e '/1 "%02X"')
        openssl rand -base64 16 > iv.b64
        IV=$(base64 -d iv.b64 | hexdump -v -e '/1 "%02X"')
        printf '%s' '{PASSWORD}' |
            openssl enc -aes-256-cbc -a -K $KEY -iv $IV > secret.b64
        """
    subprocess.run(["bash", "-c", script], cwd=box, check=True)
    secret = (box / "secret.b64").read_text().rstrip("\n")
    iv = (box / "iv.b64").read_text().rstrip("\n")
    daemon = daemons(
        "--object", "secret,id=secmaster0,format=base64,file=key.b64",
        "--object", "secret,id=sec0,keyid=secmaster0,format=base64,"
        f"data={secret},iv={iv}")
    assert unlocks(daemon, locked_dir, "sec0")
    # The same over QMP, with the file as openssl wrote it.
    add(daemon, "sec1", keyid="secmaster0", format="base64", iv=iv,
        file=str(box / "secret.b64"))
    assert unlocks(daemon, locked_dir, "sec1")


def test_published_command_lines(daemons, box, locked_dir):
    (box / "mypasswd.txt").write_text(PASSWORD)
    (box / "mypasswd.b64").write_text(b64(PASSWORD.encode()) + "\n")
    daemon = daemons(
        "--object", f"secret,id=sec0,data={PASSWORD},format=raw",
        "--object", "secret,id=sec1,file=mypasswd.txt,format=raw",
        "--object", "secret,id=sec2,file=mypasswd.b64,format=base64",
        "--object", f'{{"qom-type": "secret", "id": "sec3", '
        f'"data": "{PASSWORD}"}}',
        "--object", "tls-creds-x509,id=tls0,endpoint=server,"
        f"dir={locked_dir},passwordid=sec0")
    for ident in ("sec0", "sec1", "sec2", "sec3"):
        assert unlocks(daemon, locked_dir, ident)


# Sources.

def test_inherited_pipe(daemons, locked_dir):
    """As a shell's <(command)."""
    reader, writer = os.pipe()
    os.write(writer, PASSWORD.encode())
    os.close(writer)
    daemon = daemons("--object", f"secret,id=s0,file=/dev/fd/{reader}",
                     extra_fds=[reader])
    os.close(reader)
    assert unlocks(daemon, locked_dir, "s0")


@pytest.mark.parametrize("kind", ("pipe", "memfd", "socket", "file"))
def test_passed_descriptor(daemon, box, locked_dir, kind):
    if kind == "pipe":
        passed, other = os.pipe()
        os.write(other, PASSWORD.encode())
        os.close(other)
    elif kind == "memfd":
        passed = os.memfd_create("secret")
        os.write(passed, PASSWORD.encode())  # the position is at the end
    elif kind == "socket":
        ours, theirs = socket.socketpair()
        ours.sendall(PASSWORD.encode())
        ours.close()
        passed = theirs.detach()
    else:
        (box / "secret").write_text(PASSWORD)
        passed = os.open(box / "secret", os.O_RDONLY)
        (box / "secret").unlink()
    info = daemon.cmd("add-fd", _fds=[passed])
    os.close(passed)
    add(daemon, "s0", file=f"/dev/fdset/{info['fdset-id']}")
    assert unlocks(daemon, locked_dir, "s0")
    assert "/dev/fdset/77" in refused(daemon, file="/dev/fdset/77")


def test_pipe_that_never_ends_is_given_up(daemon):
    reader, writer = os.pipe()
    os.write(writer, b"half of it")
    daemon.cmd("add-fd", _fds=[reader], fdset_id=5)
    os.close(reader)
    other = daemon.client()
    other.send("object-add", {"qom-type": "secret", "id": "s0",
                              "file": "/dev/fdset/5"})
    add(daemon, "meanwhile", data="x")  # others do not wait
    error = other.read_message(20)["error"]
    assert "/dev/fdset/5" in error["desc"] and "10 s" in error["desc"]
    assert "half" not in error["desc"]
    os.close(writer)


def wait_for_reader(daemon, ident):
    """Waits for the thread that reads a secret, which has its name."""
    def is_there():
        for path in pathlib.Path(f"/proc/{daemon.pid}/task").glob("*/comm"):
            with contextlib.suppress(OSError):  # gone since
                if path.read_text() == f"{ident}\n":
                    return True
        return False
    harness.wait_until(is_there)


def test_end_does_not_wait_for_a_pipe(daemons, box):
    """Neither in the middle of the start nor of a command."""
    os.mkfifo(box / "fifo")
    starting = daemons("--object", "secret,id=s0,file=fifo", monitor=False)
    wait_for_reader(starting, "s0")
    starting.popen.terminate()
    assert starting.wait(8) == 0
    daemon = daemons(name="other")
    daemon.client().send("object-add", {"qom-type": "secret", "id": "s1",
                                        "file": str(box / "fifo")})
    wait_for_reader(daemon, "s1")
    daemon.popen.terminate()
    assert daemon.wait(8) == 0


def test_too_much_is_refused(daemon, box):
    (box / "big").write_bytes(b"x" * 65537)
    desc = refused(daemon, file=str(box / "big"))
    assert str(box / "big") in desc and "65536" in desc
    assert "65536" in refused(daemon, data="x" * 65537)
    (box / "big").write_bytes(b"x" * 65536)
    add(daemon, "s0", file=str(box / "big"))


def test_credential_of_systemd(daemons, box, locked_dir):
    (box / "credentials").mkdir()
    (box / "credentials" / "disk-password").write_text(PASSWORD)
    daemon = daemons("--object", "secret,id=s0,credential=disk-password",
                     env={"CREDENTIALS_DIRECTORY": str(box / "credentials")})
    assert unlocks(daemon, locked_dir, "s0")
    assert "without '/'" in refused(daemon, credential="../credentials/x")
    assert "credentials/nope" in refused(daemon, credential="nope")
    assert "mutually exclusive" in refused(daemon, credential="x", data="y")
    bare = daemons(name="bare")
    assert "$CREDENTIALS_DIRECTORY is not set" in refused(bare, credential="x")


def test_key_of_the_kernel(daemon, locked_dir):
    libc = ctypes.CDLL(None, use_errno=True)
    serial = libc.syscall(248, b"user", b"blockferry-test", PASSWORD.encode(),
                          len(PASSWORD), ctypes.c_long(-3))  # add_key, session
    if serial > 0:  # containers may forbid it
        libc.syscall(250, 5, serial, 0x3f3f0000)  # readable by the user
        daemon.cmd("object-add", qom_type="secret_keyring", id="s0",
                   serial=serial)
        assert unlocks(daemon, locked_dir, "s0")
        assert daemon.cmd("qom-get", path="s0", property="serial") == serial
        libc.syscall(250, 3, serial)  # revoke
    error = daemon.error("object-add", qom_type="secret_keyring", id="s1",
                         serial=0x0012abcd)
    assert "Unable to read serial key 0012abcd: " in error.desc
    error = daemon.error("object-add", qom_type="secret_keyring", id="s1",
                         serial=0)
    assert "'serial' parameter must be provided" in error.desc


# What is wrong is named.

@pytest.mark.parametrize("properties, words", [
    ({"keyid": "key31"}, "Key should be 32 bytes in length: secret 'key31' "
     "has 31"),
    ({"keyid": "nope"}, "No secret with id 'nope'"),
    ({"keyid": "io0"}, "Object with id 'io0' is not a secret"),
    ({"keyid": "other"}, "padding bytes"),
    ({"keyid": "other"}, "on decrypted data: the key is wrong (secret "
     "'other')"),
    ({"iv": None}, "IV is required to decrypt secret"),
    ({"iv": b64(b"short")}, "IV should be 16 bytes in length not 5"),
    ({"iv": "***"}, "invalid characters ('iv', at byte 0)"),
    ({"data": b64(encrypt(b"x" * 20)[:-1])},
     "Length 31 must be a multiple of block size 16"),
    ({"data": b64(encrypt(b"x" * 20))[:-1]},
     "Base64 data is not valid: the secret is incomplete"),
    ({"data": b64(encrypt(b"x" * 31 + b"\0", KEY, IV, "-nopad"))},
     "Incorrect number of padding bytes (0) found on decrypted data"),
    ({"data": b64(encrypt(b"x" * 15 + b"\x20", KEY, IV, "-nopad"))},
     "(32) found on decrypted data: key or 'iv' is wrong (secret 'key')"),
    ({"format": "raw"}, "Length 44 must be a multiple of block size 16: the "
     "data is cut off, or 'format' is not that of the data"),
    ({"keyid": None}, "'iv' is for data that is encrypted: set 'keyid'"),
])
def test_errors_say_what_is_wrong(daemon, properties, words):
    add(daemon, "key", format="base64", data=b64(KEY))
    add(daemon, "other", format="base64", data=b64(bytes(32)))
    add(daemon, "key31", data="x" * 31)
    arguments = {"keyid": "key", "iv": b64(IV), "format": "base64",
                 "data": b64(encrypt(b"x" * 20)), **properties}
    desc = refused(daemon, **{k: v for k, v in arguments.items()
                              if v is not None})
    assert words in desc


def test_wrong_password_is_not_taken(daemon, locked_dir):
    add(daemon, "wrong", data="wrong")
    assert not unlocks(daemon, locked_dir, "wrong")


# Secrets are not given out.

@pytest.mark.ours("the reference gives out the data")
def test_properties_of_a_secret(daemon):
    add(daemon, "s0", data=b64(b"hidden"), format="base64")
    error = daemon.error("qom-get", path="/objects/s0", property="data")
    assert error.desc == ("Property 'secret.data' cannot be read: secrets are "
                          "not given out")
    assert daemon.cmd("qom-get", path="s0", property="format") == "base64"
    for name in ("file", "credential", "keyid", "iv"):
        assert daemon.cmd("qom-get", path="s0", property=name) == ""
    for name, value in (("data", "new"), ("format", "raw"), ("file", "/x")):
        error = daemon.error("qom-set", path="s0", property=name, value=value)
        assert "cannot be changed; use object-del" in error.desc
    assert daemon.cmd("qom-get", path="s0", property="format") == "base64"


def test_arguments_are_hidden(daemons, box):
    """From ps, which others may use, and from the message of a failed start."""
    daemon = daemons("--object", "secret,format=raw,data=hunter2,,x,id=s0",
                     "--object",
                     '{"qom-type": "secret", "id": "s1", "data": "hunter2"}')
    daemon.cmd("query-version")
    arguments = pathlib.Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
    assert b"hunter2" not in arguments and b"id=s0" in arguments
    for argument in ("secret,id=9,data=hunter2", "secret,id=a,data=a,hunter2",
                     '{"qom-type": "secret", "id": "9", "data": "hunter2"}',
                     "secret,data=hunter2,format=hex,id=a"):
        failed = subprocess.run([harness.PROGRAM, "--object", argument],
                                capture_output=True, text=True,
                                env=harness.ENVIRONMENT)
        assert failed.returncode == 1 and "--object" in failed.stderr
        assert "hunter2" not in failed.stderr


def all_answers(daemon):
    """What every query and every property of every object gives, as text."""
    texts = []
    for command in daemon.cmd("query-commands"):
        if command["name"].startswith("query-"):
            daemon.qmp.send(command["name"], {})
            texts.append(str(daemon.qmp.read_message()))
    for item in daemon.cmd("qom-list", path="/objects"):
        for member in daemon.cmd("qom-list", path=f"/objects/{item['name']}") \
                if item["type"].startswith("child<") else ():
            daemon.qmp.send("qom-get", {"path": f"/objects/{item['name']}",
                                        "property": member["name"]})
            texts.append(str(daemon.qmp.read_message()))
    return "\n".join(texts)


def test_bytes_of_secrets_are_nowhere_else(daemons, box, locked_dir):
    """Not in logs, answers, arguments, or memory that a dump would hold."""
    by_option, inline, other = (os.urandom(24).hex() for _ in range(3))
    coded, wrapped, key = (os.urandom(33) for _ in range(3))
    key = key[:32]
    in_file = os.urandom(20000).hex()
    refused_data = os.urandom(24).hex()
    (box / "secret").write_text(in_file)
    daemon = daemons("--object", f"secret,id=option,data={by_option}",
                     env={"G_MESSAGES_DEBUG": "all"})
    # Nor a part of it: this is early, before others have used the stacks.
    daemon.cmd("query-version")
    few = [by_option[i:i + 8].encode() for i in range(0, 41, 4)]
    assert memory.search(daemon.pid, few)[0] == {}
    encrypted = encrypt(wrapped, key)
    add(daemon, "inline", data=inline)
    add(daemon, "file", file=str(box / "secret"))
    add(daemon, "key", format="base64", data=b64(key))
    add(daemon, "coded", format="base64", data=b64(coded))
    add(daemon, "wrapped", format="base64", keyid="key", iv=b64(IV),
        data=b64(encrypted))
    add(daemon, "password", data=PASSWORD)
    assert unlocks(daemon, locked_dir, "password")
    # What fails leaves nothing either: a used id, a bad value, broken JSON.
    daemon.error("object-add", qom_type="secret", id="inline",
                 data=refused_data)
    daemon.error("object-add", qom_type="secret", id="x", data=refused_data,
                 format="hex")
    daemon.error("qom-set", path="inline", property="data",
                 value=refused_data)
    other_client = daemon.client()
    other_client.send_bytes(b'{"execute": "object-add", "arguments": '
                            b'{"data": "' + refused_data.encode() + b'\n"}}')
    broken = other_client.read_message()
    assert "JSON parse error" in broken["error"]["desc"]
    add(daemon, "gone", data=other)
    daemon.cmd("object-del", id="gone")
    # A large request in many pieces; its text is parsed on another thread.
    long_text = os.urandom(24).hex()
    daemon.error("object-add", qom_type="secret", id="long",
                 data=long_text + "x" * 300000)

    living = [by_option.encode(), inline.encode(), key, coded, wrapped,
              in_file.encode()[:40], in_file.encode()[-40:],
              PASSWORD.encode()]
    # What was encoded is not kept at all, unless it is encrypted.
    gone = [b64(key).encode(), b64(coded).encode(),
            other.encode(), refused_data.encode(), long_text.encode()]
    answers = all_answers(daemon) + str(broken)
    dumped, kept_out = memory.search(daemon.pid, living + gone)
    assert dumped == {}
    # Nor a part, as functions that copy leave it in registers, which others
    # save on their stack: one of the parts is in any 16 bytes.
    registers = memory.vector_registers(daemon.pid)
    for needle in living + gone:
        for i in range(len(needle) - 15):
            assert needle[i:i + 16] not in registers
    ends = [end for n in living + gone for end in (n[:16], n[-16:])]
    assert memory.search(daemon.pid, ends)[0] == {}
    # A passphrase goes through libunistring, which frees its copies as they
    # are: there may be shorter parts of it.
    parts = [n[i:i + 12] for n in living + gone for i in range(0, len(n) - 11, 4)
             if n != PASSWORD.encode()]
    assert memory.search(daemon.pid, parts)[0] == {}
    # The search can find: all that lives is in memory of its own.
    assert set(kept_out) == set(living)
    for needle in living + gone:
        assert needle.decode("latin-1") not in answers
        assert needle not in daemon.log_path.read_bytes()
    arguments = pathlib.Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
    assert by_option.encode() not in arguments
    for ident in ("option", "inline", "file", "coded", "wrapped", "password",
                  "key"):
        daemon.cmd("object-del", id=ident)
    assert memory.search(daemon.pid, living) == ({}, {})


def test_denied_lock_is_told_once(daemons, box):
    """Root may lock without a limit, so it loses that right first. io_uring
    needs some locked memory at the start."""
    drop = "setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock" \
        if os.geteuid() == 0 else ""
    script = box / "unlockable"
    script.write_text(f"#!/bin/sh\nexec {drop} {harness.PROGRAM} \"$@\"\n")
    script.chmod(0o755)
    daemon = daemons(program=str(script))
    daemon.cmd("query-version")
    resource.prlimit(daemon.pid, resource.RLIMIT_MEMLOCK, (0, 0))
    add(daemon, "a", data="x")
    add(daemon, "b", data="y")
    assert daemon.log().count("cannot lock the memory of secrets") == 1
    roomy = daemons(name="roomy")
    add(roomy, "a", data="x")
    assert "cannot lock" not in roomy.log()
