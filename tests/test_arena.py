"""The arena of prompt optimizers: rows, scorer, books, statistics and systems. No engine, no peer, no network."""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.bench
import tests.chaos
from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate
from agent.types import Completion, Example, Message, Request, Task, Usage
from tests.bench.arena import blind, goods, guard, replay, results, stats
from tests.bench.arena.bench import last_words, schedule
from tests.bench.arena.client import ModelServer
from tests.bench.arena.data import MORE_SETS, MOST, SETS, answers, data_folder, label_field, load, right
from tests.bench.arena.ifeval.metric import broken
from tests.bench.arena.plot import chart
from tests.bench.arena.replies import KeptReplies
from tests.bench.arena.report import report
from tests.bench.arena.score import Scorer, last_number, named
from tests.bench.arena.server import read_request
from tests.bench.arena.stats import difference_interval
from tests.bench.arena.systems import SYSTEMS, neighbours, ours, same_space, simple
from tests.bench.arena.systems.candidate import CandidatePrompt
from tests.bench.arena.systems.ours import incumbents
from tests.bench.arena.toy import ToyModel

LABELS = ("card_arrival", "card_arrival_late", "Top Up", "refund")
SHIPPED = ("support_triage", "queue_codes", "word_problems")


@pytest.mark.parametrize("package", [tests.bench, tests.chaos], ids=["bench", "chaos"])
def test_every_module_imports(package: Any) -> None:
    """Modules that only run by hand would break unseen."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith("promptolution_script"):
            importlib.import_module(found.name)


# -- rows and scorer


@pytest.mark.parametrize("name", [*SETS, *MORE_SETS])
def test_splits_share_no_row_and_their_labels_are_choices(name: str) -> None:
    if name not in SHIPPED and not (data_folder() / "trec").is_dir():
        pytest.skip("the rows are not there")
    task = load(name, data_folder())
    splits = (task.train, task.dev, task.test)
    assert all(0 < len(rows) <= most for rows, most in zip(splits, MOST, strict=True))
    assert max(Counter(row.id for rows in splits for row in rows).values()) == 1
    if answers(name) == "label":
        choices = label_field(task).choices
        assert {label for rows in splits for label in right(task, rows)} <= set(choices)
        assert all(label in task.instruction for label in choices)


@pytest.mark.parametrize(("most", "counts"), [(0, ()), (1, (1,)), (4, (1, 2, 4))])
def test_a_name_with_a_number_bounds_the_examples(most: int, counts: tuple[int, ...]) -> None:
    task = load(f"queue_codes:{most}", data_folder())
    assert task.space.demo_counts == counts
    assert task.constraints.max_examples == most, "picked examples are counted, too"
    assert task.space.retrieval == ("few-shot" in task.space.techniques) == (most > 0)


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("Card Arrival.", "card_arrival"),
        ("It is CARD_ARRIVAL_LATE, not card_arrival", "card_arrival_late"),
        ("top\n up", "Top Up"),
        ("refunds", ""),
        ("prerefund refund", "refund"),
        ("", ""),
    ],
)
def test_a_reply_names_the_first_label_in_it(reply: str, label: str) -> None:
    assert named(reply, LABELS) == label
    assert Scorer("label", LABELS).marks([reply], ["refund"]) == "01"[label == "refund"]


@pytest.mark.parametrize(
    ("reply", "number"), [("3 x 4 is 12.", 12), ("It is 1,250.5 m", 1250.5), ("minus: -3", -3), ("", None)]
)
def test_the_last_number_of_a_reply_counts(reply: str, number: float | None) -> None:
    assert last_number(reply) == number


@pytest.mark.parametrize(
    ("rule", "arguments", "keeps", "breaks"),
    [
        ("punctuation:no_comma", {}, "one and two", "one, two"),
        ("length_constraints:number_words", {"relation": "less than", "num_words": 3}, "one two", "one two three"),
        ("keywords:forbidden_words", {"forbidden_words": ["tax"]}, "a taxi", "the Tax."),
        ("change_case:english_lowercase", {}, "all small, 1 2", "Not small"),
        ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{'a': 1}"),
        ("combination:two_responses", {}, "one\n******\ntwo", "same\n******\nsame"),
    ],
)
def test_a_rule_is_kept_or_broken(rule: str, arguments: dict[str, Any], keeps: str, breaks: str) -> None:
    rules = json.dumps([[rule, arguments]])
    assert Scorer("rules").marks([keeps, breaks], [rules, rules]) == "10"
    assert len(broken(breaks, rules)) == 1


# -- server and books


def test_a_request_without_a_temperature_is_sampled_and_what_a_client_asks_for_is_passed_on() -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 5, "stop": "\n"}
    sampled, second = read_request(body, 0), read_request(body, 1)
    assert (sampled.messages, sampled.max_tokens, sampled.stop) == ((Message("user", "hi"),), 5, ("\n",))
    assert (sampled.temperature, sampled.seed, second.seed) == (1.0, 0, 1)
    fixed = read_request(body | {"temperature": 0, "seed": 7, "logprobs": True, "top_logprobs": 3}, 99)
    assert (fixed.temperature, fixed.seed, fixed.logprobs) == (0.0, 7, 3)


async def test_only_what_was_asked_before_at_temperature_0_is_not_computed_again(tmp_path: Path) -> None:
    asked = []

    class Asked(ToyModel):
        async def complete(self, request: Request) -> Completion:
            asked.append(request)
            return await super().complete(request)

    hello, sample = Request((Message("user", "hello"),), 8), Request((Message("user", "hello"),), 8, temperature=1.0)
    for name, computed in (("one.gguf", 3), ("one.gguf", 3), ("other.gguf", 4)):
        kept = KeptReplies(Asked(), name, tmp_path / "replies.db")
        await kept.complete(hello)
        if not asked[1:]:
            await kept.complete(sample)
            await kept.complete(sample)
        assert len(asked) == computed
        await kept.close()


def test_runs_are_ordered_skipped_when_finished_and_only_of_sets_that_a_system_is_made_for(tmp_path: Path) -> None:
    order = [key[0] for key in schedule(["dspy-mipro", "ours", "random"], ["trec", "snips"], 2, "m", 0)]
    assert (order[:2], order[-2:]) == (["user"] * 2, ["dspy-mipro"] * 2)
    assert Counter(order) == {"user": 2, "ours": 4, "random": 4, "dspy-mipro": 2}
    keys = [key[:2] for key in schedule(["dspy-knn", "capo"], ["trec", "word_problems", "ifeval"], 1, "m", 0)]
    assert [key for key in keys if key[0] != "user"] == [
        ("dspy-knn", "trec"),
        ("capo", "trec"),
        ("capo", "word_problems"),
    ]
    path, wanted = tmp_path / "results.jsonl", schedule(["random"], ["trec"], 2, "m", 0)
    for score in ("00", "11"):
        results.append(_line(*wanted[0], score), path)
    with path.open("a", encoding="utf-8") as out:
        out.write('{"system": "random", "se')
    assert results.open_runs(wanted, results.read(path)) == wanted[1:], "a line that a kill cut off is made again"
    assert [line["marks"] for line in results.read(path)] == ["11"], "the later of two lines with one key counts"
    results.forget(wanted[:1], path)
    assert results.open_runs(wanted, results.read(path)) == wanted


def test_a_crash_is_told_by_its_exception() -> None:
    text = 'Traceback\n  File "x.py"\n    raise ValueError(1)\nValueError: no such thing\n100%|####| 3/3\n'
    assert last_words(text) == "ValueError: no such thing"


# -- statistics and report


def test_an_incumbent_needs_enough_rows_ahead() -> None:
    walk = [("zero", 0.0)] * 24 + [("", 0.0)] * 12 + [("good", 1.0)] * 24 + [("lucky", 1.0)]
    found = incumbents(walk)
    assert [candidate for _, candidate in found] == ["zero", "good"]
    assert found[1][0] > 36


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


def test_a_single_run_gets_the_spread_between_runs_and_other_rows_are_not_compared() -> None:
    rng = np.random.default_rng(1)
    cells = [np.array([rng.random(400) < rate for rate in rng.normal(0.5, 0.05, 3)], dtype=float) for _ in range(40)]
    assert stats.seed_spread(cells) == pytest.approx(np.hypot(0.05, 0.025), rel=0.25)
    bare, wide = (difference_interval([(cells[1], cells[0][:1])], (alone, alone)) for alone in (0.0, 0.05))
    assert wide.high - wide.low > 1.2 * (bare.high - bare.low)
    with pytest.raises(ValueError, match="same test rows"):
        difference_interval([(stats.matrix(["010"]), stats.matrix(["01"]))])


def test_report_and_chart_show_the_results() -> None:
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
    assert "ended at 30.0 (700 calls); ours: 400 calls" in text
    drawn = chart(lines)
    assert (drawn[:4], drawn.count("<polyline"), ">trec<" in drawn) == ("<svg", 1, True)
    assert "No results yet" in report([])


def test_policies_can_be_replayed_over_the_recorded_outcomes() -> None:
    """The search over a recorded matrix: the same seed finds the same, better than random search."""
    world = replay.World.read(replay.FOLDER / "trec.json.gz")
    seeds, plan = (0, 1, 1), replay.plan_of(700, 78, 130)
    found = [replay.score(world, "ours", plan, seed) for seed in seeds]
    assert found[1] == found[2]
    assert max(found) <= world.best
    assert sum(found) > sum(replay.score(world, "random search", plan, seed) for seed in seeds)


# -- systems, over the toy model's server, which answers as the example that shares most words with the input


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(Path("toy")) as started:
        yield started


@pytest.fixture(scope="module")
def task() -> Task:
    """Labels follow from the goods that a row names; nothing else that rows share is left in it."""
    made = goods.goods_task(dev_rows=30, seed=0, by_goods=True)[0]

    def short(rows: tuple[Example, ...]) -> tuple[Example, ...]:
        kept = [[word for word in row.inputs["text"].split() if word not in goods.FILLER] for row in rows]
        return tuple(replace(row, inputs={"text": " ".join(words)}) for row, words in zip(rows, kept, strict=True))

    return replace(made, train=short(made.train), dev=short(made.dev), test=short(made.test))


def hits(task: Task, prompt: Any, url: str) -> float:
    seen = Scorer("label", goods.LABELS).marks(prompt.replies(url, "score", task.test), right(task, task.test))
    return seen.count("1") / len(seen)


@pytest.mark.parametrize(("system", "calls"), [(neighbours.nearest_rows, 0), (simple.random_demos, 90)])
def test_a_system_keeps_to_its_calls_and_beats_the_users_prompt(
    system: Any, calls: int, server: ModelServer, task: Task
) -> None:
    tag = system.__name__
    url = f"{server.url}/{tag}"
    found = system(task, url, 100, 0)
    assert server.counts(tag).get("task", {"calls": 0})["calls"] == calls
    assert hits(task, found.prompt, url) > hits(task, simple.user(task, url, 0, 0).prompt, url)


def test_ours_is_scored_as_the_command_scores_it(server: ModelServer, task: Task) -> None:
    """With the examples that it picks, its calibration, and the replies of its sealed test."""
    url = f"{server.url}/ours"
    found = ours.without_proposer(task, url, 500, 0)
    assert isinstance(found.prompt, CandidatePrompt)
    assert found.facts["winner"]["picks"] is not None
    before = server.counts("ours")
    assert hits(task, found.prompt, url) > 0.6
    assert server.counts("ours") == before, "the replies of the sealed test are used"
    tops = (("north", -0.2), ("west", -1.8), ("south", -6.0), ("east", -6.0))
    plain = CandidatePrompt(task, PickedRows(task), PromptCandidate("zero-shot", "turns", task.instruction))
    assert plain.answer(Completion("north", "stop", Usage(), "m", (tops,)), task.test[0]) == "north"


def test_random_search_draws_every_kind_of_design_of_ours_and_none_twice(task: Task) -> None:
    task = replace(task, space=replace(task.space, demo_counts=(8, 48)))
    drawn = list(islice(same_space.designs(task, random.Random(1)), 150))
    assert len({one.id for one in drawn}) == len(drawn)
    assert {picks.retriever for one in drawn if (picks := one.part("picks"))} == {"bm25", "chars", "hybrid"}
    assert {0, 8, 48} <= {len(one.demos) for one in drawn if not one.part("picks")}
    assert {one.format for one in drawn} == set(task.space.formats)


# -- guards of the product, a few runs of each


def test_picked_examples_are_not_chosen_if_they_cannot_help() -> None:
    """One run of `tests.bench.arena.guard` in which the best prompt on dev picks its examples."""
    chosen, tried = asyncio.run(guard.run_once("even", 30, 700, 51))
    assert any(one.whole and one.picks for one in tried)
    assert any(one.whole and one.calibration for one in tried)
    assert chosen.refused
    assert not chosen.picked


@pytest.mark.parametrize("metric", blind.KINDS)
def test_a_winner_that_does_not_read_its_input_is_held_back(metric: str) -> None:
    """One run of `tests.bench.arena.blind`: the winner gains over the user's prompt, but not over a constant answer."""
    tally = blind.tallied(metric, [asyncio.run(blind.run_once(metric, 0, 200))])
    assert (tally.above, tally.better) == (1, 0)


def _line(system: str, name: str, model: str, budget: int, seed: int, rows: int, score: str = "01", **more: Any) -> Any:
    run = {"system": system, "set": name, "model": model, "budget": budget, "seed": seed, "rows": rows}
    spent = {
        "calls": {"task": budget, "proposer": 3},
        "tokens": {"task": {"prompt_tokens": 1000, "completion_tokens": 10}},
    }
    found = {"test": score.count("1") / len(score), "marks": score, "prompt_tokens_per_call": 50.0, "seconds": 10.0}
    return {**run, **spent, **found, "steps": [], "happened": "ok"} | more
