"""The notebooks for readers without a kernel: pages, slides, and the index of the static site."""

import html
import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from confprune_edu.course import command, notebooks
from confprune_edu.course.site import HeadingsStartSlides

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
NETWORK = r"https://(cdnjs\.cloudflare\.com/ajax/libs/(mathjax|require\.js|jquery)|unpkg\.com/reveal\.js@)"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of the course, and the folder of nothing else."""
    out = tmp_path_factory.mktemp("site") / "out"
    assert command.main(["html", "--out", str(out)]) == 0
    return out


def pictures(name):
    """The alternative texts of all figures in a notebook, as committed."""
    cells = notebooks.code_cells(notebooks.read_notebook(FOLDER / f"{name}.ipynb"))
    bundles = [out.data for cell in cells for out in cell.outputs if "image/png" in out.get("data", {})]
    return [re.search(r'alt="([^"]*)"', bundle["text/html"])[1] for bundle in bundles]


@pytest.mark.parametrize("end", [".html", ".slides.html"])
@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole(site, name, end):
    text = (site / f"{name}{end}").read_text(encoding="utf-8")
    images = re.findall(r"<img [^>]*>", text)
    assert pictures(name)
    shown = [html.unescape(re.search(r'alt="([^"]*)"', image)[1]) for image in images]
    assert sorted(map(html.unescape, pictures(name))) == sorted(shown)
    assert all('src="data:image/png;base64,' in image for image in images)
    assert "Loading widget" not in text and "Traceback (most recent call last)" not in text
    assert "application/vnd.jupyter.widget" not in text


@pytest.mark.parametrize("page", ["index.html", *(name + end for name in NAMES for end in (".html", ".slides.html"))])
def test_links_lead_to_files_of_the_site(site, page):
    """Nothing but MathJax, reveal.js and their loaders comes from the network."""
    text = (site / page).read_text(encoding="utf-8")
    used = re.findall(r'<(?:script|img|link|iframe)[^>]*\b(?:src|href)="([^"]+)"', text)
    assert [link for link in used if not link.startswith("data:") and not re.match(NETWORK, link)] == []
    links = [link.partition("#")[0] for link in re.findall(r'<a [^>]*href="([^"]+)"', text)]
    local = [html.unescape(link) for link in links if link and not link.startswith("https://")]
    assert [link for link in local if not (site / link).exists()] == []


def test_the_index_leads_to_every_lesson_and_its_slides(site):
    links = re.findall(r'href="([^"]+)"', (site / "index.html").read_text(encoding="utf-8"))
    assert links == [f"{name}{end}" for name in NAMES for end in (".html", ".slides.html")]
    assert all(
        notebooks.title_and_run_time(notebooks.read_notebook(FOLDER / f"{name}.ipynb"))[0]
        in html.unescape((site / "index.html").read_text(encoding="utf-8"))
        for name in NAMES
    )


def test_the_notebooks_stay_as_they_are(site):
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)
    assert {path.name for path in site.iterdir()} == {
        "index.html",
        *(f"{n}.html" for n in NAMES),
        *(f"{n}.slides.html" for n in NAMES),
    }


# Made-up notebooks


def figure(alt):
    bundle = {"image/png": "iVBORw0KGgo=", "text/html": f'<img alt="{alt}" src="data:image/png;base64,iVBORw0KGgo=">'}
    return new_output("display_data", data=bundle)


@pytest.fixture
def made_up(tmp_path):
    """A function that writes one notebook and builds its site; the page, the slides."""

    def build(*cells):
        (tmp_path / "source").mkdir()
        nbformat.write(new_notebook(cells=list(cells)), tmp_path / "source" / "01_one.ipynb")
        site = tmp_path / "site"
        assert command.main(["html", "--source", str(tmp_path / "source"), "--out", str(site)]) == 0
        return (site / "01_one.html").read_text(encoding="utf-8"), (site / "01_one.slides.html").read_text(
            encoding="utf-8"
        )

    return build


def test_slides_begin_at_headings_and_figures(made_up):
    cells = [
        new_markdown_cell("# A title"),
        new_markdown_cell("Some words"),
        new_markdown_cell("## A section"),
        new_code_cell("1 + 1", execution_count=1, outputs=[new_output("execute_result", {"text/plain": "2"})]),
        new_code_cell("draw()", execution_count=2, outputs=[figure("A picture")]),
        new_code_cell("## a comment, no heading", execution_count=3),
        new_markdown_cell("### A part"),
    ]
    shown, _ = HeadingsStartSlides().preprocess(new_notebook(cells=cells), {})
    kinds = [cell.metadata.slideshow.slide_type for cell in shown.cells]
    assert kinds == ["slide", "-", "slide", "-", "subslide", "-", "subslide"]
    _, slides = made_up(*cells)
    assert slides.count("<section") == 2 + 4  # each slide holds what stands below each other


def test_links_between_notebooks_lead_to_pages_and_code_stays(made_up):
    code = new_code_cell('open("[x](02_two.ipynb)")', execution_count=1)
    page, _ = made_up(new_markdown_cell("[two](02_two.ipynb#part), [far](https://host/a.ipynb)"), code)
    assert 'href="02_two.html#part"' in page and 'href="https://host/a.ipynb"' in page
    assert "02_two.ipynb" in page  # in the code


def test_foreign_names_and_titles_are_text_in_the_index(tmp_path):
    name = "01_a<b>&c#d"
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    cells = [new_markdown_cell("# <img src=x onerror=alert(1)>"), new_code_cell("1", execution_count=1)]
    nbformat.write(new_notebook(cells=cells), source / f"{name}.ipynb")
    assert command.main(["html", "--source", str(source), "--out", str(site)]) == 0
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "<img" not in index and "<b>" not in index and f"slides of {html.escape(name)}" in index
    links = [unquote(html.unescape(link)) for link in re.findall(r'href="([^"#]+)"', index)]
    assert links == [f"{name}.html", f"{name}.slides.html"] and all((site / link).exists() for link in links)


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


def test_a_folder_without_notebooks_and_the_notebooks_own_folder_are_refused(tmp_path, capsys):
    assert command.main(["html", "--source", str(tmp_path), "--out", str(tmp_path / "site")]) == 2
    assert "no notebook found in" in capsys.readouterr().err
    assert command.main(["html", "--out", str(FOLDER)]) == 2
    assert "is the notebooks' own folder" in capsys.readouterr().err
