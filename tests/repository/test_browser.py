"""The course as a reader has it: the real JupyterLab, offline, in a real browser, moved by keyboard and by mouse.

Needs Debian's chromium (apt-get install chromium fonts-dejavu-core); another one is named by CONFPRUNE_CHROMIUM.
Screenshots of all explorers are left in tests/screenshots. The times from a key to the new figure are printed at the
end of the run as a benchmark; no test depends on them.
"""

import io
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCREENSHOTS = ROOT / "tests" / "screenshots"

PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
# A made-up notebook: a callback that fails now and then
FAILS = """\
from confprune_edu import widgets
def draw(n):
    if n > 2:
        raise ValueError(f"{n} is more than two")
    return f"n is {n}"
widgets.explore(draw, n=widgets.number("examples", 2, 1, 3, step=1))"""
MADE_UP = {"fails": FAILS}


# One server, one browser, one page a test

LAB = """\
import pathlib, sys
from confprune_edu.course import command, notebooks
notebooks.notebooks_folder = lambda: pathlib.Path("notebooks").resolve()
command.main(["start", "mine", "--port", "0", "--", *sys.argv[1:]])"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """`confprune start` on a free port of 127.0.0.1; its address and token."""
    root = tmp_path_factory.mktemp("lab")
    SCREENSHOTS.mkdir(exist_ok=True)
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for name, source in MADE_UP.items():
        cells = [new_code_cell(source)]
        (root / "mine").mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=cells, metadata=PYTHON), root / "mine" / f"{name}.ipynb")
    token = secrets.token_hex(16)
    folders = ("RUNTIME_DIR", "CONFIG_DIR", "DATA_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR")
    own = {f"JUPYTER{'' if name.startswith('LAB') else '_'}{name}": str(root / name) for name in folders}
    own |= {"IPYTHONDIR": str(root / "ipython"), "JUPYTER_TOKEN": token}
    environment = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "CONFPRUNE_STATIC")}
    extra = ["--no-browser", "--allow-root", "--LabApp.expose_app_in_browser=True"]
    with open(root / "server.log", "wb") as log:
        line = [sys.executable, "-c", LAB, *extra]
        server = subprocess.Popen(line, env=environment | own, cwd=root, stdout=log, stderr=log)
    try:
        yield address(root, server), token
    finally:
        server.terminate()
        server.wait(30)


def address(root, server):
    """Where the server answers; it leaves a file in its runtime folder."""
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        for path in (root / "RUNTIME_DIR").glob("jpserver-*.json"):
            if text := path.read_text(encoding="utf-8"):
                return json.loads(text)["url"].rstrip("/")
        time.sleep(0.1)
    raise RuntimeError((root / "server.log").read_text(encoding="utf-8"))


@pytest.fixture
def page(browser):
    """A fresh page, 1280 px wide; whatever it did, there was no error in its console and no request to another host."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    hosts, errors = set(), []
    page.on("request", lambda request: hosts.add(urllib.parse.urlsplit(request.url).hostname))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    # those of the test, not of the end of its kernel; what `confprune lite` builds with is no part of JupyterLab
    seen = [error for error in errors if "/@jupyterlite/" not in error]
    if page.evaluate("() => Boolean(window.jupyterapp?.shell.currentWidget?.sessionContext)"):
        ask(page, "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    context.close()
    assert seen == []
    assert hosts <= {"127.0.0.1", None}  # None: images within the page


PATIENT = """([seconds, argument]) => Promise.race([
    (%s)(argument),
    new Promise((_, give_up) => setTimeout(() => give_up(new Error('no answer')), 1000 * seconds)),
])"""


def ask(page, script, argument=None, seconds=150):
    """The value of a function in the page, which may be a promise, but not for ever."""
    return page.evaluate(PATIENT % script, [seconds, argument])


READY = """async () => {
    await window.jupyterapp.restored;
    const wait = () => new Promise(resolve => setTimeout(resolve, 50));
    for (let i = 0; i < 600 && !window.jupyterapp.shell.currentWidget?.sessionContext; i++) await wait();
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready; await panel.revealed; await panel.sessionContext.ready;
}"""


def open_notebook(page, lab, name):
    url, token = lab
    page.goto(f"{url}/lab/tree/{name}.ipynb?reset&token={token}")
    page.wait_for_function("() => window.jupyterapp?.shell", timeout=60_000)
    ask(page, READY)


def run_all(page):
    """Run All: true when every cell ran without an error; waits for the last one."""
    return ask(page, "() => window.jupyterapp.commands.execute('notebook:run-all-cells')", seconds=400)


KERNEL = """async ([code, expression]) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const ask = {code, silent: true, store_history: false, user_expressions: {value: expression}};
    const content = (await kernel.requestExecute(ask).done).content;
    return content.status === 'ok' ? content.user_expressions.value : content;
}"""


def in_kernel(page, code, expression="None"):
    """Run `code` in the notebook's kernel, unseen, and return the value of `expression`, which must survive JSON."""
    answer = ask(page, KERNEL, [f"import json\n{code}", f"json.dumps({expression})"])
    assert answer["status"] == "ok", answer
    return json.loads(eval(answer["data"]["text/plain"]))


# Explorers

ACTIVE = """() => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.source"""
INDEX = """() => window.jupyterapp.shell.currentWidget.content.activeCellIndex"""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.sharedModel.source)"""
SCROLL = """index => window.jupyterapp.shell.currentWidget.content.scrollToItem(index, 'start')"""
COLLECT = """
from confprune_edu import widgets as _widgets
_explore, _widgets.explore = _widgets.explore, lambda draw, **controls: _kept.append((draw, controls))
{source}
_widgets.explore = _explore
def _direct(texts):
    draw, controls = _kept[-1]
    values = {{}}
    for (name, control), text in zip(controls.items(), texts, strict=True):
        named = {{str(option): option for option in control.options}}
        values[name] = named[text] if named else type(control.value)(float(text))
    picture = draw(**values)
    return [picture.alt, picture.svg()]
"""
# the same picture, however the page writes it
SAME = """(shown, text) => {
    const made = document.createElement('div');
    made.innerHTML = text;
    return shown.isEqualNode(made.firstElementChild);
}"""
# for each animation frame: when, which figure is in sight (they are counted; -1: none), its height
WATCH = """explorer => {
    const watch = window.watch = {frames: [], pressed: null, running: true}, seen = new Map();
    explorer.addEventListener('keydown', () => { watch.pressed ??= performance.now(); }, {capture: true, once: true});
    const tick = () => {
        const figure = explorer.querySelector('.widget-output svg');
        if (figure && !seen.has(figure)) seen.set(figure, seen.size);
        watch.frames.push([performance.now(), figure ? seen.get(figure) : -1, figure?.getBoundingClientRect().height]);
        if (watch.running) requestAnimationFrame(tick);
    };
    tick();
}"""
WATCHED = """() => { window.watch.running = false; return window.watch; }"""
# what sticks out of the explorer, or holds a text that is cut off
CUT = """explorer => {
    const {left, right} = explorer.getBoundingClientRect();
    const seen = [...explorer.querySelectorAll('label, input, button, svg')].filter(part => part.clientWidth);
    const cut = part => part.tagName !== 'svg' && part.scrollWidth > part.clientWidth + 1;
    const out = part => { const p = part.getBoundingClientRect(); return p.left < left - 1 || p.right > right + 1; };
    return seen.filter(part => out(part) || cut(part)).map(part => part.tagName + ' ' + part.textContent);
}"""


class Explorer:
    """The explorer of the cell at `index` of the notebook in front."""

    def __init__(self, page, index):
        self.page = page
        source = page.evaluate(CELLS)[index]
        page.evaluate(SCROLL, index)
        self.box = page.locator(f".jp-Cell[data-windowed-list-index='{index}'] .confprune-explorer")
        self.figure = self.box.locator(".widget-output svg")
        self.figure.wait_for(state="visible", timeout=30_000)
        self.centre()
        self.controls = self.box.locator("> .widget-box > .widget-vbox").all()
        self.latencies = []
        in_kernel(page, f"_kept = []\n{COLLECT.format(source=source)}")
        self.settled = self.settle(None)

    def centre(self):
        """Scroll to the explorer until it stays: JupyterLab draws cells, and learns how high they are, as they come."""
        places = [None, 0]
        while places[-1] != places[-2]:
            self.box.evaluate("box => box.scrollIntoView({block: 'center'})")
            self.page.wait_for_timeout(200)
            places += [self.box.bounding_box()]

    def texts(self):
        """What the controls say: numbers as typed, the chosen option of a menu."""
        script = "parts => parts.map(part => part.value || part.textContent)"
        return self.box.locator("input[type=number], .widget-button.mod-primary").evaluate_all(script)

    def settle(self, texts):
        """Wait until the controls differ from `texts` and the figure is the one that their values give; both."""
        alt = None
        for _ in range(100):
            now = self.texts()
            if now != texts:
                alt, svg = in_kernel(self.page, "", f"_direct({now})")
                same = self.figure.evaluate(SAME, svg) and self.box.get_by_role("status").last.inner_text() == alt
                if same and now == self.texts():
                    return now, svg
            self.page.wait_for_timeout(50)
        raise AssertionError(f"from {texts} to {now}: shown {self.figure.get_attribute('aria-label')}, right {alt}")

    def watched(self, act):
        """Call `act` and wait for the right figure; frame after frame, a figure of one height must be in sight."""
        texts, shown = self.settled
        self.box.evaluate(WATCH)
        act()
        self.page.wait_for_function("() => window.watch.frames.at(-1)[1] > 0", timeout=10_000)
        after, shown_after = self.settled = self.settle(texts)
        watch = ask(self.page, WATCHED)
        assert [frame for frame in watch["frames"] if frame[1] < 0] == []
        assert len({frame[2] for frame in watch["frames"]}) == 1
        if watch["pressed"] is not None:
            self.latencies += [next(when for when, which, _ in watch["frames"] if which > 0) - watch["pressed"]]
        assert texts != after
        return shown != shown_after

    def press(self, target):
        """Press a key that changes a number, or Enter on a button; did the figure change?"""
        target.focus()
        key = "Enter"
        if target.evaluate("target => target.tagName") == "INPUT":
            more = target.locator("xpath=../..").get_by_role("button", name="+")
            key = "ArrowUp" if more.is_enabled() else "ArrowDown"
        return self.watched(lambda: self.page.keyboard.press(key))

    def has_readable_names(self):
        """Each number is found by its label, and each option says what it is an option of."""
        for control in self.controls:
            label = control.locator("label, .widget-label").first.inner_text()
            if control.locator("input").count():
                assert control.get_by_role("spinbutton", name=label, exact=True).count() == 1
                assert control.get_by_role("button", name=re.compile("[−+]")).count() == 2
            else:
                titles = [button.get_attribute("title") for button in control.get_by_role("button").all()]
                assert len(titles) > 1 and sum(title.endswith(", chosen") for title in titles) == 1
                assert all(title.startswith(f"{label}: ") for title in titles)
        assert self.figure.get_attribute("role") == "img" and self.figure.get_attribute("aria-label")

    def fits(self, width):
        """In a window of this width nothing sticks out, nothing is cut off."""
        self.page.set_viewport_size({"width": width, "height": 900})
        if width < 1000 and self.page.locator("#jp-left-stack").is_visible():
            ask(self.page, "() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        self.centre()
        assert self.box.evaluate(CUT) == []
        assert self.box.bounding_box()["x"] + self.box.bounding_box()["width"] <= width

    def move_all(self):
        """Move each control by keyboard and by mouse, then reset it; every control must change the figure."""
        first, reset = self.settled, self.box.get_by_role("button", name="Reset")
        for control in self.controls:
            if control.locator("input").count():
                field, (less, more) = control.locator("input"), control.get_by_role("button").all()
                button = more if more.is_enabled() else less
                changed = [self.press(field), self.press(field), self.watched(button.click)]
            else:
                others = control.locator(".widget-button:not(.mod-primary)")
                changed = [self.press(others.last), self.watched(others.first.click)]
            assert any(changed)
            if self.settled != first:
                self.watched(reset.click)
            assert self.settled == first


def explorers(page, lab, name):
    """Open a notebook, run it, and yield its explorers, each scrolled into sight."""
    open_notebook(page, lab, name)
    assert run_all(page), "a cell failed"
    for index, source in enumerate(page.evaluate(CELLS)):
        if re.search(r"^widgets\.\w+\(", source, re.MULTILINE):
            yield Explorer(page, index)


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_a_lesson(page, lab, name, record_property):
    """Run All is true; each control of each explorer moves the figure, by keyboard and by mouse, to the right one."""
    for number, explorer in enumerate(explorers(page, lab, name)):
        page.screenshot(path=SCREENSHOTS / f"{name}-{number}.png")
        explorer.has_readable_names()
        explorer.move_all()
        for width in (900, 768, 390, 1280):
            explorer.fits(width)
            page.screenshot(path=SCREENSHOTS / f"{name}-{number}-{width}.png")
        record_property("milliseconds", explorer.latencies)


def test_every_lesson_with_an_explorer_is_moved():
    """What the test above finds in the page is what the notebooks say."""
    sources = [path.read_text(encoding="utf-8") for path in NOTEBOOKS]
    assert sum(len(re.findall(r'"widgets\.\w+\(', source)) for source in sources) >= 6


def test_an_error_in_a_callback_is_shown_until_a_control_moves_again(page, lab):
    open_notebook(page, lab, "fails")
    assert run_all(page)
    box = page.locator(".confprune-explorer")
    box.get_by_text("n is 2").wait_for()
    number = box.get_by_label("examples")
    number.focus()
    page.keyboard.press("ArrowUp")
    box.get_by_text("ValueError: 3 is more than two").wait_for()
    page.screenshot(path=SCREENSHOTS / "error.png")
    page.keyboard.press("ArrowDown")
    box.get_by_text("n is 2").wait_for()
    assert box.get_by_text("ValueError").count() == 0


def test_a_number_beyond_its_limit_is_cut_and_said(page, lab):
    open_notebook(page, lab, "fails")
    assert run_all(page)
    box = page.locator(".confprune-explorer")
    number = box.get_by_label("examples")
    for typed, used in (("9", "3"), ("-5", "1")):
        number.fill(typed)
        number.press("Enter")
        box.get_by_role("status").get_by_text(f"limited to {used}").wait_for()
        assert number.input_value() == used
    box.get_by_role("button", name="Reset").click()
    box.get_by_text("n is 2").wait_for()
    assert box.get_by_text("limited").count() == 0 and number.input_value() == "2"


def test_in_the_dark_theme_a_figure_is_dark(page, lab):
    open_notebook(page, lab, "03_family_wise_error")
    ask(page, "() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    assert run_all(page)
    index = next(i for i, source in enumerate(page.evaluate(CELLS)) if source.startswith("widgets."))
    explorer = Explorer(page, index)
    page.screenshot(path=SCREENSHOTS / "dark.png")
    with Image.open(io.BytesIO(explorer.figure.screenshot())) as image:
        grey = image.convert("L")
    assert grey.getpixel((3, 3)) < 50  # the paper
    assert grey.getextrema()[1] > 200  # the letters


def test_the_course_by_keyboard_alone(page, lab):
    """From an empty JupyterLab to a moved figure without a mouse."""
    name, (url, token) = "04_fixed_sequence_testing.ipynb", lab
    page.goto(f"{url}/lab?reset&token={token}")
    page.wait_for_function("() => window.jupyterapp?.shell", timeout=60_000)
    page.locator(".jp-LauncherCard").first.wait_for(timeout=150_000)  # the launcher takes the focus while it is made
    choose_command(page, "Open from Path", page.locator(".jp-Dialog input").is_visible)
    for _ in range(5):  # a button of the dialog may have the focus
        if page.locator(".jp-Dialog input:focus").count():
            break
        page.keyboard.press("Tab")
    page.keyboard.type(f"{name}\n")
    ask(page, READY)
    choose_command(page, "Run All Cells", lambda: in_kernel(page, "", "get_ipython().execution_count") > 1)
    codes = len(re.findall('"cell_type": "code"', (ROOT / "notebooks" / name).read_text(encoding="utf-8")))
    for _ in range(300):
        if in_kernel(page, "", "get_ipython().execution_count") > codes:
            break
        page.wait_for_timeout(500)
    while not ask(page, ACTIVE).startswith("widgets."):
        go_up(page)
    explorer = Explorer(page, ask(page, INDEX))
    focused = explorer.box.locator(":focus")
    for _ in range(12):  # past the buttons of the cell, if they are there
        page.keyboard.press("Tab")
        if focused.count():
            break
    for tag in ["INPUT", "INPUT", *["BUTTON"] * 12, "INPUT", "BUTTON"]:  # 8 p-values, 4 procedures; Reset
        assert focused.evaluate("control => control.tagName") == tag
        if tag == "INPUT" or focused.inner_text() in ("prw", "holm", "Reset"):
            explorer.press(focused)
        page.keyboard.press("Tab")
    assert explorer.texts()[:2] == ["0.05", "0.1"]  # the last one put all back


def go_up(page):
    """To the cell above; JupyterLab loses the focus now and then when outputs arrive, and a command finds it again."""
    index = ask(page, INDEX)
    assert index > 0
    page.keyboard.press("k")
    if not soon(page, lambda: ask(page, INDEX) < index):
        choose_command(page, "Select Cell Above", lambda: ask(page, INDEX) < index)


def choose_command(page, name, done):
    """Choose a command from JupyterLab's list of commands, until `done()` says so.

    The list closes where something else takes the focus meanwhile: then once more, as a reader would.
    """
    for _ in range(6):
        page.keyboard.press("Control+Shift+C")
        if soon(page, page.locator(".lm-CommandPalette-input:focus").is_visible):
            page.keyboard.type(name)
            if soon(page, page.locator(".lm-CommandPalette-item.lm-mod-active", has_text=name).is_visible):
                page.keyboard.press("Enter")
                if soon(page, done):
                    return
        page.keyboard.press("Escape")
    raise AssertionError(f"{name}: JupyterLab does not do it")


def soon(page, done):
    """Whether `done()` is true within fifteen seconds."""
    end = time.monotonic() + 15
    while not (found := done()) and time.monotonic() < end:
        page.wait_for_timeout(50)
    return found
