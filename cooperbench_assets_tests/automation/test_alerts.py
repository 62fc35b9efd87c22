"""Alerts: one message each, to the log and to a webhook that may be anything, and never a secret."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from cooperbench_assets.automation.alert_rules import alerts_of, cell_alerts
from cooperbench_assets.automation.alerts import UI_VARIABLE, WEBHOOK_TRIES, Alert, Notifier, scrub, slack_message
from cooperbench_assets.automation.observation import Observation, Stop, stops_of
from cooperbench_assets.automation.policy import CellState
from cooperbench_assets.automation.webhook import post
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.spec import ExperimentError
from cooperbench_assets_tests.automation.driving import bind_demo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIABLE = "DRILL_HOOK"
TOKEN = "T0000-B0000-abcdefghijk"
ALERT = Alert("breaker", "drill solo seed 0: tripped", "about this", run_id="0123456789abcdef")


class Hook:
    """A webhook on loopback: what it got, and how it behaves."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.answer = 200
        self.silent_until: threading.Event | None = None
        self.redirect: str | None = None
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append(json.loads(body))
                if hook.silent_until is not None:
                    hook.silent_until.wait()
                self.send_response(hook.answer)
                if hook.redirect:
                    self.send_header("Location", hook.redirect)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}/services/{TOKEN}"


@contextmanager
def serving() -> Iterator[Hook]:
    hook = Hook()
    thread = threading.Thread(target=hook.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook.server.shutdown()
        hook.server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving() as one:
        yield one


class Lines:
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, msg: str, /) -> None:
        self.lines.append(msg)

    warning = info


@pytest.fixture
def experiment(tmp_path: Path) -> ExperimentContext:
    return bind_demo(tmp_path, alerts={"webhook_variable": VARIABLE, "base_url": "https://dagster.example:1234/"})


def tell(experiment: ExperimentContext, alert: Alert = ALERT) -> tuple[bool, list[str]]:
    """One alert in a tick of its own."""
    log = Lines()
    return Notifier(experiment, log).send(alert), log.lines


def test_a_message_is_said_once_and_links_to_the_run(
    experiment: ExperimentContext, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, hook.address)
    new, lines = tell(experiment)
    assert new
    run, pairs = "https://dagster.example:1234/runs/0123456789abcdef", "http://127.0.0.1:3001/#/e/drill"
    assert lines == [f"drill solo seed 0: tripped ({run}; pairs: {pairs})"]
    assert hook.got == [{"text": f"drill solo seed 0: tripped <{run}|run 01234567> <{pairs}|pairs>"}]
    assert tell(experiment) == (False, [])
    assert len(hook.got) == 1
    other, _ = tell(experiment, replace(ALERT, about="about that"))
    assert other
    assert len(hook.got) == 2


def test_an_alert_of_a_cell_links_to_its_partition_and_to_its_pairs(
    experiment: ExperimentContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOPERBENCH_ASSETS_VIEWER_URL", "http://127.0.0.1:4001/")
    _, [line, *_] = tell(experiment, Alert("exhausted", "text", "a", partition="solo/0"))
    assert "/assets/drill/pair_results?view=partitions&partition=solo/0" in line
    assert "pairs: http://127.0.0.1:4001/#/e/drill/pairs?setting=solo&seed=0)" in line


def test_a_link_leads_to_the_ui_that_runs_to_that_of_the_project_or_to_that_of_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(UI_VARIABLE, raising=False)
    experiment = bind_demo(tmp_path)

    def link() -> str:
        return Notifier(experiment, Lines()).link(ALERT).removesuffix("/runs/0123456789abcdef")

    assert link() == "http://127.0.0.1:3000"
    monkeypatch.setenv(UI_VARIABLE, "http://127.0.0.1:4000")
    assert link() == "http://127.0.0.1:4000"
    (tmp_path / ".env").write_text(f"{UI_VARIABLE}=https://dagster.example/ui/\n")
    assert link() == "https://dagster.example/ui"
    experiment = bind_demo(tmp_path, alerts={"base_url": "https://other.example"})
    assert link() == "https://other.example"


def test_the_address_may_stand_in_the_projects_env_file(
    experiment: ExperimentContext, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    (experiment.project.root / ".env").write_text(f"{VARIABLE}={hook.address}\n")
    tell(experiment)
    assert len(hook.got) == 1


def test_without_a_webhook_the_log_has_it_alone(tmp_path: Path) -> None:
    new, lines = tell(bind_demo(tmp_path))
    assert (new, len(lines)) == (True, 1)


@pytest.mark.parametrize("behaviour", ["refuses", "answers 500", "redirects", "hangs", "no address", "no host"])
def test_a_webhook_that_does_not_work_fails_nothing_and_hides_its_address(
    experiment: ExperimentContext, hook: Hook, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    monkeypatch.setattr("cooperbench_assets.automation.webhook.post", lambda to, said: post(to, said, seconds=0.5))
    address = hook.address
    if behaviour == "refuses":
        hook.server.server_close()
    elif behaviour == "no address":
        address = f"not-an-address-{TOKEN}"
    elif behaviour == "no host":
        address = f"http://nowhere.invalid:99999/{TOKEN}"
    hook.answer = {"answers 500": 500, "redirects": 302}.get(behaviour, 200)
    hook.redirect = f"{hook.address}/elsewhere" if behaviour == "redirects" else None
    hook.silent_until = threading.Event() if behaviour == "hangs" else None
    monkeypatch.setenv(VARIABLE, address)
    new, lines = tell(experiment)  # One that hangs answers after this only: it is not waited for.
    if hook.silent_until is not None:
        hook.silent_until.set()
    assert new
    assert len(lines) == 2
    assert f"the webhook in {VARIABLE} did not take the message" in lines[1]
    kept = "".join(file.read_text() for file in (experiment.project.data / "alerts").rglob("*.json"))
    assert TOKEN not in f"{lines} {kept}"


def test_what_a_webhook_did_not_take_is_offered_again_and_not_for_ever(
    experiment: ExperimentContext, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, hook.address)
    hook.answer = 503
    tell(experiment)
    hook.answer = 200
    assert tell(experiment) == (False, [])
    assert len(hook.got) == 2
    tell(experiment)
    assert len(hook.got) == 2
    hook.answer = 503
    for _ in range(3 * WEBHOOK_TRIES):
        tell(experiment, replace(ALERT, about="another"))
    assert len(hook.got) == 2 + WEBHOOK_TRIES


def test_after_one_refusal_a_tick_asks_the_webhook_no_more(
    experiment: ExperimentContext, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, hook.address)
    hook.answer = 500
    assert Notifier(experiment, Lines()).send_all([replace(ALERT, about=str(n)) for n in range(5)]) == 5
    assert len(hook.got) == 1


def test_no_secret_is_in_a_message(tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = bind_demo(tmp_path, secrets=["MY_PROVIDER"], alerts={"webhook_variable": VARIABLE})
    monkeypatch.setenv(VARIABLE, hook.address)
    monkeypatch.setenv("MY_PROVIDER", "value-of-the-provider")
    monkeypatch.setenv("SOME_API_KEY", "sk-some-key-123")
    text = (
        f"401 for value-of-the-provider and sk-some-key-123 at https://user:pw@host/x, {hook.address} <!channel> & more"
    )
    _, lines = tell(experiment, replace(ALERT, text=text))
    said = f"{lines} {hook.got}"
    for secret in ("value-of-the-provider", "sk-some-key-123", "user:pw", TOKEN):
        assert secret not in said
    assert "<!channel>" not in str(hook.got), "nobody is called by a text from elsewhere"
    assert "&lt;!channel&gt; &amp; more" in str(hook.got)
    assert scrub(experiment, "nothing secret") == "nothing secret"


def test_a_message_in_slacks_format_without_a_run() -> None:
    said = slack_message("a", "http://x/y", None, "http://v/#/e/x/pairs?a=b&c=d")
    assert said == {"text": "a <http://x/y|look> <http://v/#/e/x/pairs?a=b&amp;c=d|pairs>"}


def test_an_address_in_defs_yaml_is_refused_without_saying_it(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError) as caught:
        bind_demo(tmp_path, alerts={"webhook_variable": f"https://hooks.example/{TOKEN}"})
    assert "alerts.webhook_variable" in str(caught.value)
    assert TOKEN not in str(caught.value)


NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).replace(tzinfo=None)


def seen(experiment: ExperimentContext, **changes: Any) -> Observation:
    """A cell that was launched and owes nothing."""
    of_state = {name: changes.pop(name) for name in list(changes) if name in CellState.__slots__}
    cell = experiment.cells[0]
    return Observation(cell, CellState(cell.cell, NOON, **of_state), **{"tries": 7, **changes})


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"stops": (Stop("agent", "breaker", "5 in a row", "t"),)}, "breaker", "circuit breaker tripped: 5 in a row"),
        ({"stops": (Stop("agent", "budget", "1.00 of 1.00 USD", "t"),)}, "budget", "budget is reached: 1.00 of"),
        ({"families": {"auth": 9}}, "waiting", "9 pairs wait for a person (auth): renew or set the key"),
        ({"exhausted": {"a/1/f1_f2": "agent"}}, "exhausted", "1 pair used up all tries (a/1/f1_f2)"),
        ({"fruitless": 3, "agents": ("a/1/f1_f2",)}, "stuck", "3 runs of it in a row failed"),
    ],
)
def test_each_standing_state_has_its_message(
    experiment: ExperimentContext, changes: dict[str, Any], kind: str, says: str
) -> None:
    [alert] = cell_alerts(seen(experiment, **changes))
    assert alert.kind == kind
    assert says in alert.text
    assert alert.text.startswith("drill solo seed 0: ")
    again = list(cell_alerts(seen(experiment, **changes)))
    assert [one.about for one in again] == [alert.about]


@pytest.mark.parametrize("changes", [{"active_run": "r"}, {"holder": "h"}, {"launched": False}, {"executes": False}])
def test_nothing_is_said_of_a_cell_that_is_being_worked_on_or_that_nobody_launched(
    experiment: ExperimentContext, changes: dict[str, Any]
) -> None:
    assert not list(cell_alerts(seen(experiment, families={"auth": 9}, exhausted={"a": "agent"}, **changes)))


def test_exhausted_pairs_are_told_when_the_others_are_done(experiment: ExperimentContext) -> None:
    assert not list(cell_alerts(seen(experiment, exhausted={"a": "agent"}, agents=("c",))))


def test_the_experiment_is_complete_when_every_cell_is(tmp_path: Path) -> None:
    experiment = bind_demo(tmp_path, settings={"solo": {"mode": "solo", "seeds": [0, 1]}})
    done = [replace(seen(experiment, complete=True), spec=cell) for cell in experiment.cells]
    [alert] = alerts_of(experiment, done, all_complete=True)
    assert alert.text == "drill is complete: 2 of 2 pairs in each of its 2 cells"
    assert not list(alerts_of(experiment, done, all_complete=False))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"over_budget": True}, "budget"),
        ({"over_budget": False}, "breaker"),
        ({"stopped": "the cell's budget is reached"}, "budget"),  # Release 0.1 says it of the cell only.
        ({}, "breaker"),
    ],
)
def test_a_stopped_launch_says_itself_whether_a_budget_stopped_it(said: dict[str, Any], kind: str) -> None:
    launch = {"stage": "agent", "started_at": "2026-01-01T00:00:00+00:00", "stopped": "5 in a row", **said}
    record = {"launches": [launch], "truncated": True, "truncated_reason": "the cell's budget is reached"}
    assert [(stop.kind, stop.reason) for stop in stops_of(record)] == [(kind, launch["stopped"])]
