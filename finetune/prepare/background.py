"""Everything but the subject turned white: by the image's own alpha channel, or by a model that rembg runs."""

from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from conf.errors import RequestError, WorkError
from finetune.images import on_white
from finetune.names import shown

LEAST_ALPHA = 128  # of 255, at the clearest place of a subject


class Session(Protocol):
    """What rembg calls a session: a loaded model."""

    def predict(self, img: Image.Image) -> list[Image.Image]:
        """Masks of the subject in grey, of the image's size; the first is the main one."""


def require_rembg() -> None:
    """Raises RequestError where rembg, or the runtime that it ends the process without, is not installed."""
    missing = [name for name in ("rembg", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise RequestError(
            f"--background=remove: needs {' and '.join(missing)}: pip install 'stepbudget[background]'; "
            f"or --background keep"
        )


def has_own_background(image: Image.Image) -> bool:
    """Whether an image says itself what is background: some of it is transparent."""
    if image.mode != "RGBA":
        return False
    low, _ = image.getchannel("A").getextrema()
    return isinstance(low, int) and low < 255


def cut_out(image: Image.Image, session: Session) -> Image.Image:
    """The subject on white, as RGB.

    Args:
        image: RGB, or RGBA without transparency.
        session: the model.

    Raises:
        ValueError: the model sees no subject.
        WorkError: it cannot be used on images.
    """
    picture = image.convert("RGB")
    try:
        with np.errstate(all="ignore"):  # rembg divides by the contrast of a mask, which may have none
            mask = session.predict(picture)[0].convert("L")
    except Exception as error:  # onnxruntime has exceptions of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise WorkError(
            f"the background model failed ({reason}); is it one of rembg's? "
            f"Give another with --background-model"
        ) from error
    _, most = mask.getextrema()
    if not isinstance(most, int) or most < LEAST_ALPHA:
        raise ValueError("has no subject that the background model sees: cut it out by hand, or leave it out")
    picture.putalpha(mask)
    return on_white(picture)


def load_session(model: Path | None) -> Session:
    """A model file, run as rembg runs its own model of that name and else as U2-Net; None for rembg's default.

    Raises:
        RequestError: the file is no such model.
        WorkError: the default model cannot be downloaded.
    """
    require_rembg()
    import rembg

    try:
        return _given(model) if model is not None else rembg.new_session()
    except Exception as error:  # of onnxruntime, of the download
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if model is not None:
            raise RequestError(
                f"--background-model={shown(model)}: cannot be loaded ({reason}); give an ONNX file of a model "
                f"that rembg supports, such as u2net.onnx"
            ) from error
        raise WorkError(
            f"rembg's default model cannot be had ({reason}); download a model and give it with --background-model"
        ) from error


def _given(model: Path) -> Session:
    """rembg looks for models in its own folder only; a session class of its own name reads this file instead."""
    import onnxruntime
    from rembg.sessions import sessions
    from rembg.sessions.u2net import U2netSession

    kind = sessions.get(model.stem, U2netSession)
    # Of newer versions some send the image to a service, whatever file there is.
    if not getattr(kind, "is_local", lambda: True)():
        kind = U2netSession

    class GivenModel(kind):  # type: ignore[misc, valid-type]
        @classmethod
        def download_models(cls, *args: object, **kwargs: object) -> str:
            return str(model)

    session: Session = GivenModel(model.stem, onnxruntime.SessionOptions())
    return session
