"""Stable Diffusion 1 and 2 in memory: the parts of a base model, each loaded when it is first needed."""

from functools import cached_property
import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
import torch
from torch import Tensor

from conf.errors import RequestError
from finetune.base_files import BaseFiles
from finetune.objective import Objective


class Backbone:
    """The frozen parts of a base model; what one run trains is held elsewhere (methods.py)."""

    def __init__(self, files: BaseFiles, device: torch.device) -> None:
        self.files = files
        self.device = device

    def load_unet(self) -> UNet2DConditionModel:
        """A fresh UNet in single precision.

        Raises:
            RequestError: its files are damaged.
        """
        unet = self._load(UNet2DConditionModel, "unet")
        assert isinstance(unet, UNet2DConditionModel)
        return unet

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The autoencoder, frozen."""
        vae = self._load(AutoencoderKL, "vae")
        assert isinstance(vae, AutoencoderKL)
        return vae.requires_grad_(False).eval()

    @cached_property
    def scaling_factor(self) -> float:
        """Latents times this have about unit variance."""
        config = json.loads((self.files.path / "vae" / "config.json").read_text(encoding="utf-8"))
        return float(config.get("scaling_factor", 0.18215))

    @cached_property
    def scheduler_config(self) -> dict[str, Any]:
        """The noise schedule and prediction type that the base model was trained with."""
        file = self.files.path / "scheduler" / "scheduler_config.json"
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return config

    @cached_property
    def objective(self) -> Objective:
        return Objective.from_scheduler_config(self.scheduler_config)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the unscaled latent of one image.

        Args:
            pixels: (3, h, w) in [-1, 1].

        Returns:
            Two tensors (channels, h/f, w/f) on the CPU.
        """
        posterior = self.vae.to(self.device).encode(pixels[None].to(self.device)).latent_dist
        return posterior.mean[0].cpu(), posterior.std[0].cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (batch, 3, h, w) in [0, 1] from scaled latents (batch, channels, h/f, w/f)."""
        vae = self.vae.to(self.device)
        # One at a time: at 512 pixels a decoder's activations are larger than the UNet that is trained beside it.
        images = [vae.decode(one[None] / self.scaling_factor, return_dict=False)[0] for one in latents]
        self.vae.to("cpu")
        return (torch.cat(images).float() / 2 + 0.5).clamp(0, 1)

    def release_encoders(self) -> None:
        """Give the device's memory back once everything is encoded; `decode` brings the autoencoder back."""
        self.__dict__.pop("_text", None)
        if "vae" in self.__dict__:
            self.vae.to("cpu")

    @torch.no_grad()
    def encode_text(self, caption: str) -> Tensor:
        """The text embedding of a caption, (tokens, width) on the CPU; a long one is cut as CLIP does."""
        tokenizer, encoder = self._text
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        ids = tokenizer(
            [caption], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        embedding: Tensor = encoder(ids.to(self.device))[0][0].float().cpu()
        return embedding

    @cached_property
    def _text(self) -> tuple[Any, Any]:
        """Tokenizer and text encoder; imported here, since with cached embeddings a run needs neither."""
        from transformers import CLIPTextModel, CLIPTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            tokenizer = CLIPTokenizer.from_pretrained(self.files.path / "tokenizer")
        except Exception as error:
            raise self._damaged("tokenizer", error) from error
        return tokenizer, self._load(CLIPTextModel, "text_encoder").requires_grad_(False).eval()

    def _load(self, kind: Any, part: str) -> Any:
        """One part in single precision; a weight that its file lacks is refused, not made up at random."""
        folder: Path = self.files.path / part
        try:
            model, info = kind.from_pretrained(folder, torch_dtype=torch.float32, output_loading_info=True)
        except Exception as error:  # safetensors, json, torch and both libraries raise errors of their own
            raise self._damaged(part, error) from error
        missing = sorted(info["missing_keys"])
        if missing:
            raise self._damaged(
                part, ValueError(f"{len(missing)} weights are missing, for example {missing[0]}")
            )
        return model.to(self.device)

    def _damaged(self, part: str, error: Exception) -> RequestError:
        reason = " ".join(str(error).split())[:200]
        return RequestError(
            f"base_model.path={self.files.path}: the base model is damaged: "
            f"{part} cannot be loaded ({reason}); "
            f"download or copy it again"
        )
