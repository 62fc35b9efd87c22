"""Slots: how many agents and evaluations run at once on this machine, counted over every process of the user.

What belongs here: the two pools, their size in the machine's file, taking a slot and saying who holds it. What does
not: which pair gets it (``planning.launch_order``), and which of several launches (``slot_queue``).

A slot is a flock on one of `size` files. The child inherits the open file, so a slot is free when the last process
that holds it is gone, however it went: an orphan keeps its slot, and nothing is left to clean up. The file says for
whom it was taken last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import platformdirs

from cooperbench_assets.errors import UserError
from cooperbench_assets.execution.runner.machine_size import MachineSize
from cooperbench_assets.execution.runner.slot_queue import Line
from cooperbench_assets.files import replacing

PoolName = Literal["agents", "evaluations"]
POOLS: Final[tuple[PoolName, ...]] = ("agents", "evaluations")

SIZES_FILE: Final = "slots.toml"
_LARGEST: Final = 10_000
_AGENT_MEMORY: Final = 2 * 2**30
_EVALUATION_MEMORY: Final = 2**30

_TEXT = """\
# How much runs at once on this machine, for all experiments and all processes of this user together.
# Limits of an experiment (limits.concurrency, limits.eval_concurrency) are caps below these numbers.
# Made from the CPUs and the memory that the first run could use, by the limits of its container too;
# change it at any time, running work included.

# Pairs whose agents run at once. Agents mostly wait for their model.
agents = {agents}

# Pairs that are evaluated at once. Tests keep a CPU busy.
evaluations = {evaluations}
"""


class SlotsError(UserError):
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
        raise SlotsError(f"{path} cannot be read: {error}; fix it, or remove it to get a new one") from error
    return _parse(text, path)


def _parse(text: str, path: Path) -> dict[PoolName, int]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SlotsError(f"{path} is no TOML: {error}; fix it, or remove it to get a new one") from error
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
    size = MachineSize()
    text = _TEXT.format(**default_sizes(size.cpus(), size.memory()))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Somebody else may have made or edited one meanwhile.
    with replacing(path, keep=True) as file:
        file.write(text.encode())
    return path.read_text(encoding="utf-8")


class SlotUser(msgspec.Struct, frozen=True):
    """A launch that holds slots, as it says itself."""

    experiment: str
    cell: str
    """Setting and seed."""

    what: str
    """What the launch calls itself: a Dagster run, a command."""

    pid: int
    pair: str | None = None
    """What the slot was taken for."""


_SLOT_USER: Final = msgspec.json.Decoder(SlotUser)


NOBODY: Final = SlotUser("", "", "another process", 0)
"""Stands for a holder that its file does not name."""


@dataclass(eq=False)
class Slot:
    """One slot, held by this process's copy of its file until `close`, and by every child that has one."""

    pool: SlotPool
    number: int
    fd: int

    @property
    def handle(self) -> int:
        """What a child is given of it: the descriptor of its file."""
        return self.fd

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
    """One of the machine's pools, as one launch uses it.

    A larger size counts at once. After a smaller one, who holds a slot keeps it until its work ends. A launch that
    found no slot stands in line (`wait`) until it has one or wants none any more (`leave`): a slot that becomes free
    goes to the launch in line that holds fewest, and among these to the one that has held so few for longest.
    """

    def __init__(
        self, name: PoolName, size: int | None = None, state: Path | None = None, user: SlotUser | None = None
    ) -> None:
        """Open a pool.

        Args:
            name: Which one.
            size: A fixed size; the machine's file counts if it is not given, as it stands at each `acquire`.
            state: The machine's state folder; the user's own if not given.
            user: What others are told of who holds a slot of this object.
        """
        self.name = name
        self.state = state_folder() if state is None else state
        self.problem: str | None = None
        """What was wrong with the machine's file after it had been read once; None if nothing was."""

        self._fixed = size
        self._last: int | None = None
        self._folder = self.state / "slots" / name
        self._line = Line(self._folder / "waiting")
        self._user = NOBODY if user is None else user
        self._held: set[Slot] = set()
        self._start = os.getpid()

    @property
    def size(self) -> int:
        """How many slots there are now: the last good number, where the machine's file has become wrong.

        Raises:
            SlotsError: if the machine's file is wrong, and was never read.
        """
        if self._fixed is not None:
            return self._fixed
        try:
            self._last = read_sizes(self.state)[self.name]
        except SlotsError as error:
            if self._last is None:
                raise
            self.problem = f"{error}. Until then the last good size, {self._last}, is used"
        return self._last

    @property
    def held(self) -> int:
        """How many slots of this object have not been closed."""
        return len(self._held)

    def acquire(self, cap: int | None = None, pair: str | None = None) -> Slot | None:
        """Take a free slot, without waiting; None if there is none for this launch, or it holds `cap` already.

        Keep the slot open as long as its child runs, and close it then: that is what the cap counts.

        Args:
            cap: How many this launch may hold.
            pair: What others are told that the slot is for.

        Raises:
            SlotsError: if the machine's file is wrong and was never read, or the folder cannot hold locks.
            OSError: if the folder cannot be used.
        """
        if cap is not None and self.held >= cap:
            return None
        size = self.size
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._line.is_first(self.held):
            return None
        # Starting at another number than other processes do saves looking at files that are taken.
        for step in range(size):
            number = (self._start + step) % size
            if (descriptor := self._take(number, pair)) is not None:
                slot = Slot(self, number, descriptor)
                self._held.add(slot)
                self._start = number + 1
                self._line.leave()
                return slot
        return None

    def wait(self) -> None:
        """Stand in line for the next slot; call this again at least every second as long as one is wanted.

        Raises:
            OSError: if the folder cannot be used.
        """
        self._line.join(self.held)

    def leave(self) -> None:
        """Want no further slot for now."""
        self._line.leave()

    def others(self) -> tuple[tuple[SlotUser, int], ...]:
        """The other launches that hold slots now, each with their number."""
        own = {slot.number for slot in self._held}
        found = (self._holder(number) for number in range(self.size) if number not in own)
        launches = Counter(msgspec.structs.replace(user, pair=None) for user in found if user is not None)
        return tuple(sorted(launches.items(), key=lambda one: (one[0].pid, one[0].cell)))

    def forget(self, slot: Slot) -> None:
        """Count a slot no more; `Slot.close` calls this."""
        self._held.discard(slot)
        with contextlib.suppress(OSError):
            self._line.tell(self.held)

    def _holder(self, number: int) -> SlotUser | None:
        """Who holds a slot; None if it is free."""
        try:
            descriptor = os.open(self._folder / f"{number}.lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            with contextlib.suppress(OSError, msgspec.DecodeError):
                return _SLOT_USER.decode(os.pread(descriptor, 65536, 0))
            return NOBODY
        else:
            return None
        finally:
            os.close(descriptor)

    def _take(self, number: int, pair: str | None) -> int | None:
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
        with contextlib.suppress(OSError):  # Who holds it is good to know, and no condition.
            said = msgspec.json.encode(msgspec.structs.replace(self._user, pair=pair))
            os.pwrite(descriptor, said, 0)
            # Cut afterwards: what was emptied and written anew, some file systems write to the disk at once.
            os.ftruncate(descriptor, len(said))
        return descriptor
