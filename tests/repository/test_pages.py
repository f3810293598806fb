"""The book and the decks in a real browser, from a disk and without a network: what is seen, what fits, what turns.

Screenshots are left in tests/screenshots.
"""

import io
from pathlib import Path

import pytest
from PIL import Image

from confprune_edu.course import decks, notebooks

ROOT = Path(__file__).parents[2]
LESSONS = [path.stem for path in notebooks.course_notebooks(ROOT / "notebooks")]
SCREENSHOTS = ROOT / "tests" / "screenshots"
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
# the lowest and the rightmost edge of what a slide shows, as fractions of the screen, and its highest one
EDGES = """() => {
    const shown = [...Reveal.getCurrentSlide().querySelectorAll(':scope > :not(aside)')];
    const boxes = shown.map(one => one.getBoundingClientRect()).filter(box => box.height);
    const most = (side, size) => Math.max(...boxes.map(box => box[side])) / size;
    return [Math.min(...boxes.map(box => box.top)), most('bottom', innerHeight), most('right', innerWidth)];
}"""
SLIDE = """() => {
    const slide = Reveal.getCurrentSlide(), images = [...slide.querySelectorAll('img')];
    return {
        number: Reveal.getIndices().h,
        claim: slide.querySelector('h1, h2').innerText,
        images: images.map(image => [image.alt, image.naturalWidth > 0]),
        code: slide.querySelectorAll('pre').length,
        notes: slide.querySelector('aside.notes')?.textContent.length,
    };
}"""


@pytest.fixture
def look(browser, site):
    """A function that opens a page of the site from the disk; nothing may fail, or be asked of another machine."""
    SCREENSHOTS.mkdir(exist_ok=True)
    wrong, contexts = [], []

    def opened(name, size="desk", scheme="light"):
        width, height = SIZES.get(size, size)
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("request", lambda ask: wrong.append(ask.url) if not ask.url.startswith(("file:", "data:")) else None)
        page.on("requestfailed", lambda ask: wrong.append(f"failed: {ask.url}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto((site[0] / f"{name}.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.mark.parametrize("name", LESSONS)
def test_a_deck_turns_to_its_end_and_no_slide_is_taller_than_the_screen(look, name):
    notebook = notebooks.read_notebook(ROOT / "notebooks" / f"{name}.ipynb")
    page = look(f"slides/{name}", (1280, 720))
    page.wait_for_function("() => window.Reveal?.isReady()")
    seen = []
    for number in range(len(decks.slides(notebook))):
        top, bottom, right = page.evaluate(EDGES)
        slide = page.evaluate(SLIDE)
        assert (top >= 0, bottom <= 1, right <= 1) == (True, True, True), slide
        assert slide["number"] == number and slide["code"] == 0 and slide["notes"] > 0
        assert len(slide["images"]) <= 1 and all(alt and whole for alt, whole in slide["images"])
        page.screenshot(path=SCREENSHOTS / f"deck-{name}-{number:02}.png")
        seen += [(slide["claim"], [alt for alt, _ in slide["images"]])]
        page.keyboard.press("ArrowRight")
    assert page.evaluate("() => Reveal.isLastSlide() && Reveal.getTotalSlides()") == len(seen)
    drawn = [slide.alt for slide in decks.slides(notebook) if slide.png]
    assert [alt for _, alts in seen for alt in alts] == drawn and len(drawn) >= 3
    claims = [claim for claim, alts in seen if alts]
    assert len(set(claims)) == len(claims)  # one claim a figure


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["index", "api", "own_model", "teach", *LESSONS])
def test_a_page_fits_the_screen_and_its_formulas_are_typeset(look, name, size):
    page = look(name, size)
    formulas = page.locator(".bd-article .math").count()
    if formulas:
        page.wait_for_function("() => document.querySelector('.bd-article mjx-container')")
        page.evaluate("() => MathJax.startup.promise")
    assert page.locator(".bd-article mjx-container").count() == formulas
    assert page.locator("mjx-merror").count() == 0
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert (
        page.locator(".bd-article p").first.evaluate("p => p.clientWidth / parseFloat(getComputedStyle(p).fontSize)")
        < 44
    )
    page.screenshot(path=SCREENSHOTS / f"book-{name}-{size}.png")


def pixel(shown, x, y):
    """The colour that a part of a page has at this fraction of its width and of its height."""
    with Image.open(io.BytesIO(shown.screenshot())) as image:
        return image.convert("RGB").getpixel((int(x * image.width), int(y * image.height)))


def test_code_that_goes_on_is_shaded_at_its_edge_until_its_end_is_seen(look):
    code = look("05_mnist", "phone").locator(".bd-article pre").first
    assert code.evaluate("code => code.scrollWidth > code.clientWidth")
    edges = []
    for move in ("0", "code.scrollWidth"):
        code.evaluate(f"code => code.scrollTo({move}, 0)")
        edges += [sum(pixel(code, 0.99, 0.02))]  # above the first line
    assert edges[0] < edges[1] - 60


def test_a_hint_unfolds_and_the_pages_follow_each_other(look):
    page = look("04_fixed_sequence_testing")
    hint = page.locator("details", has=page.get_by_text("Hint", exact=True)).first
    assert not hint.locator("p").is_visible()
    hint.locator("summary").click()
    assert hint.locator("p").is_visible()
    page.get_by_text("Slides of this lesson").click()
    page.wait_for_url("**/slides/04_fixed_sequence_testing.html")
    page.go_back()
    page.locator(".next-page, a.right-next").click()
    page.wait_for_url("**/05_mnist.html")


def test_the_search_finds_a_function(look):
    page = look("search")
    page.goto(f"{page.url}?q=bonferroni")
    found = page.locator("#search-results li a")
    found.first.wait_for()
    assert any("bonferroni" in text for text in found.all_inner_texts())
    assert found.count() > 3


def test_the_dark_theme_is_dark_and_paper_has_no_sidebar(look):
    dark = look("02_p_values", scheme="dark")
    dark.screenshot(path=SCREENSHOTS / "book-02_p_values-dark.png")
    shade = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert max(dark.evaluate(shade)) < 60 < min(look("02_p_values").evaluate(shade))
    dark.emulate_media(media="print")
    assert not dark.locator(".bd-sidebar-primary").is_visible() and dark.get_by_role("heading", level=1).is_visible()


def test_on_a_dark_page_a_figure_has_its_colour_and_a_photograph_its_own(look):
    page = look("07_polypgen_unet", scheme="dark")
    paper, photographs = pixel(page.locator(".prev-next-footer"), 0.5, 0.05), page.locator(".tag_keep-colours img")
    figures = page.locator(".cell:not(.tag_keep-colours) .cell_output img")
    assert figures.count() > 5 and photographs.count() == 3
    shades = [pixel(figures.nth(number), *corner) for number in (0, 3) for corner in ((0.01, 0.01), (0.99, 0.99))]
    assert max(abs(mine - page) for shade in shades for mine, page in zip(shade, paper, strict=True)) <= 1
    assert {image.evaluate("image => getComputedStyle(image).filter") for image in photographs.all()} == {"none"}
