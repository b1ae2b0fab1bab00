"""A trainer that obeys the run folder's contract, trains nothing and takes a stated time.

    timed_trainer.py

Told by its environment: STEPBUDGET_RUN_DIR, STEPBUDGET_TRIAL, and DURATIONS_S, a JSON list of seconds by trial.
"""

import json
import os
from pathlib import Path
import time

start = time.time()
folder = Path(os.environ["STEPBUDGET_RUN_DIR"])
seconds = json.loads(os.environ["DURATIONS_S"])[int(os.environ["STEPBUDGET_TRIAL"])]
folder.mkdir(parents=True, exist_ok=True)
with (folder / "curve.jsonl").open("w", encoding="utf-8") as curve:
    for step, loss in ((0, 1.0), (32, 0.9), (64, 0.8)):
        curve.write(json.dumps({"step": step, "images_seen": 4 * step, "val_loss": loss}) + "\n")
time.sleep(max(0.0, start + seconds - time.time()))
ended = {"state": "ended", "step": 64, "outcome": "complete", "reason": "", "max_steps": 64}
end = time.time()
(folder / "status.json").write_text(
    json.dumps({**ended, "updated": end, "pid": os.getpid()}), encoding="utf-8"
)
(folder / "span.json").write_text(json.dumps({"start": start, "end": end}), encoding="utf-8")
