"""Dagster as a test can wait for it: what it waits for by constants, without a setting, and what it imports anew.

Python imports this by itself where the folder is on PYTHONPATH (``ui``). The daemon looks for backfills, queued runs
and sensors every second, not every 30 or 5. The process of a run is forked off one that has imported all of it, in
place of one that imports all of it for seconds of a core. The webserver checks the text of a query when it first comes,
not each of the dozens of times that pages send it: a third of its work. Other processes are as they are.
"""

import sys

if "dagster._daemon" in sys.orig_argv:
    from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
    from dagster._daemon import controller, sensor

    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
    sensor.MIN_INTERVAL_LOOP_TIME = 1
    QueuedRunCoordinator.dequeue_interval_seconds = 1  # type: ignore[method-assign, assignment]

if "dagster_webserver" in sys.orig_argv:
    from functools import cache
    from typing import Any

    from graphql import parse, validation

    sys.modules["graphql.graphql"].parse = cache(parse)  # type: ignore[attr-defined]
    validate, faults = validation.validate, dict[str, Any]()

    def validated(schema: Any, document: Any, *rules: Any, **options: Any) -> Any:
        """What a text that came before was found to be; there is one schema."""
        text = document.loc.source.body
        if text not in faults:
            faults[text] = validate(schema, document, *rules, **options)
        return faults[text]

    validation.validate = validated  # type: ignore[assignment]

if {"api", "grpc"} <= set(sys.orig_argv):
    import multiprocessing
    from multiprocessing.context import BaseContext

    given = multiprocessing.get_context

    def fork_where_spawned(method: str | None = None) -> BaseContext:
        """The context that a code server gets for its runs."""
        return given("forkserver" if method == "spawn" else method)

    of_dagster = ("dagster._cli", "dagster._grpc.server", "upath.implementations.local")
    ours = ("definitions", "dagster_storage", "store.publish", "report.build")
    multiprocessing.set_forkserver_preload([*of_dagster, *(f"cooperbench_assets.{name}" for name in ours)])
    multiprocessing.get_context = fork_where_spawned  # type: ignore[assignment]
