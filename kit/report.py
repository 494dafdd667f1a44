"""An executed notebook as one HTML file that needs nothing else: no network, no script, no second file."""

from __future__ import annotations

import html
import re
from importlib import resources
from pathlib import Path

from kit.errors import StoreError
from kit.files import write_atomic

_WIDGET = "application/vnd.jupyter.widget-view+json"
_SHOWN = {"text/html", "text/markdown", "text/plain", "image/png", "image/jpeg", "image/svg+xml"}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
<footer>Written from the executed notebook {name}.</footer>
</body>
</html>
"""
_SCRIPT = re.compile(r"<script\b.*?(?:</script\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[a-z][^>]*>", re.IGNORECASE)
_STYLE = re.compile(r"<style\b.*?</style\s*>", re.IGNORECASE | re.DOTALL)
_OUTSIDE = re.compile(r"""(?:\b(?:src|srcset|data|poster)\s*=|url\(|@import)\s*["']?\s*(?:https?:)?//""", re.IGNORECASE)
_LINK = re.compile(r"<(?:link|iframe|object|embed)\b", re.IGNORECASE)


def write_report(notebook: Path, report: Path) -> None:
    """The notebook's text and results, without its code. Raises StoreError, and then writes nothing."""
    import nbformat
    from nbconvert import HTMLExporter

    try:
        book = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        raise StoreError(f"no notebook at {notebook}", remedy="run the stage first") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{notebook} cannot be read as a notebook: {error}", remedy="run the stage again") from error
    _keep_what_stands_alone(book)
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True,
        embed_images=True)
    body, _ = exporter.from_notebook_node(book, {"metadata": {"path": str(notebook.parent)}})
    body = _SCRIPT.sub("", body)
    if found := outside_resources(body):
        raise StoreError(f"{notebook} shows something from elsewhere: {found[0]}",
                         remedy="keep the picture beside the notebook, so that it goes into the report")
    style = resources.files("kit").joinpath("report.css").read_text()
    write_atomic(report, _PAGE.format(title=html.escape(_title(book, notebook)), style=style, body=body,
                                      name=html.escape(notebook.name)))


def outside_resources(page: str) -> list[str]:
    """The tags and styles for which a browser would fetch something. Links in the text are none."""
    candidates = [match.group() for pattern in (_TAG, _STYLE) for match in pattern.finditer(page)]
    return [text[:200] for text in candidates if _OUTSIDE.search(text) or _LINK.match(text)]


def _keep_what_stands_alone(book: object) -> None:
    """Drop widget views and scripts: both need a running notebook."""
    getattr(book, "metadata", {}).pop("widgets", None)
    for cell in getattr(book, "cells", ()):
        kept = []
        for output in cell.get("outputs", ()):
            data = output.get("data")
            if data is None:
                kept.append(output)
                continue
            if _WIDGET in data:
                continue                  # its text is only the widget's own representation
            output["data"] = {kind: value for kind, value in data.items() if kind in _SHOWN}
            if output["data"]:
                kept.append(output)
        if "outputs" in cell:
            cell["outputs"] = kept


def _title(book: object, notebook: Path) -> str:
    """The first heading, else the file's name."""
    for cell in getattr(book, "cells", ()):
        if cell.cell_type == "markdown" and (found := re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)):
            return str(found.group(1)).strip()
    return notebook.stem
