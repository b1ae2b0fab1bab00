"""How alike two pictures look: perceptual hashes, which survive resizing, recompression and small touch-ups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

MOST_BITS_APART = 6  # of 64, in each of the two hashes; see `pairs_alike`
LEAST_CONTRAST = 2.0  # standard deviation of 8-bit grey below which a picture has no structure to compare


@dataclass(frozen=True)
class Look:
    """What remains of a picture for comparisons.

    Attributes:
        width, height: pixels, upright.
        frequencies: 64-bit hash of low spatial frequencies; 0 for a picture without structure.
        gradients: 64-bit hash of brightness steps from left to right.
    """

    width: int
    height: int
    frequencies: int
    gradients: int

    def as_text(self) -> str:
        """64 hexadecimal digits."""
        return "".join(f"{item:016x}" for item in (self.width, self.height, self.frequencies, self.gradients))

    @classmethod
    def from_text(cls, text: str) -> "Look":
        return cls(*(int(text[start : start + 16], 16) for start in range(0, 64, 16)))


def look_at(image: Image.Image) -> Look:
    """The look of an upright 8-bit RGB image."""
    grey = image.convert("L")
    small = np.asarray(grey.resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    if small.std() < LEAST_CONTRAST:
        return Look(*image.size, frequencies=0, gradients=0)
    return Look(*image.size, frequencies=_frequency_hash(small), gradients=_gradient_hash(grey))


def pairs_alike(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Index pairs (first < second) of pictures that are near-duplicates.

    Both hashes must agree up to MOST_BITS_APART bits: either alone takes different drawings on a white
    ground for the same one. Mirrored pictures are not found.
    """
    frequencies = np.array([look.frequencies for look in looks], dtype=np.uint64)
    gradients = np.array([look.gradients for look in looks], dtype=np.uint64)
    found: list[tuple[int, int]] = []
    for first in range(len(looks) - 1):
        if not looks[first].frequencies:
            continue
        rest = slice(first + 1, None)
        alike = np.bitwise_count(frequencies[rest] ^ frequencies[first]) <= MOST_BITS_APART
        alike &= np.bitwise_count(gradients[rest] ^ gradients[first]) <= MOST_BITS_APART
        alike &= frequencies[rest] != 0
        found += [(first, first + 1 + int(index)) for index in np.flatnonzero(alike)]
    return found


def _frequency_hash(small: NDArray[np.float64]) -> int:
    """pHash: which of the 8 x 8 lowest non-constant DCT coefficients lie above their median.

    C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2.1.
    """
    low = dctn(small, norm="ortho")[1:9, 1:9]
    return _as_integer(low > np.median(low))


def _gradient_hash(grey: Image.Image) -> int:
    """dHash: whether each of 8 x 8 cells is darker than its right neighbour (N. Krawetz, Kind of Like That, 2013)."""
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int64)
    return _as_integer(cells[:, :-1] < cells[:, 1:])


def _as_integer(bits: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
