"""The words against a rule of spelling, the dictionary against a small one by hand, and the command."""

import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from confprune_edu import data
from confprune_edu.data import __main__, assets

DICTIONARY = """\
'tis T IH1 Z
a AH0
a(2) EY1
aalborg AO1 L B AO0 R G # place, danish
aalborg(2) AA1 L B AO0 R G
fire F AY1 ER0
fire(2) F AY1 R
hmm HH M
zebra Z IY1 B R AH0
abcdefghijklmnopq EY1
o'neil OW0 N IY1 L
radioactivity R EY2 D IY0 OW0 AE2 K T IH1 V AH0 T IY0
unconstitutional AH2 N K AA2 N S T AH0 T UW1 SH AH0 N AH0 L
"""


@pytest.fixture
def dictionary(tmp_path):
    path = tmp_path / "cmudict.dict"
    path.write_text(DICTIONARY, encoding="utf-8")
    return path


def test_words_letters_and_counts_belong_together():
    letters, counts, words = data.words5k()
    assert letters.shape == (5000, 16) and letters.dtype == counts.dtype == np.int64
    assert len(set(words.tolist())) == 5000
    for row, word in zip(letters.tolist(), words.tolist(), strict=True):
        assert [ord(letter) - 96 for letter in word] + [0] * (16 - len(word)) == row
    assert set(counts.tolist()) == {1, 2, 3, 4, 5, 6}


def test_counts_are_those_of_the_spelling_where_it_is_regular():
    """Consonants and single vowels in turn, without e and y: a syllable a vowel, but for Mc and -ism."""
    _, counts, words = data.words5k()
    regular = [re.fullmatch(r"([b-df-hj-np-tv-xz]+[aiou])+[b-df-hj-np-tv-xz]*", word) is not None for word in words]
    spelled = np.array([len(re.findall("[aiou]", word)) for word in words])
    assert sum(regular) > 1000
    assert (spelled == counts)[regular].mean() > 0.97
    known = dict(zip(words.tolist(), counts.tolist(), strict=True))
    assert [known[word] for word in ("pub", "monkey", "werewolf", "embraceable", "administratively")] == [1, 2, 2, 4, 6]


def test_every_slice_is_mixed():
    _, counts, words = data.words5k()
    for values in (counts, np.char.str_len(words), np.char.startswith(words, "s")):
        means = values.reshape(10, 500).mean(axis=1)
        assert (np.abs(means - values.mean()) < 4 * values.std() / 500**0.5).all()


def test_words_run_where_torch_is_missing():
    code = """
import sys
sys.modules.update(dict.fromkeys(["torch", "torchvision"]))
from confprune_edu import data
letters, counts, words = data.words5k()
print(letters.shape, counts.shape, words.shape)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "(5000, 16) (5000,) (5000,)"


@pytest.mark.parametrize("word", ["", "Zebra", "o'neil", "a b", "naïve", "abcdefghijklmnopq", "zebra\n"])
def test_spell_refuses_what_no_network_knows(word):
    with pytest.raises(ValueError, match="words has"):
        data.spell(["zebra", word])
    with pytest.raises(ValueError, match="words has"):
        data.spell(word)


def test_spell_of_one_word_and_of_none():
    assert data.spell("zebra").tolist() == data.spell(["zebra"]).tolist()
    assert data.spell([]).shape == (0, 16)


def test_dictionary_keeps_words_with_one_count(dictionary):
    words, counts = data.cmudict(dictionary)
    found = dict(zip(words.tolist(), counts.tolist(), strict=True))
    assert found == {"a": 1, "aalborg": 2, "zebra": 2, "unconstitutional": 6}


def test_command_writes_what_words5k_reads(dictionary, tmp_path, monkeypatch, capsys):
    out = tmp_path / "words5k.npz"
    __main__.main(["words5k", "--cmudict", str(dictionary), "--out", str(out)])
    size, sha256 = out.stat().st_size, capsys.readouterr().out.split()[-1]
    monkeypatch.setattr(assets, "ASSETS", tmp_path)
    monkeypatch.setitem(data.CHECKSUMS, out.name, (size, sha256))
    letters, counts, words = data.words5k()
    assert words.tolist() == data.cmudict(dictionary)[0].tolist() and len(letters) == len(counts) == 4


def test_command_asks_for_the_dictionary(capsys):
    with pytest.raises(SystemExit):
        __main__.main(["words5k"])
    assert "needs --cmudict" in capsys.readouterr().err


def test_an_order_that_the_word_alone_decides(dictionary):
    """Another edition of the dictionary moves no word from those that ship to those of the training."""
    words = data.cmudict(dictionary)[0].tolist()
    dictionary.write_text(DICTIONARY.replace("zebra Z", "zebras Z"), encoding="utf-8")
    assert [word for word in data.cmudict(dictionary)[0].tolist() if word != "zebras"] == [
        word for word in words if word != "zebra"
    ]


def test_the_most_frequent_words_and_surnames_are_known_as_such():
    zipf, listed = data.word_usage()
    words = data.words5k()[2].tolist()
    assert zipf.shape == listed.shape == (5000,) and zipf.dtype == np.float64 and listed.dtype == bool
    assert ((zipf == 0) | ((zipf >= 1) & (zipf < 8))).all()
    of = dict(zip(words, zip(zipf.tolist(), listed.tolist(), strict=True), strict=True))
    assert of["neither"][0] > of["monkey"][0] > of["werewolf"][0] > of["vantrease"][0] == 0
    assert [of[word][1] for word in ("fitzgerald", "vantrease", "balloon", "monkey", "werewolf")] == [1, 1, 1, 0, 0]


def test_rare_words_and_names_are_everywhere():
    zipf, listed = data.word_usage()
    for values in (zipf, listed, listed & (zipf < 3)):
        means = values.reshape(10, 500).mean(axis=1)
        assert (np.abs(means - values.mean()) < 4 * values.std() / 500**0.5).all()


def test_command_writes_what_word_usage_reads(tmp_path, monkeypatch, capsys):
    """Of two small sources: the true ones are no part of what the tests need."""
    words = data.words5k()[2].tolist()
    names = tmp_path / "dist.all.last"
    listed = "".join(f"{word.upper():<14} 0.006 7.5 8\n" for word in words[::7])
    names.write_text(f"ZZYZX 0.001 90.0 1\n{listed}", encoding="utf-8")
    known = {word: i / 1000 for i, word in enumerate(words)}
    look_up = {("en", "large"): lambda word: round(known[word], 2)}
    wordfreq = SimpleNamespace(zipf_frequency=lambda word, lang, wordlist: look_up[lang, wordlist](word))
    monkeypatch.setitem(sys.modules, "wordfreq", wordfreq)
    monkeypatch.setitem(sys.modules, "names", SimpleNamespace(FILES={"last": str(names)}))
    out = tmp_path / "word-usage.npz"
    __main__.main(["word-usage", "--out", str(out)])
    size, sha256 = out.stat().st_size, capsys.readouterr().out.split()[-1]
    shutil.copy(assets.ASSETS / "words5k.npz", tmp_path)
    monkeypatch.setattr(assets, "ASSETS", tmp_path)
    monkeypatch.setitem(data.CHECKSUMS, out.name, (size, sha256))
    zipf, listed = data.word_usage()
    assert zipf.tolist() == [round(known[word], 2) for word in words] and listed.nonzero()[0].tolist() == [
        *range(0, 5000, 7)
    ]
