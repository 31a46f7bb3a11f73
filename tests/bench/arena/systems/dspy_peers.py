"""DSPy's optimizers, each used as its documentation says, on DSPy's own signature, adapter and evaluation.

What is ours is the size: `budget` counts model calls, and DSPy counts programs and trials. A pilot on PILOT train rows
(it is part of the budget) tells how many model calls a row takes, since an adapter that cannot read a reply asks again;
programs, trials or metric calls are then as many as fit. Beyond that only mercy: parse errors never end an evaluation
(max_errors), and a reply may be as long as any label in any adapter's layout needs. The validation rows are the first
DEV_ROWS of dev, as for random search; the model that proposes is the task model, at the temperature 1 that GEPA's
documentation asks for. The cache is off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.types import Example, Task
from tests.bench.arena.client import base_url
from tests.bench.arena.data import label_field, right, scorer, text_field
from tests.bench.arena.systems.base import Found, Step, most_examples, reply_tokens

DEV_ROWS = 60
PILOT = 16
THREADS = 8
REPLY_TOKENS = 96
PROPOSAL_TOKENS = 1024
NEVER = 1_000_000
MINIBATCH, FULL_EVERY = 35, 5  # MIPROv2's own defaults, which its cost depends on
BOOTSTRAPPED = 4  # demos of the teacher's own, and labelled ones, at most, in DSPy's defaults


@dataclass(frozen=True, slots=True, eq=False)
class ProgramPrompt:
    """A compiled program with the adapter that it is run with."""

    program: Any
    adapter: Any
    task: Task

    @property
    def key(self) -> str:
        return json.dumps(self.program.dump_state(), sort_keys=True, default=str)

    def replies(self, url: str, role: str, rows: Sequence[Example]) -> list[str]:
        return self._run(url, role, rows)[0]

    def calls_and_hits(self, url: str, rows: Sequence[Example]) -> tuple[float, float]:
        """Model calls a row, and the part of the rows that is right."""
        replies, calls = self._run(url, "task", rows)
        hits = scorer(self.task).marks(replies, right(self.task, rows)).count("1")
        return max(1.0, calls / len(rows)), hits / len(rows)

    def _run(self, url: str, role: str, rows: Sequence[Example]) -> tuple[list[str], int]:
        import dspy

        tokens = reply_tokens(self.task, REPLY_TOKENS)
        model, program = connect(url, role, max_tokens=tokens), self.program.deepcopy()
        program.set_lm(model)
        with dspy.context(lm=model, adapter=self.adapter):
            run = dspy.Evaluate(
                devset=examples(self.task, rows),
                metric=lambda example, prediction, trace=None: 0.0,
                num_threads=THREADS,
                max_errors=NEVER,
            )(program)
        name = label_field(self.task).name
        return [str(getattr(prediction, name, "") or "") for _, prediction, _ in run.results], len(model.history)


@dataclass(frozen=True, slots=True)
class Setup:
    """What all of DSPy's optimizers start from. `calls` and `hits` are a row's, with demos or without."""

    task: Task
    program: Any
    adapter: Any
    train: list[Any]
    dev: list[Any]
    metric: Callable[..., Any]
    proposer: Any
    budget: float
    calls: float
    hits: float

    def found(self, program: Any, steps: Sequence[Step] = (), **facts: Any) -> Found:
        facts |= {"calls_per_row": round(self.calls, 2), "pilot_hits": round(self.hits, 2)}
        return Found(ProgramPrompt(program, self.adapter, self.task), tuple(steps), facts=facts)

    @property
    def bootstrap(self) -> float:
        """Calls to bootstrap one set of demos: rows are tried until a few are right."""
        tried = min(len(self.train), (1 + BOOTSTRAPPED) / 2 / max(self.hits, 0.02))
        return self.calls * tried


def connect(url: str, role: str, **more: Any) -> Any:
    import dspy

    settings = {"max_tokens": REPLY_TOKENS, "temperature": 0.0, **more}
    return dspy.LM("openai/arena", api_base=base_url(url, role), api_key="no-key", cache=False, **settings)


def examples(task: Task, rows: Sequence[Example]) -> list[Any]:
    import dspy

    text, label = text_field(task), label_field(task).name
    return [dspy.Example(**{text: row.inputs[text], label: str(row.labels[label])}).with_inputs(text) for row in rows]


def program_of(task: Task, json_adapter: bool) -> tuple[Any, Any]:
    """The task as `dspy.Predict` (`ChainOfThought` where numbers are worked out), and its adapter: JSONAdapter with the
    labels as a Literal, or DSPy's default."""
    import dspy

    output = label_field(task)
    kind: Any = Literal[tuple(output.choices)] if json_adapter else str
    fields = {text_field(task): (str, dspy.InputField()), output.name: (kind, dspy.OutputField())}
    module = dspy.ChainOfThought if scorer(task).answers == "number" else dspy.Predict
    return module(dspy.make_signature(fields, task.instruction)), dspy.JSONAdapter() if json_adapter else None


def prepare(task: Task, url: str, budget: int, json_adapter: bool = False, demos: bool = True) -> Setup:
    """Configures DSPy for the task and makes the pilot."""
    import dspy

    output, score = label_field(task), scorer(task)
    program, adapter = program_of(task, json_adapter)
    model = connect(url, "task", max_tokens=reply_tokens(task, REPLY_TOKENS))
    dspy.configure(lm=model, adapter=adapter, max_errors=NEVER, num_threads=THREADS)
    train = examples(task, task.train)

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        reply = str(getattr(prediction, output.name, "") or "")
        return score.hit(reply, getattr(example, output.name))

    shown = most_examples(task, 16) if demos else 0
    pilot = dspy.LabeledFewShot(k=shown).compile(program, trainset=train) if shown else program
    calls, hits = ProgramPrompt(pilot, adapter, task).calls_and_hits(url, task.train[-PILOT:])
    proposer = connect(url, "proposer", max_tokens=PROPOSAL_TOKENS, temperature=1.0)
    left = budget - calls * PILOT
    return Setup(
        task, program, adapter, train, examples(task, task.dev[:DEV_ROWS]), metric, proposer, left, calls, hits
    )


def random_search(task: Task, url: str, budget: int, seed: int, json_adapter: bool = False) -> Found:
    """BootstrapFewShotWithRandomSearch. It evaluates three programs besides its candidates, and takes no seed."""
    import dspy

    setup = prepare(task, url, budget, json_adapter)
    programs = int(setup.budget / (setup.calls * len(setup.dev) + setup.bootstrap))
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=setup.metric, num_candidate_programs=max(1, programs - 3), num_threads=THREADS, max_errors=NEVER
    )
    best = optimizer.compile(setup.program, trainset=setup.train, valset=setup.dev)
    tried = sorted(best.candidate_programs, key=lambda one: one["seed"])
    steps, top = [], -1.0
    for number, one in enumerate(tried, 1):
        if one["score"] > top:
            top = one["score"]
            steps.append(Step(round(budget * number / len(tried)), ProgramPrompt(one["program"], setup.adapter, task)))
    return setup.found(best, steps, programs=len(tried), dev=top)


def random_search_json(task: Task, url: str, budget: int, seed: int) -> Found:
    """The same with JSONAdapter and the labels as a Literal, so that decoding is constrained to them."""
    return random_search(task, url, budget, seed, json_adapter=True)


def mipro(task: Task, url: str, budget: int, seed: int) -> Found:
    """MIPROv2 with auto=None. Its trials cost 35 rows each, and all of dev at the start and after every fifth;
    candidates are two thirds of the trials, which is the relation that MIPROv2 recommends."""
    import dspy

    setup = prepare(task, url, budget)
    batch, dev = min(MINIBATCH, len(setup.dev)), len(setup.dev)

    def cost(trials: int) -> float:
        full = trials // FULL_EVERY + 1 + (trials % FULL_EVERY != 0)
        return setup.calls * (trials * batch + full * dev) + candidates(trials) * setup.bootstrap

    def candidates(trials: int) -> int:
        return max(3, trials * 2 // 3)

    trials = max([number for number in range(1, 200) if cost(number) <= setup.budget], default=1)
    optimizer = dspy.MIPROv2(
        metric=setup.metric,
        prompt_model=setup.proposer,
        auto=None,
        num_candidates=candidates(trials),
        max_bootstrapped_demos=most_examples(task, BOOTSTRAPPED),
        max_labeled_demos=most_examples(task, BOOTSTRAPPED),
        num_threads=THREADS,
        max_errors=NEVER,
        seed=seed + 1,
    )
    best = optimizer.compile(
        setup.program, trainset=setup.train, valset=setup.dev, num_trials=trials, minibatch_size=batch
    )
    return setup.found(best, trials=trials, candidates=candidates(trials))


def gepa(task: Task, url: str, budget: int, seed: int) -> Found:
    """GEPA with the budget as max_metric_calls (over the calls that a row takes), and feedback that names the label."""
    import dspy

    setup = prepare(task, url, budget, demos=False)
    output = label_field(task)

    def with_feedback(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        hit = setup.metric(gold, pred)
        reply, wanted = str(getattr(pred, output.name, "") or ""), getattr(gold, output.name)
        feedback = "The answer is right." if hit else scorer(task).why(reply, wanted)
        return dspy.Prediction(score=float(hit), feedback=feedback)

    optimizer = dspy.GEPA(
        metric=with_feedback,
        max_metric_calls=max(1, int(setup.budget / setup.calls)),
        reflection_lm=setup.proposer,
        num_threads=THREADS,
        seed=seed,
    )
    return setup.found(optimizer.compile(setup.program, trainset=setup.train, valset=setup.dev))
