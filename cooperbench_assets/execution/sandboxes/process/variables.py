"""The variables that test programs see: few, the same under every isolation, none of them a secret.

What belongs here: that list and how it is found. What does not: variables that an experiment adds for its tests.
"""

from __future__ import annotations

import os
import sys
from functools import cache

from cooperbench_assets.execution.processes import MARK
from cooperbench_assets.execution.sandboxes import network

TMP = "tmp"
"""Name of the folder for temporary files in a sandbox's folder."""

HOME_IN_TMP = "home"
"""Name of the sandbox's home folder in its folder for temporary files."""

_NETWORK = (*network.VARIABLES, "SSL_CERT_DIR")
"""How this machine reaches the network: passed on, for tests that install packages."""

SYSTEM_FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix", "gnu")
"""Folders of the root that hold programs: what a sandbox sees of the host."""

_STANDARD = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

# Command scope: the only one besides the files, which are left out, where git honours safe.directory.
_GIT = (("safe.directory", "*"), ("gc.auto", "0"), ("maintenance.auto", "false"), ("advice.detachedHead", "false"))


def variables(*, tmp: str, home: str) -> dict[str, str]:
    """All variables of a command in a sandbox with these folders for temporary files and home."""
    found = {name: value for name in (*_NETWORK, MARK) if (value := os.environ.get(name))}
    return {
        **found,
        "PATH": search_path(),
        "HOME": home,
        "TMPDIR": tmp,
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        **_git_variables(),
    }


@cache
def search_path() -> str:
    """The interpreter's own folder, and those of the host's search path that belong to the system.

    The interpreter is the one that the harness's environment was made from, so that tests run on the same
    version of Python under every isolation, with no packages of ours.
    """
    named = (entry.rstrip("/") for entry in os.environ.get("PATH", "").split(os.pathsep))
    usable = [entry for entry in named if under_system_folders(entry)]
    return os.pathsep.join(dict.fromkeys([f"{python_prefix()}/bin", *usable, *_STANDARD]))


@cache
def python_prefix() -> str:
    """The installation that this interpreter's environment was made from."""
    return os.path.realpath(sys.base_prefix)


def under_system_folders(path: str) -> bool:
    """Whether a sandbox sees this path of the host."""
    return any(path == f"/{name}" or path.startswith(f"/{name}/") for name in SYSTEM_FOLDERS)


def _git_variables() -> dict[str, str]:
    content = {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(len(_GIT)),
    }
    for number, (name, value) in enumerate(_GIT):
        content[f"GIT_CONFIG_KEY_{number}"] = name
        content[f"GIT_CONFIG_VALUE_{number}"] = value
    return content
