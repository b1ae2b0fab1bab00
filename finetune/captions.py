"""The caption of an image: where it is written, and what the captions axis makes of it."""

import re

from conf.schema import Captions
from finetune.encoding import decode_caption
from finetune.folder import ListedImage
from finetune.names import is_text

ENCODER_WORDS = 75  # tokens of a caption that Stable Diffusion's text encoders read; a word is one or more


class MissingCaption(ValueError):
    """Nothing says what an image shows."""


def caption_for(image: ListedImage, captions: Captions) -> str:
    """What an image trains with, its white space collapsed.

    Raises:
        ValueError: its caption is missing, empty or not decodable.
    """
    if captions.source in ("instance", "class"):
        text = (captions.text or "").replace("{token}", captions.token)
        return text.replace("{class_word}", captions.class_word or "")
    caption = written_caption(image, captions.encoding)
    return first_phrase(caption, captions.words) if captions.source == "short" else caption


def written_caption(image: ListedImage, encoding: str = "auto") -> str:
    """The caption in metadata.jsonl, else in the .txt file beside the image, else its repeat folder's name.

    Raises:
        MissingCaption: there is none.
        ValueError: it is empty or cannot be decoded.
    """
    if image.row_caption is not None:
        return _collapsed(image.row_caption, "in metadata.jsonl")
    file = image.path.with_suffix(".txt")
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        if image.folder_caption:
            return _collapsed(image.folder_caption, "in its folder's name")
        raise MissingCaption(
            "has no caption: write a .txt file of the same name, or use captions=instance captions.text='...'"
        ) from None
    except OSError as error:
        raise ValueError(f"has a caption file that cannot be read ({error.strerror})") from error
    try:
        text = decode_caption(data, encoding)
    except ValueError as error:
        raise ValueError(f"has a caption file that cannot be read: it {error}") from error
    return _collapsed(text, "in its .txt file")


def first_phrase(caption: str, words: int) -> str:
    """The first phrase that says something, up to a comma or the end of a sentence, and at most so many words."""
    phrases = re.split(r"[,;，。；！？、]|[.!?]+(?=\s|$)", caption)
    phrase = next((item for item in phrases if item.strip()), caption)
    return " ".join(phrase.split()[:words])


def long_caption_note(lengths: dict[str, int]) -> list[str]:
    """One note on the captions, by name and number of words, whose end no text encoder reads."""
    long = {name: words for name, words in lengths.items() if words > ENCODER_WORDS}
    if not long:
        return []
    longest = max(long, key=lambda name: long[name])
    return [
        f"{len(long)} captions are longer than the {ENCODER_WORDS} words that a text encoder reads at most "
        f"(the longest, of {longest}, has {long[longest]:,}): their end has no effect"
    ]


def _collapsed(text: str, where: str) -> str:
    caption = " ".join(text.split())
    if not caption:
        raise ValueError(f"has a caption {where} that is empty")
    if not is_text(caption):
        raise ValueError(f"has a caption {where} with characters that are no text (lone surrogates)")
    return caption
