"""How Weights & Biases is reached: online, offline or not at all, and how long anybody waits for it."""

import os
from pathlib import Path

START_S = 15.0  # a server that has not answered by then is taken for one that is not there
FINISH_S = 60.0  # then the run, which is over, waits no longer for its upload


def resolve_mode(mode: str) -> str:
    """The wandb mode: `auto` is WANDB_MODE where it is set, else online with a login, offline without."""
    if mode != "auto":
        return mode
    stated = os.environ.get("WANDB_MODE", "")
    if stated in ("online", "offline", "disabled"):
        return stated
    return "online" if _has_login() else "offline"


def _has_login() -> bool:
    """Whether there is an API key, in the environment or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return host in netrc.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return False


def one_line(error: Exception) -> str:
    """What an error says, short enough for a message."""
    return " ".join(str(error).split())[:200] or type(error).__name__
