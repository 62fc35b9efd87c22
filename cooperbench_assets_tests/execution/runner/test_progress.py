"""When progress is told, and what it says of the end."""

from __future__ import annotations

import pytest

from cooperbench_assets.execution.runner.progress import Meter, Progress


def test_an_end_is_expected_only_where_pairs_have_ended_and_others_run() -> None:
    meter = Meter("agent", 6, None)
    assert meter.progress().expected_end is None
    meter.launched(2)
    assert meter.progress().expected_end is None, "nothing is known of how long a pair takes"
    meter.ended(None)
    assert meter.progress().expected_end is not None
    meter.running = 0
    assert meter.progress().expected_end is None, "it holds no slot, and nobody knows when it gets one"


def test_a_report_that_fails_is_made_again_and_a_cancellation_goes_through() -> None:
    heard: list[Progress] = []

    def listen(progress: Progress) -> None:
        heard.append(progress)
        if len(heard) == 1:
            raise OSError("the storage is away")
        if len(heard) == 3:
            raise KeyboardInterrupt

    meter = Meter("eval", 1, listen)
    meter.say(at_once=True)
    meter.say(at_once=True)
    assert [progress.total for progress in heard] == [1, 1]
    with pytest.raises(KeyboardInterrupt):
        meter.say(at_once=True)
