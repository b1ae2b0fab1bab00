"""Studies beside each other: cells match by what they are, and a difference is one only beyond the intervals."""

from collections.abc import Callable
import csv
from dataclasses import replace
from html.parser import HTMLParser
import json
from pathlib import Path
from typing import Any

import pytest

from analysis.comparison import Comparison, compare, interval
from analysis.comparison_report import comparison_table, summary, write_comparison
from analysis.load import load_study
from analysis.recommend import Analysis, analyse
from conf.errors import RequestError
from curves.run_folder import write_json
from tests.analysis.make_runs import Spec, make_study

SHORT = {"horizon": 300, "best_time": 0.08}
SAME = Spec(**SHORT, seed=3)
MORE = Spec(**SHORT, gain=0.03, images=8)
LATER = Spec(horizon=600, best_time=0.4, images=16)
PANEL = Spec(**SHORT, images=32, panel="panel-z")
IMAGES = Spec(**SHORT, images=64, dataset="0ther000", panel="panel-z")
ALONE = Spec(**SHORT, images=128)
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    specs = [Spec(**SHORT, images=images) for images in (4, 8, 16, 32, 64)]
    return analyse(load_study(make_study(tmp_path_factory.mktemp("runs") / "first", specs)))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    specs = [SAME, MORE, LATER, PANEL, IMAGES, ALONE]
    return analyse(load_study(make_study(tmp_path_factory.mktemp("runs") / "second", specs)))


@pytest.fixture(scope="module")
def comparison(first: Analysis, second: Analysis) -> Comparison:
    return compare([first, second])


@pytest.fixture(scope="module")
def page(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(comparison, tmp_path_factory.mktemp("compared"))


def by_images(comparison: Comparison) -> dict[int, Any]:
    return {cell.entries[0].answer.images or 0: cell for cell in comparison.cells}


def test_cells_match_by_what_they_are(comparison: Comparison) -> None:
    assert [cell.name for cell in comparison.cells] == [f"lora, {n} images" for n in (4, 8, 16, 32, 64, 128)]
    studies = [[entry.study for entry in cell.entries] for cell in comparison.cells]
    assert studies == [["first", "second"]] * 5 + [["second"]]


def test_differences_are_marked_exactly_where_intervals_do_not_overlap(comparison: Comparison) -> None:
    marked = {}
    for cell in comparison.cells:
        fields = [] if cell.steps else ["minimum", "window"]
        fields += [] if cell.losses else ["gain"]
        apart = set()
        for field in fields if len(cell.entries) == 2 else []:
            one, two = (interval(entry.answer, field) for entry in cell.entries)
            if one and two and not (one[0] <= two[1] and two[0] <= one[1]):
                apart.add(field)
        assert {item.field for item in cell.differences} == apart
        marked[cell.name] = {(item.field, item.direction, item.study) for item in cell.differences}
    assert marked["lora, 4 images"] == set()  # two draws of one truth
    assert ("gain", "larger", "second") in marked["lora, 8 images"]
    assert ("minimum", "later", "second") in marked["lora, 16 images"]


def test_losses_of_other_panels_and_images_are_not_compared_and_steps_are(
    comparison: Comparison, page: Path
) -> None:
    cells = by_images(comparison)
    assert not cells[4].losses and not cells[4].other
    assert cells[32].losses == "the held-out losses were measured on other panels" and not cells[32].other
    assert cells[64].other == "other images or captions (first: da7a0000, second: 0ther000)"
    for images in (32, 64):
        assert not cells[images].steps
        assert {item.field for item in cells[images].differences} <= {"minimum", "window"}
    figures = sorted(path.name for path in (page.parent / "figures").glob("*.svg"))
    assert figures == [*(f"0{n + 1}-lora__{4 * 2**n}_images.svg" for n in range(3)), "steps-by-study.svg"]
    assert "Losses are not compared in 2 of 5 shared cells" in summary(comparison)[-1]


def test_the_reason_names_what_of_the_panels_differs(tmp_path: Path) -> None:
    studies = []
    for name, images in (("a", ["1", "2"]), ("b", ["1", "3"])):
        root = make_study(tmp_path / name, [replace(SAME, panel=f"panel-{name}")])
        panel = {"images": images, "base": "same", "timesteps": [[1], [2]]}
        write_json(next((root / "trials").iterdir()) / "panel.json", panel)
        studies.append(analyse(load_study(root)))
    [cell] = compare(studies).cells
    assert cell.losses == "the held-out losses were measured on other held-out images"


def test_steps_of_another_kind_are_not_compared(first: Analysis, tmp_path: Path) -> None:
    root = make_study(tmp_path / "imported", [SAME])
    file = next((root / "trials").iterdir()) / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"imported": {"steps": "micro-steps", "tool": "OneTrainer"}}))
    found = compare([first, analyse(load_study(root))])
    cell = by_images(found)[4]
    assert cell.steps == "a step is not the same: first: updates, imported: micro-steps"
    assert all(item.field == "gain" for item in cell.differences)


def test_json_csv_and_page_have_the_numbers_of_the_studies(comparison: Comparison, page: Path) -> None:
    stored = json.loads(page.with_suffix(".json").read_text())
    rows = list(csv.DictReader(page.with_suffix(".csv").read_text().splitlines()))
    shown = _Rows(page.read_text()).rows
    entries = [(cell, entry) for cell in comparison.cells for entry in cell.entries]
    answers = [answer for cell in stored["cells"] for answer in cell["answers"]]
    assert len(entries) == len(answers) == len(rows) == len(shown) == 11
    for (cell, entry), answer, row, seen in zip(entries, answers, rows, shown, strict=True):
        steps = entry.answer.recommended_steps
        assert answer["recommended_steps"] == steps and row["recommended_steps"] == str(steps)
        assert (answer["study"], row["study"], row["cell"]) == (entry.study, entry.study, cell.name)
        assert seen[1] == entry.study and seen[3] == str(steps)
        marked = {
            field for field, text in zip(("minimum", "window", "gain"), seen[4:7], strict=True) if "≠" in text
        }
        assert marked == {item.field for item in cell.differences if item.study == entry.study}
        assert set(row["differs_in"].split()) == marked
        assert entry.seconds == pytest.approx(0.1 * steps)  # of make_runs, which takes 0.1 s a step
    assert stored["studies"][0]["label"] == "first" and stored["schema"] == 1


def test_the_page_is_one_file_that_asks_for_nothing(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text and 'src="http' not in text and "<link" not in text
    assert text.count("<svg") == 4 and len(set(_Rows(text).ids)) == len(_Rows(text).ids)


def test_the_terminal_has_a_row_a_study_and_says_why_not(comparison: Comparison, command: Command, first: Analysis,
    second: Analysis, tmp_path: Path) -> None:  # fmt: skip
    roots = [first.study.root, second.study.root]
    status, said, _ = command("compare", *roots, "--to", tmp_path / "out")
    assert status == 0
    assert len(comparison_table(comparison).rows) == 11
    plain = " ".join(said.split())
    assert "lora, 8 images: gain larger in second than in first" in plain
    assert "Losses are not compared: the held-out losses were measured on other panels." in plain
    assert said.splitlines()[-1] == f"comparison: {tmp_path / 'out' / 'comparison.html'}"
    assert not (second.study.root / "analysis").exists()  # a comparison changes nothing in what it compares
    status, said, _ = command("compare", *roots, "--to", tmp_path / "out", "--json")
    assert status == 0 and json.loads(said) == json.loads((tmp_path / "out" / "comparison.json").read_text())


def test_without_a_folder_it_lies_in_the_first_study(command: Command, tmp_path: Path) -> None:
    roots = [make_study(tmp_path / name / "demo", [SAME]) for name in ("a", "b")]
    status, said, _ = command("compare", *roots)
    assert status == 0
    assert (roots[0] / "analysis" / "comparison-demo" / "comparison.html").is_file()
    assert str(roots[1]) in said  # two studies of one name are told apart by where they lie


def test_a_comparison_needs_two_studies(first: Analysis, command: Command) -> None:
    root = first.study.root
    for given, fault in (([root], f"only {root} is given"), ([root, root], f"{root} is given twice")):
        status, said, error = command("compare", *given)
        assert (status, said) == (2, "") and fault in error and "two studies or more" in error
    with pytest.raises(RequestError):
        compare([first])


def test_cells_that_two_images_sets_share_stand_apart_where_a_study_has_both(tmp_path: Path) -> None:
    both = make_study(tmp_path / "both", [SAME, replace(SAME, dataset="0ther000")])
    one = make_study(tmp_path / "one", [replace(SAME, dataset="0ther000")])
    found = compare([analyse(load_study(root)) for root in (both, one)])
    assert sorted(len(cell.entries) for cell in found.cells) == [1, 2]
    assert all(not cell.other for cell in found.cells)
    assert len({cell.name for cell in found.cells}) == 2


class _Rows(HTMLParser):
    """The cells of the table's rows, and all ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"] or "")
        if tag == "tr":
            self._open = "data-study" in values
            self.rows += [[]] if self._open else []
        if tag == "td" and self._open:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self._open and self.rows[-1]:
            self.rows[-1][-1] += data.strip()
