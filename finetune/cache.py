"""Latents and text embeddings on disk, named by content; several trainers may use one cache at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
import torch
from torch import Tensor
from tqdm import tqdm

from conf.errors import RequestError
from finetune.backbone import Backbone
from finetune.images import Example, read_image, square_pixels
from finetune.paths import hash_texts, replace_with


@dataclass(frozen=True)
class Encoded:
    """Examples as the UNet sees them, on the CPU.

    Attributes:
        mean, std: (images, channels, h, w) of the VAE's posterior, scaled: the distribution, not one sample.
        text: (images, tokens, width).
        empty_text: (tokens, width) embedding of the empty caption.
    """

    mean: Tensor
    std: Tensor
    text: Tensor
    empty_text: Tensor


class ContentCache:
    """Encodes through a backbone, and remembers."""

    def __init__(
        self, cache_dir: Path, backbone: Backbone, pixels: int, check: Callable[[], None] = lambda: None
    ) -> None:
        """Prepare.

        Args:
            cache_dir: folder of all caches.
            backbone: what encodes.
            pixels: side of the images.
            check: called between images; may raise to end the run.
        """
        self._root = cache_dir / backbone.files.base_id
        self._backbone = backbone
        self._pixels = pixels
        self._check = check

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Latents and embeddings of examples, in their order."""
        latents, texts = [], []
        # A bar in a terminal, and only where it takes long: most runs find everything in the cache.
        for example in tqdm(examples, "encoding", unit="image", disable=None, delay=2, leave=False):
            self._check()
            latents.append(self.latent(example))
            texts.append(self.text(example.caption))
        factor = self._backbone.scaling_factor
        return Encoded(
            mean=torch.stack([mean for mean, _ in latents]) * factor,
            std=torch.stack([std for _, std in latents]) * factor,
            text=torch.stack(texts),
            empty_text=self.text(""),
        )

    def latent(self, example: Example) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of an image's unscaled latent, each (channels, h, w).

        Raises:
            RequestError: the image has become unreadable since the folder was listed.
        """

        def compute() -> dict[str, Tensor]:
            try:
                pixels = square_pixels(read_image(example.path), self._pixels)
            except ValueError as error:
                raise RequestError(f"{example.path} {error}") from error
            mean, std = self._backbone.encode_image(torch.from_numpy(pixels))
            return {"mean": mean.contiguous(), "std": std.contiguous()}

        found = remembered(
            self._root / f"latents-{self._pixels}" / f"{example.content[:40]}.safetensors", compute
        )
        return found["mean"], found["std"]

    def text(self, caption: str) -> Tensor:
        """The embedding of a caption, (tokens, width)."""

        def compute() -> dict[str, Tensor]:
            return {"embedding": self._backbone.encode_text(caption).contiguous()}

        return remembered(self._root / "text" / f"{hash_texts(caption)[:40]}.safetensors", compute)[
            "embedding"
        ]


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
