#!/usr/bin/env bash
# The fast part of the tests, in fresh environments, on the versions that pyproject.toml allows; needs uv. A table ends it.
#
#   tests/matrix.sh                          # all that can be had here; 6 GB at a time
#   tests/matrix.sh lowest-direct 3.11       # one resolution, one or more Pythons, by version or path
#   UV_PYTHON_DOWNLOADS=automatic tests/matrix.sh   # fetches the Pythons that are missing
set -uo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH VIRTUAL_ENV
export UV_PYTHON_DOWNLOADS="${UV_PYTHON_DOWNLOADS:-never}"

table="$(mktemp)"
work="$(mktemp -d)"
trap 'rm -rf "$work" "$table"' EXIT
failed=0

row() { printf '%-14s %-14s %s\n' "$@" >>"$table"; }

one() { # RESOLUTION PYTHON
    rm -rf "$work/env"
    if ! uv venv -q --python "$2" "$work/env"; then
        row "$1" "$2" "no such Python here"
        return 2
    fi
    local python="$work/env/bin/python"
    if ! uv pip install -q --python "$python" --resolution "$1" -e ".[test]"; then
        row "$1" "$2" "cannot be installed"
        return 1
    fi
    "$python" -m pytest -q -m "not long" confprune_edu tests/core tests/engine tests/selective tests/data |
        tee "$work/log"
    local code=$? versions
    versions="$("$python" -c 'import platform
from importlib.metadata import version
print(platform.python_version(), *(f"{name} {version(name)}" for name in ("numpy", "scipy", "torch", "matplotlib")), sep=", ")')"
    row "$1" "$2" "$(tail -n 1 "$work/log") ($versions)"
    return "$code"
}

if [ $# -gt 0 ]; then
    for python in "${@:2}"; do
        one "$1" "$python" || failed=1 # asked for by name: a Python that is missing is a failure, too
    done
else
    # the lowest versions have no wheels for the later Pythons
    one lowest-direct 3.11 || [ $? -eq 2 ] || failed=1
    for python in 3.11 3.12 3.13 3.14; do
        one highest "$python" || [ $? -eq 2 ] || failed=1
    done
fi

cat "$table"
exit "$failed"
