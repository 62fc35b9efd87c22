"""The process sandbox: the same verdicts under every isolation, and what strikes a test run is never graded."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.execution.infrastructure import (
    InfrastructureError,
    from_exception,
    look_at_test_run,
    read_prefix,
)
from cooperbench_assets.execution.processes import is_alive
from cooperbench_assets.execution.sandboxes import bubblewrap
from cooperbench_assets.execution.sandboxes.base import SandboxOptions
from cooperbench_assets.execution.sandboxes.process import ProcessBackend, ProcessSandbox, choose_isolation
from cooperbench_assets.execution.sandboxes.rewriting import Rewriting
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy, fingerprint, make_toy
from cooperbench_assets_tests.services import missing

ISOLATIONS = ("bubblewrap", "subprocess")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(params=ISOLATIONS)
def isolation(request: pytest.FixtureRequest) -> str:
    if request.param == "bubblewrap" and (why_not := bubblewrap.probe()):
        missing("bubblewrap", why_not)
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.glob("**/sandbox-*"))


@pytest.fixture(scope="module")
def place(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSandbox]:
    """One sandbox for tests that ask often."""
    place = sandbox(toy, tmp_path_factory.mktemp("place"), "subprocess")
    yield place
    place.terminate()


class Evaluations:
    """Upstream's own functions, with our backend where they look for one."""

    def __init__(self, toy: Toy, scratch: Path, isolation: str, **options: Any) -> None:
        self.toy = toy
        self.backend = ProcessBackend(toy.task, scratch, SandboxOptions(isolation=isolation, **options))

    def solo(self, patch: str, features: tuple[int, int] = (1, 2)) -> dict[str, Any]:
        return self._call("test_solo", features, patch=patch)

    def merged(self, patch1: str, patch2: str, features: tuple[int, int] = (1, 2)) -> dict[str, Any]:
        return self._call("test_merged", features, patch1=patch1, patch2=patch2)

    def _call(self, name: str, features: tuple[int, int], **patches: str) -> dict[str, Any]:
        from cooperbench.eval import sandbox as upstream

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(upstream, "get_backend", lambda name: self.backend)
            result: dict[str, Any] = getattr(upstream, name)(
                REPO, TASK, *features, backend="process", dataset_dir=self.toy.dataset, **patches
            )
        return result


@pytest.fixture
def evaluations(toy: Toy, tmp_path: Path, isolation: str) -> Evaluations:
    return Evaluations(toy, tmp_path, isolation)


def sandbox(toy: Toy, scratch: Path, isolation: str, **options: Any) -> ProcessSandbox:
    backend = ProcessBackend(toy.task, scratch, SandboxOptions(isolation=isolation, **options))
    return backend.create_sandbox("any/image:task1")


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


# What strikes a test run is an error with a family.


def test_a_test_that_hangs_is_ended_at_its_deadline_with_all_it_started(
    toy: Toy, tmp_path: Path, isolation: str
) -> None:
    # Nobody else's processes have this argument, and both isolations show it in the host's list.
    naptime = f"600.{os.getpid()}{time.monotonic_ns()}"
    hang = toy.at_import(1, f"import subprocess\nsubprocess.Popen(['sleep', '{naptime}'])\nwhile True: pass")
    began = time.monotonic()
    result = Evaluations(toy, tmp_path, isolation, test_timeout_seconds=1.0).solo(hang)
    assert result["error"] == "[infra:test_timeout] Command timed out after 1 seconds"
    assert result["both_passed"] is False
    assert time.monotonic() - began < 10
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert naptime not in listed


def test_upstream_s_own_timeout_is_a_cap(toy: Toy, tmp_path: Path, isolation: str) -> None:
    backend = ProcessBackend(toy.task, tmp_path, SandboxOptions(isolation=isolation, test_timeout_seconds=900))
    place = backend.create_sandbox("any", timeout=1)
    with pytest.raises(InfrastructureError, match="timed out after 1 seconds"):
        place.exec("bash", "-c", "sleep 60")
    place.terminate()


@pytest.mark.parametrize(
    ("statement", "family"),
    [
        ("import os\nos.kill(os.getpid(), 9)", "oom"),
        ("import os\nos.kill(os.getppid(), 9)", "oom"),
        ("import os\nos.kill(os.getppid(), 15)\nimport time; time.sleep(1)", "container_died"),
        ("import errno\nraise OSError(errno.ENOSPC, 'No space left on device')", "disk"),
        ("raise SystemExit('pip: Temporary failure in name resolution')", "network"),
    ],
)
def test_a_struck_test_run_is_an_error_and_no_failure(
    evaluations: Evaluations, toy: Toy, statement: str, family: str
) -> None:
    result = evaluations.solo(toy.at_import(1, statement))
    assert str(result["error"]).startswith(f"[infra:{family}] ")


def test_a_crash_of_the_tested_code_is_its_own_failure(evaluations: Evaluations, toy: Toy) -> None:
    result = evaluations.solo(toy.at_import(1, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"))
    assert result["error"] is None
    assert result["both_passed"] is False


def test_the_error_reaches_eval_json_through_the_fallback_too(toy: Toy, tmp_path: Path, isolation: str) -> None:
    """A conflict makes upstream test one patch alone; what strikes there is no failure either."""
    hang = toy.at_import(3, "while True: pass")
    result = Evaluations(toy, tmp_path, isolation, test_timeout_seconds=1.0).merged(hang, toy.gold(4), (3, 4))
    assert result["error"] == "[infra:test_timeout] Command timed out after 1 seconds"


def test_a_pair_that_failed_already_fails_whatever_strikes_its_second_run(
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


def test_an_isolation_that_is_none_is_one_error() -> None:
    with pytest.raises(
        InfrastructureError, match="isolation 'jail' is unknown; there are auto, bubblewrap, subprocess"
    ):
        choose_isolation("jail")


def test_a_missing_bubblewrap_is_said_and_refused_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "probe", lambda: "bubblewrap (the program bwrap) is not installed")
    assert choose_isolation() == ("subprocess", "bubblewrap (the program bwrap) is not installed")
    with pytest.raises(InfrastructureError, match=r"asked for, but bubblewrap .* is not installed"):
        choose_isolation("bubblewrap")


def test_the_probe_finds_out_by_trying(tmp_path: Path) -> None:
    """A program of that name that does not isolate is no isolation; asked in a process with another PATH."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    code = "from cooperbench_assets.execution.sandboxes import bubblewrap; print(bubblewrap.probe())"
    for path, said in (
        (f"{tmp_path}:{os.environ['PATH']}", "does not work here: bwrap: No permissions to create new namespace"),
        (str(tmp_path / "nothing"), "(the program bwrap) is not installed"),
    ):
        asked = [sys.executable, "-c", code]
        done = subprocess.run(asked, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True)
        assert said in done.stdout


@pytest.mark.parametrize(
    "content", [{"isolaton": "subprocess"}, {"test_timeout_seconds": 0}, {"test_timeout_seconds": float("nan")}]
)
def test_wrong_options_are_one_error(content: dict[str, Any]) -> None:
    with pytest.raises(InfrastructureError, match=r"^\[infra:configuration\]"):
        SandboxOptions.read(content)


# What a sandbox keeps apart.


def test_tests_cannot_change_the_dataset(toy: Toy, tmp_path: Path, isolation: str) -> None:
    before = fingerprint(toy.dataset)
    place = sandbox(toy, tmp_path, isolation)
    place.exec(
        "bash", "-c", "cd /workspace/repo && chmod -R u+w .git && for f in $(find . -type f); do echo x > $f; done"
    )
    place.exec("bash", "-c", "echo x > /workspace/repo/one.py; rm -rf /workspace/repo/.git; echo x > /patches/p")
    place.terminate()
    assert fingerprint(toy.dataset) == before


def test_variables_of_the_harness_are_not_seen_by_tests(
    toy: Toy, tmp_path: Path, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_API_KEY", "canary-51966")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    place = sandbox(toy, tmp_path, isolation, environment={"ADDED": "yes"})
    seen = place.exec("bash", "-c", "env; cat /proc/self/environ | tr '\\0' '\\n'").stdout_read()
    place.terminate()
    assert "canary-51966" not in seen
    assert "GIT_DIR" not in seen
    for expected in (
        "ADDED=yes",
        "HOME=/tmp/home",
        "TZ=UTC",
        "PYTHONDONTWRITEBYTECODE=1",
        "GIT_CONFIG_GLOBAL=/dev/null",
    ):
        assert expected in seen.splitlines()


def test_settings_of_the_host_s_git_do_not_reach_a_sandbox(
    toy: Toy, tmp_path: Path, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = host\n[core]\n\thooksPath = /nowhere\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    place = sandbox(toy, tmp_path, isolation)
    listed = place.exec("bash", "-c", "cd /workspace/repo && git config --list --show-scope").stdout_read()
    place.terminate()
    assert "host" not in listed
    assert "hookspath" not in listed
    assert "safe.directory=*" in listed


def test_bubblewrap_shows_programs_and_nothing_else_of_the_host(toy: Toy, tmp_path: Path) -> None:
    if why_not := bubblewrap.probe():
        missing("bubblewrap", why_not)
    place = sandbox(toy, tmp_path, "bubblewrap")
    look = (
        f"ls / && test ! -e {toy.dataset} && test ! -e ~root/.bashrc && ! touch /usr/x /etc/x 2>/dev/null && echo alone"
    )
    done = place.exec("bash", "-c", look)
    listed = place.exec("bash", "-c", "ls /usr/local/bin/ /run 2>/dev/null; ps -e | wc -l").stdout_read()
    place.terminate()
    assert done.stdout_read().endswith("alone\n"), done
    assert {"workspace", "patches", "tmp", "usr"} <= set(done.stdout_read().split())
    assert "runner.sh" in listed


def test_programs_beside_the_runner_still_run_under_bubblewrap(toy: Toy, tmp_path: Path) -> None:
    if why_not := bubblewrap.probe():
        missing("bubblewrap", why_not)
    programs = [path for path in Path("/usr/local/bin").iterdir() if os.access(path, os.X_OK)]
    place = sandbox(toy, tmp_path, "bubblewrap")
    done = place.exec("bash", "-c", "for p in /usr/local/bin/*; do test -x $p && echo $p; done")
    place.terminate()
    inside = set(done.stdout_read().split())
    # A link to a place that a sandbox does not see is the one thing that cannot be there.
    assert {str(path) for path in programs if str(path.resolve()).startswith("/usr/")} - inside <= {
        "/usr/local/bin/runner.sh"
    }


def test_no_network_is_none_under_bubblewrap(toy: Toy, tmp_path: Path) -> None:
    if why_not := bubblewrap.probe():
        missing("bubblewrap", why_not)
    counts = []
    for network in (True, False):
        place = sandbox(toy, tmp_path, "bubblewrap", network=network)
        counts.append(len(place.exec("cat", "/proc/net/dev").stdout_read().splitlines()))
        place.terminate()
    assert counts[1] == 3
    assert counts[0] >= counts[1]


def test_a_process_in_the_background_neither_holds_a_command_nor_outlives_it(
    toy: Toy, tmp_path: Path, isolation: str
) -> None:
    place = sandbox(toy, tmp_path, isolation)
    began = time.monotonic()
    done = place.exec("bash", "-c", "sleep 600 & echo $! ; echo done")
    pid, said = done.stdout_read().split()
    place.terminate()
    assert said == "done"
    assert time.monotonic() - began < 5
    if isolation == "subprocess":
        assert not is_alive(int(pid))


def test_a_patch_of_megabytes_is_written_whole(toy: Toy, tmp_path: Path, isolation: str) -> None:
    big = "".join(f"    # {n:060d}\n" for n in range(40_000))
    patch = toy.patch(1, f"return 1\n{big}")
    assert len(patch) > 2 * 2**20
    result = Evaluations(toy, tmp_path, isolation).solo(patch)
    assert (result["feature1"]["passed"], result["error"]) == (True, None)


def test_a_link_that_tests_put_among_the_patches_is_not_followed(toy: Toy, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    place = sandbox(toy, tmp_path, "subprocess")
    place.exec("bash", "-c", f"ln -s {outside} /patches/next.patch")
    with pytest.raises(OSError, match="symbolic links"):
        place.exec("bash", "-c", "echo 'aGVsbG8=' | base64 -d > /patches/next.patch")
    place.terminate()
    assert not outside.exists()


def test_folders_without_rights_are_removed_too(toy: Toy, tmp_path: Path, isolation: str) -> None:
    place = sandbox(toy, tmp_path, isolation)
    place.exec("bash", "-c", "mkdir -p /workspace/a/b && touch /workspace/a/b/c && chmod 0 /workspace/a/b /workspace/a")
    place.terminate()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, as root can")
def test_folders_without_rights_are_removed_by_an_ordinary_user() -> None:
    nobody = 65534
    with tempfile.TemporaryDirectory(prefix="cooperbench-assets-test-") as folder:
        top = Path(folder)
        locked = top / "root" / "a" / "b"
        locked.mkdir(parents=True)
        (locked / "c").touch()
        (top / "root" / "link").symlink_to("/etc")
        for path in (top, *top.rglob("*")):
            os.chown(path, nobody, nobody, follow_symlinks=False)
        for path in (locked, locked.parent):
            path.chmod(0)
        code = (
            "import os, sys; from pathlib import Path;"
            "from cooperbench_assets.execution.sandboxes.process import _remove;"
            f"os.setgid({nobody}); os.setuid({nobody}); _remove(Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", code, str(top / "root")], check=True)
        assert list(top.iterdir()) == []


def test_a_path_with_blanks_and_quotes_works_without_isolation(toy: Toy, tmp_path: Path) -> None:
    scratch = tmp_path / "my project's (new) folder"
    scratch.mkdir()
    result = Evaluations(toy, scratch, "subprocess").solo(toy.solo_gold(1, 2))
    assert result["both_passed"] is True, result
    assert "project" not in result["feature1"]["test_output"]
    assert not list(scratch.iterdir())


def test_paths_are_rewritten_where_they_are_paths_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "runner.sh").write_text('cd "/workspace/repo"\n. /usr/local/bin/runner.sh.d\n')
    inward = Rewriting(tmp_path).inward
    at = str(tmp_path)
    assert (tmp_path / "runner.sh").read_text() == f'cd "{at}/workspace/repo"\n. /usr/local/bin/runner.sh.d\n'
    assert inward("bash /usr/local/bin/runner.sh a > /patches/b") == f"bash {at}/runner.sh a > {at}/patches/b"
    assert inward("PYTHONPATH=/workspace/repo:/workspace") == f"PYTHONPATH={at}/workspace/repo:{at}/workspace"
    for kept in ("/home/x/workspace", "$HOME/workspace", "${X}/patches/a", "/workspaces", "a/patches", "/patches.d"):
        assert inward(kept) == kept


@given(content=st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_what_upstream_writes_among_the_patches_is_there_as_it_is(
    toy: Toy, place: ProcessSandbox, content: str
) -> None:
    from cooperbench.eval.sandbox import _write_patch

    _write_patch(place, "some.patch", content)
    assert (place._root / "patches" / "some.patch").read_bytes() == content.encode()
    assert place._write_patch(("bash", "-c", "echo 'YQ==' | base64 -d > /patches/../x")) is False


# Reading what strikes.


def test_the_runner_s_killed_program_is_seen_though_the_runner_goes_on(evaluations: Evaluations, toy: Toy) -> None:
    """Solo records keep no exit code, and a runner may end with its own: the shell's words tell."""
    assert look_at_test_run(1, "runner.sh: line 9: 4242 Killed   python3 tests.py\n") is not None
    assert look_at_test_run(1, "runner.sh: line 9: 4242 Killed   python3\n3 passed, 1 failed in 2s\n") is None


@given(st.text(max_size=200))
def test_a_run_that_ended_well_is_never_struck(output: str) -> None:
    assert look_at_test_run(0, output) is None


@given(st.sampled_from(["oom", "test_timeout", "disk"]), st.text(max_size=50).filter(lambda text: text == text.strip()))
def test_the_prefix_is_read_back(family: str, text: str) -> None:
    error = InfrastructureError(family, text)
    assert read_prefix(f"RuntimeError: {error}") == (family, text)
    assert from_exception(error) is error


def test_only_a_full_disk_is_infrastructure_among_the_system_s_errors() -> None:
    import errno

    assert str(from_exception(OSError(errno.ENOSPC, "No space left on device", "x"))).startswith("[infra:disk]")
    assert from_exception(OSError(errno.EACCES, "Permission denied")) is None
    assert from_exception(ValueError("No space left on device")) is None


def test_the_copy_keeps_links_and_modes(toy: Toy, tmp_path: Path) -> None:
    place = sandbox(toy, tmp_path, "subprocess")
    copied = place._root / "workspace" / "repo"
    for path in toy.repo.rglob("*"):
        twin = copied / path.relative_to(toy.repo)
        assert stat.S_IMODE(twin.lstat().st_mode) == stat.S_IMODE(path.lstat().st_mode)
        assert not (path.is_file() and twin.samefile(path))
    assert place.exec("git", "-C", "/workspace/repo", "status", "--porcelain").stdout_read() == ""
    place.terminate()
