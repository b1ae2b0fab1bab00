"""Perceptual hashes on real drawings: copies are found, different drawings are not taken for copies."""

from collections.abc import Callable
import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
import pytest

from finetune.similarity import Look, look_at, pairs_alike

DRAWINGS = Path(__file__).resolve().parents[2] / "assets" / "line-drawings"


@pytest.fixture(scope="module")
def drawings() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(DRAWINGS.glob("*.png"))]


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def faded(image: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(0.7)


@pytest.mark.parametrize("change", [recompressed, halved, faded])
def test_nine_of_ten_changed_copies_are_found(
    drawings: list[Image.Image], change: Callable[[Image.Image], Image.Image]
) -> None:
    some = drawings[::4]
    pairs = [(look_at(image), look_at(change(image))) for image in some]
    assert sum(bool(pairs_alike(pair)) for pair in pairs) >= 0.9 * len(some)


def test_different_drawings_are_not_copies_of_each_other(drawings: list[Image.Image]) -> None:
    """The two pairs that are found are drawn alike: two faces with round mouths, two medals with a ribbon."""
    names = [path.stem for path in sorted(DRAWINGS.glob("*.png"))]
    found = pairs_alike([look_at(image) for image in drawings])
    assert [(names[one], names[other]) for one, other in found] == [
        ("astonished-face", "hushed-face"),
        ("second-place-medal", "third-place-medal"),
    ]


def test_the_same_thing_in_another_colour_is_another_picture(drawings: list[Image.Image]) -> None:
    def on(colour: str, drawing: Image.Image) -> Image.Image:
        return Image.composite(Image.new("RGB", drawing.size, colour), drawing, drawing.convert("L"))

    some = drawings[::8]
    assert not any(pairs_alike([look_at(on("gold", image)), look_at(on("cyan", image))]) for image in some)
    gold = [on("gold", image) for image in some]
    assert sum(
        bool(pairs_alike([look_at(image), look_at(recompressed(image))])) for image in gold
    ) >= 0.8 * len(some)


def test_pictures_without_structure_are_no_copies() -> None:
    assert (
        pairs_alike([look_at(Image.new("RGB", (40, 40), colour)) for colour in ("red", "red", "blue")]) == []
    )


@given(st.builds(Look, *[st.integers(0, 2**32 - 1)] * 2, *[st.integers(0, 2**64 - 1)] * 3))
def test_a_look_survives_being_written(look: Look) -> None:
    text = look.as_text()
    assert len(text) == 64
    assert Look.from_text(text) == look
