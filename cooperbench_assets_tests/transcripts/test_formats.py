"""The samples of every format: steps, texts, and when messages were sent and read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.transcripts.listing import pair_rows
from cooperbench_assets.transcripts.model import Agent, PairPage, Text, encode
from cooperbench_assets.transcripts.page import chunk, pair_page, raw_part
from cooperbench_assets.transcripts.sources import Source, SourceError, source_of_logs
from cooperbench_assets_tests.trees import Tree

LOGS = Path(__file__).parent / "samples" / "logs"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return source_of_logs(LOGS, tmp_path_factory.mktemp("cache"))


def page(source: Source, name: str) -> PairPage:
    return pair_page(source, f"{name}-coop-comm/coop/slotbook_task/8/f4_f5")


def texts(source: Source, page: PairPage, agent: Agent) -> list[list[Text]]:
    """The texts of every step of an agent."""
    found: list[list[Text]] = [[] for _ in agent.steps]
    for number in range(agent.chunks):
        for body in chunk(source, page.row.path, agent.name, number).steps:
            found[body.index] += body.texts
    return found


FORMATS = {
    "mini": "mini_swe_agent_v2",
    "claude": "claude_code",
    "codex": "codex",
    "swe": "swe_agent",
    "openhands": "openhands",
    "unknown": "raw",
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_recognised_by_its_content(source: Source, name: str) -> None:
    found = page(source, name)
    assert [agent.format for agent in found.agents if agent.transcript] == [FORMATS[name]] * (1 + (name != "unknown"))
    assert {patch.lines for patch in found.patches} == {21}
    assert found.merge is not None
    assert found.merge.conflict
    assert [(one.passed, one.tests_failed, one.output) for one in found.tests] == [(None, None, None)] * 2


def test_the_harness_s_own_trajectory_has_times_costs_exit_codes_and_what_goes_to_the_shared_remote(
    source: Source,
) -> None:
    found = page(source, "mini")
    for agent in found.agents:
        kinds = [step.kind for step in agent.steps]
        assert kinds == ["prompt", "step", "step", "step", "step"]
        assert [step.number for step in agent.steps] == [None, 1, 2, 3, 4]
        called = agent.steps[1:]
        assert all(step.at and step.ended_at and step.duration_seconds for step in called[:-1])
        assert sum(step.cost_usd or 0 for step in called) == pytest.approx(agent.cost_usd)
        assert {step.input_tokens for step in called} == {1000}
        assert {step.exit_code for step in called[:-1]} == {0}
        assert called[2].git == ["push"]
    one, two = found.messages or []
    assert (one.sent_index, one.read, one.sent_at) == (1, "read", None)
    assert (two.sent_index, two.read) == (1, "read")
    assert two.read_at == found.agents[0].steps[2].at
    steps = texts(source, found, found.agents[0])
    assert [text.kind for text in steps[2]] == ["message", "thought", "command"]
    assert steps[3][-1].text.startswith("opened PR for agent1: work\n")
    assert [text.label for text in steps[4] if text.kind == "note"] == ["exit"]


def test_claude_codes_blocks_are_one_step_a_message_with_what_was_received_in_its_output(source: Source) -> None:
    found = page(source, "claude")
    first, second = found.agents
    assert first.transcript == "agent1_session.jsonl"
    assert [step.number for step in first.steps] == [None, 1, 2, 3, 4]
    assert [text.kind for text in texts(source, found, first)[1]] == ["thought", "thought", "command", "output"]
    assert [text.label for text in texts(source, found, first)[2]] == ["Bash", "Read", None, None]
    assert (first.steps[1].input_tokens, first.steps[1].duration_seconds) == (1000, 5.5)
    assert second.steps[3].git == ["push", "fetch"]
    messages = found.messages or []
    assert [message.sent_index for message in messages] == [1, 2, 3]
    assert [(message.read, message.read_index) for message in messages] == [
        ("read", 2),
        ("read", 3),
        ("not recorded", None),
    ]


def test_codex_is_cut_at_its_commands_and_one_that_never_ended_is_seen(source: Source) -> None:
    found = page(source, "codex")
    first, second = found.agents
    steps = texts(source, found, first)
    assert [[text.kind for text in step] for step in steps] == [
        ["note", "note"],
        ["thought", "thought", "command", "output"],
        ["command", "output"],
        ["command", "command", "output"],
        ["thought", "note"],
    ]
    assert not first.timed
    assert "sleep 600" in texts(source, found, second)[-1][-1].text
    assert second.steps[3].exit_code == 1
    assert [(one.sent_index, one.read_index) for one in found.messages or []] == [(1, 2), (2, 3), (3, None)]


def test_what_a_format_does_not_hold_is_not_recorded(source: Source) -> None:
    for name in ("swe", "openhands"):
        found = page(source, name)
        (message,) = found.messages or []
        assert (message.read, message.read_index, message.read_at) == ("not recorded", None, None)
        assert message.sent_index is not None
        assert not any(agent.timed for agent in found.agents)
    assert any("previews" in sentence for sentence in page(source, "openhands").not_kept)


def test_an_unknown_format_is_shown_as_it_is_and_said(source: Source) -> None:
    found = page(source, "unknown")
    (agent,) = [agent for agent in found.agents if agent.transcript]
    ((whole,),) = texts(source, found, agent)
    assert whole.kind == "raw"
    assert whole.text == (LOGS / found.row.path / str(agent.transcript)).read_text()
    assert any("no format" in one.reason for one in found.left_out)
    assert "No transcript of agent2 was kept: its steps are not recorded." in found.not_kept


def test_both_patches_change_the_same_place_and_their_hunks_say_so(source: Source) -> None:
    found = page(source, "mini")
    for patch in found.patches:
        assert patch.text is not None
        lines = patch.text.split("\n")
        assert patch.overlapping
        assert all(lines[number].startswith("@@ ") for number in patch.overlapping)


def test_an_index_is_made_again_when_the_file_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "run-solo" / "solo" / "x_task" / "1" / "f1_f2"
    folder.mkdir(parents=True)
    file = folder / "solo_traj.json"
    kept = source_of_logs(tmp_path / "logs", tmp_path / "cache")
    for words in ("first", "second"):
        file.write_text('{"messages": [{"role": "assistant", "content": "' + words + '"}]}')
        (row,) = pair_rows(kept)
        assert [step.summary for step in pair_page(kept, row.path).agents[0].steps] == [words]
        assert list((tmp_path / "cache").iterdir())


def test_runs_that_are_called_like_a_mode_are_runs_of_their_folder(tmp_path: Path) -> None:
    for run, mode in (("coop", "coop"), ("other", "coop"), ("solo", "solo")):
        (tmp_path / run / mode / "slotbook_task").mkdir(parents=True)
    (tmp_path / "solo" / "config.json").touch()
    found = [(cell.run_dir.name, cell.mode) for cell in source_of_logs(tmp_path).cells]
    assert found == [("coop", "coop"), ("other", "coop"), ("solo", "solo")]
    for run in ("coop", "solo"):
        assert [cell.run_dir for cell in source_of_logs(tmp_path / run).cells] == [tmp_path / run]


def test_an_earlier_try_is_read_as_the_pair_itself_is(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "logs" / "run-coop", "coop")
    pair = Pair("slotbook_task", 8, (4, 5))
    record = tree.attempt(pair, "agent", 1, outcome="infra_error", family="auth", evidence="401")
    tree.attempt(pair, "agent", 2, promoted=True)
    shutil.copytree(LOGS / "mini-coop-comm" / "coop" / pair.name, record.parent, dirs_exist_ok=True)
    shutil.copytree(LOGS / "claude-coop-comm" / "coop" / pair.name, tree.folder(pair))
    kept = source_of_logs(tmp_path / "logs", tmp_path / "cache")
    path = f"run-coop/coop/{pair.name}"
    now, before = pair_page(kept, path), pair_page(kept, path, "agent-1")
    assert [(one.n, one.page) for one in now.tries] == [(1, "agent-1"), (2, None)]
    assert (now.attempt, before.attempt, before.tries) == (None, "agent-1", now.tries)
    assert [agent.format for page in (now, before) for agent in page.agents] == [
        *["claude_code"] * 2,
        *["mini_swe_agent_v2"] * 2,
    ]
    assert [one.read for one in before.messages or []] == ["read", "read"]
    assert all(file.name.startswith(f"attempts/coop/{pair.name}/agent-1/") for file in before.files)
    assert chunk(kept, path, "agent1", 0, "agent-1").steps != chunk(kept, path, "agent1", 0).steps
    for name in ("agent-2", "agent-3", "..", ""):
        with pytest.raises(SourceError, match="has no try"):
            pair_page(kept, path, name)


def test_a_context_that_was_cut_is_said_and_leaves_open_what_was_read(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "cut-coop" / "coop" / "slotbook_task" / "8" / "f4_f5"
    shutil.copytree(LOGS / "mini-coop-comm" / "coop" / "slotbook_task" / "8" / "f4_f5", folder)
    file = folder / "agent5_traj.json"
    content = json.loads(file.read_text())
    heard = next(n for n, one in enumerate(content["messages"]) if one["content"].startswith("[Message from"))
    content["messages"][2 : heard + 1] = [{"role": "assistant", "content": "So far …", "extra": {"summary": True}}]
    file.write_text(json.dumps(content))
    (folder / "agent2_full_traj.json").write_text('{"segments": []}')
    found = pair_page(source_of_logs(tmp_path / "logs", tmp_path / "cache"), "cut-coop/coop/slotbook_task/8/f4_f5")
    message = next(one for one in found.messages or [] if one.receiver == "agent2")
    assert (message.read, message.read_index) == ("not recorded", None)
    assert [one.file for one in found.left_out if "context was cut" in one.reason] == ["agent2_full_traj.json"]
    assert "agent2_full_traj.json" in {file.name.rpartition("/")[2] for file in found.files}


def test_links_in_a_tree_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("do not show this")
    folder = tmp_path / "logs" / "hostile-coop" / "coop" / "slotbook_task" / "8" / "f4_f5"
    shutil.copytree(LOGS / "mini-coop-comm" / "coop" / "slotbook_task" / "8" / "f4_f5", folder)
    for name in ("agent4_traj.json", "agent4.patch", "agent1_stream.jsonl", "notes.txt"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(tmp_path / "secret")
    hostile = source_of_logs(tmp_path / "logs", tmp_path / "cache")
    found = pair_page(hostile, "hostile-coop/coop/slotbook_task/8/f4_f5")
    first, second = found.agents
    assert (first.transcript, first.steps, second.transcript) == (None, [], "agent5_traj.json")
    assert [patch.text is None for patch in found.patches] == [True, False]
    assert b"do not show" not in encode(found)
    names = {file.name.rpartition("/")[2] for file in found.files}
    assert names.isdisjoint({"agent4.patch", "notes.txt"})
    for name in ("notes.txt", "../../../../../secret"):
        with pytest.raises(SourceError, match="has no file"):
            raw_part(hostile, found.row.path, f"coop/slotbook_task/8/f4_f5/{name}")
