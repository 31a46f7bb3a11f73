"""Customize or instruct, measured: `optimize customize` on two sets of public rows, once for each seed of the training.

    taskset -c 0 python -m tests.bench.customize [--sets trec,bank8] [--seeds 0,1,2] [--curve 24,75,all] [--table]

Each set is written as a task folder of 150 train, 60 dev and 150 test rows, and searched once (`--trials 1` scores the
user's own prompt alone); then the very command that a user types compares the arms, for each seed of the training. Its
results are added to a file of JSON lines as they come; a comparison that stands there is not made again, and one that
was killed goes on. At the end a table of all lines. The rows come from `--data` (as in the arena); bank8 needs more
rows of its eight labels than lie there, so it takes the publisher's train.csv and test.csv (github
PolyAI-LDN/task-specific-datasets, banking_data) from `--banking`, and without them what there is. Asserts nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from agent.jobs.locations import open_history
from tests.bench.arena.data import Row, data_folder, load
from tests.bench.arena.weights import gguf

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "runs" / "customize"
LEDGER = "runs/ledger.db"
ROWS = (150, 60, 150)
"""Of train, dev and test."""
BANK_LABELS = 8
ARMS = "best,retrieved,calibrated,lora,no-model"
TASK = """name = "{name}"
description = {about}
signature = "text -> label"
instruction = {instruction}

[fields.label]
type = "choice"
choices = {choices}

[[metrics]]
name = "choice"
"""
Line = dict[str, Any]


# -- the rows ---------------------------------------------------------------------------------------------------------


def rows_of(name: str, data: Path, banking: Path | None) -> tuple[str, list[list[Row]]]:
    """What the task is about, and its rows of train, dev and test as `id`, `text` and `label`."""
    task = load("banking8" if name == "bank8" else name, data)
    if name == "bank8" and banking is not None:
        return task.description, _cut(_published(banking))
    parts = [
        [{"id": row.id, "text": row.inputs["text"], "label": str(row.labels["label"])} for row in split]
        for split in (task.train, task.dev, task.test)
    ]
    return task.description, _cut(parts)


def _cut(parts: Sequence[Sequence[Row]]) -> list[list[Row]]:
    return [list(part[:most]) for part, most in zip(parts, ROWS, strict=True)]


def _published(folder: Path) -> list[list[Row]]:
    """The publisher's rows of the first labels by alphabet, shuffled; dev is cut off train."""
    parts = []
    for split in ("train", "test"):
        with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            parts.append([{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)])
    kept = set(sorted({row["label"] for row in parts[0]})[:BANK_LABELS])
    for split, part in zip(("train", "test"), parts, strict=True):
        part[:] = [{"id": f"{split}-{at}", **row} for at, row in enumerate(part) if row["label"] in kept]
        random.Random(0).shuffle(part)
    return [parts[0][: ROWS[0]], parts[0][ROWS[0] :], parts[1]]


def write_task(folder: Path, name: str, about: str, parts: Sequence[Sequence[Row]]) -> None:
    """A task folder as a user writes it."""
    labels = sorted({row["label"] for part in parts for row in part})
    instruction = f"{about} Answer with one of these labels only: {', '.join(labels)}."
    folder.mkdir(parents=True, exist_ok=True)
    words = {"about": json.dumps(about), "instruction": json.dumps(instruction), "choices": json.dumps(labels)}
    (folder / "task.toml").write_text(TASK.format(name=name, **words), "utf-8")
    for split, part in zip(("train", "dev", "test"), parts, strict=True):
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in part), "utf-8")


# -- the command ------------------------------------------------------------------------------------------------------


def optimize(folder: Path, *words: str) -> dict[str, Any]:
    """What the command prints with `--json`. Raises CalledProcessError where it fails; stderr is the user's."""
    command = [sys.executable, "-m", "promptassay", *words, "--db", LEDGER, "--json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def search(folder: Path, model: str, calls: int, trials: int) -> str:
    """The id of the latest complete search of the model in the folder, or of one that is made."""
    ledger = folder / LEDGER
    if ledger.is_file():
        with closing(open_history(ledger)) as history:
            for row in history.runs():
                if row["status"] == "complete" and row["model"] == model and not row["options"].get("command"):
                    return str(row["id"])
    capped = ["--max-calls", str(calls), *(["--trials", str(trials)] if trials else [])]
    return str(optimize(folder, "run", "task", "-m", model, *capped)["run_id"])


def compared(folder: Path, model: str, run: str, seed: int, arms: str, curve: str) -> Line:
    """One comparison, as a line of the results."""
    words = ["customize", "task", "-m", model, "--run", run, "--seed", str(seed), "--arms", arms]
    found = optimize(folder, *words, *(["--curve", curve] if curve else []))
    with closing(open_history(folder / LEDGER)) as history:
        events = history.select(
            "SELECT body FROM events WHERE run_id = ? AND kind = 'trained' ORDER BY seq", found["run_id"]
        )
    return {**found, "trained": [json.loads(event["body"]) for event in events]}


def key(line: Line) -> tuple[str, str, int, str]:
    """By which a comparison is known."""
    return line["set"], line["model"], line["seed"], line["asked_curve"]


def read(path: Path) -> list[Line]:
    """The lines of the results; one that a kill cut off is left out."""
    if not path.is_file():
        return []
    whole = [text for text in path.read_text("utf-8").splitlines(keepends=True) if text.endswith("\n")]
    return [json.loads(text) for text in whole]


# -- the table --------------------------------------------------------------------------------------------------------


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Markdown: for each set and model a line for each arm, its score with the spread over seeds, and the advice."""
    sets = defaultdict[tuple[str, str], list[Line]](list)
    for line in lines:
        sets[line["set"], line["model"]].append(line)
    yield "| set, model | arm | sealed test by seed (95 % CI) | mean, spread | train s | call s |"
    yield "|---|---|---|---|---|---|"
    for (name, model), some in sets.items():
        by_seed = {line["seed"]: line for line in some}
        for arm in dict.fromkeys(arm["arm"] for line in some for arm in line["arms"]):
            each = [one for line in by_seed.values() for one in line["arms"] if one["arm"] == arm]
            scores = [100 * one["test"] for one in each]
            spread = f"{mean(scores):.1f}, {stdev(scores):.1f}" if len(scores) > 1 else ""
            shown = "; ".join(_interval(one) for one in (each if len(set(scores)) > 1 else each[:1]))
            train = ", ".join(f"{one['train_s']:.0f}" for one in each if one["train_s"])
            yield f"| {name}, {model} | {arm} | {shown} | {spread} | {train} | {each[0]['latency_s']} |"
    for line in lines:
        yield f"\n{line['set']}, {line['model']}, seed {line['seed']}: {line['advice']['text']}"
        yield from (f"- {point['arm']} {point['labels']}: {_interval(point)}" for point in line["curve"])
        yield from [line["curve_text"]] if line["curve_text"] else []


def _interval(one: dict[str, Any]) -> str:
    low, high = (100 * end for end in one["ci95"])
    return f"{100 * one['test']:.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default="trec,bank8")
    parser.add_argument("--seeds", default="0,1,2", help="of the training; the search has its own, 0")
    parser.add_argument("--model", default="smollm2-135m", help="a model of the arena, or a path")
    parser.add_argument("--arms", default=ARMS)
    parser.add_argument("--curve", default="", help="such as 24,75,all")
    parser.add_argument("--calls", type=int, default=870, help="of the search before it")
    parser.add_argument("--trials", type=int, default=0, help="of that search; 0: as many as the calls pay")
    parser.add_argument("--data", help="the folder of the rows; else ARENA_DATA, else ../shared/data")
    parser.add_argument("--banking", type=Path, help="the publisher's banking_data")
    parser.add_argument("-o", "--output", type=Path, default=PLACE / "results.jsonl")
    parser.add_argument("--table", action="store_true", help="only the table of what is there")
    given = parser.parse_args()
    wanted = [(name, int(seed)) for seed in given.seeds.split(",") for name in given.sets.split(",")]
    done = {key(line) for line in read(given.output)}
    for name, seed in [] if given.table else wanted:
        if (name, given.model, seed, given.curve) in done:
            continue
        known = given.model in ("smollm2-135m",)
        served = f"local/{given.model if known else gguf(given.model, print)}"
        folder = PLACE / name
        write_task(folder / "task", name, *rows_of(name, data_folder(given.data), given.banking))
        run = search(folder, served, given.calls, given.trials)
        line = compared(folder, served, run, seed, given.arms, given.curve)
        about = {"set": name, "model": given.model, "seed": seed, "asked_curve": given.curve}
        given.output.parent.mkdir(parents=True, exist_ok=True)
        with given.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, **about}) + "\n")
        print(f"{name}, seed {seed}: {line['advice']['text']}", flush=True)
    print("\n".join(table(read(given.output))))


if __name__ == "__main__":
    main()
