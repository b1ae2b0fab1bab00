"""What every test runs under: no hub, no tracker on the network, one thread."""

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples in every run: a test that fails for some of them has to fail for everybody.
settings.register_profile("stepbudget", derandomize=True, database=None)
settings.load_profile("stepbudget")
