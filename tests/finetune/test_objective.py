"""The training target against the formulas, for both prediction types and a zero terminal signal."""

import numpy as np
import pytest
import torch

from conf.errors import RequestError
from finetune.objective import Objective, example_losses

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


def random_tensors() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, 4, 4, generator=random), torch.randn(3, 2, 4, 4, generator=random)


def signal_share(timestep: int) -> float:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return float(np.cumprod(1 - betas)[timestep])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noising_and_target_follow_the_formulas(prediction: str) -> None:
    objective = Objective.from_scheduler_config({**SCHEDULE, "prediction_type": prediction})
    latents, noise = random_tensors()
    steps = [0, 500, 999]
    timesteps = torch.tensor(steps)
    noisy, target = (
        objective.add_noise(latents, noise, timesteps),
        objective.target(latents, noise, timesteps),
    )
    for index, step in enumerate(steps):
        share = signal_share(step)
        alpha, sigma = share**0.5, (1 - share) ** 0.5
        velocity = alpha * noise[index] - sigma * latents[index]
        torch.testing.assert_close(
            noisy[index], alpha * latents[index] + sigma * noise[index], atol=1e-4, rtol=1e-4
        )
        expected = noise[index] if prediction == "epsilon" else velocity
        torch.testing.assert_close(target[index], expected, atol=1e-4, rtol=1e-4)


def test_velocity_and_noise_give_back_the_latents() -> None:
    objective = Objective.from_scheduler_config({**SCHEDULE, "prediction_type": "v_prediction"})
    latents, noise = random_tensors()
    timesteps = torch.tensor([10, 400, 900])
    noisy, velocity = (
        objective.add_noise(latents, noise, timesteps),
        objective.target(latents, noise, timesteps),
    )
    alpha = objective.signal[timesteps].sqrt().float().view(-1, 1, 1, 1)
    sigma = (1 - objective.signal[timesteps]).sqrt().float().view(-1, 1, 1, 1)
    torch.testing.assert_close(alpha * noisy - sigma * velocity, latents, atol=1e-5, rtol=1e-5)


def test_zero_terminal_signal_is_finite() -> None:
    config = {**SCHEDULE, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    objective = Objective.from_scheduler_config(config)
    latents, noise = random_tensors()
    last = torch.full((3,), 999)
    assert objective.signal[-1] < 1e-6
    torch.testing.assert_close(objective.target(latents, noise, last), -latents, atol=1e-3, rtol=1e-3)


def test_other_prediction_types_are_refused() -> None:
    with pytest.raises(RequestError, match="sample is not one of epsilon, v_prediction"):
        Objective.from_scheduler_config({**SCHEDULE, "prediction_type": "sample"})


def test_example_losses_are_means_an_example() -> None:
    predicted, target = random_tensors()
    losses = example_losses(predicted, target)
    assert losses.shape == (3,)
    assert losses[1] == pytest.approx(float((predicted[1] - target[1]).square().mean()))
