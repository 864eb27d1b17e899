# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs, as commands see them."""
import pytest


def test_no_jobs_without_commands_that_make_them(daemon):
    assert daemon.cmd("query-jobs") == []
    assert daemon.cmd("query-block-jobs") == []


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "complete",
                                  "finalize", "dismiss"])
def test_unknown_jobs_are_refused_by_each_verb(daemon, verb):
    error = daemon.error(f"job-{verb}", id="nope")
    assert (error.cls, error.desc) == ("GenericError", "Job not found")
    name = "id" if verb in ("finalize", "dismiss") else "device"
    error = daemon.error(f"block-job-{verb}", **{name: "nope"})
    assert (error.cls, error.desc) == ("DeviceNotActive",
                                       "Block job 'nope' not found")


def test_unknown_jobs_have_no_speed(daemon):
    error = daemon.error("block-job-set-speed", device="nope", speed=-1)
    assert error.cls == "DeviceNotActive"


@pytest.mark.ours("block-job-change is newer than the reference")
def test_unknown_jobs_do_not_change(daemon):
    error = daemon.error("block-job-change", id="nope", type="mirror",
                         copy_mode="write-blocking")
    assert error.cls == "DeviceNotActive"
