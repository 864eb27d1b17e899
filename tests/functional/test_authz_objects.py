# SPDX-License-Identifier: GPL-2.0-or-later
"""authz-* objects: properties, live changes, and files that are followed."""
import json
import os

import pytest

import qmp

DENY = "deny"
ALLOW = "allow"


def add(daemon, kind, ident="a0", **properties):
    daemon.execute("object-add", {"qom-type": kind, "id": ident, **properties})


def refusal(daemon, kind, **properties):
    with pytest.raises(qmp.QmpError) as caught:
        add(daemon, kind, **properties)
    return caught.value.desc


def get(daemon, name, ident="a0"):
    return daemon.cmd("qom-get", path=f"/objects/{ident}", property=name)


def put(daemon, name, value, ident="a0"):
    daemon.cmd("qom-set", path=f"/objects/{ident}", property=name, value=value)


def test_simple(daemon):
    add(daemon, "authz-simple", identity="CN=one")
    assert get(daemon, "identity") == "CN=one"
    put(daemon, "identity", "CN=two,O=x")
    assert get(daemon, "identity") == "CN=two,O=x"
    assert get(daemon, "type") == "authz-simple"
    assert {"name": "identity", "type": "string"} in daemon.cmd(
        "qom-list", path="/objects/a0")
    daemon.cmd("object-del", id="a0")
    assert "identity" in refusal(daemon, "authz-simple")


def test_list(daemon):
    rule = {"match": "CN=one", "policy": ALLOW}
    add(daemon, "authz-list", rules=[rule])
    assert get(daemon, "policy") == DENY
    assert get(daemon, "rules") == [{**rule, "format": "exact"}]
    put(daemon, "policy", ALLOW)
    put(daemon, "rules", [{**rule, "format": "glob"}, rule])
    assert get(daemon, "policy") == ALLOW
    assert [r["format"] for r in get(daemon, "rules")] == ["glob", "exact"]
    for wrong in ([{"match": "x"}], [{"match": "x", "policy": "maybe"}],
                  [{"match": "x", "policy": DENY, "format": "regex"}], {}, 1):
        with pytest.raises(qmp.QmpError):
            put(daemon, "rules", wrong)
    assert len(get(daemon, "rules")) == 2
    many = [{**rule, "match": f"CN={i}", "format": "exact"} for i in range(100)]
    put(daemon, "rules", many)
    assert get(daemon, "rules") == many
    put(daemon, "rules", [])
    assert get(daemon, "rules") == []
    daemon.cmd("object-del", id="a0")


def test_list_has_no_rules_by_default(daemon):
    add(daemon, "authz-list")
    assert get(daemon, "rules") == []


def test_kinds_are_listed(daemon):
    names = {kind["name"] for kind in daemon.cmd(
        "qom-list-types", implements="authz")}
    assert {"authz-simple", "authz-list", "authz-pam"} <= names
    assert names & {"authz-listfile", "authz-list-file"}
    assert daemon.error("qom-get", path="/objects/no",
                        property="rules").cls == "DeviceNotFound"


@pytest.mark.ours("built with libpam or not")
def test_pam(daemon):
    try:
        add(daemon, "authz-pam", service="blockferry")
    except qmp.QmpError as error:
        assert "not available in this build" in error.desc
        return
    assert get(daemon, "service") == "blockferry"
    put(daemon, "service", "other")
    assert get(daemon, "service") == "other"
    assert "service" in daemon.error("qom-set", path="a0", property="service",
                                     value="").desc
    assert "must be set" in refusal(daemon, "authz-pam", ident="a1", service="")


# Files. The reference cannot make such objects over QMP.

pytest_ours = pytest.mark.ours("the reference's schema has another name")


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def replace(path, value):
    temporary = path.with_suffix(".new")
    write(temporary, value)
    os.rename(temporary, path)


@pytest_ours
@pytest.mark.parametrize("kind", ("authz-listfile", "authz-list-file"))
def test_list_file(daemon, box, kind):
    path = box / "rules.json"
    write(path, {"policy": ALLOW})
    add(daemon, kind, filename=str(path))
    assert get(daemon, "filename") == str(path)
    assert get(daemon, "refresh") is True
    put(daemon, "refresh", True)
    with pytest.raises(qmp.QmpError) as caught:
        put(daemon, "filename", "/elsewhere")
    assert "delete the object and add it again" in caught.value.desc
    daemon.cmd("object-del", id="a0")
    add(daemon, kind, filename=str(path), refresh=False)


@pytest_ours
def test_list_file_that_cannot_be_used(daemon, box):
    path = box / "rules.json"
    desc = refusal(daemon, "authz-listfile", filename=str(path))
    assert desc.startswith(f"Unable to read '{path}': No such file")
    for text, phrase in (("", "premature EOI"), ("{", "premature EOI"),
                         ("[]", "must contain a JSON object"),
                         ("{} {}", "at most one"), ("{'polici': 'deny'}", "polici"),
                         ("{\"policy\": \"x\"}", "policy"),
                         ("{\"rules\": [{}]}", "match"), ("\0{}", "NUL"),
                         ("[" * 5000, "JSON")):
        write(path, text)
        desc = refusal(daemon, "authz-listfile", filename=str(path))
        assert phrase in desc and str(path) in desc, (text, desc)
    os.unlink(path)
    os.mkfifo(path)
    assert "not a regular file" in refusal(daemon, "authz-listfile",
                                           filename=str(path))
    assert "absolute" in refusal(daemon, "authz-listfile", filename="rules.json")
    os.unlink(path)
    path.write_bytes(b" " * ((16 << 20) + 1))
    assert "16 MiB" in refusal(daemon, "authz-listfile", filename=str(path))
    assert not daemon.cmd("qom-list", path="/objects")[3:]


@pytest_ours
def test_list_file_is_followed(daemon, box):
    """Written, replaced, spoilt, taken away and put back; then not at all."""
    path = box / "rules.json"
    seen = 0

    def wait_read(rules):
        nonlocal seen
        seen += 1
        pattern = rf"(?s)(was read again.*?){{{seen - 1}}}was read again, {rules} "
        daemon.wait_log(pattern)

    def wait_bad(pattern):
        daemon.wait_log(f"'a0' denies everybody until.*{pattern}")

    rule = {"match": "x", "policy": ALLOW}
    write(path, {})
    add(daemon, "authz-listfile", filename=str(path))
    replace(path, {"rules": [rule]})
    wait_read(1)
    replace(path, "nonsense")
    wait_bad("JSON parse error")
    replace(path, {"rules": [rule, rule]})
    wait_read(2)
    os.unlink(path)
    wait_bad("No such file")
    replace(path, {"rules": [rule] * 3})
    wait_read(3)
    daemon.cmd("object-del", id="a0")
    replace(path, {"rules": [rule] * 4})
    daemon.cmd("query-version")
    assert "again, 4" not in daemon.log()


@pytest_ours
def test_list_file_behind_links_is_followed(daemon, box):
    """As container platforms mount them: the link above is replaced."""
    for name, rules in (("v1", 1), ("v2", 2)):
        (box / name).mkdir()
        write(box / name / "rules.json", {
            "rules": [{"match": "x", "policy": ALLOW}] * rules})
    os.symlink("v1", box / "current")
    os.symlink("current/rules.json", box / "rules.json")
    add(daemon, "authz-listfile", filename=str(box / "rules.json"))
    os.symlink("v2", box / "current.new")
    os.rename(box / "current.new", box / "current")
    daemon.wait_log("was read again, 2 rules")
    write(box / "v2" / "rules.json", {})
    daemon.wait_log("was read again, 0 rules")


@pytest_ours
def test_list_file_in_a_directory_that_goes_and_comes(daemon, box):
    (box / "d").mkdir()
    path = box / "d" / "rules.json"
    write(path, {})
    add(daemon, "authz-listfile", filename=str(path))
    os.rename(box / "d", box / "e")
    daemon.wait_log("denies everybody")
    (box / "d").mkdir()
    write(path, {"rules": [{"match": "x", "policy": ALLOW}]})
    daemon.wait_log("was read again, 1 rules")


@pytest_ours
def test_list_file_goes_while_it_is_read(daemon, box):
    path = box / "rules.json"
    rule = {"match": "x", "policy": ALLOW}
    for number in range(30):
        replace(path, {"rules": [rule] * 1000})
        add(daemon, "authz-listfile", filename=str(path))
        replace(path, {"rules": [rule] * 1001} if number % 2 else "{")
        daemon.cmd("object-del", id="a0")
    assert daemon.error("object-del", id="a0")


def test_objects_on_the_command_line(daemons):
    daemon = daemons("--object", "authz-simple,id=a0,identity=C=GB,,O=x,,CN=y",
                     "--object", '{"qom-type": "authz-list", "id": "a1", '
                     '"rules": [{"match": "CN=*", "policy": "allow", '
                     '"format": "glob"}]}')
    assert get(daemon, "identity") == "C=GB,O=x,CN=y"
    assert get(daemon, "rules", "a1")[0]["match"] == "CN=*"
