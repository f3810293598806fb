"""The course as a reader has it: the real JupyterLab, offline, in a real browser, moved by keyboard and by mouse.

Needs Debian's chromium (apt-get install chromium fonts-dejavu-core); another one is named by CONFPRUNE_CHROMIUM.
Screenshots of all explorers are left in tests/screenshots. The times from a key to the new figure are printed at the
end of the run as a benchmark; no test depends on them.
"""

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
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCREENSHOTS = ROOT / "tests" / "screenshots"
CHROMIUM = os.environ.get("CONFPRUNE_CHROMIUM") or shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium fonts-dejavu-core")

PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
# Made-up notebooks: a callback that fails now and then; a figure too slow to follow a dragged slider
FAILS = """\
from confprune_edu import widgets
def draw(n):
    if n > 2:
        raise ValueError(f"{n} is more than two")
    return f"n is {n}"
widgets.explore(draw, n=widgets.integer("examples", 2, 1, 3))"""
SLOW = """\
import time
from confprune_edu import plots, widgets
drawn = []
def draw(delta):
    drawn.append(delta)
    time.sleep(widgets.QUICK)
    return plots.sequence(plots.SEQUENCES["an early failure"], delta=delta)
widgets.explore(draw, delta=widgets.slider("error budget delta", 0.1, 0.01, 0.5, 0.01))"""
MADE_UP = {"fails": FAILS, "slow": SLOW}


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


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


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
    seen = list(errors)  # those of the test, not of the end of its kernel
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
    return ask(page, "() => window.jupyterapp.commands.execute('notebook:run-all-cells')")


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
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.sharedModel.source)"""
SCROLL = """index => window.jupyterapp.shell.currentWidget.content.scrollToItem(index, 'start')"""
COLLECT = """
import base64
from confprune_edu import widgets as _widgets
_explore, _widgets.explore = _widgets.explore, lambda draw, **controls: _kept.append((draw, controls))
{source}
_widgets.explore = _explore
def _direct(texts):
    draw, controls = _kept[-1]
    values = {{}}
    for (name, control), text in zip(controls.items(), texts, strict=True):
        options = control.keywords.get("options")
        values[name] = options[int(text)] if options else type(control.keywords["value"])(float(text))
    picture = draw(**values)
    return [picture.alt, base64.b64encode(picture.png()).decode()]
"""
# for each animation frame: when, which figure is in sight (they are counted; -1: none that is whole), its height
WATCH = """explorer => {
    const watch = window.watch = {frames: [], pressed: null, running: true}, seen = new Map();
    explorer.addEventListener('keydown', () => { watch.pressed ??= performance.now(); }, {capture: true, once: true});
    const tick = () => {
        const image = explorer.querySelector('.widget-output img');
        const whole = Boolean(image && image.complete && image.naturalWidth);
        if (whole && !seen.has(image)) seen.set(image, seen.size);
        watch.frames.push([performance.now(), whole ? seen.get(image) : -1, image?.clientHeight]);
        if (watch.running) requestAnimationFrame(tick);
    };
    tick();
}"""
WATCHED = """() => { window.watch.running = false; return window.watch; }"""


# a key that changes a number, a list or a slider, whatever it says
KEY = """control => {
    const last = control.selectedIndex === control.length - 1;
    if (control.tagName === 'SELECT') return last ? 'Home' : 'End';
    if (control.tagName === 'INPUT')
        return Number(control.value) + Number(control.step || 1) > Number(control.max) ? 'ArrowDown' : 'ArrowUp';
    const [now, low, high] = ['now', 'min', 'max'].map(name => Number(control.getAttribute('aria-value' + name)));
    return now - low < high - now ? 'ArrowRight' : 'ArrowLeft';
}"""


class Explorer:
    """The explorer of the cell at `index` of the notebook in front."""

    def __init__(self, page, index):
        self.page = page
        source = page.evaluate(CELLS)[index]
        page.evaluate(SCROLL, index)
        self.box = page.locator(f".jp-Cell[data-windowed-list-index='{index}'] .confprune-explorer")
        self.image = self.box.locator(".widget-output img")
        self.image.wait_for(state="visible", timeout=30_000)
        self.centre()
        self.rows = self.box.locator(".widget-hbox").all()
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
        """What the controls say: numbers as typed, the place of the chosen option of a menu."""
        script = "inputs => inputs.map(input => String(input.selectedIndex ?? input.value))"
        return self.box.locator("input[type=number], select").evaluate_all(script)

    def settle(self, texts):
        """Wait until the controls differ from `texts` and the figure is the one that their values give; both."""
        shown = alt = None
        for _ in range(100):
            now = self.texts()
            if now != texts:
                alt, png = in_kernel(self.page, "", f"_direct({now})")
                shown = [self.image.get_attribute(name) for name in ("alt", "src")]
                if shown == [alt, f"data:image/png;base64,{png}"] and now == self.texts():
                    return now, shown
            self.page.wait_for_timeout(50)
        raise AssertionError(f"from {texts} to {now}: shown {shown and shown[0]}, right {alt}")

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
        assert [i for i, (x, y) in enumerate(zip(texts, after, strict=True)) if x != y] != []
        return shown != shown_after

    def press(self, target, times=1):
        """Press keys on a control, one figure after the other; did any of the figures differ?"""
        changed = []
        for _ in range(times):
            target.focus()
            key = target.evaluate(KEY)
            changed += [self.watched(lambda key=key: self.page.keyboard.press(key))]
        return any(changed)

    def drag(self, handle):
        """Drag the handle of a slider to the middle, then a bit back, as slowly as a hand."""
        grip, track = handle.bounding_box(), handle.locator("xpath=../..").bounding_box()
        x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
        goal = track["x"] + (0.6 if x < track["x"] + track["width"] / 2 else 0.4) * track["width"]

        def hand():
            self.page.mouse.move(x, y)
            self.page.mouse.down()
            for step in range(1, 21):
                self.page.mouse.move(x + (goal - x) * step / 20, y)
                self.page.wait_for_timeout(15)
            self.page.mouse.up()

        return self.watched(hand)

    def has_readable_names(self):
        """Each control is found by its label, which is not cut off, as a screen reader finds it."""
        for row in self.rows:
            label, named = row.locator("label").first, row.locator("input[type=number], select")
            assert label.evaluate("label => label.scrollWidth <= label.clientWidth")
            found = row.get_by_label(label.inner_text(), exact=True)
            assert found.get_attribute("id") == named.get_attribute("id")
        right = self.box.bounding_box()["x"] + self.box.bounding_box()["width"]
        assert all(row.bounding_box()["x"] + row.bounding_box()["width"] <= right for row in self.rows)
        assert self.image.evaluate("image => image.naturalWidth <= image.clientWidth")  # not shrunk

    def put_back(self, named, text):
        """Type the number `text`, or choose from the list, as the control was at first."""
        if named.evaluate("input => input.tagName") == "SELECT":
            named.select_option(index=int(text))
        else:
            named.fill(text)
            named.press("Enter")

    def move_all(self):
        """Move each control by keyboard and by mouse, then put it back; every control must change the figure."""
        for row, text in zip(self.rows, self.texts(), strict=True):
            handle, named = row.locator(".noUi-handle"), row.locator("input[type=number], select")
            assert any([self.drag(handle), self.press(handle, times=2), self.press(named)])
            if row.locator("input, select").evaluate("input => String(input.selectedIndex ?? input.value)") != text:
                self.watched(lambda named=named, text=text: self.put_back(named, text))


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
        page.screenshot(path=SCREENSHOTS / f"{name}-{number}-moved.png")
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


def test_a_slow_figure_is_drawn_when_the_slider_is_let_go(page, lab):
    (explorer,) = explorers(page, lab, "slow")
    in_kernel(page, "drawn.clear()")
    assert explorer.drag(explorer.box.locator(".noUi-handle"))
    assert set(in_kernel(page, "", "drawn")) == {float(explorer.texts()[0])}


def test_the_course_by_keyboard_alone(page, lab):
    """From an empty JupyterLab to a moved figure without a mouse."""
    url, token = lab
    page.goto(f"{url}/lab?reset&token={token}")
    page.wait_for_function("() => window.jupyterapp?.shell", timeout=60_000)
    ask(page, "() => window.jupyterapp.restored")
    choose_command(page, "Open from Path")
    page.locator(".jp-Dialog input:focus").wait_for()
    page.keyboard.type("04_fixed_sequence_testing.ipynb\n")
    ask(page, READY)
    choose_command(page, "Run All Cells")
    for _ in range(100):
        if ask(page, ACTIVE).startswith("widgets."):
            break
        page.keyboard.press("k")  # the cell above
    explorer = Explorer(page, ask(page, "() => window.jupyterapp.shell.currentWidget.content.activeCellIndex"))
    focused = explorer.box.locator(":focus")
    for _ in range(12):  # past the buttons of the cell, if they are there
        page.keyboard.press("Tab")
        if focused.count():
            break
    for tag in ["INPUT", "DIV", "INPUT", "DIV", "SELECT", "DIV", "SELECT", "DIV", "INPUT", "DIV"]:
        assert focused.evaluate("control => control.tagName") == tag  # of each control, its number or list, its slider
        explorer.press(focused)
        page.keyboard.press("Tab")


def choose_command(page, name):
    """Choose a command from JupyterLab's list of commands."""
    found = page.locator(".lm-CommandPalette-input:focus")
    for _ in range(30):  # until JupyterLab listens to keys
        page.keyboard.press("Control+Shift+C")
        page.wait_for_timeout(1000)
        if found.count():
            break
    page.keyboard.type(name)
    page.locator(".lm-CommandPalette-item.lm-mod-active").wait_for()
    page.keyboard.press("Enter")
