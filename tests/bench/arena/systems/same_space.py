"""Random search over the space of our own search: what is left of ours without its choices.

Designs are drawn uniformly from those that ours can draw (`CandidateGenerator.space`): technique, layout, wording, sets
of every kind and size, and every way to pick demos for each input. A coordinate that a design makes no use of counts
once. As in ours each candidate has twins with calibration, those that pick one with neighbours, too, which are read
from the same replies and cost no call. The best on DEV_ROWS dev rows wins.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import mean

from agent.programs.moves.part_moves import NONE
from agent.programs.moves.prompt_moves import CandidateGenerator
from agent.prompt.label_calibration import NEIGHBOURS, LabelCalibration, Method, Neighbours, label_scores, log_shares
from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt, baseline
from agent.prompt.techniques import TECHNIQUES
from agent.search.calibration import FEWEST_ROWS, LEAST_SHARE
from agent.search.context import dev_rows
from agent.stats.calibration import Weights, cross_fitted, fitted, label_free
from agent.types import Completion, Example, Task
from tests.bench.arena.data import label_field, right, scorer
from tests.bench.arena.systems.base import Found, Step
from tests.bench.arena.systems.candidate import CandidatePrompt

DEV_ROWS = 60
FIXED, PICKED = ("kind", "size"), ("retriever", "picked", "pick_order")


def random_search(task: Task, url: str, budget: int, seed: int) -> Found:
    """As many designs as `budget` calls score on the dev rows, each once."""
    rng, pool = random.Random(seed), PickedRows(task)
    rows = dev_rows(task, DEV_ROWS, seed)
    best, steps, calls, tried = -1.0, list[Step](), 0, list[str]()
    for candidate in designs(task, rng):
        if calls + len(rows) > budget:
            break
        tried.append("picks" if candidate.part("picks") else "fixed" if candidate.demos else "none")
        prompt = CandidatePrompt(task, pool, candidate)
        replies = prompt.completions(url, "task", rows, logprobs=True)
        calls += len(rows)
        for twin, score in readings(prompt, rows, replies):
            if score > best:
                best = score
                steps.append(Step(calls, twin))
    if not steps:
        return Found(CandidatePrompt(task, pool, baseline(task)), note=f"a budget of {budget} buys no design")
    found = steps[-1].prompt
    assert isinstance(found, CandidatePrompt)
    winner = found.candidate
    facts = {
        "dev": round(best, 4),
        "tried": {kind: tried.count(kind) for kind in ("none", "fixed", "picks")},
        "winner": {
            "technique": winner.technique,
            "format": winner.format,
            "n_examples": winner.n_examples,
            "picks": picks.as_dict() if (picks := winner.part("picks")) else None,
        },
        "calibrated": winner.part("calibration") is not None,
    }
    return Found(found, tuple(steps), facts=facts)


def designs(task: Task, rng: random.Random) -> Iterator[PromptCandidate]:
    """Designs in a random order, each candidate once."""
    generator, seen = CandidateGenerator(task, rng), set[str]()
    space = generator.space()
    while True:
        place = {name: rng.choice(choices) for name, choices in space.items()}
        proposal = generator.fresh(place) if is_plain(place, space) else None
        if proposal is not None and proposal.candidate.id not in seen:
            seen.add(proposal.candidate.id)
            yield as_prompt(proposal.candidate)


def is_plain(place: Mapping[str, str], space: Mapping[str, Sequence[str]]) -> bool:
    """Whether the coordinates that this design makes no use of have their first choice, so that it is drawn as often as
    any other."""
    if not TECHNIQUES[place["technique"]].demos:  # type: ignore[index]
        unused: tuple[str, ...] = FIXED + PICKED
    else:
        unused = PICKED if place.get("retriever", NONE) == NONE else FIXED
    return all(place[name] == space[name][0] for name in unused if name in space)


def readings(
    prompt: CandidatePrompt, rows: Sequence[Example], replies: Sequence[Completion | None]
) -> Iterator[tuple[CandidatePrompt, float]]:
    """A candidate and its twins with calibration, each with its score on the rows, in [0, 1]. What a fitted twin says
    of a row comes from weights that were fitted without that row's fold."""
    task, field = prompt.task, label_field(prompt.task)
    wanted = right(task, rows)

    def score(each: Sequence[CandidatePrompt]) -> float:
        said = [one.answer(reply, row) for one, reply, row in zip(each, replies, rows, strict=True)]
        return mean(map(int, scorer(task).marks(said, wanted)))

    yield prompt, score([prompt] * len(rows))
    logs = [label_logs(reply, field.choices) for reply in replies]
    usable = [(at, found, field.choices.index(wanted[at])) for at, found in enumerate(logs) if found is not None]
    if len(usable) < max(FEWEST_ROWS, LEAST_SHARE * len(rows)):
        return
    scores, answers = [found for _, found, _ in usable], [label for _, _, label in usable]

    def twin(method: Method, weights: Weights) -> CandidatePrompt:
        near = Neighbours(NEIGHBOURS, weights.weight) if method == "neighbours" else None
        named = LabelCalibration(method, dict(zip(field.choices, weights.bias, strict=True)), weights.temperature, near)
        return replace(prompt, candidate=prompt.candidate.having(calibration=named))

    def apart(method: Method, shares: list[list[float]] | None) -> tuple[CandidatePrompt, float]:
        each = zip(usable, cross_fitted(scores, answers, shares), strict=True)
        by_row = {at: twin(method, weights) for (at, _, _), weights in each}
        whole = twin(method, fitted(scores, answers, shares))
        return whole, score([by_row.get(at, prompt) for at in range(len(rows))])

    free = twin("label-free", label_free(scores))
    yield free, score([free] * len(rows))
    yield apart("fitted", None)
    if prompt.candidate.part("picks"):
        yield apart("neighbours", [log_shares(prompt.pool.votes(rows[at], NEIGHBOURS)) for at, _, _ in usable])


def label_logs(reply: Completion | None, labels: tuple[str, ...]) -> Sequence[float] | None:
    """The log-probability of each label; None where the reply does not tell."""
    if reply is None:
        return None
    return reply.label_logprobs or label_scores(reply.logprobs, labels)
