"""How long a whole experiment takes: the real launch order and slots, a fake clock, recorded durations."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.planning.launch_order import launch_order
from cooperbench_assets.execution.planning.steps import Step
from cooperbench_assets.execution.planning.usage import History
from cooperbench_assets.execution.runner.slots import Slot, SlotPool
from perf import inputs
from perf.results import Section, Target

Durations = Mapping[Pair, float]
RUNS_AT_ONCE = 4
"""Cells at once: ``launch.CELLS_AT_ONCE``, and ``max_concurrent_runs`` in dagster.yaml."""

SLOTS = (2, 4, 8)
USER = "user's shape"
USER_MINUTES = {"solo": 180, "solo-seed1": 180, "solo-seed2": 180, "coop-comm": 480, "coop-nocomm": 440}
"""Minutes of work of 100 pairs, by cell, in the user's first run."""


@dataclass
class Cell:
    """One cell on its way: what `execution.runner.scheduler` keeps, without the children."""

    name: str
    seconds: Durations
    pending: deque[Step]
    pool: SlotPool
    cap: int
    running: int = 0

    def fill(self, clock: float, ends: list[tuple[float, int, Cell, Slot]], number: count[int]) -> None:
        """Launch while there is a pair and room: `Loop._fill`."""
        while self.pending and self.running < self.cap and (slot := self.pool.acquire(self.cap)) is not None:
            step = self.pending.popleft()
            self.running += 1
            heapq.heappush(ends, (clock + self.seconds[step.pair], next(number), self, slot))

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return not self.pending and not self.running


@dataclass
class Machine:
    """The slots of one machine, and the cells that share them."""

    slots: int
    state: Path
    at_once: int = RUNS_AT_ONCE
    cells: list[Cell] = field(default_factory=list)

    def add(self, name: str, seconds: Durations, expected: Callable[[Pair], float | None]) -> None:
        """A cell, its pairs in the order in which they are launched."""
        steps = [Step(pair, "run", "no_result", expected_seconds=expected(pair)) for pair in seconds]
        order = launch_order(steps, "perf", budgeted=False)
        pool = SlotPool("agents", self.slots, self.state)
        self.cells.append(Cell(name, seconds, deque(order), pool, self.slots))

    def makespan(self, chance: random.Random) -> float:
        """Seconds until the last pair has ended."""
        clock, number = 0.0, count()
        ends: list[tuple[float, int, Cell, Slot]] = []
        while not all(cell.over for cell in self.cells):
            going = [cell for cell in self.cells if not cell.over][: self.at_once]
            for cell in chance.sample(going, len(going)):  # who sees a free slot first is chance
                cell.fill(clock, ends, number)
            clock, _, cell, slot = heapq.heappop(ends)
            slot.close()
            cell.running -= 1
        return clock


def run_after_run(cells: Sequence[Durations], slots: int) -> float:
    """As people do: one command a run, pairs in the subset's order, the next run when the last pair has ended."""
    total = 0.0
    for seconds in cells:
        free = [0.0] * slots
        for pair in sorted(seconds):
            heapq.heapreplace(free, free[0] + seconds[pair])
        total += max(free)
    return total


def bound(cells: Sequence[Durations], slots: int) -> float:
    """No schedule is shorter: all the work over the slots, or the longest pair."""
    every = [value for seconds in cells for value in seconds.values()]
    return max(sum(every) / slots, max(every))


def users_shape(draw: int) -> dict[str, dict[Pair, float]]:
    """Five cells of 100 pairs: minutes of work as in the user's first run, one pair of 60 minutes in each."""
    chance = random.Random(f"user {draw}")
    made = {}
    for name, work in USER_MINUTES.items():
        pairs = inputs.planned(100)
        weights = [chance.lognormvariate(0, 0.6) for _ in pairs]
        scale = (work - 60) * 60 / (sum(weights) - weights[0])
        seconds = {pair: min(weight * scale, 3000.0) for pair, weight in zip(pairs, weights, strict=True)}
        seconds[chance.choice(pairs)] = 3600.0
        made[name] = seconds
    return made


def shared(
    cells: Mapping[str, Durations],
    slots: int,
    state: Path,
    expected: Callable[[str], Callable[[Pair], float | None]],
    at_once: int = RUNS_AT_ONCE,
) -> float:
    """The makespan by our order and slots; the median over who is quicker to a free slot."""
    spans = []
    for draw in range(5):
        machine = Machine(slots, state, at_once)
        for name, seconds in cells.items():
            machine.add(name, seconds, expected(name))
        spans.append(machine.makespan(random.Random(draw)))
    return median(spans)


def from_others(cells: Mapping[str, Durations]) -> Callable[[str], Callable[[Pair], float | None]]:
    """What is expected where the experiment's other runs are done: `execution.planning.usage`'s own rule."""

    def of(name: str) -> Callable[[Pair], float | None]:
        known: dict[Pair, tuple[float, ...]] = {}
        for other, seconds in cells.items():
            if other != name:
                for pair, value in seconds.items():
                    known[pair] = (*known.get(pair, ()), value)
        history = History({"agent": known})
        return lambda pair: history.expected_seconds("agent", pair)

    return of


def nothing(_: str) -> Callable[[Pair], float | None]:
    """No earlier durations."""
    return lambda _: None


def compare(cells: Mapping[str, Durations], slots: int, state: Path) -> dict[str, float]:
    """Every way of running the cells, as multiples of the bound."""
    best = bound(list(cells.values()), slots)
    recorded = {name: dict(seconds) for name, seconds in cells.items()}
    spans = {
        "exact": shared(cells, slots, state, lambda name: recorded[name].get),
        "others": shared(cells, slots, state, from_others(cells)),
        "none": shared(cells, slots, state, nothing),
        "one": shared(cells, slots, state, nothing, at_once=1),
        "people": run_after_run(list(cells.values()), slots),
    }
    return {name: span / best for name, span in spans.items()} | {"bound": best}


def measure(place: Path, quick: bool) -> Section:
    """The table's eighth row."""
    logs, real = inputs.flash(place, quick)
    flash = inputs.durations(logs)
    draws = [users_shape(draw) for draw in range(2 if quick else 25)]
    section = Section(name="makespan", title="Makespan over shared slots")
    head = ["slots", "bound, hours", "durations known", "from other runs", "none known", "one cell at a time", "people"]
    section.table = [["", *head]]
    worst: dict[tuple[str, str], float] = {}
    for slots in SLOTS:
        state = place / f"state-{slots}"
        user = [compare(cells, slots, state) for cells in draws]
        middle = {key: median(one[key] for one in user) for key in user[0]}
        for shape, spans in (("six flash runs", compare(flash, slots, state)), (USER, middle)):
            section.table.append([shape, str(slots), f"{spans['bound'] / 3600:.2f}", *_multiples(spans)])
            for key, value in spans.items():
                worst[shape, key] = max(worst.get((shape, key), 0.0), value)
    section.targets = [
        Target(
            text="six flash runs, durations known: ≤ 1.01 × bound",
            value=f"{worst['six flash runs', 'exact']:.3f} ×",
            met=worst["six flash runs", "exact"] <= 1.01,
            why=LATE,
        ),
        Target(
            text="user's shape, none known: ≤ 1.1 × bound",
            value=f"{worst[USER, 'none']:.3f} ×",
            met=worst[USER, "none"] <= 1.1,
            why=LATE,
        ),
    ]
    kind = "recorded" if real else "generated (the real logs are not at hand)"
    section.text = (
        f"The order of launches and the slots are the real ones (`schedule.launch_order`, `slots.SlotPool`, a lock "
        f"file each), the loop's rule is repeated on a fake clock, at most {RUNS_AT_ONCE} cells at once. Durations of "
        f"the six flash runs are {kind}; the user's shape is five cells of 100 pairs with the user's minutes of "
        f"work and one pair of 60 minutes at a random place in each, the median of {len(draws)} draws. Multiples of "
        "the bound, max(all work / slots, longest pair). *From other runs* expects what the other runs took. *One "
        "cell at a time* is `cooperbench-assets materialize --cells 1`. *People* run one command after another, pairs "
        "in the subset's order."
    )
    return section


LATE = (
    "A long pair that nobody knows to be long may start last; nothing but knowing it, or more cells to fill the slots "
    "beside it, would help."
)


def _multiples(spans: Mapping[str, float]) -> list[str]:
    return [f"{spans[key]:.3f}" for key in ("exact", "others", "none", "one", "people")]
