"""A dataset of one small task for tests of execution, made on the spot, with patches that pass, fail and misbehave."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPO = "toy_task"
TASK = 1
FEATURES = (1, 2, 3, 4)

RUNNER = """\
#!/bin/bash
cd /workspace/repo || exit 2
if [ -s "/patches/${2:-none}" ]; then
    git apply "/patches/$2" || { echo "patch does not apply"; exit 1; }
fi
git apply "/patches/$1" || exit 1
python3 -S "$(ls tests/test_feature*.py)"
"""

_CHECK = """\
import sys
sys.path.insert(0, ".")
import {module}
found = getattr({module}, "value", lambda: None)()
print("1 passed in 0.01s" if {test} else f"1 failed in 0.01s: {{found!r}}")
sys.exit(not ({test}))
"""

# Features 1 and 2 live in files of their own; 3 and 4 change the same line.
_FILES = {1: "one.py", 2: "two.py", 3: "both.py", 4: "both.py"}
_TESTS = {1: "found == 1", 2: "found == 2", 3: "'three' in str(found)", 4: "'four' in str(found)"}
_GOLD = {1: "return 1", 2: "return 2", 3: 'return "three"', 4: 'return "four"'}


@dataclass(frozen=True)
class Toy:
    """The dataset and its one task."""

    dataset: Path

    @property
    def task(self) -> Path:
        """The task's folder."""
        return self.dataset / REPO / f"task{TASK}"

    @property
    def repo(self) -> Path:
        """The task's repository."""
        return self.task / "repo"

    def gold(self, feature: int) -> str:
        """The patch that makes a feature's tests pass."""
        return (self.task / f"feature{feature}" / "feature.patch").read_text()

    def solo_gold(self, a: int, b: int) -> str:
        """One patch for two features of different files."""
        return self.gold(a) + self.gold(b)

    def patch(self, feature: int, body: str) -> str:
        """A patch that gives a feature's function this body, of one line or several."""
        return patch_of(self.repo, _FILES[feature], function(body))

    def at_import(self, feature: int, statement: str) -> str:
        """A patch that runs statements as the feature's tests import it, and then would pass."""
        return patch_of(self.repo, _FILES[feature], f"{statement}\n{function(_GOLD[feature])}")


def function(body: str) -> str:
    """The text of a toy module."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"def value():\n{lines}"


def make_toy(folder: Path) -> Toy:
    """Make the dataset."""
    toy = Toy(folder / "dataset")
    toy.repo.mkdir(parents=True)
    git(toy.repo, "init", "-q", "-b", "main")
    for name in sorted(set(_FILES.values())):
        (toy.repo / name).write_text(function("return None"))
    commit(toy.repo)
    (toy.task / "runner.sh").write_text(RUNNER)
    for feature in FEATURES:
        home = toy.task / f"feature{feature}"
        home.mkdir()
        (home / "feature.md").write_text(f"Make feature {feature} work.\n")
        (home / "feature.patch").write_text(toy.patch(feature, _GOLD[feature]))
        module = _FILES[feature].removesuffix(".py")
        check = _CHECK.format(module=module, test=_TESTS[feature])
        (home / "tests.patch").write_text(patch_of(toy.repo, f"tests/test_feature{feature}.py", check))
    return toy


def patch_of(repo: Path, name: str, content: str) -> str:
    """The patch that makes a file of the repository hold this content; the repository stays as it is."""
    path = repo / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    git(repo, "add", "-A")
    text = git(repo, "diff", "--cached")
    git(repo, "reset", "-q", "--hard")
    return text


def commit(repo: Path) -> None:
    """Commit whatever is there."""
    git(repo, "add", "-A")
    git(repo, "-c", "user.name=toy", "-c", "user.email=toy@example.org", "commit", "-q", "-m", "base")


def git(repo: Path, *args: str) -> str:
    """What a git command prints."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-C", str(repo), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def fingerprint(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
