"""What trainers of this field get wrong, one test each: the table says where.

1. min-SNR weights mixed up between the halves of prior preservation: test_min_snr_weights_are_per_sample_over_both_halves
2. class images counted as progress: test_steps_and_epochs_count_instance_images; their cost: test_class_images_are_paid_for
3. caption files taken for images, the filesystem's order: test_folder.py, test_listing_is_sorted_and_names_what_is_not_read;
    test_class_images.py, test_own_class_images_are_the_first_by_name
4. transparency dropped, orientation ignored, odd modes misread: test_images.py, its first twelve tests
5. the last partial group of an accumulated epoch scaled wrong: test_accumulation_runs_on_over_the_ends_of_epochs; an update
    a micro-step: test_loop.py, test_accumulated_batches_equal_one_big_batch
6. a resumption that is not exact: test_covering.py; test_loop.py, test_six_and_six_steps_equal_twelve_bit_for_bit
7. a schedule that is stepped once a process: test_two_processes.py
8. a loss of one micro-batch or half: test_train_loss_is_the_mean_over_micro_batches_and_halves; or step:
    test_train_loss_is_the_mean_since_the_last_point; or process: as 7
9. velocity, zero terminal SNR: test_prediction_type_is_the_bases, test_min_snr_of_velocity_is_over_snr_plus_one and the next
10. the half-precision autoencoder of SDXL: test_the_autoencoder_works_in_single_precision
11. LoRA files without alpha: test_adapter_files_of_both_formats_draw_what_was_trained; names that web UIs do not know:
    test_lora_files.py, test_names_are_those_of_sd_scripts
12. one cached sample instead of a distribution: test_cached_latents_are_a_distribution_that_every_step_draws_from; variants:
    test_crops.py, test_a_cached_variant_is_the_encoded_variant and the next
13. accumulation that leaves out the text encoder: test_text_encoders.py, test_accumulation_covers_the_text_encoder; or
    another process's share of it: as 7
14. an option that trains nothing: test_what_would_train_nothing_is_refused
15. validation that changes the run: test_evaluation_and_samples_leave_the_run_as_it_is
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
import signal
from typing import Any

from accelerate import Accelerator
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
import numpy as np
from PIL import Image
import pytest
from safetensors import safe_open
import torch
from torch import Tensor

from conf.compose import load_config
from conf.errors import RequestError
from finetune import loop
from finetune.interruption import Interruption
from finetune.plan import make_plan
from finetune.randomness import Draw, Draws
from finetune.setup import Run, set_up
from finetune.status import RunStatus
from finetune.step import micro_loss
from finetune.trained import copy_weights
from sweep.cost import LAUNCH_S, expected_cost
from tests.finetune.tiny_pipeline import make_images, make_pipeline, read_curve
from tests.finetune.tiny_sdxl import make_sdxl

Train = Callable[..., int]
SetUp = Callable[..., Run]
CPU = torch.device("cpu")
CLASS_IMAGES = ["captions.class_word=box", "evaluation.enabled=false"]


@pytest.fixture(scope="module")
def class_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("classes") / "boxes", 5)


@pytest.fixture(scope="module")
def velocity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that predicts velocity, from pure noise at the last timestep."""
    return make_pipeline(tmp_path_factory.mktemp("velocity") / "sd", prediction="v_prediction")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sdxl(tmp_path_factory.mktemp("sdxl") / "sdxl")


@pytest.fixture
def made(base_overrides: list[str], tmp_path: Path) -> Iterator[SetUp]:
    """Call with overrides: a run that is set up and has not begun."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    statuses: list[RunStatus] = []

    def make(*overrides: str) -> Run:
        statuses.append(RunStatus())
        chosen = [
            *base_overrides,
            f"run_dir={tmp_path / str(len(statuses))}",
            "budget.max_steps=4",
            *overrides,
        ]
        return set_up(make_plan(load_config(chosen), chosen), statuses[-1], Interruption())

    yield make
    for status in statuses:
        status.end("stopped", "a test")
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that a test trains, in order."""
    seen: list[Run] = []
    original = loop.set_up

    def watching(*arguments: Any) -> Run:
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(loop, "set_up", watching)
    return seen


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch, runs: list[Run]) -> list[dict[str, Tensor]]:
    """The gradients of every update of a test by the parameters' names, before they are clipped."""
    seen: list[dict[str, Tensor]] = []
    clip = Accelerator.clip_grad_norm_

    def recording(self: Accelerator, *arguments: Any) -> Any:
        named = runs[-1].trained.named_parameters()
        seen.append({name: value.grad.clone() for name, value in named if value.grad is not None})
        return clip(self, *arguments)

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", recording)
    return seen


def signal_share(base: Path) -> Tensor:
    """Alpha-bar of the tiny pipelines, from the published formulas; rescaled to end in pure noise for velocity."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    if is_velocity(base):
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2


def is_velocity(base: Path) -> bool:
    return "v_prediction" in (base / "scheduler" / "scheduler_config.json").read_text()


def expected_errors(base: Path, run: Run, step: int, first: int) -> tuple[list[float], list[float]]:
    """Squared errors of the untrained base on a micro-batch, example by example, and the examples' SNR.

    Computed by diffusers' and transformers' classes and the formulas alone; instance images, then class images.
    """
    unet = UNet2DConditionModel.from_pretrained(base / "unet").eval()
    share, errors, ratios = signal_share(base), [], []
    batches = [run.training.batch(step, first, CPU)]
    batches += [source.batch(step, first, CPU) for source in run.prior.values()]
    for batch in batches:
        for index in range(len(batch.latents)):
            alpha_bar = float(share[int(batch.timesteps[index])])
            alpha, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
            latent, noise = batch.latents[index : index + 1], batch.noise[index : index + 1]
            text = batch.given["text_encoder"][index : index + 1]
            with torch.no_grad():
                predicted = unet(alpha * latent + sigma * noise, batch.timesteps[index], text).sample
            target = alpha * noise - sigma * latent if is_velocity(base) else noise
            errors.append(float((predicted - target).square().mean()))
            ratios.append(alpha_bar / (1 - alpha_bar) if alpha_bar < 1 else float("inf"))
    return errors, ratios


@pytest.mark.parametrize("batch", [1, 3])
def test_min_snr_weights_are_per_sample_over_both_halves(
    made: SetUp, pipeline: Path, class_images: Path, batch: int
) -> None:
    """Trap 1."""
    prior = [f"method.prior_folder={class_images}", "method.prior_images=5", "method.prior_weight=0.7"]
    loss = ["loss.snr_gamma=0.5", f"optimizer.batch_size={batch}"]
    run = made("method=dreambooth", *CLASS_IMAGES, *prior, *loss)
    for step in range(3):
        errors, ratios = expected_errors(pipeline, run, step, 0)
        assert len(errors) == 2 * batch
        weighted = [error * min(ratio, 0.5) / ratio for error, ratio in zip(errors, ratios, strict=True)]
        halves = np.mean(weighted[:batch]), np.mean(weighted[batch:])
        assert micro_loss(run, step, 0)[0].item() == pytest.approx(halves[0] + 0.7 * halves[1], rel=1e-4)


def test_steps_and_epochs_count_instance_images(
    run_train: Train, tmp_path: Path, class_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 2."""
    sizes: list[int] = []
    drawn: list[tuple[str, int]] = []
    forward = UNet2DConditionModel.forward

    def counting(self: Any, sample: Tensor, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(sample))
        return forward(self, sample, *arguments, **options)

    at = Draws.at

    def noting(self: Draws, step: int, position: int) -> Draw:
        draw = at(self, step, position)
        drawn.append((self.purpose, draw.image))
        return draw

    monkeypatch.setattr(UNet2DConditionModel, "forward", counting)
    monkeypatch.setattr(Draws, "at", noting)
    prior = [f"method.prior_folder={class_images}", "method.prior_images=3"]
    assert run_train(tmp_path / "run", "method=dreambooth", *CLASS_IMAGES, *prior, "budget.max_steps=6") == 0
    assert sizes == [2 + 2] * 6  # a step costs as many class images
    seen = [(point["step"], point["images_seen"]) for point in read_curve(tmp_path / "run")]
    assert seen[-1] == (6, 12)
    # 12 images are 3 epochs of 4; as many class images are 4 epochs of 3.
    subject, classes = (
        {("example", image): 3 for image in range(4)},
        {("prior", image): 4 for image in range(3)},
    )
    assert Counter(drawn) == subject | classes


def test_class_images_are_paid_for() -> None:
    """Trap 2: where a sweep says beforehand what it will cost, a step with prior preservation costs two images."""
    wanted = [
        "method=dreambooth",
        "captions.class_word=box",
        "evaluation.enabled=false",
        "stopping=none",
        "budget.max_steps=300",
    ]
    seconds = []
    for weight in ("1", "null"):
        config = load_config([*wanted, f"method.prior_weight={weight}", "base_model=sd15"])
        seconds.append(expected_cost(config, []).seconds - LAUNCH_S)
    assert seconds[0] - seconds[1] == pytest.approx(300 * 4 * config.base_model.seconds_per_image)


def test_accumulation_runs_on_over_the_ends_of_epochs(
    run_train: Train, tmp_path: Path, gradients: list[dict[str, Tensor]], runs: list[Run]
) -> None:
    """Trap 5: 5 images, of which an update takes 4: no group is cut short by the end of an epoch."""
    common = [
        "method=text_to_image",
        "dataset_size.images=5",
        "budget.max_steps=5",
        "evaluation.enabled=false",
    ]
    common += [
        "optimizer.lr=1e-9",
        "optimizer.epsilon=1",
    ]  # so that all five updates are taken at the same weights
    for batch, accumulation in ((4, 1), (1, 4)):
        options = [f"optimizer.batch_size={batch}", f"optimizer.accumulation={accumulation}"]
        run_train(tmp_path / str(batch), *common, *options)
        points = read_curve(tmp_path / str(batch))
        assert (points[-1]["step"], points[-1]["images_seen"]) == (5, 20)
        draws = runs[-1].training.draws
        shown = [draws.at(step, position).image for step in range(5) for position in range(4)]
        assert [sorted(shown[start : start + 5]) for start in range(0, 20, 5)] == [list(range(5))] * 4
    assert len(gradients) == 10
    for step in range(5):
        torch.testing.assert_close(gradients[5 + step], gradients[step], rtol=1e-3, atol=1e-5)


def test_train_loss_is_the_mean_over_micro_batches_and_halves(
    run_train: Train, made: SetUp, pipeline: Path, class_images: Path, tmp_path: Path
) -> None:
    """Trap 8: the plain mean of all squared errors, whatever training makes of them, so that methods compare."""
    prior = [f"method.prior_folder={class_images}", "method.prior_images=5", "method.prior_weight=0.3"]
    common = [*CLASS_IMAGES, *prior, "optimizer.accumulation=3", "loss.snr_gamma=1", "budget.max_steps=1"]
    logged = []
    for method in ("dreambooth", "dreambooth_lora"):
        run_train(tmp_path / method, f"method={method}", *common)
        logged.append(read_curve(tmp_path / method)[-1]["train_loss"])
    run = made("method=dreambooth", *common)
    errors = [error for micro in range(3) for error in expected_errors(pipeline, run, 0, 2 * micro)[0]]
    assert len(errors) == 3 * (2 + 2)
    assert logged == pytest.approx([np.mean(errors)] * 2, rel=1e-4)
    plain = [
        "captions=instance",
        "captions.class_word=box",
        "evaluation.enabled=false",
        "optimizer.accumulation=3",
    ]
    alone = []
    for method in ("text_to_image", "lora"):
        run_train(tmp_path / method, f"method={method}", *plain, "budget.max_steps=1")
        alone.append(read_curve(tmp_path / method)[-1]["train_loss"])
    instances = [error for start in range(0, 12, 4) for error in errors[start : start + 2]]
    assert alone == pytest.approx([np.mean(instances)] * 2, rel=1e-4)


def test_train_loss_is_the_mean_since_the_last_point(run_train: Train, tmp_path: Path) -> None:
    """Trap 8."""
    common = ["budget.max_steps=9", "evaluation.enabled=false", "optimizer.lr=1e-3"]
    logged = []
    for first, ratio in ((1, 1.1), (4, 2)):
        folder = tmp_path / str(first)
        run_train(folder, *common, f"evaluation.first_step={first}", f"evaluation.ratio={ratio}")
        logged.append({point["step"]: point.get("train_loss") for point in read_curve(folder)})
    each, few = logged
    assert list(each) == list(range(10)) and list(few) == [0, 4, 8, 9]
    means = [np.mean([each[step] for step in steps]) for steps in (range(1, 5), range(5, 9), range(9, 10))]
    assert [few[step] for step in (4, 8, 9)] == pytest.approx(means)


@pytest.mark.parametrize("base", ["pipeline", "velocity"])
def test_prediction_type_is_the_bases(made: SetUp, base: str, request: pytest.FixtureRequest) -> None:
    """Trap 9: what is trained is what the scheduler's file says, at every timestep, pure noise included."""
    folder: Path = request.getfixturevalue(base)
    run = made(f"base_model.path={folder}", "optimizer.batch_size=4")
    assert float(signal_share(folder)[-1]) == (0.0 if base == "velocity" else pytest.approx(0.0047, rel=0.02))
    for step in range(2):
        errors, _ = expected_errors(folder, run, step, 0)
        assert micro_loss(run, step, 0)[0].item() == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize("base", ["pipeline", "velocity"])
def test_min_snr_of_velocity_is_over_snr_plus_one(
    made: SetUp, base: str, request: pytest.FixtureRequest
) -> None:
    """Trap 9: Hang et al. 2023, section 3.4; finite where there is no signal."""
    folder: Path = request.getfixturevalue(base)
    run = made(f"base_model.path={folder}", "loss.snr_gamma=5")
    share = signal_share(folder)
    weights = run.backbone.objective.weights(torch.arange(1000))
    snr = share / (1 - share)
    expected = snr.clamp_max(5) / (snr + 1 if base == "velocity" else snr)
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights, expected.float(), rtol=1e-4, atol=1e-6)
    assert float(weights[-1]) == (0.0 if base == "velocity" else pytest.approx(1.0))


def test_zero_terminal_snr_needs_velocity(made: SetUp) -> None:
    """Trap 9."""
    with pytest.raises(
        RequestError, match=r"loss\.zero_terminal_snr=true: needs a base model of v prediction"
    ):
        made("loss.zero_terminal_snr=true")


@pytest.mark.parametrize("memory", ["minimal", "low", "fast"])
def test_the_autoencoder_works_in_single_precision(
    made: SetUp, sdxl: Path, tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 10: whatever memory.precision is, encoding and decoding SDXL is bit for bit that of single precision."""
    results: list[Tensor] = []
    decode = AutoencoderKL.decode

    def decoding(self: AutoencoderKL, *arguments: Any, **options: Any) -> Any:
        results.append(decode(self, *arguments, **options)[0])
        return (results[-1],)

    monkeypatch.setattr(AutoencoderKL, "decode", decoding)
    run = made(
        *(f"base_model.path={sdxl}", f"memory={memory}", "memory.compile=false", f"cache_dir={tmp_path}"),
        *("samples.count=1", "samples.inference_steps=1", "evaluation.enabled=false"),
    )
    assert run.config.memory.precision == "bf16"
    vae = AutoencoderKL.from_pretrained(sdxl / "vae")
    example = run.plan.split.training[0]
    with torch.no_grad():
        posterior = vae.encode(centre(example.path)).latent_dist
    latent = run.training.encoded.latents[0][0]
    assert torch.equal(latent.mean, posterior.mean[0] * 0.13025)
    assert torch.equal(latent.std, posterior.std[0] * 0.13025)
    assert run.sampling is not None
    run.sampling.sampler.draw(run.trained)
    assert {value.dtype for value in [*results, *run.backbone.vae.parameters()]} == {torch.float32}


def centre(path: Path) -> Tensor:
    """(1, 3, 32, 32) in [-1, 1]: a square image, resized."""
    with Image.open(path) as file:
        image = file.convert("RGB").resize((32, 32), Image.Resampling.LANCZOS)
    array = np.asarray(image, dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None] / 127.5 - 1


# diffusers' Euler scheduler is older than numpy.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("base", "scale"), [("pipeline", "rslora=false"), ("sdxl", "rslora=true")])
def test_adapter_files_of_both_formats_draw_what_was_trained(
    run_train: Train, tmp_path: Path, runs: list[Run], base: str, scale: str, request: pytest.FixtureRequest
) -> None:
    """Trap 11: with alpha unlike rank, and text encoders."""
    folder: Path = request.getfixturevalue(base)
    adapter = ["method.rank=4", "method.alpha=10", f"method.{scale}", "method.text_encoder=lora"]
    rest = ["budget.max_steps=3", "optimizer.lr=0.02", "checkpoints.final=last"]
    formats = "checkpoints.formats=[diffusers,kohya]"
    assert run_train(tmp_path / "run", f"base_model.path={folder}", *adapter, *rest, formats) == 0
    kind = StableDiffusionPipeline if base == "pipeline" else StableDiffusionXLPipeline
    expected = draw(kind.from_pretrained(folder, **runs[0].trained.components()))
    assert (draw(kind.from_pretrained(folder)) - expected).abs().max() > 0.1
    for form in ("diffusers", "kohya"):
        file = runs[0].folder.adapter("last", form)
        again = kind.from_pretrained(folder)
        again.load_lora_weights(file.parent, weight_name=file.name)
        torch.testing.assert_close(draw(again), expected, rtol=1e-4, atol=1e-4)
        with safe_open(file, framework="pt") as opened:
            metadata, names = opened.metadata(), set(opened.keys())
        assert (metadata["steps"], metadata["rank"], metadata["alpha"]) == ("3", "4", "10.0")
        assert metadata["base_id"] == runs[0].plan.base.base_id
        assert form == "diffusers" or any(name.endswith(".alpha") for name in names)


def draw(pipeline: Any) -> Tensor:
    """Latents that a pipeline draws."""
    pipeline.set_progress_bar_config(disable=True)
    latents: Tensor = pipeline(
        "box 1",
        num_inference_steps=2,
        guidance_scale=3.0,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).images
    return latents


def test_cached_latents_are_a_distribution_that_every_step_draws_from(made: SetUp, pipeline: Path) -> None:
    """Trap 12."""
    made("dataset_size=n2")
    run = made("dataset_size=n2")  # from the cache
    assert "vae" not in vars(run.backbone)
    vae = AutoencoderKL.from_pretrained(pipeline / "vae")
    steps = 400
    drawn: dict[int, list[Tensor]] = {0: [], 1: []}
    noise: dict[int, list[Tensor]] = {0: [], 1: []}
    for step in range(steps):
        batch = run.training.batch(step, 0, CPU)
        for position in range(2):
            image = run.training.draws.at(step, position).image
            drawn[image].append(batch.latents[position])
            noise[image].append(batch.noise[position])
    for image, example in enumerate(run.plan.split.training):
        with torch.no_grad():
            posterior = vae.encode(centre(example.path)).latent_dist
        latents, mean, std = torch.stack(drawn[image]), posterior.mean[0] * 0.5, posterior.std[0] * 0.5
        assert len(latents) == steps
        assert len(torch.unique(latents, dim=0)) == steps
        scores = (latents.mean(dim=0) - mean) / std * steps**0.5
        assert float(scores.abs().mean()) == pytest.approx((2 / np.pi) ** 0.5, rel=0.1)
        assert float((latents.std(dim=0) / std).mean()) == pytest.approx(1, rel=0.02)
        # Were it the noise of the forward process, a denoiser would learn to read the one from the other.
        assert float(((latents - mean) / std * torch.stack(noise[image])).mean()) == pytest.approx(
            0, abs=0.02
        )


@pytest.mark.parametrize(
    "override",
    [
        "loss.snr_gamma=0",
        "method.alpha=0",
        "method.rank=0",
        "method.dropout=1",
        "method.prior_weight=0",
        "optimizer.lr=0",
        "optimizer.max_grad_norm=0",
        "optimizer.text_encoder_lr=0",
        "optimizer.ema_decay=1",
        "optimizer.batch_size=0",
        "optimizer.accumulation=0",
        "optimizer.warmup_steps=400",
        "captions.dropout=1",
        "budget.max_steps=0",
    ],
)
def test_what_would_train_nothing_is_refused(override: str) -> None:
    """Trap 14: by its key and value, and with what to write instead."""
    key, value = override.split("=")
    with pytest.raises(RequestError, match=rf"{key}={value}(\.0)?: \S.+"):
        load_config(["method.text_encoder=lora", override])


@pytest.mark.parametrize(
    "options",
    [
        ["method=lora", "method.dropout=0.3", "captions.dropout=0.3", "method.text_encoder=lora"],
        ["method=text_to_image", "method.text_encoder=full", "memory=low"],
        [
            "method=dreambooth",
            "captions.class_word=box",
            "method.prior_images=3",
            "evaluation.class_images=2",
        ],
        [
            "method=dreambooth_lora",
            "captions.class_word=box",
            "method.prior_images=3",
            "optimizer.ema_decay=0.9",
        ],
        ["method=text_to_image", "optimizer=schedulefree", "optimizer.lr=0.01", "augmentation.flip=true"],
    ],
    ids=lambda options: options[0],
)
def test_evaluation_and_samples_leave_the_run_as_it_is(
    run_train: Train, tmp_path: Path, runs: list[Run], options: list[str]
) -> None:
    """Trap 15: bit for bit, in the weights, their average and the training loss."""
    common = [*options, "budget.max_steps=5", "checkpoints.final=last"]
    drawn = ["samples.count=2", "samples.inference_steps=2", "samples.first_step=1"]
    often = ["evaluation.first_step=1", "evaluation.ratio=1.5"]
    run_train(tmp_path / "watched", *common, *often, *drawn)
    run_train(tmp_path / "plain", *common, *often, "evaluation.enabled=false")
    watched, alone = (copy_weights(run.trained) for run in runs)
    assert [name for name in alone if not torch.equal(alone[name], watched[name])] == []
    averages = [run.averaging.state_dict() for run in runs]
    assert [name for name in averages[0] if not torch.equal(averages[0][name], averages[1][name])] == []
    losses = [
        [point.get("train_loss") for point in read_curve(tmp_path / name)] for name in ("watched", "plain")
    ]
    assert losses[0] == losses[1] != [None] * 5
    assert len(list((tmp_path / "watched" / "samples").glob("*.png"))) == 2 * 5
