"""A whole pipeline folder, made of a base model's parts and of what was trained from it."""

from collections.abc import Callable
import json
from pathlib import Path
import shutil

from conf.schema import Loss
from finetune.base_files import BaseFiles, weight_files
from finetune.families.files import tokenizer_of
from finetune.families.registry import make_family

TEXTS = ("*.json", "*.txt", "*.model")  # of configurations and tokenizers
Place = Callable[[Path, Path], None]


def assemble(
    base: BaseFiles, networks: Path | None, zero_terminal_snr: bool, target: Path, place: Place
) -> None:
    """Make a folder that diffusers loads.

    Args:
        base: whose parts are taken where `networks` has none.
        networks: folder of trained networks, by part.
        zero_terminal_snr: whether images begin as pure noise, whatever the base's schedule says.
        target: a folder that is empty or not there.
        place: puts a part's folder in its place: copy_part or link_part.
    """
    encoders = base.text_encoders
    parts = [base.family.denoiser, "vae", *encoders, *(tokenizer_of(part) for part in encoders), "scheduler"]
    target.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if part == "scheduler" and zero_terminal_snr:
            _write_zero_terminal_snr(base, target / part)
            continue
        trained = None if networks is None else networks / part
        place(trained if trained is not None and trained.is_dir() else base.path / part, target / part)
    index = json.loads((base.path / "model_index.json").read_text(encoding="utf-8"))
    for name, value in index.items():
        if (
            isinstance(value, list) and name not in parts
        ):  # a safety checker, say, which is not among a base's files
            index[name] = [None, None]
    index["_class_name"] = f"{base.family.pipeline}Pipeline"
    if "safety_checker" in index:
        index["requires_safety_checker"] = False
    if zero_terminal_snr:
        index["scheduler"] = ["diffusers", "DDIMScheduler"]
    (target / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def copy_part(source: Path, target: Path) -> None:
    """Copy what a part is loaded from, without variants of its weights.

    Copies and no hard links: programs that save into a model's folder write into the files that are there.
    """
    target.mkdir()
    texts = [file for pattern in TEXTS for file in source.glob(pattern)]
    for file in [*texts, *weight_files(source)]:
        shutil.copyfile(file, target / file.name)


def link_part(source: Path, target: Path) -> None:
    """For a folder that is gone after use."""
    target.symlink_to(source.resolve(), target_is_directory=True)


def _write_zero_terminal_snr(base: BaseFiles, target: Path) -> None:
    """The base's schedule, ending in pure noise (Lin et al. 2024), with a sampler that knows it."""
    config = json.loads((base.path / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    scheduler = make_family(base.family.name).sampling_scheduler(config, Loss(zero_terminal_snr=True))
    scheduler.save_pretrained(target)
