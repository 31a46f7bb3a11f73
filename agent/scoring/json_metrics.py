"""The metrics of JSON: is it valid under its schema, and how many of its fields or items are right. Knows no model."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from agent.errors import InputError
from agent.scoring.bounded import Bounded
from agent.scoring.values import Check, f1, key, short, where
from agent.scoring.worker import Verdict
from agent.shipped import fold
from agent.types import Field, MetricSpec, Task


def _schema_of(spec: MetricSpec, field: Field, task: Task) -> Mapping[str, Any]:
    source = field.schema
    try:
        schema = json.loads(source) if isinstance(source, str) else source
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{where(task)}: the schema of {field.name} is not JSON: {problem}") from problem
    if not isinstance(schema, Mapping):
        raise InputError(f"{where(task)}: metric {spec.name} needs a JSON schema for {field.name}; got {source!r}")
    return schema


def json_schema(spec: MetricSpec, field: Field, task: Task) -> Check | Bounded:
    """1 when the value is valid under the schema, else 0 with the first error."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    schema = dict(_schema_of(spec, field, task))
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as problem:
        raise InputError(f"{where(task)}: the schema of {field.name} is wrong: {problem.message}") from problem
    if '"pattern' in json.dumps(schema):  # `pattern` or `patternProperties`
        return Bounded(f"the schema of {field.name}", schema_check, schema, field.name)
    return schema_check(schema, field.name)


def schema_check(schema: Mapping[str, Any], name: str) -> Check:
    """A value is valid under the schema of the field `name`. Remote references are never fetched."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    validator = validator_for(schema, default=Draft202012Validator)(schema, registry=REGISTRY)

    def check(got: Any, label: Any) -> Verdict:
        try:
            errors = sorted(validator.iter_errors(got), key=lambda error: [str(part) for part in error.absolute_path])
        except Exception as problem:  # an unresolvable $ref or a bad pattern: the schema's fault, not the reply's
            return None, f"the schema of {name} cannot be applied: {short(str(problem))}"
        if not errors:
            return 1.0, ""
        return 0.0, f"{errors[0].json_path}: {short(errors[0].message, 300)}"

    return check


def json_fields(spec: MetricSpec, field: Field, task: Task) -> Check:
    """Mean agreement over the schema's top-level properties, where there is a schema, and any others that the label or
    the prediction has; where the label is a list, the F1 of its items.

    Scalars and objects agree (1) or not (0) after folding case and space; lists by multiset F1; missing and extra ones
    are wrong; one that both rightly leave out agrees.
    """
    has_schema = "schema" in spec.options or field.has_schema
    properties = _schema_of(spec, field, task).get("properties", {}) if has_schema else {}

    def check(got: Any, label: Any) -> Verdict:
        if isinstance(label, list):
            return _items(got, label)
        if not isinstance(label, Mapping):
            return None, f"the label {short(label)} is not a JSON object or list"
        if not isinstance(got, Mapping):
            return 0.0, f"expected a JSON object, got {short(got)}"
        names = sorted({*label, *got, *properties})
        values, wrong = [], []
        for name in names:
            both = name in got and name in label
            value = _agreement(got[name], label[name]) if both else float(name not in got and name not in label)
            values.append(value)
            if value < 1:
                expected = short(label[name], 60) if name in label else "nothing"
                wrong.append(f"{name} (expected {expected}, got {short(got[name], 60) if name in got else 'nothing'})")
        return (math.fsum(values) / len(values) if values else 1.0), f"wrong: {'; '.join(wrong)}" if wrong else ""

    return check


def _items(got: Any, label: list[Any]) -> Verdict:
    if not isinstance(got, list):
        return 0.0, f"expected a JSON list, got {short(got)}"
    words = {key(item, fold): short(item, 60) or '""' for item in [*label, *got][::-1]}
    keys, wanted = ([key(item, fold) for item in part] for part in (got, label))
    missing, extra = Counter(wanted) - Counter(keys), Counter(keys) - Counter(wanted)
    named = [
        f"{word}: {', '.join(words[key] for key in sorted(items.elements()))}"
        for word, items in (("missing", missing), ("extra", extra))
        if items
    ]
    return f1(keys, wanted), "; ".join(short(part, 300) for part in named)


def _agreement(got: Any, wanted: Any) -> float:
    if isinstance(got, list) and isinstance(wanted, list):
        return f1([key(item, fold) for item in got], [key(item, fold) for item in wanted])
    return float(key(got, fold) == key(wanted, fold))
