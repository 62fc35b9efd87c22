"""What agents were told of a shared git server, in upstream's own words, as trajectories keep them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.prompts import SHARED_GIT, shared_git
from cooperbench_assets.benchmark.provenance import facts_of
from cooperbench_assets_tests.trees import Tree, agent, pairs

ONE, TWO = pairs(2)
WORK = {"role": "assistant", "content": "I look at parser.py"}


def mini(git: bool) -> list[dict[str, str]]:
    """The opening of mini_swe_agent_v2, from the harness that is installed."""
    text = resources.files("cooperbench.agents.mini_swe_agent_v2").joinpath("config/coop.yaml").read_text()
    template = yaml.safe_load(text)["agent"]["instance_template"]
    given = {"agents": ["agent1", "agent2"], "agent_id": "agent1", "task": "Add a colour", "messaging_enabled": True}
    user = jinja2.Template(template).render(**given, git_enabled=git)
    return [{"role": "system", "content": "You can use a shell"}, {"role": "user", "content": user}]


def in_containers(git: bool) -> list[dict[str, str]]:
    """The opening of claude_code and codex, from the harness that is installed."""
    from cooperbench.agents._coop.prompt import build_instruction

    text = build_instruction("Add a colour", agents=["agent1", "agent2"], agent_id="agent1", git_enabled=git)
    return [{"role": "user", "content": text}]


def told(tmp_path: Path, *trajectories: Any, mode: str = "coop") -> bool | None:
    """What the trajectories of a first pair's agents, and then of a second one's, tell."""
    tree = Tree(tmp_path / "logs" / "run", mode)
    for number, content in enumerate(trajectories):
        pair = (ONE, TWO)[number // 2]
        tree.result(pair, agents=[agent(), agent()])
        messages = {"messages": content} if isinstance(content, list) else content
        tree.write(pair, f"agent{pair.features[number % 2]}_traj.json", messages)
    return shared_git(read_run(tree.run_dir, mode))


@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize("opening", [mini, in_containers])
def test_a_prompt_of_upstream_s_tells_of_a_shared_git_server(opening: Any, tmp_path: Path) -> None:
    assert told(tmp_path / "with", [*opening(True), WORK]) is True
    assert told(tmp_path / "without", [*opening(False), WORK]) is None


@pytest.mark.parametrize("sentence", SHARED_GIT)
def test_what_an_agent_reads_or_says_later_tells_nothing(sentence: bytes, tmp_path: Path) -> None:
    later = [{"role": role, "content": sentence.decode()} for role in ("assistant", "user")]
    assert told(tmp_path, [*mini(False), WORK, *later], [*mini(False), *later]) is None


def test_agents_that_died_before_they_began_leave_it_to_the_others(tmp_path: Path) -> None:
    assert told(tmp_path / "a", [], "torn", [], [*mini(True), WORK]) is True
    assert told(tmp_path / "b", [], []) is None


def test_the_cell_says_what_the_prompts_tell(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "logs" / "run", "coop")
    tree.result(ONE, agents=[agent(), agent()])
    tree.write(ONE, f"agent{ONE.features[0]}_traj.json", {"messages": mini(True)})
    assert facts_of(read_run(tree.run_dir, "coop")).git is True
    tree.provenance(origin="executed", git=False)
    assert facts_of(read_run(tree.run_dir, "coop")).git is False


_VALUES = st.recursive(st.none() | st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner, max_size=3))
_TURNS = st.dictionaries(
    st.sampled_from(["role", "content", "extra"]), _VALUES | st.sampled_from(["user", "assistant"])
)


@given(messages=st.lists(_TURNS | _VALUES, max_size=4))
def test_whatever_a_trajectory_holds_it_tells_nothing_without_a_sentence(
    messages: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert told(tmp_path_factory.mktemp("any"), messages) is None
