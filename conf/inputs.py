"""Inputs that the configuration names: where their paths lead, which files count as images, and how many are few."""

from pathlib import Path
import re

from conf.compose import PROJECT_ROOT

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jfif")
METADATA = "metadata.jsonl"  # captions as Hugging Face's imagefolder has them, also of images in folders
REPEAT_FOLDER = re.compile(r"([1-9]\d{0,4})_(.*)", flags=re.DOTALL)  # kohya's `10_fox`: repeats and caption
FEWEST_IN_FOLDS = 3  # images that folds are made of: with two, each would be trained on alone


def project_path(path: str) -> Path:
    """An input's path: absolute, or relative to the project root, or else to the working directory."""
    given = Path(path).expanduser()
    inside = PROJECT_ROOT / given
    return inside if inside.exists() or not given.exists() else given.resolve()


def may_be_hub_id(path: str) -> bool:
    """Whether base_model.path, which is no folder, has the form of a model hub's owner/name."""
    first = Path(path).parts[0] if path else ""
    local = path.startswith((".", "/", "~")) or path.count("/") != 1
    return not (local or (PROJECT_ROOT / first).is_dir() or project_path(path).exists())
