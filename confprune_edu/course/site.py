"""The executed course as a static site: a page and a deck of slides for each notebook, and an index of them.

The pages hold their figures and styles. Formulas are typeset by MathJax, decks are turned by reveal.js; browsers fetch
both from the network. Without it formulas show as LaTeX source, and the slides of a deck stand one below the other.
"""

import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from nbconvert import HTMLExporter, SlidesExporter
from nbconvert.preprocessors import Preprocessor

from confprune_edu.course.notebooks import Refused, code_cells, course_notebooks, read_notebook, title_and_run_time

INDEX = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Confident pruning: the course</title>
<style>
body {{ font-family: sans-serif; line-height: 1.6; max-width: 45em; margin: 2em auto; padding: 0 1em; }}
ul {{ list-style: none; padding: 0; }}
li {{ margin-bottom: 1em; }}
</style>
<h1>Confident pruning</h1>
<p>How many weights of a trained network may be set to zero, with a guarantee?</p>
<ul>{entries}</ul>
<p>The pages can be read offline, with formulas as LaTeX source: MathJax, which typesets them, and reveal.js, which
turns the slides, come from the network.</p>
"""
ENTRY = '<li><a href="{link}.html">{title}</a><br>{run_time}<a href="{link}.slides.html">slides of {name}</a></li>'


class LinkedPages(Preprocessor):
    """Links between notebooks lead to their pages."""

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> Any:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"(\]\([\w-]+)\.ipynb\b", r"\1.html", cell.source)
        return cell, resources


class HeadingsStartSlides(Preprocessor):
    """A slide begins at each heading; within it, below the first, one at each cell that shows a figure."""

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> Any:
        heading = re.match("#+ ", cell.source) if cell.cell_type == "markdown" else None
        figure = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        kind = "-"
        if index == 0 or (heading and len(heading[0]) <= len("## ")):
            kind = "slide"
        elif heading or figure:
            kind = "subslide"
        cell.metadata["slideshow"] = {"slide_type": kind}
        return cell, resources


def build(folder: Path, out: Path) -> list[Path]:
    """Write the site of the notebooks in `folder` into `out`; the paths of its pages, the index first.

    Raises
    ------
    Refused
        A notebook has not been executed, or failed: its page would lack figures.
    """
    notebooks = {path: read_notebook(path) for path in course_notebooks(folder)}
    for path, notebook in notebooks.items():
        refuse_unexecuted(path, notebook)
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    for path, notebook in notebooks.items():
        (out / f"{path.stem}.html").write_text(page(notebook, path.stem), encoding="utf-8")
        (out / f"{path.stem}.slides.html").write_text(slides(notebook, path.stem), encoding="utf-8")
        name, title, run_time = (html.escape(text) for text in (path.stem, *title_and_run_time(notebook)))
        run_time = f"runs in {run_time}; " if run_time else ""
        entries.append(ENTRY.format(link=quote(path.stem), name=name, title=title, run_time=run_time))
    (out / "index.html").write_text(INDEX.format(entries="\n".join(entries)), encoding="utf-8")
    return [out / "index.html", *(out / f"{path.stem}{end}" for path in notebooks for end in (".html", ".slides.html"))]


def refuse_unexecuted(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Raise `Refused` if a code cell was not run, or ended in an error."""
    cells = code_cells(notebook)
    failed = [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    if failed or any(cell.execution_count is None for cell in cells):
        what = "failed" if failed else "has not been executed"
        raise Refused(f"{path} {what}; run it first: confprune run, then confprune html --source executed")


def page(notebook: nbformat.NotebookNode, name: str) -> str:
    """A notebook as an HTML page that holds its figures."""
    return convert(HTMLExporter(), notebook, name)


def slides(notebook: nbformat.NotebookNode, name: str) -> str:
    """A notebook as a deck of slides, which scroll where they are long."""
    exporter = SlidesExporter(reveal_scroll=True)
    exporter.register_preprocessor(HeadingsStartSlides, enabled=True)
    return convert(exporter, notebook, name)


def convert(exporter: HTMLExporter, notebook: nbformat.NotebookNode, name: str) -> str:
    """What `exporter` makes of a copy of the notebook, its links led to pages."""
    exporter.register_preprocessor(LinkedPages, enabled=True)
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": name}})
    return body
