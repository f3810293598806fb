"""The notebooks for readers without a kernel: the book, the decks, and what they are made of."""

import html
import importlib.util
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from confprune_edu import exercises
from confprune_edu.course import command, decks, notebooks

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]


def read(name):
    return notebooks.read_notebook(FOLDER / f"{name}.ipynb")


def figures(name):
    """The code cells of a lesson that show a figure, each with its alternative texts."""
    found = []
    for cell in notebooks.code_cells(read(name)):
        bundles = [out.data for out in cell.outputs if "image/png" in out.get("data", {})]
        if bundles:
            found += [(cell, [html.unescape(re.search(r'alt="([^"]*)"', one["text/html"])[1]) for one in bundles])]
    return found


def alternatives(page):
    return [html.unescape(re.search(r'alt="([^"]*)"', image)[1]) for image in re.findall(r"<img [^>]*>", page)]


def test_it_says_how_far_it_is_and_warns_of_nothing(site):
    _, told = site
    assert "book: 100%" in told and "slides: 100%" in told
    assert not re.search("WARNING|ERROR", told)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole(site, name):
    page = (site[0] / f"{name}.html").read_text(encoding="utf-8")
    assert figures(name)
    assert sorted(alternatives(page)) == sorted(alt for _, alts in figures(name) for alt in alts)
    assert "Loading widget" not in page and "Traceback (most recent call last)" not in page
    assert "application/vnd.jupyter.widget" not in page
    tags = {tag for cell in read(name).cells for tag in cell.metadata.get("tags", []) if tag.startswith("exercise:")}
    hints = [html.escape(exercises.EXERCISES[tag.removeprefix("exercise:")].hint.split()[0]) for tag in tags]
    assert page.count("<summary>Hint</summary>") == len(tags) and all(hint in page for hint in hints)


@pytest.mark.parametrize("name", NAMES)
def test_a_deck_has_every_figure_each_with_a_claim_of_its_own(site, name):
    page = (site[0] / "slides" / f"{name}.html").read_text(encoding="utf-8")
    explorer = re.compile(r"^widgets\.\w+\(", re.MULTILINE)
    shown = [
        (cell, alts) for cell, alts in figures(name) if "claim" in cell.metadata or not explorer.search(cell.source)
    ]
    assert alternatives(page) == [alt for _, alts in shown for alt in alts]
    claims = [cell.metadata.get("claim") for cell, _ in shown]
    assert all(claims) and len(set(claims)) == len(claims)
    assert not any(re.search(r"\d", claim) for claim in claims)  # no number that no cell prints
    assert "<pre" not in page and page.count("<h2>") == page.count('<aside class="notes">') - 1


def test_links_lead_to_files_of_the_site_and_nothing_is_loaded_from_elsewhere(site):
    out, _ = site
    pages = sorted(out.rglob("*.html"))
    pages = [page for page in pages if "_static" not in page.parts]
    assert len(pages) > 2 * len(NAMES)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]*\b(?:src|href)="([^"]+)"', text)
        assert [link for link in loaded if re.match(r"(https?:)?//", link)] == [], page
        links = [*loaded, *re.findall(r'<a [^>]*href="([^"]+)"', text)]
        local = {unquote(html.unescape(re.split("[?#]", link)[0])) for link in links if not re.match("[a-z]+:", link)}
        assert [link for link in local if link and not (page.parent / link).exists()] == [], page


def test_the_book_leads_to_every_lesson_each_lesson_to_its_deck_and_the_next(site):
    out, _ = site
    index = (out / "index.html").read_text(encoding="utf-8")
    for name, after in zip(NAMES, [*NAMES[1:], "own_model"], strict=True):
        assert f'href="{name}.html"' in index
        page = (out / f"{name}.html").read_text(encoding="utf-8")
        assert f'href="slides/{name}.html"' in page
        assert re.search(rf'<link rel="next"[^>]*href="{after}.html"', page)


def test_the_api_page_has_the_docstrings_with_their_examples(site):
    page = (site[0] / "api.html").read_text(encoding="utf-8")
    for name in ("pvalues.tight", "fwer.fixed_sequence", "calibration.calibrate", "evaluation.loss_table"):
        assert f'id="confprune_edu.{name}"' in page
    one = page[page.index('id="confprune_edu.pvalues.hoeffding"') :]
    assert one.index("Raises") < one.index("References") < one.index("Examples") < one.index("&gt;&gt;&gt;")


def test_a_name_of_the_package_leads_to_what_is_said_of_it(site):
    api, lesson = (
        (site[0] / f"{name}.html").read_text(encoding="utf-8") for name in ("api", "10_certificate_or_validation")
    )
    name = "confprune_edu.pruning.fine_tune"
    assert f'id="{name}"' in api and f'href="#{name}"><code' in api
    assert f'href="api.html#{name}"><code' in lesson
    assert 'href="#module-confprune_edu.data"><code' not in api  # `data` alone is an argument
    assert "<strong>model, data, loss, ratios" in api  # one sentence for them all


def test_the_notebooks_stay_as_they_are(site):
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


# Made-up notebooks


def figure(alt):
    bundle = {"image/png": "iVBORw0KGgo=", "text/html": f'<img alt="{alt}" src="data:image/png;base64,iVBORw0KGgo=">'}
    return new_output("display_data", data=bundle)


def test_slides_begin_at_sections_and_figures():
    cells = [
        new_markdown_cell("# A title\n\nHow it begins. $x_1$ more."),
        new_markdown_cell("## A section\n\n<details><summary>Answer</summary>\n\nHidden.\n\n</details>\n\nShown."),
        new_code_cell("## no heading\n1 + 1", execution_count=1),
        new_code_cell("draw()", execution_count=2, outputs=[figure("A &lt; B")], metadata={"claim": "A claim"}),
        new_markdown_cell("### A part\n\nsee [two](02_two.ipynb#part)"),
        new_code_cell("draw()", execution_count=3, outputs=[figure("C")]),
        new_code_cell("widgets.explore(draw)", execution_count=4, outputs=[figure("an explorer")]),
        new_markdown_cell("## Exercises\n\nWrite it.\n\n## Recap\n\n- One thing. And why.\n- Another\n  thing."),
    ]
    made = decks.slides(new_notebook(cells=cells))
    assert [(one.section, one.claim, one.alt) for one in made] == [
        ("A title", "", ""),
        ("A section", "A claim", "A < B"),
        ("A section", "", "C"),
        ("Recap", "", ""),
    ]
    assert [one.lines() for one in made] == [
        "How it begins. $x_1$ more.",
        "Shown.",
        "",
        "- One thing.\n- Another thing.",
    ]
    assert "`x_1`" in decks.aside(made[0])  # formulas are not typeset in the speaker's window
    assert "**A part**" in decks.aside(made[1]) and "](02_two.md#part)" in decks.aside(made[1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"First one, e.g. this. {'More of it, ' * 40}more.", "First one, e.g. this."),
        (f"First one. Second one. {'More of it, ' * 40}more.", "First one. Second one."),
        ("What it is:\n\n| a | b |\n|---|---|\n| c | d |\n\nMore of it.", "| a | b |\n|---|---|\n| c | d |"),
    ],
)
def test_a_slide_without_a_figure_shows_the_sentences_that_fit_or_a_table(text, shown):
    assert decks.slides(new_notebook(cells=[new_markdown_cell(f"# T\n\n{text}")]))[0].lines() == shown


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        (new_code_cell("1"), "has not been executed"),
        (new_code_cell("1 / 0", execution_count=1, outputs=[new_output("error", ename="E", evalue="")]), "failed"),
    ],
)
def test_a_notebook_that_was_not_run_or_failed_is_refused(tmp_path, monkeypatch, capsys, cell, what):
    monkeypatch.chdir(tmp_path)
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "01_one.ipynb")
    assert command.main(["html", "--source", "."]) == 2
    assert f"01_one.ipynb {what}; run it first: confprune run" in capsys.readouterr().err
    assert not list(tmp_path.glob("**/*.html"))


@pytest.mark.long
def test_html_in_a_title_is_text_on_all_that_lists_it(tmp_path, capsys):
    title, source, out = new_markdown_cell("# A <script>alert(1)</script> & $a<b$"), tmp_path / "own", tmp_path / "site"
    source.mkdir()
    nbformat.write(new_notebook(cells=[title, new_markdown_cell("## B\n\nText.")]), source / '01_a"b<c>&%20.ipynb')
    assert command.main(["html", "--source", str(source), "--out", str(out)]) == 0
    for page in (out / "index.html", out / "api.html", out / "slides" / "index.html"):
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text and "&lt;script&gt;alert" in text
        assert '01_a%22b%3Cc%3E%26%2520.html"' in text
    assert (out / '01_a"b<c>&%20.html').exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such names on Windows")
def test_a_name_that_no_page_can_have_is_refused(tmp_path, capsys):
    nbformat.write(new_notebook(), tmp_path / "01_one\ntwo.ipynb")
    assert command.main(["html", "--source", str(tmp_path), "--out", str(tmp_path / "site")]) == 2
    assert r"'01_one\ntwo' is no name for a page" in capsys.readouterr().err


def test_a_folder_without_notebooks_and_the_notebooks_own_folder_are_refused(tmp_path, capsys):
    assert command.main(["html", "--source", str(tmp_path), "--out", str(tmp_path / "site")]) == 2
    assert "no notebook found in" in capsys.readouterr().err
    assert command.main(["html", "--out", str(FOLDER)]) == 2
    assert "is the notebooks' own folder" in capsys.readouterr().err


def test_without_sphinx_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "myst_nb" else found(name))
    assert command.main(["html", "--out", str(tmp_path / "site")]) == 2
    assert 'myst_nb is missing; the book needs: python -m pip install -e ".[site]"' in capsys.readouterr().err
