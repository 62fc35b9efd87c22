"""Slots: how many agents and evaluations run at once on this machine, counted over every process of the user.

What belongs here: the two pools, their size in the machine's file, and taking a slot. What does not: which pair
gets it (``schedule``).

A slot is a flock on one of `size` files. The child inherits the open file, so a slot is free when the last process
that holds it is gone, however it went: an orphan keeps its slot, and nothing is left to clean up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import platformdirs

PoolName = Literal["agents", "evaluations"]
POOLS: Final[tuple[PoolName, ...]] = ("agents", "evaluations")

SIZES_FILE: Final = "slots.toml"
_LARGEST: Final = 10_000
_AGENT_MEMORY: Final = 2 * 2**30
_EVALUATION_MEMORY: Final = 2**30

_TEXT = """\
# How much runs at once on this machine, for all experiments and all processes of this user together.
# Limits of an experiment (limits.concurrency, limits.eval_concurrency) are caps below these numbers.
# Made from the number of CPUs and the memory; change it at any time, running work included.

# Pairs whose agents run at once. Agents mostly wait for their model.
agents = {agents}

# Pairs that are evaluated at once. Tests keep a CPU busy.
evaluations = {evaluations}
"""


class SlotsError(ValueError):
    """The machine's file cannot be read, or says something that is no size."""


def state_folder() -> Path:
    """The user's state folder: ``$COOPERBENCH_ASSETS_STATE``, else the platform's own place."""
    if named := os.environ.get("COOPERBENCH_ASSETS_STATE"):
        return Path(named).expanduser().absolute()
    return platformdirs.user_state_path("cooperbench-assets")


def default_sizes(cpus: int | None, memory: int | None) -> dict[PoolName, int]:
    """Sizes for a machine with so many CPUs and bytes of memory; None where that is not known.

    Agents wait for a model more than they compute, so 4 of them are no load even for few CPUs.
    """
    agents = max(cpus or 4, 4)
    evaluations = cpus or 4
    if memory is not None:
        agents = min(agents, memory // _AGENT_MEMORY)
        evaluations = min(evaluations, memory // _EVALUATION_MEMORY)
    return {"agents": max(agents, 1), "evaluations": max(evaluations, 1)}


def read_sizes(state: Path) -> dict[PoolName, int]:
    """The sizes in the machine's file, which is made with defaults if it is not there.

    Raises:
        SlotsError: if the file is no TOML, or a size is missing or no whole number from 1.
    """
    path = state / SIZES_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = _make(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SlotsError(f"{path} cannot be read: {error}; mend it, or remove it to get a new one") from error
    return _parse(text, path)


def _parse(text: str, path: Path) -> dict[PoolName, int]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SlotsError(f"{path} is no TOML: {error}; mend it, or remove it to get a new one") from error
    sizes: dict[PoolName, int] = {}
    for name in POOLS:
        size = content.get(name)
        if type(size) is not int or not 1 <= size <= _LARGEST:
            said = "is missing" if name not in content else f"is {size!r}"
            raise SlotsError(f"{path}: {name} {said}; write a whole number from 1, as in `{name} = 4`")
        sizes[name] = size
    if unknown := sorted(set(content) - set(POOLS)):
        raise SlotsError(f"{path}: {unknown[0]!r} is no pool; the pools are {' and '.join(POOLS)}")
    return sizes


def _make(path: Path) -> str:
    text = _TEXT.format(**default_sizes(_cpus(), _memory()))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    try:
        # A link, unlike a rename, never replaces a file that somebody else has just made or edited.
        os.link(temporary, path)
    except FileExistsError:
        return path.read_text(encoding="utf-8")
    finally:
        temporary.unlink()
    return text


def _cpus() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


@dataclass(eq=False)
class Slot:
    """One slot, held by this process's copy of its file until `close`, and by every child that has one."""

    pool: SlotPool
    number: int
    fd: int

    def close(self) -> None:
        """Close this process's copy. The slot is free once the copies of the children are closed too."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self.pool.forget(self)

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SlotPool:
    """One of the machine's pools, as one process uses it.

    A larger size counts at once. After a smaller one, who holds a slot keeps it until its work ends.
    """

    def __init__(self, name: PoolName, size: int | None = None, state: Path | None = None) -> None:
        """Open a pool.

        Args:
            name: Which one.
            size: A fixed size; the machine's file counts if it is not given, as it stands at each `acquire`.
            state: The machine's state folder; the user's own if not given.
        """
        self.name = name
        self.state = state_folder() if state is None else state
        self._fixed = size
        self._folder = self.state / "slots" / name
        self._held: set[Slot] = set()
        self._start = os.getpid()

    @property
    def size(self) -> int:
        """How many slots there are now.

        Raises:
            SlotsError: if the machine's file is wrong.
        """
        return read_sizes(self.state)[self.name] if self._fixed is None else self._fixed

    @property
    def held(self) -> int:
        """How many slots of this object have not been closed."""
        return len(self._held)

    def acquire(self, cap: int | None = None) -> Slot | None:
        """Take a free slot, without waiting; None if there is none, or this object holds `cap` already.

        Keep the slot open as long as its child runs, and close it then: that is what the cap counts.

        Raises:
            SlotsError: if the machine's file is wrong, or the folder cannot hold locks.
        """
        if cap is not None and self.held >= cap:
            return None
        size = self.size
        self._folder.mkdir(parents=True, exist_ok=True)
        # Starting at another number than other processes do saves looking at files that are taken.
        for step in range(size):
            number = (self._start + step) % size
            if (descriptor := self._take(number)) is not None:
                slot = Slot(self, number, descriptor)
                self._held.add(slot)
                self._start = number + 1
                return slot
        return None

    def forget(self, slot: Slot) -> None:
        """Count a slot no more; `Slot.close` calls this."""
        self._held.discard(slot)

    def _take(self, number: int) -> int | None:
        descriptor = os.open(self._folder / f"{number}.lock", os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                return None
            raise SlotsError(
                f"{self._folder} cannot hold locks: {error}; set COOPERBENCH_ASSETS_STATE to a local folder"
            ) from error
        return descriptor
