"""Training targets and weights against the formulas and diffusers: noise, velocity and flow."""

from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr
import numpy as np
import pytest
import torch

from conf.errors import RequestError
from conf.schema import Loss
from finetune.objective import Diffusion, Flow, example_losses

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
    objective = Diffusion.from_scheduler_config({**SCHEDULE, "prediction_type": prediction})
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
    objective = Diffusion.from_scheduler_config({**SCHEDULE, "prediction_type": "v_prediction"})
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
    objective = Diffusion.from_scheduler_config(config)
    latents, noise = random_tensors()
    last = torch.full((3,), 999)
    assert objective.signal[-1] < 1e-6
    torch.testing.assert_close(objective.target(latents, noise, last), -latents, atol=1e-3, rtol=1e-3)


def test_other_prediction_types_are_refused() -> None:
    with pytest.raises(RequestError, match="sample is not one of epsilon, v_prediction"):
        Diffusion.from_scheduler_config({**SCHEDULE, "prediction_type": "sample"})


def test_example_losses_are_means_an_example() -> None:
    predicted, target = random_tensors()
    losses = example_losses(predicted, target)
    assert losses.shape == (3,)
    assert losses[1] == pytest.approx(float((predicted[1] - target[1]).square().mean()))


def snr(steps: list[int]) -> torch.Tensor:
    share = torch.tensor([signal_share(step) for step in steps], dtype=torch.float64)
    return share / (1 - share)


@pytest.mark.parametrize("gamma", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_follow_the_formula(prediction: str, gamma: float) -> None:
    objective = Diffusion.from_scheduler_config(
        {**SCHEDULE, "prediction_type": prediction}, Loss(snr_gamma=gamma)
    )
    steps = [0, 1, 50, 200, 500, 998, 999]
    ratio = snr(steps)
    expected = ratio.clamp(max=gamma) / (ratio if prediction == "epsilon" else ratio + 1)
    weights = objective.weights(torch.tensor(steps))
    torch.testing.assert_close(weights.double(), expected, atol=1e-6, rtol=1e-5)
    scheduler = DDIMScheduler.from_config(SCHEDULE)
    theirs = compute_snr(scheduler, torch.tensor(steps)).double()
    torch.testing.assert_close(theirs, ratio, atol=0, rtol=1e-3)


def test_without_gamma_all_timesteps_weigh_the_same() -> None:
    assert Diffusion.from_scheduler_config(SCHEDULE).weights(torch.arange(1000)).tolist() == [1.0] * 1000


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_weights_are_finite_at_zero_terminal_signal(prediction: str) -> None:
    config = {**SCHEDULE, "prediction_type": prediction, "rescale_betas_zero_snr": True}
    objective = Diffusion.from_scheduler_config(config, Loss(snr_gamma=5.0))
    weights = objective.weights(torch.arange(1000))
    assert torch.isfinite(weights).all()
    # The limit of min(SNR, 5) over SNR is 1, over SNR + 1 it is 0.
    assert float(weights[-1]) == pytest.approx(1.0 if prediction == "epsilon" else 0.0, abs=1e-6)


def test_zero_terminal_signal_can_be_asked_for_where_velocity_is_predicted() -> None:
    plain = Diffusion.from_scheduler_config({**SCHEDULE, "prediction_type": "v_prediction"})
    asked = Diffusion.from_scheduler_config(
        {**SCHEDULE, "prediction_type": "v_prediction"}, Loss(zero_terminal_snr=True)
    )
    assert plain.signal[-1] > 1e-3
    assert asked.signal[-1] < 1e-6
    reference = DDIMScheduler.from_config(SCHEDULE, rescale_betas_zero_snr=True)
    torch.testing.assert_close(asked.signal.float(), reference.alphas_cumprod)


@pytest.mark.parametrize(
    ("kind", "loss", "said"),
    [
        (Diffusion, Loss(zero_terminal_snr=True), r"zero_terminal_snr=true: needs .* v prediction"),
        (Flow, Loss(zero_terminal_snr=True), r"zero_terminal_snr=true: .* set it to false"),
        (Flow, Loss(snr_gamma=5.0), r"loss\.snr_gamma=5\.0: .* set it to null"),
    ],
)
def test_options_without_meaning_are_refused(kind: type[Diffusion | Flow], loss: Loss, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        kind.from_scheduler_config(SCHEDULE, loss)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_is_that_of_the_scheduler(shift: float) -> None:
    reference = FlowMatchEulerDiscreteScheduler(shift=shift)
    objective = Flow.from_scheduler_config(reference.config)
    assert objective.timesteps == 1000
    # Ours count up with the noise, the scheduler's down.
    torch.testing.assert_close(objective.noise.flip(0).float(), reference.sigmas[:1000])
    all_steps = torch.arange(1000)
    torch.testing.assert_close(objective.times(all_steps).flip(0), reference.timesteps)
    latents, noise = random_tensors()
    steps = torch.tensor([3, 500, 999])
    times = objective.times(steps)
    noisy = objective.add_noise(latents, noise, steps)
    # The scheduler looks its timesteps up by value.
    found = torch.stack([reference.timesteps[999 - step] for step in steps.tolist()])
    torch.testing.assert_close(times, found)
    torch.testing.assert_close(noisy, reference.scale_noise(latents, found, noise))
    # Following the target backwards for the whole of sigma leads to the image.
    sigma = objective.noise[steps].view(-1, 1, 1, 1).float()
    torch.testing.assert_close(
        noisy - sigma * objective.target(latents, noise, steps), latents, atol=1e-5, rtol=0
    )
    assert objective.weights(steps).tolist() == [1.0] * 3


def test_timesteps_are_drawn_as_the_family_is_trained_unless_asked_otherwise() -> None:
    for kind, usual in ((Diffusion, False), (Flow, True)):
        chosen = [
            kind.from_scheduler_config(SCHEDULE, Loss(timesteps=how)).logit_normal
            for how in ("auto", "uniform", "logit_normal")
        ]
        assert chosen == [usual, False, True]
