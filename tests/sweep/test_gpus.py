"""Which GPUs trials share out."""

from pathlib import Path
import stat

import pytest

from conf.compose import load_config
from conf.errors import RequestError
from sweep.gpus import find_gpus, list_gpus

TWO = {"0": "GPU-1f3a-77", "1": "GPU-2b9c-12"}
CASES = [
    ("auto", None, {}, []),
    ("auto", None, TWO, ["0", "1"]),
    ("auto", "1", TWO, ["1"]),
    ("auto", "GPU-2b9", TWO, ["GPU-2b9"]),
    ("auto", "0,2", {}, ["0", "2"]),  # without nvidia-smi it is believed
    ("cpu", "0", TWO, []),
    ("auto", "", TWO, []),
    ("auto", "-1", TWO, []),
    ("auto", "0,-1,1", TWO, ["0"]),
    ("cuda", "1, 0", TWO, ["1", "0"]),
]


@pytest.mark.parametrize(("device", "visible", "installed", "gpus"), CASES)
def test_gpus_that_are_visible(
    device: str, visible: str | None, installed: dict[str, str], gpus: list[str]
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert find_gpus(load_config([f"device={device}"]), environment, installed) == gpus


def test_own_choice_of_gpus() -> None:
    config = load_config(["launch.gpus=['1']"])
    assert find_gpus(config, {}, TWO) == ["1"]
    with pytest.raises(RequestError, match=r"launch.gpus=1: there is no such GPU \(there are 0\)"):
        find_gpus(config, {"CUDA_VISIBLE_DEVICES": "0"}, TWO)
    with pytest.raises(RequestError, match=r"none is visible.*nvidia-smi -L"):
        find_gpus(config, {}, {})


def test_gpus_that_are_not_there() -> None:
    with pytest.raises(
        RequestError, match=r"CUDA_VISIBLE_DEVICES=7: there is no such GPU \(there are 0, 1\)"
    ):
        find_gpus(load_config([]), {"CUDA_VISIBLE_DEVICES": "7"}, TWO)
    with pytest.raises(RequestError, match="device=cuda: no GPU is visible"):
        find_gpus(load_config(["device=cuda"]), {}, {})


def test_listing_of_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA X (UUID: GPU-1f)'\necho 'GPU 1: NVIDIA X (UUID: GPU-2b)'\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_gpus() == {"0": "GPU-1f", "1": "GPU-2b"}
    program.write_text("#!/bin/sh\nexit 9\n")  # a driver that has gone
    assert list_gpus() == {}
    program.unlink()
    assert list_gpus() == {}
