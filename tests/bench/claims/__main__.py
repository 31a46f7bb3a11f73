"""Public claims of gains on few rows: print what their figures show, or search on their rows with our optimizer.

    python -m tests.bench.claims
    python -m tests.bench.claims math --data FOLDER --model local/FILE.gguf --out DIR [--calls 200] [--minutes 4]
    python -m tests.bench.claims invoices --data FOLDER --model local/FILE.gguf --out DIR
    python -m tests.bench.claims sentiment --model local/smollm2-135m --out DIR

`FOLDER` is examples/02-math-reasoning or examples/03-invoice-extraction of a checkout of
github.com/intertwine/dspy-agent-skills; nothing in it is run. Its prompt is our baseline and its metric is ours. The
published search chose by the validation rows and reported the score on the same rows. Here the train rows are halved,
for examples and for the choice, and the validation rows are sealed.

The 22 sentiments of the other claim are not published. sentiment.jsonl has rows of ours of the described kind: 22 for
the search, as many as there, and 77 sealed.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promptassay as pa
from agent.release.result import RunResult
from agent.stats.figures import paired_test
from tests.bench.arena.score import last_number
from tests.bench.claims.published import CLAIMS, lines, with_interval

SENTIMENT = """
name = "sentiment"
description = "Tell the sentiment of a short text."
signature = "text -> sentiment"
instruction = "Label the sentiment of the text: positive, negative or neutral."

[fields.sentiment]
type = "choice"
choices = ["positive", "negative", "neutral"]
"""
SEARCHED = 22
TASK = """
name = "{name}"
description = "Solve arithmetic word problems."
signature = "problem -> answer"
instruction = {instruction}

[models]
max_tokens = {tokens}
"""
RECORD = """Answer with one JSON object: {"vendor": "", "date": "", "line_items": [{"description": "", "quantity": 0,
"unit_price": 0.0}], "total": 0.0}"""
"""Says the form of the answer, as the authors' program does by the types of its signature."""
INVOICES = """
name = "invoices"
description = "Turn the text of an invoice into a record."
signature = "text -> record"
instruction = {instruction}

[fields.record]
type = "json"
schema = "record.schema.json"

[models]
max_tokens = {tokens}
"""
FORM = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string"},
        "date": {"type": "string"},
        "line_items": {"type": "array", "items": {"type": "object"}},
        "total": {"type": "number"},
    },
    "required": ["vendor", "date", "line_items", "total"],
}
NEAR = 0.1
PARTIAL = 0.2


def math_score(row: Mapping[str, Any], answer: Any) -> float:
    """Score the last number: 1 if right, 0.2 within 10 %, as the published metric does.

    >>> [math_score({"answer": "290"}, said) for said in ("It is $290", "so 300", "12", "none")]
    [1.0, 0.2, 0.0, 0.0]
    """
    said, right = last_number(str(answer)), float(row["answer"])
    if said is None:
        return 0.0
    if abs(said - right) <= 1e-3 + 1e-6 * max(abs(said), abs(right)):
        return 1.0
    return PARTIAL if abs(said - right) / max(abs(right), 1.0) < NEAR else 0.0


def invoice_score(row: Mapping[str, Any], answer: Any) -> float:
    """Score a record with the weights of the published metric: form, vendor, date, F1 of the items, total.

    >>> right = {"vendor": "A", "date": "2024-01-02", "line_items": [{"description": "tea", "quantity": 1,
    ...          "unit_price": 2.0}], "total": 2.0}
    >>> [round(invoice_score({"record": right}, said), 2) for said in (right, right | {"line_items": []}, [])]
    [1.0, 0.65, 0.0]
    """
    right = row["record"]
    if not isinstance(answer, dict) or not answer.keys() >= right.keys() or not isinstance(answer["line_items"], list):
        return 0.0
    ours, theirs = (Counter(map(_item, each["line_items"])) for each in (answer, right))
    both = (ours & theirs).total()
    f1 = 2 * both / max(1, ours.total() + theirs.total())
    is_near = isinstance(answer["total"], int | float) and abs(answer["total"] - right["total"]) <= 0.5
    same = [str(answer[name]).strip().casefold() == right[name].casefold() for name in ("vendor", "date")]
    return 0.2 + 0.15 * sum([*same, is_near]) + 0.35 * f1


def _item(item: Any) -> tuple[str, ...]:
    given = item if isinstance(item, dict) else {}
    return tuple(str(given.get(name)).strip().casefold() for name in ("description", "quantity", "unit_price"))


def first_prompt(code: str) -> str:
    """Return the docstring of the first DSPy signature in a source text, which is its prompt."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Signature") for base in node.bases):
            return ast.get_docstring(node) or ""
    raise SystemExit("no DSPy signature in pipeline.py; give the folder of the example by --data")


def write_sentiment(folder: Path) -> Path:
    """Write our sentiments as a task: 22 rows in turn to train and dev, all others to test."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = (Path(__file__).parent / "sentiment.jsonl").read_text("utf-8").splitlines(keepends=True)
    searched, sealed = rows[:SEARCHED], rows[SEARCHED:]
    for split, kept in (("train", searched[::2]), ("dev", searched[1::2]), ("test", sealed)):
        (folder / f"{split}.jsonl").write_text("".join(kept), "utf-8")
    (folder / "task.toml").write_text(SENTIMENT, "utf-8")
    return folder


def write_task(data: Path, folder: Path, tokens: int) -> Path:
    """Write their rows as a task: train rows in turn to train and dev, validation rows to test."""
    folder.mkdir(parents=True, exist_ok=True)
    train, sealed = (
        [json.loads(line) for line in (data / "data" / f"{split}.jsonl").read_text("utf-8").splitlines() if line]
        for split in ("train", "val")
    )
    is_math = "problem" in sealed[0]
    for split, rows in (("train", train[::2]), ("dev", train[1::2]), ("test", sealed)):
        kept = map(_problem if is_math else _invoice, rows)
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    prompt = first_prompt((data / "pipeline.py").read_text("utf-8"))
    instruction = json.dumps(prompt if is_math else f"{prompt}\n\n{RECORD}")
    toml = (TASK if is_math else INVOICES).format(name=folder.name, instruction=instruction, tokens=tokens)
    (folder / "task.toml").write_text(toml, "utf-8")
    (folder / "record.schema.json").write_text(json.dumps(FORM), "utf-8")
    return folder


def _problem(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"problem": row["problem"], "answer": f"{row['answer']:g}"}


def _invoice(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": row["text"], "record": {name: row[name] for name in FORM["required"]}}


def report(name: str, result: RunResult) -> Iterator[str]:
    """Yield our scores and sealed difference, then the published scores."""
    lift, is_kept = result.lift, result.change is None
    after = with_interval(lift.winner, lift.n)
    yield f"{result.model}: {result.trials} trials, {result.status} {result.search_ended}"
    yield f"ours, {lift.n} sealed rows: {with_interval(lift.baseline, lift.n)} -> {'kept' if is_kept else after}"
    yield f"difference: {'no other prompt was tested' if is_kept else paired_test(lift)}; {result.decision}"
    for claim in CLAIMS:
        if claim.name.startswith(name):
            before, after = (with_interval(score, claim.rows) for score in (claim.before, claim.after))
            yield f"published, {claim.model}, the {claim.rows} rows that chose: {before} -> {after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=["math", "invoices", "sentiment"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, help="folder of the task, the ledger and the run")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--tokens", type=int, default=160)
    asked = parser.parse_args()
    if asked.name is None:
        print("\n".join(lines()))
        return
    score = {"math": math_score, "invoices": invoice_score}.get(asked.name)
    if not (asked.model and asked.out and (asked.data or score is None)):
        parser.error("a rerun needs --model and --out, and --data but for sentiment")
    folder = asked.out / asked.name
    result = pa.optimize(
        write_task(asked.data, folder, asked.tokens) if score else write_sentiment(folder),
        model=asked.model,
        metric=score,
        max_calls=asked.calls,
        time_limit=60 * asked.minutes,
        anyway=True,
        db=asked.out / "ledger.db",
    )
    print("\n".join(report(asked.name, result)))


if __name__ == "__main__":
    main()
