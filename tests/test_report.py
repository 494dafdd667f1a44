"""A report stands alone: nothing in it is fetched from elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kit.errors import StoreError
from kit.report import outside_resources, write_report

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "HBox(children=())"}


def notebook(folder: Path, *data: dict[str, Any], text: str = "# Title <b>") -> Path:
    outputs = [new_output("display_data", data=bundle) for bundle in data]
    book = new_notebook(cells=[new_markdown_cell(text), new_code_cell("secret_source = 1", outputs=outputs)])
    path = folder / "notebook.ipynb"
    nbformat.write(book, path)
    return path


def test_a_report_stands_alone(tmp_path: Path) -> None:
    table = "<table><tr><td>42</td></tr></table><script src='https://example.com/x.js'>evil()</script>"
    made = notebook(tmp_path, {"image/png": PIXEL, "text/plain": "<Figure>"}, {"text/html": table}, WIDGET,
                    {"application/javascript": "require(['x'])", "text/plain": "js"},
                    text="# Title <b>\n\n[a link](https://example.com) and $x^2$")
    report = tmp_path / "report.html"
    write_report(made, report)
    page = report.read_text()
    assert outside_resources(page) == []
    assert "<script" not in page.lower()
    assert f"data:image/png;base64,{PIXEL}" in page
    assert "<td>42</td>" in page
    assert "secret_source" not in page
    assert "HBox" not in page
    assert "<title>Title &lt;b&gt;</title>" in page
    assert 'href="https://example.com"' in page     # a link to follow is no resource
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("shown", [
    "<img src='https://example.com/a.png'>", '<img src="//example.com/a.png">', "<iframe src='x.html'></iframe>",
    "<link rel=stylesheet href=x.css>", "<style>@import 'https://example.com/a.css';</style>",
    "<p style='background: url(http://example.com/a.png)'>"])
def test_what_comes_from_elsewhere_is_refused(tmp_path: Path, shown: str) -> None:
    report = tmp_path / "report.html"
    with pytest.raises(StoreError, match="from elsewhere"):
        write_report(notebook(tmp_path, {"text/html": shown}), report)
    assert not report.exists()


def test_a_missing_or_broken_notebook_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no notebook"):
        write_report(tmp_path / "absent.ipynb", tmp_path / "report.html")
    (tmp_path / "half.ipynb").write_text('{"cells": [')
    with pytest.raises(StoreError, match="cannot be read"):
        write_report(tmp_path / "half.ipynb", tmp_path / "report.html")
