"""One run: `python train.py [overrides]`, also under `accelerate launch`; `--help` lists the options."""

import sys

import hydra
from omegaconf import DictConfig

from conf.compose import check_groups, load_config, register_schema, to_config
from conf.errors import RequestError, exit_status
from conf.schema import Config
from finetune.interruption import Interruption
from finetune.plan import make_plan
from finetune.run_record import claim, pinned_folder
from finetune.status import RunStatus


def run(overrides: list[str], config: Config | None = None) -> int:
    """Do one run.

    Args:
        overrides: of the command line.
        config: where Hydra has composed it already.

    Raises:
        RequestError: what was asked for is wrong.
        WorkError: the run failed.
    """
    interruption, status = Interruption(), RunStatus()
    interruption.watch()
    with status.recording_failures():
        folder = pinned_folder(overrides)
        if folder is not None:
            claim(folder, status)
        plan = make_plan(config or load_config(overrides), overrides)
        # Here, since importing torch takes seconds that a wrong request should not have to wait for.
        from finetune.loop import train

        return train(plan, status, interruption)


def run_under_hydra() -> int:
    """Hydra's own flags: --help, --cfg, --info, --multirun, completion. Its complaints get exit status 2."""
    statuses: list[int] = []
    if not {"-m", "--multirun"} & set(sys.argv):  # there several options of a group are meant
        check_groups([item for item in sys.argv[1:] if "=" in item and not item.startswith("-")])

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def main(node: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        overrides = list(HydraConfig.get().overrides.task)
        statuses.append(exit_status(lambda: run(overrides, to_config(node))))

    register_schema()
    try:
        main()
    except SystemExit as error:
        if not error.code:
            return 0
        raise RequestError("the request was wrong, as said above") from error
    return max(statuses, default=0)


if __name__ == "__main__":
    flags = any(item.startswith("-") for item in sys.argv[1:])
    try:
        sys.exit(exit_status(run_under_hydra if flags else lambda: run(sys.argv[1:])))
    except BrokenPipeError:  # `train.py --help | head`
        sys.exit(1)
