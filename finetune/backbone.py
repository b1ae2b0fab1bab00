"""A base model in memory: its parts, each loaded when it is first needed, and what their outputs mean."""

from functools import cached_property
import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
import torch
from torch import Tensor, nn

from conf.errors import RequestError
from conf.schema import Loss
from finetune.base_files import BaseFiles
from finetune.families.base import Conditioning
from finetune.families.files import tokenizer_of
from finetune.families.registry import make_family
from finetune.objective import Objective


class Backbone:
    """The parts of a base model as its files hold them; what one run trains is held elsewhere (trained.py)."""

    def __init__(
        self,
        files: BaseFiles,
        device: torch.device,
        loss: Loss | None = None,
        encoding_device: torch.device | None = None,
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            files: of the base model.
            device: of training.
            loss: options of the objective that is trained.
            encoding_device: where autoencoder and text encoders work, `device` where None.
        """
        self.files = files
        self.family = make_family(files.family.name)
        self.device = device
        self._loss = loss or Loss()
        self._encoding_device = encoding_device or device
        self._text: dict[str, tuple[Any, nn.Module]] = {}

    def load_denoiser(self) -> nn.Module:
        """A fresh UNet or transformer in single precision, on the CPU.

        Raises:
            RequestError: its files are damaged.
        """
        return self._load(self.family.denoiser_class, self.files.family.denoiser)

    def load_text_encoder(self, part: str) -> nn.Module:
        """A fresh text encoder in single precision, on the CPU, for training.

        Raises:
            RequestError: its files are damaged.
        """
        return self._load(self.family.text_encoder_class(part), part)

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The autoencoder, frozen and in single precision: in half, that of SDXL overflows."""
        vae = self._load(AutoencoderKL, "vae")
        assert isinstance(vae, AutoencoderKL)
        return vae.requires_grad_(False).eval()

    @cached_property
    def _vae_config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(
            (self.files.path / "vae" / "config.json").read_text(encoding="utf-8")
        )
        return config

    @property
    def _latent_scale(self) -> tuple[float, float]:
        """(shift, factor): a latent minus the shift, times the factor, has about unit variance."""
        config = self._vae_config
        return float(config.get("shift_factor") or 0.0), float(config.get("scaling_factor", 0.18215))

    def latent_shape(self, side: int) -> tuple[int, int, int]:
        """(channels, h, w) of the latent of a square image."""
        factor = 2 ** (len(self._vae_config["block_out_channels"]) - 1)
        return int(self._vae_config.get("latent_channels", 4)), side // factor, side // factor

    @cached_property
    def scheduler_config(self) -> dict[str, Any]:
        """The noise schedule and prediction type that the base model was trained with."""
        file = self.files.path / "scheduler" / "scheduler_config.json"
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return config

    @cached_property
    def objective(self) -> Objective:
        """What is trained."""
        return self.family.objective(self.scheduler_config, self._loss)

    @cached_property
    def panel_objective(self) -> Objective:
        """What the panel measures: the base model's own, so that all runs are measured alike."""
        return self.family.objective(self.scheduler_config)

    def sampling_scheduler(self) -> Any:
        return self.family.sampling_scheduler(self.scheduler_config, self._loss)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the unscaled latent of one image.

        Args:
            pixels: (3, h, w) in [-1, 1].

        Returns:
            Two tensors (channels, h/f, w/f) on the CPU.
        """
        device = self._encoding_device
        posterior = self.vae.to(device).encode(pixels[None].to(device)).latent_dist
        return posterior.mean[0].cpu(), posterior.std[0].cpu()

    def scale(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution of a latent as the denoiser takes it, from that of `encode_image`."""
        shift, factor = self._latent_scale
        return (mean - shift) * factor, std * factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (batch, 3, h, w) in [0, 1] from scaled latents (batch, channels, h/f, w/f)."""
        vae = self.vae.to(self.device)
        shift, factor = self._latent_scale
        # One at a time: at 512 pixels a decoder's activations are larger than the UNet that is trained beside it.
        images = [vae.decode(one[None] / factor + shift, return_dict=False)[0] for one in latents]
        self.vae.to("cpu")
        return (torch.cat(images).float() / 2 + 0.5).clamp(0, 1)

    def release_encoders(self) -> None:
        """Give the device's memory back once everything is encoded; `decode` brings the autoencoder back."""
        self._text.clear()
        if "vae" in self.__dict__:
            self.vae.to("cpu")

    def token_ids(self, part: str, caption: str) -> Tensor:
        """(tokens,) what a text encoder reads of a caption; a long one is cut as its pipeline does."""
        tokenizer, encoder = self._text_part(part)
        return self.family.token_ids(part, tokenizer, encoder.config, caption)

    @torch.no_grad()
    def encode_text(self, part: str, caption: str) -> Conditioning:
        """What a text encoder gives the denoiser of a caption: tensors without batch dimension, on the CPU."""
        ids = self.token_ids(part, caption)
        encoder = self._text_part(part)[1]
        given = self.family.encode(part, encoder, ids[None].to(self._encoding_device))
        return {name: value[0].float().cpu() for name, value in given.items()}

    def _text_part(self, part: str) -> tuple[Any, nn.Module]:
        """Tokenizer and text encoder; imported here, since with cached embeddings a run needs neither."""
        if part not in self._text:
            from transformers.utils import logging

            logging.disable_progress_bar()
            folder = tokenizer_of(part)
            try:
                tokenizer = self.family.tokenizer_class(part).from_pretrained(self.files.path / folder)
            except Exception as error:
                raise self._damaged(folder, error) from error
            encoder = self.load_text_encoder(part).requires_grad_(False).eval()
            self._text[part] = (tokenizer, encoder.to(self._encoding_device))
        return self._text[part]

    def _load(self, kind: Any, part: str) -> nn.Module:
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
        loaded: nn.Module = model
        return loaded

    def _damaged(self, part: str, error: Exception) -> RequestError:
        reason = " ".join(str(error).split())[:200]
        return RequestError(
            f"base_model.path={self.files.path}: the base model is damaged: "
            f"{part} cannot be loaded ({reason}); "
            f"download or copy it again"
        )
