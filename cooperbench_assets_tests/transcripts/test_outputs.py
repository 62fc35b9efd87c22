"""Which lines of a test run's output say what failed."""

from __future__ import annotations

import pytest

from cooperbench_assets.transcripts.outputs import failing_lines

RUNNERS = {
    "pytest": (
        "tests/a.py F.\n____ test_one ____\nE   assert 1 == 2\nFAILED tests/a.py::test_one - assert 1 == 2\n",
        3,
    ),
    "unittest": (
        "FAIL: test_one (a.One)\nTraceback (most recent call last):\nAssertionError: 1 != 2\nRan 2 tests\n",
        2,
    ),
    "go": ("=== RUN   TestOne\n--- FAIL: TestOne (0.00s)\nFAIL\nFAIL\texample.org/a\t0.1s\n", 2),
    "cargo": ("test a::one ... FAILED\ntest a::two ... ok\nerror[E0308]: mismatched types\n", 2),
    "jest": ("FAIL src/a.test.ts\n  ✕ adds (3 ms)\n  ✓ subtracts\n", 2),
    "tap": ("ok 1 - a\nnot ok 2 - b\n", 1),
}


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_failure_is_found_in_the_output_of_a_common_runner(runner: str) -> None:
    output, expected = RUNNERS[runner]
    found = failing_lines(output)
    assert len(found) == expected
    assert all(line in output for line in found)


def test_what_names_a_test_comes_before_how_it_failed_and_both_are_bounded() -> None:
    output = "".join(f"E   assert {n}\nFAILED a.py::t{n} {'x' * 1000}\n" for n in range(300))
    found = failing_lines(output)
    assert len(found) == 200
    assert all(line.startswith("FAILED") and len(line) <= 500 for line in found)
    assert failing_lines("12 passed in 0.1s\nErrors are not raised here\n") == []
