"""What the labelled question pairs promise to those who measure guards with them."""

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pytest

FOLDER = Path(__file__).parent / "guard_pairs"
ADVERSARIAL = ("negation", "numbers", "names", "opposites")
DOMAINS = {"support", "coding", "medicine", "law", "travel", "finance", "cooking", "education", "hr", "culture"}
NEAR_DUPLICATE = 0.6  # Jaccard overlap of words; questions of one frame ("Who invented ...?") stay below it


class Pair(TypedDict):
    """One line of a half."""

    a: str
    b: str
    kind: str
    same: bool
    domain: str
    language: str


def read(half: str) -> list[Pair]:
    """The pairs of one half, in file order."""
    lines = (FOLDER / f"{half}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


HALVES = {half: read(half) for half in ("tune", "sealed")}
both_halves = pytest.mark.parametrize("half", HALVES)


def questions(pairs: list[Pair]) -> list[str]:
    """Both questions of every pair."""
    return [question for pair in pairs for question in (pair["a"], pair["b"])]


def words(question: str) -> list[str]:
    """The question's words, without case and punctuation."""
    return re.findall(r"\w+", question.casefold())


def overlaps(left: list[str], right: list[str]) -> npt.NDArray[np.float32]:
    """Jaccard overlap of words between every question of `left` and of `right`, shape (left, right)."""
    columns = {word: i for i, word in enumerate(sorted({w for q in left + right for w in words(q)}))}

    def bags(texts: list[str]) -> npt.NDArray[np.float32]:
        bag = np.zeros((len(texts), len(columns)), np.float32)
        for row, text in enumerate(texts):
            bag[row, [columns[word] for word in words(text)]] = 1
        return bag

    one, two = bags(left), bags(right)
    common = one @ two.T
    return np.asarray(common / (one.sum(1)[:, None] + two.sum(1)[None] - common), np.float32)


@both_halves
def test_each_half_has_150_pairs_of_each_adversarial_kind_and_300_paraphrases(half: str) -> None:
    """The counts that the README and every rate computed from these pairs rest on."""
    assert Counter(pair["kind"] for pair in HALVES[half]) == {**dict.fromkeys(ADVERSARIAL, 150), "paraphrase": 300}


@both_halves
def test_every_row_has_the_documented_fields_and_only_paraphrases_share_an_answer(half: str) -> None:
    """A reader may rely on the fields, their types and the label."""
    for pair in HALVES[half]:
        assert {key: type(value) for key, value in pair.items()} == Pair.__annotations__, pair
        assert pair["same"] == (pair["kind"] == "paraphrase"), pair


@both_halves
def test_languages_and_domains_are_balanced_in_every_kind(half: str) -> None:
    """A rate for a kind is not the rate of one domain or of English alone."""
    for kind in (*ADVERSARIAL, "paraphrase"):
        pairs = [pair for pair in HALVES[half] if pair["kind"] == kind]
        languages = Counter(pair["language"] for pair in pairs)
        domains = Counter(pair["domain"] for pair in pairs)
        assert set(languages) == {"en", "de", "es"}
        assert 0.10 <= languages["de"] / len(pairs) <= 0.14
        assert 0.06 <= languages["es"] / len(pairs) <= 0.10
        assert set(domains) == DOMAINS
        assert all(0.07 <= count / len(pairs) <= 0.13 for count in domains.values()), domains


def test_the_halves_have_the_same_share_of_every_kind_and_language() -> None:
    """The sealed half is drawn as the tuning half is, so that one predicts the other."""
    tune, sealed = (Counter((pair["kind"], pair["language"]) for pair in HALVES[half]) for half in HALVES)
    assert tune.keys() == sealed.keys()
    assert max(abs(tune[cell] - sealed[cell]) for cell in tune) <= 1


def test_no_question_occurs_in_two_pairs() -> None:
    """No pair is counted twice, and no question is both an example and a test."""
    owners: dict[str, set[int]] = {}
    for number, pair in enumerate(HALVES["tune"] + HALVES["sealed"]):
        for question in (pair["a"], pair["b"]):
            owners.setdefault(" ".join(words(question)), set()).add(number)
    assert [question for question, pairs in owners.items() if len(pairs) > 1] == []


def test_no_sealed_question_is_a_near_duplicate_of_a_tuning_question() -> None:
    """What was seen while tuning does not give away what is sealed."""
    tune, sealed = questions(HALVES["tune"]), questions(HALVES["sealed"])
    near = np.argwhere(overlaps(tune, sealed) >= NEAR_DUPLICATE)
    assert [(tune[i], sealed[j]) for i, j in near] == []


@both_halves
def test_every_question_is_clean_text_of_a_usual_length(half: str) -> None:
    """Rows are questions as typed: no authoring marks, stray spaces or decomposed letters; 3 to 40 words."""
    for question in questions(HALVES[half]):
        assert question == unicodedata.normalize("NFC", question.strip()), question
        assert not re.search(r"\s\s|\s[?!,]|[|\[\]]", question), question
        assert 3 <= len(question.split()) <= 40, question


@both_halves
def test_overlap_of_words_alone_does_not_tell_the_kinds_apart(half: str) -> None:
    """Neither kind is all alike or all reworded, so that a guard cannot pass by counting common words."""
    for same in (False, True):
        pairs = [pair for pair in HALVES[half] if pair["same"] is same]
        assert all(pair["a"] != pair["b"] for pair in pairs)
        overlap = [float(overlaps([pair["a"]], [pair["b"]])[0, 0]) for pair in pairs]
        assert np.mean(np.array(overlap) >= 0.5) >= 0.2
        assert np.mean(np.array(overlap) < 0.5) >= 0.2


def test_the_second_tuning_set_has_700_pairs_of_ten_domains_and_three_languages() -> None:
    """The counts that rates computed from tune-2.jsonl rest on; each row has the same fields as those of the halves."""
    pairs = read("tune-2")
    assert Counter(pair["kind"] for pair in pairs) == {
        "negation": 150, "numbers": 150, "names": 100, "opposites": 100, "paraphrase": 200,
    }  # fmt: skip
    assert Counter(pair["language"] for pair in pairs) == {"en": 560, "de": 84, "es": 56}
    assert Counter(pair["domain"] for pair in pairs) == dict.fromkeys(DOMAINS, 70)
    for pair in pairs:
        assert {key: type(value) for key, value in pair.items()} == Pair.__annotations__, pair
        assert pair["same"] == (pair["kind"] == "paraphrase"), pair


def test_the_third_tuning_set_has_450_pairs() -> None:
    """The counts that rates computed from tune-3.jsonl rest on: half of a set of 900, with the same fields as the others."""
    pairs = read("tune-3")
    assert Counter(pair["kind"] for pair in pairs) == {**dict.fromkeys(ADVERSARIAL, 75), "paraphrase": 150}
    assert {pair["domain"] for pair in pairs} == DOMAINS
    assert {pair["language"] for pair in pairs} == {"en", "de", "es"}
    for pair in pairs:
        assert {key: type(value) for key, value in pair.items()} == Pair.__annotations__, pair
        assert pair["same"] == (pair["kind"] == "paraphrase"), pair


def test_the_second_tuning_set_hardly_repeats_a_question() -> None:
    """What is counted on tune-2.jsonl is not counted on the first halves too."""
    first = {" ".join(words(question)) for half in HALVES.values() for question in questions(half)}
    again = sum(" ".join(words(question)) in first for question in questions(read("tune-2")))
    assert again <= 15  # counted only: a failing test shows no sealed question
