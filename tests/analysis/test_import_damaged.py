"""200 damaged logs, cut, not finite, repeated, out of order, restarted or empty: each ends in an answer or one line."""

from collections.abc import Mapping
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from analysis.importing.folders import _lr_sums
from analysis.importing.log import Record, Series, in_order
from curves.recommendation import read_recommendation
from curves.run_folder import RunFolder
from tests.analysis.make_logs import (
    Command,
    Values,
    together,
    training_losses,
    u_curve,
    write_csv,
    write_events,
)

CURVE = u_curve()
TRAINING = training_losses(600)
DAMAGES = (
    "cut",
    "not_finite",
    "repeated",
    "out_of_order",
    "restarted",
    "no_evaluations",
    "torn_bytes",
    "odd_steps",
)
SEEDS = 25  # times 8 damages: 200 logs, of even seeds as event files, the others as tables
QUICK = 4  # of them in every test run
BAD = (float("nan"), float("inf"), float("-inf"))


def damaged(kind: str, random: np.random.Generator) -> Values:
    """A log with one kind of damage."""
    tags: list[tuple[str, Mapping[int, float]]] = [("val_loss", CURVE), ("train_loss", TRAINING)]
    if kind == "no_evaluations":
        return together(*tags[random.integers(0, 2) :]) if random.random() < 0.5 else together(tags[1])
    values = together(*tags)
    if kind == "cut":
        return values[: random.integers(1, len(values))]
    if kind == "not_finite":
        share = random.choice([0.1, 0.5, 1.0])
        return [
            (
                step,
                {
                    tag: float(random.choice(BAD)) if random.random() < share else value
                    for tag, value in of.items()
                },
            )
            for step, of in values
        ]
    if kind == "repeated":
        return [item for item in values for _ in range(random.integers(1, 4))]
    if kind == "out_of_order":
        return [values[place] for place in random.permutation(len(values))]
    if kind == "restarted":
        end = int(random.integers(2, len(values)))
        return values[:end] + values[int(random.integers(0, end)) :]
    if kind == "odd_steps":
        return [(step + int(random.integers(0, 3)), of) for step, of in values]
    return values


def write_damaged(folder: Path, kind: str, seed: int) -> tuple[str, Path]:
    """The log as event files or as a table; the kind of source and its path."""
    random = np.random.default_rng([seed, DAMAGES.index(kind)])
    values = damaged(kind, random)
    if seed % 2 == 0:
        [path] = write_events(folder / "logs", values).glob("*tfevents*")
        source = "tensorboard"
    else:
        rows = [[step, of.get("val_loss", ""), of.get("train_loss", "")] for step, of in values]
        path = write_csv(folder / "logs" / "x.csv", ["step", "val_loss", "train_loss"], rows)
        source = "csv"
    if kind == "torn_bytes":
        content = bytearray(path.read_bytes())
        for place in random.integers(0, len(content), int(random.integers(1, 40))):
            content[place] = random.integers(0, 256)
        path.write_bytes(bytes(content[: random.integers(0, len(content))]))
    return source, path


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.long if seed >= QUICK else ()) for seed in range(SEEDS)]
)
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_log_ends_in_an_answer_or_one_line(
    tmp_path: Path, command: Command, kind: str, seed: int
) -> None:
    source, path = write_damaged(tmp_path, kind, seed)
    status, said, error = command("import", source, path, "--to", tmp_path / "old")
    assert "Traceback" not in said + error
    if status:
        assert (status, error.count("\n")) == (1, 1), error
        assert error.startswith("failed: ")
        assert not (tmp_path / "old").exists()
        return
    [run] = (tmp_path / "old").iterdir()
    points = RunFolder(run).points()
    steps = [point.step for point in points]
    assert steps == sorted(set(steps))
    known = set(CURVE.values()) | set(TRAINING.values())
    if kind not in ("torn_bytes",):
        for point in points:
            for value in (point.val_loss, point.train_loss if kind != "odd_steps" else None):
                assert value is None or any(value == pytest.approx(other, rel=1e-6) for other in known)
    status, said, error = command("recommend", tmp_path / "old")
    assert (status, error) == (0, "")
    [cell] = read_recommendation(tmp_path / "old").cells
    assert cell.status in ("ok", "not_reached", "no_gain", "refused")
    assert cell.reason


def test_repeated_records_and_a_shuffled_log_change_nothing(tmp_path: Path, command: Command) -> None:
    random = np.random.default_rng(0)
    curves = []
    for kind in ("repeated", "out_of_order"):
        write_events(tmp_path / kind, damaged(kind, random))
        assert command("import", "tensorboard", tmp_path / kind, "--to", tmp_path / "old" / kind)[0] == 0
        curves.append(
            {p.step: p.val_loss for p in RunFolder(tmp_path / "old" / kind / kind).points() if p.val_loss}
        )
    assert curves[0] == pytest.approx(CURVE, rel=1e-6)
    assert curves[1] == pytest.approx(CURVE, rel=1e-6)


def test_a_loss_that_stays_not_finite_is_a_divergence(tmp_path: Path, command: Command) -> None:
    values = [(step, {"val_loss": loss if step < 100 else float("nan")}) for step, loss in CURVE.items()]
    write_events(tmp_path / "logs", values)
    status, said, _ = command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old")
    folder = RunFolder(tmp_path / "old" / "logs")
    assert status == 0
    assert "not finite from step" in said
    assert folder.outcome() == "diverged"
    assert folder.points()[-1].extra == {"diverged": True}
    assert all(point.step < 100 for point in folder.points()[:-1])


records = st.lists(
    st.tuples(
        st.one_of(st.integers(-3, 60), st.floats(allow_nan=True, allow_infinity=True, width=32)),
        st.floats(allow_nan=True, allow_infinity=True),
    ),
    max_size=40,
)


@given(records, st.integers(1, 5), st.integers(0, 1), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_records_come_in_order_and_finite(
    items: list[tuple[float, float]], per_update: int, first: int, mean: bool
) -> None:
    found = in_order(
        [Record(step, value, place) for place, (step, value) in enumerate(items)],
        per_update=per_update, first=first, mean=mean,
    )  # fmt: skip
    steps = list(found.values)
    assert steps == sorted(set(steps))
    assert all(np.isfinite(value) for value in found.values.values())
    assert found.diverged_from is None or found.diverged_from > max(steps, default=-1)
    logged = {(int(s) + first) // per_update for s, _ in items if np.isfinite(s) and s >= 0 and s == int(s)}
    assert set(steps) <= logged


@given(st.lists(st.integers(0, 500), min_size=1, max_size=40, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_writing_says_nothing_where_no_step_is_repeated(steps: list[int], random) -> None:
    shuffled = list(steps)
    random.shuffle(shuffled)
    found = in_order([Record(step, float(step), place) for place, step in enumerate(shuffled)])
    assert found.values == {step: float(step) for step in sorted(steps)}


def test_micro_batches_of_one_update_are_averaged_and_of_a_restart_are_not() -> None:
    first = [Record(step, float(step), step) for step in range(8)]
    again = [Record(step, 100.0, 10 + step) for step in range(4, 6)]
    assert in_order(first, per_update=4, mean=True).values == {0: 1.5, 1: 5.5}
    assert in_order(first + again, per_update=4, mean=True).values == {0: 1.5, 1: 100.0}


def test_the_sum_of_the_learning_rate_is_that_of_every_update() -> None:
    """Warm-up and decay logged every few updates: linear in between, summed update by update."""
    rates = Series({10: 1e-4, 20: 2e-4, 50: 2e-4, 90: 0.0})
    every = np.interp(np.arange(1, 101), list(rates.values), list(rates.values.values()))
    found = _lr_sums(rates, [0, 1, 15, 50, 77, 100])
    assert found == pytest.approx([every[:step].sum() for step in (0, 1, 15, 50, 77, 100)])


def test_a_step_that_no_run_has_is_damage(tmp_path: Path, command: Command) -> None:
    rows = [[step, loss, 1e-4] for step, loss in CURVE.items()] + [[10**12, 0.1, 1e-4]]
    write_csv(tmp_path / "x.csv", ["step", "val_loss", "lr"], rows)
    status, said, _ = command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old")
    assert status == 0
    assert "val_loss: 1 record without a whole step left out" in said
