"""A folder of captioned images: how files become pixels, and which train or are held out. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
import hashlib
from pathlib import Path
import warnings

import numpy as np
from PIL import Image, ImageOps

from conf.errors import RequestError
from conf.inputs import FEWEST_IN_FOLDS, project_path
from conf.schema import Captions, Dataset
from finetune.captions import caption_for, long_caption_note
from finetune.folder import MOST_NAMED, list_folder
from finetune.names import shown
from finetune.paths import hash_texts, remembered_hash
from finetune.similarity import Look, look_at, pairs_alike

WHITE = (255, 255, 255, 255)
MINIMUM_SIDE = 16  # pixels; a Stable Diffusion latent has one value for 8


@dataclass(frozen=True)
class Example:
    """One captioned image.

    Attributes:
        path: of the file.
        caption: to train with.
        content: hash of its pixels, whatever the file's name or format.
        repeats: how often an epoch shows it, compared with others: N of a repeat folder `N_name`.
        look: its size and perceptual hashes; None where it was not read from a file.
    """

    path: Path
    caption: str
    content: str
    repeats: int = 1
    look: Look | None = None


@dataclass(frozen=True)
class Split:
    """The held-out images, and the training images in the order in which nested subsets take them.

    `folds` is the number of parts that take turns to be held out; None where the images were split once.
    """

    held_out: list[Example]
    training: list[Example]
    folds: int | None = None


def read_image(path: Path) -> Image.Image:
    """A file as 8-bit RGB pixels: turned by its EXIF orientation, transparency on white.

    Raises:
        ValueError: the file cannot be read, is animated, or is of a kind without a defined 8-bit meaning.
    """
    return on_white(load_image(path))


def load_image(path: Path) -> Image.Image:
    """A file as 8-bit pixels, turned by its EXIF orientation: RGBA where it has transparency, else RGB.

    Raises:
        ValueError: as `read_image`.
    """
    try:
        with warnings.catch_warnings():
            # Odd metadata around sound pixels is nobody's concern; an image too large to decode safely is.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                frames = getattr(image, "n_frames", 1)
                # A camera's MPO is a photo with previews or a depth map behind it.
                if frames > 1 and image.format != "MPO":
                    raise _Refused(f"has {frames} frames: export the one that is meant as a still image")
                image.load()
                upright = _eight_bit(ImageOps.exif_transpose(image))
                return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        most = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise ValueError(f"has more than {most} million pixels: make it smaller") from error
    except _Refused:
        raise
    except (
        Exception
    ) as error:  # Pillow's decoders raise anything from SyntaxError to struct.error on damaged files
        raise ValueError(f"cannot be read ({type(error).__name__}: {_one_line(error)})") from error


def on_white(image: Image.Image) -> Image.Image:
    """RGB, with the transparency of an RGBA image composited on white."""
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")


def pixel_hash(path: Path) -> str:
    """SHA-256 of an image's size and 8-bit RGB pixels. Raises ValueError as `read_image`."""
    return content_of(read_image(path))


def content_of(image: Image.Image) -> str:
    """SHA-256 of an RGB image's size and pixels."""
    return hashlib.sha256(f"{image.width}x{image.height}|".encode() + image.tobytes()).hexdigest()


def check_size(width: int, height: int) -> None:
    """Refuse a picture that holds nothing to learn at any resolution.

    Raises:
        ValueError: its shorter side is below MINIMUM_SIDE.
    """
    if min(width, height) < MINIMUM_SIDE:
        raise ValueError(f"is {width} x {height} pixels: each side needs {MINIMUM_SIDE} or more")


def read_folder(dataset: Dataset, captions: Captions, cache_dir: Path) -> tuple[list[Example], list[str]]:
    """The examples of a folder, and notes on what is left out: unreadable, equal to an earlier one, or no image.

    Raises:
        RequestError: the folder is missing or empty, or an image is unusable and skip_unreadable is false.
    """
    folder = project_path(dataset.path)
    listing = list_folder(folder)
    examples: dict[str, Example] = {}
    problems = list(listing.problems)
    repeats: list[str] = []
    for image in listing.images:
        try:
            caption = caption_for(image, captions)
            content, look = _content_and_look(image.path, cache_dir)
            check_size(look.width, look.height)
        except ValueError as error:
            problems.append(f"{image.name} {error}")
            continue
        except OSError as error:
            problems.append(f"{image.name} cannot be read ({error.strerror or error})")
            continue
        if content in examples:
            # The same picture in training and in the held-out set would let the held-out loss be memorized.
            repeats.append(f"{image.name} is the same picture as {shown(examples[content].path.name)}")
        else:
            examples[content] = Example(image.path, caption, content, image.repeats, look)
    if problems and not dataset.skip_unreadable:
        remedy = "; repair it, or leave such images out with dataset.skip_unreadable=true"
        raise RequestError(_refusal(f"{shown(folder)}: ", problems, remedy))
    if not examples:
        start = f"dataset.path={shown(folder)}: none of its images can be used; "
        raise RequestError(_refusal(start, problems))
    lengths = {shown(item.path.name): len(item.caption.split()) for item in examples.values()}
    return list(examples.values()), problems + repeats + long_caption_note(lengths) + listing.notes


def near_duplicates(examples: Sequence[Example]) -> list[tuple[Example, Example]]:
    """Pairs that look alike though their pixels differ: a resized, recompressed or retouched copy."""
    seen = [item for item in examples if item.look is not None]
    pairs = pairs_alike([item.look for item in seen if item.look is not None])
    return [(seen[first], seen[second]) for first, second in pairs]


def leak_note(split: Split) -> list[str]:
    """A note on near-duplicates on both sides of the split: training on one teaches the held-out other."""
    held_out = {item.content for item in split.held_out}
    across = [
        pair
        for pair in near_duplicates([*split.held_out, *split.training])
        if (pair[0].content in held_out) != (pair[1].content in held_out)
    ]
    if not across:
        return []
    named = [f"{shown(one.path.name)} and {shown(other.path.name)}" for one, other in across[:MOST_NAMED]]
    more = f" and {len(across) - MOST_NAMED} pairs more" if len(across) > MOST_NAMED else ""
    return [
        f"held-out images look like training images, which makes the held-out loss too low: "
        f"{'; '.join(named)}{more}; `python -m finetune.prepare` with --duplicates drop leaves such copies out"
    ]


def dataset_id(examples: Sequence[Example]) -> str:
    """Content id of a set of captioned images: of pixels, captions and repeats, not of names, order or split."""
    times = [f" x{item.repeats}" if item.repeats != 1 else "" for item in examples]
    lines = [f"{item.content}{many} {item.caption}" for item, many in zip(examples, times, strict=True)]
    return hash_texts(*sorted(lines))[:16]


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
    ordered = _shuffled(examples, seed)
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


def split_fold(
    examples: Sequence[Example], fold: int, folds: int | None, images: int | None, seed: int
) -> Split:
    """Hold out the images whose place in the seeded order is `fold` modulo `folds`, and train on others.

    Every image is held out in one fold, and all folds train on the same number of images.

    Args:
        examples: in any order.
        fold: from 0.
        folds: None for one an image: leave one out.
        images: training images; None for as many as every fold has.
        seed: of the order.

    Raises:
        RequestError: there are fewer images than the folds need.
    """
    total = len(examples)
    if total < FEWEST_IN_FOLDS:
        raise RequestError(
            f"dataset.fold={fold}: folds need {FEWEST_IN_FOLDS} images or more, the folder has {total}"
        )
    count = total if folds is None else folds
    if not fold < count <= total:
        raise RequestError(
            f"dataset.fold={fold}, dataset.folds={count}: the folder has {total} usable images: {total} folds or fewer, "
            "the first of which is 0"
        )
    left = total - -(-total // count)  # of the largest fold
    if images is not None and images > left:
        raise RequestError(
            f"dataset_size.images={images}: {count} folds of {total} usable images leave {left} to train on; "
            f"use {left} or fewer, or dataset_size=all"
        )
    ordered = _shuffled(examples, seed)
    others = [item for place, item in enumerate(ordered) if place % count != fold]
    return Split(ordered[fold::count], others[: left if images is None else images], count)


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """In the order of a seeded hash of content, whatever the order given."""
    return sorted(examples, key=lambda item: hash_texts(str(seed), item.content))


class _Refused(ValueError):
    """A sound file that is of no use here."""


def _one_line(error: Exception) -> str:
    return " ".join(shown(" ".join(str(error).split())).split())


def _content_and_look(path: Path, cache_dir: Path) -> tuple[str, Look]:
    """Both are remembered; where neither is, the file is decoded once for the two."""
    decode = lru_cache(maxsize=1)(read_image)
    content = remembered_hash(path, cache_dir, "pixels", lambda file: content_of(decode(file)))
    look = remembered_hash(path, cache_dir, "look-colour", lambda file: look_at(decode(file)).as_text())
    return content, Look.from_text(look)


def _refusal(start: str, problems: Sequence[str], remedy: str = "") -> str:
    """The first problem and what to do about it on one line; where there are more, every one on a line below."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    lines = [f"{start}{problems[0]}{more}{remedy}", *(problems if len(problems) > 1 else [])]
    return "\n  ".join(lines)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; refuse kinds whose range is unknown."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise _Refused("holds 32-bit integers: convert it to 8 or 16 bits")
        return Image.fromarray(np.round(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise _Refused("holds floating-point values: convert it to 8 bits")
    return image
