"""What the process sandbox keeps apart, under every isolation, and how an isolation is chosen."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.processes import is_alive
from cooperbench_assets.execution.sandboxes.base import SandboxOptions
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions
from cooperbench_assets.execution.sandboxes.process import bubblewrap
from cooperbench_assets.execution.sandboxes.process.backend import ProcessSandbox, choose_isolation
from cooperbench_assets.execution.sandboxes.process.path_rewriting import Rewriting
from cooperbench_assets_tests.execution.sandboxing import (
    Evaluations,
    isolation,
    nothing_is_left,
    sandbox,
    toy,
)
from cooperbench_assets_tests.execution.toy import Toy, fingerprint
from cooperbench_assets_tests.services import missing

__all__ = ["isolation", "nothing_is_left", "toy"]


@pytest.fixture(scope="module")
def place(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSandbox]:
    """One sandbox for tests that ask often."""
    place = sandbox(toy, tmp_path_factory.mktemp("place"), "subprocess")
    yield place
    place.terminate()


# Choosing an isolation, and options.


def test_an_isolation_that_is_none_is_one_error() -> None:
    with pytest.raises(
        InfrastructureError, match="isolation 'jail' is unknown; there are auto, bubblewrap, subprocess"
    ):
        choose_isolation("jail")


def test_a_missing_bubblewrap_is_said_and_refused_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "probe", lambda network: "bubblewrap (the program bwrap) is not installed")
    assert choose_isolation() == ("subprocess", "bubblewrap (the program bwrap) is not installed")
    with pytest.raises(InfrastructureError, match=r"asked for, but bubblewrap .* is not installed"):
        choose_isolation("bubblewrap")


def test_the_probe_finds_out_by_trying(tmp_path: Path) -> None:
    """A program of that name that does not isolate is no isolation; asked in a process with another PATH."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    code = "from cooperbench_assets.execution.sandboxes.process import bubblewrap; print(bubblewrap.probe())"
    for path, said in (
        (f"{tmp_path}:{os.environ['PATH']}", "does not work here: bwrap: No permissions to create new namespace"),
        (str(tmp_path / "nothing"), "(the program bwrap) is not installed"),
    ):
        asked = [sys.executable, "-c", code]
        done = subprocess.run(asked, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True)
        assert said in done.stdout


@pytest.mark.parametrize(("said", "tries"), [("", 1), ("no permission", 2)])
def test_isolation_that_works_without_network_is_not_tried_again_with_it(
    monkeypatch: pytest.MonkeyPatch, said: str, tries: int
) -> None:
    """Evaluations have network unless told otherwise, and their server has tried without it: none of them tries."""
    tried: list[bubblewrap.Bubblewrap] = []

    def attempt(sandbox: bubblewrap.Bubblewrap, _sign: Path) -> str:
        tried.append(sandbox)
        return said

    monkeypatch.setattr(bubblewrap, "_program", lambda: "bwrap")
    monkeypatch.setattr(bubblewrap, "_try", attempt)
    monkeypatch.setattr(bubblewrap, "probe", cache(bubblewrap.probe.__wrapped__))
    assert choose_isolation() == choose_isolation(network=True)
    assert len(tried) == tries


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"isolaton": "subprocess"}, "'isolaton' is unknown"),
        ({"test_timeout_seconds": 0}, "test_timeout_seconds is 0"),
        ({"test_timeout_seconds": float("nan")}, "test_timeout_seconds is nan"),
        ({"output_limit_mb": "much"}, "output_limit_mb is 'much'"),
    ],
)
@pytest.mark.parametrize("kind", [SandboxOptions, DockerOptions])
def test_wrong_options_are_one_error_whatever_the_sandbox(
    content: dict[str, Any], named: str, kind: type[SandboxOptions]
) -> None:
    with pytest.raises(InfrastructureError, match=named) as error:
        kind.read(content)
    assert error.value.family == "configuration"


def test_every_sandbox_takes_the_same_options_with_the_same_defaults() -> None:
    said = {"test_timeout_seconds": 900, "network": False, "output_limit_mb": 1, "labels": {"pair": "x"}}
    assert asdict(SandboxOptions.read(said)) == asdict(DockerOptions.read(said))
    assert asdict(SandboxOptions()) == asdict(DockerOptions())


@pytest.mark.parametrize("limit", ["memory_mb", "cpus", "pids"])
def test_a_limit_that_only_a_container_can_have_is_refused_without_one(limit: str) -> None:
    with pytest.raises(InfrastructureError, match=f"{limit} is a limit of containers, and execution: process has none"):
        SandboxOptions.read({limit: 100})
    assert getattr(DockerOptions.read({limit: 100}), limit) == 100


def test_long_output_is_cut_in_the_middle(toy: Toy, tmp_path: Path, isolation: str) -> None:
    place = sandbox(toy, tmp_path, isolation, output_limit_mb=0.01)
    said = place.exec("bash", "-c", "echo first; head -c 300000 /dev/zero | tr '\\0' x; echo last").stdout_read()
    place.terminate()
    assert said.startswith("first\nxxx")
    assert said.endswith("xxx" + "last\n")
    assert f"[… {300_011 - int(0.01 * 2**20)} bytes of output left out …]" in said


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


def test_loopback_works_where_there_is_no_network_and_is_not_this_machine_s(toy: Toy, tmp_path: Path) -> None:
    if why_not := bubblewrap.probe():
        missing("bubblewrap", why_not)
    talk = (
        "import socket, threading, sys\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(server.getsockname(), 5)\n"
        "server.accept()[0].sendall(b'hello')\n"
        "print(client.recv(5).decode())\n"
        "print(socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))) != 0)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as of_this_machine:
        port = str(of_this_machine.getsockname()[1])
        place = sandbox(toy, tmp_path, "bubblewrap", network=False)
        finished = place.exec("python3", "-S", "-c", talk, port)
        place.terminate()
    assert finished.stdout_read().split() == ["hello", "True"], finished.stderr_read()


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
    done = place.exec("bash", "-c", "sleep 3600 & echo $! ; echo done")  # Longer than a test may take.
    pid, said = done.stdout_read().split()
    place.terminate()
    assert said == "done"
    if isolation == "subprocess":
        deadline = time.monotonic() + 30  # It was killed, and is nobody's child: its end is seen a moment later.
        while is_alive(int(pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
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
    (folder,) = tmp_path.glob("sandbox-*")
    assert stat.S_IMODE((folder / "workspace" / "a").stat().st_mode) == 0
    place.terminate()
    assert list(tmp_path.iterdir()) == []


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
            "from cooperbench_assets.execution.sandboxes.process.backend import _remove;"
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


def test_the_copy_keeps_links_and_modes(toy: Toy, tmp_path: Path) -> None:
    place = sandbox(toy, tmp_path, "subprocess")
    copied = place._root / "workspace" / "repo"
    for path in toy.repo.rglob("*"):
        twin = copied / path.relative_to(toy.repo)
        assert stat.S_IMODE(twin.lstat().st_mode) == stat.S_IMODE(path.lstat().st_mode)
        assert not (path.is_file() and twin.samefile(path))
    assert place.exec("git", "-C", "/workspace/repo", "status", "--porcelain").stdout_read() == ""
    place.terminate()
