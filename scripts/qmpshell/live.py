# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of things that exist in the daemon now, for completion.

RULES is the only place that knows arguments by name. The first rule whose
patterns fit the command (or action) and the last part of the argument's path
says what kinds of things the argument names; a rule without kinds says that
its argument is the name of something new.
"""
import fnmatch
import os

RULES = (
    # command               argument            kinds
    ("blockdev-add",        "node-name",        ""),
    ("blockdev-create",     "job-id",           ""),
    ("*-add",               "id",               ""),
    ("nbd-server-add-listener", "id",           ""),
    ("nbd-server-remove-listener", "id",        "listener"),
    ("job-*",               "id",               "job"),
    ("block-job-*",         "id",               "job"),
    ("block-job-*",         "device",           "job"),
    ("block-export-*",      "id",               "export"),
    ("nbd-server-remove",   "name",             "export"),
    ("nbd-client-*",        "connection",       "connection"),
    ("*",                   "export-id",        "export"),
    ("object-*",            "id",               "object"),
    ("chardev-*",           "id",               "chardev"),
    ("ringbuf-*",           "device",           "chardev"),
    ("block-dirty-bitmap-add", "name",          ""),
    ("*-dirty-bitmap-*",    "target",           "bitmap"),
    ("*-dirty-bitmap-*",    "name",             "bitmap"),
    ("*",                   "bitmap",           "bitmap"),
    ("*",                   "bitmaps",          "bitmap"),
    ("*",                   "tls-creds",        "object:tls-creds"),
    ("*",                   "*tls-authz",       "object:authz"),
    ("*",                   "iothread",         "object:iothread"),
    ("*",                   "throttle-group",   "object:throttle-group"),
    ("*",                   "password-secret",  "object:secret"),
    ("*",                   "passwordid",       "object:secret"),
    ("*",                   "*key-secret",      "object:secret"),
    ("*",                   "keyid",            "object:secret"),
    ("qom-*",               "path",             "qom"),
    ("qom-*",               "property",         "property"),
    ("drive-*",             "target",           "file"),
    ("*",                   "node",             "node"),
    ("*",                   "node-name",        "node"),
    ("*",                   "device",           "node"),
    ("*",                   "target",           "node"),
    ("*",                   "*-node",           "node"),
    ("*",                   "parent",           "node"),
    ("*",                   "overlay",          "node"),
    ("*",                   "replaces",         "node"),
    ("*",                   "fdset-id",         "fdset"),
    ("*",                   "file",             "file"),
    ("*",                   "*filename",        "file"),
    ("*",                   "*-file",           "file"),
    ("*",                   "path",             "file"),
    ("*",                   "dir",              "file"),
    ("*",                   "mountpoint",       "file"),
)
QUERY_LIMIT = 3.0


def kinds_of(command, argument):
    """The kinds of things that an argument names."""
    for commands, arguments, kinds in RULES:
        if fnmatch.fnmatchcase(command, commands) and \
                fnmatch.fnmatchcase(argument, arguments):
            return kinds.split()
    return []


class Live:
    """Asks the daemon for names.

    query: a function of a command and its arguments that returns the result,
    or None if there is none
    """

    def __init__(self, query):
        self.query = query

    def names(self, kind, given):
        """[(name, note)] of the things of a kind.

        given: the other arguments of the line, nested dictionaries
        """
        kind, _, pattern = kind.partition(":")
        finder = getattr(self, "_find_" + kind)
        try:
            return sorted(set(finder(given, pattern)))
        except (KeyError, TypeError, AttributeError):
            return []  # not the result that we know

    def _list(self, command, arguments=None):
        return self.query(command, arguments) or []

    def _nodes(self):
        return self._list("query-named-block-nodes", {"flat": True}) or \
            self._list("query-named-block-nodes")

    def _find_node(self, _given, _pattern):
        for node in self._nodes():
            yield node["node-name"], node.get("drv", "")

    def _find_bitmap(self, given, _pattern):
        wanted = given.get("node")
        for node in self._nodes():
            if wanted in (None, node["node-name"]):
                for bitmap in node.get("dirty-bitmaps", []):
                    yield bitmap["name"], f"of {node['node-name']}"

    def _find_job(self, _given, _pattern):
        for job in self._list("query-jobs"):
            yield job["id"], f"{job.get('type', '')}, {job.get('status', '')}"

    def _find_export(self, _given, _pattern):
        for export in self._list("query-block-exports"):
            yield export["id"], f"of {export.get('node-name', '')}"

    def _find_connection(self, _given, _pattern):
        for client in self._list("query-nbd-clients"):
            used = client.get("export-id")
            yield str(client["connection"]), client.get("peer", "") + (
                f", uses {used}" if used else f", {client.get('state', '')}")

    def _find_listener(self, _given, _pattern):
        for item in self._list("query-nbd-server").get("listeners", []):
            if "id" in item:
                yield item["id"], f"{item.get('clients', 0)} clients"

    def _find_object(self, _given, pattern):
        for item in self._list("qom-list", {"path": "/objects"}):
            kind = item["type"]
            if kind.startswith("child<") and pattern in kind:
                yield item["name"], kind[6:-1]

    def _find_chardev(self, _given, _pattern):
        for item in self._list("query-chardev"):
            yield item["label"], item.get("filename", "")

    def _find_fdset(self, _given, _pattern):
        for item in self._list("query-fdsets"):
            yield str(item["fdset-id"]), ""

    def _find_qom(self, _given, _pattern):
        yield "/objects", "all objects"
        for name, note in self._find_object({}, ""):
            yield f"/objects/{name}", note

    def _find_property(self, given, _pattern):
        for item in self._list("qom-list", {"path": given["path"]}):
            if not item["type"].startswith("child<"):
                yield item["name"], item["type"]


def file_names(prefix):
    """[(path, note)] of files that begin with a text, directories with /."""
    directory, _, start = prefix.rpartition("/")
    shown = directory + "/" if "/" in prefix else ""
    path = os.path.expanduser(shown) if shown.startswith("~") else shown
    found = []
    try:
        with os.scandir(path or ".") as entries:
            for entry in entries:
                if not entry.name.startswith(start) or \
                        entry.name.startswith(".") and not start:
                    continue
                slash = "/" if entry.is_dir() else ""
                found.append((path + entry.name + slash, ""))
    except OSError:
        return []
    return sorted(found)
