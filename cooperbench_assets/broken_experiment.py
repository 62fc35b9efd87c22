"""What stands in the UI for an experiment that cannot be used: one asset that says why, and is red.

What belongs here: that asset, its check, and the sensor that keeps the check up to date. What does not: finding out
what is wrong (``experiments``). The experiment's own sensors and schedules are not defined meanwhile; Dagster keeps
whether they are on, and its results stay published.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
import re
from collections.abc import Iterator, Mapping
from typing import Final

import dagster as dg

from cooperbench_assets.experiments import NOT_LOADED
from cooperbench_assets.spec import dagster_name

CHECK: Final = "loads"
WATCH_SECONDS: Final = 60


def broken_definitions(broken: Mapping[str, str]) -> dg.Definitions:
    """Assets, checks and the sensor for experiments that cannot be used.

    Args:
        broken: Why, by the name of the experiment's folder.
    """
    sentences = _by_key(broken)
    assets = [_asset(key, sentence) for key, sentence in sentences.items()]
    return dg.Definitions(assets=assets, asset_checks=[_checks(sentences)], sensors=[_sensor(sentences)])


def _by_key(broken: Mapping[str, str]) -> dict[dg.AssetKey, str]:
    """The sentences by a key for each: a folder may be called anything, and Dagster cleans keys further."""
    found: dict[dg.AssetKey, str] = {}
    taken: set[str] = set()
    for name, sentence in broken.items():
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        while dagster_name(plain) in taken:
            plain += "_"
        taken.add(dagster_name(plain))
        found[dg.AssetKey([plain, "experiment"])] = sentence
    return found


def _asset(key: dg.AssetKey, sentence: str) -> dg.AssetSpec:
    """An asset without an op: nothing can be launched, so that nothing of it is left when the file is correct."""
    text = (
        f"Not loaded: {sentence}\n\nIts published results, and whether its sensors and schedules are on, stay as they "
        "are. Correct the file, then reload the definitions (Deployment)."
    )
    return dg.AssetSpec(key, group_name=NOT_LOADED, kinds={"yaml"}, description=text)


def _checks(sentences: Mapping[dg.AssetKey, str]) -> dg.AssetChecksDefinition:
    specs = [dg.AssetCheckSpec(CHECK, asset=key, description="The experiment can be loaded") for key in sentences]

    @dg.multi_asset_check(name=f"{NOT_LOADED}_{CHECK}", specs=specs, can_subset=True)
    def loads(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        for key, name in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(asset_key=key, check_name=name, passed=False, description=sentences[key])

    return loads


def _sensor(sentences: Mapping[dg.AssetKey, str]) -> dg.SensorDefinition:
    """The sensor that turns the assets red without anybody's doing; it launches nothing."""

    @dg.sensor(
        name=f"{NOT_LOADED}_watch",
        target=None,
        minimum_interval_seconds=WATCH_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Says which experiments are not loaded, and why. Launches nothing.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        said = "\n".join(sorted(sentences.values()))
        if context.cursor == said:
            return dg.SensorResult(skip_reason=said)
        for sentence in sentences.values():
            context.log.warning(f"not loaded: {sentence}")
        events = [
            dg.AssetCheckEvaluation(asset_key=key, check_name=CHECK, passed=False, metadata={}, description=sentence)
            for key, sentence in sentences.items()
        ]
        return dg.SensorResult(skip_reason=said, asset_events=events, cursor=said)

    return watch
