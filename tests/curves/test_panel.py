"""The panel's name and its paired statistics."""

from dataclasses import replace

import numpy as np
import pytest

from curves.panel import Panel, paired_difference, standard_error

PANEL = Panel(["a", "b"], ["x", "y"], [[3, 9], [4, 8]], base="base", resolution=64, dtype="float32")


def test_whatever_decides_the_loss_changes_the_name() -> None:
    others = [
        replace(PANEL, images=["b", "a"]),
        replace(PANEL, captions=["x", "z"]),
        replace(PANEL, timesteps=[[3, 9], [4, 7]]),
        replace(PANEL, base="other"),
        replace(PANEL, resolution=72),
        replace(PANEL, dtype="bfloat16"),
        replace(PANEL, noise_seed=1),
    ]
    names = {panel.name for panel in [PANEL, *others]}
    assert len(names) == len(others) + 1
    assert replace(PANEL).name == PANEL.name


def test_pairing_removes_what_both_measurements_share() -> None:
    generator = np.random.default_rng(0)
    images = generator.normal(0.2, 0.05, size=16)
    now = images - 0.001 + generator.normal(0, 0.0002, size=16)
    difference, error = paired_difference(now, images)
    assert difference == pytest.approx(-0.001, abs=4 * error)
    assert error < standard_error(images) / 50


def test_the_standard_error_is_that_of_independent_images() -> None:
    generator = np.random.default_rng(1)
    means = [generator.normal(size=9) for _ in range(4000)]
    assert np.mean([standard_error(sample) for sample in means]) == pytest.approx(1 / 3, rel=0.05)


def test_panels_of_different_size_are_not_paired() -> None:
    with pytest.raises(ValueError, match="not of one panel"):
        paired_difference(np.zeros(3), np.zeros(4))
