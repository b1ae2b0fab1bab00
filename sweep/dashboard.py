"""optuna-dashboard on a study: it reads the journal while the sweep goes on, and never writes into it."""

from collections.abc import Callable, Iterable
import importlib.util
import json
from typing import Any, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, make_server

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from conf.errors import RequestError
from sweep.record import StudyFolder

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class ReadOnlyJournal(JournalFileBackend):
    """A journal of which every entry can be read and none written."""

    def append_logs(self, logs: list[dict[str, Any]]) -> NoReturn:
        raise PermissionError("a study is only watched here")


class _Quiet(WSGIRequestHandler):
    """Without a line a request."""

    def log_message(self, format: str, *args: Any) -> None:
        return None


def serve(folder: StudyFolder, port: int) -> int:
    """Serve the dashboard on this machine until Ctrl-C; port 0 takes a free one.

    Raises:
        RequestError: the extra is not installed, the study has no journal, or the port is taken.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise RequestError(
            "dashboard: optuna-dashboard is not installed: pip install 'stepbudget[dashboard]'"
        )
    if not folder.journal.is_file():
        raise RequestError(
            f"study={folder.name}: has no {folder.journal.name} yet: start it with python -m sweep run"
        )
    try:
        server = make_server("127.0.0.1", port, read_only(make_application(folder)), handler_class=_Quiet)
    except OSError as error:
        raise RequestError(
            f"--port {port}: {error.strerror}: take another, for example --port {port + 1}"
        ) from error
    with server:
        print(f"http://127.0.0.1:{server.server_port}/dashboard shows {folder.name}; Ctrl-C ends", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def make_application(folder: StudyFolder) -> Application:
    """The dashboard on a study's journal."""
    from optuna_dashboard import wsgi

    application: Application = wsgi(JournalStorage(ReadOnlyJournal(str(folder.journal))))
    return application


def read_only(application: Application) -> Application:
    """An application that only answers questions: notes, deletions and new studies are refused."""

    def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environment, start)
        start("405 Method Not Allowed", [("Content-Type", "application/json")])
        return [json.dumps({"reason": "the study is only watched here: nothing is written into it"}).encode()]

    return answer
