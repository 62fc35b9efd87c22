"""Words that gave way to the field's own do not come back: neither as names nor in what people read."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

import cooperbench_assets

PACKAGE = Path(cooperbench_assets.__file__).parent
CHECKOUT = PACKAGE.parent

GONE = {
    "BoundExperiment": "ExperimentContext",
    "bound": "experiment",
    "campaign": "retry_generation",
    "new_campaign": "reset_retries",
    "owed": "to_run",
    "struck": "infra_failed",
    "offenders": "affected",
    "look_at": "observe_cell",
    "Look": "Observation, Probe, MarkStyle",
    "Owed": "PairsToRun",
    "Teller": "Notifier",
    "Sign": "FailureSignal",
    "Fate": "OutcomeStyle, OwnerState",
    "Sink": "Exclusions",
    "Keeper": "EngineCleanup",
    "Swept": "CleanupResult, Recovered",
    "no_pair_left_behind": "retries_exhausted",
    "StrikePolicy": "FaultPolicy",
    "Strike": "InjectedFault",
    "strikes": "injected_faults",
    "strikes_agent": "agent_fault",
    "strikes_eval": "eval_fault",
    "StruckError": "InjectedFaultError",
}
"""Names that are gone, and what is said instead."""

STEMS = re.compile(r"(?:^|_)(struck|strikes?|owed|teller|offenders?|campaign)(?:_|$)", re.IGNORECASE)
"""Words that are gone from names, also as a part of one, and also from tests and measurements."""

PHRASES = (
    "infrastructure struck",
    "what mends",
    "came to nothing",
    "to know besides",
    "no YAML",
    "stands there twice",
    "new campaign",
    "no_pair_left_behind",
    "left behind:",
    "is owed",
    "are owed",
)
"""Phrases that are gone from comments, messages and pages."""

MOVED = {
    "adoption": "importing.adopt",
    "analysis.overlap": "benchmark.diffs",
    "analysis.words": "analysis.formatting",
    "assets.secrecy": "assets.redacted_steps",
    "assets.whole": "assets.experiment_assets",
    "automation.assess": "automation.cell_state",
    "automation.dead": "automation.dead_runs",
    "automation.decide": "automation.policy",
    "automation.downstream": "automation.downstream_sensor",
    "automation.look": "automation.observation",
    "automation.nightly": "automation.nightly_schedule",
    "automation.read_again": "automation.read_again_job",
    "automation.retry": "automation.retry_sensor",
    "automation.runs": "automation.dagster_runs",
    "automation.second_verdict": "automation.second_verdict_job",
    "automation.standing": "automation.alert_rules",
    "automation.ticks": "automation.tick_budget",
    "automation.watch": "automation.watch_sensor",
    "bound": "experiment_context",
    "broken": "broken_experiment",
    "bundle": "sharing.bundle",
    "bundle_import": "sharing.bundle_import",
    "defsfile": "defs_file",
    "demo.strikes": "demo.injected_faults",
    "execution.asking": "execution.worker.model_probe",
    "execution.breaker": "execution.planning.circuit_breaker",
    "execution.budget": "execution.planning.budget",
    "execution.calls": "execution.worker.model_calls",
    "execution.cell": "execution.api",
    "execution.child": "execution.worker.child",
    "execution.client": "execution.runner.harness_client",
    "execution.deadline": "execution.attempts.deadlines",
    "execution.docker.agents": "execution.worker.agent_containers",
    "execution.docker.contexts": "execution.sandboxes.docker.contexts",
    "execution.docker.driver": "execution.sandboxes.docker.shell_driver",
    "execution.docker.engine": "execution.sandboxes.docker.engine",
    "execution.docker.git_server": "execution.sandboxes.docker.git_server",
    "execution.docker.image_lock": "execution.sandboxes.docker.image_lock",
    "execution.docker.images": "execution.sandboxes.docker.images",
    "execution.docker.keeper": "execution.sandboxes.docker.cleanup",
    "execution.docker.options": "execution.sandboxes.docker.options",
    "execution.docker.ownership": "execution.sandboxes.docker.ownership",
    "execution.docker.reach": "execution.sandboxes.network",
    "execution.docker.sandbox": "execution.sandboxes.docker.sandbox",
    "execution.docker.session": "execution.sandboxes.docker.session",
    "execution.docker.sweep": "execution.sandboxes.docker.leftovers",
    "execution.docker.wrapper": "execution.sandboxes.docker.agent_cli",
    "execution.guard": "execution.consistency",
    "execution.guarded_redis": "execution.runner.redis_password_proxy",
    "execution.harness": "execution.worker.harness",
    "execution.history": "execution.planning.usage",
    "execution.infrastructure": "execution.infra_errors",
    "execution.launch": "execution.runner.stage_run",
    "execution.lock": "execution.cell_lock",
    "execution.loop": "execution.runner.scheduler",
    "execution.plan": "execution.planning.plan",
    "execution.preflight": "execution.runner.preflight",
    "execution.progress": "execution.runner.progress",
    "execution.promotion": "execution.attempts.promotion",
    "execution.protocol": "execution.worker.protocol",
    "execution.records": "execution.attempts.completion",
    "execution.redis": "execution.runner.message_server",
    "execution.requests": "execution.runner.child_requests",
    "execution.sandboxes.bubblewrap": "execution.sandboxes.process.bubblewrap",
    "execution.sandboxes.grading": "execution.sandboxes.evidence",
    "execution.sandboxes.rewriting": "execution.sandboxes.process.path_rewriting",
    "execution.sandboxes.variables": "execution.sandboxes.process.variables",
    "execution.sandboxes.watched": "execution.sandboxes.monitored",
    "execution.schedule": "execution.planning.launch_order",
    "execution.secrecy": "execution.secret_values",
    "execution.server": "execution.worker.server",
    "execution.servers": "execution.runner.harness_servers",
    "execution.slots": "execution.runner.slots",
    "execution.staging": "execution.attempts.staging",
    "execution.state": "execution.attempts.pair_state",
    "execution.streams": "execution.worker.agent_streams",
    "execution.summary": "execution.runner.run_summary",
    "execution.sweep": "execution.attempts.recovery",
    "execution.tries": "execution.attempts.lifecycle",
    "execution.verdicts": "execution.runner.further_verdicts",
    "execution.waiters": "execution.runner.slot_queue",
    "execution.walk": "benchmark.attempt_tree",
    "execution.watching": "execution.worker.agent_monitor",
    "execution.wire": "execution.worker.wire",
    "launch": "local_runs",
    "newexperiment": "importing.new_experiment",
    "report.charts.money": "report.charts.costs",
    "report.charts.talk": "report.charts.communication",
    "report.standing": "report.headline_filter",
    "stops": "faultpoints",
    "store.books": "store.catalog",
    "store.content": "store.content_hash",
    "store.partition": "store.partition_tables",
    "store.secrecy": "store.redacted_frames",
    "store.workplace": "store.build_dir",
}
"""Modules of the first release, below the package, and where what they held is now."""

STATISTICAL = ("analysis", "report")
"""Rooms in which a bound is a number."""


def sources() -> list[Path]:
    """Modules of the package but the sources of the built-in tasks."""
    return [file for file in PACKAGE.rglob("*.py") if "libraries" not in file.parts]


def names(file: Path) -> set[str]:
    """The identifiers of a module."""
    tokens = tokenize.generate_tokens(io.StringIO(file.read_text()).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_module_uses_a_name_that_is_gone(file: Path) -> None:
    gone = set(GONE) - ({"bound"} if file.relative_to(PACKAGE).parts[0] in STATISTICAL else set())
    assert {name: GONE[name] for name in names(file) & gone} == {}


def test_no_name_holds_a_word_that_is_gone_and_neither_does_a_test() -> None:
    places = [*sources(), *(CHECKOUT / "cooperbench_assets_tests").rglob("*.py"), *(CHECKOUT / "perf").rglob("*.py")]
    wrong = {
        (str(file.relative_to(CHECKOUT)), name)
        for file in places
        for names in re.findall(r"(?:def|class) (\w+)|^ *(\w+) *(?::[^=\n]*)?= ", file.read_text(), re.MULTILINE)
        for name in names
        if STEMS.search(name)
    }
    assert wrong == set()


def test_no_comment_message_or_page_uses_a_phrase_that_is_gone() -> None:
    pages = [*(CHECKOUT / "docs").glob("*.md"), CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"]
    pages += [*(PACKAGE / "report" / "templates").iterdir(), *sources()]
    wrong = [
        (str(page.relative_to(CHECKOUT)), phrase)
        for page in pages
        for phrase in PHRASES
        if re.search(rf"\b{re.escape(phrase)}", page.read_text())
    ]
    assert wrong == []


def test_no_module_of_the_first_release_is_back_and_each_has_its_successor() -> None:
    def file(module: str) -> Path:
        return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")

    assert [old for old in MOVED if file(old).exists()] == []
    assert [new for new in MOVED.values() if not file(new).exists()] == []
    names = re.compile(rf"cooperbench_assets\.({'|'.join(map(re.escape, MOVED))})\b")
    tests = [file for file in (CHECKOUT / "cooperbench_assets_tests").rglob("*.py") if file != Path(__file__)]
    assert [(str(file), found[0]) for file in (*sources(), *tests) if (found := names.search(file.read_text()))] == []


def test_the_glossary_has_the_five_words_of_our_own_and_docs_link_it() -> None:
    text = (CHECKOUT / "docs" / "glossary.md").read_text()
    assert re.findall(r"^\| \*\*(\w+)\*\* \|", text, re.MULTILINE) == ["cell", "pair", "attempt", "outcome", "strict"]
    assert "(docs/glossary.md)" in (CHECKOUT / "README.md").read_text()
    assert "(glossary.md)" in (CHECKOUT / "docs" / "README.md").read_text()
