"""Isolation by bubblewrap: programs of the host, read-only, with a workspace, patches and runner of the sandbox's own.

What belongs here: bubblewrap's arguments, and finding out whether it works on this machine. What does not: making
and removing the sandbox's files (``process``).

Only what programs need is seen of the host: no home folder, no dataset, no sockets below ``/run``. Each command has
its own process namespace, so nothing that it starts outlives it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from cooperbench_assets.execution.sandboxes.base import PATCHES, RUNNER
from cooperbench_assets.execution.sandboxes.process.variables import (
    HOME_IN_TMP,
    SYSTEM_FOLDERS,
    python_prefix,
    under_system_folders,
    variables,
)

_TMP = "/tmp"  # noqa: S108 - the sandbox's own
_SIDE = "/.beside-the-runner"
"""Where the sandbox sees the folder of the host in whose place the runner's folder stands."""

_PROBE = f"cd /workspace && git --version && python3 -S -c '' && bash {RUNNER} && echo works > {PATCHES}/probe"
_PROBE_SECONDS = 20


class Bubblewrap:
    """How commands see one sandbox's files under bubblewrap."""

    name = "bubblewrap"

    def __init__(self, root: Path, *, network: bool = True) -> None:
        self._options = [*_host(), *(() if network else ("--unshare-net",)), *_private(root)]
        self.variables = variables(tmp=_TMP, home=f"{_TMP}/{HOME_IN_TMP}")

    def command(self, args: Sequence[str], workdir: str) -> tuple[list[str], str]:
        """The command that runs `args` inside, and the folder of the host to start it in."""
        return [_program() or "bwrap", *self._options, "--chdir", workdir, "--", *args], "/"

    def outward(self, text: str) -> str:
        """Output as a container would have printed it."""
        return text

    def close(self) -> None:
        """Nothing is held."""


@cache
def probe(network: bool = False) -> str:
    """Why bubblewrap cannot be used here, with or without network; empty where it can. Asked once, by using it.

    A container without the right to make user namespaces, or a system that forbids them to ordinary users, has
    the program and cannot use it.
    """
    if _program() is None:
        return "bubblewrap (the program bwrap) is not installed"
    if network and not probe(False):
        # A namespace less to make. The harness server asks without network, so its children need not ask again.
        return ""
    with tempfile.TemporaryDirectory(prefix="cooperbench-assets-probe-") as folder:
        root = Path(folder)
        for name in ("workspace", "patches", f"tmp/{HOME_IN_TMP}"):
            (root / name).mkdir(parents=True)
        (root / "runner.sh").write_text("true\n")
        return _try(Bubblewrap(root, network=network), root / "patches" / "probe")


@cache
def _program() -> str | None:
    # Found here: commands are looked up on the sandbox's own search path, where it need not be.
    return shutil.which("bwrap")


def _try(sandbox: Bubblewrap, sign: Path) -> str:
    argv, cwd = sandbox.command(["bash", "-c", _PROBE], "/workspace")
    try:
        tried = subprocess.run(
            argv,
            cwd=cwd,
            env=sandbox.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not work here: {error}"
    if tried.returncode == 0 and sign.exists():
        return ""
    said = tried.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"bubblewrap does not work here: {said[-1] if said else f'exit code {tried.returncode}'}"


@cache
def _host() -> tuple[str, ...]:
    """The namespaces, and what is seen of the host. Every mount costs a tenth of a millisecond a command."""
    options = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent"]
    for name in SYSTEM_FOLDERS:
        options += _seen(Path(f"/{name}"))
    if not under_system_folders(python_prefix()):
        options += ["--ro-bind", python_prefix(), python_prefix()]
    resolver = os.path.realpath("/etc/resolv.conf")
    if not under_system_folders(resolver):
        options += ["--ro-bind-try", resolver, resolver]
    return (*options, "--proc", "/proc", "--dev", "/dev", *_room_for(Path(RUNNER)))


def _private(root: Path) -> Iterator[str]:
    for source, target in (("tmp", _TMP), ("workspace", "/workspace"), ("patches", PATCHES)):
        yield from ("--bind", str(root / source), target)
    yield from ("--ro-bind", str(root / "runner.sh"), RUNNER)


def _seen(path: Path) -> list[str]:
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() else []


def _room_for(file: Path) -> Iterator[str]:
    """Put a writable folder in place of the nearest existing one above `file`, so that it can be mounted.

    What the folder holds is seen through links to where it is mounted besides.
    """
    folder = next(parent for parent in file.parents if parent.is_dir())
    if folder == Path("/"):
        return
    yield from ("--ro-bind", str(folder), _SIDE, "--tmpfs", str(folder))
    for name in sorted(entry.name for entry in folder.iterdir() if entry.name != file.name):
        yield from ("--symlink", f"{_SIDE}/{name}", f"{folder}/{name}")
