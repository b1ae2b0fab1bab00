"""Optional parts: libraries and models that are found, or refused with the remedy, before anything is loaded."""

from importlib.util import find_spec

from conf.errors import RequestError
from conf.inputs import project_path
from conf.schema import Optimizer

LIBRARIES = {  # optimizer -> the optional library that it comes from, and our extra that brings it
    "adamw8bit": ("bitsandbytes", "eight-bit"),
    "prodigy": ("prodigyopt", "optimizers"),
    "schedulefree": ("schedulefree", "optimizers"),
}
ENCODER_FILES = ("config.json", "preprocessor_config.json")


def check_library(options: Optimizer) -> None:
    """Find the optional library of an optimizer without loading it.

    Raises:
        RequestError: it is not installed.
    """
    library, extra = LIBRARIES.get(options.name, ("torch", ""))
    if find_spec(library) is None:
        raise RequestError(
            f"optimizer={options.name}: needs {library}, which is not installed; "
            f"pip install 'stepbudget[{extra}]'"
        )


def check_encoder(folder: str | None) -> None:
    """Find the image encoder that samples are measured with, without loading it.

    Raises:
        RequestError: there is no such folder, or it holds none.
    """
    if folder is None:
        return
    missing = [name for name in ENCODER_FILES if not (project_path(folder) / name).is_file()]
    if missing:
        raise RequestError(
            f"samples.encoder={folder}: {' and '.join(missing)} not found there; give the folder of a CLIP or DINO "
            "model in transformers' layout, or null"
        )
