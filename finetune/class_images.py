"""Class images for prior preservation (Ruiz et al. 2023): one's own, and what lacks drawn by the base model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from tqdm import tqdm

from conf.errors import RequestError
from conf.inputs import IMAGE_SUFFIXES
from conf.schema import Config, Method
from finetune.backbone import Backbone
from finetune.cache import ContentCache
from finetune.images import Example, pixel_hash
from finetune.paths import hash_texts, remembered_hash, replace_with
from finetune.samples import Sampler
from finetune.trained import TrainedModel

INFERENCE_STEPS = 30
GUIDANCE_SCALE = 5.0  # moderate: class images should be what the base model draws, not its extremes
BATCH = 4


def class_prompt(config: Config) -> str:
    """The caption of class images."""
    prompt = config.method.prior_prompt
    return f"a photo of {config.captions.class_word}" if prompt is None else prompt


def own_class_images(method: Method, count: int, cache_dir: Path, prompt: str) -> list[Example]:
    """The first images of method.prior_folder, `count` at most.

    Raises:
        RequestError: the folder is missing or one of its images is unreadable.
    """
    if method.prior_folder is None:
        return []
    folder = Path(method.prior_folder).expanduser()
    if not folder.is_dir():
        raise RequestError(f"method.prior_folder={folder}: no such folder; give a folder of class images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return [_example(path, prompt, cache_dir) for path in paths[:count]]


def drawn_class_images(
    missing: int,
    prompt: str,
    size: int,
    backbone: Backbone,
    cache: ContentCache,
    cache_dir: Path,
    accelerator: Accelerator,
    check: Callable[[], None],
) -> list[Example]:
    """Class images of the base model, from the cache folder where it has them; each process draws its share.

    Args:
        missing: how many are needed.
        prompt: of all.
        size: side in pixels.
        backbone: of the run.
        cache: of the base model as it is, without trained text encoders.
        cache_dir: folder of all caches.
        accelerator: of the run.
        check: called between images; may raise to end the run.
    """
    name = hash_texts(prompt, str(size), str(INFERENCE_STEPS), str(GUIDANCE_SCALE))[:16]
    folder = cache_dir / backbone.files.base_id / f"class-images-{name}"
    paths = [folder / f"{index:05d}.png" for index in range(missing)]
    own = range(accelerator.process_index, missing, accelerator.num_processes)
    wanted = [index for index in own if not paths[index].exists()]
    if wanted:
        _draw(wanted, paths, prompt, size, backbone, cache, check, accelerator.is_main_process)
    accelerator.wait_for_everyone()
    return [_example(path, prompt, cache_dir) for path in paths]


def _draw(
    wanted: list[int],
    paths: list[Path],
    prompt: str,
    size: int,
    backbone: Backbone,
    cache: ContentCache,
    check: Callable[[], None],
    shown: bool,
) -> None:
    """Draw some of the images; an image is a function of prompt, size and index alone."""
    model = TrainedModel(backbone.family, backbone.load_denoiser().to(backbone.device), {})
    sizes = backbone.family.sizes((size, size), (0, 0), (size, size))
    text, empty = cache.text(prompt) | sizes, cache.empty_text() | sizes
    with tqdm(total=len(wanted), desc="class images", unit="image", disable=None if shown else True) as bar:
        for start in range(0, len(wanted), BATCH):
            check()
            part = wanted[start : start + BATCH]
            sampler = Sampler(
                backbone,
                [text] * len(part),
                empty,
                backbone.latent_shape(size),
                [("class image", index) for index in part],
                INFERENCE_STEPS,
                GUIDANCE_SCALE,
            )
            for index, image in zip(part, sampler.draw(model), strict=True):
                replace_with(paths[index], partial(image.save, format="PNG"))
                bar.update()


def _example(path: Path, prompt: str, cache_dir: Path) -> Example:
    try:
        return Example(path, prompt, remembered_hash(path, cache_dir, "pixels", pixel_hash))
    except ValueError as error:
        raise RequestError(f"{path} {error}") from error
