"""Publishing an experiment's partition tables into the one results store, for whichever asset has written some.

What belongs here: the call. What does not: how it is done (``store.publish``), and which cells an experiment keeps
(``results_store``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cooperbench_assets.assets.tables import STORE_TABLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.store.planned import Plans
    from cooperbench_assets.store.publish import Published


def publish_tables(experiment: ExperimentContext, planned: Callable[[], Plans] | None = None) -> Published:
    """Bring the results store up to what the partition tables hold.

    Args:
        experiment: The experiment.
        planned: Tells the cells that it keeps, by experiment, once nobody else can publish; without it, those that were
            told last.
    """
    # Imported here: DuckDB takes a fifth of the time in which a code location loads, and loading asks for no store.
    from cooperbench_assets.store.publish import publish

    return publish(experiment.project.database, experiment.project.tables, declared=STORE_TABLES, planned=planned)
