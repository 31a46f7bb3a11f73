"""The published schema says what the loader accepts."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agent.metrics.metric_registry import METRICS
from agent.options.kinds import seconds
from agent.task.task_file import json_schema, parse
from tests.task.folders import TOML, changed

ROOT = Path(__file__).parents[2]


def test_the_published_schema_is_in_step() -> None:
    published = (ROOT / "tasks" / "task.schema.json").read_text()
    assert published == json.dumps(json_schema(), indent=2) + "\n", "write json_schema() to tasks/task.schema.json"


def test_every_key_has_a_description_and_no_other_is_allowed() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    for table in (schema, *schema["$defs"].values()):
        assert table["additionalProperties"] is False
        for key in table["properties"].values():
            about = key if "description" in key else schema["$defs"][key["$ref"].split("/")[-1]]
            assert about["description"].endswith((".", '"'))


def test_the_schema_and_the_loader_agree() -> None:
    validator = Draft202012Validator(json_schema())
    assert validator.is_valid(tomllib.loads(TOML))
    for old, new in (("weight = 3", "weight = 0"), ("[budget]", "[bugdet]"), ('name = "choice"', 'name = "chioce"')):
        raw = tomllib.loads(changed(old, new, 2 if "name" in old else 1))
        assert not validator.is_valid(raw)
        assert parse(raw).faults


def test_every_metric_has_a_help_line_and_its_options_are_keys() -> None:
    table = json_schema()["$defs"]["MetricTable"]["properties"]
    rules = METRICS.usable()
    assert table["name"]["enum"] == list(rules) == list(METRICS.names())
    assert all(rule.name == name and rule.about.endswith(".") for name, rule in rules.items())
    options = {option for rule in rules.values() for option in rule.options.model_fields}
    assert options == set(table) - {"name", "field", "weight"}
    assert table["ignore_case"]["description"] == "exact_match, contains: treat A and a alike."


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        *((90, 90.0), (0.5, 0.5), ("90s", 90.0), ("5m", 300.0), ("1h30m", 5400.0), ("1.5 h", 5400.0)),
        *(("90", 90.0), (" 0.5 ", 0.5), ("2399h", 8_636_400.0), ("1d12h", 129_600.0)),
    ],
)
def test_a_time_is_seconds_or_a_text_with_units(text: Any, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        *(0, -1, True, "", "m", "5w", "-5m", 10**400, float("nan"), float("inf"), [1]),
        *("0", "5 5", "2m5", "1e3", "2400h", "100d", 8_640_000),
    ],
)
def test_other_times_are_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="5m"):
        seconds(text)


KEYS = ["name", "signature", "fields", "metrics", "field", "weight", "search", "techniques", "budget", "max_calls",
        "type", "choices", "schema", "time_limit", "splits", "train", "x"]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_any_table_parses_to_a_model_and_faults(raw: dict[str, Any]) -> None:
    parsed = parse(raw)
    assert parsed.faults, "four keys are required"
    assert parsed.file.search.techniques
