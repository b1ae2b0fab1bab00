"""How alike two pictures look: perceptual hashes, which survive resizing, recompression and small touch-ups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

MOST_BITS_APART = 6  # of 64, in each of the two hashes; see `alike`
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
    """Index pairs (first < second) of near-duplicates, as `alike` finds them."""
    hashes = hash_table(looks)
    return [
        (first, first + 1 + int(later))
        for first, look in enumerate(looks)
        for later in np.flatnonzero(alike(look, hashes[first + 1 :]))
    ]


def hash_table(looks: Sequence[Look]) -> NDArray[np.uint64]:
    """(pictures, 2) hashes."""
    rows = [(look.frequencies, look.gradients) for look in looks]
    return np.array(rows, dtype=np.uint64).reshape(len(looks), 2)


def alike(look: Look, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of several pictures are near-duplicates of one.

    Both hashes must agree up to MOST_BITS_APART bits: either alone takes different drawings on a white
    ground for the same one. Mirrored pictures and those without structure are not found.
    """
    own = hash_table([look])
    near = (np.bitwise_count(hashes ^ own) <= MOST_BITS_APART).all(axis=1)
    found: NDArray[np.bool_] = near & (hashes[:, 0] != 0) & bool(look.frequencies)
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
