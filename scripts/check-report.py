#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds up the results of scripts/check and prints the final line.

Reads JUnit files (of meson and of pytest) given as STAGE=FILE. A stage whose
file is missing counts as one failure, and so does a skipped case that
tests/skips does not name. The exit status is 0 if nothing failed.

Programs that report their cases one by one (TAP) may break off, or fail at
their end, without a case that failed. Meson tells that only in its log, which
lies beside its JUnit file.
"""
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ET

SKIPS = pathlib.Path(__file__).resolve().parent.parent / "tests" / "skips"


def allowed_skips():
    """The patterns of tests/skips, as (pattern, regular expression)."""
    rules = []
    for number, line in enumerate(SKIPS.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, _, reason = line.partition("  ")
        if not reason.strip():
            sys.exit(f"tests/skips:{number}: '{pattern}' has no reason")
        text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
        rules.append((pattern, re.compile(text)))
    return rules


def case_id(stage, case):
    """STAGE:TEST or STAGE:PROGRAM:TEST for meson, PLACE/FILE::TEST for pytest.

    A stage that repeats another ("functional:masked") is put in front.
    """
    name = case.get("name")
    if " / " in name:  # meson: "project:suite / test"
        return f"{stage}:{name.split(' / ', 1)[1]}"
    where = case.get("classname", "")
    if " / " in where:  # meson, TAP: "project.project:suite / program"
        test = re.sub(r"^[0-9]+ ", "", name)
        return f"{stage}:{where.split(' / ', 1)[1]}:{test}"
    where = where.replace(".", "/")
    where = re.sub(r"^tests/", "", where)
    return f"{stage}:{where}::{name}" if ":" in stage else f"{where}::{name}"


def last_lines(case, output):
    """What a failed program said at its end; meson gives no message."""
    text = (case.findtext("system-out") or "") + output
    text += case.findtext("system-err") or ""
    lines = [line for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-2:])


def broken_programs(stage, path, failed):
    """Yields the programs of meson that failed without a failed case."""
    log = pathlib.Path(path.removesuffix(".junit.xml") + ".json")
    if not path.endswith(".junit.xml") or not log.exists():
        return
    for line in log.read_text().splitlines():
        test = json.loads(line)
        name = f"{stage}:{test['name'].split(' / ', 1)[-1]}"
        if test["result"] in ("OK", "SKIP", "EXPECTEDFAIL") or any(
                f == name or f.startswith(name + ":") for f in failed):
            continue
        text = f"{test.get('stdout', '')}\n{test.get('stderr', '')}"
        lines = [line for line in text.splitlines() if line.strip()]
        yield name, "failed", " | ".join([test["result"], *lines[-2:]])[:300]


def cases(stage, path):
    """Yields (id, 'passed' | 'failed' | 'skipped', detail)."""
    failed = set()
    for case in junit_cases(stage, path):
        if case[1] == "failed":
            failed.add(case[0])
        yield case
    yield from broken_programs(stage, path, failed)


def junit_cases(stage, path):
    for suite in ET.parse(path).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            name = case_id(stage, case)
            bad = case.find("failure")
            bad = case.find("error") if bad is None else bad
            skip = case.find("skipped")
            if bad is not None:
                text = bad.get("message") or bad.text or ""
                output = suite.findtext("system-out") or ""
                text = text.strip() or last_lines(case, output)
                yield name, "failed", text[:300]
            elif skip is not None:
                yield name, "skipped", (skip.get("message") or "")[:300]
            else:
                yield name, "passed", ""


def main():
    rules, used = allowed_skips(), set()
    passed, failures, skipped = 0, [], 0
    for argument in sys.argv[1:]:
        stage, _, path = argument.partition("=")
        if not pathlib.Path(path).exists():
            failures.append((stage, "gave no result"))
            continue
        for name, outcome, detail in cases(stage, path):
            rule = next((p for p, e in rules if e.fullmatch(name)), None)
            if outcome == "passed":
                passed += 1
            elif outcome == "failed":
                failures.append((name, detail))
            elif rule is None:
                failures.append((name, f"skipped: {detail}; tests/skips does "
                                       "not name it"))
            else:
                skipped += 1
                used.add(rule)
    if skipped:
        print(f"{skipped} skipped, as tests/skips allows")
    for name, detail in failures:
        print(f"FAILED {name}: {detail}")
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


sys.exit(main())
