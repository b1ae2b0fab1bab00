"""A folder of captioned images: how files become pixels, and which train or are held out. No torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from conf.errors import RequestError
from conf.inputs import IMAGE_SUFFIXES, project_path
from conf.schema import Captions, Dataset
from finetune.paths import hash_texts, remembered_hash

WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Example:
    """One captioned image; `content` is the hash of its pixels, whatever the file's name or format."""

    path: Path
    caption: str
    content: str
    repeats: int = 1


@dataclass(frozen=True)
class Split:
    """The held-out images, and the training images in the order in which nested subsets take them."""

    held_out: list[Example]
    training: list[Example]


def list_images(folder: Path) -> tuple[list[Path], list[str]]:
    """Image files of a folder, sorted by name, and a note on files and folders in it that are not read.

    Hidden files, caption files and files without a suffix are passed over in silence.

    Raises:
        RequestError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise RequestError(f"dataset.path={folder}: {problem}; give a folder of images with .txt captions")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in entries if path.is_file()]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    others = Counter(
        path.suffix.lower() for path in files if path.suffix.lower() not in ("", ".txt", *IMAGE_SUFFIXES)
    )
    if not images:
        found = f" (found only {', '.join(sorted(others))} files: convert them)" if others else ""
        valid = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise RequestError(f"dataset.path={folder}: no images in this folder{found}; {valid} are read")
    notes = [f"{number} {suffix} files are not read" for suffix, number in sorted(others.items())]
    folders = sum(path.is_dir() for path in entries)
    if folders:
        notes.append(f"{folders} folders inside of {folder.name} are not read")
    return images, notes


def read_image(path: Path) -> Image.Image:
    """A file as 8-bit RGB pixels: turned by its EXIF orientation, transparency on white.

    Raises:
        ValueError: the file cannot be read, is animated, or is of a kind without a defined 8-bit meaning.
    """
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            # A camera's MPO is a photo with previews or a depth map behind it.
            if frames > 1 and image.format != "MPO":
                raise ValueError(f"has {frames} frames: export the one that is meant as a still image")
            image.load()
            return _on_white(_eight_bit(ImageOps.exif_transpose(image)))
    except ValueError:
        raise
    except (
        Exception
    ) as error:  # Pillow's decoders raise anything from SyntaxError to struct.error on damaged files
        raise ValueError(f"cannot be read ({type(error).__name__}: {error})") from error


def square_pixels(image: Image.Image, side: int) -> NDArray[np.float32]:
    """The centre square, resized, as (3, side, side) in [-1, 1]."""
    length = min(image.size)
    left, top = (image.width - length) // 2, (image.height - length) // 2
    square = image.crop((left, top, left + length, top + length))
    resized = square.resize((side, side), Image.Resampling.LANCZOS)
    pixels = np.asarray(resized, dtype=np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels / np.float32(127.5) - np.float32(1.0))


def pixel_hash(path: Path) -> str:
    """SHA-256 of an image's size and 8-bit RGB pixels. Raises ValueError as `read_image`."""
    image = read_image(path)
    return hashlib.sha256(f"{image.width}x{image.height}|".encode() + image.tobytes()).hexdigest()


def read_caption(path: Path, captions: Captions) -> str:
    """The caption of an image, its white space collapsed.

    Raises:
        ValueError: the caption file is missing, empty or not UTF-8.
    """
    if captions.source == "instance":
        return captions.text or ""
    file = path.with_suffix(".txt")
    try:
        caption = " ".join(file.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        raise ValueError(
            f"has no caption: write {file.name}, or use captions=instance captions.text='...'"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"caption {file.name} cannot be read ({error})") from error
    if not caption:
        raise ValueError(f"caption {file.name} is empty")
    return caption


def read_folder(dataset: Dataset, captions: Captions, cache_dir: Path) -> tuple[list[Example], list[str]]:
    """The examples of a folder, and notes on what is left out: unreadable, equal to an earlier one, or no image.

    Raises:
        RequestError: the folder is missing or empty, or an image is unusable and skip_unreadable is false.
    """
    folder = project_path(dataset.path)
    examples: dict[str, Example] = {}
    problems: list[str] = []
    repeats: list[str] = []
    images, unread = list_images(folder)
    for path in images:
        try:
            caption = read_caption(path, captions)
            content = remembered_hash(path, cache_dir, "pixels", pixel_hash)
        except ValueError as error:
            problems.append(f"{path.name} {error}")
            continue
        if content in examples:
            # The same picture in training and in the held-out set would let the held-out loss be memorized.
            repeats.append(f"{path.name} is the same picture as {examples[content].path.name}")
        else:
            examples[content] = Example(path, caption, content)
    if problems and not dataset.skip_unreadable:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RequestError(
            f"{folder}: {problems[0]}{more}; repair it, or leave such images out with "
            f"dataset.skip_unreadable=true"
        )
    if not examples:
        raise RequestError(f"dataset.path={folder}: none of its images can be used; {problems[0]}")
    return list(examples.values()), problems + repeats + unread


def dataset_id(examples: Sequence[Example]) -> str:
    """Content id of a set of captioned images: of pixels and captions, not of names, order or split."""
    return hash_texts(*sorted(f"{item.content} {item.caption}" for item in examples))[:16]


def split_examples(examples: Sequence[Example], held_out: int, images: int | None, seed: int) -> Split:
    """Hold out and subset by a seeded hash of content: the held-out set ignores `images`, subsets nest.

    Args:
        examples: in any order.
        held_out: images kept out of training.
        images: training images; None for all that are not held out.
        seed: of the split.

    Raises:
        RequestError: more images are asked for than there are.
    """
    ordered = sorted(examples, key=lambda item: hash_texts(str(seed), item.content))
    left = len(ordered) - held_out
    if left < 1:
        raise RequestError(
            f"dataset.held_out={held_out}: the folder has {len(ordered)} usable images, "
            f"which leaves none to train on; "
            f"hold out fewer or add images"
        )
    if images is not None and images > left:
        raise RequestError(
            f"dataset_size.images={images}: the folder has {len(ordered)} usable images, "
            f"{held_out} of them held out; "
            f"use {left} or fewer, or dataset_size=all"
        )
    count = left if images is None else images
    return Split(held_out=ordered[:held_out], training=ordered[held_out : held_out + count])


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; refuse kinds whose range is unknown."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("holds 32-bit integers: convert it to 8 or 16 bits")
        return Image.fromarray(np.round(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("holds floating-point values: convert it to 8 bits")
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """RGB, with whatever transparency the file has composited on white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    with_alpha = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), with_alpha).convert("RGB")
