"""The ways a command fails, and the exit status of each."""

from collections.abc import Callable
import contextlib
import errno
import sys

from conf.secrets import redact_text


class RequestError(Exception):
    """What was asked for is wrong: exit status 2. The message names key, value, valid choices and the remedy."""


class WorkError(Exception):
    """What was asked for is right, yet the work failed: exit status 1. The message says what to do."""


def exit_status(command: Callable[[], int]) -> int:
    """Run a command and turn its failures into one line on standard error and an exit status.

    Raises:
        BrokenPipeError: nobody reads standard output any more.
    """
    try:
        return command()
    except RequestError as error:
        _say(f"error: {error}")
        return 2
    except WorkError as error:
        _say(f"failed: {error}")
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        _say(f"failed: {explain_os_error(error)}, then run the same command again")
        return 1


def explain_os_error(error: OSError, place: object = None) -> str:
    """What went wrong where, and what to do about it; `place` where the error names no file."""
    remedies = {
        errno.ENOSPC: "free space",
        errno.EDQUOT: "free space",
        errno.EMFILE: "allow more open files (ulimit -n)",
        errno.EACCES: "make it accessible",
        errno.EPERM: "make it accessible",
        errno.EROFS: "make it writable",
    }
    where = error.filename if error.filename is not None else place
    reason = error.strerror or str(error) or type(error).__name__
    problem = reason if where is None else f"{where}: {reason}"
    return f"{problem}: {remedies.get(error.errno or 0, 'mend that')}"


def _say(text: str) -> None:
    """One line on standard error, which may be gone with its terminal."""
    with contextlib.suppress(OSError):
        print(redact_text(text), file=sys.stderr)
