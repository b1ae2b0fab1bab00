"""Background removal by a real model, which takes what is dark for the subject. Needs the extra `background`."""

from pathlib import Path

from PIL import Image, ImageDraw
import pytest

from finetune.prepare.__main__ import main

pytestmark = pytest.mark.services

# An ONNX network of U2-Net's interface, (1, 3, 320, 320) -> (1, 1, 320, 320): sigmoid(10 - 20 * mean of the channels).
DARK = bytes.fromhex(
    "08083aa3010a160a05696e7075740a01770a01621201632204436f6e760a120a016312046d61736b22075369676d6f69641204"
    "6461726b2a1b080108030801080110014201774a0c5555d5c05555d5c05555d5c02a0d080110014201624a04000020415a210a"
    "05696e70757412180a16080112120a0208010a0208030a0308c0020a0308c00262200a046d61736b12180a16080112120a0208"
    "010a0208010a0308c0020a0308c00242040a00100d"
)
PAPER, SUBJECT, WHITE = (235, 240, 225), (40, 20, 90), (255, 255, 255)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A dark ball on bright paper, paper alone, and something bright that was cut out by hand."""
    folder = tmp_path / "photos"
    folder.mkdir()
    paper = Image.new("RGB", (300, 200), PAPER)
    paper.resize((60, 60)).save(folder / "empty.png")
    ImageDraw.Draw(paper).ellipse((100, 50, 200, 150), fill=SUBJECT)
    paper.save(folder / "ball.png")
    cut_out = Image.new("RGBA", (60, 60))
    cut_out.paste((*PAPER, 255), (15, 15, 45, 45))
    cut_out.save(folder / "by-hand.png")
    return folder


def remove(photos: Path, to: Path, model: Path) -> int:
    return main([str(photos), "--to", str(to), "--background", "remove", "--background-model", str(model)])


def test_a_model_keeps_the_subject_and_turns_the_rest_white(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, to = tmp_path / "mine.onnx", tmp_path / "prepared"
    model.write_bytes(DARK)
    assert remove(photos, to, model) == 0
    assert sorted(path.name for path in to.glob("*.png")) == ["ball.png", "by-hand.png"]
    for name, middle, corner in (("ball", (150, 100), (5, 5)), ("by-hand", (30, 30), (5, 5))):
        with Image.open(to / f"{name}.png") as image:
            assert image.mode == "RGB"
            assert image.getpixel(middle) == pytest.approx(SUBJECT if name == "ball" else PAPER, abs=3)
            assert image.getpixel(corner) == pytest.approx(WHITE, abs=2)
    said = capsys.readouterr().out
    assert "quarantine: empty.png has no subject that the background model sees" in said


def test_a_model_that_is_none_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, to = tmp_path / "u2net.onnx", tmp_path / "prepared"
    model.write_bytes(b"not a model")
    assert remove(photos, to, model) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"error: --background-model={model}: cannot be loaded (")
    assert complaint.count("\n") == 1
    assert not list(to.glob("*.png"))


def test_a_model_under_a_name_that_it_has_not_says_so_on_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """rembg's model of that name takes 1024 x 1024 pixels."""
    model = tmp_path / "isnet-general-use.onnx"
    model.write_bytes(DARK)
    assert remove(photos, tmp_path / "prepared", model) == 1
    complaint = capsys.readouterr().err
    assert (
        "the background model failed (" in complaint and "Give another with --background-model" in complaint
    )
    assert complaint.count("\n") == 1


def test_a_file_named_like_a_service_stays_on_this_machine(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under this name rembg would send the images away."""
    monkeypatch.setenv("WITHOUTBG_API_KEY", "none")
    model, to = tmp_path / "withoutbg.onnx", tmp_path / "prepared"
    model.write_bytes(DARK)
    assert remove(photos, to, model) == 0
    assert (to / "ball.png").exists()
