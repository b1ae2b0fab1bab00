"""Pictures of the own image sets, and which runs are recorded of them."""

from collections import Counter
from pathlib import Path

from PIL import Image, ImageDraw
import pytest

from benchmarks.own_sets import plan
from benchmarks.own_sets.build import SIZE, build, choose
from benchmarks.own_sets.pictures import SIDE, on_white, quarters
from benchmarks.own_sets.readers import words_of
from benchmarks.own_sets.sets import SETS
from conf.compose import load_config


def test_ten_sets_of_five_sources_at_three_sizes_and_three_sets_on_all_axes() -> None:
    cells = plan.size_cells() + plan.axes_cells()
    assert len(set(cells)) == len(cells)
    assert len(SETS) >= 10
    assert len({item.package for item in SETS}) >= 5
    plain = [cell for cell in cells if (cell.resolution, cell.base_model) == ("px64", "tiny")]
    assert set(Counter(cell.image_set for cell in plain).values()) == {3}
    for name in plan.AXES_SETS:
        levels = {(cell.size, cell.resolution, cell.base_model) for cell in cells if cell.image_set == name}
        assert {level[1:] for level in levels if level[0] == plan.AXES_SIZES[0]} == {
            (resolution, base) for resolution in plan.RESOLUTIONS for base in plan.BASES
        }


def test_held_out_seeds_are_no_calibration_seeds_and_every_cell_has_one() -> None:
    calibration, held_out = plan.runs("calibration"), plan.runs("held_out")
    assert not {seed for _, seed in calibration} & {seed for _, seed in held_out}
    assert {cell for cell, _ in calibration} == {cell for cell, _ in held_out}
    assert len({seed for _, seed in calibration + held_out}) == len(calibration) + len(held_out)


@pytest.mark.parametrize("cell", [plan.size_cells()[0], plan.axes_cells()[-1]], ids=lambda cell: cell.name)
def test_a_cell_is_the_full_method_at_a_constant_rate_to_its_end(cell: plan.Cell, tmp_path: Path) -> None:
    config = load_config(cell.overrides(tmp_path, 7))
    assert config.method.adapter == "none"
    assert config.optimizer.schedule == "constant"
    assert config.stopping.name == "none"
    assert config.samples.count == 0
    assert config.seed == 7
    assert (config.dataset_size.name, config.resolution.name) == (cell.size, cell.resolution)
    assert (config.dataset_size.images or 0) + config.dataset.held_out <= SIZE


def test_shapes_are_built_as_a_data_set_and_a_second_time_alike(tmp_path: Path) -> None:
    (shapes,) = [item for item in SETS if item.package is None]
    row = build(shapes, tmp_path / "first", tmp_path)
    assert row.endswith(f"| {SIZE} |")
    build(shapes, tmp_path / "second", tmp_path)
    pictures = sorted((tmp_path / "first" / "shapes").glob("*.png"))
    assert len(pictures) == SIZE
    for path in pictures:
        assert path.read_bytes() == (tmp_path / "second" / "shapes" / path.name).read_bytes()
        caption = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        assert caption.replace(" ", "-") == path.stem
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((SIDE, SIDE), "RGB")


def test_empty_and_repeated_pictures_are_left_out() -> None:
    def square(left: int) -> Image.Image:
        page = Image.new("RGB", (SIDE, SIDE), "white")
        ImageDraw.Draw(page).rectangle((left, 20, left + 40, 60), fill="black")
        return page

    candidates = [
        ("empty", lambda: Image.new("RGB", (SIDE, SIDE), "white")),
        ("one", lambda: square(0)),
        ("same picture", lambda: square(0)),
        ("two", lambda: square(50)),
        ("two", lambda: square(70)),
    ]
    chosen = choose(candidates, 9)
    assert len(chosen) == 2
    assert {caption for caption, _ in chosen} <= {"one", "same picture", "two"}
    assert "two" in {caption for caption, _ in chosen}


def test_transparency_becomes_white_and_the_whole_picture_is_kept() -> None:
    layer = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    ImageDraw.Draw(layer).rectangle((0, 0, 9, 9), fill="red")
    page = on_white(layer)
    assert page.size == (SIDE, SIDE)
    assert page.getpixel((2, 2)) == (255, 255, 255)
    assert page.getpixel((SIDE // 4, SIDE // 2)) == (255, 0, 0)
    assert page.getpixel((SIDE - 4, SIDE // 2)) == (255, 255, 255)


def test_quarters_are_in_the_order_of_their_captions(tmp_path: Path) -> None:
    photo = Image.new("RGB", (40, 20))
    for index, colour in enumerate(("red", "lime", "blue", "white")):
        ImageDraw.Draw(photo).rectangle(
            (20 * (index % 2), 10 * (index // 2), 20 * (index % 2) + 19, 10 * (index // 2) + 9), fill=colour
        )
    photo.save(tmp_path / "photo.png")
    middles = [quarter.getpixel((SIDE // 2, SIDE // 2)) for quarter in quarters(tmp_path / "photo.png")]
    assert middles == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


def test_captions_are_the_words_of_a_file_name() -> None:
    assert words_of("Accessories-text_editor2") == "accessories text editor"
    assert words_of("32x32") == ""
