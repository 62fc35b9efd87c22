"""Labels of messages by rule, what they come to, and what goes with success."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from cooperbench_assets.analysis.associations import communication_associations
from cooperbench_assets.analysis.communication import communication
from cooperbench_assets.analysis.messages import IMPORTED_LABELS, LABELS, MENTIONS, message_labels
from cooperbench_assets.store import schema
from cooperbench_assets_tests.analysis.stores import START, conflict, pair_row, pairs_frame


def _talk(*messages: tuple[int, str], task: int = 1, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of MESSAGES from (number of the agent, text), a minute apart."""
    return [
        {
            "experiment": "e", "setting": "coop-comm", "seed": seed, "pair": f"repo/{task}/f1_f2", "repo": "repo",
            "task_id": task, "feature_a": 1, "feature_b": 2, "position": place, "sender": f"agent{who}",
            "recipient": f"agent{3 - who}", "feature_id": who, "message": text,
            "sent_at": START + timedelta(minutes=place + 1),
        }
        for place, (who, text) in enumerate(messages)
    ]  # fmt: skip


def _messages(*rows: dict[str, Any]) -> pl.DataFrame:
    return schema.MESSAGES.frame(rows)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("agent1: I'll add the parser in src/app/core.py", {"plan", "mentions_file"}),
        ("implementing the cache, will touch only lines 10-20 of it", {"plan", "mentions_line"}),
        ("Are you touching the same function?", {"question"}),
        ("Let me know if that clashes with yours.", set()),
        ("ack, thanks", {"acknowledgement"}),
        ("agent2: ok, sounds good", {"acknowledgement"}),
        ("done: added the option, all tests pass", {"update"}),
        ("see termui.py:120", {"mentions_file", "mentions_line"}),
        ("the value is 3.5 and the ratio 1:2", set()),
        ("fetch http://host/x?y=1&z=2 first", set()),
        ("", set()),
    ],
)
def test_rules_read_a_message(text: str, labels: set[str]) -> None:
    row = message_labels({"messages": _messages(*_talk((1, text)))})["message_labels"].row(0, named=True)
    assert {name for name in (*LABELS, *MENTIONS) if row[name]} == labels


def test_an_answer_is_the_first_message_after_anothers_question() -> None:
    talk = _talk((1, "Which file?"), (1, "And which line?"), (2, "core.py"), (2, "more"), (1, "fine"), (2, "Right?"))
    rows = message_labels({"messages": _messages(*talk)})["message_labels"]
    assert rows["answer"].to_list() == [False, False, True, False, False, False]
    assert rows["first_turn"].to_list() == [True, False, True, False, False, False]
    assert rows["unanswered"].to_list() == [False, False, None, None, None, True]


def test_conversations_do_not_answer_each_other() -> None:
    rows = [*_talk((1, "Which?"), task=1), *_talk((2, "core.py"), task=2), *_talk((2, "core.py"), seed=1)]
    labels = message_labels({"messages": _messages(*rows)})["message_labels"]
    assert not labels["answer"].any()
    assert labels.filter("question")["unanswered"].to_list() == [True]


def test_labels_from_elsewhere_stand_in_for_the_rules() -> None:
    messages = _messages(*_talk((1, "Which?"), (2, "core.py")))
    own = message_labels({"messages": messages})["message_labels"]
    judged = own.head(1).with_columns(question=False, plan=True, source=pl.lit("judge"))
    stray = judged.with_columns(pair=pl.lit("repo/9/f1_f2"))
    frames = {"messages": messages, IMPORTED_LABELS.name: pl.concat([judged, stray])}
    rows = message_labels(frames)["message_labels"]
    assert rows.select("plan", "question", "source").rows() == [(True, False, "judge"), (False, False, "rules")]
    pairs = pairs_frame(pair_row(setting="coop-comm"))
    row = communication(frames | {"pairs": pairs})["communication"].row(0, named=True)
    assert (row["labels"], row["share_plan"], row["questions"]) == ("judge, rules", 0.5, 0)


def test_what_messages_come_to_in_a_setting() -> None:
    talk = [
        *_talk((1, "I'll edit a.py. Which one do you take?"), (2, "ack"), (1, "done")),
        *_talk((2, "I will wait?"), task=2),
    ]
    pairs = [
        pair_row(setting="coop-comm", task=1, steps=20),
        pair_row(setting="coop-comm", task=2, steps=None),
        pair_row(setting="coop-comm", task=3, steps=12, outcome="fail"),
        pair_row(setting="coop-comm", task=4, outcome="missing"),
        pair_row(task=1),
    ]
    table = communication({"pairs": pairs_frame(*pairs), "messages": _messages(*talk)})["communication"]
    assert table["setting"].unique().to_list() == ["coop-comm"]
    row = table.row(0, named=True)
    expected = {
        "seed": None, "pairs": 3, "pairs_with_messages": 2, "agents": 6, "messages": 4, "messages_per_pair": 4 / 3,
        "messages_per_agent": 4 / 6, "steps": 32, "share_of_steps": 3 / 32, "first_message_minutes": 1.0,
        "first_message_share": 0.1, "first_message_known": 2, "share_plan": 2 / 4, "share_question": 2 / 4,
        "share_answer": 1 / 4, "share_update": 1 / 4, "share_acknowledgement": 1 / 4, "share_mentions_file": 1 / 4,
        "first_turn_plan": 2 / 3, "questions": 2, "questions_unanswered": 1, "share_unanswered": 0.5, "labels": "rules",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_dead_agents_are_in_no_mean_of_messages_and_stand_beside_it() -> None:
    """A pair of dead agents that wrote much, and one that is not judged and wrote nothing."""
    talk = [*_talk((1, "I'll edit a.py"), (2, "ack")), *_talk(*[(1, "Hello?")] * 10, task=2)]
    pairs = [
        pair_row(setting="coop-comm", task=1, steps=20),
        pair_row(setting="coop-comm", task=2, steps=10, outcome="infra_error"),
        pair_row(setting="coop-comm", task=3, steps=40, outcome="unevaluated"),
    ]
    table = communication({"pairs": pairs_frame(*pairs), "messages": _messages(*talk)})["communication"]
    for row in table.iter_rows(named=True):
        expected = {
            "pairs": 3, "messages": 12, "clean": 1, "left_out": 2, "left_out_messages_per_pair": 5.0,
            "messages_per_pair": 2.0, "messages_per_agent": 1.0, "steps": 20, "share_of_steps": 0.1,
            "share_question": 0.0, "questions": 0, "writers": 2,
        }  # fmt: skip
        assert {name: row[name] for name in expected} == pytest.approx(expected)


def _agent(who: int, steps: int | None, task: int = 1) -> dict[str, Any]:
    return {
        "experiment": "e", "setting": "coop-comm", "seed": 0, "pair": f"repo/{task}/f1_f2", "agent": f"agent{who}",
        "steps": steps,
    }  # fmt: skip


def test_steps_count_for_agents_that_wrote_and_whose_every_message_has_one() -> None:
    first = [*_talk((1, "a"), (1, "b"), (2, "c"), (1, "d"))]
    for row, step in zip(first, (2, 2, None, 9), strict=True):
        row["step"] = step
    second = _talk((2, "e"), task=2)
    second[0]["step"] = 4
    third = _talk((1, "f"), task=3)
    third[0]["step"] = 1
    agents = [_agent(1, 10), _agent(2, 20), _agent(1, 30, 2), _agent(2, 5, 2), _agent(1, None, 3)]
    frames = {
        "pairs": pairs_frame(*(pair_row(setting="coop-comm", task=task) for task in (1, 2, 3))),
        "messages": _messages(*first, *second, *third),
        "agents": schema.AGENTS.frame(agents),
    }
    for row in communication(frames)["communication"].iter_rows(named=True):
        assert (row["writers"], row["writers_known"], row["message_steps"]) == (4, 2, 3)
        assert row["share_message_steps"] == pytest.approx(3 / 15)
        assert row["first_message_step"] == pytest.approx((2 + 4) / 2)
        assert row["first_message_step_share"] == pytest.approx((2 / 10 + 4 / 5) / 2)


@pytest.mark.parametrize("lacking", [[], ["step"]], ids=["of this layout", "of a layout without steps"])
def test_without_trajectories_no_step_is_known(lacking: list[str]) -> None:
    messages = _messages(*_talk((1, "a"))).drop(lacking)
    frames = {"pairs": pairs_frame(pair_row(setting="coop-comm")), "messages": messages}
    row = communication(frames)["communication"].row(0, named=True)
    assert (row["writers"], row["writers_known"], row["message_steps"]) == (1, 0, 0)
    assert [row[name] for name in ("share_message_steps", "first_message_step")] == [None, None]


def test_a_first_message_outside_the_agents_run_has_no_time() -> None:
    talk = _talk((1, "hello"))
    talk[0]["sent_at"] = START - timedelta(hours=2)
    frames = {"pairs": pairs_frame(pair_row(setting="coop-comm")), "messages": _messages(*talk)}
    row = communication(frames)["communication"].row(0, named=True)
    assert (row["first_message_known"], row["first_message_minutes"], row["messages"]) == (0, None, 1)


def test_a_setting_without_messages_has_a_row_of_none() -> None:
    row = communication({"pairs": pairs_frame(pair_row(setting="coop-nocomm"))})["communication"].row(0, named=True)
    assert (row["messages"], row["messages_per_pair"], row["share_plan"], row["questions"]) == (0, 0.0, None, 0)


def _associations(frames: dict[str, pl.DataFrame], stratum: str, outcome: str = "pass") -> dict[str, Any]:
    table = communication_associations(frames)["communication_associations"]
    return table.filter(stratum=stratum, outcome=outcome, verdict="strict", trait="any_question").row(0, named=True)


def test_a_raw_association_that_difficulty_makes_is_gone_within_pairs() -> None:
    """On the easy pair everybody passes and asks, on the hard one nobody does: nothing varies within a pair."""
    pairs = [
        pair_row(setting="coop-comm", task=t, seed=s, outcome="pass" if t == 1 else "fail")
        for t in (1, 2)
        for s in (0, 1)
    ]
    talk = [row for s in (0, 1) for row in _talk((1, "Which one?"), seed=s)]
    frames = {"pairs": pairs_frame(*pairs), "messages": _messages(*talk)}
    raw, within = _associations(frames, "none"), _associations(frames, "pair")
    assert (raw["slope"], raw["correlation"], raw["p"]) == pytest.approx((1.0, 1.0, None))
    assert raw["label"] == "raw: confounded by difficulty"
    assert (within["slope"], within["informative"], within["strata"]) == (None, 0, 2)
    assert within["note"] == "no pair in which both vary otherwise than all pairs do from seed to seed"


def test_an_association_within_pairs_is_counted_across_seeds() -> None:
    """Four pairs of two seeds, of which three pass where they ask. One asks in seed 0, three in seed 1.

    Less the seeds' means: Σsxy = ¾ - ¼ + ¼ + ¼ = 1, Σsxx = 9/8 + 3/8, Σsxx·syy = ¾.
    """
    ends = {1: ("pass", "fail"), 2: ("pass", "fail"), 3: ("fail", "pass"), 4: ("fail", "pass")}
    asked = {1: 0, 2: 1, 3: 1, 4: 1}
    pairs = [
        pair_row(setting="coop-comm", task=t, seed=s, outcome=end)
        for t, both in ends.items()
        for s, end in enumerate(both)
    ]
    talk = [row for t in ends for row in _talk((1, "Which one?"), task=t, seed=asked[t])]
    row = _associations({"pairs": pairs_frame(*pairs), "messages": _messages(*talk)}, "pair")
    assert (row["n"], row["strata"], row["informative"]) == (8, 4, 4)
    assert row["slope"] == pytest.approx(2 / 3)
    assert row["p"] == pytest.approx(0.24821307898992026)  # chi-squared of 4/3


def test_what_drifts_from_seed_to_seed_is_no_association_within_pairs() -> None:
    """In the second seed everybody asks and passes: the seed explains it."""
    pairs = [
        pair_row(setting="coop-comm", task=t, seed=s, outcome="pass" if s else "fail") for t in range(9) for s in (0, 1)
    ]
    talk = [row for t in range(9) for row in _talk((1, "Which one?"), task=t, seed=1)]
    row = _associations({"pairs": pairs_frame(*pairs), "messages": _messages(*talk)}, "pair")
    assert (row["slope"], row["p"], row["informative"]) == (None, None, 0)


def test_conflicts_are_an_outcome_of_their_own() -> None:
    pairs = [conflict(task=1), pair_row(setting="coop-comm", task=1, seed=1), conflict(task=2, outcome="infra_error")]
    talk = _talk((1, "Which one?"))
    row = _associations({"pairs": pairs_frame(*pairs), "messages": _messages(*talk)}, "none", "conflict")
    assert (row["n"], row["slope"]) == pytest.approx((2, 1.0))


def test_within_tasks_a_pair_is_one_row_however_many_seeds_it_has() -> None:
    """Seeds of a pair repeat one another: four rows of two pairs are two means, and no evidence."""
    pairs = [
        pair_row(setting="coop-comm", task=1, features=(n, n + 1), seed=s, outcome="pass" if n == 1 else "fail")
        for n in (1, 2)
        for s in (0, 1)
    ]
    talk = [row for s in (0, 1) for row in _talk((1, "Which one?"), seed=s)]
    row = _associations({"pairs": pairs_frame(*pairs), "messages": _messages(*talk)}, "task")
    assert (row["n"], row["strata"], row["slope"]) == pytest.approx((2, 1, 1.0))
    assert row["p"] == pytest.approx(0.31731050786291415)  # chi-squared of 1
