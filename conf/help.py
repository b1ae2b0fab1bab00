"""The text of `train.py --help`: each config group with its default, what it decides, and its options."""

import yaml

from conf.compose import CONF_DIR, groups, options

PURPOSES = {  # in the order in which they matter
    "dataset": "the folder of images and captions",
    "dataset_size": "how many images train",
    "resolution": "size of the training images",
    "method": "what trains",
    "base_model": "what is fine-tuned",
    "captions": "what the images are said to show",
    "optimizer": "how weights are updated",
    "memory": "what is traded for memory or speed",
    "budget": "how many steps, and who decides it",
    "stopping": "the rule that ends a run early",
    "tracker": "where else curves and samples go",
    "experiment": "a whole set of choices by name, mostly for a sweep",
    "space": "what a sweep searches inside of a cell",
    "launch": "how a sweep starts its trials",
}


def groups_help() -> str:
    """One line a group."""
    chosen = {f"{group}={default}": group for group, default in _defaults().items()}
    width = max(map(len, chosen))
    return "\n".join(
        f"  {name:<{width}}  {PURPOSES[group]}: {', '.join(options(group))}" for name, group in chosen.items()
    )


def _defaults() -> dict[str, str]:
    """Every group with the option that config.yaml takes, `null` for none; what is listed above comes first."""
    entries = yaml.safe_load((CONF_DIR / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    taken = {group: option for entry in entries if isinstance(entry, dict) for group, option in entry.items()}
    ordered = sorted(groups(), key=list(PURPOSES).index)
    return {group: taken[group] or "null" for group in ordered}
