"""Peers that take some lines of Python: `python -P -m ci.bench.peers pool|webpdf|one-language …`.

`pool` executes the notebooks of a folder through Papermill's API, in a pool of processes that have
imported Papermill once. `one-language` leaves the prose of others out, as a handout of ours does.
`webpdf` is nbconvert's exporter with the system's Chromium; the command alone would take only a
browser that Playwright has downloaded.
"""

import json
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partialmethod
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode


def pool(jobs: str, request: str) -> None:
    """Execute each notebook of the JSON file `request` with its parameters, `jobs` at once.

    The result of `a.ipynb` goes into `out/a.ipynb`.
    """
    import papermill

    named: dict[str, dict[str, Any]] = json.loads(Path(request).read_text(encoding="utf-8"))
    Path("out").mkdir()
    # Forked: the import above is paid for once.
    with ProcessPoolExecutor(int(jobs), mp_context=get_context("fork")) as workers:
        doing = [
            workers.submit(
                papermill.execute_notebook, name, f"out/{name}", values, progress_bar=False
            )
            for name, values in named.items()
        ]
        for done in doing:
            done.result()


def one_language(executed: str, language: str, target: str) -> None:
    """Write a notebook without the prose of other languages."""
    notebook = nbformat.read(executed, as_version=4)
    cells = [c for c in notebook.cells if c.metadata.get("lang", language) == language]
    nbformat.write(NotebookNode({**notebook, "cells": cells}), target)


def webpdf(notebook: str) -> None:
    """Print a notebook by the system's Chromium."""
    from nbconvert.exporters import WebPDFExporter
    from playwright.async_api import BrowserType

    launch = partialmethod(BrowserType.launch, executable_path=shutil.which("chromium"))
    setattr(BrowserType, "launch", launch)  # noqa: B010  # a class that has types
    # As root, Chromium has no sandbox; what it opens is our own page.
    exporter = WebPDFExporter(disable_sandbox=True)
    printed: Any = exporter.from_filename(notebook)[0]
    Path(notebook).with_suffix(".pdf").write_bytes(printed)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pool", jobs, request]:
            pool(jobs, request)
        case ["one-language", executed, language, target]:
            one_language(executed, language, target)
        case ["webpdf", notebook]:
            webpdf(notebook)
