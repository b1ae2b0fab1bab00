"""500 odd and damaged images: every bad file is named, none ends in a traceback, the good ones come out right."""

from pathlib import Path
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from finetune.names import shown
from finetune.prepare.__main__ import main
from tests.finetune.conftest import Train
from tests.finetune.odd_images import CHINESE, Odd, make_odd_images

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Odd]]:
    folder = tmp_path_factory.mktemp("odd") / "photos"
    return folder, make_odd_images(folder)


def starting(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def colours_of(image: Image.Image) -> list[list[int]]:
    """The middles of the left and the right half."""
    across, down = image.size
    places = ((across // 4, down // 2), (across * 3 // 4, down // 2))
    return [list(np.asarray(image)[y, x]) for x, y in places]


def test_prepare_names_every_bad_file_and_makes_the_good_ones_right(
    odd_folder: tuple[Path, list[Odd]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, made = odd_folder
    to = tmp_path / "prepared"
    assert len(made) == 500
    assert (
        main([str(folder), "--to", str(to), "--size", "32", "--square", "crop", "--duplicates", "keep"]) == 0
    )
    said, complaints = capsys.readouterr()
    assert complaints == ""
    for item in made:
        named = starting(said, f"quarantine: {shown(item.name)} ")
        if item.reason is None:
            assert not named, item.name
        else:
            assert len(named) == 1, item.name
            assert item.reason in named[0]
            reason = to / "quarantine" / f"{item.name}.reason.txt"
            assert item.reason in reason.read_text(encoding="utf-8")
    good = [item for item in made if item.reason is None]
    outputs = list(to.glob("*.png"))
    assert len(outputs) == len(good)
    assert "12 captions are longer than the 75 words" in said
    for item in good:
        output = to / f"{Path(item.name).stem}.png"
        with Image.open(output) as image:
            assert (image.mode, image.size) == ("RGB", (32, 32))
            assert np.allclose(colours_of(image), item.colours, atol=6), item.name
        caption = output.with_suffix(".txt").read_text(encoding="utf-8")
        if item.name.startswith(("gbk-", "utf16-", "marked-")):
            assert caption == CHINESE + "\n"
    page = (to / "summary.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "data:image/jpeg;base64," in page


def test_training_names_every_bad_file(
    odd_folder: tuple[Path, list[Odd]],
    base_overrides: list[str],
    tmp_path: Path,
    run_train: Train,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, made = odd_folder
    bad = [item for item in made if item.reason is not None]
    command = [
        sys.executable,
        "train.py",
        *base_overrides,
        f"dataset.path={folder}",
        f"run_dir={tmp_path}/refused",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    text = done.stderr.decode()  # strictly, whatever bytes the files' names have
    assert done.returncode == 2 and "Traceback" not in text
    assert text.startswith(f"error: {folder}: ")
    assert f"(and {len(bad) - 1} more); repair it, or leave such images out" in text.splitlines()[0]
    for item in bad:
        named = starting(text, f"  {shown(item.name)} ")
        assert len(named) == 1 and str(item.reason) in named[0], item.name
    small = ["budget.max_steps=1", "samples.count=0", "resolution.pixels=16"]
    assert run_train(tmp_path / "run", f"dataset.path={folder}", "dataset.skip_unreadable=true", *small) == 0
    said = capsys.readouterr().err
    for item in made:
        named = starting(said, f"note: {shown(item.name)} ")
        assert len(named) == (item.reason is not None), item.name
    assert "12 captions are longer than the 75 words" in said
