"""The deterministic metrics: one field of a prediction against the row's label, as a score in [0, 1] with a reason.

Knows examples and predictions; never sees a model. A prediction with `error` scores 0 with that error as its reason:
not parsing is the prompt's fault. What cannot be scored (no label) is None, never 0. metric.py: see `user_metric`.
A list as the label of a text field means "any of these will do".
"""

from __future__ import annotations

import json
import math
import re
import string
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.errors import InputError
from agent.scoring.user_metric import PythonMetric, Verdict
from agent.types import Example, Field, Metric, MetricSpec, Prediction, Score, Task

Check = Callable[[Any, Any], Verdict]  # (predicted, label) -> value and reason
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
        field = _field_of(spec, task)
        name = spec.name if names[spec.name] == 1 else f"{spec.name}:{field.name}"
        if spec.name in others:
            metrics.append(others[spec.name](spec))
        elif spec.name == "python":
            timeout = _number_option(spec, task, "timeout", 5.0)
            metrics.append(PythonMetric(name, Path(task.folder) / "metric.py", timeout))
        elif spec.name in _CHECKS:
            check = _CHECKS[spec.name](spec, field, task)
            metrics.append(FieldMetric(name, field.name, check, spec.name not in UNLABELLED))
        else:
            known = ", ".join(sorted({*_CHECKS, *others, "python"}))
            raise InputError(f"{_where(task)}: no metric is called {spec.name!r}; there are {known}")
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
    check: Check
    needs_label: bool = True

    async def score(self, example: Example, prediction: Prediction) -> Score:
        if prediction.error:
            return Score(self.name, 0.0, prediction.error)
        label = example.labels.get(self.field)
        if self.needs_label and label is None:
            return Score(self.name, None, f"row {example.id} has no label for {self.field}")
        if self.field not in prediction.fields:
            return Score(self.name, 0.0, f"the reply has no {self.field}")
        return Score(self.name, *self.check(prediction.fields[self.field], label))


# ---- options


def _where(task: Task) -> str:
    return str(Path(task.folder) / "task.toml")


def _field_of(spec: MetricSpec, task: Task) -> Field:
    outputs = {field.name: field for field in task.signature.outputs}
    if not spec.field and len(outputs) == 1:
        return task.signature.outputs[0]
    if spec.field not in outputs:
        raise InputError(
            f"{_where(task)}: metric {spec.name} names the field {spec.field!r}; the outputs are {', '.join(outputs)}"
        )
    return outputs[spec.field]


def _number_option(spec: MetricSpec, task: Task, name: str, default: float) -> float:
    value = spec.options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InputError(f"{_where(task)}: metric {spec.name} has {name} = {value!r}; give a number of at least 0")
    return float(value)


def _short(value: Any, limit: int = 120) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _golds(label: Any) -> list[str]:
    return [_text(item) for item in label] if isinstance(label, list) else [_text(label)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()


# ---- text and numbers


def _exact_match(spec: MetricSpec, field: Field, task: Task) -> Check:
    """Equal after stripping, and after folding case and space with `ignore_case`; JSON and numbers by value."""
    fold = _fold if spec.options.get("ignore_case", False) else str.strip

    def check(got: Any, label: Any) -> Verdict:
        if isinstance(got, str):
            same = fold(got) in [fold(gold) for gold in _golds(label)]
        else:
            same = _key(got, fold) == _key(label, fold)
        return (1.0, "") if same else (0.0, f"expected {_short(label)}, got {_short(got)}")

    return check


def _choice(spec: MetricSpec, field: Field, task: Task) -> Check:
    """The same choice, whatever its case and spacing."""

    def check(got: Any, label: Any) -> Verdict:
        same = _fold(_text(got)) == _fold(_text(label))
        return (1.0, "") if same else (0.0, f"expected {_short(label)}, got {_short(got)}")

    return check


def _numeric(spec: MetricSpec, field: Field, task: Task) -> Check:
    """Within `tolerance` (absolute, 1e-6) or `relative` (1e-9 of the label), whichever is wider."""
    tolerance = _number_option(spec, task, "tolerance", 1e-6)
    relative = _number_option(spec, task, "relative", 1e-9)

    def check(got: Any, label: Any) -> Verdict:
        wanted, given = _as_number(label), _as_number(got)
        if wanted is None:
            return None, f"the label {_short(label)} is not a number"
        if given is None:
            return 0.0, f"expected {_short(label)}, got {_short(got)}, which is not a number"
        if abs(given - wanted) <= max(tolerance, relative * abs(wanted)):
            return 1.0, ""
        return 0.0, f"expected {_short(label)}, got {_short(got)}"

    return check


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value.replace(",", "") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _contains(spec: MetricSpec, field: Field, task: Task) -> Check:
    """The label's text stands in the output; case and space are folded unless `ignore_case` is false."""
    fold = _fold if spec.options.get("ignore_case", True) else str.strip

    def check(got: Any, label: Any) -> Verdict:
        text = fold(_text(got))
        if any(fold(gold) in text for gold in _golds(label)):
            return 1.0, ""
        return 0.0, f"{_short(label)} does not occur in {_short(got)}"

    return check


def _regex(spec: MetricSpec, field: Field, task: Task) -> Check:
    """`pattern` is found in the output (anchor it with ^ and $ for a full match)."""
    source = spec.options.get("pattern")
    if not isinstance(source, str):
        raise InputError(f'{_where(task)}: metric regex needs options.pattern, such as "^[A-Z]{{2}}$"; got {source!r}')
    try:
        pattern = re.compile(source, re.IGNORECASE if spec.options.get("ignore_case", False) else 0)
    except (re.error, RecursionError, OverflowError) as problem:
        raise InputError(f"{_where(task)}: metric regex has the pattern {source!r}: {problem}") from problem

    def check(got: Any, label: Any) -> Verdict:
        return (1.0, "") if pattern.search(_text(got)) else (0.0, f"{_short(got)} does not match {source}")

    return check


def _token_f1(spec: MetricSpec, field: Field, task: Task) -> Check:
    """Word overlap as in SQuAD (Rajpurkar et al. 2016): no case, punctuation or articles; the best gold counts."""

    def words(text: str) -> list[str]:
        bare = "".join(c for c in text.lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", bare).split()

    def check(got: Any, label: Any) -> Verdict:
        value = max((_f1(words(_text(got)), words(gold)) for gold in _golds(label)), default=0.0)
        return value, "" if value == 1 else f"expected {_short(label)}, got {_short(got)}"

    return check


def _f1(got: Sequence[str], wanted: Sequence[str]) -> float:
    """Multiset F1; two empty lists agree."""
    if not got and not wanted:
        return 1.0
    common = (Counter(got) & Counter(wanted)).total()
    return 2 * common / (len(got) + len(wanted))


def _rouge(spec: MetricSpec, field: Field, task: Task) -> Check:
    """F-measure of the package rouge_score (its own tokenizer: a-z and 0-9), with a stemmer unless `stem` is false."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([spec.name], use_stemmer=bool(spec.options.get("stem", True)))

    def check(got: Any, label: Any) -> Verdict:
        golds, text = _golds(label), _text(got)
        found = (
            1.0 if text in golds else max((scorer.score(gold, text)[spec.name].fmeasure for gold in golds), default=0.0)
        )
        value = min(1.0, max(0.0, float(found)))
        return value, "" if value > 0.999 else f"{spec.name} {value:.2f} against {_short(label)}, got {_short(got)}"

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
            f"{_where(task)}: metric {spec.name} needs a package that is not here ({missing}); "
            "pip install 'promptassay[embedding]'"
        ) from missing

    def check(got: Any, label: Any) -> Verdict:
        value = max((scorer(_text(got), gold) for gold in _golds(label)), default=0.0)
        return value, "" if value > 0.999 else f"{spec.name} {value:.2f} against {_short(label)}, got {_short(got)}"

    return check


def _no_repeat(spec: MetricSpec, field: Field, task: Task) -> Check:
    """The part of the runs of `words` words (3) that do not repeat an earlier one."""
    from agent.scoring.overlap import REPEATED_WORDS, unrepeated

    words = spec.options.get("words", REPEATED_WORDS)
    if isinstance(words, bool) or not isinstance(words, int) or words < 1:
        raise InputError(f"{_where(task)}: metric no_repeat has words = {words!r}; give a whole number of at least 1")

    def check(got: Any, label: Any) -> Verdict:
        value = unrepeated(_text(got), words)
        return value, "" if value == 1 else f"{100 * (1 - value):.0f} % of its runs of {words} words are repetitions"

    return check


def _length(spec: MetricSpec, field: Field, task: Task) -> Check:
    """At least `min_words` and at most `max_words` words."""
    if not {"min_words", "max_words"} & set(spec.options):
        raise InputError(f"{_where(task)}: metric length needs min_words, max_words or both in its options")
    low = _number_option(spec, task, "min_words", 0)
    high = _number_option(spec, task, "max_words", sys.float_info.max)

    def check(got: Any, label: Any) -> Verdict:
        count = len(_text(got).split())
        if count < low:
            return 0.0, f"{count} words, at least {low:g} are wanted"
        return (1.0, "") if count <= high else (0.0, f"{count} words, at most {high:g} are allowed")

    return check


# ---- JSON


def _schema_of(spec: MetricSpec, field: Field, task: Task) -> Mapping[str, Any]:
    source = spec.options.get("schema", field.schema)
    try:
        schema = json.loads(source) if isinstance(source, str) else source
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{_where(task)}: the schema of {field.name} is not JSON: {problem}") from problem
    if not isinstance(schema, Mapping):
        raise InputError(f"{_where(task)}: metric {spec.name} needs a JSON schema for {field.name}; got {source!r}")
    return schema


def _json_schema(spec: MetricSpec, field: Field, task: Task) -> Check:
    """1 when the value is valid under the schema, else 0 with the first error. Remote references are never fetched."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    schema = dict(_schema_of(spec, field, task))
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as problem:
        raise InputError(f"{_where(task)}: the schema of {field.name} is wrong: {problem.message}") from problem
    validator = kind(schema, registry=REGISTRY)

    def check(got: Any, label: Any) -> Verdict:
        try:
            errors = sorted(validator.iter_errors(got), key=lambda error: [str(part) for part in error.absolute_path])
        except Exception as problem:  # an unresolvable $ref or a bad pattern: the schema's fault, not the reply's
            return None, f"the schema of {field.name} cannot be applied: {_short(str(problem))}"
        if not errors:
            return 1.0, ""
        return 0.0, f"{errors[0].json_path}: {_short(errors[0].message, 300)}"

    return check


def _json_fields(spec: MetricSpec, field: Field, task: Task) -> Check:
    """Mean agreement over the schema's top-level properties and any others that the label or the prediction has; where
    the label is a list, the F1 of its items.

    Scalars and objects agree (1) or not (0) after folding case and space; lists by multiset F1; missing and extra ones
    are wrong; one that both rightly leave out agrees.
    """
    properties = _schema_of(spec, field, task).get("properties", {})

    def check(got: Any, label: Any) -> Verdict:
        if isinstance(label, list):
            return _items(got, label)
        if not isinstance(label, Mapping):
            return None, f"the label {_short(label)} is not a JSON object or list"
        if not isinstance(got, Mapping):
            return 0.0, f"expected a JSON object, got {_short(got)}"
        names = sorted({*label, *got, *properties})
        values, wrong = [], []
        for name in names:
            both = name in got and name in label
            value = _agreement(got[name], label[name]) if both else float(name not in got and name not in label)
            values.append(value)
            if value < 1:
                expected = _short(label[name], 60) if name in label else "nothing"
                wrong.append(f"{name} (expected {expected}, got {_short(got[name], 60) if name in got else 'nothing'})")
        return (math.fsum(values) / len(values) if values else 1.0), f"wrong: {'; '.join(wrong)}" if wrong else ""

    return check


def _items(got: Any, label: list[Any]) -> Verdict:
    if not isinstance(got, list):
        return 0.0, f"expected a JSON list, got {_short(got)}"
    words = {_key(item, _fold): _short(item, 60) for item in [*got, *label]}
    keys, wanted = ([_key(item, _fold) for item in part] for part in (got, label))
    missing, extra = Counter(wanted) - Counter(keys), Counter(keys) - Counter(wanted)
    named = [
        f"{word}: {', '.join(words[key] for key in sorted(items.elements()))}"
        for word, items in (("missing", missing), ("extra", extra))
        if items
    ]
    return _f1(keys, wanted), "; ".join(_short(part, 300) for part in named)


def _agreement(got: Any, wanted: Any) -> float:
    if isinstance(got, list) and isinstance(wanted, list):
        return _f1([_key(item, _fold) for item in got], [_key(item, _fold) for item in wanted])
    return float(_key(got, _fold) == _key(wanted, _fold))


def _key(value: Any, fold: Callable[[str], str]) -> str:
    """Text that is equal for equal JSON values: strings folded, 1 the same as 1.0, true not the same as 1."""

    def plain(item: Any) -> Any:
        if isinstance(item, str):
            return fold(item)
        if isinstance(item, Mapping):
            return {str(key): plain(part) for key, part in item.items()}
        if isinstance(item, list | tuple):
            return [plain(part) for part in item]
        return int(item) if isinstance(item, float) and item.is_integer() else item

    return json.dumps(plain(value), sort_keys=True, default=str)


_CHECKS: Mapping[str, Callable[[MetricSpec, Field, Task], Check]] = MappingProxyType(
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
        "json_schema": _json_schema,
        "json_fields": _json_fields,
    }
)
