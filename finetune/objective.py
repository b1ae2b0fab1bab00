"""What the UNet is trained to predict: noise (Ho et al. 2020) or velocity (Salimans & Ho 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import DDPMScheduler
import torch
from torch import Tensor

from conf.errors import RequestError

PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Objective:
    """The forward process and its training target.

    Attributes:
        signal: (timesteps,) share of the signal's variance, alpha-bar; may reach zero at the end.
        prediction: epsilon or v_prediction.
    """

    signal: Tensor
    prediction: str

    @staticmethod
    def from_scheduler_config(config: Mapping[str, Any]) -> "Objective":
        """The objective of a base model.

        Raises:
            RequestError: its prediction type is none that can be trained here.
        """
        prediction = str(config.get("prediction_type", "epsilon"))
        if prediction not in PREDICTIONS:
            raise RequestError(
                f"base_model: prediction type {prediction} is not one of {', '.join(PREDICTIONS)}"
            )
        return Objective(DDPMScheduler.from_config(dict(config)).alphas_cumprod.double(), prediction)

    @property
    def timesteps(self) -> int:
        return len(self.signal)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(alpha-bar_t) x_0 + sqrt(1 - alpha-bar_t) epsilon.

        Args:
            latents, noise: (batch, channels, h, w).
            timesteps: (batch,) whole numbers.
        """
        alpha, sigma = self._weights(timesteps, latents)
        return alpha * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """epsilon, or v = sqrt(alpha-bar_t) epsilon - sqrt(1 - alpha-bar_t) x_0 (Salimans & Ho 2022)."""
        if self.prediction == "epsilon":
            return noise
        alpha, sigma = self._weights(timesteps, latents)
        return alpha * noise - sigma * latents

    def _weights(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        signal = self.signal[timesteps.cpu()].view(-1, 1, 1, 1)
        return signal.sqrt().to(like), (1 - signal).sqrt().to(like)


def example_losses(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each example, (batch,), in single precision."""
    return torch.nn.functional.mse_loss(predicted.float(), target.float(), reduction="none").mean(
        dim=(1, 2, 3)
    )
