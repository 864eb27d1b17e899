# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/check-report.py: what it counts, and what it must not overlook."""
import json
import pathlib
import subprocess

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts/check-report.py"
UNIT = "blockferry.blockferry:unit / error"


def report(box, cases, result, stderr=""):
    """The output for one program with these cases and this result."""
    rows = "".join(f'<testcase name="{name}" classname="{UNIT}">{inside}'
                   "</testcase>" for name, inside in cases)
    (box / "unit.junit.xml").write_text(
        f'<testsuites><testsuite name="{UNIT}">{rows}</testsuite></testsuites>')
    (box / "unit.json").write_text(json.dumps({
        "name": "blockferry:unit / error", "result": result, "stdout": "",
        "stderr": stderr}) + "\n")
    done = subprocess.run(
        ["/usr/bin/python3", SCRIPT, f"unit={box / 'unit.junit.xml'}"],
        capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_each_case_counts(tmp_path):
    cases = [("1 /core/error/a", ""), ("2 /core/error/b", "")]
    assert report(tmp_path, cases, "OK") == (0, "2 passed, 0 failed\n")


def test_failed_case_counts_once(tmp_path):
    cases = [("1 /core/error/a", ""), ("2 /core/error/b", "<failure/>")]
    status, output = report(tmp_path, cases, "FAIL")
    assert status == 1
    assert "FAILED unit:error:/core/error/b" in output
    assert output.endswith("1 passed, 1 failed\n")


def test_program_that_breaks_off_is_a_failure(tmp_path):
    status, output = report(tmp_path, [("1 /core/error/a", "")], "ERROR",
                            "killed by signal 6\n")
    assert status == 1
    assert "FAILED unit:error: ERROR | killed by signal 6\n" in output
    assert output.endswith("1 passed, 1 failed\n")


def test_missing_result_is_a_failure():
    done = subprocess.run(["/usr/bin/python3", SCRIPT, "unit=/no/such.xml"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAILED unit: gave no result" in done.stdout
