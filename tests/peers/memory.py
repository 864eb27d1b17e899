# SPDX-License-Identifier: GPL-2.0-or-later
"""Searches the memory of another process as a core dump would hold it.

Regions with MADV_DONTDUMP ("dd" in smaps) are kept apart: they are in no dump.
Only pages that exist are read, and nothing of a sanitizer's terabytes, which are
not dumped. That finds more than a dump has: clean pages of files too.
"""
import ctypes
import os
import re

PAGE = os.sysconf("SC_PAGESIZE")
HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)")
CHUNK = 256  # pages that are read at once
KEPT_OUT_MAX = 1 << 26  # what is larger and not dumped is a sanitizer's


def regions(pid):
    """Yields (start, end, name, is_dumped) of what can be read."""
    head = None
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            match = HEAD.match(line)
            if match:
                head = match
            elif line.startswith("VmFlags:") and head[3][0] == "r" and \
                    head[4] not in ("[vvar]", "[vsyscall]"):
                yield (int(head[1], 16), int(head[2], 16), head[4],
                       "dd" not in line.split())


def existing_pages(pid, start, end):
    """Yields (address, pages) of runs of pages that are in memory or swapped
    out."""
    run = 0
    with open(f"/proc/{pid}/pagemap", "rb") as pagemap:
        pagemap.seek(start // PAGE * 8)
        address = start
        while address < end:
            entries = pagemap.read(min(CHUNK, (end - address) // PAGE) * 8)
            if not entries:
                break
            for i in range(7, len(entries), 8):
                if entries[i] & 0xC0:
                    run += 1
                elif run:
                    yield address - run * PAGE, run
                    run = 0
                address += PAGE
            if run:
                yield address - run * PAGE, run
                run = 0


def search(pid, needles):
    """Returns {needle: {region}}, of dumped regions and of the others."""
    dumped, kept_out = {}, {}
    longest = max(map(len, needles))
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end, name, is_dumped in regions(pid):
            if not is_dumped and end - start > KEPT_OUT_MAX:
                continue
            found = dumped if is_dumped else kept_out
            tail, tail_end = b"", 0
            for address, pages in existing_pages(pid, start, end):
                try:
                    memory.seek(address)
                    data = memory.read(pages * PAGE)
                except OSError:
                    continue  # a device, or gone since
                if tail_end == address:
                    data = tail + data
                for needle in needles:
                    if needle in data:
                        found.setdefault(needle, set()).add(
                            f"{start:x} {name}")
                tail, tail_end = data[-longest:], address + pages * PAGE
    return dumped, kept_out


PTRACE_DETACH, PTRACE_GETREGSET = 17, 0x4204
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000  # __WALL: threads as well
NT_FPREGS, NT_X86_XSTATE = 2, 0x202


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def trace(request, tid, address=None, data=None):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 2 + [ctypes.c_void_p] * 2
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, tid, address, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {tid}")


def vector_registers(pid):
    """Those of all threads, as a core dump has them."""
    found = b""
    kind = NT_X86_XSTATE if os.uname().machine == "x86_64" else NT_FPREGS
    for name in os.listdir(f"/proc/{pid}/task"):
        tid = int(name)
        try:
            trace(PTRACE_SEIZE, tid)
        except ProcessLookupError:
            continue  # it has ended
        trace(PTRACE_INTERRUPT, tid)
        if os.WIFSTOPPED(os.waitpid(tid, WALL)[1]):
            room = ctypes.create_string_buffer(1 << 16)
            vector = IoVec(ctypes.addressof(room), len(room))
            trace(PTRACE_GETREGSET, tid, kind, ctypes.addressof(vector))
            found += room.raw[:vector.len]
            trace(PTRACE_DETACH, tid)
    assert found
    return found
