"""What is secret about a cell: who is told it, and keeping it out of all that is written of the cell.

What belongs here: which of a cell's values are secrets, and cleaning what its children left. What does not: finding
them in a text (``redaction``).

Agents' children are told, and nobody else: test programs run what agents wrote, and need no key. Where a backend of
upstream's runs them on other machines, the evaluation itself needs one to get there.
"""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cooperbench_assets.execution.sandboxes.base import OWN_BACKENDS
from cooperbench_assets.redaction import Redactor, blanked, secret_variables, secrets_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cooperbench_assets.execution.attempts.lifecycle import Try
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.worker.protocol import Errand

CONFIG = "agent_config"
"""How the agent config is called in what stands in a secret's place."""


def is_told(job: CellJob, errand: Errand) -> bool:
    """Whether a child is told the cell's secrets."""
    return errand != "eval" or job.execution not in OWN_BACKENDS


def missing(job: CellJob, errand: Errand) -> list[str]:
    """Variables that the experiment names as secrets, that a child would be told, and that are not set."""
    return [name for name in job.secrets if is_told(job, errand) and not os.environ.get(name)]


def variables_for(job: CellJob, errand: Errand) -> dict[str, str]:
    """The variables with secrets that a child is told: those that the experiment names, and those it sets itself."""
    if not is_told(job, errand):
        return {}
    named = {name: os.environ[name] for name in job.secrets if os.environ.get(name)}
    return {name: job.environment[name] for name in secret_variables(job.environment)} | named


def open_environment(job: CellJob) -> dict[str, str]:
    """The variables that the experiment sets and that hold no secret: every child of its harness sees them."""
    secret = secret_variables(job.environment)
    return {name: value for name, value in job.environment.items() if name not in secret}


def redactor_of(job: CellJob) -> Redactor:
    """A redactor that knows every secret of a cell."""
    text = config_text(job)
    return redactor(job.secrets, job.environment, None if text is None else _parsed(text), job.redis_url)


def config_text(job: CellJob) -> str | None:
    """The agent config that a cell's agents are given; None where there is none that can be read."""
    if job.agent_config is None or job.agent_config_text is not None:
        return job.agent_config_text
    try:
        return job.agent_config.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def public_config(job: CellJob) -> str | None:
    """The agent config of a cell as it may be kept: without comments, and without secrets, however short these are."""
    if (text := config_text(job)) is None:
        return None
    plain = yaml.safe_dump(blanked(_parsed(text), CONFIG), sort_keys=False, allow_unicode=True)
    return redactor_of(job).text(plain)


def redactor(
    named: Collection[str],
    environment: Mapping[str, str],
    agent_config: Any,
    address: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Redactor:
    """A redactor that knows the secrets of this process and of an experiment.

    Args:
        named: Variables of this process that are secrets; those whose names say so are found without.
        environment: Variables that the experiment sets.
        agent_config: Its agent config.
        address: An address with a password in it.
        variables: In place of this process's variables.
    """
    own = os.environ if variables is None else variables
    known = secret_variables(own, named) | secret_variables(environment)
    return Redactor(known | secrets_of(agent_config, CONFIG) | secret_variables({"redis_url": address or ""}))


def clean(made: Try) -> None:
    """Take known secrets out of what a try's child said and left; nothing of that is read or kept before."""
    redactor = redactor_of(made.job)
    made.said = made.said and redactor.text(made.said)
    root = made.place.root
    beside = root.iterdir() if root.is_dir() else ()
    below = (Path(folder, name) for folder, _, names in os.walk(root / "logs") for name in names)
    for file in (*beside, *below):
        _clean_file(file, redactor, root / ".clean")


def _clean_file(file: Path, redactor: Redactor, new: Path) -> None:
    """Put a file without known secrets in place of one that holds some; any other is not touched.

    A link is left alone, and so is what is no file: what it leads to is not the child's.
    """
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return
        with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as data:
            if not redactor.knows(data):
                return
            new.write_bytes(redactor.values(data[:]))
    except FileNotFoundError:
        return
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(file)


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
