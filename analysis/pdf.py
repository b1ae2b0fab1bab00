"""A page as PDF, for those who hand it on: the same html, laid out on A4 by WeasyPrint with the rules for print."""

from __future__ import annotations

from importlib.util import find_spec
import os
from pathlib import Path

from conf.errors import RequestError, WorkError

PANGO = "apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0, or brew install pango"


def check_pdf() -> None:
    """Find WeasyPrint without loading it, before the work that a PDF is made of.

    Raises:
        RequestError: it is not installed.
    """
    if find_spec("weasyprint") is None:
        raise RequestError(
            "--pdf: needs weasyprint, which is not installed; pip install 'stepbudget[pdf]', or print the html page "
            "from a browser"
        )


def write_pdf(page: Path) -> Path:
    """Write page.pdf beside page.html; returns its path.

    Raises:
        WorkError: WeasyPrint does not find the library that lays text out, or the file cannot be written.
    """
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except OSError as error:
        said = str(error).splitlines()[0]
        raise WorkError(f"--pdf: weasyprint does not find the library Pango ({said}): {PANGO}") from error

    target = page.with_suffix(".pdf")
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        # The page is self-contained: whatever else it might ask for is not fetched.
        text = page.read_text(encoding="utf-8")
        HTML(string=text, url_fetcher=URLFetcher(allowed_protocols=["data"])).write_pdf(partial)
        partial.replace(target)
    except OSError as error:
        raise WorkError(f"{target}: cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return target
