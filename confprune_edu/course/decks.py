"""A lesson as slides: one claim and one figure a slide, no code, and the lesson's prose as the speaker's notes.

A claim stands in the metadata of the cell that draws the figure, as `claim`; without one, the section's heading serves.
"""

import base64
import html
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path

from nbformat import NotebookNode

from confprune_edu.course.notebooks import course_notebooks, read_notebook

LISTS = ("What the guarantee does not say", "Recap")  # sections of which the items are shown
LEFT_OUT = "Exercises"
ROOM = 350  # letters of a paragraph that is shown whole


@dataclass
class Slide:
    """A claim with a figure or a few lines; above it, small, the section; with it, unseen, what the lesson says."""

    section: str
    claim: str = ""
    png: str = ""  # base64
    alt: str = ""
    notes: list[str] = field(default_factory=list)

    def lines(self) -> str:
        """What is shown where there is no figure: the items of a list, a table, or how the text begins."""
        text = re.sub(r"<details>.*?</details>", "", "\n\n".join(self.notes), flags=re.DOTALL)  # answers
        if self.section in LISTS:
            items = re.findall(r"^(\d+\.|-) (.+(?:\n +.+)*)", text, re.MULTILINE)
            return "\n".join(f"{sign} {sentences(item)}" for sign, item in items)
        if table := re.search(r"^\|.*(?:\n\|.*)*", text, re.MULTILINE):
            return table[0]
        parts = re.split(r"\n\s*\n", text)
        for part, after in zip(parts, [*parts[1:], ""], strict=True):
            if re.match(r"[\w*`$\"(]", part) and not part.startswith("$$"):
                return beginning(part, after)
        return ""


def beginning(part: str, after: str) -> str:
    """A paragraph, or those of its sentences that fit; one that needs what comes after it gets a formula or goes.

    >>> beginning("It is so. The reasons:", "- first"), beginning("The mean is", "$$x$$")
    ('It is so.', 'The mean is\\n\\n$$x$$')
    """
    shown = part if len(part) < ROOM else sentences(part, ROOM)
    if re.search(r"[.?!][*)\"]*$", shown):
        return shown
    return f"{shown}\n\n{after}" if after.startswith("$$") else shown[: shown.rfind(". ") + 1] or shown


def sentences(text: str, room: int = 0) -> str:
    """The sentences of a paragraph that fit, on one line; at least the first one.

    >>> sentences("**A mask\\nis not small.** It is 3.5 times as large. Is it? Yes.")
    '**A mask is not small.**'
    >>> sentences("**A mask\\nis not small.** It is 3.5 times as large. Is it? Yes.", 53)
    '**A mask is not small.** It is 3.5 times as large.'
    """
    line, end = " ".join(text.split()), r"[.?!](?:\*+|\))?(?= [A-Z*`$(]|$)"
    found = re.match(f".{{,{room}}}{end}", line) or re.match(f".+?{end}", line)
    return found[0] if found else line


def slides(notebook: NotebookNode) -> list[Slide]:
    """The slides of a lesson, the title first; exercises, code and explorers without a claim are left out."""
    made = [Slide("")]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            source = re.sub(r"(\]\([\w-]+)\.ipynb\b", r"\1.md", cell.source)  # links to lessons lead to their decks
            prose, *parts = re.split(r"^##? +", source, flags=re.MULTILINE)
            made[-1].notes.append(prose.strip())
            for part in parts:
                heading, _, prose = part.partition("\n")
                made += [Slide(heading.strip(), notes=[prose.strip()])]
        explorer = re.search(r"^widgets\.\w+\(", cell.source, re.MULTILINE) and "claim" not in cell.metadata
        for output in cell.get("outputs", []) if not explorer else []:
            if png := output.get("data", {}).get("image/png"):
                if made[-1].png:
                    made += [Slide(made[-1].section)]
                alt = re.search(r'alt="([^"]*)"', output.data.get("text/html", ""))
                made[-1].claim, made[-1].png = cell.metadata.get("claim", ""), png
                made[-1].alt = html.unescape(alt[1]) if alt else ""
    return [slide for slide in made if slide.section not in ("", LEFT_OUT)]


def deck(notebook: NotebookNode, name: str, folder: Path) -> None:
    """Write the slides of a lesson into `folder`: `name`.md in MyST's Markdown, and its figures."""
    title, *others = slides(notebook) or [Slide(name)]
    parts = [f"# {title.section}", f"{{.lead}}\n{title.lines()}", aside(title)]
    for number, slide in enumerate(others):
        parts += [f"## {slide.claim or slide.section}"]
        parts += [f"{{.section}}\n{slide.section}"] if slide.claim else []
        if slide.png:
            (folder / f"{name}-{number}.png").write_bytes(base64.b64decode(slide.png))
            alt = re.sub(r"([\\\[\]*_`$<&])", r"\\\1", slide.alt)
            parts += [f"![{alt}]({name}-{number}.png)"]
        else:
            parts += [slide.lines()]
        parts += [aside(slide)]
    (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def aside(slide: Slide) -> str:
    """The notes, which reveal.js shows to the speaker: formulas as LaTeX."""
    text = "\n\n".join(slide.notes)
    text = re.sub(r"(?<!`)(\${1,2})([^$`]+)\1", lambda found: f"`{' '.join(found[2].split())}`", text)
    text = re.sub(r"^#+ (.+)$", r"**\1**", text, flags=re.MULTILINE)
    return f'<aside class="notes">\n\n{text}\n\n</aside>'


def cover(folder: Path) -> Path:
    """Write the README's picture, the last one before the headline of lesson 00, beside the lessons in `folder`."""
    lesson = read_notebook(course_notebooks(folder)[0])
    before = itertools.takewhile(lambda cell: "headline" not in cell.metadata.get("tags", []), lesson.cells)
    outputs = [output.get("data", {}) for cell in before for output in cell.get("outputs", [])]
    drawn = [bundle["image/png"] for bundle in outputs if "image/png" in bundle]
    (folder / "cover.png").write_bytes(base64.b64decode(drawn[-1]))
    return folder / "cover.png"
