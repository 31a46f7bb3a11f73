"""The arena's systems that pick examples, and random search over the space of ours: over the toy model's server, which
answers as the demo that shares most words with the input."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.programs.moves.prompt_moves import CandidateGenerator
from agent.prompt.calibration import LabelCalibration
from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate
from agent.types import Completion, Example, Task, Usage
from tests.bench.arena import goods, guard
from tests.bench.arena.client import ModelServer
from tests.bench.arena.data import right
from tests.bench.arena.report import report
from tests.bench.arena.score import Scorer
from tests.bench.arena.systems import SYSTEMS, dspy_knn, neighbours, ours, same_space, simple
from tests.bench.arena.systems.base import Prompt
from tests.bench.arena.systems.candidate import CandidatePrompt
from tests.bench.arena.weights import label
from tests.test_arena import _line as line


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


def hits(task: Task, prompt: Prompt, url: str) -> float:
    seen = Scorer("label", goods.LABELS).marks(prompt.replies(url, "score", task.test), right(task, task.test))
    return seen.count("1") / len(seen)


def test_the_nearest_rows_are_shown_for_each_input_and_nothing_is_searched(server: ModelServer, task: Task) -> None:
    url = f"{server.url}/knn"
    found = neighbours.nearest_rows(task, url, 0, 0)
    assert server.counts("knn") == {}
    assert isinstance(found.prompt, CandidatePrompt)
    for row in task.test[:5]:
        sent = found.prompt.messages(row)
        assert len(sent) == 2 + 2 * neighbours.NEAREST
        assert goods.named_goods(sent[-3].content) == goods.named_goods(row.inputs["text"]), "the nearest stands last"
    assert hits(task, found.prompt, url) > 0.6
    assert server.counts("knn")["score"]["calls"] == len(task.test)


@pytest.fixture
def configured() -> Iterator[None]:
    """A peer configures DSPy for its whole process; other tests find it as it was."""
    import dspy

    yield
    dspy.configure(lm=None, adapter=None)


@pytest.mark.usefixtures("configured")
def test_dspys_nearest_rows_share_the_rare_words_of_the_input(server: ModelServer, task: Task) -> None:
    found = dspy_knn.nearest_rows(task, f"{server.url}/dspy", 0, 0)
    assert server.counts("dspy") == {}, "no call is made before the test"
    vectors = dspy_knn.embedder([row.inputs["text"] for row in task.train])
    near = vectors([row.inputs["text"] for row in task.train[:3]])
    assert np.linalg.norm(near, axis=1) == pytest.approx(1.0, abs=1e-5)
    said = found.prompt.replies(f"{server.url}/dspy", "score", task.test[:8])
    assert set(said) <= set(goods.LABELS), "JSONAdapter's replies are read"
    count = server.counts("dspy")["score"]
    assert count["calls"] == 8, "one call a row"
    assert count["prompt_tokens"] / 8 > 150, "examples are in it"


def test_random_search_over_demos_keeps_to_its_calls_and_helps(server: ModelServer, task: Task) -> None:
    url = f"{server.url}/random"
    found = simple.random_demos(task, url, 100, 0)
    assert server.counts("random")["task"]["calls"] == 3 * len(task.dev)
    assert hits(task, found.prompt, url) > hits(task, simple.user(task, url, 0, 0).prompt, url)


def test_answers_that_are_known_are_not_bought_again(server: ModelServer, task: Task) -> None:
    found = neighbours.nearest_rows(task, f"{server.url}/known", 0, 0).prompt
    assert isinstance(found, CandidatePrompt)
    known = replace(found, known={row.id: "east" for row in task.test[2:]})
    assert known.replies(f"{server.url}/known", "score", task.test)[2:] == ["east"] * (len(task.test) - 2)
    assert server.counts("known")["score"]["calls"] == 2


def test_calibration_decide_what_a_reply_says(task: Task) -> None:
    tops = (("north", -0.2), ("west", -1.8), ("south", -6.0), ("east", -6.0))
    reply = Completion("north", "stop", Usage(), "m", (tops,))
    plain = CandidatePrompt(task, PickedRows(task), PromptCandidate("zero-shot", "turns", task.instruction))
    bias = {"east": 0.0, "north": 0.0, "south": 0.0, "west": 3.0}
    weighted = replace(plain, candidate=replace(plain.candidate, calibration=LabelCalibration("fitted", bias)))
    assert (plain.answer(reply, task.test[0]), weighted.answer(reply, task.test[0])) == ("north", "west")
    assert weighted.answer(None, task.test[0]) == ""


def test_random_search_draws_every_kind_of_design_of_ours_and_none_twice(task: Task) -> None:
    task = replace(task, space=replace(task.space, demo_counts=(8, 48)))
    drawn = list(itertools.islice(same_space.designs(task, random.Random(1)), 150))
    assert len({one.id for one in drawn}) == len(drawn)
    assert {one.picks.retriever for one in drawn if one.picks} == {"bm25", "chars", "hybrid"}
    assert {0, 8, 48} <= {len(one.demos) for one in drawn if not one.picks}
    assert {one.format for one in drawn} == set(task.space.formats)
    sets = [Counter(demo.outputs["label"] for demo in one.demos) for one in drawn if len(one.demos) == 8]
    assert any(set(counts.values()) == {2} for counts in sets), "balanced sets are among them"


def test_a_coordinate_that_a_design_has_no_use_for_counts_once(task: Task) -> None:
    space = CandidateGenerator(task, random.Random(0)).space()
    places = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    plain = [place for place in places if same_space.is_plain(place, space)]
    picked = [place for place in plain if place["retriever"] != "none"]
    words = len(space["format"]) * len(space["instruction"]) * len(space["role"])
    assert len(picked) == words * 3 * len(space["picked"]) * len(space["pick_order"])
    assert len([place for place in plain if place["technique"] == "zero-shot"]) == words
    assert len(plain) - len(picked) == words * (1 + len(space["kind"]) * len(space["size"]))


def test_random_search_keeps_to_its_calls_and_keeps_the_best(server: ModelServer, task: Task) -> None:
    url = f"{server.url}/same"
    found = same_space.random_search(task, url, 250, 0)
    assert server.counts("same")["task"]["calls"] == 8 * len(task.dev)
    assert sum(found.facts["tried"].values()) == 8
    assert hits(task, found.prompt, url) >= 0.6
    again = same_space.random_search(task, f"{server.url}/again", 250, 0)
    assert again.prompt.key == found.prompt.key
    assert same_space.random_search(task, url, len(task.dev) - 1, 0).note


def test_what_ours_found_is_scored_with_the_demos_that_it_picks(server: ModelServer, task: Task) -> None:
    url = f"{server.url}/ours"
    found = ours.without_proposer(task, url, 500, 0)
    assert isinstance(found.prompt, CandidatePrompt)
    assert found.facts["winner"]["picks"] is not None
    assert found.facts["finalists"][0]["picks"]
    before = server.counts("ours")
    assert hits(task, found.prompt, url) > 0.6
    assert server.counts("ours") == before, "the replies of the sealed test are used"
    unknown = replace(found.prompt, known={})
    assert hits(task, unknown, url) == hits(task, found.prompt, url)
    assert found.steps[-1].prompt.key == found.prompt.key


def test_weights_in_another_format_have_results_of_their_own() -> None:
    name = label("local/smollm2-135m")
    assert name.startswith("local/smollm2-135m@")
    assert (label("toy"), label("folder/own.gguf")) == ("toy", "own.gguf")
    old = line("random", "trec", "local/smollm2-135m", 700, 0, 0, "1111111111")
    new = [line("random", "trec", name, 700, 0, 0, "1000000000"), line("ours", "trec", name, 700, 0, 0, "1100000000")]
    text = report([old, *new])
    before, _, after = text.partition(f"## {name}\n")
    assert "100.0 [" in before
    assert "100.0 [" not in after
    assert "+10.0 [" in after


@pytest.mark.parametrize(("model", "dev_rows", "seed"), [("copier", 100, 8), ("even", 100, 2), ("even", 30, 51)])
def test_picks_are_not_chosen_where_they_cannot_help(model: str, dev_rows: int, seed: int) -> None:
    """A few runs of `python -m tests.bench.arena.guard`, in which the best on dev picks; in the last 27 of these
    compete on 30 rows."""
    chosen, tried = asyncio.run(guard.run_once(model, dev_rows, 700, seed))
    assert any(one.whole and one.picks for one in tried)
    assert any(one.whole and one.calibration for one in tried)
    assert chosen.refused
    assert not chosen.picked


def test_systems_without_a_search_have_no_budget() -> None:
    assert [SYSTEMS[name].budget for name in ("user", "knn-prompt", "dspy-knn", "random-same-space")] == [0, 0, 0, 700]
