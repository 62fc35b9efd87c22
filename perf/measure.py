"""Timing: interleaved rounds, medians, CPU seconds, and peak memory in a process of its own."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from perf.results import Record, Role

ROOT = Path(__file__).parents[1]


@dataclass
class Contender:
    """One way of doing the thing."""

    name: str
    role: Role
    function: Callable[[], object]
    n: int = 1
    note: str = ""
    before: Callable[[], object] | None = None
    """Sets the scene for each round, untimed."""

    peak: tuple[str, str, list[str]] | None = None
    """Module, function and arguments that do the same in a process of its own, for its peak memory."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def cpu_seconds() -> float:
    """CPU time of this process and of the children it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def race(contenders: Sequence[Contender], rounds: int, warm: int = 1) -> list[Record]:
    """Run all contenders in turn, `rounds` times, each round beginning with another one."""
    for number in range(-warm, rounds):
        start = number % len(contenders)
        for contender in (*contenders[start:], *contenders[:start]):
            if contender.before is not None:
                contender.before()
            gc.collect()
            cpu, began = cpu_seconds(), time.perf_counter()
            contender.function()
            took = time.perf_counter() - began
            if number >= 0:
                contender.seconds.append(took)
                contender.cpu.append(cpu_seconds() - cpu)
    return [record_of(contender) for contender in contenders]


def record_of(contender: Contender) -> Record:
    """The medians of a contender."""
    return Record(
        name=contender.name,
        role=contender.role,
        seconds=median(contender.seconds),
        cpu_seconds=median(contender.cpu),
        peak_mib=None if contender.peak is None else peak_of(*contender.peak),
        rounds=len(contender.seconds),
        n=contender.n,
        note=contender.note,
    )


def peak_of(module: str, function: str, arguments: list[str]) -> float | None:
    """Peak resident memory, MiB, of a function over what its process held when it began."""
    command = [sys.executable, "-m", "perf.measure", module, function, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    value = json.loads(done.stdout.splitlines()[-1])
    return None if value is None else float(value)


def memory_kib(key: str) -> int | None:
    """A figure of /proc/self/status: VmRSS (now) or VmHWM (highest); None where there is no such file."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{key}:"))


def forget_peak() -> None:
    """Let the highest resident memory begin from what is resident now, where the kernel can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@dataclass(frozen=True)
class Ran:
    """One run of a command."""

    seconds: float
    cpu_seconds: float
    output: str


def run_command(command: Sequence[str], *, env: dict[str, str] | None = None, cwd: Path = ROOT, **more: Any) -> Ran:
    """Run a command to its end.

    Raises:
        RuntimeError: with the end of its output, if it fails.
    """
    cpu, began = cpu_seconds(), time.perf_counter()
    done = subprocess.run(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} failed ({done.returncode}):\n{done.stdout[-3000:]}")
    return Ran(took, cpu_seconds() - cpu, done.stdout)


def _main() -> None:
    import importlib

    module, function, *arguments = sys.argv[1:]
    work = getattr(importlib.import_module(module), function)
    gc.collect()
    forget_peak()
    before = memory_kib("VmRSS")
    work(*arguments)
    after = memory_kib("VmHWM")
    print(json.dumps(None if before is None or after is None else max(0, after - before) / 1024))
    sys.stdout.flush()
    os._exit(0)  # other libraries' threads need not be waited for


if __name__ == "__main__":
    _main()
