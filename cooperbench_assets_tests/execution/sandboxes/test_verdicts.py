"""Verdicts of the process sandbox: the same under every isolation, and what ends a run from outside is no verdict."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.failures import classify
from cooperbench_assets.execution.infra_errors import (
    InfrastructureError,
    classify_test_run,
    from_exception,
)
from cooperbench_assets.execution.sandboxes.base import RUNNER, SandboxOptions
from cooperbench_assets.execution.sandboxes.process import bubblewrap
from cooperbench_assets.execution.sandboxes.process.backend import ProcessBackend
from cooperbench_assets_tests.execution.sandboxing import (
    ISOLATIONS,
    Evaluations,
    evaluations,
    isolation,
    nothing_is_left,
    toy,
)
from cooperbench_assets_tests.execution.toy import Toy
from cooperbench_assets_tests.services import missing

__all__ = ["evaluations", "isolation", "nothing_is_left", "toy"]


# Verdicts, side by side.


def test_a_right_patch_passes(evaluations: Evaluations, toy: Toy) -> None:
    result = evaluations.solo(toy.solo_gold(1, 2))
    assert result["both_passed"] is True
    assert result["error"] is None


def test_a_patch_for_one_feature_passes_one(evaluations: Evaluations, toy: Toy) -> None:
    result = evaluations.solo(toy.gold(2))
    assert (result["feature1"]["passed"], result["feature2"]["passed"]) == (False, True)
    assert "1 failed" in result["feature1"]["test_output"]
    assert result["error"] is None


def test_an_empty_patch_fails_and_is_no_error(evaluations: Evaluations) -> None:
    result = evaluations.solo("")
    assert (result["both_passed"], result["error"]) == (False, None)


def test_two_patches_that_merge_are_tested_merged(evaluations: Evaluations, toy: Toy) -> None:
    result = evaluations.merged(toy.gold(1), toy.gold(2))
    assert (result["merge"]["status"], result["both_passed"]) == ("clean", True)
    assert result["apply_status"] == {"agent1": "applied", "agent2": "applied"}


def test_patches_of_one_line_conflict(evaluations: Evaluations, toy: Toy) -> None:
    result = evaluations.merged(toy.gold(3), toy.gold(4), (3, 4))
    assert (result["merge"]["status"], result["both_passed"], result["error"]) == ("conflicts", False, None)


def test_identical_patches_are_not_merged(evaluations: Evaluations, toy: Toy) -> None:
    both = toy.patch(3, 'return "three and four"')
    result = evaluations.merged(both, both, (3, 4))
    assert (result["merge"]["status"], result["both_passed"]) == ("identical", True)


def test_a_patch_that_does_not_apply_is_missing_input(evaluations: Evaluations, toy: Toy) -> None:
    broken = toy.gold(2).replace("return None", "return Nothing")
    result = evaluations.merged(toy.gold(1), broken)
    assert (result["merge"]["status"], result["apply_status"]["agent2"]) == ("missing_input", "failed")
    assert (result["both_passed"], result["error"]) == (False, None)


def test_the_first_agent_s_patch_alone_can_rescue_a_conflict(evaluations: Evaluations, toy: Toy) -> None:
    result = evaluations.merged(toy.patch(3, 'return "three and four"'), toy.gold(4), (3, 4))
    assert (result["merge"]["strategy"], result["both_passed"]) == ("solo-agent1", True)


def test_an_empty_patch_beside_a_right_one_merges_and_fails(evaluations: Evaluations, toy: Toy) -> None:
    result = evaluations.merged("", toy.gold(2))
    assert (result["merge"]["status"], result["apply_status"]["agent1"]) == ("clean", "skipped")
    assert (result["feature1"]["passed"], result["feature2"]["passed"]) == (False, True)


def test_both_isolations_give_the_same_outputs(toy: Toy, tmp_path: Path) -> None:
    if why_not := bubblewrap.probe():
        missing("bubblewrap", why_not)
    where = "import os, sys\nprint(os.getcwd(), os.environ['HOME'], os.environ['TMPDIR'], sys.version_info[:2])"
    patch = toy.at_import(1, where)
    outputs = []
    for name in ISOLATIONS:
        result = Evaluations(toy, tmp_path, name).solo(patch)
        outputs.append((result["feature1"], result["feature2"]))
    assert outputs[0] == outputs[1]
    assert "/workspace/repo /tmp/home /tmp (" in outputs[0][0]["test_output"]


# What ends a test run from outside is an error with a family.


def test_a_test_that_hangs_is_ended_at_its_deadline_with_all_it_started(
    toy: Toy, tmp_path: Path, isolation: str
) -> None:
    # Nobody else's processes have this argument, and both isolations show it in the host's list.
    naptime = f"600.{os.getpid()}{time.monotonic_ns()}"
    hang = toy.at_import(1, f"import subprocess\nsubprocess.Popen(['sleep', '{naptime}'])\nwhile True: pass")
    result = Evaluations(toy, tmp_path, isolation, test_timeout_seconds=1.0).solo(hang)
    assert result["error"] == "[infra:test_timeout] Command timed out after 1 seconds"
    assert result["both_passed"] is False
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert naptime not in listed


@pytest.mark.slow
def test_upstream_s_own_timeout_holds_for_commands_and_for_tests_where_nothing_else_is_asked_for(
    toy: Toy, tmp_path: Path, isolation: str
) -> None:
    test = f"# {RUNNER}\nsleep 2; echo ended"
    for asked, seconds in ((None, 1), (1, 600)):
        backend = ProcessBackend(toy.task, tmp_path, SandboxOptions(isolation=isolation, test_timeout_seconds=asked))
        place = backend.create_sandbox("any", timeout=seconds)
        with pytest.raises(InfrastructureError, match="timed out after 1 seconds"):
            place.exec("bash", "-c", test)
        place.terminate()
    # What is asked for stands above it, as it does in a container.
    backend = ProcessBackend(toy.task, tmp_path, SandboxOptions(isolation=isolation, test_timeout_seconds=60))
    place = backend.create_sandbox("any", timeout=1)
    assert place.exec("bash", "-c", test).stdout_read() == "ended\n"
    with pytest.raises(InfrastructureError, match="timed out after 1 seconds"):
        place.exec("bash", "-c", "sleep 60")
    place.terminate()


@pytest.mark.parametrize(
    ("statement", "family"),
    [
        ("import os\nos.kill(os.getpid(), 9)", "tests_aborted"),
        ("import os\nos.kill(os.getppid(), 9)", "tests_aborted"),
        ("import os\nos.kill(os.getppid(), 15)\nimport time; time.sleep(1)", "tests_aborted"),
        ("import errno\nraise OSError(errno.ENOSPC, 'No space left on device')", "tests_aborted"),
        ("raise SystemExit('pip: Temporary failure in name resolution')", "network"),
    ],
)
def test_a_test_run_that_infrastructure_ended_is_an_error_and_no_failure(
    evaluations: Evaluations, toy: Toy, statement: str, family: str
) -> None:
    result = evaluations.solo(toy.at_import(1, statement))
    assert str(result["error"]).startswith(f"[infra:{family}] ")


def test_a_crash_of_the_tested_code_is_its_own_failure(evaluations: Evaluations, toy: Toy) -> None:
    result = evaluations.solo(toy.at_import(1, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"))
    assert result["error"] is None
    assert result["both_passed"] is False


@pytest.mark.parametrize("statement", ["while True: pass", "import os; os.kill(os.getppid(), 9)"])
def test_a_conflict_stands_though_the_tests_of_one_patch_alone_hang_or_are_killed(
    toy: Toy, tmp_path: Path, isolation: str, statement: str
) -> None:
    """A conflict makes upstream test the first agent's patch alone: its end says nothing of the merge."""
    patch = toy.at_import(3, statement)
    result = Evaluations(toy, tmp_path, isolation, test_timeout_seconds=1.0).merged(patch, toy.gold(4), (3, 4))
    assert (result["error"], result["both_passed"]) == (None, False)
    assert (result["merge"]["status"], result["merge"]["strategy"]) == ("conflicts", "naive")


def test_a_patch_that_does_not_apply_stands_though_the_tests_of_the_other_alone_hang(
    toy: Toy, tmp_path: Path, isolation: str
) -> None:
    broken = toy.gold(2).replace("return None", "return Nothing")
    hang = toy.at_import(1, "while True: pass")
    result = Evaluations(toy, tmp_path, isolation, test_timeout_seconds=1.0).merged(hang, broken)
    assert (result["error"], result["merge"]["status"]) == (None, "missing_input")


def test_infrastructure_errors_of_the_tests_of_one_patch_alone_are_errors_all_the_same(
    evaluations: Evaluations, toy: Toy
) -> None:
    """The first agent's patch alone may pass, which upstream counts: another try can tell."""
    patch = toy.at_import(3, "raise SystemExit('pip: Temporary failure in name resolution')")
    assert str(evaluations.merged(patch, toy.gold(4), (3, 4))["error"]).startswith("[infra:network]")


def test_two_equal_patches_that_conflict_with_nothing_are_judged_by_their_tests(
    toy: Toy, tmp_path: Path, isolation: str
) -> None:
    # Its line count is wrong, so that it does not apply at first; upstream counts anew.
    hang = toy.at_import(1, "while True: pass").replace("@@ -1,2 ", "@@ -1,7 ")
    result = Evaluations(toy, tmp_path, isolation, test_timeout_seconds=1.0).merged(hang, hang)
    assert result["error"] == "[infra:test_timeout] Command timed out after 1 seconds"


@pytest.mark.parametrize("words", ["No space left on device", "runner.sh: line 9: 12 Killed  python", "out of memory"])
def test_tests_that_failed_are_a_failure_whatever_the_tested_code_prints(
    evaluations: Evaluations, toy: Toy, words: str
) -> None:
    prints = f"import atexit\nprint({words!r})\natexit.register(print, {words!r})\nreturn 7"
    result = evaluations.solo(toy.patch(1, prints) + toy.gold(2))
    assert (result["error"], result["feature1"]["passed"], result["feature2"]["passed"]) == (None, False, True)
    assert result["feature1"]["test_output"].count(words) == 2


WRITES = """\
try:
    open("big", "wb").write(bytes(10**8))
except OSError as error:
    return str(error)
return 1
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB; only root can make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_is_infrastructure_though_the_tests_go_on_to_their_summary(
    toy: Toy, tmp_path: Path, small_disk: Path, isolation: str
) -> None:
    patch = toy.patch(1, WRITES) + toy.gold(2)
    assert Evaluations(toy, tmp_path, isolation).solo(patch)["both_passed"] is True
    result = Evaluations(toy, small_disk, isolation).solo(patch)
    assert str(result["error"]).startswith("[infra:disk] test run ended with exit code 1")
    assert "1 failed" in str(result["error"])


def test_a_pair_that_failed_already_fails_whatever_ends_its_second_run(
    toy: Toy, tmp_path: Path, isolation: str
) -> None:
    hang = toy.patch(1, "return 'wrong'") + toy.at_import(2, "while True: pass")
    result = Evaluations(toy, tmp_path, isolation, test_timeout_seconds=1.0).solo(hang)
    assert (result["error"], result["both_passed"]) == (None, False)
    assert result["feature2"]["test_output"].endswith("Command timed out after 1 seconds")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_while_the_sandbox_is_made_is_an_error_of_its_family(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    copy = tmp_path / "bin" / "cp"
    # The real text of a real failing write: cat to the device that is always full.
    copy.write_text("#!/bin/sh\nexec cat /etc/hostname > /dev/full\n")
    copy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{copy.parent}:{os.environ['PATH']}")
    with pytest.raises(InfrastructureError, match=r"^\[infra:disk\].*No space left on device"):
        ProcessBackend(toy.task, tmp_path, SandboxOptions()).create_sandbox("any")


def test_a_task_without_its_parts_is_one_error_that_names_them(toy: Toy, tmp_path: Path) -> None:
    bare = tmp_path / "task7"
    bare.mkdir()
    with pytest.raises(InfrastructureError, match=rf"needs repo/ .* and runner\.sh beside the task; {bare}/repo"):
        ProcessBackend(bare, tmp_path, SandboxOptions()).create_sandbox("any")


# Reading what ended a test run.


def test_the_runner_s_killed_program_is_seen_though_the_runner_goes_on(evaluations: Evaluations, toy: Toy) -> None:
    """Solo records keep no exit code, and a runner may end with its own: the shell's words tell."""
    assert classify_test_run(1, "runner.sh: line 9: 4242 Killed   python3 tests.py\n") is not None
    assert classify_test_run(1, "runner.sh: line 9: 4242 Killed   python3\n3 passed, 1 failed in 2s\n") is None


@given(st.text(max_size=200))
def test_a_run_that_ended_well_is_never_an_infrastructure_error(output: str) -> None:
    assert classify_test_run(0, output) is None


@given(st.sampled_from(["oom", "test_timeout", "disk"]), st.text(max_size=50).filter(lambda text: text == text.strip()))
def test_the_prefix_is_read_back(family: str, text: str) -> None:
    error = InfrastructureError(family, text)
    found = classify(f"RuntimeError: {error}")
    assert found is not None
    assert (found.family, error.text) == (family, text)
    assert from_exception(error) is error


def test_only_a_full_disk_is_infrastructure_among_the_system_s_errors() -> None:
    import errno

    assert str(from_exception(OSError(errno.ENOSPC, "No space left on device", "x"))).startswith("[infra:disk]")
    assert from_exception(OSError(errno.EACCES, "Permission denied")) is None
    assert from_exception(ValueError("No space left on device")) is None
