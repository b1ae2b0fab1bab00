"""What may be searched: keys and groups of the configuration that are not the sweep's own."""

from conf.compose import groups, known_keys, options
from conf.errors import RequestError
from conf.schema import SpaceParameter

_RESERVED = (
    "study",
    "run_dir",
    "runs_dir",
    "budget.study",
    "dataset.fold",
    "dataset.folds",
)  # the sweep's own
_OF_THE_SWEEP = ("sweep", "space", "launch", "experiment")
_FREE = ("stopping.parameters.",)  # below these any key is valid


def check_declared(parameter: SpaceParameter, key: str) -> None:
    """Check that a parameter names something that can be searched.

    Raises:
        RequestError: it does not; the message starts with the key of the mistake.
    """
    name = parameter.name
    if name in _RESERVED or name.split(".")[0] in _OF_THE_SWEEP:
        raise RequestError(f"{key}.name={name}: {name} belongs to the sweep and cannot be searched")
    if name in groups():
        valid = options(name)
        if parameter.choices is None:
            raise RequestError(f"{key}.choices=null: {name} is a group: its choices are {', '.join(valid)}")
        for index, item in enumerate(parameter.choices):
            if item not in valid:
                raise RequestError(
                    f"{key}.choices[{index}]={item}: {name} is a group: its choices are {', '.join(valid)}, not {item}"
                )
        return
    if name not in known_keys() and not name.startswith(_FREE):
        raise RequestError(f"{key}.name={name}: there is no key '{name}'; {_near(name)}")


def _near(name: str) -> str:
    parent = name.rsplit(".", 1)[0]
    near = [key for key in known_keys() if key.startswith(f"{parent}.")]
    return f"valid keys are {', '.join(near or groups())}"
