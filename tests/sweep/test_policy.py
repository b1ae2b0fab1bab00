"""What follows the end of a trainer, for every outcome and for histories of any length."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from conf.compose import load_config
from curves.run_folder import OUTCOMES, RunFolder, Status, Verdict
from sweep.attempts import (
    Attempt,
    failures_in_vain,
    last_word,
    note_end,
    note_missed_end,
    note_start,
    read_attempts,
)
from sweep.policy import ACCUMULATION, BATCH, PANEL_BATCH, changes_of_next, halved, sizes_of

SIZES = {BATCH: 4, ACCUMULATION: 1, PANEL_BATCH: 32}
SMALLER = {BATCH: 2, ACCUMULATION: 2, PANEL_BATCH: 16}


def ended(outcome: str, step: int = 0, **changes: Any) -> Attempt:
    return Attempt(0.0, changes, ended=1.0, outcome=outcome, step=step)


@pytest.mark.parametrize(
    ("outcome", "following"),
    [
        ("complete", None),
        ("stopped", None),
        ("pruned", None),
        ("diverged", None),
        ("timeout", None),
        ("config_error", None),
        ("out_of_memory", SMALLER),
        ("preempted", {}),
        ("crashed", {}),
    ],
)
def test_every_outcome_has_a_policy(outcome: str, following: dict[str, int] | None) -> None:
    assert outcome in OUTCOMES
    assert changes_of_next([ended(outcome)], SIZES, retries=1) == following


def test_first_attempt_and_one_that_nobody_saw_end_change_nothing() -> None:
    assert changes_of_next([], SIZES, retries=0) == {}
    assert changes_of_next([Attempt(0.0, {BATCH: 2})], SIZES, retries=0) == {BATCH: 2}


def test_crashes_are_retried_a_bounded_number_of_times_without_progress() -> None:
    crash = ended("crashed", 8)
    assert changes_of_next([crash], SIZES, retries=0) is None
    assert changes_of_next([crash] * 2, SIZES, retries=2) == {}
    assert changes_of_next([crash] * 3, SIZES, retries=2) is None
    further = [ended("crashed", step) for step in (8, 16, 24, 32)]
    assert failures_in_vain(further) == 1  # each got further than the one before
    assert failures_in_vain([*further, ended("crashed", 4)]) == 2
    unseen = Attempt(0.0)
    assert failures_in_vain([crash, unseen, crash]) == 2


def test_a_batch_is_halved_to_one_and_then_the_trial_is_over() -> None:
    attempts: list[Attempt] = []
    seen = []
    while (changes := changes_of_next(attempts, SIZES, retries=0)) is not None:
        seen.append(changes)
        attempts.append(ended("out_of_memory", **changes))
    assert [item.get(BATCH, 4) for item in seen] == [4, 2, 1, 1, 1, 1]
    assert [item.get(PANEL_BATCH, 32) for item in seen] == [32, 16, 8, 4, 2, 1]


@given(st.integers(1, 512), st.integers(1, 64), st.integers(1, 512))
def test_halving_keeps_the_batch_an_update_has(batch: int, accumulation: int, panel: int) -> None:
    sizes = {BATCH: batch, ACCUMULATION: accumulation, PANEL_BATCH: panel}
    smaller = halved(sizes)
    if smaller is None:
        assert batch == panel == 1
        return
    assert smaller[BATCH] * smaller[ACCUMULATION] == batch * accumulation
    assert smaller[BATCH] <= max(1, batch // 2)
    assert smaller[PANEL_BATCH] <= max(1, panel // 2)
    assert smaller != sizes


def test_sizes_are_those_that_the_trial_was_sampled_with() -> None:
    config = load_config(["optimizer.accumulation=2", "evaluation.batch_size=8"])
    assert sizes_of(config, {BATCH: 6, "optimizer.lr": 0.1}) == {BATCH: 6, ACCUMULATION: 2, PANEL_BATCH: 8}


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.text(max_size=5), st.integers()),
            st.none() | st.tuples(st.sampled_from(OUTCOMES), st.text(max_size=9), st.integers(0, 9)),
            st.booleans(),
        )
    )
)
def test_attempts_are_read_as_written_whatever_a_crash_tears(
    tmp_path_factory: pytest.TempPathFactory, history: list[Any]
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    for changes, end, torn in history:
        note_start(folder, [], 1.0, changes)
        if end is not None:
            note_end(folder, Verdict(end[0], end[1], 0, 5.0), step=end[2], seconds=1.5, first_step=None)
        if torn:
            with folder.attempts.open("ab") as file:
                file.write(b'{"event": "en')
    found = read_attempts(folder)
    assert [item.changes for item in found] == [changes for changes, _, _ in history]
    assert [(item.outcome, item.reason, item.step) if item.ended else None for item in found] == [
        end for _, end, _ in history
    ]


def test_word_of_an_earlier_attempt_is_not_taken_for_the_last_ones(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status(Status("ended", 8, "crashed", "first", updated=100.0))
    note_start(folder, [], 1.0, {})
    assert last_word(folder, read_attempts(folder)) is None
    note_missed_end(folder, Verdict("crashed", "", None, 120.0))
    assert read_attempts(folder)[-1].step == 0
    folder.write_status(Status("ended", 9, "crashed", "second", updated=50.0))  # the clock was set back
    note_start(folder, [], 1.0, {})
    folder.write_status(Status("ended", 12, "crashed", "third", updated=49.0))
    word = last_word(folder, read_attempts(folder))
    assert word is not None and word.reason == "third"
