"""Real git for the demo's dataset: histories and diffs whose bytes are the same on every build.

What belongs here: talking to git, in few calls (one takes longer than everything Python does for a task).
What does not: what is in the commits (``tasks``) and where files lie (``dataset``).
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from cooperbench_assets.errors import UserError

_AUTHOR = "Demo <demo@cooperbench-assets.invalid>"
_START = 1_893_456_000
"""Time of each history's first commit (2030-01-01 UTC); the next ones follow by the hour."""

_COMMIT = re.compile(r"^([0-9a-f]{40})\n", re.MULTILINE)

Files = dict[str, str]


class GitError(UserError):
    """Git is missing, or a call of it failed."""


def repository(folder: Path, commits: Sequence[tuple[str, Files]]) -> None:
    """Make `folder` a checkout of a new history, one commit for each message and tree, on branch ``main``.

    Raises:
        GitError: if git is missing or fails.
    """
    folder.mkdir(parents=True)
    _git(folder, "init", "--quiet", "--template=", "--initial-branch=main")
    stream: list[bytes] = []
    for number, (message, files) in enumerate(commits, 1):
        stream.append(_commit("refs/heads/main", number, message, files, number - 1 or None))
    _git(folder, "fast-import", "--quiet", "--force", stream=b"".join(stream))
    for path, text in commits[-1][1].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    # Without -u it leaves out the files' times and inodes, which differ from build to build.
    _git(folder, "read-tree", "HEAD")


def patches(groups: Iterable[tuple[Files, Sequence[Files]]]) -> list[str]:
    """Patches as ``git diff`` writes them, from the first tree of each group to each of the others, in order.

    Raises:
        GitError: if git is missing or fails.
    """
    stream, asked, number = [], [], 0
    for before, trees in groups:
        number += 1
        base = number
        stream.append(_commit(f"refs/demo/{number}", number, "base", before, None))
        for tree in trees:
            number += 1
            changed = {path: text for path, text in tree.items() if before.get(path) != text}
            stream.append(_commit(f"refs/demo/{number}", number, "change", changed, base))
            asked.append(number)
    with tempfile.TemporaryDirectory(prefix="cooperbench-demo-") as name:
        folder = Path(name)
        _git(folder, "init", "--quiet", "--bare", "--template=")
        _git(folder, "fast-import", "--quiet", "--export-marks=marks", stream=b"".join(stream))
        marks = dict(line.split() for line in (folder / "marks").read_text().splitlines())
        commits = "".join(f"{marks[f':{one}']}\n" for one in asked)
        output = _git(folder, "diff-tree", "--stdin", "-p", "--full-index", stream=commits.encode())
    return _COMMIT.split(output)[2::2]


def _commit(branch: str, number: int, message: str, files: Files, parent: int | None) -> bytes:
    """A commit in the language of ``git fast-import``: `files` over those of `parent`."""
    when = f"{_START + 3600 * number} +0000"
    text = message.encode()
    parts = [
        f"commit {branch}\nmark :{number}\ncommitter {_AUTHOR} {when}\ndata {len(text)}\n".encode(),
        text,
        b"\n" if parent is None else f"\nfrom :{parent}\n".encode(),
    ]
    for path, content in files.items():
        data = content.encode()
        parts += [f"M 100644 inline {path}\ndata {len(data)}\n".encode(), data, b"\n"]
    return b"".join(parts)


def _git(folder: Path, *arguments: str, stream: bytes = b"") -> str:
    """Output of a git command that sees nobody's settings."""
    settings = ("-c", "core.logAllRefUpdates=false", "-c", "fastimport.unpackLimit=1", "-c", "core.autocrlf=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *settings, *arguments], cwd=folder, env=environment, input=stream, capture_output=True
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed; the demo's dataset is built with it") from error
    if done.returncode != 0:
        raise GitError(f"git {arguments[0]} failed in {folder}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()
