# SPDX-License-Identifier: GPL-2.0-or-later
"""Replies and events as text: JSON, or tables for people.

TABLES says which columns the common replies have. A reply that is not there
becomes a table only if all of it fits; otherwise it is shown as JSON, so that
nothing is left out without being asked.
"""
import json
import time

MODES = ("table", "pretty", "compact")
UNITS = ("", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB")


def clean(text):
    """A text without what could confuse a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}"
                   for c in str(text))


def size(value):
    if not isinstance(value, int) or isinstance(value, bool):
        return plain(value)
    unit = 0
    amount = value
    while abs(amount) >= 1024 and unit < len(UNITS) - 1:
        amount /= 1024
        unit += 1
    return f"{amount:.4g}{UNITS[unit]}" if unit else str(value)


def plain(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return clean(value)


def names(value):
    """The names of the things in a list."""
    if not isinstance(value, list):
        return plain(value)
    return ",".join(clean(v.get("name", v) if isinstance(v, dict) else v)
                    for v in value)


def percent(done, total):
    def show(row):
        have, of = look_up(row, done), look_up(row, total)
        if not isinstance(have, int) or not isinstance(of, int):
            return None
        return f"{100 * have / of:.1f}%" if of else "-"
    return show


def duration(value):
    """Nanoseconds for people."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return plain(value)
    for limit, unit in ((1e3, "ns"), (1e6, "us"), (1e9, "ms")):
        if value < limit:
            return f"{value * 1000 / limit:.3g} {unit}"
    return f"{value / 1e9:.3g} s"


def quantile(path, share):
    """Below which time a share of the requests of all kinds was answered, by
    their histograms: the end of a range."""
    def show(row):
        counts = {}
        kinds = look_up(row, path)
        for kind in kinds.values() if isinstance(kinds, dict) else ():
            latency = look_up(kind, "latency")
            bounds, bins = look_up(latency, "boundaries"), \
                look_up(latency, "bins")
            if not isinstance(bounds, list) or not isinstance(bins, list):
                continue
            for end, count in zip([*bounds, float("inf")], bins):
                counts[end] = counts.get(end, 0) + count
        wanted = share * sum(counts.values())
        for end in sorted(counts):
            wanted -= counts[end]
            if wanted <= 0 < sum(counts.values()):
                return end
        return None
    return show


def below(value):
    return "longer" if value == float("inf") else "<" + duration(value)


def rate(value):
    return "unlimited" if value == 0 else size(value) + "/s"


# command -> columns: head, member (or a function of the row), how it is shown
TABLES = {
    "query-named-block-nodes": (
        ("NODE", "node-name", plain), ("DRIVER", "drv", plain),
        ("SIZE", "image.virtual-size", size), ("RO", "ro", plain),
        ("ACTIVE", "active", plain), ("BITMAPS", "dirty-bitmaps", names),
        ("FILE", "file", plain)),
    "query-block-exports": (
        ("EXPORT", "id", plain), ("TYPE", "type", plain),
        ("NODE", "node-name", plain), ("CLIENTS", "clients", plain),
        ("READ", "stats.read-bytes", size),
        ("WRITTEN", "stats.written-bytes", size),
        ("ERRORS", "stats.failed-operations", plain),
        ("CLOSING", "shutting-down", plain)),
    "query-nbd-clients": (
        ("CONNECTION", "connection", plain), ("PEER", "peer", plain),
        ("EXPORT", "export-id", plain), ("STATE", "state", plain),
        ("TLS", "tls.version", plain), ("NAME", "tls.name", plain),
        ("READ", "requests.read.bytes", size),
        ("WRITTEN", "requests.write.bytes", size),
        ("IN FLIGHT", "in-flight", plain),
        ("ERRORS", "failed-requests", plain),
        ("99% IN", quantile("requests", 0.99), below),
        ("IDLE", "idle-ns", duration)),
    "query-block-jobs": (
        ("JOB", "device", plain), ("TYPE", "type", plain),
        ("STATUS", "status", plain), ("DONE", percent("offset", "len"), plain),
        ("OF", "len", size), ("SPEED", "speed", rate),
        ("READY", "ready", plain), ("I/O", "io-status", plain),
        ("ERROR", "error", plain)),
    "query-jobs": (
        ("JOB", "id", plain), ("TYPE", "type", plain),
        ("STATUS", "status", plain),
        ("DONE", percent("current-progress", "total-progress"), plain),
        ("ERROR", "error", plain)),
    "query-chardev": (
        ("LABEL", "label", plain), ("FILENAME", "filename", plain),
        ("OPEN", "frontend-open", plain)),
    "query-blockstats": (
        ("NODE", "node-name", plain), ("READ", "stats.rd_bytes", size),
        ("READS", "stats.rd_operations", plain),
        ("WRITTEN", "stats.wr_bytes", size),
        ("WRITES", "stats.wr_operations", plain),
        ("FLUSHES", "stats.flush_operations", plain),
        ("TO", "stats.wr_highest_offset", size)),
}


def look_up(row, path):
    for part in path.split("."):
        if not isinstance(row, dict):
            return None
        row = row.get(part)
    return row


def chosen_columns(rows, columns):
    """Heads and cells of the columns that any row has."""
    heads, cells = [], []
    for head, source, show in columns:
        values = [source(row) if callable(source) else look_up(row, source)
                  for row in rows]
        if any(value is not None for value in values):
            heads.append(head)
            cells.append(["" if v is None else show(v) for v in values])
    return heads, cells


def draw(heads, cells):
    """A table of columns of texts; numbers are to the right."""
    lines = []
    widths = [max(map(len, [head, *column]))
              for head, column in zip(heads, cells)]
    right = [all(not c or c[0].isdigit() and c[-1] not in "]}" for c in column)
             for column in cells]
    for row in [heads, *zip(*cells)]:
        parts = [cell.rjust(width) if number else cell.ljust(width)
                 for cell, width, number in zip(row, widths, right)]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def is_scalar(value):
    return not isinstance(value, (dict, list))


def flatten(value):
    """An object without objects in it: their members have longer names."""
    flat = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat.update((f"{key}.{k}", v) for k, v in flatten(item).items())
        else:
            flat[key] = item
    return flat


def generic_table(value, width):
    """A table of a result that has no columns of its own, or None."""
    if isinstance(value, dict):
        value = flatten(value)
    elif isinstance(value, list):
        value = [flatten(v) if isinstance(v, dict) else v for v in value]
    if isinstance(value, dict) and all(map(is_scalar, value.values())):
        longest = max(map(len, value), default=0)
        return "\n".join(f"{clean(k).ljust(longest)}  {plain(v)}"
                         for k, v in value.items())
    if not isinstance(value, list) or not all(
            isinstance(row, dict) and all(map(is_scalar, row.values()))
            for row in value):
        return None
    keys = list(dict.fromkeys(key for row in value for key in row))
    columns = [(clean(key).upper(), lambda row, key=key: row.get(key), plain)
               for key in keys]
    text = draw(*chosen_columns(value, columns))
    widest = max(map(len, text.splitlines()), default=0)
    return text if widest <= width else None


def table(command, value, width):
    """A result as a table, or None if it does not make one."""
    if value == {}:
        return "ok"
    if value == []:
        return "(none)"
    if is_scalar(value):
        return plain(value)
    columns = TABLES.get(command)
    if columns and isinstance(value, list) and all(
            isinstance(row, dict) for row in value):
        return draw(*chosen_columns(value, columns))
    return generic_table(value, width)


def to_json(value, mode):
    if mode == "compact":
        return json.dumps(value)
    return json.dumps(value, indent=2)


def result(command, value, mode, width):
    """The result of a command as text."""
    if mode == "table":
        text = table(command, value, width)
        if text is not None:
            return text
        mode = "pretty"
    return to_json(value, mode)


def event_line(event, mode):
    """An event as one line."""
    if mode != "table":
        return json.dumps(event)
    stamp = event.get("timestamp")
    stamp = stamp if isinstance(stamp, dict) else {}
    seconds = stamp.get("seconds")
    at = "--:--:--"
    if isinstance(seconds, int) and 0 <= seconds < 1 << 40:
        at = time.strftime("%H:%M:%S", time.localtime(seconds))
        at += f".{int(stamp.get('microseconds', 0)) // 1000:03}"
    data = event.get("data")
    words = [f"{clean(k)}={event_value(v)}" for k, v in data.items()] \
        if isinstance(data, dict) else []
    return " ".join([f"[{at}]", clean(event.get("event")), *words])


def event_value(value):
    if isinstance(value, str):
        text = clean(value)
        return json.dumps(text) if " " in text or not text else text
    return json.dumps(value)
