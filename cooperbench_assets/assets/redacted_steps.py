"""Keeping an experiment's secrets out of Dagster's storage: what a step logs, and what it raises.

What belongs here: the one place that both pass. What does not: metadata and tables, which are made of readings
without secrets (``experiment_context``).
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cooperbench_assets.redaction import clean_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.redaction import Redactor


@contextmanager
def keeping_secrets(experiment: ExperimentContext, log: logging.Logger) -> Iterator[None]:
    """Log and raise nothing that holds a secret of the experiment.

    Args:
        experiment: The experiment.
        log: The step's log.
    """
    redactor = experiment.redactor
    hiding = _Hiding(redactor)
    log.addFilter(hiding)
    try:
        yield
    except Exception as error:
        clean = clean_error(error, redactor)
        if clean is error:
            raise
        raise clean from None
    finally:
        log.removeFilter(hiding)


class _Hiding(logging.Filter):
    """Takes secrets out of records before any handler sees them."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redactor.text(record.getMessage()), None
        return True
