"""What a model family looks like on disk, in diffusers' layout. Needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FamilyFiles:
    """The folders of a pipeline.

    Attributes:
        name: of the family, as registry.py knows it.
        title: for messages.
        pipeline: how the class names of its pipelines start in model_index.json.
        denoiser: folder of the network that is fine-tuned.
        text_encoders: their folders.
        optional: those of them that a pipeline may lack.
    """

    name: str
    title: str
    pipeline: str
    denoiser: str
    text_encoders: tuple[str, ...]
    optional: tuple[str, ...] = ()


STABLE_DIFFUSION = FamilyFiles("sd", "Stable Diffusion 1 or 2", "StableDiffusion", "unet", ("text_encoder",))
SDXL = FamilyFiles(
    "sdxl", "Stable Diffusion XL", "StableDiffusionXL", "unet", ("text_encoder", "text_encoder_2")
)
STABLE_DIFFUSION_3 = FamilyFiles(
    "sd3",
    "Stable Diffusion 3",
    "StableDiffusion3",
    "transformer",
    ("text_encoder", "text_encoder_2", "text_encoder_3"),
    ("text_encoder_3",),
)
# The longest name first, since each is the start of the next.
FAMILIES = (SDXL, STABLE_DIFFUSION_3, STABLE_DIFFUSION)
TITLES = ", ".join(family.title for family in reversed(FAMILIES))


def family_of(pipeline: str) -> FamilyFiles | None:
    """The family of a pipeline's class name; None for another model's."""
    return next((family for family in FAMILIES if pipeline.startswith(family.pipeline)), None)


def tokenizer_of(text_encoder: str) -> str:
    """The folder of a text encoder's tokenizer: text_encoder_2 has tokenizer_2."""
    return text_encoder.replace("text_encoder", "tokenizer")
