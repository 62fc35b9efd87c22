"""No isolation: a plain subprocess, with the sandbox's own paths written in place of a container's.

What belongs here: the paths in commands, in the runner and in output. What does not: running them (``commands``).
It works everywhere and keeps nothing from the host: for benchmarks that are trusted, such as the built-in one.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.base import PATCHES, RUNNER
from cooperbench_assets.execution.sandboxes.process.variables import HOME_IN_TMP, TMP, variables

# A path starts where no part of another path or a variable stands before it; base64 text is full of slashes.
_PATHS = re.compile(rf"(?<![\w.+/)}}\]~-])({RUNNER}|/workspace|{PATCHES})(?![\w+.-])")


class Rewriting:
    """How commands see one sandbox's files without isolation."""

    name = "subprocess"

    def __init__(self, root: Path) -> None:
        self._root = root
        self._handle, base = _plain_path(root)
        self._base = base
        self._inside = {RUNNER: f"{base}/runner.sh", "/workspace": f"{base}/workspace", PATCHES: f"{base}/patches"}
        self.variables = variables(tmp=f"{base}/{TMP}", home=f"{base}/{TMP}/{HOME_IN_TMP}")
        runner = root / "runner.sh"
        runner.write_text(
            self.inward(runner.read_text(encoding="utf-8", errors="surrogateescape")),
            encoding="utf-8",
            errors="surrogateescape",
        )

    def command(self, args: Sequence[str], workdir: str) -> tuple[list[str], str]:
        """The command that stands for `args`, and the folder of the host to start it in."""
        return [self.inward(arg) for arg in args], self.inward(workdir)

    def inward(self, text: str) -> str:
        """A command's text with a container's paths replaced."""
        return _PATHS.sub(lambda found: self._inside[found[1]], text)

    def outward(self, text: str) -> str:
        """Output as a container would have printed it."""
        for base in {self._base, str(self._root), os.path.realpath(self._root)}:
            text = text.replace(f"{base}/runner.sh", RUNNER)
            for name in ("workspace", "patches", "tmp"):
                text = text.replace(f"{base}/{name}", f"/{name}")
        return text

    def close(self) -> None:
        """Let go of the folder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _plain_path(root: Path) -> tuple[int | None, str]:
    """A name of the folder that needs no quotes in a shell, and the open file it may hang on.

    Upstream's commands and runners write paths without quotes, so a blank in the project's path would cut them.
    """
    if shlex.quote(str(root)) == str(root):
        return None, str(root)
    if not Path("/proc/self/fd").exists():
        raise InfrastructureError(
            "configuration",
            f"the path {str(root)!r} has characters that a shell cuts at: move the project, or install bubblewrap",
        )
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return handle, f"/proc/{os.getpid()}/fd/{handle}"
