"""What must stay as it was within one cell, so that it never holds two kinds of results or of verdicts.

What belongs here: what is compared of the two sides, which differ: results are made by agents, verdicts by evaluations,
so that a finished cell may be judged by a newer harness on purpose. What does not: collecting it (``provenance``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from cooperbench_assets.execution.errors import RefusedLaunch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.worker.protocol import Stage

KEY: Final = "made_with"
"""Key of provenance.json: for each stage what its results or verdicts were made with."""

_BOTH = ("mode", "merge_policy", "harness_version", "harness_commit", "images")
SIDES: Final[Mapping[Stage, tuple[str, ...]]] = {
    "agent": (
        *_BOTH,
        "messaging",
        "git",
        "model",
        "agent",
        "agent_config_sha256",
        "endpoint_host",
        "endpoint_sha256",
        "task_prompts",
    ),
    "eval": (*_BOTH, "task_files"),
}
"""What counts of a launch of each stage. Where it is a mapping, an image or a folder of the dataset each, only what
both launches have is compared: a subset may grow."""

_WHOLE: Final[Mapping[Stage, str]] = {"agent": "prompts_sha256", "eval": "dataset_sha256"}
"""What older records have in place of the mappings: one hash over a whole subset."""

_NAMED = 3
_GOLD = "gold"


def hash_folders(dataset: Path, pairs: tuple[Pair, ...]) -> dict[str, dict[str, str]]:
    """``task_prompts``: each planned feature's prompt; ``task_files``: all files of each task and planned feature.

    Hidden files are left out. Keys are folders of the dataset, values the beginnings of hashes.
    """
    prompts, files = {}, {}
    features = {f"{pair.task.folder}/feature{n}" for pair in pairs for n in pair.features}
    for folder in sorted({pair.task.folder for pair in pairs} | features):
        place = dataset / folder
        found = sorted(place.iterdir()) if place.is_dir() else []
        contents = {file.name: file.read_bytes() for file in found if file.is_file() and file.name[0] != "."}
        digest = hashlib.sha256()
        for name, content in contents.items():
            digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
        files[folder] = digest.hexdigest()[:16]
        if "feature.md" in contents:
            prompts[folder] = hashlib.sha256(contents["feature.md"]).hexdigest()[:16]
    return {"task_prompts": prompts, "task_files": files}


def made_with(stage: Stage, old: Mapping[str, Any], present: Mapping[str, Any], *, there: bool) -> dict[str, Any]:
    """The record's entry of this launch.

    Args:
        stage: The launch's stage.
        old: The record as it stands.
        present: What this launch would be made with.
        there: Whether the cell holds results, or verdicts, which stay.
    """
    before = _side(stage, old) if there else {}
    now = {key: present.get(key) for key in SIDES[stage]}
    entry = {
        key: {**(before.get(key) or {}), **value} if isinstance(value, dict) else value for key, value in now.items()
    }
    entries: dict[str, Any] = {**old.get(KEY, {}), stage: entry}
    return entries


def refuse_a_mixture(job: CellJob, stage: Stage, old: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Look whether a launch would make results or verdicts of another kind than those that are there.

    What the record does not have is not judged: an older version wrote it.

    Raises:
        RefusedLaunch: saying what changed, and how to go on.
    """
    changed = "; ".join(_changes(stage, old, present))
    if not changed:
        return
    if stage == "agent":
        raise RefusedLaunch(
            f"{job.label}: its results were made otherwise ({changed}); "
            "give the changed experiment a name or run_name of its own, or change it back"
        )
    if job.agent == _GOLD:
        remedy = f"move {job.run_dir} away: gold_baseline is made again, and costs no model"
    else:
        remedy = (
            "change it back, or, to have all of its results judged anew without buying agents, copy "
            f"{job.run_dir.name} without its eval.json files and give the experiment the copy's run_name"
        )
    raise RefusedLaunch(f"{job.label}: its verdicts were made otherwise ({changed}); {remedy}")


def _side(stage: Stage, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a record says of a stage; one of an older version says it of both."""
    found = record.get(KEY, {}).get(stage)
    return found if isinstance(found, dict) else record


def _changes(stage: Stage, old: Mapping[str, Any], present: Mapping[str, Any]) -> Iterator[str]:
    before = _side(stage, old)
    for key in SIDES[stage]:
        was, now = before.get(key), present.get(key)
        if isinstance(was, dict):
            yield from _changed_parts(key, was, now if isinstance(now, dict) else {})
        elif was is not None and was != now:
            yield f"{key} was {_short(was)}, is now {_short(now)}"
    whole = _WHOLE[stage]
    older = before is old and old.get("subset_sha256") == present.get("subset_sha256")
    if older and old.get(whole) is not None and old[whole] != present.get(whole):
        yield f"{whole} was {_short(old[whole])}, is now {_short(present.get(whole))}"


def _changed_parts(key: str, was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    changed = sorted(name for name in was if name in now and was[name] != now[name])
    for name in changed[:_NAMED]:
        yield f"{key}: {name} was {_short(was[name])}, is now {_short(now[name])}"
    if len(changed) > _NAMED:
        yield f"{key}: and {len(changed) - _NAMED} more"


def _short(value: object) -> str:
    text = str(value)
    if len(text) <= 16:
        return text
    # A digest's own characters tell two apart, not the registry's name before them.
    start = text.rfind(":") + 1 if "sha256:" in text else 0
    return f"{text[start : start + 12]}…"
