"""The deterministic metrics: one field of a prediction against the row's label, as a score in [0, 1] with a reason.

Knows examples and predictions; never sees a model. A prediction with `error` scores 0 with that error as its reason:
not parsing is the prompt's fault. What cannot be scored (no label) is None, never 0. metric.py: see `user_metric`.
A list as the label of a text field, which a task made in Python may hold, means "any of these will do".
"""

from __future__ import annotations

import math
import re
import string
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.aside import aside
from agent.errors import InputError
from agent.scoring.bounded import Bounded, pattern_check
from agent.scoring.functions import FunctionMetric, registered
from agent.scoring.json_metrics import json_fields, json_schema
from agent.scoring.user_metric import PythonMetric
from agent.scoring.values import Check, as_text, exact, f1, golds, key, short, where
from agent.scoring.worker import Verdict
from agent.shipped import composed, fold
from agent.types import Example, Field, Metric, MetricSpec, Prediction, Score, Task

OtherBuilder = Callable[[MetricSpec], Metric]

UNLABELLED = frozenset({"regex", "json_schema", "length", "no_repeat"})


def build_metrics(task: Task, others: Mapping[str, OtherBuilder] = MappingProxyType({})) -> tuple[Metric, ...]:
    """One metric per `task.metrics`, in that order; `others` builds names that are not known here, such as a judge.

    A name used twice becomes `name:field`. Raises InputError for an unknown name, field or option value, a pattern or
    schema that does not compile, and a missing or broken metric.py.
    """
    names = Counter(spec.name for spec in task.metrics)
    metrics: list[Metric] = []
    for spec in task.metrics:
        if function := registered(spec.name):
            metrics.append(FunctionMetric(function, spec.field))
            continue
        field = _field_of(spec, task)
        name = spec.name if names[spec.name] == 1 else f"{spec.name}:{field.name}"
        if spec.name in others:
            metrics.append(others[spec.name](spec))
        elif spec.name == "python":
            metrics.append(PythonMetric(name, Path(task.folder) / "metric.py"))
        elif spec.name in _CHECKS:
            check = _CHECKS[spec.name](spec, field, task)
            metrics.append(FieldMetric(name, field.name, check, spec.name not in UNLABELLED))
        else:
            known = ", ".join(sorted({*_CHECKS, *others, "python"}))
            raise InputError(
                f"{where(task)}: no metric is called {spec.name!r}, and no function is registered as that; there are "
                f"{known}"
            )
    return tuple(metrics)


def combine(scores: Sequence[Score], specs: Sequence[MetricSpec]) -> float | None:
    """The weighted mean of the scores of one outcome, in the order of `specs`; None when there is none or any is None.

    Raises ValueError when the two differ in length or the weights do not add up to something positive.
    """
    total = math.fsum(spec.weight for spec in specs)
    if len(scores) != len(specs) or (specs and not total > 0):
        raise ValueError(f"{len(scores)} scores for {len(specs)} metrics with weights that add up to {total}")
    parts = [score.value * spec.weight for score, spec in zip(scores, specs, strict=True) if score.value is not None]
    if not specs or len(parts) < len(specs):
        return None
    return min(1.0, max(0.0, math.fsum(parts) / total))


@dataclass(frozen=True, slots=True)
class FieldMetric:
    """A pure check of one field against its label."""

    name: str
    field: str
    check: Check | Bounded
    needs_label: bool = True

    async def score(self, example: Example, prediction: Prediction) -> Score:
        if prediction.error:
            return Score(self.name, 0.0, prediction.error)
        label = example.labels.get(self.field)
        if self.needs_label and label is None:
            return Score(self.name, None, f"row {example.id} has no label for {self.field}")
        if self.field not in prediction.fields:
            return Score(self.name, 0.0, f"the reply has no {self.field}")
        check: Callable[[], Verdict | Awaitable[Verdict]] = partial(self.check, prediction.fields[self.field], label)
        found = await aside(len(prediction.raw), check)
        return Score(self.name, *(found if isinstance(found, tuple) else await found))


# ---- options


def _field_of(spec: MetricSpec, task: Task) -> Field:
    outputs = {field.name: field for field in task.signature.outputs}
    if not spec.field and len(outputs) == 1:
        return task.signature.outputs[0]
    if spec.field not in outputs:
        raise InputError(
            f"{where(task)}: metric {spec.name} names the field {spec.field!r}; the outputs are {', '.join(outputs)}"
        )
    return outputs[spec.field]


def _number_option(spec: MetricSpec, task: Task, name: str, default: float) -> float:
    value = spec.options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InputError(f"{where(task)}: metric {spec.name} has {name} = {value!r}; give a number of at least 0")
    return float(value)


# ---- text and numbers


def _exact_match(spec: MetricSpec, field: Field, task: Task) -> Check:
    """Equal after stripping, and after folding case and space with `ignore_case`; JSON and numbers by value."""
    same_as = fold if spec.options.get("ignore_case", False) else exact

    def check(got: Any, label: Any) -> Verdict:
        if isinstance(got, str):
            same = same_as(got) in [same_as(gold) for gold in golds(label)]
        else:
            same = key(got, same_as) == key(label, same_as)
        return (1.0, "") if same else (0.0, f"expected {short(label)}, got {short(got)}")

    return check


def _choice(spec: MetricSpec, field: Field, task: Task) -> Check:
    """The same choice, whatever its case and spacing."""

    def check(got: Any, label: Any) -> Verdict:
        same = fold(as_text(got)) == fold(as_text(label))
        return (1.0, "") if same else (0.0, f"expected {short(label)}, got {short(got)}")

    return check


def _numeric(spec: MetricSpec, field: Field, task: Task) -> Check:
    """Within `tolerance` (absolute, 0) of the label, or where one of them is a fraction within 1e-9 of its size."""
    tolerance = _number_option(spec, task, "tolerance", 0.0)

    def check(got: Any, label: Any) -> Verdict:
        wanted, given = _as_number(label), _as_number(got)
        if wanted is None:
            return None, f"the label {short(label)} is not a number"
        if given is None:
            return 0.0, f"expected {short(label)}, got {short(got)}, which is not a number"
        is_whole = isinstance(given, int) and isinstance(wanted, int)
        if abs(given - wanted) <= (tolerance if is_whole else max(tolerance, 1e-9 * abs(wanted))):
            return 1.0, ""
        return 0.0, f"expected {short(label)}, got {short(got)}"

    return check


def _as_number(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value.replace(",", "")) if isinstance(value, str) else value
        return number if math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None


def _contains(spec: MetricSpec, field: Field, task: Task) -> Check:
    """The label's text stands in the output; case and space are folded with `ignore_case`."""
    same_as = fold if spec.options.get("ignore_case", False) else exact

    def check(got: Any, label: Any) -> Verdict:
        text, wanted = same_as(as_text(got)), [same_as(gold) for gold in golds(label)]
        if not all(wanted):
            return None, "the label is empty, and stands in every text"
        if any(gold in text for gold in wanted):
            return 1.0, ""
        return 0.0, f"{short(label)} does not occur in {short(got)}"

    return check


def _regex(spec: MetricSpec, field: Field, task: Task) -> Bounded:
    """`pattern` is found in the output (anchor it with ^ and $ for a full match)."""
    source = spec.options.get("pattern")
    if not isinstance(source, str):
        raise InputError(f'{where(task)}: metric regex needs options.pattern, such as "^[A-Z]{{2}}$"; got {source!r}')
    try:
        re.compile(source)
    except (re.error, RecursionError, OverflowError) as problem:
        raise InputError(f"{where(task)}: metric regex has the pattern {source!r}: {problem}") from problem
    return Bounded(f"the pattern of {field.name}", pattern_check, source)


def _token_f1(spec: MetricSpec, field: Field, task: Task) -> Check:
    """Word overlap as in SQuAD (Rajpurkar et al. 2016): no case, punctuation or articles; the best gold counts."""

    def words(text: str) -> list[str]:
        bare = "".join(c for c in composed(text).lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", bare).split() or bare.split()

    def check(got: Any, label: Any) -> Verdict:
        value = max((f1(words(as_text(got)), words(gold)) for gold in golds(label)), default=0.0)
        return value, "" if value == 1 else f"expected {short(label)}, got {short(got)}"

    return check


def _rouge(spec: MetricSpec, field: Field, task: Task) -> Check:
    """F-measure of the package rouge_score over the words of any script, with its stemmer for English."""
    from rouge_score.rouge_scorer import RougeScorer

    from agent.scoring.overlap import Words, rouge_l

    scorer = RougeScorer([spec.name], tokenizer=Words())
    likeness = rouge_l() if spec.name == "rougeL" else lambda text, gold: scorer.score(gold, text)[spec.name].fmeasure

    def check(got: Any, label: Any) -> Verdict:
        wanted, text = golds(label), as_text(got)
        found = 1.0 if text in wanted else max((likeness(text, gold) for gold in wanted), default=0.0)
        value = min(1.0, max(0.0, float(found)))
        return value, "" if value > 0.999 else f"{spec.name} {value:.2f} against {short(label)}, got {short(got)}"

    return check


def _against_label(spec: MetricSpec, field: Field, task: Task) -> Check:
    """BLEU, chrF, edit or embedding similarity with the label; of several labels the nearest counts."""
    from agent.scoring import overlap

    makers: Mapping[str, Callable[[], overlap.Scorer]] = {
        "bleu": overlap.bleu,
        "chrf": overlap.chrf,
        "edit_similarity": lambda: overlap.edit_similarity,
        "embedding_similarity": overlap.embedding_similarity,
    }
    try:
        scorer = makers[spec.name]()
    except ImportError as missing:
        raise InputError(
            f"{where(task)}: metric {spec.name} needs a package that is not here ({missing}); "
            "pip install 'promptassay[embedding]'"
        ) from missing

    def check(got: Any, label: Any) -> Verdict:
        value = max((scorer(as_text(got), gold) for gold in golds(label)), default=0.0)
        return value, "" if value > 0.999 else f"{spec.name} {value:.2f} against {short(label)}, got {short(got)}"

    return check


def _no_repeat(spec: MetricSpec, field: Field, task: Task) -> Check:
    """The part of the runs of `words` words (3) that do not repeat an earlier one."""
    from agent.scoring.overlap import REPEATED_WORDS, unrepeated

    words = spec.options.get("words", REPEATED_WORDS)
    if isinstance(words, bool) or not isinstance(words, int) or words < 1:
        raise InputError(f"{where(task)}: metric no_repeat has words = {words!r}; give a whole number of at least 1")

    def check(got: Any, label: Any) -> Verdict:
        value = unrepeated(as_text(got), words)
        return value, "" if value == 1 else f"{100 * (1 - value):.0f} % of its runs of {words} words are repetitions"

    return check


def _length(spec: MetricSpec, field: Field, task: Task) -> Check:
    """At least `min_words` and at most `max_words` words."""
    if not {"min_words", "max_words"} & set(spec.options):
        raise InputError(f"{where(task)}: metric length needs min_words, max_words or both in its options")
    low = _number_option(spec, task, "min_words", 0)
    high = _number_option(spec, task, "max_words", sys.float_info.max)

    def check(got: Any, label: Any) -> Verdict:
        count = len(as_text(got).split())
        if count < low:
            return 0.0, f"{count} words, at least {low:g} are wanted"
        return (1.0, "") if count <= high else (0.0, f"{count} words, at most {high:g} are allowed")

    return check


_CHECKS: Mapping[str, Callable[[MetricSpec, Field, Task], Check | Bounded]] = MappingProxyType(
    {
        "exact_match": _exact_match,
        "choice": _choice,
        "numeric": _numeric,
        "contains": _contains,
        "regex": _regex,
        "token_f1": _token_f1,
        "rouge1": _rouge,
        "rouge2": _rouge,
        "rougeL": _rouge,
        "bleu": _against_label,
        "chrf": _against_label,
        "edit_similarity": _against_label,
        "embedding_similarity": _against_label,
        "no_repeat": _no_repeat,
        "length": _length,
        "json_schema": json_schema,
        "json_fields": json_fields,
    }
)
