"""The `confprune` command: open the course in JupyterLab, list its notebooks, run them.

    confprune start lessons
    confprune list
    confprune run 05 -p alpha 0.05
    confprune html --out site
    confprune classroom monday
    confprune doctor

Nothing but `course` imports this module. It imports papermill where notebooks are read, so that `confprune --help`
answers at once.
"""

import argparse
import importlib.util
import io
import json
import logging
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from confprune_edu import __version__
from confprune_edu.course import notebooks, runner
from confprune_edu.course.notebooks import Refused
from confprune_edu.memory import available_mb

VERDICTS = {  # of `confprune verify`; None: nobody knows
    True: "{file}: verified, {network}\n{claim}\n",
    False: "{file}: DOES NOT HOLD: {problem}\n",
    None: "{file}: NOT READ: {problem}\n",
}


def list_command(arguments: Namespace) -> int:
    """`confprune list`: print every notebook."""
    print("\n".join(notebooks.listing(path) for path in notebooks.course_notebooks(notebooks.notebooks_folder())))
    return 0


def run_command(arguments: Namespace) -> int:
    """`confprune run`: refuse what cannot be done, run, print the table; 1 if a notebook failed."""
    folder = notebooks.notebooks_folder()
    chosen = notebooks.choose(arguments.names, notebooks.course_notebooks(folder))
    assigned = notebooks.assign({name: notebooks.parameter_value(text) for name, text in arguments.parameters}, chosen)
    output_dir = notebooks.make_output_dir(arguments.out, folder)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it reports failures a second time, across the bar
    jobs = runner.side_by_side(available_mb()) if arguments.jobs is None else arguments.jobs
    outcomes = runner.run_notebooks(assigned, output_dir, timeout=arguments.timeout, jobs=jobs)
    print(runner.summary(outcomes))
    print(f"\nThe executed copies are in {output_dir.resolve()}")
    return int(any(outcome.failure for outcome in outcomes))


def start_command(arguments: Namespace) -> int:
    """`confprune start`: the lessons as the reader's own copy; become JupyterLab on it, its token left on."""
    folder = notebooks.notebooks_folder()
    copies = notebooks.make_output_dir(arguments.folder, folder).resolve()
    new, lessons = notebooks.copy_lessons(folder, copies), notebooks.course_notebooks(folder)
    print(f"{copies}: {len(new)} of {len(lessons)} lessons copied; what was there stays (to begin one anew, delete it)")
    if getattr(os, "geteuid", lambda: -1)() == 0 and "--allow-root" not in arguments.extra:
        print("You are root, whom JupyterLab serves only if asked to: confprune start ... -- --allow-root")
    first = lessons[0].name
    options = [f"--ServerApp.root_dir={copies}", f"--LabApp.default_url=/lab/tree/{first}", "--ServerApp.ip=127.0.0.1"]
    return become("jupyterlab", options, "--ServerApp.port", arguments)


def app_command(arguments: Namespace) -> int:
    """`confprune app`: become voila on one explorer, without code, on this machine only."""
    if importlib.util.find_spec("voila") is None:
        raise Refused('the dashboard needs voila: python -m pip install "voila>=0.5.8"')
    options = [str(Path(__file__).resolve().parent / "app.ipynb"), "--Voila.ip=127.0.0.1"]
    return become("voila", options, "--port", arguments)


def lite_command(arguments: Namespace) -> int:
    """`confprune lite`: write the lessons for the browser and say how to look at them."""
    if not all(map(importlib.util.find_spec, ("jupyterlite_core", "jupyterlite_pyodide_kernel"))):
        raise Refused("this needs JupyterLite: python -m pip install jupyterlite-core jupyterlite-pyodide-kernel")
    from confprune_edu.course import lite

    folder = notebooks.notebooks_folder()
    out = notebooks.make_output_dir(arguments.folder, folder)
    print(f"{', '.join(lite.build(folder, out))}: for any web server, or: python -m http.server -d {out}")
    return 0


def become(module: str, options: Sequence[str], port: str, arguments: Namespace) -> int:
    """Replace this process by `python -m module`, so that Ctrl-C and signals reach it directly.

    Kernels take one thread, as in `confprune run`, and JupyterLab asks nobody whether to fetch news.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings = [str(Path(__file__).resolve().parent / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, settings))
    chosen = [] if arguments.port is None else [f"{port}={arguments.port}"]
    command = [sys.executable, "-m", module, *options, *chosen, *arguments.extra]
    sys.stdout.flush()  # what was printed would be lost with this process
    if sys.platform == "win32":  # exec on Windows splits paths at their spaces and gives the prompt back at once
        return subprocess.call(command)
    os.execv(command[0], command)


def bench_command(arguments: Namespace) -> int:
    """`confprune bench`: measure, print the tables, draw them if asked for."""
    from confprune_edu.course import benchmark

    if arguments.chart is not None:
        with arguments.chart.open("ab"):  # a file that cannot be written is refused before minutes of measuring
            pass
    benchmark.measure(arguments.quick, arguments.chart)
    return 0


def doctor_command(arguments: Namespace) -> int:
    """`confprune doctor`: 1 if this machine is not ready."""
    from confprune_edu.course import doctor

    return int(doctor.examine() > 0)


def html_command(arguments: Namespace) -> int:
    """`confprune html`: write the static site and say where it begins."""
    from confprune_edu.course import site

    folder = arguments.source or notebooks.notebooks_folder()
    if not notebooks.course_notebooks(folder):
        raise Refused(f"no notebook found in {folder}")
    index, *pages = site.build(folder, notebooks.make_output_dir(arguments.out, folder))
    print(f"{len(pages)} pages; the course begins at {index}")
    return 0


def verify_command(arguments: Namespace) -> int:
    """`confprune verify`: the claim of every file that holds, what is wrong with the others.

    1 if a file does not hold, 2 if one cannot be read.
    """
    from confprune_edu import certificates

    rows: list[dict[str, Any]] = []
    for path in arguments.files:
        try:
            found = certificates.verify(path)
            rows.append({"file": str(path), "holds": True, "network": found.saved["network"], "claim": str(found)})
        except FileNotFoundError:
            rows.append({"file": str(path), "holds": None, "problem": "there is no such file"})
        except OSError as problem:
            rows.append({"file": str(path), "holds": None, "problem": str(problem)})
        except (ValueError, TypeError) as problem:
            rows.append({"file": str(path), "holds": False, "problem": str(problem)})
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        print("\n".join(VERDICTS[row["holds"]].format(**row) for row in rows))
    return max({True: 0, False: 1, None: 2}[row["holds"]] for row in rows)


def card_command(arguments: Namespace) -> int:
    """`confprune card`: the model card of a file that holds."""
    from confprune_edu import certificates
    from confprune_edu.course import card

    try:
        arguments.out.write_text(card.page(certificates.verify(arguments.file)), encoding="utf-8")
    except (OSError, ValueError, TypeError) as problem:
        raise Refused(f"{arguments.file}: {problem}") from None
    print(f"the model card is in {arguments.out}")
    return 0


def classroom_command(arguments: Namespace) -> int:
    """`confprune classroom`: write a class for nbgrader and say what comes next."""
    from confprune_edu.course import classroom

    made = classroom.build(notebooks.notebooks_folder(), arguments.folder)
    print(f"{len(made)} assignments in {arguments.folder.resolve()}; begin with teach.md")
    return 0


def whole(low: int, high: int = sys.maxsize) -> Callable[[str], int]:
    """What reads an int from `low` to `high`, for argparse."""

    def read(text: str) -> int:
        if text.isdecimal() and low <= int(text[:20]) <= high:
            return int(text)
        limit = "" if high == sys.maxsize else f" to {high}"
        raise argparse.ArgumentTypeError(f"must be a whole number from {low}{limit or ' on'}, got {text!r:.99}")

    return read


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; each subcommand sets `command`, a function of the arguments."""
    parser = argparse.ArgumentParser(
        prog="confprune", description="The notebooks on confident pruning: list them, run them, open them."
    )
    parser.add_argument("--version", action="version", version=f"confprune {__version__}")
    commands = parser.add_subparsers(title="commands")
    for add in (add_course, add_pages, add_certificates, add_machine):
        add(commands)
    return parser


def add_course(commands: Any) -> None:
    """The lessons in Jupyter: open, list, run."""
    start = commands.add_parser("start", aliases=["lab"], help="copy the lessons once, open the copies in JupyterLab")
    start.set_defaults(command=start_command)
    lessons = Path("lessons")
    start.add_argument("folder", nargs="?", type=Path, default=lessons, metavar="DIR", help="your copy (%(default)s)")
    app = commands.add_parser("app", help="one explorer as a web page, with voila")
    app.set_defaults(command=app_command)
    for opened in (start, app):
        opened.epilog = "What follows -- is handed on, such as: -- --no-browser"
        opened.add_argument("--port", type=whole(0, 65535), help="port on 127.0.0.1; 0: any free one")
    listed = commands.add_parser("list", help="the notebooks, their run times and their parameters")
    listed.set_defaults(command=list_command)
    run = commands.add_parser("run", help="execute notebooks; the originals stay as they are")
    run.set_defaults(command=run_command)
    add = run.add_argument
    add("names", nargs="*", metavar="NAME", help="a notebook or the start of its name, such as 05; default: all")
    add("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="set a parameter")
    add(
        "--out",
        "--output-dir",
        type=Path,
        default=Path("executed"),
        metavar="DIR",
        help="folder of the executed copies (%(default)s)",
    )
    add("--jobs", type=whole(1), metavar="N", help="notebooks run side by side (one a core, while memory allows)")
    add("--timeout", type=whole(1), default=600, metavar="S", help="seconds that one cell may take (%(default)s)")


def add_pages(commands: Any) -> None:
    """The lessons elsewhere: a book, a class, a browser."""
    site = commands.add_parser("html", help="write the executed course as a static site, with slides")
    site.set_defaults(command=html_command)
    site.add_argument("--out", type=Path, default=Path("site"), metavar="DIR", help="folder of the site (%(default)s)")
    site.add_argument("--source", type=Path, metavar="DIR", help="folder of executed notebooks; default: as shipped")
    taught = commands.add_parser("classroom", help="the exercises as assignments for nbgrader, with an answer key")
    taught.set_defaults(command=classroom_command)
    taught.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    light = commands.add_parser(
        "lite",
        help="the lessons without torch as a JupyterLite folder, run in the reader's browser",
        description="When a lesson starts, the browser fetches Python (Pyodide) and ipywidgets from the network. "
        "Tested are the folder and what the lessons import, but not that a browser runs them: this needs the network.",
    )
    light.set_defaults(command=lite_command)
    light.add_argument("folder", nargs="?", type=Path, default=Path("lite"), metavar="DIR", help="(%(default)s)")


def add_certificates(commands: Any) -> None:
    """What a certified file holds."""
    verify = commands.add_parser("verify", help="do these files still hold what was certified?")
    verify.set_defaults(command=verify_command)
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="what the method save of a result wrote")
    verify.add_argument("--json", action="store_true", help="one JSON list in place of text")
    card = commands.add_parser("card", help="the model card of a certified network, one web page")
    card.set_defaults(command=card_command)
    card.add_argument("file", type=Path, metavar="FILE", help="what the method save of a result wrote")
    card.add_argument("--out", type=Path, default=Path("card.html"), metavar="HTML", help="page (%(default)s)")


def add_machine(commands: Any) -> None:
    """This machine: how fast, and is it ready?"""
    measured = commands.add_parser("bench", help="how fast a loss table is here, against the usual ways")
    measured.set_defaults(command=bench_command)
    measured.add_argument("--quick", action="store_true", help="small sizes, one round: does it work?")
    measured.add_argument("--chart", type=Path, metavar="FILE", help="PNG file to draw the tables into")
    ready = commands.add_parser("doctor", help="is this machine ready for the course?")
    ready.set_defaults(command=doctor_command)


def spread(words: Sequence[str]) -> list[str]:
    """The words of a command line, in which -p KEY=VALUE stands for -p KEY VALUE.

    >>> spread(["run", "05", "-p", "alpha=0.2"])
    ['run', '05', '-p', 'alpha', '0.2']
    """
    return [part for last, word in pairwise(["", *words]) for part in (word.split("=", 1) if last == "-p" else [word])]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `confprune` command.

    Returns
    -------
    int, the exit code: 0 all is well, 1 a notebook failed or a file does not hold, 2 refused before anything ran or a
    file cannot be read or written, 130 interrupted, 141 nobody reads the output.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows ASCII only shows ? for a Greek letter
    parser = build_parser()
    words = spread(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_args(words[:end])
    arguments.extra = words[end + 1 :]
    if arguments.extra and "port" not in arguments:
        parser.error("only start and app hand on what follows --")
    if "command" not in arguments:
        parser.print_help()
        return 0
    try:
        code = arguments.command(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tells at its end
        return 141  # as of other programs that a closed pipe ends
    except (Refused, OSError) as refusal:
        print(f"confprune: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("confprune: interrupted; the kernels have ended", file=sys.stderr)
        return 130
