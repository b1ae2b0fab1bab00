"""Which run to make next: where an answer is wide and a run is cheap, with a command that makes it."""

from collections.abc import Callable
import json
import math
from pathlib import Path
import shlex

import pytest

from analysis.asked import Asked
from analysis.design import Known, NextRun, expected_ratio, next_runs, ratio_of, why_not
from analysis.load import load_study
from analysis.recommend import Analysis, analyse
from conf.compose import load_config
from tests.analysis.make_runs import Spec, make_study

CHEAP = Spec(images=4, horizon=500, best_time=0.12)
DEAR = Spec(images=8, horizon=2000, best_time=0.18)
UNFINISHED = Spec(images=16, horizon=300, best_time=1.2)
NO_GAIN = Spec(images=32, gain=-0.004)


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """One run of a short cell and of a long one, of one whose minimum lies beyond its horizon, and of one without gain."""
    root = make_study(tmp_path_factory.mktemp("runs") / "mixed", [CHEAP, DEAR, UNFINISHED, NO_GAIN])
    return analyse(load_study(root))


def test_one_more_run_narrows_by_the_formula() -> None:
    known = Known(typical=0.08, spread=0.05, curve=0.01, reach=0.5)
    assert known.log_ratio() == pytest.approx(2 * 1.645 * math.sqrt(0.13))
    after = 1 / (1 / 0.08 + 0.5 / 0.06)
    assert known.log_ratio(1) == pytest.approx(2 * 1.645 * math.sqrt(after + 0.05))
    assert known.log_ratio(1000) == pytest.approx(2 * 1.645 * math.sqrt(0.05), rel=0.01)
    assert Known(reach=0.0).log_ratio(5) == Known(reach=0.0).log_ratio()


def test_worth_is_what_a_step_narrows() -> None:
    cheap, dear = (NextRun("a", "replicate", 1, 3.0, 2.5, steps, "") for steps in (100, 400))
    assert cheap.worth == pytest.approx(math.log(3.0 / 2.5) / 100) == pytest.approx(4 * dear.worth)


def test_of_equally_wide_cells_the_cheaper_run_comes_first(analysis: Analysis) -> None:
    replicates = [run for run in next_runs(analysis) if run.kind == "replicate"]
    steps = {run.cell: run.steps for run in replicates}
    assert (steps["lora, 4 images"], steps["lora, 8 images"]) == (500, 2000)
    order = [run.cell for run in replicates]
    assert order.index("lora, 4 images") < order.index("lora, 8 images")
    worth = [run.worth for run in next_runs(analysis)]
    assert worth == sorted(worth, reverse=True)


def test_what_was_not_reached_asks_for_a_longer_run_rather_than_the_same(analysis: Analysis) -> None:
    by_kind = {run.kind: run for run in next_runs(analysis) if run.cell == "lora, 16 images"}
    assert analysis.cells[2].answer.status == "not_reached"
    assert by_kind["longer"].steps == 600
    if "replicate" in by_kind:
        same = math.log(by_kind["replicate"].now / by_kind["replicate"].after)
        assert math.log(by_kind["longer"].now / by_kind["longer"].after) > same


def test_without_a_gain_no_run_is_proposed(analysis: Analysis) -> None:
    assert "base is not improved" in why_not(analysis.cells[3])
    assert all("32 images" not in run.cell for run in next_runs(analysis))


def test_a_replicate_narrows_about_as_expected(tmp_path: Path) -> None:
    """Averaged over eight worlds: the forecast is of the variance, and these seeds scatter less than the prior thinks."""
    fell, expected = [], []
    for seed in range(8):
        runs = [Spec(images=8, best_time=0.15, seed=10 * seed + index, horizon=500) for index in (0, 1)]
        one, two = (
            analyse(load_study(make_study(tmp_path / f"{seed}-{n}", runs[:n]))).cells[0] for n in (1, 2)
        )
        fell.append(math.log(ratio_of(one) / ratio_of(two)))
        expected.append(math.log(ratio_of(one) / expected_ratio(one, 1)))
    assert 0 < sum(expected) <= sum(fell) < 3 * sum(expected)


def test_the_command_makes_that_run(analysis: Analysis) -> None:
    run = next(run for run in next_runs(analysis) if run.cell == "lora, 4 images")
    config = load_config(shlex.split(run.command)[2:])
    assert config.seed == run.seed == 1 and config.dataset_size.name == "n4" and config.optimizer.lr == 1e-3
    assert config.budget.max_steps == 500 and config.stopping.name == "evidence"
    assert Path(config.run_dir or "").parent == analysis.study.root / "pilots"


def test_a_cell_that_was_not_run_is_ranked_by_the_law(analysis: Analysis) -> None:
    [run] = next_runs(analysis, Asked(12, 64))
    assert run.kind == "first" and run.after < run.now and run.steps > 0
    assert load_config(shlex.split(run.command)[2:]).dataset_size.images == 12


def test_the_table_and_its_commands(analysis: Analysis, command: Callable[..., tuple[int, str, str]]) -> None:
    root = analysis.study.root
    status, out, _ = command("next", root)
    assert status == 0 and "1: python train.py " in out
    assert "left out lora, 32 images: the base is not improved: other hyperparameters first" in out
    status, out, _ = command("next", root, "--json")
    listed = json.loads(out)
    assert [item["cell"] for item in listed] == [run.cell for run in next_runs(analysis)]
    status, _, error = command("next", root, "images=12")
    assert status == 2 and "images=12: a cell is asked for as dataset_size=n24" in error
