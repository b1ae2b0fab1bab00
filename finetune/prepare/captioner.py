"""Captions written by a model of BLIP's kind: an image goes in, one sentence comes out. Owns torch here."""

from collections.abc import Callable

from PIL import Image

from conf.errors import RequestError, WorkError

MOST_TOKENS = 40  # of a caption; captions of photos have 8 to 15 words

Describe = Callable[[Image.Image], str]


def load_captioner(name: str) -> Describe:
    """A function from an RGB image to its caption, always the same for the same image.

    Args:
        name: folder, or model hub id, of a model that transformers maps from image (and text) to text.

    Raises:
        RequestError: there is no such model, or it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        processor = AutoProcessor.from_pretrained(name)
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=torch.float32).eval()
    except Exception as error:  # transformers raises anything from OSError to KeyError on what it cannot load
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise RequestError(
            f"--captioner={name}: cannot be loaded ({reason}); give the folder or the hub id of a BLIP model, "
            f"such as Salesforce/blip-image-captioning-base"
        ) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)

    def describe(image: Image.Image) -> str:
        try:
            inputs = processor(images=image, return_tensors="pt").to(device)
            # One image at a time and no sampling: a caption does not depend on which images are done together.
            with torch.inference_mode():
                tokens = model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
            caption: str = processor.batch_decode(tokens, skip_special_tokens=True)[0]
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise WorkError(
                f"the captioner {name} failed ({reason}); give a model of BLIP's kind with --captioner"
            ) from error
        return " ".join(caption.split())

    return describe
