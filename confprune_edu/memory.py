"""How much memory is left, and a hint in time: a kernel that is ended for want of memory leaves no message.

    %load_ext confprune_edu.memory

On Binder the extension is loaded in every kernel.
"""

import re
from pathlib import Path
from typing import Any

LOW = 300.0  # MB
HINT = (
    "Only {:.0f} MB of memory are left, and a kernel that needs more is ended without a message. Shut down the kernels "
    "of other notebooks: the second symbol in the left side bar of JupyterLab lists them."
)
# folder, limit, usage and, within memory.stat, what could be given back: of control groups version 2, then 1
CONTROL_GROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup", "memory.high", "memory.current", "inactive_file"),  # beyond it, a process hardly moves
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
# the line of proc/self/cgroup that names this process's own group: no controllers in version 2, "memory" in 1
OWN_GROUP = {"sys/fs/cgroup": r"^0::/(.*)$", "sys/fs/cgroup/memory": r"^\d+:(?:[^:\n]*,)?memory(?:,[^:\n]*)?:/(.*)$"}


def available_mb(root: Path = Path("/")) -> float | None:
    """Memory that can still be taken, in MB of 10**6 bytes: of the machine's, or of a smaller share of it.

    A container has a share, a job of SLURM or systemd another within it: the one with the least left decides.

    Parameters
    ----------
    root : Path
        The folder that holds Linux's proc and sys.

    Returns
    -------
    float, or None where Linux's files do not tell.
    """
    left = [_number(root / "proc/meminfo", r"^MemAvailable:\s*(\d+) kB$", 1024)]
    for folder, limit, usage, inactive in CONTROL_GROUPS:
        for group in _groups(root, folder):
            most, used = (_number(group / name, r"^(\d+)$") for name in (limit, usage))  # "max": no limit
            if most is not None and used is not None:
                left.append(most - used + (_number(group / "memory.stat", rf"^{inactive} (\d+)$") or 0))
    return min((value / 1e6 for value in left if value is not None), default=None)


def hint(root: Path = Path("/")) -> str:
    """What to do about memory that runs low; empty while there is enough, or where it is not known."""
    left = available_mb(root)
    return HINT.format(left) if left is not None and left < LOW else ""


def load_ipython_extension(shell: Any) -> None:
    """Print the hint after each cell that leaves little memory."""
    shell.events.register("post_run_cell", _tell)


def unload_ipython_extension(shell: Any) -> None:
    """Print no hint any more."""
    shell.events.unregister("post_run_cell", _tell)


def _tell(_: Any) -> None:
    if text := hint():
        print(text)


def _groups(root: Path, folder: str) -> list[Path]:
    """The control group of this process and those around it, each of which may set a limit; the outermost is last."""
    own = Path(_found(root / "proc/self/cgroup", OWN_GROUP[folder]) or "")
    if ".." in own.parts:  # outside what this container sees
        own = Path()
    return [root / folder / group for group in (own, *own.parents)]


def _number(path: Path, pattern: str, unit: int = 1) -> int | None:
    """The number that `pattern` finds in a file, times `unit`; None without the file or the number."""
    found = _found(path, pattern)
    return None if found is None else int(found) * unit


def _found(path: Path, pattern: str) -> str | None:
    """What the group of `pattern` matches in a file; None without the file or a match."""
    try:
        found = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None
