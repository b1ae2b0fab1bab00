"""Counted draws: what they depend on, what they do not, and their distribution."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
import numpy as np

from finetune.randomness import Draws, panel_noise, panel_shift

DRAWS = Draws(seed=3, images=5, global_batch=4, timesteps=1000, shape=(2, 4, 4), caption_dropout=0.5)


def flat(draws: Draws, count: int) -> list[int]:
    return [draws.at(*divmod(index, draws.global_batch)).image for index in range(count)]


def test_a_draw_is_a_function_of_seed_step_and_position() -> None:
    first, again = DRAWS.at(7, 2), DRAWS.at(7, 2)
    assert (first.image, first.timestep, first.drop_caption) == (
        again.image,
        again.timestep,
        again.drop_caption,
    )
    assert np.array_equal(first.noise, again.noise)
    for other in (DRAWS.at(8, 2), DRAWS.at(7, 3), replace(DRAWS, seed=4).at(7, 2)):
        assert not np.array_equal(first.noise, other.noise)
    assert not np.array_equal(first.noise, first.latent_noise)


@given(images=st.integers(1, 12), batch=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_epoch_shows_every_image_once_whatever_the_batch(images: int, batch: int, seed: int) -> None:
    draws = replace(DRAWS, images=images, global_batch=batch, seed=seed)
    shown = flat(draws, 3 * images)
    for epoch in range(3):
        assert sorted(shown[epoch * images : (epoch + 1) * images]) == list(range(images))
    assert shown == flat(replace(draws, global_batch=1), 3 * images)


def test_epochs_have_orders_of_their_own() -> None:
    shown = flat(replace(DRAWS, images=20), 60)
    assert shown[:20] != shown[20:40] != shown[40:]


def test_draws_have_their_distributions() -> None:
    sample = [DRAWS.at(step, position) for step in range(250) for position in range(4)]
    timesteps = np.array([draw.timestep for draw in sample])
    noise = np.stack([draw.noise for draw in sample])
    assert timesteps.min() >= 0
    assert timesteps.max() < 1000
    assert abs(timesteps.mean() - 499.5) < 4 * 288.7 / np.sqrt(1000)
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)
    assert abs(np.mean([draw.drop_caption for draw in sample]) - 0.5) < 4 * 0.5 / np.sqrt(1000)


def test_no_caption_is_dropped_at_rate_zero() -> None:
    draws = replace(DRAWS, caption_dropout=0.0)
    assert not any(draws.at(step, 0).drop_caption for step in range(300))


def test_panel_noise_depends_on_image_and_stratum_alone() -> None:
    first = panel_noise("cat", 1, 0, (2, 4, 4))
    assert np.array_equal(first, panel_noise("cat", 1, 0, (2, 4, 4)))
    for other in (("cat", 2, 0), ("dog", 1, 0), ("cat", 1, 1)):
        assert not np.array_equal(first, panel_noise(*other, (2, 4, 4)))
    shifts = [panel_shift(str(index), 0) for index in range(200)]
    assert 0 <= min(shifts) < max(shifts) < 1
    assert abs(np.mean(shifts) - 0.5) < 4 * 0.289 / np.sqrt(200)
