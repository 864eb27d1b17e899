# SPDX-License-Identifier: GPL-2.0-or-later
"""qmp-shell with QEMU's programs: the types are there, the texts are not."""
import json
import types

import pytest

import harness
from shell import complaint, output  # makes qmpshell importable
from qmpshell.client import Client
from qmpshell.session import Session


@pytest.fixture
def reference(daemons):
    """qemu-storage-daemon, whose monitor has one client at a time."""
    return daemons(program=harness.REFERENCE)


@pytest.fixture
def emulator(box):
    """qemu-system-x86_64, as what the functions of shell.py take"""
    process = harness.Emulator(box)
    process.qmp.close()
    yield types.SimpleNamespace(dir=box, monitor_path=box / "qemu.qmp")
    assert process.finish() is None


SCRIPT = """
blockdev-add driver=null-co node-name=n0 size=1M
blockdev-add driver=null-co node-name=n1 size=1M
nbd-server-start addr.type=inet addr.data.host=127.0.0.1 addr.data.port=%d
block-export-add type=nbd id=e0 node-name=n0 writable=off
blockdev-mirror job-id=m0 device=n0 target=n1 sync=full
wait -t 30 BLOCK_JOB_READY device=m0
block-job-complete device=m0
wait -t 30 BLOCK_JOB_COMPLETED device=m0
transaction(
block-dirty-bitmap-add node=n1 name=b0
block-dirty-bitmap-add node=n1 name=b1
)
block-dirty-bitmap-merge node=n1 target=b0 bitmaps=b1
output table
query-block-exports
query-jobs
"""


@pytest.mark.peers("qemu-storage-daemon")
def test_script_with_storage_daemon(reference):
    text = output(reference, "-x", "-",
                  stdin=SCRIPT % harness.free_port())
    assert text.endswith("EXPORT  TYPE  NODE  CLOSING\n"
                         "e0      nbd   n1    no\n(none)\n")


@pytest.mark.peers("qemu-storage-daemon")
def test_errors_and_help_with_storage_daemon(reference):
    assert "did you mean nbd-server-start" in complaint(
        reference, "nbd-server-sart")
    assert "missing: addr.data.path=string" in complaint(
        reference, "nbd-server-start", "addr.type=unix")
    assert "there is no node at all" in complaint(
        reference, "block-export-add", "type=nbd", "id=e", "node-name=n7")
    text = output(reference, "help", "nbd-server-start", "addr.type=unix")
    assert "* addr.data.path  string" in text
    assert "Starts the NBD server" not in text


@pytest.mark.peers("qemu-storage-daemon")
def test_completion_with_storage_daemon(reference):
    client = Client(str(reference.monitor_path))
    client.connect()
    session = Session(client)
    client.execute("blockdev-add", {"driver": "null-co", "node-name": "n0"})

    def complete(before):
        return [c.text for c in session.completer.complete(before)[1]]

    assert complete("nbd-server-start addr.type=unix addr.data.") == [
        "addr.data.abstract=", "addr.data.path=", "addr.data.tight="]
    assert complete("block-export-add type=nbd node-name=") == [
        "node-name=n0 "]
    assert complete("object-del id=") == ["id=io0 ", "id=io1 "]
    for name in session.schema.names["command"]:
        found = set(complete(f"{name} "))
        for member in session.schema.command(name).args.members():
            assert {f"{member.name}=", f"{member.name}."} & found
    client.close()


@pytest.mark.peers("qemu-storage-daemon")
def test_second_client_of_storage_daemon_is_told(reference, monkeypatch):
    """It is not greeted until the first client has gone."""
    first = reference.client()
    monkeypatch.setattr("qmpshell.client.GREETING_LIMIT", 0.2)
    with pytest.raises(Exception) as caught:
        Client(str(reference.monitor_path)).connect()
    assert "was silent" in str(caught.value)
    assert "one client at a time" in caught.value.hints[0]
    first.close()


@pytest.mark.peers("qemu-system-x86_64")
def test_emulator(emulator):
    """More than a storage daemon has, and members that are not described."""
    assert json.loads(output(emulator, "query-status"))["running"] is False
    assert output(emulator, "object-add", "qom-type=iothread", "id=io0",
                  "poll-max-ns=0x10") == "{}\n"
    assert output(emulator, "qom-get", "path=/objects/io0",
                  "property=poll-max-ns") == "16\n"
    assert output(emulator, "qom-set", "path=/objects/io0",
                  "property=poll-max-ns", "value=32") == "{}\n"
    assert output(emulator, "object-del", "id=io0") == "{}\n"
    assert "acpi" in output(emulator, "help", "query-acpi-ospm-status")
