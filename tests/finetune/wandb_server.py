"""As much of Weights and Biases' server as a run needs to start and to log; run as a program it is one such run."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
from pathlib import Path
import sys
import threading


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers["Content-Length"]))
        variables = json.loads(request).get("variables", {}) if self.path == "/graphql" else {}
        project = {"id": "1", "name": "p", "entity": {"id": "1", "name": "e"}}
        bucket = {"id": "2", "name": variables.get("name", "n"), "displayName": "n", "config": "{}"}
        found = {
            "model": {**project, "bucket": None},
            "upsertBucket": {
                "bucket": {**bucket, "historyLineCount": 0, "project": project},
                "inserted": True,
            },
            "createRunFiles": {"runID": "2", "uploadHeaders": [], "files": []},
        }
        answer = json.dumps({"data": found}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


class Server:
    """On a port of its own, until it goes away."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def go_away(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def log_three_points(folder: Path, finish_s: float) -> None:
    """A run that logs two points, a third after a line of input, and then finishes."""
    from conf.schema import Tracker
    from curves.point import Point
    from finetune import tracking

    tracking.FINISH_S = finish_s
    tracker = tracking.start_tracking(Tracker("wandb", "online"), folder, {}, "s", resumed=False)
    for step in (0, 4):
        tracker.log_point(Point(step, val_loss=1 - step / 100))
    print("logged", flush=True)
    sys.stdin.readline()
    tracker.log_point(Point(8, val_loss=0.92))
    tracker.finish("complete")
    print("over", flush=True)


if __name__ == "__main__":
    log_three_points(Path(sys.argv[1]), float(sys.argv[2]))
