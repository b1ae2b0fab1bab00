#!/bin/sh
# A trainer that obeys the run folder's contract and ends at once: what a sweep of many takes is then the supervisor's.
# It notes what its parent has computed so far (Linux), which other work on the machine does not change.
cd "$STEPBUDGET_RUN_DIR" || exit 1
if [ -r "/proc/$PPID/stat" ]; then
    read -r parent < "/proc/$PPID/stat"
    printf '%s\n' "$parent" > supervisor.stat
fi
loss="0.$((1000 + (STEPBUDGET_TRIAL * 7919) % 8999))"
printf '{"step": 0, "images_seen": 0, "val_loss": 1.0}\n{"step": 64, "images_seen": 256, "val_loss": %s}\n' "$loss" > curve.jsonl
printf '{"state": "ended", "step": 64, "outcome": "complete", "reason": "", "max_steps": 64, "updated": 1.0, "pid": %s}' "$$" > status.json
