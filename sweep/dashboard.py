"""optuna-dashboard on a study: it reads the study's storage while the sweep goes on, and never writes into it."""

from collections.abc import Callable, Iterable
import importlib.util
import json
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from conf.errors import RequestError
from sweep.record import StudyFolder
from sweep.storage import open_to_watch

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Quiet(WSGIRequestHandler):
    """Without a line a request."""

    def log_message(self, format: str, *args: Any) -> None:
        return None


def serve(folder: StudyFolder, url: str | None, port: int) -> int:
    """Serve the dashboard on this machine until Ctrl-C.

    Args:
        url: of the database that holds the study; None: its journal.
        port: 0 takes a free one.

    Raises:
        RequestError: the extra is not installed, the study has no storage, or the port is taken.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise RequestError(
            "dashboard: optuna-dashboard is not installed: pip install 'stepbudget[dashboard]'"
        )
    from optuna_dashboard import wsgi

    application = read_only(wsgi(open_to_watch(url, folder.journal)))
    try:
        server = make_server("127.0.0.1", port, application, handler_class=_Quiet)
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


def read_only(application: Application) -> Application:
    """An application that only answers questions: notes, deletions and new studies are refused."""

    def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environment, start)
        start("405 Method Not Allowed", [("Content-Type", "application/json")])
        return [json.dumps({"reason": "the study is only watched here: nothing is written into it"}).encode()]

    return answer
