"""The snippets of README and manual do what they say: page by page, in order, against a model behind a local socket.

Each page begins in the same world: data.csv, prompt.txt, a log of production, outcomes of an A/B test, and runs of the
task support_triage, whose winner is in production. Words such as RUN and FILE get a value; hosted models are the
local one. NOT_RUN lists what is not run, with the reason.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.gateway import batch_course, batches
from tests.batch.provider import BatchProvider
from tests.cli.text_world import PLAIN, write_world
from tests.cli.world import INSTRUCTION, TOPICS, compatible, good, good_json, learner, optimize, write_csv
from tests.docs.pages import NAMES, PAGES, blocks, commands
from tests.wire import WireServer

NOT_RUN = {
    "ray/local/": "needs Ray: tests/models/test_ray_engines.py",
    "--ray|--tune": "needs Ray: tests/cli/test_sweep_ray.py, tests/customize/test_on_ray.py",
    "--trainer peft": "needs PyTorch: tests/customize/test_customize.py, tests/training/test_peft.py",
    '@job."agreement"': "the head of a file: tests/registry/test_plugin.py runs it whole",
    "optimize demo": "needs its own ledger: tests/cli/test_demo.py",
    "optimize models fetch": "downloads; tests/models has it",
    "optimize resume": "needs an interrupted run: tests/cli/test_interrupt.py",
    "optimize batch cancel": "needs a batch that is under way: tests/cli/test_batch.py",
    "optimize ui$": "serves until Ctrl-C: tests/report/web",
    "optimize ui --allow-calls": "serves until Ctrl-C: tests/report/test_web_playground.py",
    "docs/examples/": "each table needs its own model: tests/docs/test_examples.py",
    "optimize label .*--(web|ask)|optimize (run )?mails$": "needs labels of people: tests/cli/test_label.py",
    "optimize init .*--rows": "needs a model that writes rows: tests/cli/test_label.py",
    "optimize init --sample": "the task is there already: tests/cli/test_own_data.py",
    "optimize judge tune": "needs ratings of people: tests/cli/test_judge_tune.py",
    "optimize judge calibrate": "needs ratings of people: tests/cli/test_judge_calibrate.py",
    "optimize check prompts/": "a line of a workflow; `check` runs on other lines",
    r"rows = \[": "`...` stands for the reader's rows: tests/api/test_optimize.py, tests/api/test_tools.py",
    "call_your_model": "a client of the reader's own: tests/release/test_runtime.py",
    'root="/srv/releases"': "a folder of the reader's own: tests/release/test_runtime.py",
    "unit=user_id": "a user of the reader's own: tests/release/test_ab.py",
    r"prompt\.remember": "needs a prompt that picks its examples: tests/release/test_remembered.py",
    "load_texts": "needs a run of an agent: tests/release/test_texts.py",
    r"my_client\.embed": "a client of the reader's own: tests/retrieval/test_provided_vectors.py",
    r"ledger (merge|publish|verify)|merge_ledgers|-url|TEAM.db": "several ledgers: tests/cli/test_ledger_merge.py",
    "--track wandb": "packages that not every install has: tests/tracking/test_trackers.py",
    "--trace": "needs a receiver and an extra: tests/tracking/test_spans.py",
    r"traces\.jsonl": "a file of the reader's own: tests/task/test_traces.py",
    "--embeddings": "needs an extra: tests/retrieval/test_dense.py",
    r"\+triage\.gguf": "needs an adapter and the engine: tests/engine/test_engine.py",
    r"adapter\.gguf": "needs a prompt with an adapter: tests/engine/test_engine.py",
    r"customize .*(lora|hosted|export-only|curve)|--arm lora|pa\.customize": "trains a model: tests/customize",
    r"questions\.csv|knowledge=": "documents of the reader's own: tests/knowledge/test_own_documents.py",
    r"complete\(messages=": "a prompt of the reader's own: tests/cli/test_conversation.py",
    r"def metric\(example": "a file of a task: tests/scoring",
    "batch=True": "a model of a provider: tests/cli/test_batch.py",
    r"pa\.migrate": "a model of a provider: tests/cli/test_migrate.py",
    "import dspy": "a file of a task: tests/search",
    "from langchain_core": "a file of a task: tests/cli/test_program.py",
    "class StartOptions": "part of tests/assets/plugin: tests/registry/test_plugin.py",
    "skill|optimize tools --mcp": "skills or a server of the reader's own: tests/cli/test_skills.py",
    "home_agent": "an agent: tests/test_home_agent.py",
    "--agent agent.py:run|agent=run|load_texts": "an agent of the reader's own: tests/cli/agents",
    "docs/python-reference.md": "made of docstrings: tests/test_doctests.py",
}
"""Patterns of what is not run: why not, and what tests it."""
ENDS = {"optimize rollback data": 2, "optimize rollback support_triage": 0}
"""Exit codes other than 0: `data` has one version only."""


@dataclass(frozen=True, slots=True)
class World:
    """A folder with finished runs; `result` is the JSON object of the last."""

    folder: Path
    model: str
    result: dict[str, Any]

    def words(self, words: list[str]) -> list[str]:
        """A command of a page with values in the place of its names."""
        values = {
            r"local/smollm2-135m": self.model,
            r"\bopenai/(NAME|NEW)\b": self.model.replace("/x@", "/y@"),
            r"\banthropic/NAME\b": self.model.replace("/x@", "/z@"),
            r"\bRUN\b": self.result["run_id"],
            r"^NAME(?=@|$)": "support_triage",
            r"^ID$": self.result["winner"]["candidate_id"],
            r"^(FILE|DIR)$": "-".join(["out", *words[:2]]),
            r"^TEXT$": "nobody wrote this",
        }
        for pattern, value in values.items():
            words = [re.sub(pattern, value, word) for word in words]
        return words


def skipped(text: str) -> bool:
    return any(re.search(part, text) for part in NOT_RUN)


RUN_PAGES = [(page, name) for page, name in zip(PAGES, NAMES, strict=True) if any(blocks(page)) and not skipped(name)]


def _data() -> None:
    """data.csv with the columns that the pages name: `team` is to be predicted, `label` is another name of it."""
    with write_csv(Path("rows.csv"), 240).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with Path("data.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["message", "team", "label"])
        table.writerows((row["text"], row["label"], row["label"]) for row in rows)
    with Path("chats.jsonl").open("w", encoding="utf-8") as file:
        for row in rows[:90]:
            said = (row["text"], "Tell me more.", f"It is about that, number {row['id']}.")
            turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
            file.write(json.dumps({"messages": turns, "label": row["label"]}) + "\n")
    with Path("mail.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["message"])
        table.writerows([row["text"]] for row in rows[:5])
    Path("prompt.txt").write_text(INSTRUCTION, "utf-8")
    corrected = ({"message": f"a new {topic} about {topic} here", "answer": topic} for topic in TOPICS)
    Path("corrected.jsonl").write_text("".join(json.dumps(each) + "\n" for each in corrected), "utf-8")
    replies = (list(TOPICS) * 50)[:200]
    Path("log.jsonl").write_text("".join(json.dumps({"reply": reply}) + "\n" for reply in replies), "utf-8")
    outcomes = ({"unit": f"u{n}", "arm": "AB"[n % 2], "outcome": n % 3 % 2} for n in range(60))
    Path("outcomes.jsonl").write_text("".join(json.dumps(each) + "\n" for each in outcomes), "utf-8")


def _text_file() -> None:
    write_world("", ("amount", PLAIN), sections=3)
    Path("rows.jsonl").rename("tasks.jsonl")
    Path("score.sh").rename("eval.sh").chmod(0o755)


def _sweep(model: str) -> None:
    """A sweep of one cell: that of the page has twelve."""
    text = f'tasks = ["support_triage"]\nmodels = ["{model}"]\n[options]\ntrials = 1\nmax_calls = 300\nprice = [0, 0]\n'
    Path("sweep.toml").write_text(text, "utf-8")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with WireServer(learner, other=BatchProvider(learner)) as server:
            _data()
            _text_file()
            _sweep(compatible(server))
            good("init", "support_triage", "--from", "data.csv", "--target", "team", "--prompt", "prompt.txt")
            for seed in (1, 0):  # two versions: a rollback has where to go
                words = ["-m", compatible(server), "--max-calls", "400", "-q", "--seed", str(seed), "--no-retrieval"]
                result = good_json("run", "support_triage", *words)
                assert result["decision"] == "promote"
                good("promote")
            good("bless", "support_triage@production", "--reason", "first", "-q", "-m", compatible(server))
            good("bless", result["release"], "--reason", "first", "-q", "-m", compatible(server))
            os.chdir(before)
            yield World(folder, compatible(server), result)
    finally:
        os.chdir(before)


@pytest.mark.parametrize(("page", "name"), RUN_PAGES, ids=[name for _, name in RUN_PAGES])
def test_what_a_page_says_can_be_typed(page: Path, name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(world.folder, ".", dirs_exist_ok=True)
    monkeypatch.setattr(batches, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(batch_course, "FIRST_WAIT", 0.02)
    given = {"OPTIMIZE_MODEL": world.model, "OPTIMIZE_MAX_CALLS": "200", "OPTIMIZE_PRICE": "0.01,0.01"}
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    for block in blocks(page):
        for words in commands(block):
            line = f"optimize {' '.join(words)}"
            if skipped(line):
                continue
            done = optimize(*world.words(words))
            expected = next((code for start, code in ENDS.items() if line.startswith(start)), 0)
            assert done.exit_code == expected, f"{line}\n{done.output}"
        if block.language == "python" and not skipped(block.text):
            exec(compile(block.text, str(page), "exec"), {"__name__": "snippet"})


def test_each_reason_is_of_a_snippet_that_is_there() -> None:
    texts = [
        *NAMES,
        *(f"optimize {' '.join(words)}" for page in PAGES for block in blocks(page) for words in commands(block)),
    ]
    texts += [block.text for page in PAGES for block in blocks(page) if block.language == "python"]
    assert [part for part in NOT_RUN if not any(re.search(part, text) for text in texts)] == []
