"""The held-out measure: its strata, and that it depends on nothing but panel and weights."""

from pathlib import Path

from accelerate import Accelerator
import numpy as np
import pytest
import torch

from conf.schema import Captions, Dataset, Method
from finetune.backbone import Backbone
from finetune.base_files import find_base
from finetune.cache import ContentCache
from finetune.images import Example, read_folder
from finetune.methods import make_trainable
from finetune.trained import TrainedModel
from finetune.validation import Losses, PanelEvaluator, make_panel, measure


@pytest.fixture(scope="module")
def backbone(pipeline: Path, cache: Path) -> Backbone:
    return Backbone(find_base(str(pipeline), cache), torch.device("cpu"))


@pytest.fixture(scope="module")
def examples(images: Path, cache: Path) -> list[Example]:
    return read_folder(Dataset(name="boxes", path=str(images)), Captions(name="file"), cache)[0]


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def losses(
    backbone: Backbone,
    cache: Path,
    examples: list[Example],
    accelerator: Accelerator,
    unet: torch.nn.Module,
    batch_size: int = 32,
) -> Losses:
    panel = make_panel(examples, 4, 1000, "base", 32, "float32")
    encoded = ContentCache(cache, backbone, 32).encode(examples)
    model = TrainedModel(backbone.family, unet, {})
    model.train(unet.training)
    return PanelEvaluator(panel, encoded, backbone.panel_objective, batch_size, accelerator).losses(model)


def test_every_stratum_has_one_timestep_of_every_image(examples: list[Example]) -> None:
    timesteps = np.array(make_panel(examples, 8, 1000, "base", 32, "float32").timesteps)
    assert timesteps.shape == (16, 8)
    for stratum in range(8):
        assert np.all(
            (timesteps[:, stratum] >= 125 * stratum) & (timesteps[:, stratum] < 125 * (stratum + 1))
        )
    assert len({row[0] for row in timesteps.tolist()}) > 8
    spacing = np.diff(timesteps, axis=1)
    assert np.all(np.abs(spacing - 125) <= 1)


def test_the_name_tells_panels_apart(examples: list[Example]) -> None:
    names = {
        make_panel(chosen, strata, 1000, base, pixels, dtype).name
        for chosen, strata, base, pixels, dtype in [
            (examples, 4, "base", 32, "float32"),
            (examples[:8], 4, "base", 32, "float32"),
            (examples, 8, "base", 32, "float32"),
            (examples, 4, "other", 32, "float32"),
            (examples, 4, "base", 48, "float32"),
            (examples, 4, "base", 32, "bfloat16"),
        ]
    }
    assert len(names) == 6


def test_batch_size_and_company_do_not_matter(
    backbone: Backbone, cache: Path, examples: list[Example], accelerator: Accelerator
) -> None:
    unet = backbone.load_denoiser()
    whole = losses(backbone, cache, examples, accelerator, unet)
    for batch_size in (1, 5, 64):
        other = losses(backbone, cache, examples, accelerator, unet, batch_size)
        assert np.abs(other - whole).max() < 1e-6
    reverse = losses(backbone, cache, examples[::-1], accelerator, unet)
    assert np.abs(reverse[::-1] - whole).max() < 1e-6
    some = losses(backbone, cache, examples[3:6], accelerator, unet)
    assert np.abs(some - whole[3:6]).max() < 1e-6


@pytest.mark.parametrize("targets", ["attention", "attention_ff", "attention_ff_resnet"])
def test_a_fresh_adapter_measures_as_the_base(
    backbone: Backbone, cache: Path, examples: list[Example], accelerator: Accelerator, targets: str
) -> None:
    base = losses(backbone, cache, examples, accelerator, backbone.load_denoiser())
    unet = backbone.load_denoiser()
    method = Method(name="lora", adapter="lora", rank=2, alpha=2, dropout=0.5, targets=targets)
    make_trainable(unet, "lora", method, backbone.family.targets[targets], seed=1)
    unet.train()
    assert np.abs(losses(backbone, cache, examples, accelerator, unet) - base).max() < 1e-6
    assert unet.training


def test_measuring_draws_nothing(
    backbone: Backbone, cache: Path, examples: list[Example], accelerator: Accelerator
) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    losses(backbone, cache, examples, accelerator, backbone.load_denoiser().train())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index,union-attr]


def test_statistics_are_clustered_by_image() -> None:
    start = np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]])
    now = start - np.array([[0.5], [0.0], [0.25]])
    result = measure(now, start)
    assert result.val_loss == pytest.approx(2.75)
    assert result.image_loss == pytest.approx([1.5, 3.0, 3.75])
    assert result.bins == pytest.approx([1.75, 3.75])
    assert result.delta == pytest.approx(-0.25)
    assert result.delta_se == pytest.approx(np.std([-0.5, 0.0, -0.25], ddof=1) / np.sqrt(3))
    assert result.val_se == pytest.approx(np.std([1.5, 3.0, 3.75], ddof=1) / np.sqrt(3))
    assert result.log_ratio == pytest.approx(np.log(now / start).mean())
    first = measure(start, start)
    assert (first.delta, first.delta_se, first.log_ratio) == (0.0, 0.0, 0.0)
