"""Latents and text embeddings on disk, named by content; several trainers may use one cache at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
import torch
from torch import Tensor
from tqdm import tqdm

from conf.errors import RequestError
from conf.schema import Augmentation
from finetune.backbone import Backbone
from finetune.crops import Size, Variant, crop_corner, pixels, training_size, upright_size, variants
from finetune.families.base import Conditioning
from finetune.images import Example, read_image
from finetune.paths import hash_texts, replace_with


@dataclass(frozen=True)
class Latent:
    """One variant of an image as the denoiser sees it, on the CPU.

    Attributes:
        pixels: size of the image.
        mean, std: (channels, h, w) of the VAE's posterior, scaled: the distribution, not one sample.
        sizes: conditioning on the sizes of file, crop and result, where the family has it.
    """

    pixels: Size
    mean: Tensor
    std: Tensor
    sizes: Conditioning


@dataclass(frozen=True)
class Encoded:
    """Examples as a model takes them, on the CPU.

    Attributes:
        latents: the variants of each image.
        texts: conditioning on each image's caption.
        empty: the same of no caption.
    """

    latents: list[list[Latent]]
    texts: list[Conditioning]
    empty: Conditioning

    def shape(self, image: int) -> tuple[int, ...]:
        """(channels, h, w) of an image's latent."""
        return tuple(self.latents[image][0].mean.shape)


class ContentCache:
    """Encodes through a backbone, and remembers."""

    def __init__(
        self,
        cache_dir: Path,
        backbone: Backbone,
        side: int,
        buckets: Sequence[Size] = (),
        trained_text: Sequence[str] = (),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            cache_dir: folder of all caches.
            backbone: what encodes.
            side: of square images, in pixels.
            buckets: sizes to choose from by an image's shape; none for squares.
            trained_text: text encoders that are trained, whose input is needed instead of their output.
            check: called between images; may raise to end the run.
        """
        self._root = cache_dir / backbone.files.base_id
        self._backbone = backbone
        self._side = side
        self.buckets = buckets
        self._trained_text = trained_text
        self._check = check

    def encode(
        self,
        examples: Sequence[Example],
        augmentation: Augmentation | None = None,
        size: Size | None = None,
    ) -> Encoded:
        """Latents and embeddings of examples, in their order.

        Args:
            examples: to encode.
            augmentation: which variants; None for the centre alone.
            size: of all; None for what suits each image's shape.

        Raises:
            RequestError: an image has become unreadable since the folder was listed.
        """
        latents, texts = [], []
        # A bar in a terminal, and only where it takes long: most runs find everything in the cache.
        for example in tqdm(examples, "encoding", unit="image", disable=None, delay=2, leave=False):
            self._check()
            latents.append(self.latents(example, augmentation or Augmentation(), size))
            texts.append(self.text(example.caption))
        return Encoded(latents, texts, self.empty_text())

    def latents(self, example: Example, augmentation: Augmentation, size: Size | None = None) -> list[Latent]:
        """The variants of one image."""
        original = _size(example)
        size = size or training_size(original, self._side, self.buckets)
        return [
            self._latent(example, original, variant)
            for variant in variants(example.content, size, augmentation)
        ]

    def _latent(self, example: Example, original: Size, variant: Variant) -> Latent:
        def compute() -> dict[str, Tensor]:
            array = torch.from_numpy(pixels(_read(example), variant))
            mean, std = self._backbone.encode_image(array)
            return {"mean": mean.contiguous(), "std": std.contiguous()}

        width, height = variant.size
        folder = self._root / f"latents-{width}x{height}" / variant.name
        found = remembered(folder / f"{example.content[:40]}.safetensors", compute)
        mean, std = self._backbone.scale(found["mean"], found["std"])
        sizes = self._backbone.family.sizes(original[::-1], crop_corner(original, variant), (height, width))
        return Latent(variant.size, mean, std, sizes)

    def text(self, caption: str) -> Conditioning:
        """Conditioning on a caption: of a trained text encoder its input, of the others their output."""
        given: Conditioning = {}
        for part in self._backbone.files.text_encoders:
            if part in self._trained_text:
                given[f"{part}.ids"] = self._backbone.token_ids(part, caption)
                given[f"{part}.given"] = torch.tensor(1.0)
            else:
                given |= self._embedding(part, caption)
        return given

    def empty_text(self) -> Conditioning:
        """Conditioning on no caption: as the base model was taught it."""
        given = self.text("")
        if not self._backbone.files.empty_is_zero:
            return given
        return {
            name: value if name.endswith(".ids") else torch.zeros_like(value) for name, value in given.items()
        }

    def _embedding(self, part: str, caption: str) -> Conditioning:
        def compute() -> dict[str, Tensor]:
            given = self._backbone.encode_text(part, caption)
            return {name: value.contiguous() for name, value in given.items()}

        return remembered(self._root / part / f"{hash_texts(caption)[:40]}.safetensors", compute)


def _size(example: Example) -> Size:
    try:
        with Image.open(example.path) as image:
            return upright_size(image)
    except OSError as error:
        raise RequestError(f"{example.path} cannot be read ({error})") from error


def _read(example: Example) -> Image.Image:
    try:
        return read_image(example.path)
    except ValueError as error:
        raise RequestError(f"{example.path} {error}") from error


def remembered(path: Path, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors from a file, or computed and written; a damaged file is replaced."""
    try:
        found: dict[str, Tensor] = load_file(path)
        return found
    except (OSError, SafetensorError):
        pass
    tensors = compute()
    replace_with(path, lambda target: save_file(tensors, target))
    return tensors
