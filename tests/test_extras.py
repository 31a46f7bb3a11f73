"""What a plain install can do: the default run and its report, without any extra; and what it says where one is needed.

The commands run in processes that find no package but those that `pip install promptassay` brings.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.extras import MODULES
from agent.release.formats.export_format import FORMATS
from tests import installs
from tests.cli.world import compatible, files, learner
from tests.training.tiny import speaking
from tests.wire import WireServer

EXTRAS = installs.PROJECT["optional-dependencies"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installs.site_of(tmp_path_factory.mktemp("plain") / "site")


@pytest.fixture(scope="module")
def made(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], str]]:
    """A default run of a plain install: its folder, its result, and what it said."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch, WireServer(learner) as server:
        patch.chdir(folder)
        command = files(120)
        command += ["-m", compatible(server), "--max-calls", "400", "--price", "1,2"]
        done, shown = installs.commands(plain, command, ["show", "--json"])
        assert done.returncode == 0, done.stderr
        yield folder, installs.parsed(shown)["result"], done.stderr


def refused(done: installs.Ended) -> str:
    """The one line of a command that needs an extra."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()[-1:]
    assert "Traceback" not in done.stderr
    return line


def test_every_extra_is_known_by_a_module_that_a_plain_install_lacks(plain: Path) -> None:
    assert {*MODULES, "exports", "tables", "all", "dev"} == set(EXTRAS)
    tops = {path.name for path in plain.iterdir()}
    assert not tops & {*MODULES.values(), "litellm", "langchain_core", "mlflow", "prompty", "llm"}
    assert {"xllamacpp", "optuna", "sklearn", "matplotlib", "openai", "anthropic", "sqlite_utils"} <= tops
    (every,) = EXTRAS["all"]
    apart = "all clearml dev embedding knowledge mlflow otel ray tables team tune wandb"
    assert set(every.partition("[")[2].rstrip("]").split(",")) == set(EXTRAS) - set(apart.split())


def test_the_default_run_and_its_report_need_no_extra(
    plain: Path, made: tuple[Path, dict[str, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result, said = made
    monkeypatch.chdir(folder)
    assert result["winner"]["test"] > result["baseline"]["test"]
    assert result["yardsticks"]
    assert 'layout dspy-chat is not tried without dspy: pip install "promptassay[dspy]"' in said
    plainly = [["report"], ["show"], ["runs"], ["reproduce", "--offline"], ["audit", "verify"], ["export"]]
    asked = [["history", "--json"], ["history", "--search", "billing", "--json"], ["doctor", "--json"]]
    *done, history, matches, doctor = installs.commands(plain, *plainly, *asked)
    assert [one.returncode for one in done] == [0] * len(plainly), [one.stderr for one in done]
    assert len(installs.parsed(history)["trials"]) > 5
    assert "<svg" in next(Path("runs").rglob("report.html")).read_text("utf-8")
    assert installs.parsed(matches)["matches"] > 0
    checks = {each["what"]: each for each in json.loads(doctor.stdout)["checks"]}
    for extra, module in MODULES.items():
        assert checks[module]["ok"] is None
        assert checks[module]["found"] == f'not installed; pip install "promptassay[{extra}]" brings it'


def test_each_command_that_needs_an_extra_says_so_in_one_line(
    plain: Path, made: tuple[Path, dict[str, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = made
    monkeypatch.chdir(folder)
    speaking(Path("tiny.gguf"))
    Path("scripted.jsonl").write_text('{"reply": "billing"}\n', "utf-8")
    options = '[options]\ntarget = "label"\nprompt = "p.txt"\n'
    Path("small.toml").write_text(f'tasks = ["rows.csv"]\nmodels = ["scripted/scripted.jsonl"]\n{options}', "utf-8")
    start = ["run", "rows.csv", "--target", "label", "--prompt", "p.txt", "-q"]
    needing = [
        ("dspy", [*start, "--strategy", "dspy-gepa", "--max-calls", "400"]),
        ("dspy", ["export", "--format", "dspy", "-o", "d"]),
        ("langchain", [*start, "-m", "langchain/openai:x", "--max-calls", "400"]),
        ("embedding", [*start, "--embeddings", "wordllama", "--max-calls", "400"]),
        ("ui", ["ui", "--no-open"]),
        ("tune", ["customize", *start[1:6], "-m", "local/tiny.gguf", "--arms", "full"]),
        ("ray", ["customize", *start[1:6], "-m", "local/tiny.gguf", "--arms", "lora", "--ray"]),
        ("ray", ["customize", *start[1:6], "-m", "local/tiny.gguf", "--arms", "lora", "--tune", "6"]),
        ("ray", ["sweep", "small.toml", "--ray", "local"]),
        ("ray", [*start, "-m", "ray/local/tiny.gguf?engines=2"]),
    ]
    listed = ["runs", "--json"]
    before, *done, after = installs.commands(plain, listed, *(command for _, command in needing), listed)
    for (extra, _), one in zip(needing, done, strict=True):
        line = refused(one)
        assert line.endswith(f'needs {MODULES[extra]}, which is not installed; pip install "promptassay[{extra}]"')
    assert installs.parsed(after)["runs"] == installs.parsed(before)["runs"]  # nothing was begun
    code = "import agent; agent.load_run().trials_df()"
    done = installs.python(plain, code)
    assert done.stderr.splitlines()[-1].endswith(
        'a table needs pandas, which is not installed; pip install "promptassay[notebook]"'
    )


def test_an_export_that_cannot_be_verified_names_the_extra_that_can(
    plain: Path, made: tuple[Path, dict[str, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made[0])
    for name in ("langchain", "prompty", "dotprompt", "mlflow", "llm"):
        extra = "langchain" if name == "langchain" else "exports"
        assert FORMATS.get(name).install == f'pip install "promptassay[{extra}]"'
    done = installs.optimize(plain, "export", "--format", "langchain", "--format", "mlflow", "-o", "made")
    assert done.returncode == 0, done.stderr
    assert 'langchain: not verified with langchain-core: pip install "promptassay[langchain]"' in done.stderr
    assert 'mlflow: not verified with mlflow-skinny: pip install "promptassay[exports]"' in done.stderr


def test_the_layouts_of_dspy_are_tried_where_it_is_installed(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = installs.site_of(tmp_path / "site", "dspy")
    monkeypatch.chdir(tmp_path)
    files(120)
    init = ["init", "mine", "--from", "rows.csv", "--target", "label", "--prompt", "p.txt"]
    assert installs.optimize(plain, *init).returncode == 0
    searches = {"bare": ["turns", "inline"], "mixed": ["turns", "dspy-json"], "other": ["dspy-json"]}
    for name, formats in searches.items():
        toml = shutil.copytree("tasks/mine", Path("tasks", name)) / "task.toml"
        text = toml.read_text("utf-8").replace('name = "mine"', f'name = "{name}"')
        toml.write_text(f"{text}\n[search]\nformats = {json.dumps(formats)}\n", "utf-8")

    def tried(listed: installs.Ended) -> dict[str, list[str]]:
        return {task["name"]: list(task.get("formats", ())) for task in installs.parsed(listed)["tasks"]}

    always = ["turns", "labelled-turns", "inline"]
    listed, dry, told = installs.commands(plain, ["tasks", "--json"], ["run", "bare", "--dry-run"], ["tasks", "mixed"])
    assert tried(listed) == {"mine": always, "bare": searches["bare"], "mixed": [], "other": []}
    assert dry.returncode == 0, dry.stderr
    assert "dspy" not in dry.stderr  # nothing was left out
    line = len(Path("tasks/mixed/task.toml").read_text("utf-8").splitlines())
    says = "'dspy-json' needs dspy: pip install \"promptassay[dspy]\", or take it out"
    assert refused(told) == f"error: tasks/mixed/task.toml:{line}: {says}"

    with WireServer(learner) as server:
        run = ["run", "other", "-m", compatible(server), "-n", "3", "--max-calls", "200"]
        listed, done, history = installs.commands(site, ["tasks", "--json"], run, ["history", "--json"])
    assert tried(listed) == {"mine": [*always, "dspy-chat"], **searches}
    assert done.returncode == 0, done.stderr
    assert "dspy-json" in {trial["format"] for trial in installs.parsed(history)["trials"]}
