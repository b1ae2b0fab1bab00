"""Optional libraries: found, or refused by the name of the extra that brings them, before anything is loaded."""

from importlib.util import find_spec

from conf.errors import RequestError
from conf.schema import Optimizer

LIBRARIES = {  # optimizer -> the optional library that it comes from, and our extra that brings it
    "adamw8bit": ("bitsandbytes", "eight-bit"),
    "prodigy": ("prodigyopt", "optimizers"),
    "schedulefree": ("schedulefree", "optimizers"),
}


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
