"""The executed course as a book with a search, and as a deck of slides for each lesson: static pages, whole offline.

Sphinx builds both, from the notebooks as they are and from the pages in the folder `book`: the book with myst-nb, the
decks with reveal.js. MathJax and all else that a browser loads comes from installed packages and lies beside the pages.
"""

from __future__ import annotations

import copy
import html
import importlib.util
import io
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from tqdm import tqdm

from confprune_edu import __version__
from confprune_edu.course.decks import deck
from confprune_edu.course.notebooks import Refused, code_cells, course_notebooks, read_notebook
from confprune_edu.exercises import EXERCISES

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

PAGES = Path(__file__).parent / "book"
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx_revealjs", "sphinx-mathjax-offline")
CONTENTS = """# Slides

```{toctree}
:glob:
:maxdepth: 1

[0-9]*
```
"""
COMMON: dict[str, Any] = {
    "project": "Confident pruning",
    "release": __version__,
    "author": "The confprune_edu authors",
    "language": "en",
    "default_role": "literal",
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # it would fetch pages, which browsers refuse from a disk
    "suppress_warnings": ["config.cache"],
    "myst_disable_syntax": ["html_inline"],  # titles stand, and their HTML would run, on every page
    "myst_enable_extensions": ["dollarmath", "amsmath", "colon_fence", "attrs_block", "html_image"],
}
BOOK: dict[str, Any] = {
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx-mathjax-offline", __name__],
    "source_suffix": {".md": "myst-nb", ".ipynb": "myst-nb"},
    "nb_execution_mode": "off",
    "nb_merge_streams": True,  # what a cell prints is one text, also where it was sent in pieces
    "html_theme": "sphinx_book_theme",
    "html_title": "Confident pruning",
    "html_static_path": [str(PAGES / "_static")],
    "html_css_files": ["book.css"],
    "html_context": {"default_mode": "auto"},
    "html_theme_options": {
        "home_page_in_toc": True,
        "use_download_button": False,
        "show_toc_level": 2,
        "navbar_persistent": [],  # the sidebar has a search
    },
    "napoleon_use_param": False,  # names that share a sentence stay together
    "autodoc_typehints": "none",
    "autodoc_preserve_defaults": True,
    "autodoc_member_order": "bysource",
}
DECKS: dict[str, Any] = {
    "extensions": ["myst_parser", "sphinx_revealjs", "sphinx.ext.mathjax"],
    "source_suffix": {".md": "markdown"},
    "mathjax_path": "../../_static/mathjax/tex-chtml.js",  # the book's
    "revealjs_static_path": [str(PAGES / "_static")],
    "revealjs_style_theme": "white",
    "revealjs_css_files": ["slides.css"],
    "revealjs_script_plugins": [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}],
    "revealjs_script_conf": {"hash": True, "slideNumber": "c/t", "width": 1280, "height": 720, "transition": "none"},
}


def build(folder: Path, out: Path) -> list[Path]:
    """Write the book of the notebooks in `folder`, and their decks, into `out`; its pages, the first one first.

    Raises
    ------
    Refused
        A notebook has not been executed, or failed: its page would lack figures. Or a package is missing.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise Refused(f'{", ".join(missing)} is missing; the book needs: python -m pip install -e ".[site]"')
    notebooks = {path.stem: read_notebook(path) for path in course_notebooks(folder)}
    for name, notebook in notebooks.items():
        if not name.isprintable():
            raise Refused(f"{name!r} is no name for a page; rename the notebook")
        refuse_unexecuted(folder / f"{name}.ipynb", notebook)
    with tempfile.TemporaryDirectory() as made:
        book, decks = Path(made, "book"), Path(made, "decks")
        shutil.copytree(PAGES, book, ignore=shutil.ignore_patterns("_static"))
        decks.mkdir()
        for name, notebook in notebooks.items():
            (book / f"{name}.ipynb").write_text(nbformat.writes(page(notebook, name)), encoding="utf-8")
            deck(notebook, name, decks)
        (decks / "index.md").write_text(CONTENTS, encoding="utf-8")
        run_sphinx("book", book, out, "html", BOOK)
        run_sphinx("slides", decks, out / "slides", "revealjs", DECKS)
    return [out / "index.html", *(out / f"{where}{name}.html" for name in notebooks for where in ("", "slides/"))]


def refuse_unexecuted(path: Path, notebook: NotebookNode) -> None:
    """Raise `Refused` if a code cell was not run, or ended in an error."""
    cells = code_cells(notebook)
    failed = [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    if failed or any(cell.execution_count is None for cell in cells):
        what = "failed" if failed else "has not been executed"
        raise Refused(f"{path} {what}; run it first: confprune run, then confprune html --source executed")


def page(notebook: NotebookNode, name: str) -> NotebookNode:
    """A copy of a notebook with a link to its slides below the title, and a folded hint below each exercise."""
    link = f'<p><a href="slides/{html.escape(quote(name))}.html">Slides of this lesson</a></p>'
    cells = [*notebook.cells[:1], new_markdown_cell(link)]
    for cell in notebook.cells[1:]:
        cells.append(cell)
        for tag in cell.metadata.get("tags", []):
            known = EXERCISES.get(tag.removeprefix("exercise:"))
            if known and tag.startswith("exercise:"):
                hint = f"<details><summary>Hint</summary>\n\n{html.escape(known.hint)}\n\n</details>"
                cells.append(new_markdown_cell(hint))
    return NotebookNode(notebook, cells=cells)


def run_sphinx(what: str, source: Path, out: Path, builder: str, settings: Mapping[str, Any]) -> None:
    """Let Sphinx build `out` from `source` under a progress bar; its warnings go to standard error."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    warnings = io.StringIO()
    with patch_docutils(), docutils_namespace(), tqdm(desc=what, unit="page") as bar:
        chosen = copy.deepcopy({**COMMON, **settings})  # extensions add to what they are given
        app = Sphinx(source, None, out, source / ".doctrees", builder, chosen, None, warnings, freshenv=True)
        bar.total = 2 * len([*source.glob("*.md"), *source.glob("*.ipynb")])

        def tick(app: Sphinx, name: str, *_: object) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update(bar.n < bar.total)  # Sphinx adds pages of its own, such as the index

        app.connect("source-read", tick)  # each page is read once,
        app.connect("html-page-context", tick)  # and written once
        app.build()
    print(warnings.getvalue(), end="", file=sys.stderr)


def setup(app: Sphinx) -> None:
    """What Sphinx calls, since the book names this module among its extensions."""
    app.connect("autodoc-process-docstring", headed, priority=400)  # before napoleon reads it
    app.connect("doctree-resolved", linked)


def headed(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Give the source and the examples of a docstring headings; without them the section above would take them in."""
    for start, heading in (("Source: ", "References"), (">>> ", "Examples")):
        if at := [number for number, line in enumerate(lines) if line.startswith(start)]:
            lines[at[0] : at[0]] = [heading, "-" * len(heading)]


def linked(app: Sphinx, page: nodes.document, name: str) -> None:
    """Let each `room.name` of the package lead to what the page of its interface says of it."""
    from docutils import nodes
    from sphinx.util.nodes import make_refnode

    documented = app.env.domains.python_domain.objects
    for literal in list(page.findall(nodes.literal)):
        entry = documented.get(f"confprune_edu.{literal.astext()}")
        if entry and "." in literal.astext() and not isinstance(literal.parent, nodes.reference):
            literal.replace_self(make_refnode(app.builder, name, entry.docname, entry.node_id, literal.deepcopy()))
