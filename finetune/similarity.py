"""How alike two pictures look: perceptual hashes, which survive resizing, recompression and small touch-ups."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

MOST_BITS_APART = 6  # of 64, in each of the two hashes; see `alike`
MOST_LEVELS_APART = 24  # of 255, in the mean chroma of a quarter
LEAST_CONTRAST = 2.0  # standard deviation of 8-bit grey below which a picture has no structure to compare


@dataclass(frozen=True)
class Look:
    """What remains of a picture for comparisons.

    Attributes:
        width, height: pixels, upright.
        frequencies: 64-bit hash of low spatial frequencies; 0 for a picture without structure.
        gradients: 64-bit hash of brightness steps from left to right.
        colours: blue and red chroma of the four quarters, a byte each.
    """

    width: int
    height: int
    frequencies: int
    gradients: int
    colours: int

    def as_text(self) -> str:
        """64 hexadecimal digits."""
        hashes = f"{self.frequencies:016x}{self.gradients:016x}{self.colours:016x}"
        return f"{self.width:08x}{self.height:08x}{hashes}"

    @classmethod
    def from_text(cls, text: str) -> "Look":
        return cls(*(int(text[start:end], 16) for start, end in pairwise((0, 8, 16, 32, 48, 64))))


def look_at(image: Image.Image) -> Look:
    """The look of an upright 8-bit RGB image."""
    grey = image.convert("L")
    small = np.asarray(grey.resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    if small.std() < LEAST_CONTRAST:
        return Look(*image.size, frequencies=0, gradients=0, colours=0)
    quarters = np.asarray(image.convert("YCbCr").resize((2, 2), Image.Resampling.BOX))
    return Look(
        *image.size,
        frequencies=_frequency_hash(small),
        gradients=_gradient_hash(grey),
        colours=int.from_bytes(quarters[:, :, 1:].tobytes(), "big"),
    )


def pairs_alike(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Index pairs (first < second) of near-duplicates, as `alike` finds them."""
    hashes = hash_table(looks)
    return [
        (first, first + 1 + int(later))
        for first, look in enumerate(looks)
        for later in np.flatnonzero(alike(look, hashes[first + 1 :]))
    ]


def hash_table(looks: Sequence[Look]) -> NDArray[np.uint64]:
    """(pictures, 3): frequencies, gradients, colours."""
    rows = [(look.frequencies, look.gradients, look.colours) for look in looks]
    return np.array(rows, dtype=np.uint64).reshape(len(looks), 3)


def alike(look: Look, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of several pictures are near-duplicates of one.

    Both hashes must agree up to MOST_BITS_APART bits, since either alone takes different drawings on a white
    ground for the same one; and the colours, which the hashes do not see: a red cup is no copy of a blue one.
    Mirrored pictures and those without structure are not found.
    """
    own = hash_table([look])
    near = (np.bitwise_count(hashes[:, :2] ^ own[:, :2]) <= MOST_BITS_APART).all(axis=1)
    near &= (abs(_levels(hashes) - _levels(own)) <= MOST_LEVELS_APART).all(axis=1)
    found: NDArray[np.bool_] = near & (hashes[:, 0] != 0) & bool(look.frequencies)
    return found


def _levels(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(pictures, 8) chroma bytes."""
    return np.ascontiguousarray(hashes[:, 2]).view(np.uint8).reshape(len(hashes), 8).astype(np.int64)


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
