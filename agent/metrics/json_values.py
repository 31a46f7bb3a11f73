"""The metrics `json_schema` (valid) and `json_fields` (share of right fields or items)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from agent.metrics.comparison import BoundedCheck, Check, f1, key, missing_and_extra, short
from agent.metrics.metric_rule import Options, metric
from agent.shipped import fold
from agent.types import Field
from agent.worker import Verdict


def _schema_of(field: Field) -> Mapping[str, Any]:
    source = field.schema
    try:
        schema = json.loads(source) if isinstance(source, str) else source
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"the schema of {field.name} is not JSON: {problem}") from problem
    if not isinstance(schema, Mapping):
        raise ValueError(f"the metric needs a JSON schema for {field.name}; got {source!r}")
    return schema


@metric(
    "json_schema",
    about="The answer is valid under its field's JSON schema.",
    types=("json",),
    needs_label=False,
    faults=lambda options, field: [
        ("", f"the metric json_schema needs a schema; write schema under [fields.{each.name}], or use json_fields")
        for each in [field]
        if each is not None and each.type == "json" and not each.has_schema
    ],
)
def json_schema(options: Options, field: Field) -> Check | BoundedCheck:
    schema = dict(_schema_of(field))
    try:
        schema_validator(schema)
    except ValueError as problem:
        raise ValueError(f"the schema of {field.name} is wrong: {problem}") from problem
    if '"pattern' in json.dumps(schema):  # `pattern` or `patternProperties`
        return BoundedCheck(f"the schema of {field.name}", schema_check, schema, field.name)
    return schema_check(schema, field.name)


def schema_validator(schema: Any) -> Any:
    """Return a validator that fetches nothing. Raises ValueError for a wrong schema."""
    from jsonschema import Draft202012Validator, SchemaError, validators
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    kind = validators.validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"not a valid JSON schema at {error.json_path}: {error.message[:200]}") from error
    except RecursionError as error:
        raise ValueError("the JSON schema is nested too deep; flatten it") from error
    except Exception as error:  # the library may fail in any way on a schema
        raise ValueError(f"not a usable JSON schema ({type(error).__name__}: {str(error)[:200]})") from error
    return kind(schema, registry=REGISTRY)


def schema_check(schema: Mapping[str, Any], name: str) -> Check:
    """Make a check that a value is valid under the schema of the field `name`."""
    validator = schema_validator(schema)

    def check(got: Any, label: Any) -> Verdict:
        try:
            errors = sorted(validator.iter_errors(got), key=lambda error: [str(part) for part in error.absolute_path])
        except Exception as problem:  # an unresolvable $ref or a bad pattern, not the reply
            return None, f"the schema of {name} cannot be applied: {short(str(problem))}"
        if not errors:
            return 1.0, ""
        return 0.0, f"{errors[0].json_path}: {short(errors[0].message, 300)}"

    return check


@metric("json_fields", about="The part of the label's fields, or of its items, that are right.", types=("json",))
def json_fields(options: Options, field: Field) -> Check:
    """Compute the mean agreement of top-level fields, or the F1 of list items.

    Fields are those of the schema, the label and the answer. Scalars and objects agree (1) or not (0), folding case and
    space; lists by multiset F1. Missing and extra fields are wrong; a field that both leave out is right.
    """
    properties = _schema_of(field).get("properties", {}) if field.has_schema else {}

    def check(got: Any, label: Any) -> Verdict:
        if isinstance(label, list):
            return _items(got, label)
        if not isinstance(label, Mapping):
            return None, f"the label {short(label)} is not a JSON object or list"
        if not isinstance(got, Mapping):
            return 0.0, f"expected a JSON object, got {short(got)}"
        values = {name: field_value(got, label, name) for name in sorted({*label, *got, *properties})}
        wrong = [f"{name} ({expected_and_got(got, label, name)})" for name, value in values.items() if value < 1]
        mean = math.fsum(values.values()) / len(values) if values else 1.0
        return mean, f"wrong: {'; '.join(wrong)}" if wrong else ""

    return check


def field_value(got: Mapping[str, Any], label: Mapping[str, Any], name: str) -> float:
    """Return the agreement of a field: 1 if both lack it, 0 if one does."""
    if name in got and name in label:
        return _agreement(got[name], label[name])
    return float(name not in got and name not in label)


def expected_and_got(got: Mapping[str, Any], label: Mapping[str, Any], name: str) -> str:
    """Write the wanted and the given value of a field."""
    expected, given = (short(values[name], 60) if name in values else "nothing" for values in (label, got))
    return f"expected {expected}, got {given}"


def _items(got: Any, label: list[Any]) -> Verdict:
    if not isinstance(got, list):
        return 0.0, f"expected a JSON list, got {short(got)}"
    words = {key(item, fold): short(item, 60) or '""' for item in [*label, *got][::-1]}
    keys, wanted = (sorted(key(item, fold) for item in part) for part in (got, label))
    differences = missing_and_extra([words[each] for each in keys], [words[each] for each in wanted])
    return f1(keys, wanted), "; ".join(differences)


def _agreement(got: Any, wanted: Any) -> float:
    if isinstance(got, list) and isinstance(wanted, list):
        return f1([key(item, fold) for item in got], [key(item, fold) for item in wanted])
    return float(key(got, fold) == key(wanted, fold))
