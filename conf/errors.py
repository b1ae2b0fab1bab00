"""The two ways a command fails, and the exit status of each."""

from collections.abc import Callable
import sys


class RequestError(Exception):
    """What was asked for is wrong: exit status 2. The message names key, value, valid choices and the remedy."""


class WorkError(Exception):
    """What was asked for is right, yet the work failed: exit status 1. The message says what to do."""


def exit_status(command: Callable[[], int]) -> int:
    """Run a command and turn its failures into one line on standard error and an exit status."""
    try:
        return command()
    except RequestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except WorkError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
