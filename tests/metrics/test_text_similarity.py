"""Metrics of similarity give what their packages give, stay in range, and call a text like itself."""

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from rouge_score.rouge_scorer import RougeScorer

from agent.metrics.text_similarity import levenshtein_similarity, rouge_l_scorer, sacrebleu_scorer, signature
from agent.types import Score
from tests.cases import each_case
from tests.metrics.scored import score

approx = pytest.approx
any_text = st.text(st.characters())
DOG = "The dog bit the man."
NAMES = ("bleu", "chrf", "edit_similarity", "rouge1", "rouge2", "rougeL")
PAIRS = [
    *((DOG, "The dog had bit the man."), ("It wasn't surprising.", "It was not unexpected."), ("a", "b"), (DOG, "")),
    (  # test/test_chrf.py of sacrebleu
        "Nebo prostě nemají vybavení, které by jim pomohlo, uvedli lékaři.",
        "A někdy nemáme ani potřebný materiál, abychom jim pomohli, popsali lékaři.",
    ),
]
SCORERS = {
    "bleu": sacrebleu_scorer("bleu"),
    "chrf": sacrebleu_scorer("chrf"),
    "edit_similarity": levenshtein_similarity,
}
bleu, chrf = SCORERS["bleu"], SCORERS["chrf"]


@each_case(("got", "wanted"), PAIRS)
def test_bleu_and_chrf_equal_sacrebleu_called_directly(got: str, wanted: str) -> None:
    assert bleu(got, wanted) == approx(sacrebleu.sentence_bleu(got, [wanted], use_effective_order=True).score / 100)
    assert chrf(got, wanted) == approx(sacrebleu.sentence_chrf(got, [wanted]).score / 100)
    for name, scorer in SCORERS.items():
        assert score(name, got, wanted).value == approx(scorer(got, wanted))


@each_case(  # of the tests of sacrebleu, and by hand
    ("name", "got", "wanted", "value"),
    [
        ("bleu", "test", "a test", 0.3678794411714425),  # the brevity penalty alone, 1 / e
        ("bleu", "this is a fest", "this is a test", (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),  # no 4-gram
        *(("chrf", "a b c", "abc", 1), ("chrf", "aa", "ab", 0.25), ("chrf", "", "reference", 0)),
        *(("edit_similarity", "kitten", "sitting", 1 - 3 / 7), ("edit_similarity", "abc", "ABC", 0)),
        *(("edit_similarity", "intention", "execution", 1 - 5 / 9), ("edit_similarity", "", "abc", 0)),
    ],
)
def test_published_and_hand_computed_values(name: str, got: str, wanted: str, value: float) -> None:
    assert SCORERS[name](got, wanted) == approx(value)


def test_the_signature_names_the_way_of_counting_and_the_version() -> None:
    version = f"version:{sacrebleu.__version__}"
    assert signature("bleu") == f"nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|{version}"
    assert signature("chrf") == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}"
    assert signature("edit_similarity") == signature("BLEU") == ""


@each_case("name", NAMES)
def test_of_several_labels_the_nearest_counts(name: str) -> None:
    far, near = "Nobody was there.", "The dog had bit the man."
    assert score(name, DOG, [far, near]).value == score(name, DOG, [near, far]).value == score(name, DOG, near).value
    for text in ("", " ", "漢字", "?!", DOG):
        assert score(name, text, ["another", text]) == Score(name, 1.0)
    assert score(name, "", DOG).value == score(name, DOG, "").value == 0
    found = score(name, "a small cat", "a small dog")
    assert found.reason == f"{name} {found.value:.2f} against a small dog, got a small cat"


SENTENCES = st.lists(st.sampled_from(["runs", "running", "The", "cat", "E", "7", ",", "\n", "sat"]), max_size=40).map(
    " ".join
)


@given(SENTENCES, SENTENCES)
def test_rouge_is_that_of_rouge_score(got: str, wanted: str) -> None:
    reference = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(wanted, got)
    assert rouge_l_scorer()(got, wanted) == reference["rougeL"].fmeasure
    for name, each in reference.items():
        if got not in ("", wanted) and wanted:
            assert score(name, got, wanted).value == approx(each.fmeasure)


@each_case("name", ["rouge1", "rougeL"])
@each_case(
    ("got", "wanted", "value"),
    [
        ("Договор от 2024 года расторгнут", "Договор от 2024 года продлён", 0.8),
        ("le cafe\u0301 fermé", "Le café, fermé!", 1.0),
        ("猫在睡", "猫在吃", 2 / 3),
        ("नमस्ते दुनिया", "नमस्ते दुनिया!", 1.0),
        ("café runs", "café running", 1.0),
    ],
)
def test_rouge_reads_the_words_of_any_script(name: str, got: str, wanted: str, value: float) -> None:
    assert score(name, got, wanted).value == approx(value)


@pytest.mark.extra("embedding")
def test_embeddings_tell_near_texts_from_far_ones() -> None:
    near, far = "a cat rests on the rug", "the quarterly report is late"
    values = [score("embedding_similarity", text, "the cat lies on the carpet").value or 0 for text in (near, far)]
    assert 0 <= values[1] < values[0] <= 1


@given(any_text, any_text)
def test_edit_similarity_is_one_less_rapidfuzz_distance_over_the_longer_length(one: str, two: str) -> None:
    longer = max(len(one), len(two))
    expected = 1 - Levenshtein.distance(one, two) / longer if longer else 1.0
    assert levenshtein_similarity(one, two) == approx(expected) == approx(levenshtein_similarity(two, one))
    assert levenshtein_similarity(one, one) == 1
    assert (levenshtein_similarity(one, two) == 1) == (one == two)
