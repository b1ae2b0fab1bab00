"""A folder of 500 images as people really have them: most of them odd, many of them damaged, each with a caption."""

from collections.abc import Callable
from dataclasses import dataclass
import os
from pathlib import Path
import struct
import zlib

import numpy as np
from PIL import Image

PIXELS = 40
TURN = 6  # EXIF orientation: the stored picture is to be turned by 90 degrees clockwise


@dataclass(frozen=True)
class Odd:
    """What is expected of one file.

    Attributes:
        name: in the folder.
        reason: words of the complaint about it; None where it can be used.
        colours: of the left and right half, as they must come out.
    """

    name: str
    reason: str | None
    colours: tuple[tuple[int, int, int], tuple[int, int, int]] | None


@dataclass(frozen=True)
class Kind:
    """A way to be odd: how the file is written, and what is wrong with it."""

    write: Callable[[Image.Image, Path], None]
    suffix: str = ".png"
    reason: str | None = None
    caption: bytes | None = b"a picture"
    stem: Callable[[int], str] = "{:02d}".format
    grey: bool = False
    count: int = 12


def make_odd_images(folder: Path, seed: int = 5) -> list[Odd]:
    """Write the folder; 500 images, no two alike."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    made: list[Odd] = []
    kinds = dict(KINDS)
    kinds["plain"] = Kind(_save, count=500 - sum(kind.count for kind in KINDS.values()))
    for label, kind in kinds.items():
        for index in range(kind.count):
            image, colours = _picture(random, kind.grey)
            path = folder / f"{label}-{kind.stem(index)}{kind.suffix}"
            kind.write(image, path)
            if kind.caption is not None:
                path.with_suffix(".txt").write_bytes(kind.caption)
            made.append(Odd(path.name, kind.reason, None if kind.reason else colours))
    return made


Colour = tuple[int, int, int]


def _picture(random: np.random.Generator, grey: bool) -> tuple[Image.Image, tuple[Colour, Colour]]:
    """Two halves of different colours under a speckled rim, which makes every picture another one."""
    values = random.integers(0, 256, (2, 1 if grey else 3)).repeat(3 if grey else 1, axis=1)
    left, right = (tuple(int(item) for item in row) for row in values)
    array = np.empty((PIXELS, PIXELS, 3), dtype=np.uint8)
    array[:, : PIXELS // 2], array[:, PIXELS // 2 :] = left, right
    array[:4] = np.kron(random.integers(0, 2, (1, PIXELS // 4, 1)) * 255, np.ones((4, 4, 3)))
    return Image.fromarray(array), ((left[0], left[1], left[2]), (right[0], right[1], right[2]))


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, format="PNG")


def _cut(image: Image.Image, path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def _bytes(content: bytes) -> Callable[[Image.Image, Path], None]:
    return lambda image, path: path.write_bytes(content) and None


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _animated(image: Image.Image, path: Path) -> None:
    frames = [image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _cmyk(image: Image.Image, path: Path) -> None:
    image.convert("CMYK").save(path, quality=100, subsampling=0)


def _palette(image: Image.Image, path: Path) -> None:
    image.quantize(256).save(path)


def _deep(image: Image.Image, path: Path) -> None:
    grey = np.asarray(image.convert("L"), dtype=np.uint16) * 257
    Image.fromarray(grey).save(path)


def _grey_alpha(image: Image.Image, path: Path) -> None:
    with_alpha = image.convert("LA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, PIXELS, 4))
    with_alpha.putalpha(alpha)
    with_alpha.save(path)


def _turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = TURN
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=100, subsampling=0)


def _sized(width: int, height: int) -> Callable[[Image.Image, Path], None]:
    return lambda image, path: image.resize((width, height)).save(path)


def _float(image: Image.Image, path: Path) -> None:
    image.convert("F").save(path)


def _dangling(image: Image.Image, path: Path) -> None:
    path.symlink_to("nowhere.png")


CHINESE = "一只红色的狐狸站在雪地里"
TOO_MANY = " ".join(f"word{number}" for number in range(10_000)).encode()
KINDS: dict[str, Kind] = {
    "truncated": Kind(_cut, reason="cannot be read"),
    "zero-bytes": Kind(_bytes(b""), suffix=".jpg", reason="cannot be read"),
    "text-named-png": Kind(_bytes(b"this is a letter"), reason="cannot be read"),
    "torn-header": Kind(_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 60), reason="cannot be read"),
    "noise-named-webp": Kind(_bytes(bytes(range(256)) * 9), suffix=".webp", reason="cannot be read"),
    "animated-gif": Kind(_animated, suffix=".gif", reason="has 2 frames"),
    "animated-webp": Kind(_animated, suffix=".webp", reason="has 2 frames"),
    "one-pixel": Kind(_sized(1, 1), reason="is 1 x 1 pixels"),
    "panorama": Kind(_sized(20_000, 10), reason="is 20000 x 10 pixels"),
    "bomb": Kind(_bytes(png_header(60_000, 60_000)), reason="million pixels"),
    "smaller-bomb": Kind(_bytes(png_header(12_000, 12_000)), reason="million pixels"),
    "float": Kind(_float, suffix=".tiff", reason="floating-point"),
    "dangling-link": Kind(_dangling, reason="cannot be read"),
    "empty-caption": Kind(_save, caption=b"", reason="that is empty"),
    "blank-caption": Kind(_save, caption=b" \n\t\n", reason="that is empty"),
    "binary-caption": Kind(_save, caption=b"\x89PNG\0\0\0\r", reason="caption file that cannot be read"),
    "big5-caption": Kind(_save, caption="一隻紅色的狐狸".encode("big5"), reason="looks like big5"),
    "latin-caption": Kind(_save, caption="un été à la plage".encode("cp1252"), reason="looks like cp1252"),
    "cmyk": Kind(_cmyk, suffix=".jpg"),
    "palette": Kind(_palette),
    "sixteen-bit": Kind(_deep, grey=True),
    "grey-alpha": Kind(_grey_alpha, grey=True),
    "exif-turned": Kind(_turned, suffix=".jpg"),
    "wrong-suffix": Kind(_save, suffix=".jpg"),
    "upper-case": Kind(_save, suffix=".PNG"),
    "gbk-caption": Kind(_save, caption=CHINESE.encode("gbk")),
    "utf16-caption": Kind(_save, caption=CHINESE.encode("utf-16")),
    "marked-caption": Kind(_save, caption=CHINESE.encode("utf-8-sig")),
    "long-caption": Kind(_save, caption=TOO_MANY),
    "new\nline": Kind(_save, stem=lambda index: f"{index}\n\x1b[31m"),
    "emoji": Kind(_save, stem=lambda index: f"🦊{index} ‮الثعلب é"),
    "undecodable": Kind(_save, stem=lambda index: os.fsdecode(b"\xff\xfe\xe9") + str(index)),
    "long-name": Kind(_save, stem=lambda index: f"{index:02d}" + "狐" * 77),
    "markup": Kind(_save, stem=lambda index: f"<script>'{{{{ {index} }}}}'&amp;"),
}
