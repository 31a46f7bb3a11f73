"""Agents: our search against gepa's optimize_anything, with the same rows, agent, endpoint, model and calls of search.

    python -m tests.bench.agents home_agent --model local/FILE.gguf --calls 400 --rows 20,12,20 --out DIR --gepa
    python -m tests.bench.agents bfcl --model local/FILE.gguf --calls 400 --out DIR --gepa

`bfcl` are first turns of BFCL v4 multi_turn_base in `--data`, one API a row: the agent gets the functions of the
row's dialogue, and must reach the state and read the results of the published calls, as in the published checker.

gepa gets as many different requests as our search made before its sealed test, and reflects with the same model. Its
best texts are then tested once on our sealed rows. Nothing is asserted.

Source: Patil et al. 2025 (BFCL v4); Agrawal et al. 2025, "GEPA" (gepa's optimize_anything).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import promptassay as pa
from agent.errors import OF_A_ROW
from agent.ledger.store import Ledger
from agent.models.model_registry import create_model
from agent.programs.agent import AgentProgram
from agent.prompt.named_texts import TextsCandidate
from agent.task.load import load_task
from agent.types import SPLITS, Completion, Example, Message, Request, Task
from tests.bench import bfcl_agent
from tests.bench.rival import Counted, against, sealed

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "bfcl_multi_turn"
ONE_ROW = 'program = { run = "agent.py:run", at_once = 1, seconds = 900 }'
"""One row at a time, as an engine reuses the beginning of a conversation, and time for a busy machine."""
BFCL_TASK = f"""
name = "bfcl"
description = "Do what the user asks with the functions."
signature = "request, api -> outcome"
{ONE_ROW}

[texts]
system = "You are a helpful assistant. Do what the user asks with the functions."

[fields.outcome]
type = "json"

[[metrics]]
name = "python"

[models]
max_tokens = 200
"""
BFCL_METRIC = """
def metric(example, prediction):
    right, made = example["labels"]["outcome"], prediction["fields"]["outcome"]
    wrong = ["the state is wrong"] if made["state"] != right["state"] else []
    wrong += [f"not read: {each}" for each in right["results"] if each not in made["results"]]
    return {"value": float(not wrong), "reason": "; ".join(wrong)}
"""
REFLECTION_TOKENS = 500
T = TypeVar("T")


# -- tasks ------------------------------------------------------------------------------------------------------------


def home_agent(folder: Path, rows: Sequence[int]) -> None:
    """Copy the sample with the first rows of each split."""
    shutil.copytree(ROOT / "tasks" / "home_agent", folder)
    toml = folder / "task.toml"
    toml.write_text(toml.read_text("utf-8").replace('program = "agent.py:run"', ONE_ROW), "utf-8")
    for split, count in zip(SPLITS, rows, strict=True):
        lines = (folder / f"{split}.jsonl").read_text("utf-8").splitlines(keepends=True)
        (folder / f"{split}.jsonl").write_text("".join(lines[:count]), "utf-8")


def bfcl(folder: Path, rows: Sequence[int]) -> None:
    """Write first turns as a task; labels are what the published calls lead to."""
    folder.mkdir(parents=True)
    shutil.copyfile(bfcl_agent.__file__, folder / "agent.py")
    (folder / "metric.py").write_text(BFCL_METRIC, "utf-8")
    (folder / "task.toml").write_text(BFCL_TASK, "utf-8")
    answers = {row["id"]: row["ground_truth"][0] for row in lines_of("answers")}
    made: dict[str, list[str]] = {split: [] for split in SPLITS}
    for row in lines_of("rows"):
        name, *others = row["involved_classes"]
        if others or name not in bfcl_agent.MODULES or not answers[row["id"]]:
            continue
        given = {"class": name, "config": row["initial_config"].get(name, {})}
        tools = sorted({each.partition(".")[2] for each in row["path"]} - {*row.get("excluded_function", [])})
        api = bfcl_agent.started(name, given["config"])
        names = {each: getattr(api, each) for each in dir(api) if not each.startswith("_")}
        results = [json.dumps(eval(call, dict(names)), default=str) for call in answers[row["id"]]]  # noqa: S307 published
        line = {
            "id": row["id"],
            "request": row["question"][0][0]["content"],
            "api": json.dumps({**given, "tools": tools}),
            "outcome": {"state": bfcl_agent.state_of(api), "results": results},
        }
        share = int(hashlib.sha256(row["id"].encode()).hexdigest()[:8], 16) / 2**32
        made["train" if share < 0.3 else "dev" if share < 0.5 else "test"].append(json.dumps(line))
    for split, count in zip(SPLITS, rows, strict=True):
        (folder / f"{split}.jsonl").write_text("\n".join(made[split][:count]) + "\n", "utf-8")


def lines_of(name: str) -> list[dict[str, Any]]:
    text = (bfcl_agent.data() / f"{name}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


# -- ours -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ours:
    """What our run came to. `search`: requests before the sealed test; `baseline`: scores of the sealed rows by id."""

    db: Path
    search: int
    baseline: dict[str, float]


def ours(folder: Path, model: str, calls: int, seed: int) -> Ours:
    """Run our search; print its result."""
    db = folder.parent / "runs" / "ledger.db"
    result = pa.optimize(folder, model=model, max_calls=calls, seed=seed, db=db, max_concurrency=1, price=(0, 0))
    with closing(sqlite3.connect(db)) as book:
        opened = "SELECT utc FROM events WHERE run_id = :run AND kind = 'test_opened'"
        made = f"SELECT count(DISTINCT call_key) FROM calls WHERE run_id = :run AND sent_utc < ({opened})"
        (search,) = book.execute(made, {"run": result.run_id}).fetchone()
    print(result.to_json())
    print(f"ours: {search} requests before the sealed test; {result.decision}; {result.lift}")
    return Ours(db, search, {row: value for row, value in sealed(db, result.run_id).items() if value is not None})


def replies(db: Path) -> dict[str, Completion]:
    """Return the replies of a ledger by the keys of their requests."""
    with closing(Ledger(db)) as ledger:
        keys = [row["call_key"] for row in ledger.select("SELECT DISTINCT call_key FROM calls WHERE state = 'ok'")]
        return {key: reply for key in keys if (reply := ledger.settled(key)) is not None}


# -- gepa -------------------------------------------------------------------------------------------------------------


class Bench:
    """Runs the agent of a task with any texts, from threads that gepa starts."""

    def __init__(self, task: Task, model: str, ledger: Mapping[str, Completion]) -> None:
        self.task, self.lm = task, create_model(model)
        self.counted = Counted(self.lm, ledger)
        self.program = AgentProgram(task, self.lm)
        spec = importlib.util.spec_from_file_location("bench_metric", Path(str(task.folder)) / "metric.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._metric = module.metric
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def score(self, texts: dict[str, str], row: Example) -> tuple[float, dict[str, Any]]:
        """Return the score of a rollout and what gepa is told about it."""
        candidate = TextsCandidate(self.program.kind, texts)
        try:
            made = self.wait(self.program.run(candidate, row, self.counted))
        except OF_A_ROW as failure:  # gepa knows no rows without a score
            return 0.0, {"Error": str(failure)}
        if made.error:
            return 0.0, {"Rollout": made.trace, "Error": made.error}
        verdict = self._metric({"labels": row.labels}, {"fields": dict(made.fields)})
        return verdict["value"], {"Rollout": made.trace, "Feedback": verdict["reason"]}

    def reflect(self, prompt: str) -> str:
        request = Request((Message("user", prompt),), REFLECTION_TOKENS, temperature=1.0, seed=self.counted.calls)
        return self.wait(self.counted(request)).text

    def close(self) -> None:
        self.wait(self.program.close())
        self.wait(self.lm.close())


def gepa(folder: Path, model: str, done: Ours, seed: int) -> None:
    """Run optimize_anything with the calls of our search; print what it reports and its score on our sealed rows."""
    oa = importlib.import_module("gepa.optimize_anything")
    bench = Bench(load_task(folder), model, replies(done.db))
    task, own = bench.task, dict(bench.task.texts)
    found = oa.optimize_anything(
        seed_candidate=own,
        evaluator=lambda candidate, example: bench.score(candidate, example),
        dataset=list(task.train),
        valset=list(task.dev),
        objective=task.description,
        config=oa.GEPAConfig(
            engine=oa.EngineConfig(seed=seed, parallel=False, max_workers=1),
            reflection=oa.ReflectionConfig(reflection_lm=bench.reflect),
            stop_callbacks=lambda state: bench.counted.calls >= done.search,
        ),
    )
    best, scores, used = dict(found.best_candidate), found.val_aggregate_scores, bench.counted.calls
    print(json.dumps(best, indent=2, ensure_ascii=False))
    print(f"gepa: {used} calls, {len(scores)} candidates; reports {max(scores):.3f}, its seed {scores[0]:.3f}")
    rows = [row for row in task.test if row.id in done.baseline]
    then = [done.baseline[row.id] for row in rows]
    now = then if best == own else [bench.score(best, row)[0] for row in rows]
    bench.close()
    print(f"gepa: {against(then, now, seed)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("home_agent", "bfcl"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--rows", default="50,40,60", help="of train, dev and test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gepa", action="store_true", help="run gepa, too, which comes with the extra dspy")
    asked = parser.parse_args()
    os.environ["BFCL_MULTI_TURN"] = str(asked.data.resolve())
    folder, rows = asked.out / asked.task, [int(each) for each in asked.rows.split(",")]
    if not folder.exists():
        (home_agent if asked.task == "home_agent" else bfcl)(folder, rows)
    done = ours(folder, asked.model, asked.calls, asked.seed)
    if asked.gepa:
        gepa(folder, asked.model, done, asked.seed)


if __name__ == "__main__":
    main()
