"""What a file becomes: orientation, transparency, odd modes; which images of a folder are used."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
import pytest

from conf.errors import RequestError
from conf.schema import Captions, Dataset
from finetune.images import (
    dataset_id,
    leak_note,
    pixel_hash,
    read_folder,
    read_image,
    split_examples,
)
from tests.finetune.odd_images import png_header
from tests.finetune.tiny_pipeline import make_images

RED, WHITE = (255, 0, 0), (255, 255, 255)
FILE = Captions(name="file")


def corner(path: Path) -> tuple[int, ...]:
    value = read_image(path).getpixel((0, 0))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white_not_what_lies_under_them(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).convert(mode).save(path)
    assert corner(path) == WHITE


def test_half_transparent_pixels_are_blended_with_white(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(path)
    assert corner(path) == (127, 127, 127)


def test_a_palette_with_a_transparent_entry_is_white_there(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((3, 3), 1)
    path = tmp_path / "palette.png"
    image.save(path, transparency=0)
    assert corner(path) == WHITE
    assert read_image(path).getpixel((3, 3)) == (0, 0, 255)


def test_an_rgb_file_with_a_transparent_colour_is_white_there(tmp_path: Path) -> None:
    path = tmp_path / "key.png"
    Image.new("RGB", (4, 4), RED).save(path, transparency=RED)
    assert corner(path) == WHITE


@pytest.mark.parametrize(("mode", "colour"), [("L", 0), ("1", 0), ("P", 0)])
def test_modes_without_colour_become_rgb(tmp_path: Path, mode: str, colour: int) -> None:
    image = Image.new(mode, (4, 4), colour)
    if mode == "P":
        image.putpalette([0, 0, 0])
    path = tmp_path / "image.png"
    image.save(path)
    assert read_image(path).mode == "RGB"
    assert corner(path) == (0, 0, 0)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=100)
    red, green, blue = corner(path)
    assert red > 240
    assert max(green, blue) < 16


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 32896, dtype=np.uint16)).save(path)
    assert corner(path) == (128, 128, 128)


def test_floating_point_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "float.tiff"
    Image.new("F", (4, 4), 0.5).save(path)
    with pytest.raises(ValueError, match="floating-point"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animated_files_are_refused_with_their_number_of_frames(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"moving.{suffix}"
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 120, 250)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="3 frames"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = RED
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(upright)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    assert np.array_equal(np.asarray(read_image(path)), upright)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_damaged_files_are_a_value_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        read_image(path)


@pytest.mark.parametrize("size", [(60_000, 60_000), (12_000, 12_000)])
def test_a_file_that_claims_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size))
    with pytest.raises(ValueError, match="more than 89 million pixels"):
        read_image(path)


def test_damaged_metadata_around_sound_pixels_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (20, 20), RED).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0rubbish", quality=100)
    assert read_image(path).size == (20, 20)


def test_a_truncated_file_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="cannot be read"):
        read_image(path)


def test_content_is_of_pixels_not_of_the_file(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    for name in ("a.png", "b.bmp", "c.tiff"):
        Image.fromarray(array).save(tmp_path / name)
    assert len({pixel_hash(tmp_path / name) for name in ("a.png", "b.bmp", "c.tiff")}) == 1
    array[0, 0, 0] ^= 1
    Image.fromarray(array).save(tmp_path / "d.png")
    assert pixel_hash(tmp_path / "d.png") != pixel_hash(tmp_path / "a.png")


def test_a_camera_photo_with_a_preview_behind_it_is_its_first_picture(tmp_path: Path) -> None:
    photo, preview = Image.new("RGB", (16, 16), (200, 30, 30)), Image.new("RGB", (8, 8))
    photo.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "phone.jpg") as stored:
        assert getattr(stored, "n_frames", 1) == 2
    image = read_image(tmp_path / "phone.jpg")
    assert image.size == (16, 16)
    assert image.getpixel((8, 8)) == pytest.approx((200, 30, 30), abs=3)


def test_unusable_images_stop_the_run_or_are_left_out_by_name(tmp_path: Path) -> None:
    folder, cache = make_images(tmp_path / "data", 4), tmp_path / "cache"
    (folder / "image-001.png").write_bytes(b"broken")
    (folder / "image-002.txt").unlink()
    dataset = Dataset(name="folder", path=str(folder))
    with pytest.raises(
        RequestError, match=r"image-001\.png cannot be read.*\(and 1 more\).*skip_unreadable=true"
    ) as refusal:
        read_folder(dataset, FILE, cache)
    assert "\n  image-002.png has no caption" in str(refusal.value)
    dataset.skip_unreadable = True
    examples, notes = read_folder(dataset, FILE, cache)
    assert [example.path.name for example in examples] == ["image-000.png", "image-003.png"]
    assert len(notes) == 2
    assert notes[0].startswith("image-001.png cannot be read")


def test_the_same_picture_twice_is_one_example(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "data", 2)
    Image.open(folder / "image-000.png").save(folder / "copy.bmp")
    (folder / "copy.txt").write_text("a copy")
    examples, notes = read_folder(Dataset(name="folder", path=str(folder)), FILE, tmp_path / "cache")
    assert len(examples) == 2
    assert notes == ["image-000.png is the same picture as copy.bmp"]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    folder, cache = make_images(tmp_path / "data", 1), tmp_path / "cache"
    dataset = Dataset(name="folder", path=str(folder))
    before, _ = read_folder(dataset, FILE, cache)
    Image.new("RGB", (19, 19)).save(folder / "image-000.png")
    os.utime(folder / "image-000.png", ns=(1, 1))
    after, _ = read_folder(dataset, FILE, cache)
    assert before[0].content != after[0].content


def test_the_dataset_id_is_of_content(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = make_images(tmp_path / "first", 3)
    second = make_images(tmp_path / "second", 3)
    (second / "image-000.png").rename(second / "zebra.png")
    (second / "image-000.txt").rename(second / "zebra.txt")
    ids = [
        dataset_id(read_folder(Dataset(name="x", path=str(path)), FILE, cache)[0]) for path in (first, second)
    ]
    assert ids[0] == ids[1]
    (second / "zebra.txt").write_text("another caption")
    assert dataset_id(read_folder(Dataset(name="x", path=str(second)), FILE, cache)[0]) != ids[0]


def test_splits_that_ask_for_too_much_say_how_much_there_is(tmp_path: Path) -> None:
    examples, _ = read_folder(
        Dataset(name="x", path=str(make_images(tmp_path / "d", 5))), FILE, tmp_path / "cache"
    )
    with pytest.raises(RequestError, match=r"dataset\.held_out=5: the folder has 5 usable images"):
        split_examples(examples, held_out=5, images=1, seed=0)
    with pytest.raises(RequestError, match="use 3 or fewer, or dataset_size=all"):
        split_examples(examples, held_out=2, images=4, seed=0)


def test_a_picture_of_a_few_pixels_is_refused_with_its_size(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "data", 3)
    Image.new("RGB", (400, 12), RED).save(folder / "image-001.png")
    dataset = Dataset(name="folder", path=str(folder))
    with pytest.raises(RequestError, match=r"image-001\.png is 400 x 12 pixels: each side needs 16 or more"):
        read_folder(dataset, FILE, tmp_path / "cache")
    # Its pixels are remembered now, which must not make it pass.
    with pytest.raises(RequestError, match="400 x 12"):
        read_folder(dataset, FILE, tmp_path / "cache")


def test_sizes_are_known_and_remembered(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "data", 1)
    Image.new("RGB", (50, 30), RED).save(folder / "image-000.png")
    dataset = Dataset(name="folder", path=str(folder))
    for _ in range(2):
        [example], _ = read_folder(dataset, FILE, tmp_path / "cache")
        assert example.look is not None
        assert (example.look.width, example.look.height) == (50, 30)


def test_repeats_change_the_dataset(tmp_path: Path) -> None:
    ids = []
    for name in ("1_fox", "3_fox"):
        make_images(tmp_path / name / name, 2)
        examples, _ = read_folder(Dataset(name="x", path=str(tmp_path / name)), FILE, tmp_path / "cache")
        assert [item.repeats for item in examples] == [int(name[0])] * 2
        ids.append(dataset_id(examples))
    assert ids[0] != ids[1]


def test_long_captions_are_one_note(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "data", 3)
    for number, words in ((0, 76), (1, 10_000), (2, 75)):
        (folder / f"image-00{number}.txt").write_text("word " * words)
    _, notes = read_folder(Dataset(name="x", path=str(folder)), FILE, tmp_path / "cache")
    assert len(notes) == 1
    assert notes[0].startswith("2 captions are longer than the 75 words")
    assert "of image-001.png, has 10,000" in notes[0]


def test_a_copy_on_the_other_side_of_the_split_is_named(tmp_path: Path) -> None:
    folder, random = make_images(tmp_path / "data", 6), np.random.default_rng(7)
    shapes = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((96, 96))
    shapes.save(folder / "photo.png")
    shapes.resize((70, 70)).save(folder / "smaller.jpg", quality=60)
    for name in ("photo", "smaller"):
        (folder / f"{name}.txt").write_text("shapes")
    examples, _ = read_folder(Dataset(name="x", path=str(folder)), FILE, tmp_path / "cache")
    notes = []
    for seed in range(8):
        split = split_examples(examples, held_out=3, images=None, seed=seed)
        held_out = {item.path.name for item in split.held_out}
        across = len(held_out & {"photo.png", "smaller.jpg"}) == 1
        note = leak_note(split)
        assert bool(note) == across
        notes += note
    assert notes
    assert all(
        "photo.png" in note and "smaller.jpg" in note and "--duplicates drop" in note for note in notes
    )
