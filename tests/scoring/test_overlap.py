"""Overlap metrics give what the packages give, know their range, and call a text like itself."""

import asyncio
from typing import Any

import pytest
import sacrebleu
from hypothesis import assume, example, given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from agent.errors import InputError
from agent.metrics import overlap
from agent.scoring.metrics import build_metrics
from agent.types import Example, Field, MetricSpec, Prediction, Score, Signature
from tests.toys import make_task

approx = pytest.approx
any_text = st.text(st.characters())
tokens = st.lists(st.sampled_from("ab"), max_size=14)

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

bleu, chrf = overlap.bleu(), overlap.chrf()


def score(name: str, got: Any, label: Any, **options: Any) -> Score:
    signature = Signature((Field("message"),), (Field("out", "json", schema='{"type": "array"}'),))
    task = make_task(signature=signature, metrics=(MetricSpec(name, "out", options=options),))
    (metric,) = build_metrics(task)
    example = Example("r1", {"message": "hi"}, {} if label is None else {"out": label})
    return asyncio.run(metric.score(example, Prediction({"out": got}, str(got))))


# ---- bleu and chrf


@pytest.mark.parametrize(("got", "wanted"), PAIRS)
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


@pytest.mark.parametrize(
    ("got", "wanted", "value"),
    [
        ("test", "a test", 0.3678794411714425),  # test/test_bleu.py of sacrebleu: only the brevity penalty, 1 / e
        ("a test", "a test", 1.0),
        ("this is a fest", "this is a test", (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),  # no 4-gram: exp gives 1/2
    ],
)
def test_bleu_gives_the_published_and_the_hand_computed_values(got: str, wanted: str, value: float) -> None:
    assert bleu(got, wanted) == approx(value)


@pytest.mark.parametrize(  # test/test_chrf.py of sacrebleu; precision equals recall in all, so beta plays no part
    ("got", "wanted", "value"),
    [("a", "a", 1.0), ("a b c", "abc", 1.0), ("aa", "ab", 0.25), ("", "reference", 0.0), ("abcdefg", "hijklmnop", 0.0)],
)
def test_chrf_gives_the_published_values(got: str, wanted: str, value: float) -> None:
    assert chrf(got, wanted) == approx(value)


def test_chrf_counts_recall_twice_as_much_as_precision() -> None:
    assert chrf("ab", "abcdefgh") < chrf("abcdefgh", "ab")


def test_the_signatures_say_how_it_is_counted_and_by_which_version() -> None:
    version = f"version:{sacrebleu.__version__}"
    assert overlap.signature("bleu") == f"nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|{version}"
    assert overlap.signature("chrf") == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}"


@pytest.mark.parametrize("name", ["edit_similarity", "rougeL", "exact_match", "judge", "BLEU", ""])
def test_what_sacrebleu_does_not_measure_has_no_signature(name: str) -> None:
    assert overlap.signature(name) == ""


@given(any_text, any_text)
def test_any_two_texts_score_between_zero_and_one(got: str, wanted: str) -> None:
    for scorer in (bleu, chrf, overlap.edit_similarity):
        assert 0 <= scorer(got, wanted) <= 1


@given(any_text)
@example("")
@example(" \n")
@example("?!")
def test_any_text_is_wholly_like_itself(text: str) -> None:
    assert bleu(text, text) == chrf(text, text) == 1


@pytest.mark.parametrize("name", ["bleu", "chrf", "edit_similarity", "rouge1", "rouge2", "rougeL"])
@pytest.mark.parametrize("text", ["", " ", "漢字", "?!", "one", DOG])
def test_identical_texts_score_one_without_a_reason(name: str, text: str) -> None:
    assert score(name, text, text) == Score(name, 1.0)
    assert score(name, text, ["another", text]) == Score(name, 1.0)


@pytest.mark.parametrize("name", ["bleu", "chrf", "edit_similarity", "rouge1", "rouge2", "rougeL"])
def test_an_empty_text_is_nothing_like_one_that_is_not(name: str) -> None:
    assert score(name, "", DOG).value == score(name, DOG, "").value == 0


# ---- edit similarity


@pytest.mark.parametrize(
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
    assert overlap.edit_similarity(one, two) == approx(1 - edits / max(len(one), len(two)))


@given(any_text, any_text)
def test_edit_similarity_is_one_less_rapidfuzz_distance_over_the_longer_length(one: str, two: str) -> None:
    longer = max(len(one), len(two))
    expected = 1 - Levenshtein.distance(one, two) / longer if longer else 1.0
    assert overlap.edit_similarity(one, two) == approx(expected)


@given(any_text, any_text)
def test_edit_similarity_is_symmetric_and_one_for_equal_texts_only(one: str, two: str) -> None:
    assert overlap.edit_similarity(one, two) == approx(overlap.edit_similarity(two, one))
    assert overlap.edit_similarity(one, one) == 1
    assert (overlap.edit_similarity(one, two) == 1) == (one == two)


@given(any_text, any_text, any_text)
def test_the_edits_behind_the_similarity_keep_the_triangle(one: str, two: str, three: str) -> None:
    def edits(a: str, b: str) -> float:
        return (1 - overlap.edit_similarity(a, b)) * max(len(a), len(b))

    assert edits(one, three) <= edits(one, two) + edits(two, three) + 1e-6


# ---- repetition


@pytest.mark.parametrize(
    ("text", "words", "value"),
    [
        ("a b c d e", 3, 1.0),
        ("a b a b a b", 2, 2 / 5),
        ("a b a b a b", 3, 2 / 4),
        ("no no no no no", 3, 1 / 3),
        ("The cat the  CAT", 2, 2 / 3),
        ("a b c a b c", 1, 1 / 2),
        ("two words", 3, 1.0),
        ("", 3, 1.0),
    ],
)
def test_the_part_of_runs_that_are_new_is_counted_by_hand(text: str, words: int, value: float) -> None:
    assert overlap.unrepeated(text, words) == approx(value)


@given(any_text, st.integers(1, 5))
def test_the_part_of_new_runs_stays_in_range(text: str, words: int) -> None:
    assert 0 < overlap.unrepeated(text, words) <= 1


@given(tokens, st.sampled_from("ab"), st.integers(1, 3))
def test_a_word_that_ends_a_run_seen_before_never_raises_the_score(said: list[str], word: str, words: int) -> None:
    longer = [*said, word]
    runs = [longer[at : at + words] for at in range(len(longer) - words + 1)]
    assume(runs and runs[-1] in runs[:-1])
    assert overlap.unrepeated(" ".join(longer), words) <= overlap.unrepeated(" ".join(said), words)


@given(tokens)
def test_saying_all_of_it_twice_never_raises_the_score(said: list[str]) -> None:
    assert overlap.unrepeated(" ".join(said + said)) <= overlap.unrepeated(" ".join(said))


@given(st.lists(st.integers(), unique=True, min_size=3))
def test_a_text_of_different_words_has_no_repetition(numbers: list[int]) -> None:
    assert overlap.unrepeated(" ".join(map(str, numbers))) == 1


# ---- the metrics of a task


@pytest.mark.parametrize("name", ["bleu", "chrf", "edit_similarity"])
@pytest.mark.parametrize(("got", "wanted"), PAIRS)
def test_a_metric_gives_what_its_scorer_gives(name: str, got: str, wanted: str) -> None:
    scorer = {"bleu": bleu, "chrf": chrf, "edit_similarity": overlap.edit_similarity}[name]
    assert score(name, got, wanted).value == approx(scorer(got, wanted))


def in_ascii(pair: tuple[str, str]) -> bool:
    return "".join(pair).isascii()


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
@pytest.mark.parametrize(("got", "wanted"), [*filter(in_ascii, PAIRS), ("dogs running", "the dog runs")])
def test_rouge_is_the_f_measure_of_rouge_score(name: str, got: str, wanted: str) -> None:
    expected = RougeScorer([name], use_stemmer=True).score(wanted, got)[name].fmeasure
    assert score(name, got, wanted).value == approx(expected)


@pytest.mark.parametrize("name", ["bleu", "chrf", "edit_similarity", "rougeL"])
def test_of_several_labels_the_nearest_counts(name: str) -> None:
    far, near = "Nobody was there.", "The dog had bit the man."
    alone = score(name, DOG, near).value
    assert score(name, DOG, [far, near]).value == score(name, DOG, [near, far]).value == alone
    assert score(name, DOG, [far, DOG]) == Score(name, 1.0)


@pytest.mark.parametrize("name", ["bleu", "chrf", "edit_similarity"])
def test_the_reason_names_the_score_the_label_and_the_answer(name: str) -> None:
    found = score(name, "a small cat", "a small dog")
    assert found.value is not None
    assert found.reason == f"{name} {found.value:.2f} against a small dog, got a small cat"


@pytest.mark.parametrize("name", ["bleu", "chrf", "edit_similarity"])
def test_without_a_label_nothing_is_scored(name: str) -> None:
    found = score(name, "text", None)
    assert found.value is None
    assert "no label" in found.reason


def test_no_repeat_needs_no_label_and_says_how_much_is_repeated() -> None:
    assert score("no_repeat", "all of these differ", None) == Score("no_repeat", 1.0)
    found = score("no_repeat", "no no no no no", None)
    assert found.value == approx(1 / 3)
    assert found.reason == "67 % of its runs of 3 words are repetitions"
    assert score("no_repeat", "a b a b a b", None, words=2).value == approx(2 / 5)
    assert score("no_repeat", "a b a b", None, words=1).value == approx(1 / 2)


@pytest.mark.parametrize("words", [0, -1, True, False, 2.0, 2.5, "2", None, [2]])
def test_runs_of_no_whole_number_of_words_are_refused(words: Any) -> None:
    with pytest.raises(InputError, match=r"no_repeat has words = .*: should be"):
        score("no_repeat", "one two three", None, words=words)


# ---- a list as the label of a JSON field


def test_missing_and_extra_items_lower_f1_and_are_named() -> None:
    found = score("json_fields", ["rent", "deposit", "pets"], ["rent", "deposit", "notice", "repairs"])
    assert found.value == approx(2 * 2 / (3 + 4))
    assert found.reason == "missing: notice, repairs; extra: pets"


def test_only_what_is_wrong_is_named() -> None:
    assert score("json_fields", ["a"], ["a", "b"]) == Score("json_fields", approx(2 / 3), "missing: b")
    assert score("json_fields", ["a", "b"], ["a"]) == Score("json_fields", approx(2 / 3), "extra: b")


def test_an_item_said_once_too_often_is_extra() -> None:
    assert score("json_fields", ["a", "a", "b"], ["a", "b"]) == Score("json_fields", approx(4 / 5), "extra: a")


def test_each_copy_that_is_missing_or_extra_is_named() -> None:
    assert score("json_fields", [], ["a", "a"]) == Score("json_fields", 0.0, "missing: a, a")
    assert score("json_fields", ["a", "b", "b", "b"], ["a", "a", "a", "b"]).reason == "missing: a, a; extra: b, b"


def test_items_are_named_in_their_own_spelling_and_without_quotes() -> None:
    found = score("json_fields", ["Späte  GEBÜHR", {"Who": "Ada"}, 2, True], ["für März", {"who": "Bob"}, None])
    assert found.reason == 'missing: für März, null, {"who": "Bob"}; extra: Späte GEBÜHR, 2, true, {"Who": "Ada"}'


def test_two_empty_lists_agree_and_one_empty_list_does_not() -> None:
    assert score("json_fields", [], []) == Score("json_fields", 1.0)
    assert score("json_fields", [], ["a"]) == Score("json_fields", 0.0, "missing: a")
    assert score("json_fields", ["a"], []) == Score("json_fields", 0.0, "extra: a")


@pytest.mark.parametrize("count", [1, 5, 100])
def test_long_or_many_items_of_one_kind_do_not_hide_the_other_kind(count: int) -> None:
    got = [f"{at:03} is extra {'y' * 400}" for at in range(count)]
    label = [f"{at:03} {'x' * 400}" for at in range(count)]
    missing, extra = score("json_fields", got, label).reason.split("; ")
    assert missing.startswith("missing: 000 x")
    assert extra.startswith("extra: 000 is extra y")
    assert max(len(missing), len(extra)) <= 300
    assert "…" in missing
    assert "…" in extra


def test_items_agree_whatever_their_case_spacing_or_kind_of_number() -> None:
    got, label = [{"who": "Ada ", "n": 1.0}, "LATE  fee"], [{"n": 1, "who": "ada"}, "late fee"]
    assert score("json_fields", got, label) == Score("json_fields", 1.0)
    assert score("json_fields", [True], [1]).value == 0


@pytest.mark.parametrize("got", [{}, "a", 3, None])
def test_an_answer_that_is_no_list_scores_zero(got: Any) -> None:
    found = score("json_fields", got, ["a"])
    assert found.value == 0
    assert "expected a JSON list" in found.reason


items = st.lists(st.text(max_size=3) | st.integers(-2, 2) | st.booleans() | st.none() | st.lists(st.integers(0, 1)))


@given(items.flatmap(lambda label: st.tuples(st.just(label), st.permutations(label))))
def test_the_order_of_items_does_not_matter(lists: tuple[list[Any], list[Any]]) -> None:
    assert score("json_fields", lists[1], lists[0]) == Score("json_fields", 1.0)


@given(items, items)
def test_f1_of_lists_is_symmetric_in_range_and_gives_a_reason_below_one(one: list[Any], two: list[Any]) -> None:
    found, turned = score("json_fields", one, two), score("json_fields", two, one)
    assert found.value is not None
    assert 0 <= found.value <= 1
    assert found.value == approx(turned.value)
    assert bool(found.reason) == (found.value < 1)


@pytest.mark.parametrize("name", ["rouge1", "rougeL"])
@pytest.mark.parametrize(
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
    assert overlap.rouge_l()(got, wanted) == reference
