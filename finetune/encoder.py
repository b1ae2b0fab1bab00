"""An image encoder that somebody has on disk: CLIP, SigLIP, DINO, DINOv2 in transformers' layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
import torch
from torch import Tensor

from conf.errors import RequestError

BATCH = 16  # images a forward pass


class ImageEncoder:
    """Turns images into vectors, on the CPU, so that it takes nothing of the GPU that trains."""

    def __init__(self, folder: Path) -> None:
        """Load.

        Raises:
            RequestError: the folder's files are damaged, or hold no image encoder.
        """
        from transformers import AutoImageProcessor, AutoModel

        self.name = folder.name
        try:
            self._processor: Any = AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, backend="pil"
            )
            self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise RequestError(
                f"samples.encoder={folder}: cannot be loaded as an image encoder ({said}); "
                "give the folder of a CLIP or DINO model in transformers' layout"
            ) from error

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """(images, features) one vector an image."""
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return torch.cat([self._features(part) for part in parts])

    def _features(self, images: Sequence[Image.Image]) -> Tensor:
        """Of a model of images and texts its image features, else the pooled output or the first token's."""
        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"]
        if hasattr(self._model, "get_image_features"):
            found = self._model.get_image_features(pixel_values=pixels)
        else:
            found = self._model(pixel_values=pixels)
        if isinstance(found, Tensor):
            return found.float()
        pooled = found.pooler_output if found.pooler_output is not None else found.last_hidden_state[:, 0]
        vectors: Tensor = pooled.flatten(1).float()
        return vectors
