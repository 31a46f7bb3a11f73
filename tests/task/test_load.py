"""A good folder loads whole; a bad one is refused with every problem at its real line."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import ProblemsError
from agent.task.load import load_task
from agent.types import Budget, Constraints, content_id
from tests.task.folders import TOML, changed, jsonl, line_of, make, problems, rows
from tests.wire import Fault, WireServer

BARE = 'name = "t"\ndescription = "d"\nsignature = "message -> team"\ninstruction = "Answer."\n'


def test_a_good_folder_loads_with_all_it_says(here: Path) -> None:
    rubric, metric = "Be fair.", "def metric(example, prediction):\n    return 1.0\n"
    task = load_task(make(here / "tasks" / "t", metric__py=metric, rubric__md=rubric))
    assert (task.name, str(task.signature), task.model, task.proposer, task.max_tokens) == (
        "support_triage", "message -> team", "local/smollm2-135m", "local/smollm2-135m", 20,
    )  # fmt: skip
    assert task.instruction == "Read the message and answer with one team.\n{{message}}"
    assert task.signature.outputs[0].choices == ("billing", "delivery", "refunds")
    assert [(m.name, m.field, m.weight, dict(m.options)) for m in task.metrics] == [
        ("exact_match", "team", 0.75, {"ignore_case": True}),
        ("choice", "team", 0.25, {}),
    ]
    assert task.space.demo_counts == (4, 8)
    assert task.budget == Budget(max_calls=900, max_cost=1.5, time_limit=5400.0)
    assert task.constraints == Constraints(4000, 24, ("password",))
    assert len(task.train) == len(task.dev) == len(task.test) == 6
    first = task.train[0]
    assert first.labels == {"team": "billing"}
    assert first.id == content_id("row", dict(first.inputs))
    assert set(task.hashes) == {"task.toml", "train", "dev", "test", "metric.py", "rubric.md"}
    assert task.hashes["rubric.md"] == hashlib.sha256(rubric.encode()).hexdigest()
    assert task.hashes["dev"] == hashlib.sha256(jsonl(rows("dev")).encode()).hexdigest()


@pytest.mark.parametrize(
    ("field", "label", "metrics"),
    [
        ("", '"x y"', [("exact_match", 1.0)]),
        ('type = "choice"\nchoices = ["x y", "z"]', '"x y"', [("choice", 1.0)]),
        ('type = "number"', "-2.5e3", [("numeric", 1.0)]),
        ('type = "json"\nschema = {type = "object"}', '{"a": [1]}', [("json_schema", 0.3), ("json_fields", 0.7)]),
        ('type = "json"', '{"a": [1]}', [("json_fields", 1.0)]),
    ],
)
def test_without_sections_the_defaults_follow_the_type_of_the_output(
    here: Path, field: str, label: str, metrics: list[tuple[str, float]]
) -> None:
    data = {split: f'{{"message": "{split}", "team": {label}}}' for split in ("train", "dev", "test")}
    task = load_task(make(here / "t", f"{BARE}[fields.team]\n{field}\n", **data))
    assert [(m.name, m.weight) for m in task.metrics] == metrics
    assert task.space.techniques == ("zero-shot", "few-shot", "chain-of-thought", "few-shot-cot")
    assert task.space.formats == ("turns", "labelled-turns", "inline", "dspy-chat")
    assert (task.space.demo_counts, task.budget, task.constraints) == ((4, 8, 16, 32), Budget(), Constraints())


def test_a_mistake_of_many_rows_is_told_once(here: Path) -> None:
    table = [{"message": f"message {n}", "team": f"Billing{n % 2 or ''}"} for n in range(9)]
    found = problems(make(here / "t", train=jsonl(table)))
    assert [(line.partition(" is not one")[0], line.partition("(")[2]) for line in found] == [
        ("t/train.jsonl:1: team: 'Billing'", "so in 5 rows, this is the first)"),
        ("t/train.jsonl:2: team: 'Billing1'", "so in 4 rows, this is the first)"),
    ]


def test_of_many_mistakes_in_one_column_the_first_are_told_and_the_rest_is_counted(here: Path) -> None:
    table = [{"message": f"message {n}", "team": f"team {n}"} for n in range(100)]
    found = problems(make(here / "t", train=jsonl(table)))
    assert [line.partition(": ")[0] for line in found] == [f"t/train.jsonl:{line}" for line in range(1, 22)]
    assert found[-1].endswith(": team: wrong in 80 more rows from here on; correct those above first")


def test_csv_bom_and_crlf_load_like_plain_files(here: Path) -> None:
    plain = load_task(make(here / "a"))
    folder = make(here / "b", "\ufeff" + TOML.replace("\n", "\r\n"))
    for split in ("train", "dev", "test"):
        (folder / f"{split}.jsonl").unlink()
        cells = "".join(f'"{row["message"]}",{row["team"]}\r\n' for row in rows(split))
        (folder / f"{split}.csv").write_bytes(f"\ufeffmessage,team\r\n{cells}".encode())
    other = load_task(folder)
    assert (other.train, other.dev, other.test) == (plain.train, plain.dev, plain.test)
    assert (other.instruction, other.metrics, other.space) == (plain.instruction, plain.metrics, plain.space)


def _toml_cases() -> list[tuple[str, str, str, str]]:
    """(what is replaced, by what, the text whose line must be named, words of the message)."""
    return [
        ('signature = "message -> team"', 'signature = "message team"', "signature", "arrow"),
        ('"message -> team"', '"message, message -> team"', "signature", "twice"),
        ('"message -> team"', '"id -> team"', "signature", "'id'"),
        ('"message -> team"', '"message -> "', "signature", "no field name"),
        ("[fields.message]", "[fields.mesage]", "[fields.mesage]", "did you mean 'message'"),
        ('choices = ["billing", "delivery", "refunds"]', "", "[fields.team]", "no choices"),
        ('"delivery", "refunds"]', '"delivery", "refunds", "billing"]', "choices", "twice"),
        ('"delivery", "refunds"]', '"delivery", "refunds", "Billing"]', "choices", "case or spaces"),
        ('"delivery", "refunds"]', '"delivery", "refunds", ""]', "choices", "empty"),
        ('instruction = """', 'instructions = """', "instructions", "did you mean 'instruction'"),
        ("{{message}}", "{{mesage}}", "{{mesage}}", "did you mean 'message'"),
        ("{{message}}", "{{team}}", "{{team}}", "output"),
        ('name = "exact_match"', 'name = "exct_match"', 'name = "exct', "did you mean 'exact_match'"),
        ("ignore_case = true", "ignore_cas = true", "ignore_cas ", "did you mean 'ignore_case'"),
        ("ignore_case = true", "tolerance = 1", "tolerance", "no option 'tolerance'"),
        ("weight = 3", "weight = 0", "weight", "greater than 0"),
        ("weight = 3", "weight = nan", "weight", "weight = nan"),
        ("weight = 3", 'weight = "3"', "weight", "valid number"),
        ('field = "team"', 'field = "message"', 'field = "m', "not an output"),
        ('name = "choice"', 'name = "numeric"', 'name = "numeric"', "does not fit"),
        ('name = "choice"', 'name = "regex"', '[[metrics]]\nname = "regex"', "needs pattern"),
        ('name = "choice"', 'name = "regex"\npattern = "("', "pattern", "not a regular expression"),
        ('name = "choice"', 'name = "python"', '[[metrics]]\nname = "python"', "needs metric.py"),
        ('"few-shot"]', '"few-shots"]', "techniques", "did you mean 'few-shot'"),
        ('"inline"]', '"inlin"]', "formats", "did you mean 'inline'"),
        ("demo_counts = [8, 4]", "demo_counts = [8, true]", "demo_counts", "True"),
        ('["zero-shot", "few-shot"]', '["few-shot", "few-shot-cot"]', "techniques", "add chain-of-thought"),
        ("max_examples = 24", "max_examples = 3", "max_examples", "below the smallest"),
        ("max_calls = 900", "max_calls = -1", "max_calls", "-1"),
        ("max_cost = 1.5", "max_cost = -0.5", "max_cost", "-0.5"),
        ('time_limit = "1h30m"', 'time_limit = "soon"', "time_limit", "5m"),
        ("[budget]", "[monitor]\nalpa = 0.1\n[budget]", "alpa", "did you mean 'alpha'"),
        ("[budget]", "[bugdet]", "[bugdet]", "did you mean 'budget'"),
        ("[models]", "[[models]]", "[[models]]", "not a table"),
        ("[search]", "[search", "[search", "not valid TOML"),
        ("[search]", "x" + ".x" * 400 + " = 1\n[search]", "x.x.x", "nested deeper than 50 levels"),
        ("[search]", "xs = " + "[" * 5000 + "]" * 5000 + "\n[search]", "xs = ", "nested deeper than 50 levels"),
    ]


def test_examples_may_be_picked_for_each_input_unless_the_task_says_no(here: Path) -> None:
    assert load_task(make(here / "usual", TOML)).space.retrieval
    off = changed("demo_counts = [8, 4]", "demo_counts = [8, 4]\nretrieval = false")
    assert not load_task(make(here / "off", off)).space.retrieval


def test_marks_with_blanks_are_marks(here: Path) -> None:
    loaded = load_task(make(here / "spaced", changed("\n{{message}}\n", "\n{{ message }} {{  message}}\n")))
    assert loaded.instruction.endswith("\n{{message}} {{message}}")


@pytest.mark.parametrize(("old", "new", "place", "words"), _toml_cases())
def test_each_wrong_key_is_named_at_its_line(here: Path, old: str, new: str, place: str, words: str) -> None:
    toml = changed(old, new)
    found = problems(make(here / "tasks" / "t", toml))
    where = f"tasks/t/task.toml:{line_of(toml, place)}: "
    assert any(line.startswith(where) and words in line for line in found), found


def test_a_missing_required_key_is_said_and_all_other_problems_too(here: Path) -> None:
    toml = 'name = "t"\nsignature = "message -> team"\nbudgt = 1\n[budget]\nmax_calls = 0\n[fields.x]\n'
    found = problems(make(here / "t", toml, dev="{oops\n", test=""))
    where = {line.split(": ")[0] for line in found}
    assert {
        "t/task.toml:1",
        "t/task.toml:3",
        "t/task.toml:5",
        "t/task.toml:6",
        "t/dev.jsonl:1",
        "t/test.jsonl:1",
    } == where
    assert sum("is missing" in line for line in found) == 2


def test_a_wrong_field_definition_does_not_blame_its_labels(here: Path) -> None:
    found = problems(make(here / "t", changed('type = "choice"', 'type = "chioce"')))
    assert len(found) == 1
    assert "did you mean 'choice'" in found[0]


def test_files_outside_the_folder_are_refused(here: Path) -> None:
    (here / "secret.jsonl").write_text(jsonl(rows("dev")))
    toml = TOML + '\n[splits]\ndev = "../secret.jsonl"\n'
    assert any("outside the task folder" in line for line in problems(make(here / "a", toml)))
    absolute = TOML + f'\n[splits]\ndev = "{here / "secret.jsonl"}"\n'
    assert any("outside the task folder" in line for line in problems(make(here / "b", absolute)))
    for name in ("dev.jsonl", "task.toml", "metric.py", "rubric.md"):
        folder = make(here / f"c_{name}")
        (folder / name).unlink(missing_ok=True)
        os.symlink(here / "secret.jsonl", folder / name)
        assert any("outside the task folder" in line for line in problems(folder)), name
    (here / "s.json").write_text("{}")
    found = problems(make(here / "d", _json_task('"../s.json"'), **_json_data("{}")))
    assert any("outside the task folder" in line for line in found)


def test_a_link_inside_the_folder_is_allowed(here: Path) -> None:
    folder = make(here / "t")
    (folder / "dev.jsonl").rename(folder / "real.jsonl")
    os.symlink("real.jsonl", folder / "dev.jsonl")
    assert problems(folder) == []


def test_a_file_over_200_mb_is_refused_without_reading_it(here: Path) -> None:
    folder = make(here / "t")
    os.truncate(folder / "dev.jsonl", 201 * 1024 * 1024)
    assert any("t/dev.jsonl:1: is 201 MB" in line for line in problems(folder))


def test_folders_pipes_and_links_in_a_loop_are_no_files(here: Path) -> None:
    folder = make(here / "t")
    for split in ("train", "dev", "test"):
        (folder / f"{split}.jsonl").unlink()
    (folder / "train.jsonl").mkdir()
    os.mkfifo(folder / "dev.jsonl")
    os.symlink("test.csv", folder / "test.jsonl")
    os.symlink("test.jsonl", folder / "test.csv")
    assert {line.split(":")[0] for line in problems(folder)} == {f"t/{s}.jsonl" for s in ("train", "dev", "test")}


def test_missing_doubled_and_shared_splits_are_named(here: Path) -> None:
    folder = make(here / "a")
    (folder / "test.jsonl").unlink()
    assert problems(folder) == ["a/test.jsonl:1: no such file; write it, as .jsonl or .csv"]
    folder = make(here / "b")
    (folder / "dev.csv").write_text("message,team\n")
    assert ["dev.csv exists, too" in line for line in problems(folder)] == [True]
    shared = TOML + '\n[splits]\ndev = "train.jsonl"\n'
    assert any("two splits" in line for line in problems(make(here / "c", shared)))


def test_a_folder_that_is_not_there_names_the_near_miss(here: Path) -> None:
    make(here / "tasks" / "triage")
    with pytest.raises(ProblemsError, match=r"^tasks/triag:1: no such task folder; did you mean 'triage'\?"):
        load_task("tasks/triag")
    with pytest.raises(ProblemsError, match=r"task\.toml:1: no such file"):
        load_task("tasks")


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("def metric(example):\n    return 1\n", 1, "two arguments"),
        ("x = 1\n", 1, "no function metric"),
        ("x = 1\ndef metric(:\n", 2, "not valid Python"),
        ("(" * 5000 + ")" * 5000, 1, "Python"),
    ],
)
def test_metric_py_is_checked_but_not_run(here: Path, source: str, line: int, words: str) -> None:
    found = problems(make(here / "t", metric__py=source))
    assert len(found) == 1
    assert found[0].startswith(f"t/metric.py:{line}: ")
    assert words in found[0]


def _json_task(schema: str) -> str:
    return f'{BARE}[fields.team]\ntype = "json"\nschema = {schema}\n'


def _json_data(label: str) -> dict[str, str]:
    return {split: f'{{"message": "{split}", "team": {label}}}\n' for split in ("train", "dev", "test")}


def test_a_metric_that_goes_by_a_schema_is_refused_where_there_is_none(here: Path) -> None:
    task = f'{BARE}[fields.team]\ntype = "json"\n\n[[metrics]]\nname = "json_schema"\n'
    (found,) = problems(make(here / "t", task, **_json_data('{"a": 1}')))
    assert "json_schema needs a schema; write schema under [fields.team], or use json_fields" in found


def test_json_labels_are_held_against_the_schema(here: Path) -> None:
    schema = '{type = "object", required = ["a"], properties = {a = {type = "integer"}}}'
    assert problems(make(here / "a", _json_task(schema), **_json_data('{"a": 1}'))) == []
    found = problems(make(here / "b", _json_task(schema), **_json_data('{"a": "one"}')))
    assert len(found) == 3
    assert "at $.a: 'one' is not of type 'integer'" in found[0]
    file = '{"type": "array"}'
    assert problems(make(here / "c", _json_task('"s.json"'), s__json=file, **_json_data("[1]"))) == []
    task = load_task(here / "c")
    assert task.signature.outputs[0].schema == file


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ('{type = "objekt"}', "not a valid JSON schema"),
        ("{default = nan}", "cannot be written as JSON"),
        ("{default = 2020-01-01}", "cannot be written as JSON"),
        ("3", "write the name of a file"),
        ('"gone.json"', "cannot be used"),
        ('{"$ref" = "https://example.org/x.json"}', "cannot be checked"),
        ('{"$ref" = "#"}', "cannot be checked"),
    ],
)
def test_a_schema_that_cannot_be_used_is_a_problem(here: Path, schema: str, words: str) -> None:
    assert any(words in line for line in problems(make(here / "t", _json_task(schema), **_json_data("{}"))))


def test_a_remote_reference_of_a_schema_is_not_fetched(here: Path) -> None:
    with WireServer(lambda messages, body: "{}") as server:
        server.look = Fault(body={"type": "object"})
        schema = f'{{"$ref" = "{server.url}/models/schema.json"}}'
        found = problems(make(here / "t", _json_task(schema), **_json_data("{}")))
        assert server.opened == 0
    assert any("cannot be checked" in line for line in found)


def test_importing_load_loads_no_heavy_package() -> None:
    heavy = "{'pydantic', 'jsonschema', 'referencing', 'numpy', 'click', 'openai', 'dspy'}"
    code = f"import sys, agent.task.load, agent.task.from_file; print({heavy} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "set()"
