"""The bench of prompt optimizers: its rows, scorer, books and statistics. No engine, no peer, no network."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.types import Completion, Message, Request
from tests.bench.arena import replay, results, stats
from tests.bench.arena.bench import last_words, schedule
from tests.bench.arena.data import MORE_SETS, MOST, SETS, answers, data_folder, label_field, load, right, scorer
from tests.bench.arena.ifeval.metric import RULES, broken
from tests.bench.arena.plot import chart
from tests.bench.arena.replies import KeptReplies
from tests.bench.arena.report import report
from tests.bench.arena.score import Scorer, last_number, named
from tests.bench.arena.server import MOST_TOKENS, read_request
from tests.bench.arena.server import Counter as CallCounter
from tests.bench.arena.stats import difference_interval, matrix, mean_interval, seed_spread
from tests.bench.arena.systems import SYSTEMS
from tests.bench.arena.systems.base import Step, TemplatePrompt
from tests.bench.arena.systems.ours import incumbents
from tests.bench.arena.toy import ToyModel
from tests.bench.arena.worker import thinned

EVERY, SHIPPED = (*SETS, *MORE_SETS), ("support_triage", "queue_codes", "word_problems")
LABELLED = [name for name in EVERY if answers(name) == "label"]
LABELS = ("card_arrival", "card_arrival_late", "Top Up", "refund")
HERE = pytest.mark.skipif(not (data_folder() / "trec").is_dir(), reason="the rows are not there")


# -- rows


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in SHIPPED else HERE) for n in EVERY])
def test_splits_share_no_row_and_keep_their_caps(name: str) -> None:
    task = load(name, data_folder())
    splits = (task.train, task.dev, task.test)
    for rows, most in zip(splits, MOST, strict=True):
        assert 0 < len(rows) <= most
        if name in LABELLED:
            assert set(right(task, rows)) <= set(label_field(task).choices)
    ids = Counter(row.id for rows in splits for row in rows)
    assert max(ids.values()) == 1


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in SHIPPED else HERE) for n in LABELLED])
def test_the_instruction_names_every_label(name: str) -> None:
    task = load(name, data_folder())
    assert all(label in task.instruction for label in label_field(task).choices)


@HERE
def test_banking_holds_the_first_labels_by_alphabet_and_is_the_same_each_time() -> None:
    eight, twenty = load("banking8", data_folder()), load("banking20", data_folder())
    assert label_field(eight).choices == label_field(twenty).choices[:8]
    assert [row.id for row in load("banking8", data_folder()).dev] == [row.id for row in eight.dev]


def test_queue_codes_are_the_teams_under_other_names() -> None:
    plain, coded = load("support_triage", data_folder()), load("queue_codes", data_folder())
    pairs = set(zip(right(plain, plain.train + plain.test), right(coded, coded.train + coded.test), strict=True))
    assert len(pairs) == len(label_field(plain).choices) == len(label_field(coded).choices)
    assert not any(label in coded.instruction for label in label_field(plain).choices)


@pytest.mark.parametrize(("most", "counts"), [(0, ()), (1, (1,)), (4, (1, 2, 4))])
def test_a_name_with_a_number_bounds_the_demos(most: int, counts: tuple[int, ...]) -> None:
    task = load(f"queue_codes:{most}", data_folder())
    space = task.space
    assert space.demo_counts == counts
    assert task.constraints.max_examples == most, "picked examples are counted, too"
    assert space.retrieval == ("few-shot" in space.techniques) == (most > 0)


# -- scorer


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("card_arrival", "card_arrival"),
        ("Card Arrival.", "card_arrival"),
        ("It is CARD_ARRIVAL_LATE, I think, not card_arrival", "card_arrival_late"),
        ("top\n up", "Top Up"),
        ("not a refund but card arrival", "refund"),
        ("refunds", ""),
        ("prerefund refund", "refund"),
        ("", ""),
    ],
)
def test_a_reply_names_the_first_label_in_it(reply: str, label: str) -> None:
    assert named(reply, LABELS) == label


@given(st.sampled_from(LABELS), st.text(alphabet=" .,:!?\n\"'"), st.text(alphabet=" .,:!?\n\"'"))
def test_a_label_is_found_in_any_case_between_any_marks(label: str, before: str, after: str) -> None:
    for spelled in (label, label.upper(), label.replace("_", " ")):
        assert Scorer("label", LABELS).hit(before + spelled + after, label)


@given(st.text())
def test_what_is_named_is_a_label_or_nothing(reply: str) -> None:
    assert named(reply, LABELS) in (*LABELS, "")


def test_marks_stand_in_the_order_of_the_rows() -> None:
    assert Scorer("label", LABELS).marks(["refund", "refund", "?"], ["refund", "Top Up", "refund"]) == "100"


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("12", 12),
        ("3 x 4 is 12.", 12),
        ("It is 1,250.5 m", 1250.5),
        ("minus: -3", -3),
        ("about 1, 2, 3", 3),
        ("", None),
    ],
)
def test_the_last_number_of_a_reply_counts(reply: str, number: float | None) -> None:
    assert last_number(reply) == number
    if number is not None:
        assert Scorer("number").marks([reply, reply], [str(float(number)), str(number + 1)]) == "10"


KEPT = [
    ("punctuation:no_comma", {}, "one and two", "one, two"),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 3}, "one two three", "one two"),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 3}, "one two", "one two three"),
    (
        "length_constraints:number_sentences",
        {"relation": "less than", "num_sentences": 2},
        'He said "Go."',
        "A b. C d!",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n***\n***\nb"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"first_word": "elm", "num_paragraphs": 2, "nth_paragraph": 2},
        "Oak.\n\n**Elm**, too",
        "Elm.\n\nOak",
    ),
    ("keywords:existence", {"keywords": ["river", "C++"]}, "A RIVER of C++", "a river of C"),
    ("keywords:forbidden_words", {"forbidden_words": ["tax"]}, "a taxi", "the Tax."),
    ("keywords:frequency", {"relation": "at least", "keyword": "oh", "frequency": 2}, "Oh, oh", "oh"),
    ("keywords:letter_frequency", {"let_relation": "less than", "letter": "a", "let_frequency": 2}, "A b", "a A"),
    ("change_case:english_lowercase", {}, "all small, 1 2", "Not small"),
    ("change_case:english_capital", {}, "ALL, 1", "ALL but"),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 2},
        "GO and RUN",
        "GO and run",
    ),
    ("startend:quotation", {}, ' "so it is" ', '"so it is'),
    (
        "startend:end_checker",
        {"end_phrase": "Any other questions?"},
        "Yes. any other questions?",
        "Any other questions? No",
    ),
    ("detectable_format:title", {}, "<<Night>>\nIt was", "<< >>\nIt was"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and * *"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n  - b\n**bold**", "* a"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "Section 1\na\nSECTION 2",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{'a': 1}"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [place]", "[name] of place"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye\nP. P. S. more", "Bye\nP.S. more"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Write a song."}, "write a song. La", "La. Write a song."),
    ("combination:two_responses", {}, "one\n******\ntwo", "same\n******\nsame"),
]


@pytest.mark.parametrize(("rule", "arguments", "keeps", "breaks"), KEPT)
def test_a_rule_is_kept_or_broken(rule: str, arguments: dict[str, Any], keeps: str, breaks: str) -> None:
    rules = json.dumps([[rule, arguments]])
    assert Scorer("rules").marks([keeps, breaks], [rules, rules]) == "10"
    assert len(broken(breaks, rules)) == 1
    assert rule.partition(":")[2].replace("_", " ") in Scorer("rules").why(breaks, rules)


@HERE
def test_every_rule_of_the_texts_has_a_check_and_a_test() -> None:
    task = load("ifeval", data_folder())
    used = {rule for row in task.train + task.dev + task.test for rule, _ in json.loads(str(row.labels["response"]))}
    assert used == set(RULES) == {rule for rule, *_ in KEPT}
    assert scorer(task) == Scorer("rules")


def test_a_system_runs_on_the_sets_that_it_is_made_for() -> None:
    sets = ["trec", "word_problems", "ifeval"]
    keys = schedule(["dspy-knn", "capo", "dspy-gepa"], sets, 1, "m", 0)
    ran = {system: [name for name in sets if (system, name) in {key[:2] for key in keys}] for system, *_ in keys}
    assert ran == {"user": sets, "dspy-knn": sets[:1], "capo": sets[:2], "dspy-gepa": sets}


# -- server


def test_a_request_without_a_temperature_is_sampled_and_each_sample_differs() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "max_tokens": 10**6}
    first, second = read_request(body, 0), read_request(body, 1)
    assert first.messages == (Message("user", "hi"),)
    assert (first.temperature, first.seed, second.seed, first.max_tokens) == (1.0, 0, 1, MOST_TOKENS)


def test_what_a_client_asks_for_is_passed_on() -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "seed": 7,
        "stop": "\n",
        "max_completion_tokens": 5,
        "logprobs": True,
        "top_logprobs": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    }
    request = read_request(body, 99)
    assert (request.temperature, request.seed, request.stop, request.max_tokens) == (0.0, 7, ("\n",), 5)
    assert request.logprobs == 3
    assert request.json_schema == json.dumps(schema)


async def test_calls_are_counted_by_tag_and_malformed_ones_are_refused() -> None:
    counter = CallCounter(ToyModel())
    body = {"messages": [{"role": "user", "content": "one two"}], "n": 2}
    status, reply = await counter.answer("a/task", body)
    refused, _ = await counter.answer("b/task", {"messages": 5})
    assert (status, refused, len(reply["choices"])) == (200, 400, 2)
    counts = counter.counts()
    assert (counts["a/task"]["calls"], counts["a/task"]["prompt_tokens"]) == (2, 4)
    assert (counts["b/task"]["calls"], counts["b/task"]["refused"]) == (1, 1)


# -- order of work and books


async def test_what_was_asked_before_is_not_computed_again_and_samples_are(tmp_path: Path) -> None:
    asked = []

    class Asked(ToyModel):
        async def complete(self, request: Request) -> Completion:
            asked.append(request)
            return await super().complete(request)

    hello, sample = Request((Message("user", "hello"),), 8), Request((Message("user", "hello"),), 8, temperature=1.0)
    first = KeptReplies(Asked(), "one.gguf", tmp_path / "replies.db")
    reply = await first.complete(hello)
    await first.complete(sample)
    await first.complete(sample)
    await first.close()
    again = KeptReplies(Asked(), "one.gguf", tmp_path / "replies.db")
    assert await again.complete(hello) == reply
    assert len(asked) == 3
    await KeptReplies(Asked(), "other.gguf", tmp_path / "replies.db").complete(hello)
    assert len(asked) == 4, "other weights may answer otherwise"


def test_the_users_prompt_comes_first_and_slow_peers_last() -> None:
    order = [key[0] for key in schedule(["dspy-mipro", "ours", "random"], ["trec", "snips"], 2, "m", 0)]
    assert order[:2] == ["user", "user"]
    assert order[-2:] == ["dspy-mipro", "dspy-mipro"]
    assert Counter(order) == {"user": 2, "ours": 4, "random": 4, "dspy-mipro": 2}


def test_finished_runs_are_skipped_and_a_line_cut_by_a_kill_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    wanted = schedule(["random"], ["trec"], 2, "m", 0)
    for key in wanted[:2]:
        results.append(_line(*key), path)
    with path.open("a", encoding="utf-8") as out:
        out.write('{"system": "random", "se')
    assert results.open_runs(wanted, results.read(path)) == wanted[2:]
    results.append(_line(*wanted[2]), path)
    assert results.open_runs(wanted, results.read(path)) == []
    results.forget(wanted[1:], path)
    assert results.open_runs(wanted, results.read(path)) == wanted[1:]


def test_the_later_of_two_lines_with_one_key_counts(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for score in ("000", "111"):
        results.append(_line("ours", "trec", "m", 700, 0, 0, score), path)
    assert [line["marks"] for line in results.read(path)] == ["111"]


def test_a_crash_is_told_by_its_exception() -> None:
    text = 'Traceback\n  File "x.py"\n    raise ValueError(1)\nValueError: no such thing\n100%|####| 3/3\n'
    assert last_words(text) == "ValueError: no such thing"


# -- incumbents


def test_the_incumbent_changes_when_another_candidate_is_ahead_on_rows_enough() -> None:
    walk = [("zero", 0.0)] * 24 + [("", 0.0)] * 12 + [("good", 1.0)] * 24
    found = incumbents(walk)
    assert [candidate for _, candidate in found] == ["zero", "good"]
    assert found[1][0] > 36


def test_one_lucky_row_does_not_make_an_incumbent() -> None:
    walk = [("steady", float(n % 10 < 7)) for n in range(60)] + [("lucky", 1.0)]
    assert {candidate for _, candidate in incumbents(walk)} == {"steady"}


def test_thinning_keeps_the_last_step() -> None:
    steps = [Step(calls, TemplatePrompt(str(calls), ())) for calls in range(10)]
    assert [step.calls for step in thinned(steps, 4)] == [0, 3, 6, 9]
    assert [step.calls for step in thinned(steps, 1)] == [9]
    assert thinned(steps, 0) == []


# -- statistics and report


def test_the_paired_interval_covers_the_true_gap_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of different difficulty, two systems 10 points apart, three seeds each."""
    monkeypatch.setattr(stats, "DRAWS", 1000)  # its ends are less exact than with 4000, the coverage is the same
    rng = np.random.default_rng(5)
    covered, trials = 0, 120
    for trial in range(trials):
        easy = rng.uniform(0.1, 0.8, size=80)
        one = (rng.uniform(size=(3, 80)) < easy + 0.1).astype(float)
        other = (rng.uniform(size=(3, 80)) < easy).astype(float)
        found = difference_interval([(one, other)], seed=trial)
        covered += found.low <= 0.1 <= found.high
    assert covered / trials >= 0.9


def test_a_system_that_ran_once_gets_the_spread_between_runs_of_those_that_ran_more() -> None:
    rng = np.random.default_rng(1)
    cells = [np.array([rng.random(400) < rate for rate in rng.normal(0.5, 0.05, 3)], dtype=float) for _ in range(40)]
    assert seed_spread(cells) == pytest.approx(np.hypot(0.05, 0.025), rel=0.25)
    assert seed_spread([cells[0][:1]]) == 0.0
    once = cells[0][:1]
    bare, wide = (difference_interval([(cells[1], once)], (alone, alone)) for alone in (0.0, 0.05))
    assert wide.value == bare.value
    assert wide.high - wide.low > 1.2 * (bare.high - bare.low)


def test_pairing_by_row_makes_the_interval_narrower_than_the_rows_alone_would() -> None:
    rows = np.random.default_rng(1).integers(0, 2, size=(1, 200)).astype(float)
    better = rows.copy()
    better[0, :10] = 1.0
    gap = difference_interval([(better, rows)])
    alone = mean_interval([rows])
    assert gap.low >= 0
    assert gap.high - gap.low < (alone.high - alone.low) / 2


def test_systems_on_different_rows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same test rows"):
        difference_interval([(matrix(["010"]), matrix(["01"]))])
    with pytest.raises(ValueError, match="same test rows"):
        matrix(["010", "01"])


def test_the_report_says_what_the_results_say() -> None:
    lines = [
        _line("user", "trec", "m", 0, 0, 0, "0000000000"),
        _line("random", "trec", "m", 700, 0, 0, "1100000000"),
        _line("random", "trec", "m", 700, 1, 0, "1111000000"),
        _line("ours", "trec", "m", 700, 0, 0, "1111110000", steps=[[100, 0.2], [400, 0.4], [700, 0.6]]),
        _line("capo", "trec", "m", 700, 0, 0, "0000000000", happened="crash: a|b"),
        _line("ours", "trec", "m", 40, 0, 0, "1111111111"),
        _line("ours", "snips", "m", 700, 0, 12, "1111111111"),
    ]
    text = report(lines)
    table = {row.split(" | ")[0].strip("| "): row for row in text.split("### trec")[1].splitlines() if row[:2] == "| "}
    assert "30.0 [" in table[SYSTEMS["random"].title]
    assert "60.0 [" in table["ours"], "trials at another budget are no result"
    assert "1 of 1: crash: a/b" in table[SYSTEMS["capo"].title]
    assert "snips" not in text, "trials on a few rows are no result"
    assert "+30.0 [" in text
    assert "+60.0 [" in text
    assert "ended at 30.0 (700 calls); ours: 400 calls" in text


def test_a_report_without_results_says_so() -> None:
    assert "No results yet" in report([])


def test_policies_can_be_replayed_over_the_recorded_outcomes() -> None:
    """The search as it is, over a recorded matrix: the same seed finds the same, better than random search."""
    world = replay.World.read(replay.FOLDER / "trec.json.gz")
    seeds, plan = (0, 1, 1), replay.plan_of(700, 78, 130)
    found = [replay.score(world, "ours", plan, seed) for seed in seeds]
    assert found[1] == found[2]
    assert max(found) <= world.best
    assert sum(found) > sum(replay.score(world, "random search", plan, seed) for seed in seeds)


def test_the_chart_is_an_svg_with_one_panel_a_task() -> None:
    lines = [_line("ours", name, "m", 700, 0, 0, "10", steps=[[10, 0.1], [700, 0.5]]) for name in ("trec", "snips")]
    drawn = chart(lines)
    assert drawn.startswith("<svg")
    assert drawn.count("<polyline") == 2
    assert ">trec<" in drawn
    assert ">snips<" in drawn
    both = chart([*lines, _line("ours", "trec", "local/n", 1500, 0, 0, "10", steps=[[1500, 0.5]])])
    assert ">trec, m<" in both
    assert ">trec, n<" in both
    assert ">1600<" in both, "the axis holds the longest run"


def _line(system: str, name: str, model: str, budget: int, seed: int, rows: int, score: str = "01", **more: Any) -> Any:
    return {
        "system": system,
        "set": name,
        "model": model,
        "budget": budget,
        "seed": seed,
        "rows": rows,
        "test": score.count("1") / len(score),
        "marks": score,
        "calls": {"task": budget, "proposer": 3},
        "tokens": {"task": {"prompt_tokens": 1000, "completion_tokens": 10}},
        "prompt_tokens_per_call": 50.0,
        "seconds": 10.0,
        "steps": [],
        "happened": "ok",
    } | more
