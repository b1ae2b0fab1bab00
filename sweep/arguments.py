"""The arguments of `python -m sweep`: options, the study that is meant, and what is left."""

from collections.abc import Sequence
from pathlib import Path
import shlex

from conf.errors import RequestError
from conf.secrets import MARK, has_mark
from sweep.cells import key_of
from sweep.record import StudyFolder


def take_flag(arguments: Sequence[str], name: str) -> tuple[list[str], bool]:
    """Split off `--json` and its like."""
    return [item for item in arguments if item != name], name in arguments


def take_option(arguments: Sequence[str], name: str) -> tuple[list[str], str | None]:
    """Split off `--trial N` or `--trial=N`; an option without its value has an empty one."""
    rest: list[str] = []
    value: str | None = None
    items = iter(arguments)
    for item in items:
        if item == name:
            value = next(items, "")
        elif item.startswith(f"{name}="):
            value = item.split("=", 1)[1]
        else:
            rest.append(item)
    return rest, value


def take_trial(arguments: Sequence[str]) -> tuple[list[str], int | None]:
    """Split off `--trial N`.

    Raises:
        RequestError: N is no number.
    """
    rest, trial = take_option(arguments, "--trial")
    if trial is not None and not trial.isdigit():
        raise RequestError(f"--trial {trial}: must be the number of a trial, for example --trial 3")
    return rest, int(trial) if trial is not None else None


def only_overrides(command: str, arguments: Sequence[str]) -> None:
    """Refuse what is no override.

    Raises:
        RequestError: naming it.
    """
    for item in arguments:
        if item.startswith("-"):
            raise RequestError(f"{item}: there is no such option; see python -m sweep --help")
        if "=" not in item and not item.startswith("~"):
            raise RequestError(
                f"{item}: {command} takes overrides such as experiment=demo; did you mean study={item}?"
            )


def refuse_left_out(overrides: Sequence[str], command: str) -> None:
    """Refuse recorded overrides that lack their secret.

    Args:
        command: of `python -m sweep`, which takes them anew.

    Raises:
        RequestError: saying how to give one anew.
    """
    for item in overrides:
        if has_mark(item):
            anew = shlex.quote(item.replace(MARK, "${oc.env:NAME}"))
            raise RequestError(
                f"{item}: the record keeps no secrets: give it anew, from a variable of the environment: "
                f"python -m sweep {command} {anew}"
            )


def find_study(arguments: Sequence[str]) -> tuple[StudyFolder, list[str]]:
    """The study that arguments name (demo, runs/demo, study=demo) and the other arguments.

    Raises:
        RequestError: none is named, or it does not exist; existing ones are listed.
    """
    folder_of_runs = runs_dir(arguments)
    rest: list[str] = []
    named: list[str] = []
    for item in arguments:
        if item.startswith("-"):
            raise RequestError(f"{item}: there is no such option; see python -m sweep --help")
        if key_of(item) == "study" and "=" in item:
            named.append(_text_of(item))
        elif "=" not in item or StudyFolder(Path(item)).exists():
            named.append(item)
        elif key_of(item) != "runs_dir":
            rest.append(item)
    existing = [folder.name for folder in all_studies(folder_of_runs)]
    known = f"there are {', '.join(existing)}" if existing else f"there is none in {folder_of_runs} yet"
    if len(named) != 1:
        raise RequestError(f"name one study, for example `resume runs/demo`; {known}")
    for path in (Path(named[0]), folder_of_runs / named[0]):
        if StudyFolder(path).exists():
            return StudyFolder(path.absolute()), rest
    raise RequestError(f"study={named[0]}: there is no such study; {known}")


def all_studies(folder: Path) -> list[StudyFolder]:
    """The studies in a folder of runs, oldest first."""
    paths = sorted(folder.glob("*/study.yaml"), key=lambda path: path.stat().st_mtime)
    return [StudyFolder(path.parent.absolute()) for path in paths]


def runs_dir(arguments: Sequence[str]) -> Path:
    """The folder of runs that `runs_dir=...` names."""
    given = [_text_of(item) for item in arguments if key_of(item) == "runs_dir" and "=" in item]
    return Path(given[-1] if given else "runs")


def _text_of(item: str) -> str:
    """The value of `key=value`, without the quotes that `run` needs around a name with spaces."""
    text = item.split("=", 1)[1].strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
