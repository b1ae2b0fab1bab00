"""Counted draws: what they depend on, what they do not, and their distribution."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from finetune.randomness import Draws, Images, generator, panel_noise, panel_shift

SQUARE, WIDE, HIGH = (2, 4, 4), (2, 2, 8), (2, 8, 2)


def make_images(
    count: int = 5, shapes: Sequence[tuple[int, ...]] = (SQUARE,), variants: int = 1, repeats: int = 1
) -> Images:
    """Images that take the shapes in turn."""
    chosen = [shapes[index % len(shapes)] for index in range(count)]
    return Images(chosen, [variants] * count, [repeats] * count)


def make_draws(images: Images | None = None, batch_size: int = 2, **options: Any) -> Draws:
    options = {"seed": 3, "micro_batches": 2, "timesteps": 1000, **options}
    return Draws(images=images or make_images(), batch_size=batch_size, **options)


def flat(draws: Draws, count: int) -> list[int]:
    return [draws.at(*divmod(index, draws.global_batch)).image for index in range(count)]


def test_a_draw_is_a_function_of_seed_step_and_position() -> None:
    draws = make_draws(caption_dropout=0.5)
    first, again = draws.at(7, 2), draws.at(7, 2)
    assert (first.image, first.timestep, first.drop_caption) == (
        again.image,
        again.timestep,
        again.drop_caption,
    )
    assert np.array_equal(first.noise, again.noise)
    others = [
        draws.at(8, 2),
        draws.at(7, 3),
        make_draws(seed=4).at(7, 2),
        make_draws(purpose="prior").at(7, 2),
    ]
    for other in others:
        assert not np.array_equal(first.noise, other.noise)
    assert not np.array_equal(first.noise, first.latent_noise)


@given(images=st.integers(1, 12), batch=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_epoch_shows_every_image_once_whatever_the_batch(images: int, batch: int, seed: int) -> None:
    draws = make_draws(make_images(images), batch, micro_batches=1, seed=seed)
    shown = flat(draws, 3 * images)
    for epoch in range(3):
        assert sorted(shown[epoch * images : (epoch + 1) * images]) == list(range(images))
    assert shown == flat(make_draws(make_images(images), 1, micro_batches=1, seed=seed), 3 * images)


@given(images=st.integers(1, 12), batch=st.integers(1, 4), step=st.integers(0, 40), seed=st.integers(0, 99))
def test_images_of_one_shape_are_drawn_as_they_always_were(
    images: int, batch: int, step: int, seed: int
) -> None:
    """Runs of earlier versions are gone on with, and compared with: no number may change."""
    draws = make_draws(make_images(images), batch, seed=seed, caption_dropout=0.5)
    for position in range(2 * batch):
        found = draws.at(step, position)
        epoch, index = divmod(step * 2 * batch + position, images)
        assert found.image == generator("order", seed, epoch).permutation(images)[index]
        random = generator("example", seed, step, position)
        assert found.timestep == random.integers(1000)
        assert found.drop_caption == (random.random() < 0.5)
        assert np.array_equal(found.noise, random.standard_normal(SQUARE, dtype=np.float32))
        assert np.array_equal(found.latent_noise, random.standard_normal(SQUARE, dtype=np.float32))


@given(
    chosen=st.lists(
        st.tuples(st.sampled_from([SQUARE, WIDE, HIGH]), st.integers(1, 3)), min_size=1, max_size=9
    ),
    batch=st.integers(1, 4),
    micro_batches=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_images_of_several_shapes_are_drawn_in_proportion_and_never_mixed(
    chosen: list[tuple[tuple[int, ...], int]], batch: int, micro_batches: int, seed: int
) -> None:
    shapes, repeats = [shape for shape, _ in chosen], [many for _, many in chosen]
    draws = make_draws(
        Images(shapes, [1] * len(chosen), repeats), batch, micro_batches=micro_batches, seed=seed
    )
    round_ = sum(repeats)  # micro-batches in which every shape has had its turns
    shown = flat(draws, 2 * round_ * batch)
    for start in (0, round_ * batch):
        counted = Counter(shown[start : start + round_ * batch])
        assert counted == {index: batch * many for index, many in enumerate(repeats)}
    for start in range(0, len(shown), batch):
        assert len({shapes[image] for image in shown[start : start + batch]}) == 1


@given(batch=st.integers(1, 4), micro_batches=st.sampled_from([2, 3, 6]), shapes=st.sampled_from([1, 2, 3]))
def test_processes_and_accumulation_share_one_sequence_of_batches(
    batch: int, micro_batches: int, shapes: int
) -> None:
    """Two processes of three micro-steps take the six micro-batches that one takes in six."""
    images = make_images(7, [SQUARE, WIDE, HIGH][:shapes])
    whole = make_draws(images, batch, micro_batches=micro_batches)
    single = make_draws(images, batch, micro_batches=1)
    assert flat(whole, 12 * batch) == flat(single, 12 * batch)


def test_turns_of_shapes_are_mixed_and_epochs_have_orders_of_their_own() -> None:
    shown = flat(make_draws(make_images(20)), 60)
    assert shown[:20] != shown[20:40] != shown[40:]
    draws = make_draws(make_images(12, [SQUARE, WIDE]), 1, micro_batches=1)
    turns = [image % 2 for image in flat(draws, 24)]
    assert 2 < np.count_nonzero(np.diff(turns)) < 23
    assert turns[:12] != turns[12:]


def test_draws_have_their_distributions() -> None:
    draws = make_draws(caption_dropout=0.5)
    sample = [draws.at(step, position) for step in range(250) for position in range(4)]
    timesteps = np.array([draw.timestep for draw in sample])
    noise = np.stack([draw.noise for draw in sample])
    assert timesteps.min() >= 0
    assert timesteps.max() < 1000
    assert abs(timesteps.mean() - 499.5) < 4 * 288.7 / np.sqrt(1000)
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)
    assert abs(np.mean([draw.drop_caption for draw in sample]) - 0.5) < 4 * 0.5 / np.sqrt(1000)


def test_logit_normal_timesteps_are_normal_in_their_logit() -> None:
    draws = make_draws(logit_normal=True)
    timesteps = np.array([draws.at(step, 0).timestep for step in range(2000)])
    assert timesteps.min() >= 0
    assert timesteps.max() < 1000
    share = (timesteps + 0.5) / 1000
    logit = np.log(share / (1 - share))
    assert abs(logit.mean()) < 4 / np.sqrt(2000)
    assert abs(logit.std() - 1) < 4 / np.sqrt(4000)
    assert abs(np.mean(np.abs(logit) < 1) - 0.6827) < 4 * 0.4655 / np.sqrt(2000)


def test_a_noise_offset_moves_whole_channels_and_nothing_else() -> None:
    plain, offset = make_draws(), make_draws(noise_offset=0.1)
    moved = []
    for step in range(300):
        one, other = plain.at(step, 1), offset.at(step, 1)
        difference = other.noise - one.noise
        assert np.ptp(difference, axis=(1, 2)) == pytest.approx(0, abs=1e-6)
        moved.extend(difference[:, 0, 0])
        assert np.array_equal(one.latent_noise, other.latent_noise)
        assert (one.image, one.timestep, one.variant) == (other.image, other.timestep, other.variant)
    assert abs(np.mean(moved)) < 4 * 0.1 / np.sqrt(600)
    assert abs(np.std(moved) - 0.1) < 4 * 0.1 / np.sqrt(1200)


def test_variants_are_drawn_alike() -> None:
    draws = make_draws(make_images(variants=4))
    counts = Counter(draws.at(step, 0).variant for step in range(1000))
    assert sorted(counts) == [0, 1, 2, 3]
    assert max(abs(count - 250) for count in counts.values()) < 4 * np.sqrt(1000 * 3 / 16)


def test_no_caption_is_dropped_at_rate_zero() -> None:
    draws = make_draws(caption_dropout=0.0)
    assert not any(draws.at(step, 0).drop_caption for step in range(300))


def test_panel_noise_depends_on_image_and_stratum_alone() -> None:
    first = panel_noise("cat", 1, 0, SQUARE)
    assert np.array_equal(first, panel_noise("cat", 1, 0, SQUARE))
    for other in (("cat", 2, 0), ("dog", 1, 0), ("cat", 1, 1)):
        assert not np.array_equal(first, panel_noise(*other, SQUARE))
    shifts = [panel_shift(str(index), 0) for index in range(200)]
    assert 0 <= min(shifts) < max(shifts) < 1
    assert abs(np.mean(shifts) - 0.5) < 4 * 0.289 / np.sqrt(200)
