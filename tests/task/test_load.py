"""A good task folder loads whole; a bad one is refused with every problem at its line."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agent.errors import ProblemsError
from agent.metrics.metric_registry import METRICS
from agent.options.kinds import seconds
from agent.safe_data import TomlLines
from agent.task.load import load_task
from agent.task.task_file import json_schema, parse
from agent.types import Constraints, Field, content_id
from tests.cases import each_case
from tests.task.folders import TOML, changed, jsonl, line_of, make, problems, rows
from tests.wire import WireServer

SPLITS = ("train", "dev", "test")
BARE = 'name = "t"\ndescription = "d"\nsignature = "message -> team"\ninstruction = "Answer."\n'


def test_a_good_folder_loads_with_all_it_says(here: Path) -> None:
    rubric, metric = "Be fair.", "def metric(example, prediction):\n    return 1.0\n"
    task = load_task(make(here / "tasks" / "t", metric__py=metric, rubric__md=rubric))
    assert (task.name, str(task.signature), task.max_tokens) == ("support_triage", "message -> team", 20)
    assert (task.model, task.proposer) == ("local/smollm2-135m", "local/smollm2-135m")
    assert task.instruction == "Read the message and answer with one team.\n{{message}}"
    assert task.signature.outputs[0].choices == ("billing", "delivery", "refunds")
    assert [(m.name, m.field, m.weight, dict(m.options)) for m in task.metrics] == [
        ("exact_match", "team", 0.75, {"ignore_case": True}),
        ("choice", "team", 0.25, {}),
    ]
    assert (task.space.demo_counts, task.space.retrieval) == ((4, 8), True)
    caps = {"max_calls": 900, "max_tokens": None, "max_cost": 1.5, "time_limit": 5400.0}
    assert caps.items() <= task.defaults.items()
    assert task.constraints == Constraints(4000, 24, ("password",))
    assert len(task.train) == len(task.dev) == len(task.test) == 6
    first = task.train[0]
    assert first.labels == {"team": "billing"}
    assert first.id == content_id("row", dict(first.inputs))
    assert (first.slices, task.slices, task.repeats, task.human_score) == ({}, (), 1, None)
    assert set(task.hashes) == {"task.toml", "train", "dev", "test", "metric.py", "rubric.md"}
    assert task.hashes["rubric.md"] == hashlib.sha256(rubric.encode()).hexdigest()
    assert task.hashes["dev"] == hashlib.sha256(jsonl(rows("dev")).encode()).hexdigest()
    marks = changed("\n{{message}}\n", "\n{{ message }} {{  message}}\n").replace("[8, 4]", "[8, 4]\nretrieval = false")
    loaded = load_task(make(here / "spaced", marks))
    assert loaded.instruction.endswith("\n{{message}} {{message}}")
    assert not loaded.space.retrieval


@each_case(
    ("field", "label", "metrics"),
    [
        ("", '"x y"', [("exact_match", 1.0)]),
        ('type = "choice"\nchoices = ["x y", "z"]', '"x y"', [("choice", 1.0)]),
        ('type = "number"', "-2.5e3", [("numeric", 1.0)]),
        ('type = "json"\nschema = {type = "object"}', '{"a": [1]}', [("json_schema", 0.3), ("json_fields", 0.7)]),
        ('type = "json"', '{"a": [1]}', [("json_fields", 1.0)]),
    ],
)
def test_the_defaults_follow_the_type_of_the_output(here: Path, field: str, label: str, metrics: Any) -> None:
    data = {split: f'{{"message": "{split}", "team": {label}}}' for split in SPLITS}
    task = load_task(make(here / "t", f"{BARE}[fields.team]\n{field}\n", **data))
    assert [(m.name, m.weight) for m in task.metrics] == metrics
    assert task.space.techniques == ("zero-shot", "few-shot", "chain-of-thought", "few-shot-cot")
    assert task.space.formats == ("turns", "labelled-turns", "inline", "dspy-chat")
    assert (task.space.demo_counts, task.constraints) == ((4, 8, 16, 32), Constraints())
    assert {name for name, value in task.defaults.items() if value} == {"calibrate", "detect", "retrieval", "shape"}


def test_csv_with_a_byte_order_mark_and_other_line_ends_loads_alike(here: Path) -> None:
    plain = load_task(make(here / "a"))
    folder = make(here / "b", "\ufeff" + TOML.replace("\n", "\r\n"))
    for split in SPLITS:
        (folder / f"{split}.jsonl").unlink()
        cells = "".join(f'"{row["message"]}",{row["team"]}\r\n' for row in rows(split))
        (folder / f"{split}.csv").write_bytes(f"\ufeffmessage,team\r\n{cells}".encode())
    other = load_task(folder)
    assert (other.train, other.dev, other.test) == (plain.train, plain.dev, plain.test)
    assert (other.instruction, other.metrics, other.space) == (plain.instruction, plain.metrics, plain.space)


# -- task.toml: what is replaced, by what, the text whose line is named, words of the problem --------------------------

WRONG = [
    ('"message -> team"', '"message team"', "signature", "one arrow"),
    ('"message -> team"', '"message, message -> team"', "signature", "is named twice"),
    ('"message -> team"', '"id -> team"', "signature", "'id'"),
    ('"message -> team"', '"message -> "', "signature", "no field name"),
    ("[fields.message]", "[fields.mesage]", "[fields.mesage]", "did you mean 'message'"),
    ('choices = ["billing", "delivery", "refunds"]', "", "[fields.team]", "the choices []"),
    ('choices = ["billing", "delivery", "refunds"]', 'choices = ["billing"]', "choices", "the choices ['billing']"),
    ('"delivery", "refunds"]', '"delivery", "refunds", "billing"]', "choices", "the same as 'billing'"),
    ('"delivery", "refunds"]', '"delivery", "refunds", "Billing"]', "choices", "the same as 'billing'"),
    ('"delivery", "refunds"]', '"delivery", "refunds", " x"]', "choices", "has spaces around it"),
    ('"delivery", "refunds"]', '"delivery", "refunds", ""]', "choices", "empty"),
    ('type = "choice"', 'type = "choice"\nschema = {}', "schema = {}", 'set type = "json" or remove the schema'),
    ('type = "choice"', 'type = "text"', "choices", "type text and choices"),
    ('description = "the customer', 'optional = true\ndescription = "the', "optional", "cannot be empty"),
    ('instruction = """', 'instructions = """', "instructions", "did you mean 'instruction'"),
    ("{{message}}", "{{mesage}}", "{{mesage}}", "did you mean 'message'"),
    ("{{message}}", "{{team}}", "{{team}}", "output"),
    ("{{message}}", "{{context}}", "{{context}}", "for passages of [knowledge]"),
    ("{{message}}", "a\\u0000b", "a\\u0000b", "NUL"),
    ('name = "exact_match"', 'name = "exct_match"', 'name = "exct', "did you mean 'exact_match'"),
    ('name = "exact_match"', "name = 3", "name = 3", "is not a text; write one of"),
    ("ignore_case = true", "ignore_cas = true", "ignore_cas ", "did you mean 'ignore_case'"),
    ("ignore_case = true", "tolerance = 1", "tolerance", "no option 'tolerance'"),
    ("weight = 3", "weight = 0", "weight", "greater than 0"),
    ("weight = 3", "weight = nan", "weight", "weight = nan"),
    ("weight = 3", f"weight = 0x{'f' * 5000}", "weight", "too large to show"),
    ("weight = 3", 'weight = "3"', "weight", "valid number"),
    ('field = "team"', 'field = "message"', 'field = "m', "not an output"),
    ('name = "choice"', 'name = "numeric"', 'name = "numeric"', "does not fit"),
    ('name = "choice"', 'name = "regex"', '[[metrics]]\nname = "regex"', "needs pattern"),
    ('name = "choice"', 'name = "regex"\npattern = "("', "pattern", "not a regular expression"),
    ('name = "choice"', 'name = "python"', '[[metrics]]\nname = "python"', "needs metric.py"),
    ('name = "choice"', 'name = "judge"\nmode = "faithfulness"', "mode", "needs [knowledge]"),
    ('name = "choice"', 'name = "ordinal"', '[[metrics]]\nname = "ordinal"', "the choice 'billing' is not a number"),
    ('name = "choice"', 'name = "ordinal"\norder = ["billing"]', "order", "two or more different labels"),
    ('name = "choice"', 'name = "ordinal"\norder = ["billing", "x"]', "order", "'delivery' is not in order"),
    ('name = "choice"', 'name = "quantity"', '[[metrics]]\nname = "quantity"', "is not a number with a unit"),
    ('name = "choice"', 'name = "set_f1"\nseparator = " "', "separator", "is empty; write it"),
    ('"few-shot"]', '"few-shots"]', "techniques", "did you mean 'few-shot'"),
    ('"inline"]', '"inlin"]', "formats", "did you mean 'inline'"),
    ('"inline"]', '"turns"]', "formats", "holds 'turns' twice"),
    ("demo_counts = [8, 4]", "demo_counts = [8, true]", "demo_counts", "True"),
    ('["zero-shot", "few-shot"]', '["few-shot", "few-shot-cot"]', "techniques", "chain-of-thought; add it"),
    ("max_examples = 24", "max_examples = 3", "max_examples", "below all demo_counts"),
    ("max_calls = 900", "max_calls = -1", "max_calls", "-1"),
    ("max_cost = 1.5", "max_cost = -0.5", "max_cost", "-0.5"),
    ('time_limit = "1h30m"', 'time_limit = "soon"', "time_limit", "5m"),
    ("[budget]", "[monitor]\nalpa = 0.1\n[budget]", "alpa", "did you mean 'alpha'"),
    ("[budget]", "[run]\nmargin = -1\n[budget]", "margin", "margin = "),
    ("[budget]", "[run]\nmargn = 1\n[budget]", "margn", "unknown key 'margn'; did you mean 'margin'"),
    ("[budget]", "[bugdet]", "[bugdet]", "did you mean 'budget'"),
    ("[models]", "[[models]]", "[[models]]", "not a table"),
    ("[search]", "[search", "[search", "not valid TOML"),
    ("[search]", "x" + ".x" * 400 + " = 1\n[search]", "x.x.x", "nested deeper than 50 levels"),
    ("[search]", "xs = " + "[" * 5000 + "]" * 5000 + "\n[search]", "xs = ", "nested deeper than 50 levels"),
    ('name = "support_triage"', 'name = "a b"', 'name = "a b"', "write letters, digits, dot"),
    ('name = "support_triage"', 'name = "x"\nprogram = "p:build"', "program", "needs p.py in the task folder"),
    ("[fields.message]", 'tools = "t.json"\n[fields.message]', "tools", "a list of calls"),
    ("[fields.message]\nd", '[fields.message]\ntype = "conversation"\nd', "instruction", "{{message}} out"),
    *(
        ("[fields.message]", f"slices = {value}\n[fields.message]", "slices", words)
        for value, words in (
            *(('["team", "team"]', "slices holds 'team' twice"), ('["my column"]', "'my column' cannot be a column")),
            *(('["2nd"]', "'2nd' cannot"), ('["id"]', "'id' cannot"), ('"team"', "slices"), ("true", "slices")),
            *(('[""]', "slices"), ("[1]", "slices"), ('["a\\nb"]', "slices")),
        )
    ),
    *(
        ("[fields.message]", f"repeats = {value}\n[fields.message]", "repeats", "repeats = ")
        for value in ("0", "-1", "21", "2.0", "true", '"3"', "99999999999999999999")
    ),
    *(
        ("[fields.message]", f"human_score = {value}\n[fields.message]", "human_score", "human_score")
        for value in ("0.0", "93.0", '"high"', "nan")
    ),
]


@each_case(("old", "new", "place", "words"), WRONG)
def test_each_wrong_key_is_named_at_its_line(tmp_path_factory: Any, old: str, new: str, place: str, words: str) -> None:
    toml = changed(old, new)
    found = problems(make(tmp_path_factory.mktemp("t"), toml))
    where = f"task.toml:{line_of(toml, place)}: "
    assert any(where in line and words in line for line in found), found


def test_all_problems_are_named_at_once(here: Path) -> None:
    toml = 'name = "t"\nsignature = "message -> team"\nbudgt = 1\n[budget]\nmax_calls = 0\n[fields.x]\n'
    found = problems(make(here / "t", toml, dev="{oops\n", test=""))
    where = {line.split(": ")[0] for line in found}
    assert where == {*(f"t/task.toml:{line}" for line in (1, 3, 5, 6)), "t/dev.jsonl:1", "t/test.jsonl:1"}
    assert sum("is missing" in line for line in found) == 2
    (line,) = problems(make(here / "u", changed('type = "choice"', 'type = "chioce"')))
    assert "did you mean 'choice'" in line, "its labels are not blamed"


@each_case("value", ["nan", "true", "1979-05-27", "[]", "{}", "99999999999999999999", '""'])
def test_every_key_takes_every_wrong_value_without_failing(tmp_path_factory: Any, value: str) -> None:
    lines = TOML.split("\n")
    for at, line in enumerate(lines):
        if " = " in line and '"""' not in line:
            toml = "\n".join([*lines[:at], f"{line.split(' = ')[0]} = {value}", *lines[at + 1 :]])
            found = problems(make(tmp_path_factory.getbasetemp() / "every", toml))
            assert at + 1 in [int(text.split(":")[1]) for text in found] or not found, (line, value, found)


# -- limits of an answer, slices, repeats ------------------------------------------------------------------------------


def blurbs(teaser: str = "", tone: str = "", top: str = "", tags: str = "") -> str:
    """A task of two inputs and two outputs, with more keys in its tables or at its top."""
    head = 'name = "blurbs"\ndescription = "Write."\nsignature = "topic, tone -> teaser, tags"\ninstruction = "Write."'
    return f'{head}\n{top}\n[fields.tone]\n{tone}\n[fields.teaser]\n{teaser}\n[fields.tags]\ntype = "json"\n{tags}\n'


def splits(change: Callable[[dict[str, Any]], dict[str, Any]] = lambda given: given) -> dict[str, str]:
    def row(split: str, number: int) -> dict[str, Any]:
        return {"topic": f"{split} {number}", "tone": ("warm", "dry")[number % 2], "teaser": "Hear it.", "tags": ["a"]}

    return {split: jsonl([change(row(split, number)) for number in range(4)]) for split in SPLITS}


LIMITS = (("min_words", "3"), ("max_words", "3"), ("forbidden", '["#"]'), ("required", '["#"]'))


@each_case(
    ("table", "key", "said"),
    [
        *(({"tone": f"{key} = {given}"}, key, f"the field 'tone' is an input; {key} is for") for key, given in LIMITS),
        *(({"tags": f"{key} = {given}"}, key, f"type json; {key} is for text") for key, given in LIMITS),
        ({"teaser": "max_words = 3\nmin_words = 4"}, "min_words", "min_words = 4 is above max_words = 3; swap them"),
        (
            {"teaser": 'forbidden = ["STRASSE"]\nrequired = ["straße"]'},
            "required",
            "is required, and 'STRASSE' forbidden",
        ),
        ({"teaser": 'forbidden = ["http"]\nrequired = ["https"]'}, "required", "required, and 'http' forbidden"),
        *(({"teaser": f"min_words = {given}"}, "min_words", "min_words = ") for given in ("0", "true", "2.0", '"2"')),
        *(({"teaser": f"forbidden = {given}"}, "forbidden", "forbidden = ") for given in ('"#"', "[1]", '[" "]')),
        ({"teaser": "max_word = 3"}, "max_word", "did you mean 'max_words'?"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused_at_its_line(
    tmp_path_factory: Any, table: dict[str, str], key: str, said: str
) -> None:
    text = blurbs(**table)
    (line,) = problems(make(tmp_path_factory.mktemp("t"), text, **splits()))
    assert f"task.toml:{line_of(text, f'{key} =')}: " in line
    assert said in line


def test_limits_slices_repeats_and_the_score_of_people_are_loaded(here: Path) -> None:
    keys = 'min_words = 2\nmax_words = 100\nforbidden = ["#"]\nrequired = ["Hear"]'
    top = 'slices = ["language", "tone", "tags"]\nrepeats = 20\nhuman_score = 1.0'
    data = splits(lambda given: {**given, "language": True if given["tone"] == "dry" else ["é"]})
    task = load_task(make(here / "t", blurbs(keys, top=top), **data))
    limits = {"min_words": 2, "max_words": 100, "forbidden": ("#",), "required": ("Hear",)}
    assert task.signature.outputs[0] == Field("teaser", **limits)
    assert (task.repeats, task.human_score) == (20, 1.0)
    assert [dict(each.slices) for each in task.dev][:2] == [
        {"language": '["é"]', "tone": "warm", "tags": '["a"]'},
        {"language": "true", "tone": "dry", "tags": '["a"]'},
    ]
    assert set(task.dev[0].inputs) == {"topic", "tone"}
    plain = load_task(make(here / "p", blurbs(), **splits()))
    assert [each.id for each in plain.dev] == [each.id for each in task.dev], "a slice changes no id"
    assert plain.signature.outputs[0].min_words is None


def test_a_column_of_a_slice_must_be_in_each_row_and_other_columns_are_unknown(here: Path) -> None:
    data = splits(lambda given: given if given["topic"] == "dev 2" else {**given, "language": "en"})
    found = problems(make(here / "t", blurbs(top='slices = ["language"]'), **data))
    assert found == ["t/dev.jsonl:3: the column 'language' is missing; write it"]
    found = problems(make(here / "u", blurbs(top='slices = ["languages"]'), **data))
    assert any("unknown column 'language'; did you mean 'languages'?" in line for line in found)


# -- the files of a folder ---------------------------------------------------------------------------------------------


def test_files_outside_the_folder_are_refused_and_links_inside_are_allowed(here: Path) -> None:
    (here / "secret.jsonl").write_text(jsonl(rows("dev")))
    for name in ("../secret.jsonl", str(here / "secret.jsonl")):
        found = problems(make(here / "a", TOML + f'\n[splits]\ndev = "{name}"\n'))
        assert any("outside the task folder" in line for line in found)
    for name in ("dev.jsonl", "task.toml", "metric.py", "rubric.md"):
        folder = make(here / f"c_{name}")
        (folder / name).unlink(missing_ok=True)
        os.symlink(here / "secret.jsonl", folder / name)
        assert any("outside the task folder" in line for line in problems(folder)), name
    folder = make(here / "t")
    (folder / "dev.jsonl").rename(folder / "real.jsonl")
    os.symlink("real.jsonl", folder / "dev.jsonl")
    assert problems(folder) == []


def test_what_is_no_file_or_a_huge_one_is_refused(here: Path) -> None:
    folder = make(here / "t")
    for split in SPLITS:
        (folder / f"{split}.jsonl").unlink()
    (folder / "train.jsonl").mkdir()
    os.mkfifo(folder / "dev.jsonl")
    os.symlink("test.csv", folder / "test.jsonl")
    os.symlink("test.jsonl", folder / "test.csv")
    assert {line.split(":")[0] for line in problems(folder)} == {f"t/{s}.jsonl" for s in SPLITS}
    folder = make(here / "u")
    os.truncate(folder / "dev.jsonl", 201 * 1024 * 1024)
    assert "u/dev.jsonl:1: has more than 200 MB; take fewer rows" in problems(folder)


def test_missing_doubled_and_shared_splits_and_folders_are_named(here: Path) -> None:
    folder = make(here / "tasks" / "triage")
    (folder / "test.jsonl").unlink()
    (folder / "dev.csv").write_text("message,team\n")
    missing, doubled = sorted(problems(folder), reverse=True)
    assert missing.endswith("test.jsonl:1: no such file; write it, as .jsonl or .csv")
    assert "dev.csv exists, too" in doubled
    shared = TOML + '\n[splits]\ndev = "train.jsonl"\n'
    assert any("two splits" in line for line in problems(make(here / "c", shared)))
    with pytest.raises(ProblemsError, match=r"^tasks/triag:1: no such task folder; did you mean 'triage'\?"):
        load_task("tasks/triag")
    with pytest.raises(ProblemsError, match=r"task\.toml:1: no such file"):
        load_task("tasks")


@each_case(
    ("source", "line", "words"),
    [
        ("def metric(example):\n    return 1\n", 1, "2 arguments"),
        ("x = 1\n", 1, "no function metric"),
        ("x = 1\ndef metric(:\n", 2, "not valid Python"),
        ("(" * 5000 + ")" * 5000, 1, "Python"),
        ("x = " + "-" * 100_000 + "1", 1, "not usable Python"),
    ],
)
def test_metric_py_is_checked_but_not_run(here: Path, source: str, line: int, words: str) -> None:
    (found,) = problems(make(here / "t", metric__py=source))
    assert found.startswith(f"t/metric.py:{line}: ")
    assert words in found


def json_task(folder: Path, schema: str, label: str = "{}", metric: str = "", **files: str) -> Path:
    data = {split: f'{{"message": "{split}", "team": {label}}}\n' for split in SPLITS}
    about = f"schema = {schema}\n" if schema else ""
    return make(folder, f'{BARE}[fields.team]\ntype = "json"\n{about}{metric}', **data, **files)


def test_json_labels_are_checked_by_the_schema(here: Path) -> None:
    schema = '{type = "object", required = ["a"], properties = {a = {type = "integer"}}}'
    assert problems(json_task(here / "a", schema, '{"a": 1}')) == []
    assert "at $.a: 'one' is not of type 'integer'" in problems(json_task(here / "b", schema, '{"a": "one"}'))[0]
    task = load_task(json_task(here / "c", '"s.json"', "[1]", s__json='{"type": "array"}'))
    assert task.signature.outputs[0].schema == '{"type": "array"}'
    (found,) = problems(json_task(here / "d", "", metric='[[metrics]]\nname = "json_schema"\n'))
    assert "json_schema needs a schema; write schema under [fields.team], or use json_fields" in found
    with WireServer(lambda messages, body: "{}") as server:
        found = "".join(problems(json_task(here / "e", f'{{"$ref" = "{server.url}/models/schema.json"}}')))
        assert server.opened == 0
    assert "cannot be checked" in found


@each_case(
    ("schema", "words"),
    [
        *(('{type = "objekt"}', "not a valid JSON schema"), ("{default = nan}", "cannot be written as JSON")),
        *(("{default = 2020-01-01}", "cannot be written as JSON"), ("3", "write the name of a file")),
        *(('"gone.json"', "cannot be used"), ('{"$ref" = "#"}', "cannot be checked"), ('"../s.json"', "outside")),
        ('"s.json"', "is not a JSON schema; write an object"),
    ],
)
def test_a_schema_that_cannot_be_used_is_a_problem(here: Path, schema: str, words: str) -> None:
    (here / "s.json").write_text("{}")
    assert any(words in line for line in problems(json_task(here / "t", schema, s__json="3")))


def test_importing_load_loads_no_heavy_package() -> None:
    heavy = "{'pydantic', 'jsonschema', 'referencing', 'numpy', 'click', 'openai', 'dspy'}"
    code = f"import sys, agent.task.load, agent.task.from_file; print({heavy} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "set()"


# -- the published schema, times, and lines of TOML --------------------------------------------------------------------


def test_the_published_schema_is_in_step_and_agrees_with_the_loader() -> None:
    schema = json_schema()
    published = (Path(__file__).parents[2] / "tasks" / "task.schema.json").read_text()
    assert published == json.dumps(schema, indent=2) + "\n", "write json_schema() to tasks/task.schema.json"
    Draft202012Validator.check_schema(schema)
    for table in (schema, *schema["$defs"].values()):
        assert table["additionalProperties"] is False
        for key in table["properties"].values():
            about = key if "description" in key else schema["$defs"][key["$ref"].split("/")[-1]]
            assert about["description"].endswith((".", '"'))
    validator = Draft202012Validator(schema)
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


@each_case(
    ("text", "wanted"),
    [
        *((90, 90.0), (0.5, 0.5), ("90s", 90.0), ("5m", 300.0), ("1h30m", 5400.0), ("1.5 h", 5400.0), ("90", 90.0)),
        *((" 0.5 ", 0.5), ("2399h", 8_636_400.0), ("1d12h", 129_600.0)),
        *((wrong, None) for wrong in (0, -1, True, "", "m", "5w", "-5m", 10**400, float("nan"), float("inf"), [1])),
        *((wrong, None) for wrong in ("0", "5 5", "2m5", "1e3", "2400h", "100d", 8_640_000)),
    ],
)
def test_a_time_is_seconds_or_a_text_with_units(text: Any, wanted: float | None) -> None:
    if wanted is None:
        with pytest.raises(ValueError, match="5m"):
            seconds(text)
    else:
        assert seconds(text) == wanted


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


TEXT = '''\
# a = 1
a = """
b = 2 # not a key
[c]
\\""" still inside
"""
b = [ # comment ]
  "[x]", # "
]
"quo.ted" = 'y = 1'
d.e = 1
[f . "g h"]
i = { j = 1 }
[[m]]
n = 1
[[m]]
n = \'\'\'
[[m]]\'\'\'
o = 1
'''


def test_keys_sections_and_tables_in_arrays_have_their_lines() -> None:
    lines = TomlLines(TEXT)
    wanted = {
        ("a",): 2, ("b",): 7, ("quo.ted",): 10, ("d", "e"): 11, ("f",): 12, ("f", "g h"): 12, ("f", "g h", "i"): 13,
        ("m", 0): 14, ("m", 0, "n"): 15, ("m", 1): 16, ("m", 1, "n"): 17, ("m", 1, "o"): 19,
        ("f", "g h", "i", "j"): 13, ("m", 1, "zzz"): 16, ("zzz",): 1,
    }  # fmt: skip
    assert {path: lines.of(path) for path in wanted} == wanted
    assert lines.of(("a",), holding="[c]") == 4


@given(st.lists(st.sampled_from(["k", '"q"', "[", "]", "=", '"""', "'", "#", "\n", "a.b", "{", "}", " "])))
def test_any_text_can_be_scanned(parts: list[str]) -> None:
    assert TomlLines("".join(parts)).of(("k",)) >= 1


def test_a_wrong_header_is_said_once_and_hides_the_rows_below_it(here: Path) -> None:
    folder = make(here / "task")
    (folder / "dev.jsonl").unlink()
    (folder / "dev.csv").write_text("message,label\nhi,a\nyo,b\n")
    found = problems(folder)
    assert len(found) == 2
    assert all("dev.csv:1: " in each and each.endswith("(header)") for each in found)
