"""Labels and limits for the containers of agents, which upstream makes with the engine's command line.

What belongs here: a small program that stands in for ``docker`` and adds options to what makes something, and the
variables that tell it which. What does not: containers of evaluations (``session``).

Upstream takes the program from ``MSWEA_DOCKER_EXECUTABLE``, which it reads when it is imported.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.processes import MARK
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions
from cooperbench_assets.execution.sandboxes.docker.ownership import OWNER, describing
from cooperbench_assets.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EXECUTABLE = "MSWEA_DOCKER_EXECUTABLE"
REAL = "COOPERBENCH_ASSETS_DOCKER"
"""Variable with the engine's own command."""

LABELS = "COOPERBENCH_ASSETS_DOCKER_LABELS"
"""Variable with options for all that is made, one a line."""

LIMITS = "COOPERBENCH_ASSETS_DOCKER_LIMITS"
"""Variable with options for containers, one a line."""

# A shell starts in 1 ms, Python in 20, and an agent runs a command in its container for every step.
# The owner is the child that the program runs in, else its parent; field 22 of stat is the start time in ticks.
SCRIPT = f"""\
#!/bin/sh
# Runs the container engine's command line, and labels and limits what it makes. Written by cooperbench-assets.
docker=${{{REAL}:-docker}}
case "$1 $2" in
"network create" | "volume create") made="$1 $2"; shift 2; limits= ;;
"run "* | "create "*) made=$1; shift; limits=${LIMITS} ;;
*) exec "$docker" "$@" ;;
esac
owner=${{{MARK}:-}}
ticks=0
if [ -z "$owner" ] && read -r stat 2>/dev/null </proc/$PPID/stat; then
  read -r boot </proc/sys/kernel/random/boot_id
  for field in ${{stat##*) }}; do
    ticks=$((ticks + 1))
    [ $ticks = 20 ] && owner="$PPID/$boot:$field"
  done
fi
set -f
case $made in
run | create)
  # A volume that is made by being named would carry no label.
  for word; do
    case $word in
    cb-team-*:*)
      IFS='
'
      "$docker" volume create ${LABELS} --label "{OWNER}=$owner" "${{word%%:*}}" >/dev/null
      unset IFS
      ;;
    esac
  done
  ;;
esac
set -- --label "{OWNER}=$owner" "$@"
IFS='
'
set -- ${LABELS} $limits "$@"
unset IFS
exec "$docker" $made "$@"
"""


def write_wrapper(folder: Path) -> Path:
    """Write the program, unless it is there already; returns its absolute path."""
    path = folder.resolve() / "docker"
    if not path.is_file() or path.read_text() != SCRIPT or not os.access(path, os.X_OK):
        folder.mkdir(parents=True, exist_ok=True)
        # Another process may be running it.
        write_atomically(path, SCRIPT.encode(), durable=False, mode=0o755)
    return path


def wrapper_environment(
    folder: Path, options: DockerOptions, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables under which upstream's agents make their containers through the wrapper.

    They belong into the environment of the harness server, or of a child before it imports upstream's agents.

    Args:
        folder: Where the wrapper lies or is written to.
        options: Limits, and labels that say what the containers are for.
        environment: Where the engine's own command is looked for; this process's own if not given.

    Raises:
        LaunchError: if there is no such command.
    """
    known = os.environ if environment is None else environment
    real = known.get(REAL) or shutil.which(known.get(EXECUTABLE) or "docker", path=known.get("PATH"))
    if real is None:
        raise LaunchError("agents in containers need the command docker, and it is not on the PATH; install it")
    return {
        EXECUTABLE: str(write_wrapper(folder)),
        REAL: real,
        LABELS: label_lines(options.labels),
        LIMITS: "\n".join(["--init", *options.arguments()]),
    }


def label_lines(described: Mapping[str, str]) -> str:
    """The value of `LABELS` for what is made for this (experiment, setting, seed, pair, attempt)."""
    return "\n".join(f"--label={name}={value}" for name, value in describing("agent", described).items())
