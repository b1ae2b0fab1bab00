"""What a denoiser is trained to predict: noise or velocity of a diffusion, or the direction of a flow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from diffusers import DDPMScheduler
import torch
from torch import Tensor

from conf.errors import RequestError
from conf.schema import Loss

PREDICTIONS = ("epsilon", "v_prediction")


class Objective(Protocol):
    """The forward process and its training target; timesteps are whole numbers that grow with the noise."""

    @property
    def timesteps(self) -> int:
        """How many there are."""

    @property
    def logit_normal(self) -> bool:
        """Whether training draws middle timesteps more often."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noisy latents, of the shape of both (batch, channels, h, w); timesteps are (batch,)."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should predict."""

    def times(self, timesteps: Tensor) -> Tensor:
        """What the denoiser is told of the timesteps, (batch,)."""

    def weights(self, timesteps: Tensor) -> Tensor:
        """Weights of the examples' losses in training, (batch,)."""


@dataclass(frozen=True)
class Diffusion:
    """Noise (Ho et al. 2020) or velocity (Salimans & Ho 2022) of a variance-preserving diffusion.

    Attributes:
        signal: (timesteps,) share of the signal's variance, alpha-bar; may reach zero at the end.
        prediction: epsilon or v_prediction.
        snr_gamma: of min-SNR weights; None for equal ones.
    """

    signal: Tensor
    prediction: str
    snr_gamma: float | None = None
    logit_normal: bool = False

    @staticmethod
    def from_scheduler_config(config: Mapping[str, Any], loss: Loss | None = None) -> "Diffusion":
        """The objective of a base model.

        Raises:
            RequestError: its prediction type is none that can be trained here, or does not go with an option.
        """
        prediction, loss = str(config.get("prediction_type", "epsilon")), loss or Loss()
        if prediction not in PREDICTIONS:
            raise RequestError(
                f"base_model: prediction type {prediction} is not one of {', '.join(PREDICTIONS)}"
            )
        if loss.zero_terminal_snr:
            if prediction == "epsilon":
                # There the last timestep is pure noise, of which the noise is the input itself: nothing is learnt.
                raise RequestError(
                    "loss.zero_terminal_snr=true: needs a base model of v prediction, this one predicts noise; "
                    "set it to false or use base_model=sd21"
                )
            config = {**config, "rescale_betas_zero_snr": True}
        signal = DDPMScheduler.from_config(dict(config)).alphas_cumprod.double()
        return Diffusion(signal, prediction, loss.snr_gamma, loss.timesteps == "logit_normal")

    @property
    def timesteps(self) -> int:
        return len(self.signal)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(alpha-bar_t) x_0 + sqrt(1 - alpha-bar_t) epsilon."""
        alpha, sigma = self._scales(timesteps, latents)
        return alpha * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """epsilon, or v = sqrt(alpha-bar_t) epsilon - sqrt(1 - alpha-bar_t) x_0 (Salimans & Ho 2022)."""
        if self.prediction == "epsilon":
            return noise
        alpha, sigma = self._scales(timesteps, latents)
        return alpha * noise - sigma * latents

    def times(self, timesteps: Tensor) -> Tensor:
        return timesteps

    def weights(self, timesteps: Tensor) -> Tensor:
        """min(SNR, gamma) over SNR for noise, over SNR + 1 for velocity (Hang et al. 2023, section 3.4)."""
        signal = self.signal[timesteps.cpu()]
        if self.snr_gamma is None:
            return torch.ones_like(signal, dtype=torch.float32)
        noise = 1 - signal
        # Written without a quotient by SNR or by noise, each of which may be zero.
        clipped = torch.minimum(signal, self.snr_gamma * noise)
        whole = signal if self.prediction == "epsilon" else torch.ones_like(signal)
        return torch.where(whole > 0, clipped / whole.clamp_min(1e-300), 1.0).float()

    def _scales(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        signal = self.signal[timesteps.cpu()].view(-1, 1, 1, 1)
        return signal.sqrt().to(like), (1 - signal).sqrt().to(like)


@dataclass(frozen=True)
class Flow:
    """Rectified flow (Liu et al. 2022) as Stable Diffusion 3 trains it (Esser et al. 2024).

    Attributes:
        noise: (timesteps,) share of the noise, from near zero to one: shift * s / (1 + (shift - 1) * s).
        logit_normal: whether training draws timesteps by Esser et al., section 3.1, with location 0 and scale 1.
    """

    noise: Tensor
    logit_normal: bool = True

    @staticmethod
    def from_scheduler_config(config: Mapping[str, Any], loss: Loss | None = None) -> "Flow":
        """The objective of a base model.

        Raises:
            RequestError: an option has no meaning for a flow.
        """
        loss = loss or Loss()
        if loss.snr_gamma is not None:
            raise RequestError(
                f"loss.snr_gamma={loss.snr_gamma}: is for diffusion models, this base is a flow: set it to null"
            )
        if loss.zero_terminal_snr:
            raise RequestError(
                "loss.zero_terminal_snr=true: is for diffusion models, a flow ends in pure noise anyway: set it to false"
            )
        count, shift = int(config.get("num_train_timesteps", 1000)), float(config.get("shift", 1.0))
        plain = torch.arange(1, count + 1, dtype=torch.float64) / count
        return Flow(shift * plain / (1 + (shift - 1) * plain), loss.timesteps != "uniform")

    @property
    def timesteps(self) -> int:
        return len(self.noise)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = (1 - sigma_t) x_0 + sigma_t epsilon."""
        sigma = self.noise[timesteps.cpu()].view(-1, 1, 1, 1).to(latents)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The direction from image to noise, epsilon - x_0."""
        return noise - latents

    def times(self, timesteps: Tensor) -> Tensor:
        return (self.noise[timesteps.cpu()] * self.timesteps).float().to(timesteps.device)

    def weights(self, timesteps: Tensor) -> Tensor:
        return torch.ones(len(timesteps))


def example_losses(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each example, (batch,), in single precision."""
    return torch.nn.functional.mse_loss(predicted.float(), target.float(), reduction="none").mean(
        dim=(1, 2, 3)
    )
