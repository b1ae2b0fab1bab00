"""The law across cells: known coefficients are found, the record keeps its contract, and unseen cells are answered."""

from collections.abc import Callable
from dataclasses import replace
import json
from pathlib import Path
import re
import shlex

import numpy as np
import pytest

from analysis.asked import Asked, parse_asked
from analysis.law import LEVELS, Observation, Place, fit_law, law_record
from analysis.law_exam import mark, sit_exam
from analysis.load import Study, load_study, read_run
from analysis.recommend import Analysis, CellResult, analyse
from analysis.unseen_answer import recommend_unseen
from conf.errors import RequestError
from curves.law import exponent_for
from curves.recommendation import CellAnswer, matching_cell, read_recommendation
from tests.analysis.make_runs import Spec, make_run, make_study

BASE = dict.fromkeys((*LEVELS, "base_model"), "a")
SIZES, RESOLUTIONS = (4, 8, 16), (64, 96)


def best_time(images: int, resolution: int) -> float:
    return 0.12 * (images / 4) ** 0.6 * (resolution / 64) ** 0.5


def spec(images: int, resolution: int = 64, **values: object) -> Spec:
    time = best_time(images, resolution)
    return replace(Spec(images=images, resolution=resolution, best_time=time, horizon=1200), **values)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sizes at two resolutions, two seeds each: lr x steps goes with N^0.6 and R^0.5."""
    specs = [spec(n, r, seed=seed) for r in RESOLUTIONS for n in SIZES for seed in (0, 1)]
    return make_study(tmp_path_factory.mktemp("runs") / "grid", specs)


@pytest.fixture(scope="module")
def analysis(study: Path) -> Analysis:
    return analyse(load_study(study))


def observed(
    powers: dict[str, float], scatter: float, variance: float, method_b: float = 0.0
) -> list[Observation]:
    """A full grid of places with exactly these powers, and two methods that differ by a factor."""
    random = np.random.default_rng(0)
    found = []
    for images in (4, 8, 16, 32, 64):
        for resolution in (64, 128):
            for batch, lr in ((2, 1e-3), (8, 3e-3)):
                for method in ("a", "b"):
                    place = Place(images, resolution, batch, lr, BASE | {"method": method})
                    values = {name: getattr(place, name) for name in powers}
                    time = sum(power * np.log(values[name]) for name, power in powers.items())
                    time += method_b * (method == "b") + scatter * random.standard_normal() - 3
                    found.append(Observation(place, float(time), variance))
    return found


def test_known_powers_and_levels_are_found() -> None:
    powers = {"images": 0.5, "resolution": -1.0, "batch": -0.3, "lr": 0.1}
    law = fit_law(observed(powers, 0.05, 0.05**2, method_b=0.7))
    for name, power in powers.items():
        low, median, high = law.coefficient(name)
        assert low <= power <= high and abs(median - power) < 0.15, name
    assert law.coefficient("method=b")[1] == pytest.approx(0.7, abs=0.1)
    place = Place(24, 96, 4, 2e-3, BASE | {"method": "b"})
    truth = -3 + 0.7 + sum(power * np.log(getattr(place, name)) for name, power in powers.items())
    draws = law.draw(place, 4000)
    mean, variance = law.moments(place)
    assert mean == pytest.approx(truth, abs=0.1)
    assert (draws.mean(), draws.std()) == (
        pytest.approx(mean, abs=0.01),
        pytest.approx(variance**0.5, rel=0.1),
    )


def test_an_image_set_that_behaves_otherwise_on_one_base_is_learnt_there() -> None:
    """Sets a and b on bases x and y; b's minimum comes later by e on y alone: other sizes there are told so."""
    cells = [
        Observation(
            Place(n, 64, 4, 1e-3, {**BASE, "dataset": name, "base_id": base, "base_model": base}),
            0.8 * np.log(n) + (name == "b" and base == "y"),
            0.001,
        )
        for n in (4, 8)
        for name in "ab"
        for base in "xy"
    ]
    law = fit_law(cells)
    for name, base, later in (("a", "x", 0.0), ("a", "y", 0.0), ("b", "x", 0.0), ("b", "y", 1.0)):
        place = Place(16, 64, 4, 1e-3, {**BASE, "dataset": name, "base_id": base, "base_model": base})
        assert law.moments(place)[0] == pytest.approx(0.8 * np.log(16) + later, abs=0.15)
    new = Place(16, 64, 4, 1e-3, {**BASE, "dataset": "c", "base_id": "y", "base_model": "y"})
    assert law.moments(new)[1] > 4 * law.moments(place)[1]


def test_scatter_between_cells_is_told_from_the_error_of_curves() -> None:
    quiet = fit_law(observed({"images": 0.8}, 0.3, 0.3**2))
    wild = fit_law(observed({"images": 0.8}, 0.3, 0.01**2))
    assert 2 * quiet.between_cells < wild.between_cells
    assert 0.2 < wild.between_cells < 0.4


def test_intervals_hold_in_nine_of_ten_worlds() -> None:
    """Worlds drawn from the priors: the interval of a new cell covers it about as often as it says."""
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        power, tau = random.normal(0.8, 0.25), abs(random.normal(0, 0.3))
        sizes = (4, 8, 16, 48)
        times = [
            power * np.log(n) + tau * random.standard_normal() + 0.1 * random.standard_normal() for n in sizes
        ]
        cells = [Observation(Place(n, 64, 4, 1e-3, BASE), t, 0.01) for n, t in zip(sizes, times, strict=True)]
        draws = fit_law(cells).draw(Place(24, 64, 4, 1e-3, BASE), 1000)
        truth = power * np.log(24) + tau * random.standard_normal()
        inside += bool(np.quantile(draws, 0.05) <= truth <= np.quantile(draws, 0.95))
    assert 170 <= inside <= 192


def test_with_one_cell_the_priors_speak() -> None:
    law = fit_law([Observation(Place(8, 64, 4, 1e-3, BASE), -2.0, 0.01)])
    low, median, high = law.coefficient("images")
    assert (low, median, high) == pytest.approx((0.8 - 1.645 * 0.25, 0.8, 0.8 + 1.645 * 0.25), abs=0.01)
    assert law.moments(Place(16, 64, 4, 1e-3, BASE))[0] == pytest.approx(-2.0 + 0.8 * np.log(2), abs=0.01)


def test_the_record_has_groups_for_a_budget_and_the_swept_powers(study: Path, analysis: Analysis) -> None:
    law = analysis.recommendation.law
    assert law is not None
    assert {group["resolution"] for group in law["groups"]} == set(RESOLUTIONS)
    identity = analysis.study.cells[0].identity
    assert exponent_for(law, identity) == law["groups"][0]["exponent"]["median"]
    assert set(law["powers"]) == {"images", "resolution"} and law["cells"] == 6
    for name, truth in (("images", 0.6), ("resolution", 0.5)):
        assert law["powers"][name]["low"] <= truth <= law["powers"][name]["high"]
    few = [Observation(Place(n, 64, 4, 1e-3, BASE), 0.0, 0.01) for n in (4, 8)]
    assert law_record(few) is None
    assert law_record(few, {"a": "why"}) == {
        "quantity": "sum of the learning rate at the minimum",
        "groups": [],
        "left_out": {"a": "why"},
    }


def test_an_unseen_cell_is_answered_near_the_truth_and_marked(analysis: Analysis) -> None:
    row = recommend_unseen(analysis, Asked(dataset_size=12, resolution=96), price=0.1)
    truth = best_time(12, 96) / 1e-3
    assert (row.status, row.source, row.images, row.dataset_size) == ("ok", "law", 12, "n12")
    assert row.minimum is not None and row.recommended_steps is not None and row.window is not None
    assert row.minimum["low"] < truth < row.minimum["high"]
    assert abs(np.log(row.minimum["median"] / truth)) < np.log(1.25)
    assert row.window["low"] <= row.recommended_steps < row.minimum["median"]
    assert (
        row.recommended_steps_best_kept is not None
        and row.recommended_steps_best_kept <= row.recommended_steps
    )
    assert row.images_seen == 4 * row.recommended_steps and row.epochs == round(row.images_seen / 12, 2)
    assert row.kohya is not None
    made = row.kohya["repeats"] * row.kohya["epochs"] * 12 / 4
    assert made == pytest.approx(row.recommended_steps, rel=0.15)
    assert row.evidence["runs"] == 0 and row.evidence["cells"] == 6
    assert row.expected_regret is not None and f"{100 * row.expected_regret:.0f} % of gain" in row.reason
    assert row.priced is not None and 0 < row.priced["steps"] < row.recommended_steps * 1.5
    assert row.hyperparameters["lr"] == 1e-3 and row.gain is None


def test_another_learning_rate_keeps_the_sum_and_moves_the_steps(analysis: Analysis) -> None:
    slow, fast = (recommend_unseen(analysis, Asked(12, 64, lr=lr)) for lr in (5e-4, 2e-3))
    assert slow.minimum is not None and fast.minimum is not None
    assert slow.minimum["median"] / fast.minimum["median"] == pytest.approx(4, rel=0.2)
    assert slow.minimum["high"] / slow.minimum["low"] > 1.05 * row_ratio(
        recommend_unseen(analysis, Asked(12, 64))
    )


def row_ratio(row: CellAnswer) -> float:
    assert row.minimum is not None
    return row.minimum["high"] / row.minimum["low"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Asked(33, 64), "33 images: more than a factor 2 outside of what was run (4 to 16 images)"),
        (Asked(1, 64), "1 images: more than a factor 2 outside"),
        (Asked(8, 256), "256 px: more than a factor 2 outside of what was run (64 to 96 px)"),
        (Asked(12, 64, method="dreambooth"), "method=dreambooth: was not run (lora were)"),
        (Asked(12, 64, base_model="sd15"), "base_model=sd15: was not run (tiny were)"),
    ],
)
def test_beyond_its_reach_the_law_refuses_and_names_a_pilot(
    analysis: Analysis, asked: Asked, why: str
) -> None:
    row = recommend_unseen(analysis, asked)
    assert row.status == "refused" and why in row.reason
    assert (row.recommended_steps, row.minimum, row.kohya, row.hyperparameters) == (None, None, None, {})
    assert "a pilot lifts this: python train.py " in row.reason


def test_the_reach_ends_exactly_at_a_factor_two(analysis: Analysis) -> None:
    assert [recommend_unseen(analysis, Asked(n, 64)).status for n in (2, 32)] == ["ok", "ok"]


def test_the_pilot_lifts_the_refusal(study: Path, analysis: Analysis, tmp_path: Path) -> None:
    """The command composes, and a run with its levels brings the asked cell within reach."""
    from conf.compose import load_config

    asked = Asked(40, 64)
    reason = recommend_unseen(analysis, asked).reason
    words = shlex.split(reason.split("lifts this: ")[1])
    assert words[:2] == ["python", "train.py"]
    config = load_config(words[2:])
    assert (
        config.dataset_size.images == 24 and config.resolution.pixels == 64 and config.method.name == "lora"
    )
    assert config.stopping.name == "evidence" and config.seed == 2
    assert Path(config.run_dir or "").parent == study / "pilots"
    assert (config.budget.max_steps or 0) > 1.5 * best_time(24, 64) / config.optimizer.lr
    pilot = spec(config.dataset_size.images, 64, seed=config.seed)
    run = read_run(make_run(tmp_path / "n24", pilot))
    from analysis.load import group_cells

    known = analyse(Study(tmp_path, "more", tuple(group_cells([*analysis.study.runs, run])), ()))
    assert recommend_unseen(known, asked).status == "ok"


def test_runs_beside_a_study_are_read_and_are_no_trials(study: Path, tmp_path: Path) -> None:
    import shutil

    from curves.run_folder import find_runs

    root = Path(shutil.copytree(study, tmp_path / "s"))
    make_run(root / "pilots" / "n24", spec(24, study=None))
    assert {run.name for run in load_study(root).runs} == {
        *(path.name for path in root.glob("trials/*")),
        "n24",
    }
    assert "n24" not in {item.path.name for item in find_runs(root)}


def test_one_size_and_resolution_are_too_wide_elsewhere(tmp_path: Path) -> None:
    """The power of the resolution is not known at all: half as many pixels again is already too wide."""
    known = analyse(load_study(make_study(tmp_path / "one", [spec(8, seed=seed) for seed in (0, 1)])))
    row = recommend_unseen(known, Asked(8, 96))
    assert row.status == "refused" and "too wide: the law puts the minimum between" in row.reason
    assert "python train.py" in row.reason and "resolution=px96" in row.reason


def test_of_two_folders_one_has_to_be_named(tmp_path: Path) -> None:
    """Twice the time on the other images: the answer is that of the folder that is asked about."""
    root = make_study(tmp_path / "two", [spec(n) for n in (4, 16)])
    for number, images in enumerate((4, 16)):
        other = replace(spec(images), best_time=2 * best_time(images, 64), panel="panel-b")
        facts = make_run(root / "trials" / f"001{number}-other", other).run
        record = json.loads(facts.read_text())
        record["cell"]["dataset"] = "f00d00000000"
        facts.write_text(json.dumps(record))
    known = analyse(load_study(root))
    with pytest.raises(
        RequestError, match=r"dataset: say which one is asked about: dataset=\.\.\.; the study has da7a"
    ):
        recommend_unseen(known, Asked(8))
    with pytest.raises(
        RequestError, match="dataset=c: is not the beginning of one content id; valid are da7a"
    ):
        recommend_unseen(known, Asked(8, dataset="c"))
    ours, theirs = (recommend_unseen(known, Asked(8, dataset=name)) for name in ("da7a", "f00d"))
    assert ours.minimum is not None and theirs.minimum is not None
    # two cells each leave half of the factor to chance
    assert 1.25 < theirs.minimum["median"] / ours.minimum["median"] < 2.8
    assert theirs.dataset == "f00d00000000"


def test_a_cell_that_was_run_answers_for_itself(analysis: Analysis) -> None:
    row = recommend_unseen(analysis, Asked(8, 64))
    assert row.source == "runs" and row in analysis.recommendation.cells


def test_the_command_adds_the_row_and_a_budget_finds_it(
    study: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, _ = command("recommend", study, "dataset_size=n12", "resolution=px96")
    assert status == 0
    text = " ".join(out.split())
    assert "lora, 12 images, 96 px: gain –, no run of its own; from the law over 6 cells" in text
    assert re.search(r"where the best checkpoint is kept: \d+ steps; kohya: \d+ repeats x \d+ epochs", text)
    stored = read_recommendation(study)
    identity = {**analyse(load_study(study)).study.cells[0].identity, "images": 12, "resolution": 96}
    row = matching_cell(stored.cells, identity)
    assert row is not None and row.source == "law" and row.status == "ok"
    status, out, _ = command("recommend", study, "dataset_size=12", "resolution=96", "--json")
    assert status == 0 and json.loads(out)["cells"][-1]["recommended_steps"] == row.recommended_steps
    command("recommend", study)
    assert matching_cell(read_recommendation(study).cells, identity) is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["dataset_size=n12"],
            "resolution: say which one is asked about: resolution=...; the study has 64, 96",
        ),
        (["datasetsize=n12"], "did you mean dataset_size?"),
        (["dataset_size=all"], "dataset_size=all: dataset_size takes training images: n24 or 24"),
        (["dataset_size=0"], "dataset_size takes"),
        (["optimizer.lr=fast"], "optimizer.lr takes a positive learning rate"),
        (["dataset_size=n12", "dataset_size=n24"], "stands there twice"),
        (
            ["dataset_size=12", "resolution=64", "method=loora"],
            "method=loora: there is no such option; valid are",
        ),
    ],
)
def test_a_mistake_is_one_clear_error(
    study: Path, command: Callable[..., tuple[int, str, str]], words: list[str], why: str
) -> None:
    status, out, error = command("recommend", study, *words)
    assert (status, out) == (2, "") and why in error and len(error.strip().splitlines()) == 1


def test_without_a_minimum_there_is_no_law(tmp_path: Path) -> None:
    root = make_study(tmp_path / "cut", [spec(8, last_step=40)])
    with pytest.raises(RequestError, match="no cell of the study shows its minimum"):
        recommend_unseen(analyse(load_study(root)), parse_asked(["dataset_size=16"]))


def test_the_exam_of_a_lawful_world_is_passed(analysis: Analysis) -> None:
    images, resolution = (mark(sit_exam(analysis, axis)) for axis in ("images", "resolution"))
    assert (images.asked, images.answered, resolution.asked) == (6, 6, 6)
    assert images.regret < 0.05 and images.ratio < 1.3 and images.coverage == 1
    assert (
        resolution.answered == 0 or resolution.regret < 0.1
    )  # one resolution alone says nothing of the other


def test_the_exam_asks_beyond_the_reach_and_is_refused(tmp_path: Path) -> None:
    known = analyse(
        load_study(
            make_study(tmp_path / "far", [spec(n, seed=n + more) for n in (4, 8, 32) for more in (0, 1)])
        )
    )
    questions = {item.cell.images: item for item in sit_exam(known, "images")}
    assert {images: item.beyond for images, item in questions.items()} == {4: False, 8: False, 32: True}
    assert questions[32].regret is None and questions[32].row.status == "refused"
    assert questions[8].regret is not None and questions[8].regret < 0.05
    assert sit_exam(known, "resolution") == []


def test_where_the_cells_nearby_hardly_gain_the_law_refuses(analysis: Analysis) -> None:
    """Of 16 images the nearest cell is the one of 8, the farther one of 4: their gain and its error decide."""

    def gained(cell: CellResult, errors: float, sizes: tuple[int, ...]) -> CellResult:
        row = cell.answer
        doubtful = row.images in sizes and row.gain is not None
        return replace(cell, answer=replace(row, gain_se=(row.gain or 0) / errors)) if doubtful else cell

    def refusals(errors: float, *sizes: int) -> list[bool]:
        cells = tuple(gained(cell, errors, sizes) for cell in analysis.cells)
        questions = sit_exam(replace(analysis, cells=cells), "images")
        said = [item.row.reason.startswith("doubtful gain: ") for item in questions]
        assert said == [item.regret is None for item in questions]
        return said

    assert refusals(2.1, 4, 8, 16) == [False] * 6
    assert refusals(1.9, 4, 8, 16) == [True] * 6
    assert refusals(0.5, 16)[4:] == [False] * 2  # they may not speak of themselves
    assert refusals(0.2, 8) == [True] * 2 + [False] * 2 + [True] * 2


def test_the_exam_is_a_command(study: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = command("law", study)
    assert status == 0
    assert re.search(r"goes with N\^0\.\d+ \(0\.\d+ to 0\.\d+\) over 3 values from 4 to 16", out)
    assert re.search(
        r"images left out: 6 of 6 cells answered; mean regret [\d.]+ % of gain, of a constant", out
    )
