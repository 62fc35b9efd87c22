"""The built-in benchmark: small libraries, features, tests, and the scripted agents that work on them.

What belongs here: everything that is made up for the demo. What does not: anything that other experiments need.
Standard library only, because the harness imports the agents where nothing else of ours is installed. The
agents are scripted and call no model: their results say nothing about any.

``build_dataset(root)`` makes the dataset; the harness finds the agents by ``DEMO_MODULE``; ``eval_environment(…)``
gives the variables with which some evaluations of a cell fail by injected faults.
"""

from __future__ import annotations

from typing import Final

from .dataset import DatasetError, build_dataset
from .injected_faults import eval_environment

DEMO_AGENT: Final = "scripted"
"""Name under which the harness knows the scripted agents."""

DEMO_MODEL: Final = "scripted/demo"
"""What stands for a model in results of the demo."""

DEMO_MODULE: Final = "cooperbench_assets.demo.agents"
"""Module that registers the agents; goes into ``COOPERBENCH_EXTERNAL_AGENTS``."""

__all__ = ["DEMO_AGENT", "DEMO_MODEL", "DEMO_MODULE", "DatasetError", "build_dataset", "eval_environment"]
