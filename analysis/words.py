"""Numbers and cells in words: the one place where a value of recommendation.json becomes text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import hashlib
import math
from typing import Any

from analysis.enough import ImagesAnswer
from curves.recommendation import CellAnswer

STATUS_WORDS = {"ok": "ok", "not_reached": "not reached", "no_gain": "no gain", "refused": "refused"}
NONE = "–"
MOST_DECIMALS = 6
LONGEST_LEVEL = 40  # characters of a caption that are shown
MOST_NAMES = 6  # in a line
LONGEST_SLUG = 80  # characters: file systems end at 255 bytes, and a suffix follows


def count(value: int | float | None) -> str:
    """A whole number, or a dash."""
    return NONE if value is None else f"{round(value)}"


def number(value: float | None) -> str:
    """Three significant digits, all of a whole part, no exponent between 0.001 and 10000."""
    if value is None or not math.isfinite(value):
        return NONE
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return rate(value)
    return _digits(value, 3)


def rate(value: float) -> str:
    """A learning rate: two significant digits, 0.0021 or 5e-7."""
    if 1e-3 <= abs(value) < 1e4:
        return _digits(value, 2)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def _digits(value: float, count: int) -> str:
    # `g` turns to an exponent as soon as the whole part has more digits than are asked for.
    return f"{value:.0f}" if abs(value) >= 10 ** (count - 1) else f"{value:.{count}g}"


def learning_rate(cell: CellAnswer) -> str:
    """Of the cell's best hyperparameters; a cell without gain has none that anybody should train with."""
    value = cell.hyperparameters.get("lr")
    return NONE if value is None or cell.status == "no_gain" else rate(float(value))


def minimum(cell: CellAnswer) -> str:
    """The median and its interval: 160 (140–190)."""
    if cell.minimum is None:
        return NONE
    low, median, high = (count(cell.minimum[name]) for name in ("low", "median", "high"))
    return f"{median} ({low}–{high})"


def window(cell: CellAnswer) -> str:
    """60–210, or 60–360+ where it ends only because the horizon does."""
    if cell.window is None:
        return NONE
    return f"{cell.window['low']}–{cell.window['high']}{'+' if cell.window_open else ''}"


def gain(cell: CellAnswer) -> str:
    """Gain and standard error with the error's two leading digits: 0.0123 ± 0.0010; `so far` before the minimum."""
    if cell.gain is None:
        return NONE
    return _with_error(cell.gain, cell.gain_se) + (" so far" if cell.status == "not_reached" else "")


def _with_error(value: float, error: float | None) -> str:
    if error is None or not error > 0:
        return number(value)
    digits = max(0, 1 - math.floor(math.log10(error)))
    if digits > MOST_DECIMALS:
        return f"{number(value)} ± {number(error)}"
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def epochs(cell: CellAnswer) -> str:
    """Passes over the training images at the recommended steps."""
    return NONE if cell.epochs is None else number(cell.epochs)


def duration(seconds: float | None) -> str:
    """40 s, 12 min, 3.5 h."""
    if seconds is None:
        return NONE
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{number(seconds / 3600)} h"


def steps_or_status(cell: CellAnswer) -> str:
    """The recommended steps, or why there are none in one word."""
    return count(cell.recommended_steps) if cell.status == "ok" else STATUS_WORDS[cell.status]


def images(cell: CellAnswer) -> str:
    if cell.images is None:
        return "unknown images"
    return "1 image" if cell.images == 1 else f"{cell.images} images"


def outside_law(law: Mapping[str, Any] | None) -> list[str]:
    """Cells that the law across dataset sizes may not use, a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, why in (law or {}).get("left_out", {}).items():
        reasons.setdefault(why, []).append(name)
    return [
        f"not used for the law across dataset sizes, {why}: {', '.join(names[:MOST_NAMES])}"
        + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
        for why, names in reasons.items()
    ]


def images_enough(found: ImagesAnswer, several: bool) -> str:
    """How many images are enough, in one or two sentences; `several`: where there are other groups to be told from."""
    group = f"{found.method}, {found.resolution} px, {found.base_model}: " if several else ""
    share = f"{100 * found.share:g} % of the gain"
    if found.status == "refused":
        text = f"how many images are enough cannot be said: {found.reason}"
    elif found.status == "not_reached":
        text = f"{found.reason}: doubling buys more than {share}"
    elif found.enough is not None and found.enough["high"] <= found.images[0]:
        text = f"{found.reason}: doubling buys less than {share}"
    else:
        text = f"{_sizes(found.enough)} images are enough: doubling them buys less than {share}"
    if found.doubling is not None:
        low, median, high = (f"{100 * found.doubling[name]:.0f}" for name in ("low", "median", "high"))
        text += f". Doubling {found.images[-1]} would buy {median} % ({low}–{high})"
    return f"images: {group}{text}."


def _sizes(enough: Mapping[str, float] | None) -> str:
    low, median, high = (f"{max(1, round((enough or {})[name]))}" for name in ("low", "median", "high"))
    return f"{median} ({low}–{high})"


def runner_up(cell: CellAnswer) -> str:
    """The second-best hyperparameters and whether they are told from the best; empty where there are none."""
    if cell.runner_up is None or cell.status == "no_gain":
        return ""
    values = ", ".join(
        f"{name} {rate(value) if isinstance(value, float) else value}"
        for name, value in cell.runner_up["hyperparameters"].items()
    )
    worse, error = (f"{100 * cell.runner_up[name]:.1f}" for name in ("worse_by", "error"))
    told = "" if cell.runner_up["told_apart"] else ", not told apart"
    return f"next best {values}: {worse} ± {error} % of gain worse{told}"


def kohya(passes: Mapping[str, int] | None) -> str:
    """The same budget for sd-scripts; empty without one."""
    if passes is None:
        return ""
    repeats, epochs = passes["repeats"], passes["epochs"]
    return (
        f"kohya: {repeats} repeat{'' if repeats == 1 else 's'} x {epochs} epoch{'' if epochs == 1 else 's'}"
    )


def reason(cell: CellAnswer) -> str:
    """Status and reason in one sentence, with the lower bound where there is one."""
    bound = "" if cell.lower_bound is None else f"; the minimum is {lower_bound(cell)}"
    said = cell.reason or "no reason was recorded"
    return f"{said}{bound}" if cell.status == "ok" else f"{STATUS_WORDS[cell.status]}: {said}{bound}"


def lower_bound(cell: CellAnswer) -> str:
    """Where a minimum that was not reached lies: a probability, and one of this learning rate."""
    return f"probably later than {cell.lower_bound} steps at lr {learning_rate(cell)}"


def best_kept(cell: CellAnswer) -> str:
    """The budget where the best checkpoint is kept and not the last; empty without one."""
    if cell.recommended_steps_best_kept is None:
        return ""
    steps = cell.recommended_steps_best_kept
    return f"Where the best checkpoint is kept instead of the last, {steps} steps do, and more do no harm."


def priced(cell: CellAnswer) -> str:
    """The steps of least cost where the horizon has a price; empty without one."""
    if cell.priced is None:
        return ""
    price, steps = number(cell.priced["price"]), count(cell.priced["steps"])
    return f"Where the whole horizon costs {price} of the gain: {steps} steps."


def runs(cell: CellAnswer) -> str:
    """3 runs, 1 censored; 2 of 3 runs used. Without a gain there is no minimum to be censored before."""
    if cell.source != "runs":
        return "no run of its own"
    used, censored = cell.evidence.get("runs", 0), cell.evidence.get("censored_runs", 0)
    found = cell.evidence.get("runs_found", used)
    text = f"{found} run{'' if found == 1 else 's'}"
    text = text if used == found else f"{used} of {text} used"
    return f"{text}, {censored} censored" if censored and cell.status != "no_gain" else text


def shared_levels(cells: Sequence[CellAnswer]) -> dict[str, str]:
    """Levels that are the same in all cells, so that a table need not repeat them."""
    return {name: _short(values[0]) for name, values in _levels(cells).items() if len(set(values)) == 1}


def varying_levels(cells: Sequence[CellAnswer]) -> list[str]:
    """Levels that differ between cells, beside method and images, which a table always shows."""
    shared = shared_levels(cells)
    return [name for name in _levels(cells) if name not in shared]


def level(cell: CellAnswer, name: str) -> str:
    """One level of a cell as text, the middle of a long one left out."""
    return _short(_levels([cell])[name][0])


def _short(text: str) -> str:
    head, tail = LONGEST_LEVEL * 2 // 3, LONGEST_LEVEL // 3
    return text if len(text) <= LONGEST_LEVEL else f"{text[:head].strip()}…{text[-tail:].strip()}"


def varying_hyperparameters(cells: Sequence[CellAnswer]) -> list[str]:
    """Hyperparameters beside lr that differ between the cells that have any."""
    known = [cell.hyperparameters for cell in cells if cell.hyperparameters]
    names = sorted({name for values in known for name in values} - {"lr"})
    return [name for name in names if len({str(values.get(name)) for values in known if name in values}) > 1]


def cell_name(cell: CellAnswer, cells: Sequence[CellAnswer]) -> str:
    """The cell among others: method, images, and whatever else differs."""
    if cell.run is not None:
        return cell.run
    parts = [cell.method, images(cell), *(level(cell, name) for name in varying_levels(cells))]
    return ", ".join(parts)


def slug(cell: CellAnswer, cells: Sequence[CellAnswer]) -> str:
    """A file name for the cell, unlike those of all others."""
    plain = _plain(cell)
    same = [item for item in cells if _plain(item) == plain]
    return plain if len(same) == 1 else f"{plain}-{same.index(cell) + 1}"


def file_name(text: str) -> str:
    """A text as a file's name: letters, digits and -_., a hash in place of what is too long."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)
    if len(plain.encode()) <= LONGEST_SLUG:
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{plain.encode()[:LONGEST_SLUG].decode('utf-8', 'ignore')}-{digest}"


def _plain(cell: CellAnswer) -> str:
    if cell.run is not None:
        return file_name(cell.run)
    return file_name(f"{cell.method}-n{cell.images}-px{cell.resolution}-{cell.base_model}-{cell.captions}")


def _levels(cells: Sequence[CellAnswer]) -> dict[str, list[str]]:
    columns: Mapping[str, list[Any]] = {
        "base": [cell.base_model for cell in cells],
        "base weights": [cell.base_id[:8] for cell in cells],
        "run": [cell.run or NONE for cell in cells],
        "resolution": ["unknown" if cell.resolution is None else f"{cell.resolution} px" for cell in cells],
        "captions": [cell.captions for cell in cells],
        "images and captions": [cell.dataset[:8] for cell in cells],
    }
    return {name: [str(value) for value in values] for name, values in columns.items()}
