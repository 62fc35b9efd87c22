from __future__ import annotations

from pathlib import Path

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.logtree import RunReading
from cooperbench_assets.benchmark.records import ConfigRecord
from cooperbench_assets.importing.new_experiment import NewExperiment, NewSetting, text_of
from cooperbench_assets.importing.run_templates import FoundRun, Survey

NAMES = st.text(min_size=1, max_size=12)


def survey(folder: str, seed: int, model: str) -> Survey:
    reading = RunReading(Path(folder), True, "solo", config=ConfigRecord(model=model, agent_framework="a"))
    return Survey(FoundRun("solo", seed, Path(folder)), reading)


@given(models=st.tuples(NAMES, NAMES), folder=NAMES, path=NAMES)
@example(models=("m", "m\n  nightly: '@daily'"), folder="run", path="p")
@example(models=("2026-31-12", "2026-31-12"), folder="a\nb", path="logs/🦄")
def test_whatever_runs_and_models_are_called_defs_yaml_says_it_as_it_is(
    models: tuple[str, str], folder: str, path: str
) -> None:
    runs = (survey(folder, 0, models[0]), survey(f"{folder}-seed1", 1, models[1]))
    new = NewExperiment("x", path, path, (NewSetting("solo", "solo", True, folder, runs),))
    read = yaml.safe_load(text_of(new))["attributes"]
    assert read == {
        "execution": "none",
        **({"model_name": models[0]} if models[0] == models[1] else {}),
        "agent": "a",
        "subset": path,
        "logs": path,
        "settings": {"solo": {"mode": "solo", "run_name": folder, "seeds": [0, 1]}},
    }
