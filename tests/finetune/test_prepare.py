"""`python -m finetune.prepare`: shapes, captions, copies, reruns, quarantine, and what is refused."""

import hashlib
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest

from conf.schema import Captions, Dataset
from finetune.images import read_folder
from finetune.prepare.__main__ import main
from finetune.prepare.background import cut_out, has_own_background
from finetune.prepare.record import RECORD
from finetune.prepare.shape import MOST_ENLARGED, reshape
from finetune.prepare.wording import dress
from tests.finetune.tiny_captioner import WORDS, make_captioner
from tests.finetune.tiny_pipeline import make_images

ROOT = Path(__file__).resolve().parents[2]
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_images(tmp_path / "photos", 4)


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


def halves(width: int, height: int) -> Image.Image:
    """Red above, blue below or, where wider than high, red left and blue right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height) if width >= height else (0, height // 2, width, height))
    return image


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of change of every image and caption."""
    files = [path for path in folder.rglob("*") if path.suffix in (".png", ".txt")]
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_ctime_ns,
        )
        for path in files
    }


def texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}


def test_a_folder_becomes_one_that_trains(
    source: Path, to: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "image-003.png").write_bytes(b"broken")
    before = state_of(source)
    assert main([str(source), "--to", str(to), "--size", "32", "--square", "crop"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("4 images found, 3 prepared, 3 of them new, 3 with a caption, 1 in quarantine\n")
    assert state_of(source) == before
    assert texts(to) == {f"image-00{number}": f"box {number}\n" for number in range(3)}
    assert (to / "quarantine" / "image-003.png").read_bytes() == b"broken"
    assert (to / "quarantine" / "image-003.txt").read_text() == "box 3\n"
    examples, notes = read_folder(Dataset(name="x", path=str(to)), Captions(name="file"), tmp_path / "cache")
    assert [item.path.name for item in examples] == [f"image-00{number}.png" for number in range(3)]
    assert notes == []


@pytest.mark.parametrize(
    ("square", "size", "before", "after"),
    [
        ("crop", 32, (60, 40), (32, 32)),
        ("crop", None, (60, 40), (40, 40)),
        ("pad", 32, (60, 40), (32, 32)),
        ("pad", None, (60, 40), (60, 60)),
        ("none", 32, (60, 40), (48, 32)),
        ("none", None, (60, 40), (60, 40)),
        ("bucket", 128, (90, 60), (128, 128)),
        ("bucket", 256, (300, 150), (320, 192)),
        ("bucket", 256, (150, 300), (192, 320)),
    ],
)
def test_shapes(square: str, size: int | None, before: tuple[int, int], after: tuple[int, int]) -> None:
    image = reshape(halves(*before), square, size)
    assert image.size == after
    pixels = np.asarray(image).astype(int)
    middle = pixels[after[1] // 2, after[0] // 2 - 6 : after[0] // 2 + 6]
    if before[0] >= before[1]:  # the middle of the picture stays in the middle
        assert np.abs(middle[0] - RED).max() < 8
        assert np.abs(middle[-1] - BLUE).max() < 8
    assert tuple(pixels[0, after[0] // 2]) == WHITE if square == "pad" else tuple(pixels[0, 0]) == RED


@given(
    st.integers(16, 300),
    st.integers(16, 300),
    st.sampled_from(["crop", "pad", "none", "bucket"]),
    st.integers(64, 200),
)
def test_any_shape_comes_out_in_size_or_is_refused_by_size(
    width: int, height: int, square: str, size: int
) -> None:
    image = Image.new("RGB", (width, height), RED)
    try:
        result = reshape(image, square, size)
    except ValueError as error:
        assert str(error).startswith(f"is {width} x {height} pixels")
        return
    if square in ("crop", "pad"):
        assert result.size == (size, size)
    elif square == "bucket":
        assert all(side % 64 == 0 for side in result.size)
    else:
        assert min(result.size) == size
        assert result.width / result.height == pytest.approx(width / height, rel=0.06)
    covered = max(side * MOST_ENLARGED for side in (width, height))
    assert max(result.size) <= max(covered, size)


def test_small_images_are_not_blown_up(source: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(source), "--to", str(to), "--size", "161"]) == 2
    said, complaint = capsys.readouterr()
    assert "image-000.png is 40 x 40 pixels and would be enlarged 4.0 times, more than 4" in said
    assert complaint.startswith(f"error: SOURCE={source}: none of its images could be used")


def test_own_alpha_is_white_and_orientation_is_applied(tmp_path: Path, to: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    image = Image.new("RGBA", (40, 40), (*RED, 255))
    image.paste((0, 0, 0, 0), (0, 0, 40, 20))
    image.save(source / "cut.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    halves(60, 40).save(source / "turned.jpg", exif=exif, quality=100)
    assert main([str(source), "--to", str(to), "--captions", "none"]) == 0
    with Image.open(to / "cut.png") as cut, Image.open(to / "turned.png") as turned:
        assert cut.getpixel((20, 5)) == WHITE
        assert cut.getpixel((20, 35)) == RED
        assert turned.size == (40, 60)
        assert turned.getpixel((20, 5)) == pytest.approx(RED, abs=4)
        assert turned.getexif() == {}


def test_captions_are_dressed_and_words_added_where_lacking(source: Path, to: Path) -> None:
    (source / "image-001.txt").write_text("the sks box", encoding="utf-8")
    (source / "image-002.txt").write_text("大盒子", encoding="gbk")
    dressing = [
        "--caption-prefix",
        "drawing of",
        "--caption-suffix",
        ", on white",
        "--special-words",
        "sks, box",
    ]
    assert main([str(source), "--to", str(to), *dressing]) == 0
    assert texts(to) == {
        "image-000": "drawing of sks box 0, on white\n",
        "image-001": "drawing of the sks box, on white\n",
        "image-002": "drawing of sks box 大盒子, on white\n",
        "image-003": "drawing of sks box 3, on white\n",
    }


@given(st.text(), st.text(), st.text(), st.lists(st.text(min_size=1)))
def test_a_dressed_caption_is_one_line_that_has_every_word(
    caption: str, prefix: str, suffix: str, words: list[str]
) -> None:
    text = dress(caption, prefix, suffix, words)
    assert text == " ".join(text.split())
    for part in (*words, *caption.split()):
        assert " ".join(part.split()) in text
    assert dress(caption, "", "", []) == " ".join(caption.split())


def test_images_without_a_caption_are_prepared_and_named(
    source: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "image-002.txt").unlink()
    assert main([str(source), "--to", str(to)]) == 0
    said = capsys.readouterr().out
    assert "1 without a caption" in said
    assert "note: without a caption: image-002.png; write them with --captions write" in said
    assert (to / "image-002.png").exists()
    assert not (to / "image-002.txt").exists()


def test_an_encoding_can_be_named(source: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "image-000.txt").write_bytes("一隻紅色的狐狸".encode("big5"))
    assert main([str(source), "--to", str(to)]) == 0
    assert "quarantine: image-000.png has a caption file that cannot be read" in capsys.readouterr().out
    assert main([str(source), "--to", str(to), "--encoding", "big5"]) == 0
    assert texts(to)["image-000"] == "一隻紅色的狐狸\n"
    assert list((to / "quarantine").iterdir()) == []


def test_metadata_and_repeat_folders_are_read_and_kept(tmp_path: Path, to: Path) -> None:
    source = tmp_path / "photos"
    make_images(source / "10_sks fox", 2)
    (source / "10_sks fox" / "image-000.txt").unlink()
    make_images(source / "train", 3)
    rows = [{"file_name": f"train/image-00{number}.png", "text": f"row {number}"} for number in (0, 2)]
    (source / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert main([str(source), "--to", str(to), "--duplicates", "keep"]) == 0
    written = {str(path.relative_to(to)): path.read_text() for path in to.rglob("*.txt")}
    assert written == {
        "10_sks fox/image-000.txt": "sks fox\n",
        "10_sks fox/image-001.txt": "box 1\n",
        "image-000.txt": "row 0\n",
        "image-002.txt": "row 2\n",
    }


def test_files_that_share_a_stem_do_not_overwrite_each_other(source: Path, to: Path) -> None:
    for name in ("image-000.jpg", "image-000.bmp", "IMAGE-001.png", "image-001.webp"):
        Image.new("RGB", (40, 40), (len(name), ord(name[0]), ord(name[-1]))).save(source / name)
    assert main([str(source), "--to", str(to), "--duplicates", "keep"]) == 0
    names = sorted(path.name for path in to.glob("*.png"))
    assert len({name.casefold() for name in names}) == len(names) == 8
    before = state_of(to)
    assert main([str(source), "--to", str(to), "--duplicates", "keep"]) == 0
    assert state_of(to) == before


def test_names_as_long_as_names_can_be(tmp_path: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    for suffix in ("png", "bmp"):
        halves(40, 30).save(source / f"{'狐' * 83}ab.{suffix}")
    (source / f"{'x' * 251}.gif").write_bytes(b"broken")
    assert main([str(source), "--to", str(to), "--captions", "none"]) == 0
    assert len(list(to.glob("*.png"))) == 2
    assert sorted(path.suffix for path in (to / "quarantine").iterdir()) == [".gif", ".txt"]


def test_a_rerun_does_only_what_is_new(source: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "image-003.png").write_bytes(b"broken")
    command = [str(source), "--to", str(to), "--size", "32"]
    assert main(command) == 0
    (to / "image-000.txt").write_text("corrected by hand\n")
    first = state_of(to)
    make_images(source / "new", 9)
    (source / "new" / "image-008.png").rename(source / "image-008.png")
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "5 images found, 4 prepared, 1 of them new" in said
    assert "quarantine: image-003.png cannot be read" in said
    second = state_of(to)
    assert {name for name in second if second[name] != first.get(name)} == {"image-008.png"}
    # What changed is done again: an image, a caption, an output that is gone, a bad file that was repaired.
    Image.open(source / "image-008.png").save(source / "image-003.png")
    Image.new("RGB", (50, 50), BLUE).save(source / "image-002.png")
    (source / "image-001.txt").write_text("another")
    (to / "image-008.png").unlink()
    assert main(command) == 0
    third = state_of(to)
    changed = {name for name in third if third[name] != second.get(name)}
    assert changed == {
        *("image-001.txt", "image-001.png", "image-002.txt", "image-002.png"),
        *("image-003.txt", "image-003.png", "image-008.png"),
    }
    assert list((to / "quarantine").iterdir()) == []
    assert main([*command[:-1], "24"]) == 0
    with Image.open(to / "image-000.png") as image:
        assert image.size == (24, 24)


def test_outputs_whose_source_is_gone_are_named_and_stay(
    source: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(source), "--to", str(to)]
    assert main(command) == 0
    (source / "image-001.png").unlink()
    capsys.readouterr()
    assert main(command) == 0
    assert "their source is gone, yet they are still in the folder: image-001.png" in capsys.readouterr().out
    assert (to / "image-001.png").exists()


def test_copies_are_reported_dropped_or_kept(
    source: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(3)
    shapes = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((96, 96))
    shapes.save(source / "photo.png")
    shapes.resize((70, 70)).save(source / "smaller.jpg", quality=70)
    (source / "again.png").write_bytes((source / "photo.png").read_bytes())
    command = [str(source), "--to", str(to), "--captions", "none"]
    assert main([*command, "--duplicates", "keep"]) == 0
    assert "alike" not in capsys.readouterr().out
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "3 pairs that look alike" in said
    assert "alike: again.png and smaller.jpg\n" in said
    assert "held-out" in said
    assert main([*command, "--duplicates", "drop"]) == 0
    said = capsys.readouterr().out
    assert "2 left out as copies" in said
    assert "left out: smaller.jpg looks like again.png\n" in said
    outputs = {path.name for path in to.glob("*.png") if not path.name.startswith("image-")}
    assert outputs == {"again.png"}
    # A copy that comes later never replaces the picture that is there.
    shapes.save(source / "aaa.png")
    assert main([*command, "--duplicates", "drop"]) == 0
    assert "left out: aaa.png looks like again.png\n" in capsys.readouterr().out
    assert main(command) == 0
    assert len(list(to.glob("*.png"))) == 8


def test_captions_are_written_by_a_captioner(source: Path, to: Path, tmp_path: Path) -> None:
    captioner = make_captioner(tmp_path / "captioner")
    (source / "image-000.txt").unlink()
    command = [str(source), "--to", str(to), "--captions", "write", "--captioner", str(captioner)]
    assert main([*command, "--caption-prefix", "sks"]) == 0
    written = texts(to)
    assert len(written) == 4
    for caption in written.values():
        first, *words = caption.split()
        assert first == "sks"
        assert words
        assert set(words) <= set(WORDS)
    assert len(set(written.values())) > 1
    # An image's caption does not depend on the others, or on when it was written.
    for number in (0, 1, 2):
        (source / f"image-00{number}.png").unlink()
    other = tmp_path / "other"
    assert main([str(source), "--to", str(other), *command[3:], "--caption-prefix", "sks"]) == 0
    assert texts(other) == {"image-003": written["image-003"]}


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "clip"}', '{"model_type": "nonsense"}'])
def test_a_captioner_that_is_none_is_refused(
    source: Path, to: Path, tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    captioner = tmp_path / "captioner"
    if content is not None:
        captioner.mkdir()
        (captioner / "config.json").write_text(content)
    assert main([str(source), "--to", str(to), "--captions", "write", "--captioner", str(captioner)]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"error: --captioner={captioner}: cannot be loaded (")
    assert complaint.count("\n") == 1
    assert not list(to.glob("*.png"))


def test_a_mask_turns_the_background_white() -> None:
    """`cut_out` on a session that takes what is not blue for the subject."""

    class NotBlue:
        def predict(self, img: Image.Image) -> list[Image.Image]:
            blue = (np.asarray(img) == BLUE).all(axis=2)
            return [Image.fromarray(np.where(blue, 0, 255).astype(np.uint8))]

    result = cut_out(halves(40, 40), NotBlue())
    assert result.mode == "RGB"
    assert (result.getpixel((5, 5)), result.getpixel((35, 5))) == (RED, WHITE)
    with pytest.raises(ValueError, match="has no subject"):
        cut_out(Image.new("RGB", (40, 40), BLUE), NotBlue())


def test_own_transparency_counts_as_background_an_opaque_channel_does_not() -> None:
    assert has_own_background(Image.new("RGBA", (20, 20), (0, 0, 0, 254)))
    assert not has_own_background(Image.new("RGBA", (20, 20), (0, 0, 0, 255)))
    assert not has_own_background(Image.new("RGB", (20, 20)))


def test_removal_without_its_extra_says_what_to_install(
    source: Path, to: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rembg", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main([str(source), "--to", str(to), "--background", "remove"]) == 2
    complaint = capsys.readouterr().err
    assert "onnxruntime: pip install 'stepbudget[background]'; or --background keep" in complaint
    assert not to.exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--size", "8"], "--size=8: must be 16 to 4096 pixels"),
        (["--size", "100000"], "--size=100000: must be 16 to 4096"),
        (["--square", "bucket"], "--square=bucket: needs --size"),
        (["--square", "bucket", "--size", "32"], "--size=32: no bucket of 32^2 pixels"),
        (["--encoding", "klingon"], "--encoding=klingon: must be auto, utf-8, gbk"),
        (
            ["--captions", "none", "--caption-prefix", "a"],
            "--caption-prefix=a: has no use with --captions none",
        ),
        (["--background-model", "u2net.onnx"], "--background-model: has no use without --background remove"),
        (["--special-words", os.fsdecode(b"a\xff")], "--special-words='a\\udcff': is not UTF-8"),
    ],
)
def test_requests_that_make_no_sense_are_one_line(
    source: Path, to: Path, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(source), "--to", str(to), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {complaint}")
    assert said.count("\n") == 1
    assert not to.exists()


def test_folders_that_cannot_be_used_are_refused(
    source: Path, to: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    full = make_images(tmp_path / "full", 1)
    other = make_images(tmp_path / "other", 1)
    assert main([str(source), "--to", str(to)]) == 0
    for given_source, folder, complaint in (
        (tmp_path / "absent", to, f"SOURCE={tmp_path / 'absent'}: no such folder"),
        (tmp_path / "file", to, f"SOURCE={tmp_path / 'file'}: is a file"),
        (source, tmp_path / "file", f"--to={tmp_path / 'file'}: is a file"),
        (source, source, f"--to={source}: is SOURCE itself"),
        (source, full, f"--to={full}: holds 2 files and folders that are not of this command"),
        (other, to, f"--to={to}: was prepared from {source.resolve()}; choose another folder"),
    ):
        capsys.readouterr()
        assert main([str(given_source), "--to", str(folder)]) == 2
        assert complaint in capsys.readouterr().err


def test_a_damaged_record_costs_work_not_the_folder(source: Path, to: Path) -> None:
    command = [str(source), "--to", str(to)]
    assert main(command) == 0
    before = {name: content for name, (content, _) in state_of(to).items()}
    record = to / RECORD
    lines = record.read_text().splitlines()
    record.write_bytes("\n".join([*lines[:3], "[1]", "null", '{"a": 1}', lines[3][:20]]).encode() + b"\xff\n")
    assert main(command) == 0
    after = {name: content for name, (content, _) in state_of(to).items()}
    assert {name: after[name] for name in before} == before


def test_an_image_that_a_run_was_killed_at_is_done_again_under_its_name(source: Path, to: Path) -> None:
    command = [str(source), "--to", str(to)]
    assert main(command) == 0
    record = to / RECORD
    header, first, *others = record.read_text().splitlines()
    begun = json.dumps({**json.loads(first), "state": "started", "caption": None, "size": None})
    record.write_text("\n".join([header, *others, begun]) + "\n")
    before = state_of(to)
    assert main(command) == 0
    after = state_of(to)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"image-000.png", "image-000.txt"}


def run_prepare(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "finetune.prepare", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
    )


def test_a_killed_run_is_continued(tmp_path: Path, to: Path) -> None:
    source = make_images(tmp_path / "photos", 60, pixels=400)
    command = [str(source), "--to", str(to), "--size", "512"]
    process = run_prepare(*command)
    while not list(to.glob("*.png")):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = state_of(to)
    pngs = {name for name in done if name.endswith(".png")}
    assert 0 < len(pngs) < 60
    assert main(command) == 0
    after = state_of(to)
    assert len([name for name in after if name.endswith(".png")]) == 60
    redone = {name for name in pngs if after[name] != done[name]}
    assert len(redone) <= 1  # the one that was written and not yet recorded
    assert len(list(to.glob("*.txt"))) == 60


def test_names_that_the_terminal_cannot_show_end_in_no_traceback(tmp_path: Path, to: Path) -> None:
    source = make_images(tmp_path / "狐狸 photos", 1)
    (source / "écran\n.png").write_bytes(b"broken")
    (source / os.fsdecode(b"caf\xe9.png")).write_bytes(b"broken")
    process = run_prepare(str(source), "--to", str(to), PYTHONIOENCODING="ascii:strict")
    said, complaint = process.communicate()
    assert (process.returncode, complaint) == (0, "")
    assert "quarantine: \\xe9cran\\n.png cannot be read" in said
    assert "quarantine: caf\\udce9.png cannot be read" in said
