"""The typed error by which a sandbox says that the machinery failed, and not the tested code.

What belongs here: the error that travels through upstream's error strings, and looking at a finished test run.
What does not: the families and their signs (``benchmark.failures``, which trusts the prefix made here). Standard
library only, that module included: sandboxes run in the harness's environment.
"""

from __future__ import annotations

import errno
import re

from cooperbench_assets.benchmark.failures import classify_output, excerpt

_PREFIX = re.compile(r"\[infra:([a-z_]+)\]\s*(.*)", re.DOTALL)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_EXCERPT = 500


class InfrastructureError(RuntimeError):
    """Something around the work failed; its text starts with ``[infra:<family>]``."""

    def __init__(self, family: str, text: str) -> None:
        super().__init__(f"[infra:{family}] {text}")
        self.family = family
        self.text = text


def read_prefix(text: str) -> tuple[str, str] | None:
    """Family and text of an error that carries the prefix anywhere; None for another one."""
    found = _PREFIX.search(text)
    return (found[1], found[2]) if found else None


def from_exception(error: BaseException) -> InfrastructureError | None:
    """The typed error that `error` is or stands for (a full disk); None where it is of another kind."""
    if isinstance(error, InfrastructureError):
        return error
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f": {error.filename}" if error.filename else ""
        return InfrastructureError("disk", f"{error.strerror}{where}")
    return None


def look_at_test_run(exit_code: int, output: str) -> InfrastructureError | None:
    """The infrastructure failure that a finished test run shows; None for one that can be graded.

    `exit_code` is the shell's: 128 + n for a death by signal n. A crash of the tested code (SIGSEGV, SIGABRT) is
    its own; SIGKILL and SIGTERM came from outside.
    """
    struck = classify_output(output, exit_code) if exit_code != 0 else None
    if struck is None:
        return None
    said = excerpt(output, _EXCERPT)
    text = f"test run ended with exit code {exit_code}"
    return InfrastructureError(struck.family, f"{text}: {said}" if said else text)
