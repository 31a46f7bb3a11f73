"""Metrics of similarity give what the packages give, know their range, and call a text like itself."""

import pytest
import sacrebleu
from hypothesis import example, given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from agent.metrics.text_similarity import levenshtein_similarity, rouge_l_scorer, sacrebleu_scorer, signature
from agent.types import Score
from tests.cases import each_case
from tests.metrics.scored import score

approx = pytest.approx
any_text = st.text(st.characters())

DOG = "The dog bit the man."
DOGS = [(DOG, "The dog had bit the man."), ("It wasn't surprising.", "It was not unexpected."), ("a", "b"), (DOG, "")]
CZECH = [  # test/test_chrf.py of sacrebleu, sentence level
    (
        "Co nás nejvíc trápí, protože lékaři si vybírají, kdo bude žít a kdo zemře.",
        "Nejvíce smutní jsme z toho, že musíme rozhodovat o tom, kdo bude žít a kdo zemře.",
    ),
    (
        "Nebo prostě nemají vybavení, které by jim pomohlo, uvedli lékaři.",
        "A někdy nemáme ani potřebný materiál, abychom jim pomohli, popsali lékaři.",
    ),
]
PAIRS = [*DOGS, *CZECH]

bleu, chrf = sacrebleu_scorer("bleu"), sacrebleu_scorer("chrf")


# ---- bleu and chrf


@each_case(("got", "wanted"), PAIRS)
def test_bleu_and_chrf_equal_sacrebleu_called_directly(got: str, wanted: str) -> None:
    assert bleu(got, wanted) == approx(sacrebleu.sentence_bleu(got, [wanted], use_effective_order=True).score / 100)
    assert chrf(got, wanted) == approx(sacrebleu.sentence_chrf(got, [wanted]).score / 100)
    corpus = BLEU(effective_order=True).corpus_score([got], [[wanted]]).score / 100
    assert bleu(got, wanted) == approx(corpus)
    assert chrf(got, wanted) == approx(CHRF().corpus_score([got], [[wanted]]).score / 100)


def test_the_installed_sacrebleu_gives_the_values_of_its_readme() -> None:
    said = [DOG, "It wasn't surprising.", "The man had just bitten him."]
    wanted = [
        [DOG, "It was not unexpected.", "The man bit him first."],
        ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."],
    ]
    assert BLEU().corpus_score(said, wanted).score == approx(48.53, abs=0.005)
    assert CHRF().corpus_score(said, wanted).score == approx(59.73, abs=0.005)


@each_case(
    ("got", "wanted", "value"),
    [
        ("test", "a test", 0.3678794411714425),  # test/test_bleu.py of sacrebleu: only the brevity penalty, 1 / e
        ("a test", "a test", 1.0),
        ("this is a fest", "this is a test", (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),  # no 4-gram: exp gives 1/2
    ],
)
def test_bleu_gives_the_published_and_the_hand_computed_values(got: str, wanted: str, value: float) -> None:
    assert bleu(got, wanted) == approx(value)


@each_case(  # test/test_chrf.py of sacrebleu; precision equals recall in all, so beta plays no part
    ("got", "wanted", "value"),
    [("a", "a", 1.0), ("a b c", "abc", 1.0), ("aa", "ab", 0.25), ("", "reference", 0.0), ("abcdefg", "hijklmnop", 0.0)],
)
def test_chrf_gives_the_published_values(got: str, wanted: str, value: float) -> None:
    assert chrf(got, wanted) == approx(value)


def test_chrf_counts_recall_twice_as_much_as_precision() -> None:
    assert chrf("ab", "abcdefgh") < chrf("abcdefgh", "ab")


def test_the_signatures_say_how_it_is_counted_and_by_which_version() -> None:
    version = f"version:{sacrebleu.__version__}"
    assert signature("bleu") == f"nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|{version}"
    assert signature("chrf") == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}"


@each_case("name", ["edit_similarity", "rougeL", "exact_match", "judge", "BLEU", ""])
def test_what_sacrebleu_does_not_measure_has_no_signature(name: str) -> None:
    assert signature(name) == ""


@given(any_text, any_text)
def test_any_two_texts_score_between_zero_and_one(got: str, wanted: str) -> None:
    for scorer in (bleu, chrf, levenshtein_similarity):
        assert 0 <= scorer(got, wanted) <= 1


@given(any_text)
@example("")
@example(" \n")
@example("?!")
def test_any_text_is_wholly_like_itself(text: str) -> None:
    assert bleu(text, text) == chrf(text, text) == 1


@each_case("name", ["bleu", "chrf", "edit_similarity", "rouge1", "rouge2", "rougeL"])
@each_case("text", ["", " ", "漢字", "?!", "one", DOG])
def test_identical_texts_score_one_without_a_reason(name: str, text: str) -> None:
    assert score(name, text, text) == Score(name, 1.0)
    assert score(name, text, ["another", text]) == Score(name, 1.0)


@each_case("name", ["bleu", "chrf", "edit_similarity", "rouge1", "rouge2", "rougeL"])
def test_an_empty_text_is_nothing_like_one_that_is_not(name: str) -> None:
    assert score(name, "", DOG).value == score(name, DOG, "").value == 0


# ---- edit similarity


@each_case(
    ("one", "two", "edits"),
    [
        ("kitten", "sitting", 3),
        ("Saturday", "Sunday", 3),
        ("intention", "execution", 5),
        ("flaw", "lawn", 2),
        ("", "abc", 3),
        ("abc", "ABC", 3),
        ("naïve", "naive", 1),
    ],
)
def test_edit_similarity_comes_from_the_textbook_distances(one: str, two: str, edits: int) -> None:
    assert levenshtein_similarity(one, two) == approx(1 - edits / max(len(one), len(two)))


@given(any_text, any_text)
def test_edit_similarity_is_one_less_rapidfuzz_distance_over_the_longer_length(one: str, two: str) -> None:
    longer = max(len(one), len(two))
    expected = 1 - Levenshtein.distance(one, two) / longer if longer else 1.0
    assert levenshtein_similarity(one, two) == approx(expected)


@given(any_text, any_text)
def test_edit_similarity_is_symmetric_and_one_for_equal_texts_only(one: str, two: str) -> None:
    assert levenshtein_similarity(one, two) == approx(levenshtein_similarity(two, one))
    assert levenshtein_similarity(one, one) == 1
    assert (levenshtein_similarity(one, two) == 1) == (one == two)


@given(any_text, any_text, any_text)
def test_the_edits_behind_the_similarity_keep_the_triangle(one: str, two: str, three: str) -> None:
    def edits(a: str, b: str) -> float:
        return (1 - levenshtein_similarity(a, b)) * max(len(a), len(b))

    assert edits(one, three) <= edits(one, two) + edits(two, three) + 1e-6


# ---- the metrics of a task


@each_case("name", ["bleu", "chrf", "edit_similarity"])
@each_case(("got", "wanted"), PAIRS)
def test_a_metric_gives_what_its_scorer_gives(name: str, got: str, wanted: str) -> None:
    scorer = {"bleu": bleu, "chrf": chrf, "edit_similarity": levenshtein_similarity}[name]
    assert score(name, got, wanted).value == approx(scorer(got, wanted))


def in_ascii(pair: tuple[str, str]) -> bool:
    return "".join(pair).isascii()


@each_case("name", ["rouge1", "rouge2", "rougeL"])
@each_case(("got", "wanted"), [*filter(in_ascii, PAIRS), ("dogs running", "the dog runs")])
def test_rouge_is_the_f_measure_of_rouge_score(name: str, got: str, wanted: str) -> None:
    expected = RougeScorer([name], use_stemmer=True).score(wanted, got)[name].fmeasure
    assert score(name, got, wanted).value == approx(expected)


@each_case("name", ["bleu", "chrf", "edit_similarity", "rougeL"])
def test_of_several_labels_the_nearest_counts(name: str) -> None:
    far, near = "Nobody was there.", "The dog had bit the man."
    alone = score(name, DOG, near).value
    assert score(name, DOG, [far, near]).value == score(name, DOG, [near, far]).value == alone
    assert score(name, DOG, [far, DOG]) == Score(name, 1.0)


@each_case("name", ["bleu", "chrf", "edit_similarity"])
def test_the_reason_names_the_score_the_label_and_the_answer(name: str) -> None:
    found = score(name, "a small cat", "a small dog")
    assert found.value is not None
    assert found.reason == f"{name} {found.value:.2f} against a small dog, got a small cat"


@each_case("name", ["bleu", "chrf", "edit_similarity"])
def test_without_a_label_nothing_is_scored(name: str) -> None:
    found = score(name, "text", None)
    assert found.value is None
    assert "no label" in found.reason


@each_case("name", ["rouge1", "rougeL"])
@each_case(
    ("got", "wanted", "value"),
    [
        ("Договор от 2024 года расторгнут", "Договор от 2024 года продлён", 0.8),
        ("Привет, мир", "привет мир", 1.0),
        ("le cafe\u0301 fermé", "Le café, fermé!", 1.0),
        ("猫在睡", "猫在吃", 2 / 3),
        ("नमस्ते दुनिया", "नमस्ते दुनिया!", 1.0),
        ("café runs", "café running", 1.0),
    ],
)
def test_rouge_reads_the_words_of_any_script(name: str, got: str, wanted: str, value: float) -> None:
    assert score(name, got, wanted).value == approx(value)


SENTENCES = st.lists(st.sampled_from(["runs", "running", "The", "cat", "E", "7", ",", "\n", "sat"]), max_size=40).map(
    " ".join
)


@given(SENTENCES, SENTENCES)
def test_rouge_l_is_that_of_rouge_score(got: str, wanted: str) -> None:
    reference = RougeScorer(["rougeL"], use_stemmer=True).score(wanted, got)["rougeL"].fmeasure
    assert rouge_l_scorer()(got, wanted) == reference
