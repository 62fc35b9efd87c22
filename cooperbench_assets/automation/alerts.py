"""Telling people, once: to the log, and to a webhook if the experiment names one.

What belongs here: saying one message once, over ticks and restarts, and without a secret in it. What does not: what
there is to say (``alert_rules``). A webhook that is dead, slow or wrong fails nothing, and delays a tick by some
seconds at most.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, Protocol
from urllib.parse import quote

import msgspec
from dotenv import dotenv_values
from filelock import FileLock

from cooperbench_assets.assets.keys import cell_of
from cooperbench_assets.experiment_context import redactor_of
from cooperbench_assets.files import write_atomically
from cooperbench_assets.viewer_links import cell_list_page, experiment_page, viewer_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from cooperbench_assets.experiment_context import ExperimentContext

WEBHOOK_SECONDS_A_TICK: Final = 8.0
"""A tick that has waited for a webhook for so long leaves the other messages to later ones: it has a minute."""

LOCK_SECONDS: Final = 10.0
"""How long to wait for another tick that says something."""

WEBHOOK_TRIES: Final = 5
"""How often a message is offered to a webhook that does not take it, once a tick."""

LONGEST_TEXT: Final = 1500

UI_VARIABLE: Final = "COOPERBENCH_ASSETS_UI_URL"
"""Environment variable with the address of the Dagster UI, for experiments that name none."""

USUAL_UI: Final = "http://127.0.0.1:3000"

Kind = Literal["run_failed", "breaker", "budget", "exhausted", "waiting", "stuck", "problem", "complete"]


class Log(Protocol):
    """What a tick's log offers."""

    def info(self, msg: str, /) -> None:
        """Say something."""

    def warning(self, msg: str, /) -> None:
        """Say something that a person should look at."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One message."""

    kind: Kind
    text: str
    about: str
    """What makes it this message and no other: said again, the same `about` is silent."""

    run_id: str | None = None
    partition: str | None = None


class Marker(msgspec.Struct):
    """What is kept of a message that was said."""

    kind: str
    about: str
    text: str
    said_at: str
    delivered: bool | None = None
    """Whether the webhook took it; None where none is named."""

    tries: int = 0


_MARKER: Final = msgspec.json.Decoder(Marker)


@dataclass
class Notifier:
    """Says an experiment's alerts during one tick."""

    experiment: ExperimentContext
    log: Log
    clock: Callable[[], float] = time.monotonic
    _dead: bool = field(default=False, init=False)
    _waited: float = field(default=0.0, init=False)

    @property
    def folder(self) -> Path:
        """Where the experiment's markers lie, one for each message that was said."""
        return self.experiment.project.data / "alerts" / self.experiment.name

    def send_all(self, alerts: Iterable[Alert]) -> int:
        """Say what has not been said; returns how many were new. Whatever happens to it, it raises nothing."""
        return sum([self._send_or_log(alert) for alert in alerts])

    def _send_or_log(self, alert: Alert) -> bool:
        """Say one message; one that cannot be recorded (a full disk, say) is in the log alone, and said again."""
        try:
            return self.send(alert)
        except OSError as error:
            text = scrub(self.experiment, alert.text)[:LONGEST_TEXT]
            self.log.warning(f"{text} ({self.links(alert)}); it could not be recorded, and is said again: {error}")
            return True

    def is_settled(self, kind: Kind, about: str) -> bool:
        """Whether a message was said, and the webhook has it or will not get it any more."""
        marker = _read(self._file(kind, about))
        if marker is None:
            return False
        over = marker.delivered or marker.tries >= WEBHOOK_TRIES
        return self.experiment.spec.alerts.webhook_variable is None or bool(over)

    def _file(self, kind: Kind, about: str) -> Path:
        return self.folder / f"{kind}-{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"

    def send(self, alert: Alert) -> bool:
        """Say one message, unless it was said before.

        A message that the webhook did not take is offered again on later ticks, `WEBHOOK_TRIES` times in all; the
        log has it once. Returns whether it is new.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self._file(alert.kind, alert.about)
        with FileLock(self.folder / ".lock", timeout=LOCK_SECONDS):
            marker = _read(file)
            new = marker is None
            if marker is None:
                text = scrub(self.experiment, alert.text)[:LONGEST_TEXT]
                marker = Marker(alert.kind, alert.about, text, datetime.now(UTC).isoformat(timespec="seconds"))
                _write(file, marker)
                self.log.warning(f"{text} ({self.links(alert)})")
            if not marker.delivered and marker.tries < WEBHOOK_TRIES:
                self._offer(alert, marker, file)
        return new

    def _offer(self, alert: Alert, marker: Marker, file: Path) -> None:
        name = self.experiment.spec.alerts.webhook_variable
        if name is None or self._dead or self._waited >= WEBHOOK_SECONDS_A_TICK:
            return
        began = self.clock()
        address = variables(self.experiment).get(name, "").strip()
        marker.tries += 1
        from cooperbench_assets.automation import webhook  # HTTP is imported where there is something to say.

        message = slack_message(marker.text, self.link(alert), alert.run_id, self.pairs(alert))
        problem = webhook.post(address, message)
        self._waited += self.clock() - began
        marker.delivered = problem is None
        self._dead = problem is not None
        _write(file, marker)
        if problem is not None:
            self.log.info(f"the webhook in {name} did not take the message: {problem}")

    def link(self, alert: Alert) -> str:
        """Where to look at it in the UI."""
        base = ui_address(self.experiment).rstrip("/")
        if alert.run_id is not None:
            return f"{base}/runs/{alert.run_id}"
        page = f"{base}/assets/{quote(self.experiment.name)}/pair_results"
        return page if alert.partition is None else f"{page}?view=partitions&partition={quote(alert.partition)}"

    def pairs(self, alert: Alert) -> str:
        """Where the pairs that it is about are, in the viewer."""
        base = viewer_address(self.experiment.project.root)
        if alert.partition is None:
            return base + experiment_page(self.experiment.name)
        return base + cell_list_page(cell_of(self.experiment.name, alert.partition))

    def links(self, alert: Alert) -> str:
        """Both, as the log has them."""
        return f"{self.link(alert)}; pairs: {self.pairs(alert)}"


def variables(experiment: ExperimentContext) -> Mapping[str, str]:
    """The environment, and what the project's .env adds to it: Dagster's daemon may have read it earlier."""
    written = dotenv_values(experiment.project.root / ".env")
    return {**{name: value for name, value in written.items() if value is not None}, **os.environ}


def ui_address(experiment: ExperimentContext) -> str:
    """Address of the Dagster UI: the experiment's, the project's (.env), where it runs, or the usual one."""
    # .env first: `make ui` sets the variable to the port on loopback, which may not be the address people use.
    written = dotenv_values(experiment.project.root / ".env").get(UI_VARIABLE)
    return experiment.spec.alerts.base_url or written or os.environ.get(UI_VARIABLE) or USUAL_UI


def scrub(experiment: ExperimentContext, text: str) -> str:
    """A text without secrets, those in the project's .env included."""
    return redactor_of(experiment.spec, variables(experiment)).text(text)


def slack_message(text: str, link: str, run_id: str | None, pairs: str) -> dict[str, str]:
    """A message in Slack's format: its three special characters escaped, the links at the end."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    run = f"run {run_id[:8]}" if run_id else "look"
    return {"text": f"{escaped} <{link}|{run}> <{pairs.replace('&', '&amp;')}|pairs>"}


def _read(file: Path) -> Marker | None:
    try:
        return _MARKER.decode(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def _write(file: Path, marker: Marker) -> None:
    write_atomically(file, msgspec.json.format(msgspec.json.encode(marker), indent=2))
