"""The project's Dagster instance, opened for the first time by several processes at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cooperbench_assets_tests.projects import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

OPEN_EACH_FOUR_TIMES_AT_ONCE = """
import os, sys, traceback
import dagster as dg
from dagster._core.instance.ref import InstanceRef

def open_it(folder):
    os.chdir(folder)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(folder)) as instance:
        instance.get_runs(limit=1)

def forked(folder):
    child = os.fork()
    if child:
        return child
    try:
        open_it(folder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

alone, *together = sys.argv[1:]
open_it(alone)  # Whatever is imported for it, each process has already.
for folder in together:
    children = [forked(folder) for _ in range(4)]
    print(*[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_processes_that_open_a_fresh_instance_at_once_all_get_it(tmp_path: Path) -> None:
    roots = [tmp_path / str(n) for n in range(6)]
    for root in roots:
        root.mkdir()
        shutil.copy(CHECKOUT / "dagster.yaml", root)
    command = [sys.executable, "-c", OPEN_EACH_FOUR_TIMES_AT_ONCE, *map(str, roots)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["0 0 0 0"] * 5, done.stderr
