"""Quotas of cgroups, as the kernel lays them out: a container's own, or the machine's whole tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cooperbench_assets.execution.runner.machine_size import MachineSize
from cooperbench_assets.execution.runner.slots import read_sizes

MACHINE = MachineSize(Path("/nowhere"), Path("/nowhere"))
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def laid_out(root: Path, own: str, files: dict[str, str]) -> MachineSize:
    (root / "own").write_text(own)
    for name, content in files.items():
        file = root / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return MachineSize(root / "cgroup", root / "own")


UNLIMITED = {"cpu.max": "max 100000", "memory.max": "max"}
OLD_UNLIMITED = {
    "cpu/cpu.cfs_quota_us": "-1",
    "cpu/cpu.cfs_period_us": "100000",
    "memory/memory.limit_in_bytes": "9223372036854771712",
}
OLD_OWN = "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "cpus", "memory"),
    [
        ("0::/\n", {"cpu.max": "100000 100000", "memory.max": "536870912"}, 1, 2**29),
        ("0::/\n", {"cpu.max": "50000 100000", "memory.max": "max"}, 1, MACHINE.memory()),
        ("0::/\n", UNLIMITED, CPUS, MACHINE.memory()),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000", "a/b/memory.max": "1048576", "a/memory.max": "max"}, 1, 2**20),
        ("0::/seen/nowhere\n", {"cpu.max": "100000 100000", "memory.max": "1048576"}, 1, 2**20),
        (
            OLD_OWN,
            {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000", "memory/memory.limit_in_bytes": "7"},
            1,
            7,
        ),
        (OLD_OWN, {**OLD_UNLIMITED, "memory/docker/a/memory.limit_in_bytes": "1048576"}, CPUS, 2**20),
        (OLD_OWN, OLD_UNLIMITED, CPUS, MACHINE.memory()),
        ("", {}, CPUS, MACHINE.memory()),
        ("0::/\n", {"cpu.max": "not a number", "memory.max": ""}, CPUS, MACHINE.memory()),
    ],
)
def test_the_smallest_limit_on_the_way_up_counts(
    own: str, files: dict[str, str], cpus: int | None, memory: int | None, tmp_path: Path
) -> None:
    found = laid_out(tmp_path, own, files)
    assert (found.cpus(), found.memory()) == (cpus, memory)


def test_a_machine_file_is_made_for_the_container_that_the_first_run_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = laid_out(tmp_path, "0::/\n", {"cpu.max": "100000 100000", "memory.max": str(5 * 2**30)})
    monkeypatch.setattr("cooperbench_assets.execution.runner.slots.MachineSize", lambda: held)
    assert read_sizes(tmp_path / "state") == {"agents": 2, "evaluations": 1}
