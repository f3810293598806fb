"""The lessons are one course: titles, tables and links are those of the one list, `course.notebooks.LESSONS`."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from confprune_edu.course.notebooks import LESSONS, course_notebooks

ROOT = Path(__file__).parents[2]
NAMES = [lesson.name for lesson in LESSONS]
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}


def texts(name):
    """The markdown cells of a lesson."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def text(name):
    return "\n\n".join(texts(name))


def number(name):
    return name[:2]


def enumerated(words):
    """The numbers of the lessons in "00 to 04, 06 and 07"."""
    found = []
    for first, last in re.findall(r"(\d\d)(?: to (\d\d))?", words):
        found += [f"{value:02d}" for value in range(int(first), int(last or first) + 1)]
    return found


def test_the_list_is_what_lies_in_the_folder_numbered_from_00():
    assert [path.stem for path in course_notebooks(ROOT / "notebooks")] == NAMES
    assert [number(name) for name in NAMES] == [f"{count:02d}" for count in range(len(NAMES))]


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)
def test_a_lesson_begins_with_its_number_and_its_question(lesson):
    head = texts(lesson.name)[0]
    assert head.splitlines()[0] == f"# {number(lesson.name)} · {lesson.question}"
    assert re.search(r"\*\*Needs torch:\*\* (\w+)", head)[1] == ("yes" if lesson.torch else "no")


def study_minutes(name):
    """An estimate: 200 words a minute, a minute a code cell (read, run, look), ten minutes an exercise."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = sum(cell["cell_type"] == "code" for cell in cells)
    exercises = re.findall(r"^\*\*\d\. ", text(name).partition("\n## Exercises\n")[2], re.MULTILINE)
    assert exercises
    return len(text(name).split()) / 200 + code + 10 * len(exercises)


@pytest.mark.parametrize("name", NAMES)
def test_the_study_time_is_right_within_a_third(name):
    (stated,) = re.findall(r"\*\*Study time:\*\* about (\d+) min with the exercises\.", texts(name)[0])
    assert 2 / 3 < int(stated) / study_minutes(name) < 4 / 3, study_minutes(name)


@pytest.mark.parametrize(("lesson", "following"), [*pairwise(LESSONS), (LESSONS[-1], None)])
def test_a_lesson_ends_with_a_link_to_the_next(lesson, following):
    links = re.findall(r"^\*\*Next:\*\* (.*)$", texts(lesson.name)[-1], re.MULTILINE)
    assert links == [f"[{number(f.name)} · {f.question}]({f.name}.ipynb)" for f in [following] if f]


def test_the_table_of_lesson_00_is_the_list():
    rows = re.findall(r"^\| \[(\d\d)\]\((\w+)\.ipynb\) \| (.*?) \| .+ \|$", text(NAMES[0]), re.MULTILINE)
    assert rows == [(number(lesson.name), lesson.name, lesson.question) for lesson in LESSONS]


def test_the_table_of_the_readme_is_the_list():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d\d) [^]]+\]\(notebooks/(\w+)\.ipynb\) \| (.*?) \| (\w+) \|", readme, re.MULTILINE)
    assert rows == [(number(x.name), x.name, x.question, "yes" if x.torch else "no") for x in LESSONS]


def test_what_lesson_00_says_of_the_others_is_so():
    """Which need no torch, which have exercises with a checker."""
    (torchless,) = re.findall(r"Lessons ([\d, toand]+) need no torch", text(NAMES[0]))
    assert enumerated(torchless) == [number(lesson.name) for lesson in LESSONS if not lesson.torch]
    assert "Every lesson has exercises with a checker." in text(NAMES[0])
    with_a_checker = [path.stem[-2:] for path in sorted((ROOT / "confprune_edu" / "exercises").glob("lesson_*.py"))]
    assert with_a_checker == [number(name) for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_the_lesson_that_they_name(name):
    """Before a lesson only lessons with smaller numbers are asked for."""
    links = re.findall(r"\[([^][]*)\]\((\w+)\.ipynb\)", text(name))
    assert [link for link in links if link[1] not in NAMES or link[0][:2] != number(link[1])] == []
    (wanted,) = re.findall(r"\*\*You need\*\*.*", text(name))
    assert all(needed < number(name) for needed in re.findall(r"\[(\d\d)\]", wanted))


# A number in words is the length of the list that it announces

ENTRY = r"(?:\d+\.|[-*]|\|)"  # how a line of a list or of a table begins
ANNOUNCED = re.compile(
    rf"((?:^(?!{ENTRY}|#|\s*$).+\n)+)\n?((?:^{ENTRY} .*\n+(?:^ +\S.*\n+)*|^\|[-|]+\n)+)", re.MULTILINE
)


def announcements(cell):
    """(A sentence with numbers in words, these numbers, the length of the list or table that follows it directly)."""
    for paragraph, entries in ANNOUNCED.findall(f"{cell}\n"):
        sentence = re.split(r"(?<=[.!?]) ", " ".join(paragraph.split()))[-1]
        numbers = [NUMBERS[word] for word in re.findall(r"\w+", sentence.lower()) if word in NUMBERS]
        if numbers:
            length = len(re.findall(rf"^{ENTRY} ", entries, re.MULTILINE))
            yield sentence, numbers, length - entries.startswith("|")  # less the head of a table


def test_announcements():
    cell = """Twice two. Here are\nthree ways:\n\n1. a\n2. b\n   goes on\n\n3. c\n\nNo number:\n- a

Two kinds, all new:\n\n| kind | what |\n|---|---|\n| a | b |\n\n## Four\n- a"""
    assert list(announcements(cell)) == [("Here are three ways:", [3], 3), ("Two kinds, all new:", [2], 1)]


@pytest.mark.parametrize("name", NAMES)
def test_a_sentence_announces_as_many_as_follow(name):
    found = [announced for cell in texts(name) for announced in announcements(cell)]
    assert [(sentence, length) for sentence, numbers, length in found if length not in numbers] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_heading_announces_as_many_traps_as_follow(name):
    for word, section in re.findall(r"^### (\w+) traps\n(.*?)(?=^#|\Z)", text(name), re.MULTILINE | re.DOTALL):
        assert len(re.findall(r"^\*\*", section, re.MULTILINE)) == NUMBERS[word.lower()]


def test_lesson_00_counts_what_a_certificate_does_not_say():
    (word,) = re.findall(r"and (\w+) things that it does not say", text(NAMES[0]))
    (section,) = re.findall(r"## What the guarantee does not say\n(.*?)\n## ", text(NAMES[0]), re.DOTALL)
    assert len(re.findall(r"^\d\. ", section, re.MULTILINE)) == NUMBERS[word]
