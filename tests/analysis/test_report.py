"""The page: complete, self-contained, and with no number of its own."""

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
import json
from pathlib import Path
import re
import shlex
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
import pytest

from analysis import words
from analysis.draw import step_limits
from analysis.figures import cell_figure, spread_labels
from analysis.load import load_study
from analysis.recommend import Analysis, analyse, write_analysis
from analysis.report import answered, report_context, write_report
from analysis.samples import sample_strip
from conf.compose import load_config
from curves.spent import Account, Spent, write_account
from tests.analysis.make_runs import Spec, make_run, make_study

VOID = {"meta", "img", "link", "br", "hr"}
ADDRESSES = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")


class Page(HTMLParser):
    """Texts of marked elements, all addresses, all pictures and all ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.rows: dict[int, dict[str, str]] = {}
        self.reasons: dict[int, str] = {}
        self.runs: list[str] = []
        self.pictures: list[dict[str, str]] = []
        self._row = -1
        self._take: Callable[[str], None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.addresses += [values[name] for name in ADDRESSES if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "img":
            self.pictures.append(values)
        if "data-run" in values:
            self.runs.append(values["data-run"])
        if "data-cell" in values:
            self._row = int(values["data-cell"])
            self.rows[self._row] = {}
        if "data-key" in values:
            self._collect(self.rows[self._row], values["data-key"])
        if "data-reason" in values:
            self._collect(self.reasons, int(values["data-reason"]))

    def _collect(self, into: dict[Any, str], key: Any) -> None:
        into[key] = ""

        def take(text: str) -> None:
            into[key] += text

        self._take = take

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._take = None

    def handle_data(self, data: str) -> None:
        if self._take is not None:
            self._take(data)


@pytest.fixture(scope="session")
def text(report: Path) -> str:
    return report.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="session")
def stored(study: Path, report: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((study / "analysis" / "recommendation.json").read_text())[
        "cells"
    ]
    return found


def test_page_loads_nothing_from_elsewhere(page: Page, text: str) -> None:
    assert page.addresses
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text


def test_every_reference_within_the_page_is_there_once(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_every_number_is_that_of_the_file(page: Page, stored: list[dict[str, Any]]) -> None:
    assert len(page.rows) == len(stored)
    for row, cell in zip(page.rows.values(), stored, strict=True):
        assert row["method"] == cell["method"]
        assert int(row["images"]) == cell["images"]
        minimum = re.fullmatch(r"(\d+) \((\d+)–(\d+)\)", row["minimum"])
        window = re.fullmatch(r"(\d+)–(\d+)\+?", row["window"])
        if cell["status"] != "ok":
            assert row["recommended_steps"] == words.STATUS_WORDS[cell["status"]]
            assert (minimum, window, row["images_seen"], row["epochs"]) == (None, None, "–", "–")
            continue
        assert int(row["recommended_steps"]) == cell["recommended_steps"]
        assert minimum is not None and window is not None
        assert [int(part) for part in minimum.groups()] == [
            cell["minimum"][k] for k in ("median", "low", "high")
        ]
        assert [int(part) for part in window.groups()] == [cell["window"][k] for k in ("low", "high")]
        assert int(row["images_seen"]) == cell["images_seen"]
        assert float(row["epochs"]) == pytest.approx(cell["epochs"], rel=0.005)
        assert float(row["lr"]) == pytest.approx(cell["hyperparameters"]["lr"], rel=0.05)
        gain, error = row["gain"].split(" ± ")
        assert float(gain) == pytest.approx(cell["gain"], abs=cell["gain_se"] / 10)
        assert float(error) == pytest.approx(cell["gain_se"], rel=0.1)


def test_reasons_runs_and_damaged_folders_are_told(
    page: Page, text: str, stored: list[dict[str, Any]]
) -> None:
    for reason, cell in zip(page.reasons.values(), stored, strict=True):
        assert cell["reason"] in reason
    assert len(page.runs) == 13
    assert "0099-damaged" in text


def test_answer_in_two_sentences_gives_the_steps(text: str, stored: list[dict[str, Any]]) -> None:
    for cell in stored:
        if cell["status"] == "ok":
            steps, low, high = cell["recommended_steps"], *cell["window"].values()
            assert f"{cell['images']} images: train {steps} steps (window {low}–{high})" in text
    assert "No answer: text_to_image, 4 images (not reached); " in text


def test_samples_are_embedded_and_the_nearest_column_is_marked(page: Page, analysis: Analysis) -> None:
    assert len(page.pictures) >= 4 * 8
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in page.pictures)
    assert any("house <with> a" in picture["alt"] for picture in page.pictures)
    cell = analysis.cells[0]
    assert cell.shown is not None and cell.answer.recommended_steps is not None
    strip = sample_strip(cell.shown.run, cell.answer)
    assert strip is not None
    assert strip.nearest == min(
        strip.steps[1:], key=lambda step: abs(step - (cell.answer.recommended_steps or 0))
    )
    assert strip.rows[0][0] == "a line drawing of a cat"
    assert all(picture is not None for _, pictures in strip.rows for picture in pictures)


def test_damaged_sample_leaves_a_gap(tmp_path: Path, analysis: Analysis) -> None:
    folder = make_run(tmp_path / "a", Spec(horizon=60, samples=True))
    (folder.samples / "step-000016-1.png").write_bytes(b"no picture")
    (folder.samples / "prompts.json").unlink()
    strip = sample_strip(load_study(tmp_path).runs[0], analysis.cells[0].answer)
    assert strip is not None
    assert strip.rows[1][0] == "prompt 2"
    assert [picture is None for picture in strip.rows[1][1]] == [step == 16 for step in strip.steps]


def test_of_many_samples_the_window_is_shown_whole(tmp_path: Path, analysis: Analysis) -> None:
    folder = make_run(tmp_path / "a", Spec(horizon=60, samples=True))
    picture = (folder.samples / "step-000016-0.png").read_bytes()
    steps = [0, 16, 32, 64, 90, 100, 110, 120, 128, 256, 512, 1024, 2048]
    for step in steps:
        (folder.samples / f"step-{step:06d}-0.png").write_bytes(picture)
    row = replace(analysis.cells[0].answer, recommended_steps=100, window={"low": 90, "high": 128})
    strip = sample_strip(load_study(tmp_path).runs[0], row)
    assert strip is not None
    inside = [step for step, within in zip(strip.steps, strip.in_window, strict=True) if within]
    assert inside == [90, 100, 110, 120, 128]
    assert len(strip.steps) == 8 and (strip.steps[0], strip.nearest, strip.steps[-1]) == (0, 100, 2048)


def test_commands_reproduce_study_answer_and_training(analysis: Analysis, text: str, tmp_path: Path) -> None:
    groups = dict(report_context(replace(analysis, cells=analysis.cells[:1]), tmp_path)["commands"])
    assert groups["The sweep"] == ["python -m sweep run experiment=demo"]
    [training] = groups["Training as recommended"]
    assert "dataset_size=n4 method=lora budget=recommended budget.study=" in training
    assert "optimizer.lr" not in training
    assert "python -m analysis report" in text
    assert "0123456789ab" in text


def test_figures_lie_beside_the_page_and_markdown_shows_them(report: Path) -> None:
    markdown = (report.parent / "report.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\((figures/[^)]+)\)", markdown)
    assert len(shown) == 8
    for name in shown:
        assert (report.parent / name).read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (report.parent / name).with_suffix(".svg").read_text()


def test_markdown_has_the_numbers(report: Path, stored: list[dict[str, Any]]) -> None:
    lines = (report.parent / "report.md").read_text(encoding="utf-8").splitlines()
    for cell in stored:
        [row] = [line for line in lines if line.startswith(f"| {cell['method']} | {cell['images']} |")]
        assert str(cell["recommended_steps"] or words.STATUS_WORDS[cell["status"]]) in row


def test_names_from_outside_cannot_break_the_page(tmp_path: Path) -> None:
    make_run(
        tmp_path / "<b>study" / "<i>run", Spec(horizon=60, method="<script>alert(1)</script>", study=None)
    )
    found = analyse(load_study(tmp_path / "<b>study"))
    write_analysis(found)
    text = write_report(found).read_text(encoding="utf-8")
    assert "<script>" not in text and "<b>study" not in text and "<i>run" not in text
    assert "&lt;script&gt;" in text


def test_answer_for_many_cells_gives_the_range(analysis: Analysis) -> None:
    row = analysis.recommendation.cells[0]
    cells = [replace(row, images=size, recommended_steps=10 * size) for size in range(1, 10)]
    assert answered(cells).startswith("Answered: 9 of 9 cells, from train 10 steps")
    assert "to train 90 steps" in answered(cells)
    assert answered([replace(row, status="no_gain", recommended_steps=None)]) == (
        "Answered: nothing yet; lora, 4 images (no gain)."
    )


def test_figure_shows_each_run_and_the_bottom_of_the_curve(analysis: Analysis) -> None:
    figure = cell_figure(analysis.cells[0], analysis.recommendation.cells)
    assert [line.best for line in figure.lines] == [False, True]
    assert figure.band is not None
    inside = (figure.band.low <= figure.band.median) & (figure.band.median <= figure.band.high)
    assert inside.all()
    assert figure.lowest < min(line.delta.min() for line in figure.lines)


def test_labels_are_spread_in_order() -> None:
    spread = spread_labels([0.0, 0.01, 1.0, 0.02], 0.1)
    assert sorted(range(4), key=spread.__getitem__) == [0, 1, 3, 2]
    ordered = sorted(spread)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(ordered))


def test_a_cell_without_an_evaluation_costs_nobody_the_report(report: Path, page: Page, text: str) -> None:
    """The last cell's only run ran out of memory before step 0: no figure, and all else is there."""
    assert len(page.rows) == 8 and text.count("<figure>") == 8
    assert "no run has 4 finite evaluations" in page.reasons[7]
    section = (report.parent / "report.md").read_text().split("## text_to_image, 128 images")[1]
    assert "figures/" not in section.split("\n## ")[0]


def test_only_empty_curves_still_make_a_report(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", [Spec(last_step=-1, outcome="crashed")])
    text = write_report(analyse(load_study(study))).read_text()
    assert "<figure>" not in text and "crashed" in text


def test_commands_name_the_study_where_it_lies(
    analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named() -> list[str]:
        groups = dict(report_context(replace(analysis, cells=analysis.cells[:1]), tmp_path / "f")["commands"])
        command = shlex.split(groups["The answer and this page"][0])
        [training] = groups["Training as recommended"]
        return [command[-1], load_config(shlex.split(training)[2:]).budget.study or ""]

    root = analysis.study.root.resolve()
    monkeypatch.chdir(tmp_path)
    assert named() == [str(root)] * 2
    monkeypatch.chdir(root.parent)
    assert named() == [root.name] * 2


def test_any_path_and_any_name_reach_the_training_through_shell_and_hydra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, base = "sp ace é, a=b 'c'", "my base, x=1"
    study = make_study(tmp_path / "runs" / name, [Spec(base_model=base)])
    groups = dict(report_context(analyse(load_study(study)), tmp_path / "f")["commands"])
    assert shlex.split(groups["The answer and this page"][0])[-1] == f"runs/{name}"
    [training] = groups["Training as recommended"]
    overrides = OverridesParser.create().parse_overrides(shlex.split(training)[2:])
    chosen = {item.key_or_group: item for item in overrides}
    assert chosen["base_model"].value() == base
    plain = [item for item in shlex.split(training)[2:] if base not in item]
    assert load_config(plain).budget.study == f"runs/{name}"


def test_runs_without_a_gain_are_not_called_unfinished(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", [Spec(gain=-0.004), Spec(gain=-0.004, lr=2e-3)])
    found = analyse(load_study(study))
    assert [row.note for row in report_context(found, tmp_path / "f")["runs"]] == ["no gain"] * 2
    text = write_report(found).read_text()
    assert "ended before its minimum" not in text and "censored" not in text and "Green: runs" not in text


def test_unfinished_and_best_runs_are_marked(analysis: Analysis, text: str, tmp_path: Path) -> None:
    notes = [row.note for row in report_context(analysis, tmp_path)["runs"]]
    assert notes.count("ended before its minimum") >= 2 and notes.count("no gain") == 1
    assert "Green: runs at the best hyperparameters" in text


def test_budget_for_the_best_checkpoint_is_told(
    text: str, report: Path, stored: list[dict[str, Any]]
) -> None:
    markdown = (report.parent / "report.md").read_text()
    for cell in stored:
        steps = cell["recommended_steps_best_kept"]
        assert (steps is not None) == (cell["status"] == "ok")
        if steps is not None:
            said = f"Where the best checkpoint is kept instead of the last, {steps} steps do"
            assert said in text and said in markdown


def test_an_open_window_is_marked(analysis: Analysis) -> None:
    row = replace(analysis.cells[0].answer, window_open=True)
    low, high = (row.window or {}).values()
    assert f"(window {low}–{high}+)" in answered([row])


def test_what_is_concluded_lies_within_the_picture(analysis: Analysis) -> None:
    """A bound in steps at the best learning rate may be later than every run's end."""
    figure = cell_figure(analysis.cells[0], analysis.recommendation.cells)
    last = max(line.steps[-1] for line in figure.lines)
    row = replace(figure.answer, recommended_steps=None, minimum=None, window=None, lower_bound=5000)
    assert step_limits(figure) == (4, last)
    assert step_limits(replace(figure, answer=row)) == (4, 5000)
    wide = replace(figure.answer, window={"low": 10, "high": 900})
    assert step_limits(replace(figure, answer=wide)) == (4, 900)
    assert words.lower_bound(row) == "probably later than 5000 steps at lr 0.001"


def test_a_long_caption_has_a_short_file_name_and_a_short_label(tmp_path: Path) -> None:
    caption = "a very long caption " * 20
    specs = [Spec(captions=caption), Spec(captions=caption + "é" * 200, images=8)]
    found = analyse(load_study(make_study(tmp_path / "s", specs)))
    path = write_report(found)
    names = sorted(item.name for item in (path.parent / "figures").iterdir())
    assert len(names) == 4 and max(len(name.encode()) for name in names) < 120
    cells = found.recommendation.cells
    assert max(len(words.cell_name(cell, cells)) for cell in cells) < 80


def test_markdown_table_survives_pipes_and_shows_what_varies(tmp_path: Path) -> None:
    specs = [
        Spec(captions="a | b", hyperparameters={"rank": 4}),
        Spec(images=8, hyperparameters={"rank": 16, "targets": "q|k"}),
        Spec(images=16, hyperparameters={"rank": 16, "targets": "v"}),
    ]
    path = write_report(analyse(load_study(make_study(tmp_path / "s", specs))))
    lines = (path.parent / "report.md").read_text().splitlines()
    table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    assert len(table) == 5 and len({len(row) for row in table}) == 1
    header = [cell.strip() for cell in table[0]]
    rows = [dict(zip(header, (cell.strip() for cell in row), strict=True)) for row in table[2:]]
    assert {row["rank"] for row in rows} == {"4", "16"}
    assert {row["targets"] for row in rows} == {"–", "q\\|k", "v"}
    assert {row["captions"] for row in rows} == {"a \\| b", "file"}


def test_what_is_spent_and_left_stands_beside_the_limits(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", [Spec()])
    path = write_report(analyse(load_study(study)))
    assert "What it took" not in path.read_text(encoding="utf-8")  # runs without a sweep have no account

    spent = Spent(trials=24, hours=1.25, gpu_hours=2.5, steps=12000, disk_gb=0.8, cost=10.0)
    limits = {"hours": 2.0, "steps": 12000.0, "cost": 12.0}
    reached = "sweep.limits.steps=12000: 12,000 steps are spent"
    write_account(study, Account(spent, limits, "EUR", True, reached))
    path = write_report(analyse(load_study(study)))
    rows = [
        ("trials", "24", "–", "–"),
        ("hours of wall clock", "1.2", "2", "0.75"),
        ("GPU-hours", "2.5", "–", "–"),
        ("steps", "12,000", "12,000", "0"),
        ("GB on disk", "0.8", "–", "–"),
        ("cost in EUR", "10", "12", "2"),
    ]
    page = path.read_text(encoding="utf-8")
    table = page.split('id="spent"', 1)[1].split("</table>", 1)[0]
    found = [tuple(re.findall(r"<td[^>]*>([^<]*)</td>", row)) for row in table.split("<tr>")[2:]]
    assert found == rows
    assert f"before its plan was fulfilled: {reached}." in page
    markdown = (path.parent / "report.md").read_text(encoding="utf-8")
    assert all(f"| {' | '.join(row)} |" in markdown.splitlines() for row in rows)
    assert reached in markdown


def test_what_a_log_does_not_say_is_not_asked_for(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "logs" / "cats", Spec(horizon=300, best_time=0.08, study=None))
    record = json.loads(folder.run.read_text())
    unknown = dict.fromkeys(record["cell"])
    folder.run.write_text(
        json.dumps(record | {"cell": unknown, "images": None, "imported": {"tool": "other"}})
    )
    points = folder.curve.read_text().splitlines(keepends=True)
    folder.curve.write_text("".join(points[1:]))  # without step 0
    text = write_report(analyse(load_study(tmp_path / "logs"))).read_text()
    assert "Asked: how many steps to train, at which learning rate, and when to stop." in text
    assert "minus that of the first evaluation, by learning rate" in text
    assert "unknown images with unknown" not in text
