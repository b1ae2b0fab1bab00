"""What the report shows beside the held-out loss: every number from the records, nothing where there are none."""

from dataclasses import replace
import json
from pathlib import Path
from typing import Any

import pytest

from analysis.beyond_loss import beyond_loss, in_words, memorization_gap, prior_drift
from analysis.load import load_study
from analysis.recommend import Analysis, analyse
from analysis.report import write_report
from curves.likeness import FILE_NAME, read_likeness
from curves.run_folder import RunFolder
from tests.analysis.make_runs import Spec, make_run

SPEC = Spec(horizon=300, best_time=0.08, samples=True, beyond=True)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    root = tmp_path_factory.mktemp("runs") / "recorded"
    make_run(root / "one", SPEC)
    return analyse(load_study(root))


def curve(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "one" / "curve.jsonl").read_text().splitlines()]


def without(root: Path, *keys: str) -> Analysis:
    """The study with some keys of its points taken out."""
    lines = [{key: point[key] for key in point if key not in keys} for point in curve(root)]
    (root / "one" / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return analyse(load_study(root))


def test_gap_and_drift_are_changes_since_the_first_evaluation(recorded: Analysis) -> None:
    data = beyond_loss(recorded.cells[0], recorded.recommendation.cells)
    assert data is not None
    first, *_, point = curve(recorded.study.root)
    fell = {name: point[name] - first[name] for name in ("val_loss", "train_panel_loss", "class_panel_loss")}
    gap = memorization_gap(data, point["step"])
    assert gap == pytest.approx(fell["val_loss"] - fell["train_panel_loss"])
    assert gap > 0  # past the minimum training images go on falling
    assert prior_drift(data, point["step"]) == pytest.approx(fell["class_panel_loss"])


def test_the_words_are_about_the_recommended_steps_and_the_samples_nearest_to_them(
    recorded: Analysis,
) -> None:
    data = beyond_loss(recorded.cells[0], recorded.recommendation.cells)
    steps = recorded.cells[0].answer.recommended_steps
    assert data is not None and steps is not None
    [said] = in_words(data)
    assert said.startswith(f"At {steps} steps: memorization gap ") and "prior drift " in said
    assert said.count("% of the gain") == 2
    records = read_likeness(recorded.study.root / "one" / "samples")
    nearest = min(records, key=lambda record: abs(record.step - steps))
    mean = sum(value for value in nearest.nearest if value is not None) / len(nearest.nearest)
    assert (
        f"samples of step {nearest.step} to their nearest training image {mean:.3g}, of held-out images 0.62"
        in said
    )
    assert "by tiny-clip" in said


def test_page_and_markdown_show_the_figure_and_say_that_loss_is_not_looks(recorded: Analysis) -> None:
    path = write_report(recorded)
    text, markdown = path.read_text(), path.with_suffix(".md").read_text()
    assert text.count("<figure>") == 2 and 'aria-label="More than loss: lora, 4 images"' in text
    assert "The lowest loss is not the best-looking checkpoint" in text
    assert "it forgets what the base model knew" in text and "the run memorizes" in text
    [said] = in_words(beyond_loss(recorded.cells[0], recorded.recommendation.cells) or pytest.fail())
    assert said in text and said in markdown
    name = "lora-n4-px64-tiny-file-beyond-loss"
    assert f"](figures/{name}.png)" in markdown
    assert (path.parent / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (path.parent / "figures" / f"{name}.svg").is_file()


def test_what_was_not_recorded_is_not_shown(tmp_path: Path) -> None:
    make_run(tmp_path / "one", replace(SPEC, samples=False))
    found = without(tmp_path, "train_panel_loss")
    data = beyond_loss(found.cells[0], found.recommendation.cells)
    assert data is not None and memorization_gap(data, 10) is None and not data.likeness
    [said] = in_words(data)
    assert "gap" not in said and "distance" not in said and "prior drift" in said
    text = write_report(found).read_text()
    assert "the run memorizes" in text and text.count("<figure>") == 2

    found = without(tmp_path, "class_panel_loss")
    assert beyond_loss(found.cells[0], found.recommendation.cells) is None
    assert write_report(found).read_text().count("<figure>") == 1


def test_a_damaged_record_costs_itself_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "one", SPEC)
    (RunFolder(tmp_path / "one").samples / FILE_NAME).write_bytes(b"\xff\x00 nothing\n{}\n")
    found = without(tmp_path, "train_panel_loss", "class_panel_loss")
    assert beyond_loss(found.cells[0], found.recommendation.cells) is None
    assert found.cells[0].answer.status == "ok"
