"""The course as a whole: its notebooks, the `confprune` command that lists and runs them, its pages, its benchmark."""

from confprune_edu.course.command import main as main
