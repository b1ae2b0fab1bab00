"""Draws every image of a grid, keeps each as it is done, and lays them out."""

from collections.abc import Mapping, Sequence
import itertools
import json
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from finetune.generate.columns import Column
from finetune.generate.drawing import Artist
from finetune.generate.options import Options
from finetune.generate.sheet import make_sheet
from finetune.paths import replace_with
from finetune.pipelines import choose_device


def generate(options: Options, columns: Sequence[Column]) -> None:
    """Draw a grid.

    Raises:
        RequestError: there is no such device, weights are damaged, or an adapter does not fit.
    """
    artist = Artist(options, choose_device(options.device))
    for column in columns:  # what does not fit is known before hours of drawing
        artist.take(column)
    rows = list(itertools.product(options.prompts, options.seeds))
    images: list[list[Image.Image]] = [[] for _ in rows]
    options.images.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(rows) * len(columns), unit="image", disable=None) as bar:
        for position, column in enumerate(columns):
            for index, (prompt, seed) in enumerate(rows):

                def stepped(step: int) -> None:
                    bar.set_postfix_str(f"step {step}/{options.steps}")

                image = artist.draw(column, prompt, seed, stepped)
                images[index].append(image)
                file = options.images / f"row-{index + 1:02d}-column-{position + 1:02d}.png"
                _save(image, file, _describe(column, prompt, seed, options))
                bar.update()
    labels = [(prompt, f"seed {seed}") for prompt, seed in rows]
    sheet = make_sheet(images, labels, [column.heading for column in columns])
    facts = {"rows": rows, "columns": [column.heading for column in columns], **_common(options)}
    _save(sheet, options.to, {"stepbudget": json.dumps(facts, ensure_ascii=False)})


def _common(options: Options) -> dict[str, object]:
    """What all images of a grid are drawn with."""
    return {"negative": options.negative, "steps": options.steps, "guidance": options.guidance}


def _describe(column: Column, prompt: str, seed: int, options: Options) -> dict[str, str]:
    """Parameters of one image: as JSON, and as the line that web UIs read."""
    record = {
        "prompt": prompt,
        "seed": seed,
        "size": column.pixels,
        **_common(options),
        "model": str(column.networks or column.base.path),
        "base_id": column.base.base_id,
        "adapters": [{"file": str(weights.path), "weight": weight} for weights, weight in column.adapters],
    }
    negative = f"\nNegative prompt: {options.negative}" if options.negative else ""
    line = (
        f"{prompt}{negative}\nSteps: {options.steps}, CFG scale: {options.guidance:g}, Seed: {seed}, "
        f"Size: {column.pixels}x{column.pixels}, Model: {(column.networks or column.base.path).name}"
    )
    return {"stepbudget": json.dumps(record, ensure_ascii=False), "parameters": line}


def _save(image: Image.Image, file: Path, texts: Mapping[str, str]) -> None:
    """A PNG file with texts in it."""
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    replace_with(file, lambda path: image.save(path, format="PNG", pnginfo=info))
