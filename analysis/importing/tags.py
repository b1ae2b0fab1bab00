"""Which tag of a log is what: a table of the known trainers' tag names, and a guess for all others.

The names were read in the tools' sources: spacepxl/demystifying-sd-finetuning (train_sd.py), Nerogar/OneTrainer
(modules/trainer/GenericTrainer.py, modules/modelSetup/BaseModelSetup.py), kohya-ss/sd-scripts (train_network.py,
train_db.py), bghira/SimpleTuner (helpers/training/trainer.py, validation.py), huggingface/diffusers (examples).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
import difflib
import re

UPDATES, MICRO_STEPS, IMAGES, UNKNOWN = "updates", "micro-steps", "images", "steps as logged"


@dataclass(frozen=True)
class Tool:
    """Tags of one trainer, each a pattern for the whole tag, the preferred one first.

    Attributes:
        signature: a tag that only this tool writes.
        held_out: the held-out loss.
        training: losses of the training batches.
        probe: the held-out measure on training images.
        learning_rate: of the part that matters most.
        counts: what one step of its log is.
        first: what is added to a step: 1 where the first batch is logged as step 0.
        epochs: tags whose step is an epoch's number.
        logs_without_step: whether wandb is left to count its calls.
    """

    name: str
    signature: str
    held_out: tuple[str, ...]
    training: tuple[str, ...]
    learning_rate: tuple[str, ...]
    counts: str
    probe: tuple[str, ...] = ()
    first: int = 0
    epochs: str = "(?!)"
    logs_without_step: bool = False

    def counts_epochs(self, tag: str) -> bool:
        """Whether the step of such a tag is an epoch's number."""
        return _matches(self.epochs, tag)


TOOLS = (
    Tool("spacepxl", "test/val", ("test/val",), ("loss/train", "loss/debiased"), (), IMAGES, ("test/test",)),
    Tool(
        "sd-scripts",
        "loss/current|loss/validation/(step|epoch)_(average|divergence)|loss/epoch(_average)?",
        ("loss/validation/step_average", "loss/validation/epoch_average"),
        ("loss/current", "loss", "loss/average", "loss/epoch.*"),
        ("lr/unet", r"lr/group\d+", "lr/(?!d.lr).+"),
        UPDATES,
        epochs="loss/(validation/)?epoch.*",
        logs_without_step=True,
    ),
    Tool(
        "OneTrainer",
        "loss/train_step|loss/validation_step/.+",
        ("loss/validation_step/total_average", "loss/validation_step/.+"),
        ("loss/train_step", "smooth_loss/train_step"),
        ("lr/unet", "lr/transformer", "lr/prior", "lr/.+"),
        MICRO_STEPS,
        first=1,
    ),
    Tool(
        "SimpleTuner",
        "optimization_loss|loss/val/.+",
        ("loss/val/pooled", "loss/val/.+"),
        ("train_loss", "optimization_loss"),
        ("learning_rate",),
        UPDATES,
    ),
    Tool("diffusers", "train_loss|step_loss", (), ("train_loss", "step_loss", "loss"), ("lr",), UPDATES),
)
_HELD_OUT_WORD = "val|valid|validation|eval|evaluation|held[_-]?out"
_GUESS = Tool(
    "unknown",
    ".*",
    (rf"(.*[/_. -])?({_HELD_OUT_WORD})([/_. -].*)?", r"(.*[/_. -])?test([/_. -].*)?"),
    (r"(.*[/_. -])?train(ing)?([/_. -]step)?[/_. -]loss.*", r"(.*[/_. -])?loss[/_. -]train.*", "loss|train"),
    (r"(.*[/_. -])?(lr|learning[_ ]?rate)", "lr.*"),
    UNKNOWN,
    (r"train[_-]?probe|(.*[/_. -])?train_panel_loss",),
)
# Tags beside a held-out loss that are no loss.
_NO_LOSS = re.compile(
    r"diverg|std|stdev|var(iance)?\b|(^|[/_])se$|time|second|lr|learning|acc|step$|epoch$|num|count"
)
_TRAINING_WORD = re.compile(r"(^|[/_. -])train(ing)?([/_. -]|$)")


@dataclass(frozen=True)
class Tags:
    """The tags that were chosen of one log; None where there is none."""

    tool: Tool
    held_out: str | None
    training: str | None
    learning_rate: str | None
    probe: str | None


@dataclass(frozen=True)
class Wanted:
    """Tags that the user names, None where they are to be guessed."""

    held_out: str | None = None
    training: str | None = None
    learning_rate: str | None = None
    probe: str | None = None


def recognise(tags: Collection[str]) -> Tool:
    """The tool that writes such tags."""
    for tool in TOOLS:
        if any(_matches(tool.signature, tag) for tag in tags):
            return tool
    if {"loss", "lr"} <= set(tags):
        return TOOLS[-1]
    return _GUESS


def choose(tags: Collection[str], wanted: Wanted) -> Tags:
    """What each tag of a log is, as the user says or as the tool is known to name it.

    Raises:
        ValueError: a named tag is absent or a training loss is named as held-out; or several may be the held-out loss.
    """
    tool = recognise(tags)
    held_out = _named(wanted.held_out, tags, "--val")
    if held_out is None:
        held_out = _only([*tool.held_out, *_GUESS.held_out], tags, wanted.training, wanted.probe)
    elif _is_training(held_out, tool):
        raise ValueError(
            f"--val {held_out} is {tool.name + '’s ' if tool is not _GUESS else 'a '}training loss: it falls while a "
            "model memorizes and is never compared with a held-out loss; name a held-out loss, or leave --val out"
        )
    others = [tag for tag in tags if tag != held_out]
    probe = _named(wanted.probe, tags, "--probe") or _first([*tool.probe, *_GUESS.probe], others)
    others = [tag for tag in others if tag != probe]
    training = _named(wanted.training, tags, "--train") or _first([*tool.training, *_GUESS.training], others)
    rate = _named(wanted.learning_rate, tags, "--lr") or _first(
        [*tool.learning_rate, *_GUESS.learning_rate], others
    )
    if held_out is not None and held_out in (training, probe):
        raise ValueError(f"{held_out} cannot be both the held-out and the training loss")
    return Tags(tool, held_out, training, rate, probe)


def listed(tags: Collection[str], most: int = 12) -> str:
    """Tags for a message."""
    shown = sorted(tags)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "") or "none"


def _is_training(tag: str, tool: Tool) -> bool:
    if tool is _GUESS or not tool.held_out:
        known = _first(tool.training, [tag]) if tool is not _GUESS else None
        return known is not None or _TRAINING_WORD.search(tag.lower()) is not None
    return _first([*tool.training, *tool.probe], [tag]) is not None


def _named(tag: str | None, tags: Collection[str], option: str) -> str | None:
    """A tag that the user names.

    Raises:
        ValueError: the log has none of that name.
    """
    if tag is None or tag in tags:
        return tag
    near = difflib.get_close_matches(tag, list(tags), n=3)
    meant = f"; meant: {', '.join(near)}?" if near else ""
    raise ValueError(f"{option} {tag}: the log has no such tag{meant} It has: {listed(tags)}")


def _only(patterns: Sequence[str], tags: Collection[str], *taken: str | None) -> str | None:
    """The one tag that the first fitting pattern names.

    Raises:
        ValueError: it names several.
    """
    for pattern in patterns:
        found = [tag for tag in tags if _matches(pattern, tag) and tag not in taken and not _no_loss(tag)]
        if len(found) > 1 and pattern in _GUESS.held_out:
            found = [tag for tag in found if re.search("loss|mse", tag.lower())] or found
        if len(found) > 1:
            raise ValueError(f"several tags may be the held-out loss: {listed(found)}; choose with --val TAG")
        if found:
            return found[0]
    return None


def _first(patterns: Sequence[str], tags: Collection[str]) -> str | None:
    """The tag of the first pattern that fits one, of several the first by name."""
    for pattern in patterns:
        found = sorted(tag for tag in tags if _matches(pattern, tag))
        if found:
            return found[0]
    return None


def _no_loss(tag: str) -> bool:
    return _NO_LOSS.search(tag.lower()) is not None or _TRAINING_WORD.search(tag.lower()) is not None


def _matches(pattern: str, tag: str) -> bool:
    """File names of downloads have `_` for the tag's `/`."""
    if "/" not in tag:
        pattern = pattern.replace("/", "_")
    return re.fullmatch(pattern, tag, flags=re.IGNORECASE) is not None
