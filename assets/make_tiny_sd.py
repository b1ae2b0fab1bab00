"""Trains the embedded base models: tiny, genuine Stable Diffusions of emoji on white.

Stages: `corpus` renders Noto Color Emoji, `vae` trains the autoencoder, `unet` trains the UNet and the text
encoder together on cached latents, `references` writes the small images that the tests compare against, and
`samples` draws the figure of the documentation. `all` runs them in this order. A training that was cut off
goes on from its checkpoint. `--variant` chooses the model (`VARIANTS`); `tiny2` has no stage `vae`, since it
shares the autoencoder of `tiny`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
import json
from pathlib import Path
import random
import time
from typing import Any
import unicodedata

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
STRIKE = 109  # the only size at which the font carries bitmaps
RENDERED = 128  # px; the size that the corpus is kept at
TOKENS = 24  # positions of the text encoder, start and end marks included
VOCABULARY = 3072
VAE_PIXELS = 64  # px; the size that the autoencoder is measured at
CAPTION_DROPOUT = 0.1  # makes classifier-free guidance work
SUBJECTS = 360  # glyphs that the UNet learns; each has to be seen often to be drawn from its caption
# The wide set is every glyph in several dresses. A UNet that has only seen the subjects knows them by heart and little of
# images as such: on any new style its loss then falls at once by most of the gain.
WIDE_VARIANTS = 4
# Glyphs that are signs rather than drawings of a thing; the autoencoder sees them, the UNet does not.
SIGNS = ("clock face", "arrow", "ideograph", "circled", "symbol", "sign", "triangle", "square", "circle")
REFERENCE_CAPTIONS = 50
REFERENCE_HELD_OUT = 32
EMBEDDED = Path(__file__).parent


@dataclass(frozen=True)
class Variant:
    """What differs between the embedded models.

    Attributes:
        native: px; the size that the model is for.
        sizes: a few sizes beside the native one, so that the resolution axis of a sweep is not out of
            distribution: (pixels, share of the batches, images a batch relative to the native batch).
        channels, attention, heads: of the UNet, a value a level or one for all; attention says where captions enter.
        linear: attention projects by linear layers, as in Stable Diffusion 2, not by 1 x 1 convolutions.
        groups: of the UNet's group norms.
        width: of the text encoder and of the cross attention.
        prediction: what the UNet predicts, epsilon or v_prediction.
        zero_terminal: the last timestep is pure noise (Lin et al. 2024), as in later Stable Diffusion 2.
        wide_share: of the batches, that come from the wide set.
        prints: it learns the glyphs as black-and-white prints instead of in colour.
        autoencoder: the stored one that it shares; none: it trains its own.
        half: stored in half precision.
    """

    native: int
    sizes: tuple[tuple[int, float, float], ...]
    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    heads: tuple[int, ...] | int
    linear: bool
    groups: int
    width: int
    prediction: str
    zero_terminal: bool
    wide_share: float
    prints: bool
    autoencoder: Path | None
    half: bool


VARIANTS = {
    "tiny": Variant(
        native=64,
        sizes=((64, 0.8, 1.0), (48, 0.1, 1.0), (96, 0.1, 0.5)),
        channels=(32, 64, 96),
        # Only at a quarter of the latent's side and in the middle: more costs more than it brings.
        attention=(False, False, True),
        heads=4,
        linear=False,
        groups=16,
        width=96,
        prediction="epsilon",
        zero_terminal=False,
        wide_share=0.5,
        prints=False,
        autoencoder=None,
        half=False,
    ),
    "tiny2": Variant(
        native=48,
        sizes=((48, 0.8, 1.0), (32, 0.1, 1.0), (64, 0.1, 0.5)),
        channels=(24, 48, 72),
        # A quarter of its latent's side is 3, too coarse to place what a caption names.
        attention=(False, True, True),
        heads=(2, 4, 6),
        linear=True,
        groups=8,
        width=80,
        prediction="v_prediction",
        zero_terminal=True,
        wide_share=0.25,
        prints=True,
        autoencoder=EMBEDDED / "tiny-sd" / "vae",
        half=True,
    ),
}
FOLDERS = {"tiny": "tiny-sd", "tiny2": "tiny-sd2"}


@dataclass(frozen=True)
class Corpus:
    """Glyphs: uint8 pixels (count, 128, 128, 3), captions, and which ones no training sees."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    captions: list[str]
    held_out: np.ndarray[Any, np.dtype[np.bool_]]

    def tensor(self, size: int, chosen: np.ndarray[Any, Any]) -> Tensor:
        """The chosen glyphs at `size` pixels as floats in [-1, 1], shape (count, 3, size, size)."""
        shrunk = [
            np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
            for image in self.pixels[chosen]
        ]
        return torch.from_numpy(np.stack(shrunk)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def render_corpus(work: Path) -> None:
    """Renders every glyph of one named code point on white and sets one in twenty aside."""
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

    font = ImageFont.truetype(str(FONT), STRIKE)
    pixels, captions = [], []
    for point in sorted(TTFont(FONT).getBestCmap()):
        name = unicodedata.name(chr(point), "").lower()
        # These are parts of glyphs rather than drawings of a thing, as are the digits below the first point.
        parts = (
            "regional indicator",
            "variation selector",
            "tag ",
            "zero width",
            "emoji modifier",
            "emoji comp",
        )
        if point < 0x203C or not name or any(part in name for part in parts):
            continue
        canvas = Image.new("RGBA", (136, 136), (255, 255, 255, 0))
        ImageDraw.Draw(canvas).text((68, 68), chr(point), font=font, embedded_color=True, anchor="mm")
        box = canvas.getbbox()
        if box is None:
            continue
        drawing = canvas.crop(box)
        page = Image.new("RGBA", (136, 136), (255, 255, 255, 255))
        page.alpha_composite(drawing, ((136 - drawing.width) // 2, (136 - drawing.height) // 2))
        image = np.asarray(page.convert("RGB").resize((RENDERED, RENDERED), Image.Resampling.LANCZOS))
        if image.std() < 4:
            continue
        pixels.append(image)
        captions.append(name)
    held_out = np.zeros(len(captions), dtype=bool)
    held_out[np.random.default_rng(0).permutation(len(captions))[: len(captions) // 20]] = True
    np.savez(work / "corpus.npz", pixels=np.stack(pixels), captions=np.array(captions), held_out=held_out)
    print(f"corpus: {len(captions)} glyphs, {int(held_out.sum())} held out", flush=True)


def load_corpus(work: Path, variant: Variant) -> Corpus:
    """Reads what `render_corpus` wrote, as the variant sees it."""
    stored = np.load(work / "corpus.npz")
    pixels = stored["pixels"]
    if variant.prints:
        pixels = np.stack([printed(image) for image in pixels])
    return Corpus(pixels, [str(caption) for caption in stored["captions"]], stored["held_out"])


def printed(image: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A glyph (side, side, 3) in grey, stretched so that its darkest spot is black; white stays white."""
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=float)
    ink = (255 - grey) * 255 / max(1.0, 255 - grey.min())
    return np.repeat((255 - ink).round().astype(np.uint8)[..., None], 3, axis=2)


class Clock:
    """Seconds of training so far, over restarts; progress runs from 0 to 1 over the minutes given."""

    def __init__(self, minutes: float, spent: float) -> None:
        self.limit = minutes * 60
        self.spent = spent
        self.last = time.monotonic()

    def progress(self) -> float:
        """Share of the time used; a pause for an evaluation is skipped with `pause`."""
        now = time.monotonic()
        self.spent += now - self.last
        self.last = now
        return min(1.0, self.spent / self.limit)

    def pause(self) -> None:
        """Leaves out the time since the last call of `progress`."""
        self.last = time.monotonic()


def learning_rate(peak: float, step: int, progress: float) -> float:
    """A warm-up of 100 steps after a start, a plateau, a linear decay to zero over the second half."""
    return peak * min(1.0, (step + 1) / 100) * min(1.0, max(0.01, 2 * (1 - progress)))


@dataclass
class Training:
    """What a stage needs to go on: its networks, optimizer, counters and where it is kept."""

    networks: dict[str, torch.nn.Module]
    averaged: dict[str, torch.nn.Module]
    optimizer: torch.optim.Optimizer
    file: Path
    step: int = 0
    spent: float = 0.0
    started: int = 0

    def restore(self) -> None:
        """Continues from the checkpoint if there is one."""
        if not self.file.exists():
            return
        stored = torch.load(self.file, weights_only=True)
        for name, network in self.networks.items():
            network.load_state_dict(stored["networks"][name])
            self.averaged[name].load_state_dict(stored["averaged"][name])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.step, self.spent = stored["step"], stored["spent"]
        self.started = self.step
        print(f"{self.file.name}: continues at step {self.step}", flush=True)

    def save(self, spent: float) -> None:
        """Writes the checkpoint beside the old one, then replaces it."""
        fresh = self.file.with_suffix(".tmp")
        torch.save(
            {
                "networks": {name: network.state_dict() for name, network in self.networks.items()},
                "averaged": {name: network.state_dict() for name, network in self.averaged.items()},
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "spent": spent,
            },
            fresh,
        )
        fresh.replace(self.file)

    def update(self, loss: Tensor, peak: float, progress: float, horizon: float) -> None:
        """One optimizer step and one step of the running average, `horizon` steps long at most."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * learning_rate(peak, self.step - self.started, progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(1 - 1 / horizon, self.step / (self.step + 10))
        with torch.no_grad():
            for name, network in self.networks.items():
                mean: list[Tensor] = list(self.averaged[name].parameters())
                fresh: list[Tensor] = list(network.parameters())
                torch._foreach_lerp_(mean, fresh, 1 - decay)


def training(build: dict[str, Callable[[], torch.nn.Module]], file: Path, weight_decay: float) -> Training:
    """Builds networks twice (live and averaged), with one fused optimizer, and restores the checkpoint."""
    torch.manual_seed(0)
    networks = {name: make() for name, make in build.items()}
    averaged = {name: make() for name, make in build.items()}
    for name, network in networks.items():
        averaged[name].load_state_dict(network.state_dict())
        averaged[name].requires_grad_(False)
    # What carries the caption into the picture learns slowest, since each of its words is seen seldom.
    caption: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, network in networks.items():
        for key, parameter in network.named_parameters():
            (caption if name == "text" or "attn2" in key else rest).append(parameter)
    groups = [{"params": part, "scale": scale} for part, scale in ((rest, 1.0), (caption, 3.0)) if part]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True)
    state = Training(networks, averaged, optimizer, file)
    state.restore()
    return state


def new_vae() -> AutoencoderKL:
    """An autoencoder of four channels at a quarter of the side; no attention, so that crops teach it too."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        mid_block_add_attention=False,
        norm_num_groups=8,
        sample_size=VAE_PIXELS,
    )


def psnr(vae: AutoencoderKL, images: Tensor) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB; images (count, 3, side, side) in [-1, 1]."""
    with torch.no_grad():
        rebuilt = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    error = ((rebuilt - images) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())


class VaeBatches:
    """Square crops from glyphs at 64 to 112 px, flipped and with channels permuted at random.

    The augmentation is for line drawings and colours that the corpus lacks: the autoencoder should not be
    what limits a new style.
    """

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        chosen = np.flatnonzero(~corpus.held_out)
        self.scaled = {size: corpus.tensor(size, chosen) for size in (64, 80, 112)}
        self.count = len(chosen)

    def draw(self, batch: int, side: int) -> Tensor:
        """A batch (batch, 3, side, side) in [-1, 1]."""
        images = []
        for _ in range(batch):
            size = int(self.rng.choice([64, 80, 112], p=[0.6, 0.25, 0.15]))
            # Towards the middle: the corners of a glyph are white.
            top, left = ((size - side) * self.rng.beta(2, 2, size=2)).round().astype(int)
            image = self.scaled[size][self.rng.integers(self.count), :, top : top + side, left : left + side]
            if self.rng.random() < 0.5:
                image = image.flip(2)
            if self.rng.random() < 0.3:
                image = image[torch.from_numpy(self.rng.permutation(3))]
            if self.rng.random() < 0.1:
                image = image.mean(dim=0, keepdim=True).expand(3, -1, -1)
            images.append(image)
        return torch.stack(images)


def train_vae(work: Path, variant: Variant, minutes: float, steps: int, batch: int) -> None:
    """Trains the autoencoder by absolute and squared error, with a light pull of the latents to N(0, 1)."""
    corpus = load_corpus(work, variant)
    state = training({"vae": new_vae}, work / "vae.pt", weight_decay=0.0)
    vae, averaged = state.networks["vae"], state.averaged["vae"]
    assert isinstance(vae, AutoencoderKL) and isinstance(averaged, AutoencoderKL)
    unseen = corpus.tensor(VAE_PIXELS, np.flatnonzero(corpus.held_out))
    clock = Clock(minutes, state.spent)
    batches = VaeBatches(corpus, seed=state.step)
    while state.step < steps:
        progress = clock.progress()
        if progress >= 1:
            break
        # Small crops first, since a step costs less; whole images at the end, for the norms' statistics.
        images = (
            batches.draw(batch, VAE_PIXELS // 2) if progress < 0.8 else batches.draw(batch // 2, VAE_PIXELS)
        )
        posterior = vae.encode(images).latent_dist
        rebuilt = vae.decode(posterior.sample()).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        loss = functional.l1_loss(rebuilt, images) + functional.mse_loss(rebuilt, images) + 3e-4 * kl
        state.update(loss, 2e-3, progress, horizon=200)
        if state.step % 100 == 0:
            quality = psnr(averaged, unseen)
            print(f"vae {state.step} {clock.spent:.0f} s kl {kl.item():.2f} psnr {quality:.2f}", flush=True)
            state.save(clock.spent)
    state.save(clock.spent)
    print(f"vae: held-out {psnr(averaged, unseen):.2f} dB after {state.step} steps", flush=True)


def trained_vae(work: Path, variant: Variant) -> AutoencoderKL:
    """The averaged autoencoder, or the shared one, ready to encode."""
    vae = new_vae()
    if variant.autoencoder is None:
        vae.load_state_dict(torch.load(work / "vae.pt", weights_only=True)["averaged"]["vae"])
    else:
        vae.load_state_dict(load_file(variant.autoencoder / "diffusion_pytorch_model.safetensors"))
    return vae.requires_grad_(False).eval()


def make_tokenizer(captions: list[str], folder: Path) -> CLIPTokenizer:
    """Trains byte-pair merges on the captions and stores them the way that CLIP's are."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    marks = ["<|startoftext|>", "<|endoftext|>"]
    # Every byte is in the vocabulary, alone and ending a word, so that no caption can fall outside of it.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    extra = len(alphabet) + len(marks)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - extra,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    known = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    words = list(dict.fromkeys([*alphabet, *(letter + "</w>" for letter in alphabet), *known, *marks]))
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in learnt["merges"]]
    vocabulary = {word: index for index, word in enumerate(words)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=TOKENS,
    )


def new_unet(variant: Variant) -> UNet2DConditionModel:
    """One layer a block; captions enter at the levels that the variant says, and in the middle."""
    attention = variant.attention
    return UNet2DConditionModel(
        sample_size=variant.native // 4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=variant.channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)),
        cross_attention_dim=variant.width,
        attention_head_dim=variant.heads,  # the library's name, a misnomer, for the number of heads
        use_linear_projection=variant.linear,
        norm_num_groups=variant.groups,
    )


def new_text_encoder(variant: Variant, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two small transformer layers over the tokens of a caption."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=variant.width,
            intermediate_size=2 * variant.width,
            projection_dim=variant.width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_scheduler(variant: Variant) -> DDIMScheduler:
    """Stable Diffusion's noise schedule; with a pure-noise end, sampling has to start at that end."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=variant.prediction,
        rescale_betas_zero_snr=variant.zero_terminal,
        timestep_spacing="trailing" if variant.zero_terminal else "leading",
    )


def encode_corpus(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the unscaled latents, each (count, 4, side/4, side/4)."""
    means, deviations = [], []
    with torch.no_grad():
        for part in torch.split(images, 64):
            posterior = vae.encode(part).latent_dist
            means.append(posterior.mean)
            deviations.append(posterior.std)
    return torch.cat(means), torch.cat(deviations)


def wide_images(corpus: Corpus, size: int) -> tuple[Tensor, list[str]]:
    """Every glyph that may be trained on, as it is and dressed otherwise; a dressed one has no caption.

    Dressing: mirrored, colour channels exchanged, grey, lighter or darker, turned and moved a little. Images are
    (count * WIDE_VARIANTS, 3, size, size) in [-1, 1].
    """
    chosen = np.flatnonzero(~corpus.held_out)
    plain = corpus.tensor(size, chosen)
    random_state = torch.Generator().manual_seed(2)
    images, captions = [plain], [corpus.captions[index] for index in chosen]
    for _ in range(WIDE_VARIANTS - 1):
        images.append(torch.stack([dressed(image, random_state) for image in plain]))
        captions += [""] * len(chosen)
    return torch.cat(images), captions


def dressed(image: Tensor, random_state: torch.Generator) -> Tensor:
    """One random dress of an image (3, side, side) on white."""
    chance = torch.rand(6, generator=random_state).tolist()
    image = image[torch.randperm(3, generator=random_state)]
    if chance[0] < 0.4:
        image = image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    if chance[1] < 0.5:
        image = image.flip(-1)
    image = ((image + 1) / 2) ** (0.5 + 1.5 * chance[2]) * 2 - 1
    angle = (chance[3] - 0.5) * 0.6
    size = 0.8 + 0.4 * chance[4]
    shift = (chance[5] - 0.5) * 0.2
    turn = torch.tensor(
        [
            [np.cos(angle) * size, -np.sin(angle) * size, shift],
            [np.sin(angle) * size, np.cos(angle) * size, -shift],
        ]
    )
    grid = functional.affine_grid(turn[None].float(), [1, *image.shape], align_corners=False)
    # White outside: the image is turned as ink on nothing.
    return functional.grid_sample(image[None] - 1, grid, align_corners=False)[0] + 1


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Padded ids (count, TOKENS)."""
    encoded = tokenizer(
        captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    )
    ids = encoded["input_ids"]
    assert isinstance(ids, Tensor)
    return ids


def sample_images(pipeline: StableDiffusionPipeline, captions: list[str], steps: int) -> Tensor:
    """At the native size, one sample a caption with guidance and a seed each, (count, 3, size, size) in [0, 1]."""
    generators = [torch.Generator().manual_seed(index) for index in range(len(captions))]
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        captions,
        num_inference_steps=steps,
        guidance_scale=4.0,
        generator=generators,
        output_type="np",
    ).images
    return torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).float()


def top_five_share(samples: Tensor, glyphs: Tensor) -> float:
    """Share of samples whose own glyph is among the five nearest; both (count, 3, side, side) in [0, 1]."""
    small_samples = functional.avg_pool2d(samples, 4).flatten(1)
    small_glyphs = functional.avg_pool2d(glyphs, 4).flatten(1)
    nearest = torch.cdist(small_samples, small_glyphs).topk(5, largest=False).indices
    return float((nearest == torch.arange(len(samples)).unsqueeze(1)).any(dim=1).float().mean())


def subject_indices(corpus: Corpus) -> list[int]:
    """The glyphs that the UNet learns, in a random order that never changes."""
    things = [
        index
        for index, caption in enumerate(corpus.captions)
        if not corpus.held_out[index] and not any(sign in caption for sign in SIGNS)
    ]
    random.Random(1).shuffle(things)
    return things[:SUBJECTS]


def reference_indices(corpus: Corpus) -> list[int]:
    """The trained glyphs that the sampling check asks for."""
    return subject_indices(corpus)[:REFERENCE_CAPTIONS]


def averaged_pipeline(
    state: Training, variant: Variant, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The pipeline of the averaged weights."""
    averaged = {name: network.eval() for name, network in state.averaged.items()}
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=averaged["text"],
        tokenizer=tokenizer,
        unet=averaged["unet"],
        scheduler=new_scheduler(variant),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_pipeline(
    pipeline: StableDiffusionPipeline, folder: Path, vocabulary: Path, captions: list[str], half: bool
) -> None:
    """Writes the pipeline with the captions that it knows."""
    pipeline.save_pretrained(folder)
    (folder / "captions.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    # The library writes one file of its own; the two of the original are for other readers.
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).write_bytes((vocabulary / name).read_bytes())
    if half:
        # CLIPTokenizer reads the two of the original as well.
        (folder / "tokenizer" / "tokenizer.json").unlink()
        for file in folder.glob("*/*.safetensors"):
            weights = {key: weight.half() for key, weight in load_file(file).items()}
            save_file(weights, file, metadata={"format": "pt"})


def noise_and_target(
    latents: Tensor, noise: Tensor, signal: Tensor, prediction: str
) -> tuple[Tensor, Tensor]:
    """Noisy latents and what the UNet is to predict from them; `signal` is alpha-bar, (count, 1, 1, 1)."""
    alpha, sigma = signal.sqrt(), (1 - signal).sqrt()
    noisy = alpha * latents + sigma * noise
    return noisy, noise if prediction == "epsilon" else alpha * noise - sigma * latents


def train_unet(
    work: Path, variant: Variant, folder: Path, minutes: float, steps: int, batch: int, save_every: float
) -> None:
    """Trains UNet and text encoder on cached latents; stores the averages every `save_every` minutes."""
    corpus = load_corpus(work, variant)
    vae = trained_vae(work, variant)
    seen = np.array(sorted(subject_indices(corpus)))
    cached = {size: encode_corpus(vae, corpus.tensor(size, seen)) for size, _, _ in variant.sizes}
    # Stable Diffusion's convention: latents times this factor have unit variance.
    vae.register_to_config(scaling_factor=round(1 / float(cached[variant.native][0].std()), 4))
    scale = float(vae.config["scaling_factor"])
    tokenizer = make_tokenizer(corpus.captions, work / "tokenizer")
    ids = token_ids(tokenizer, [corpus.captions[index] for index in seen])
    empty = token_ids(tokenizer, [""])
    images, captions = wide_images(corpus, variant.native)
    wide, wide_ids = encode_corpus(vae, images), token_ids(tokenizer, captions)
    alphas = new_scheduler(variant).alphas_cumprod
    state = training(
        {"unet": lambda: new_unet(variant), "text": lambda: new_text_encoder(variant, tokenizer)},
        work / "unet.pt",
        weight_decay=1e-3,
    )
    unet, text = state.networks["unet"], state.networks["text"]
    references = reference_indices(corpus)
    glyphs = corpus.tensor(variant.native, np.array(references)).add(1).div(2)
    random_state = torch.Generator().manual_seed(state.step)
    clock, saved, losses = Clock(minutes, state.spent), state.spent, []
    print(f"unet: scale {scale}, {len(tokenizer)} tokens", flush=True)

    def store() -> None:
        pipeline = averaged_pipeline(state, variant, vae, tokenizer)
        known = sorted(corpus.captions[index] for index in seen)
        save_pipeline(pipeline, folder, work / "tokenizer", known, variant.half)
        with torch.no_grad():
            samples = sample_images(pipeline, [corpus.captions[index] for index in references], steps=20)
        print(f"unet {state.step} top five {top_five_share(samples, glyphs):.2f}", flush=True)

    while state.step < steps:
        progress = clock.progress()
        if progress >= 1:
            break
        shares = torch.tensor([share for _, share, _ in variant.sizes])
        size, _, relative = variant.sizes[int(torch.multinomial(shares, 1, generator=random_state))]
        source, words_of = cached[size], ids
        if torch.rand(1, generator=random_state) < variant.wide_share:
            source, words_of, relative = wide, wide_ids, 1.0
        count = max(1, int(batch * relative))
        rows = torch.randint(len(source[0]), (count,), generator=random_state)
        mean, deviation = source[0][rows], source[1][rows]
        latents = scale * (mean + deviation * torch.randn(mean.shape, generator=random_state))
        # One draw per equal slice of the timesteps: as uniform as independent draws, with less variance.
        slices = (torch.arange(count) + torch.rand(count, generator=random_state)) / count
        coarse = progress < 0.85
        timesteps = ((slices.sqrt() if coarse else slices) * 1000).long().clamp(max=999)
        noise = torch.randn(mean.shape, generator=random_state)
        signal = alphas[timesteps].view(-1, 1, 1, 1)
        noisy, target = noise_and_target(latents, noise, signal, variant.prediction)
        dropped = torch.rand(count, 1, generator=random_state) < CAPTION_DROPOUT
        words = text(torch.where(dropped, empty, words_of[rows]))[0]
        predicted = unet(noisy, timesteps, words).sample
        error = (predicted - target).square().mean(dim=(1, 2, 3))
        if coarse and variant.prediction == "epsilon":
            # What a caption decides, layout and colour, is settled at high noise, where the plain loss of
            # the noise is smallest; a velocity's is not. Only for a while: the base is to be measured, and
            # fine-tuned, by the plain loss.
            ratio = alphas[timesteps] / (1 - alphas[timesteps])
            error = error / ratio.clamp(min=1)
        loss = error.mean()
        state.update(loss, 1.5e-3, progress, horizon=500)
        losses.append(loss.item())
        if state.step % 200 == 0:
            print(f"unet {state.step} {clock.spent:.0f} s loss {np.mean(losses[-200:]):.4f}", flush=True)
        if clock.spent - saved > save_every * 60:
            saved = clock.spent
            state.save(clock.spent)
            store()
            clock.pause()
    state.save(clock.spent)
    store()


def contact_sheet(images: Tensor, columns: int) -> Image.Image:
    """Tiles (count, 3, side, side) in [0, 1] row by row without gaps."""
    count, _, side, _ = images.shape
    sheet = Image.new("RGB", (columns * side, -(-count // columns) * side), "white")
    for index, image in enumerate(images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()):
        sheet.paste(Image.fromarray(image), (index % columns * side, index // columns * side))
    return sheet


def write_references(work: Path, variant: Variant, folder: Path) -> None:
    """Writes what the tests need to judge the model without the font."""
    corpus = load_corpus(work, variant)
    folder.mkdir(parents=True, exist_ok=True)
    trained = reference_indices(corpus)
    unseen = random.Random(2).sample(np.flatnonzero(corpus.held_out).tolist(), REFERENCE_HELD_OUT)
    for name, chosen in (("trained", trained), ("held_out", unseen)):
        images = corpus.tensor(variant.native, np.array(chosen)).add(1).div(2)
        contact_sheet(images, 10 if name == "trained" else 8).save(folder / f"{name}.png", optimize=True)
        (folder / f"{name}.json").write_text(
            json.dumps([corpus.captions[index] for index in chosen], indent=1) + "\n"
        )


def draw_samples(work: Path, variant: Variant, folder: Path, figure: Path) -> None:
    """Draws sixteen captions, each with the model's sample above the real glyph."""
    corpus = load_corpus(work, variant)
    chosen = reference_indices(corpus)[:16]
    captions = [corpus.captions[index] for index in chosen]
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    samples = sample_images(pipeline, captions, steps=30)
    glyphs = corpus.tensor(variant.native, np.array(chosen)).add(1).div(2)
    side, columns, label = 96, 8, 34
    sheet = Image.new("RGB", (columns * (side + 12) + 12, 2 * (2 * side + label + 14)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(9)
    for index, caption in enumerate(captions):
        left = 12 + index % columns * (side + 12)
        top = 6 + index // columns * (2 * side + label + 14)
        for row, images in enumerate((samples, glyphs)):
            tile = contact_sheet(images[index : index + 1], 1).resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(tile, (left, top + row * side))
        draw.multiline_text(
            (left, top + 2 * side + 2), wrapped(caption, 20), fill="black", font=font, spacing=1
        )
    figure.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(figure, optimize=True)


def wrapped(text: str, width: int) -> str:
    """Breaks at spaces into lines of `width` characters, three at most."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:3])


def main() -> None:
    """Runs the stages asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    stages = ["corpus", "vae", "unet", "references", "samples"]
    parser.add_argument("stage", choices=[*stages, "all"])
    parser.add_argument("--variant", choices=list(VARIANTS), default="tiny", help="which model")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--to", type=Path, help="where the pipeline is stored")
    parser.add_argument("--references", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--vae-minutes", type=float, default=14.0)
    parser.add_argument("--unet-minutes", type=float, default=45.0)
    parser.add_argument("--steps", type=int, default=10**9, help="most steps of either training")
    parser.add_argument("--vae-batch", type=int, default=16)
    parser.add_argument("--unet-batch", type=int, default=32)
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes between stored pipelines")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    variant, name = VARIANTS[options.variant], FOLDERS[options.variant]
    to = options.to or EMBEDDED / name
    root = EMBEDDED.parent
    if variant.autoencoder is not None:
        stages.remove("vae")
    if options.stage not in (*stages, "all"):
        parser.error(f"--variant {options.variant} has no stage {options.stage}; it has {', '.join(stages)}")
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    for stage in stages if options.stage == "all" else [options.stage]:
        if stage == "corpus":
            render_corpus(options.work)
        elif stage == "vae":
            train_vae(options.work, variant, options.vae_minutes, options.steps, options.vae_batch)
        elif stage == "unet":
            train_unet(
                options.work,
                variant,
                to,
                options.unet_minutes,
                options.steps,
                options.unet_batch,
                options.save_every,
            )
        elif stage == "references":
            write_references(options.work, variant, options.references or root / "tests/assets/data" / name)
        else:
            figure = options.figure or root / "docs" / "assets" / f"{name}-samples.png"
            draw_samples(options.work, variant, to, figure)


if __name__ == "__main__":
    main()
