"""The exam on recorded curves of real Stable Diffusion 1.5 runs, which lie beside the repository."""

from pathlib import Path

import numpy as np
import pytest

from analysis.exam.examine import Examined, differences, examine
from analysis.exam.outcomes import PRICES, examined_runs, image_sets
from analysis.exam.policies import Memory, policies
from analysis.load import load_study
from benchmarks.recorded_curves import Recipe, make_study, recipe

CURVES = Path(__file__).resolve().parents[2].parent / "shared" / "exam" / "val_curves.csv"
recorded = pytest.mark.skipif(not CURVES.exists(), reason="recorded curves are not beside this repository")
BASELINES = (
    "none",
    "fixed steps",
    "steps per image",
    "100 steps per image",
    "patience",
    "gl",
    "up",
    "pq",
    "dvar",
)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("dataset_size/aerochrome-50_lr5e-7", Recipe("aerochrome", 50, 5e-7)),
        ("dataset_size/aerochrome-20_randomcrop_lr5e-7", Recipe("aerochrome", 20, 5e-7)),
        ("long_lr_sweep/1.0e-06", Recipe("twenty-images", 20, 1e-6)),
        ("batch_size/4", Recipe("twenty-images", 20, 2e-6, 4)),
        ("batch_size_sqrt/4", Recipe("twenty-images", 20, 1e-6, 4)),
    ],
)
def test_a_runs_name_says_what_it_is(name: str, known: Recipe) -> None:
    assert recipe(name) == known


def test_a_run_of_another_collection_is_refused() -> None:
    with pytest.raises(ValueError, match="another collection"):
        recipe("resolution/512")


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> list[Examined]:
    to = tmp_path_factory.mktemp("recorded") / "runs"
    make_study(CURVES, to)
    runs = examined_runs(load_study(to))
    return examine(runs, image_sets(runs), policies(Memory()))


@recorded
@pytest.mark.long
def test_what_is_examined(examined: list[Examined]) -> None:
    sets = examined[0].sets
    # Of 23 runs one is recorded twice, and one never improves on the base.
    assert {name: int((sets == name).sum()) for name in np.unique(sets)} == {
        "aerochrome": 7,
        "twenty-images": 14,
    }


@recorded
@pytest.mark.long
def test_the_posterior_rule_costs_less_than_every_baseline_at_every_price(examined: list[Examined]) -> None:
    known = {item.policy.name: item for item in examined}
    for name in BASELINES:
        for price in PRICES:
            assert known["posterior"].mean_cost(price) < known[name].mean_cost(price), (name, price)


@recorded
@pytest.mark.long
def test_the_lead_is_more_than_chance_at_two_prices_or_more(examined: list[Examined]) -> None:
    found = differences(examined)
    for name in BASELINES:
        assert sum(item.high < 0 for item in found[name]) >= 2, name
