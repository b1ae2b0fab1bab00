"""What `python -m finetune.prepare` was asked to do."""

from dataclasses import dataclass
from pathlib import Path

from conf.errors import RequestError
from finetune.buckets import bucket_sizes
from finetune.names import is_text, shown
from finetune.paths import hash_texts
from finetune.prepare.background import require_rembg

RECIPE = "1"  # changes when the same options come to give other pixels or captions
MOST_SIZE = 4096


@dataclass(frozen=True)
class Options:
    """The request. Sizes are pixels.

    Attributes:
        source, to: folders.
        size: side of the square, or of the square with a bucket's area; of the shorter side with square=none;
            None keeps sizes.
        square: none, crop, pad, bucket.
        background: keep, remove.
        background_model: an ONNX file; None for rembg's own default.
        captions: keep, write, none.
        captioner: folder or hub id of the model that writes captions.
        prefix, suffix: put around every caption.
        special_words: words that every caption must have.
        encoding: of caption files, or auto.
        duplicates: report, drop, keep.
    """

    source: Path
    to: Path
    size: int | None = None
    square: str = "none"
    background: str = "keep"
    background_model: Path | None = None
    captions: str = "keep"
    captioner: str = "Salesforce/blip-image-captioning-base"
    prefix: str = ""
    suffix: str = ""
    special_words: tuple[str, ...] = ()
    encoding: str = "auto"
    duplicates: str = "report"

    def check(self) -> None:
        """Refuse what cannot be done, before anything is read or written.

        Raises:
            RequestError: names the option, its value and the remedy.
        """
        if not self.source.is_dir():
            problem = "is a file, not a folder" if self.source.exists() else "no such folder"
            raise RequestError(f"SOURCE={shown(self.source)}: {problem}; give a folder of images")
        if self.to.exists() and not self.to.is_dir():
            raise RequestError(f"--to={shown(self.to)}: is a file; name a folder")
        if self.to.resolve() == self.source.resolve():
            raise RequestError(
                f"--to={shown(self.to)}: is SOURCE itself, which stays as it is; name another folder"
            )
        self._check_size()
        self._check_texts()
        if self.background == "remove":
            require_rembg()
        if self.background_model is not None:
            if self.background != "remove":
                raise RequestError("--background-model: has no use without --background remove")
            if not self.background_model.is_file():
                raise RequestError(f"--background-model={shown(self.background_model)}: no such file")

    def _check_size(self) -> None:
        if self.size is not None and not 16 <= self.size <= MOST_SIZE:
            raise RequestError(f"--size={self.size}: must be 16 to {MOST_SIZE} pixels, such as 512")
        if self.square == "bucket":
            if self.size is None:
                raise RequestError("--square=bucket: needs --size, such as 512")
            try:
                bucket_sizes(self.size)
            except ValueError as error:
                raise RequestError(f"--size={self.size}: {error}; use 64 or more") from error

    def _check_texts(self) -> None:
        for name, text in (
            ("--caption-prefix", self.prefix),
            ("--caption-suffix", self.suffix),
            *(("--special-words", word) for word in self.special_words),
        ):
            if not is_text(text):
                raise RequestError(f"{name}={text!a}: is not UTF-8")
            if text and self.captions == "none":
                raise RequestError(f"{name}={text}: has no use with --captions none")
        if self.encoding != "auto":
            try:
                "".encode(self.encoding)
            except (LookupError, ValueError) as error:
                raise RequestError(
                    f"--encoding={self.encoding}: must be auto, utf-8, gbk or another that Python knows"
                ) from error

    def fingerprint(self) -> str:
        """Of all that decides what one image becomes, apart from its file and its caption."""
        model = ""
        if self.background_model is not None:
            stat = self.background_model.stat()
            model = f"{str(self.background_model.resolve())!a} {stat.st_size} {stat.st_mtime_ns}"
        return hash_texts(
            RECIPE,
            str(self.size),
            self.square,
            self.background,
            model,
            self.captions,
            ascii(self.captioner) if self.captions == "write" else "",
            self.prefix,
            self.suffix,
            *self.special_words,
        )
