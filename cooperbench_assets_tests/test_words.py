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


def test_the_glossary_has_the_five_words_of_our_own_and_docs_link_it() -> None:
    text = (CHECKOUT / "docs" / "glossary.md").read_text()
    assert re.findall(r"^\| \*\*(\w+)\*\* \|", text, re.MULTILINE) == ["cell", "pair", "attempt", "outcome", "strict"]
    assert "(docs/glossary.md)" in (CHECKOUT / "README.md").read_text()
    assert "(glossary.md)" in (CHECKOUT / "docs" / "README.md").read_text()
