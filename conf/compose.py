"""From overrides to a typed, validated configuration. Hydra's own complaints become one clear line."""

from collections.abc import Sequence
import dataclasses
import difflib
from pathlib import Path
import re
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from conf.errors import RequestError
from conf.schema import Config
from conf.validate import validate

CONF_DIR = Path(__file__).resolve().parent
PROJECT_ROOT = CONF_DIR.parent
WHOLE_SWEEP = ("experiment", "launch", "space")  # groups that cannot differ between the cells of a sweep


def register_schema() -> None:
    """Make the dataclasses known to Hydra under the name that config.yaml starts from, and the text of --help."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("groups_help", _groups_help, replace=True)


def _groups_help() -> str:
    from conf.help import groups_help  # which lists groups by the functions of this file

    return groups_help()


def compose_node(overrides: Sequence[str]) -> DictConfig:
    """Compose the root configuration with Hydra overrides.

    Raises:
        RequestError: an override names an unknown key or option, or carries a value of the wrong type.
    """
    usable = check_groups(overrides)
    register_schema()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
            node = compose(config_name="config", overrides=usable)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        raise RequestError(_explain(error, overrides)) from error
    reject_unknown_keys(node)
    return node


def load_config(overrides: Sequence[str]) -> Config:
    """Compose, type and validate: what `train.py` and `sweep` start from.

    Raises:
        RequestError: as `compose_node`, and for values out of range or required keys left unset.
    """
    return to_config(compose_node(overrides))


def to_config(node: DictConfig) -> Config:
    """Turn a composed node into dataclasses and validate it.

    Raises:
        RequestError: a required key is unset, a type is wrong or a value is out of range.
    """
    try:
        config = cast(Config, OmegaConf.to_object(node))
    except MissingMandatoryValue as error:
        missing = min(OmegaConf.missing_keys(node))
        raise RequestError(f"{missing} is not set: add {missing}=VALUE") from error
    except OmegaConfBaseException as error:
        raise RequestError(_first_line(error)) from error
    validate(config)
    return config


def check_groups(overrides: Sequence[str]) -> list[str]:
    """The overrides as Hydra takes them, once every group among them has one option.

    Hydra ends with a traceback on `resolution=512` and `experiment=null`, and lets `method=[lora,text_to_image]`
    pass, which trains neither of the two.

    Raises:
        RequestError: a group is given a number, null, a list or nothing; the message lists its options.
    """
    usable: list[str] = []
    known = set(groups())
    for item in overrides:
        group = item.lstrip("+~").split("=", 1)[0].strip()
        parsed = _parse(item) if group in known else None
        if parsed is None:
            usable.append(item)
        elif group == "experiment" and (parsed.is_delete() or parsed.value() is None):
            usable = [earlier for earlier in usable if not earlier.startswith("experiment=")]
        else:
            _check_group(item, parsed, group)
            usable.append(item)
    return usable


def _parse(item: str) -> Override | None:
    """An override as Hydra reads it; None where it cannot, which `compose` then explains."""
    try:
        return OverridesParser.create().parse_override(item)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError):
        return None


def _check_group(item: str, parsed: Override, group: str) -> None:
    valid = options(group)
    if parsed.is_delete():
        raise RequestError(f"{item}: a run needs one; choose one of {', '.join(valid)}")
    if parsed.is_sweep_override():
        raise RequestError(f"{item}: must be one of {', '.join(valid)}{_as_factor(group, item)}")
    value = parsed.value()
    if isinstance(value, list):
        raise RequestError(f"{item}: must be one of {', '.join(valid)}{_as_factor(group, item)}")
    if isinstance(value, dict) or (isinstance(value, str) and value):  # a mapping sets keys, not the option
        return
    near = [name for name in valid if re.sub(r"^\D+", "", name) == str(value)]
    near = near or difflib.get_close_matches(str(value), valid, n=1)
    remedy = f"; did you mean {near[0]}?" if near else ""
    raise RequestError(f"{item}: must be one of {', '.join(valid)}{remedy}")


def _as_factor(group: str, item: str) -> str:
    """Where several options of a group belong."""
    names = item.split("=", 1)[1].strip("[] ")
    if group in WHOLE_SWEEP or "(" in names:
        return ""
    return f"; a sweep over several is `python -m sweep run sweep.factors.{group}=[{names}]`"


def options(group: str) -> list[str]:
    """The option names of a config group, in natural order (n4 before n16)."""
    names = [path.stem for path in (CONF_DIR / group).glob("*.yaml")]
    return sorted(
        names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )


def groups() -> list[str]:
    """The names of the config groups."""
    return sorted(path.name for path in CONF_DIR.iterdir() if path.is_dir() and list(path.glob("*.yaml")))


def reject_unknown_keys(node: DictConfig) -> None:
    """Refuse keys that the schema does not have: `+data.typo=5` slips past Hydra's own check.

    Raises:
        RequestError: naming the key and the nearest valid ones.
    """
    known = set(known_keys())
    for key in _keys_of(node, Config):
        if key not in known:
            raise RequestError(f"unknown key '{key}'{did_you_mean(key, sorted(known))}")


def known_keys(schema: type[Any] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the schema; a free mapping (stopping.parameters) counts as one key."""
    keys: list[str] = []
    for item in dataclasses.fields(schema):
        name = f"{prefix}{item.name}"
        keys.append(name)
        if dataclasses.is_dataclass(item.type):
            keys.extend(known_keys(cast(type[Any], item.type), f"{name}."))
    return keys


def _keys_of(node: DictConfig, schema: type[Any], prefix: str = "") -> list[str]:
    """Dotted keys present in a composed node, descending only where the schema has a dataclass."""
    types = {item.name: item.type for item in dataclasses.fields(schema)}
    keys: list[str] = []
    for raw in node:
        name = str(raw)
        keys.append(f"{prefix}{name}")
        child_type = types.get(name)
        if (
            child_type is not None
            and dataclasses.is_dataclass(child_type)
            and not OmegaConf.is_missing(node, name)
        ):
            child = node[name]
            if isinstance(child, DictConfig):
                keys.extend(_keys_of(child, cast(type[Any], child_type), f"{prefix}{name}."))
    return keys


def did_you_mean(word: str, valid: Sequence[str]) -> str:
    """The end of a complaint about a name: the nearest valid ones, else where to look."""
    near = difflib.get_close_matches(word, valid, n=3, cutoff=0.5)
    if not near and "." in word:
        parent = word.rsplit(".", 1)[0]
        near = [key for key in valid if key.startswith(f"{parent}.")][:6]
    if near:
        return f": did you mean {' or '.join(near)}?"
    return f": valid keys start with {', '.join(dict.fromkeys(key.split('.')[0] for key in valid))}"


def _keys_in(key: str) -> list[str]:
    """The keys that one key holds; none where it is a plain value."""
    return [name for name in known_keys() if name.startswith(f"{key}.")]


def _first_line(error: Exception) -> str:
    """An OmegaConf error as one line: its message, then the full key it is about."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    text = lines[0] if lines else type(error).__name__
    return f"{key}: {text}" if key and key not in text else text


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Say in one line which override is wrong and what would be right."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(cast(Exception, chain[-1].__cause__))
    text = "\n".join(str(item) for item in chain)
    option = re.search(r"Could not find '([^'/]+)/([^']+)'", text)
    if option:
        group, name = option.groups()
        return f"{group}={name}: there is no such option; valid are {', '.join(options(group))}"
    full = re.search(r"full_key: (\S+)", text)
    group_match = re.search(r"Could not override '([^']+)'", text)
    if re.search(r"Key '[^']+' (is )?not in ", text) or "No match in the defaults list" in text:
        key = full.group(1) if full else (group_match.group(1) if group_match else "")
        return f"unknown key '{key}'{did_you_mean(key, sorted({*known_keys(), *groups()}))}"
    if full and "Invalid type assigned" in text and (inner := _keys_in(full.group(1))):
        item = next(
            (item for item in overrides if item.lstrip("+~").startswith(f"{full.group(1)}=")), full.group(1)
        )
        return f"{item}: holds several keys; set one of {', '.join(inner)}"
    line = _first_line(chain[-1])
    culprit = next(
        (item for item in overrides if full and item.lstrip("+~").startswith(full.group(1) + "=")), None
    )
    if culprit is None:
        culprit = next(
            (item for item in overrides if item in text or item == getattr(error, "override", "")), None
        )
    hint = (
        " (quote a value that holds commas, brackets or equals signs: \"key='a=b'\")" if full is None else ""
    )
    return f"{culprit}: {line}{hint}" if culprit and culprit not in line else f"{line}{hint}"
