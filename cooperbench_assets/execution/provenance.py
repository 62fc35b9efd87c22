"""`provenance.json`: what made a run, as far as the one who ran it knows.

What belongs here: collecting, comparing and writing it. What does not: what an imported tree's files let one guess
(``benchmark``). Values of variables are never written, only names; no secret of an agent config is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
import yaml

from cooperbench_assets.benchmark.harness_version import merge_policy
from cooperbench_assets.benchmark.jsonfiles import BadFileError, open_regular, read_bytes
from cooperbench_assets.execution.attempts.records import now
from cooperbench_assets.execution.consistency import KEY, hash_folders, made_with, refuse_a_mixture
from cooperbench_assets.execution.errors import LaunchError, RefusedLaunch
from cooperbench_assets.execution.secret_values import public_config
from cooperbench_assets.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.worker.protocol import Stage

PROVENANCE_FILE: Final = "provenance.json"
LAUNCHES_KEPT: Final = 50

_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "reasoning_effort", "thinking", "seed", "timeout")
_AGENTS_OWN = (
    "messaging",
    "git",
    "model",
    "agent",
    "agent_config",
    "agent_config_sha256",
    "endpoint_host",
    "endpoint_sha256",
    "sampling",
    "prompts_sha256",
)
"""What a launch of evaluations says nothing of where there are results."""

_NOT_OF_THE_RUN = ("task_prompts", "task_files", "images")
"""What stands in the record for each stage only (``guard``)."""


def read_provenance(run_dir: Path) -> dict[str, Any]:
    """The record as it stands; empty if there is none, or none that can be read."""
    try:
        content = msgspec.json.decode(read_bytes(str(run_dir / PROVENANCE_FILE)))
    except (BadFileError, msgspec.DecodeError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_provenance(run_dir: Path, record: Mapping[str, Any]) -> None:
    """Put the record in place of the old one."""
    encoded = msgspec.json.format(msgspec.json.encode(record), indent=2)
    write_atomically(run_dir / PROVENANCE_FILE, encoded)


def describe(
    job: CellJob, harness: Mapping[str, Any], slots: Mapping[str, int], images: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What makes the results of this cell now, as far as it is the same for every pair.

    Args:
        job: The cell.
        harness: version, commit, dirty, python and packages of the harness.
        slots: Sizes of the machine's slot pools.
        images: Task image → its identity, of those that the launch uses.

    Raises:
        LaunchError: if the agent config file is missing or is invalid YAML.
    """
    text = _config_text(job)
    version = harness.get("version")
    record: dict[str, Any] = {
        "experiment": job.experiment,
        "setting": job.setting,
        "seed": job.seed,
        "run_name": job.run_name,
        "mode": job.mode,
        "messaging": job.messaging,
        "git": job.git,
        "model": job.model_name,
        "agent": job.agent,
        "agent_config": public_config(job),
        "agent_config_sha256": None if text is None else hashlib.sha256(text.encode()).hexdigest(),
        **_model_calls(text, job),
        "harness_version": version,
        "harness_commit": harness.get("commit"),
        "harness_dirty": harness.get("dirty"),
        "harness_python": harness.get("python_version"),
        "packages": dict(harness.get("packages") or {}),
        "merge_policy": merge_policy(version, job.mode),
        "analysis_sha256": None if job.analysis is None else hashlib.sha256(job.analysis.encode()).hexdigest(),
        "subset": job.subset.name,
        "subset_sha256": job.subset.sha256,
        **hash_tasks(job.dataset, job.subset.pairs),
        **hash_folders(job.dataset, job.subset.pairs),
        "images": dict(images or {}),
        "execution": job.execution,
        "limits": asdict(job.limits),
        "variables": sorted({*job.environment, *job.secrets}),
        "slots": dict(slots),
        "host": {
            "name": socket.gethostname(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        },
    }
    return record


def _config_text(job: CellJob) -> str | None:
    if job.agent_config is None:
        return None
    if job.agent_config_text is not None:
        return job.agent_config_text
    try:
        text = job.agent_config.read_text()
        yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(
            f"{job.label}: agent config {job.agent_config} cannot be read ({error}); "
            "the harness would run without it: write it again, or correct agent_config in defs.yaml"
        ) from error
    except yaml.YAMLError as error:
        raise LaunchError(f"{job.label}: agent config {job.agent_config} is invalid YAML: {error}") from error
    return text


def _model_calls(text: str | None, job: CellJob) -> dict[str, Any]:
    """Host of the endpoint and the settings of the model's calls, from the agent config and the environment."""
    content = yaml.safe_load(text) if text else {}
    config = content.get("config", content) if isinstance(content, dict) else {}
    model = config.get("model", {}) if isinstance(config, dict) else {}
    kwargs = model.get("model_kwargs", {}) if isinstance(model, dict) else {}
    endpoint = kwargs.get("api_base") or kwargs.get("base_url")
    if endpoint is None:
        named = (value for name, value in job.environment.items() if name.endswith(("_API_BASE", "_BASE_URL")))
        endpoint = next(named, None)
    host, address = _endpoint(endpoint) if isinstance(endpoint, str) else (None, None)
    return {
        "endpoint_host": host,
        "endpoint_sha256": None if address is None else hashlib.sha256(address.encode()).hexdigest(),
        "sampling": {key: kwargs[key] for key in _SAMPLING if key in kwargs},
    }


def _endpoint(address: str) -> tuple[str | None, str]:
    """Host of an endpoint, and what tells it from others: without user, port and query, which a server may change."""
    parts = urlsplit(address)
    return parts.hostname, f"{parts.hostname}{parts.path.rstrip('/')}"


def hash_tasks(dataset: Path, pairs: Iterable[Pair]) -> dict[str, str]:
    """Hashes over the planned tasks: all files beside and in the planned features, and the prompts alone.

    A task's image is not among them: folders below the task other than those of features are left out.
    """
    files, prompts = hashlib.sha256(), hashlib.sha256()
    planned: dict[str, set[int]] = {}
    for pair in pairs:
        planned.setdefault(pair.task.folder, set()).update(pair.features)
    for task in sorted(planned):
        folders = [dataset / task, *(dataset / task / f"feature{n}" for n in sorted(planned[task]))]
        for folder in folders:
            for file in sorted(folder.iterdir()) if folder.is_dir() else ():
                if file.is_file():
                    digest = hashlib.sha256(file.read_bytes()).hexdigest()
                    entry = f"{file.relative_to(dataset).as_posix()} {digest}\n".encode()
                    files.update(entry)
                    if file.name == "feature.md":
                        prompts.update(entry)
    return {"dataset_sha256": files.hexdigest(), "prompts_sha256": prompts.hexdigest()}


def begin(
    job: CellJob,
    stage: Stage,
    what: str,
    present: Mapping[str, Any],
    retry_generation: int | None,
    *,
    has_results: bool,
    has_verdicts: bool = False,
    fresh: bool = False,
    whole: bool = True,
) -> int:
    """Record that a launch begins.

    Args:
        job: The cell.
        stage: The launch's stage.
        what: What launched it.
        present: What `describe` says of this launch.
        retry_generation: Which one the launch's tries count in; None where they count in none (a second verdict).
        has_results: Whether the run folder holds results already.
        has_verdicts: Whether it holds verdicts already.
        fresh: Whether the launch makes further verdicts beside the first: what made those stays on record.
        whole: Whether the launch is about all pairs of the cell, not a chosen few. Once one was, automation may
            finish what it left; a smoke run of five pairs is no wish for the other 95.

    Returns:
        The number of the launch among those recorded, for `end`.

    Raises:
        RefusedLaunch: if the cell's results or verdicts were made otherwise, so that one cell would hold two kinds.
    """
    old = _readable(job, has_results=has_results)
    there = has_results if stage == "agent" else has_verdicts
    if there and old:
        refuse_a_mixture(job, stage, old, present)
    made = {} if fresh else _made(stage, old, present, has_results=has_results, there=there)
    origin = old.get("origin") or ("adopted" if has_results else "executed")
    launches = [
        *old.get("launches", []),
        {"stage": stage, "what": what, "started_at": now(), **_differing(old, present)},
    ]
    record = {
        **old,
        **made,
        "origin": origin,
        "truncated": old.get("truncated", False),
        "campaigns": {**old.get("campaigns", {}), **({} if retry_generation is None else {stage: retry_generation})},
        "asked_whole": bool(old.get("asked_whole")) or (whole and stage == "agent"),
        "started_at": old.get("started_at") or now(),
        "ended_at": None,
        "launches": launches[-LAUNCHES_KEPT:],
    }
    write_provenance(job.run_dir, record)
    return len(record["launches"]) - 1


def _readable(job: CellJob, *, has_results: bool) -> dict[str, Any]:
    """The record as it stands.

    Raises:
        RefusedLaunch: if there are results, and a record of them that cannot be read.
    """
    old = read_provenance(job.run_dir)
    if has_results and not old and (job.run_dir / PROVENANCE_FILE).exists():
        raise RefusedLaunch(
            f"{job.label}: {job.run_dir / PROVENANCE_FILE} cannot be read, so that nothing says how the results beside "
            "it were made: restore it, or, if they were made as defs.yaml says now, delete it and launch again"
        )
    return old


def _made(
    stage: Stage, old: Mapping[str, Any], present: Mapping[str, Any], *, has_results: bool, there: bool
) -> dict[str, Any]:
    """What a launch says in the record of what makes the run."""
    made = {key: value for key, value in present.items() if key not in _NOT_OF_THE_RUN}
    if stage == "eval" and has_results:
        made.update({key: old[key] for key in _AGENTS_OWN if key in old})
    if has_results:
        # What is declared once there are results was not declared before them.
        made["analysis_sha256"] = old.get("analysis_sha256")
    if has_results and old.get("origin", "adopted") == "adopted" and old.get("git") is None and not present.get("git"):
        # defs.yaml is silent, and so is the run: that its agents shared no git server is no fact.
        made["git"] = None
    return {**made, KEY: made_with(stage, old, present, there=there)}


def end(run_dir: Path, launch: int, changes: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Record that a launch ended: `changes` to the record, and what the launch says of itself."""
    record = read_provenance(run_dir)
    launches = record.get("launches", [])
    if launch < len(launches):
        launches[launch].update(said, ended_at=now())
    write_provenance(run_dir, {**record, **changes, "ended_at": now(), "launches": launches})


def _differing(old: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """What a launch did otherwise than the record said: kept with the launch, because the record moves on."""
    keys = ("harness_version", "harness_commit", "execution", "subset_sha256", "dataset_sha256", "limits")
    return {f"changed_{key}": present.get(key) for key in keys if old and old.get(key) != present.get(key)}


def answered_model(trajectory: Path) -> str | None:
    """The id by which the model's endpoint called itself, from the first replies of a trajectory."""
    try:
        descriptor, _ = open_regular(str(trajectory))
        with open(descriptor, "rb") as file:  # noqa: PTH123 - the descriptor is open already
            head = file.read(1 << 20)
    except OSError:
        return None
    _, found, messages = head.partition(b'"messages"')
    match = re.search(rb'"response"\s*:\s*\{[^{}]*?"model"\s*:\s*"([^"\\]{1,200})"', messages) if found else None
    return match[1].decode("utf-8", "replace") if match else None
