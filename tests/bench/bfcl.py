"""BFCL's single-turn rows: our scorer against the published answers, a model on some rows, or the rows as a task.

    python -m tests.bench.bfcl                                            # the scorer, no model
    python -m tests.bench.bfcl --model local/qwen2.5-0.5b --rows 20       # asks a model, each row with its own tools
    python -m tests.bench.bfcl --task tasks/bfcl && optimize run bfcl     # simple and multiple rows, 128 tools

The rows are those of `--data` (default ../shared/data/bfcl). Each published answer, written with its first and its last
accepted values and without what may be left out, must be right; the same with a wrong tool, without a required
argument, or with no call must be wrong. Nothing is asserted.

Source: Patil et al. 2025, "The Berkeley Function Calling Leaderboard" (v4, single turn).
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agent.metrics.tool_calls import CallOptions, tool_calls
from agent.models.model_registry import create_model
from agent.models.tool_calling import openai_tools
from agent.prompt.reply_parser import parse_reply
from agent.stats.intervals import mean_ci
from agent.task.tools import read_tools
from agent.types import Field, Message, Request, Tool, calls_schema
from tests.bench.bfcl_agent import as_schema

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "bfcl"
CATEGORIES = ("simple_python", "multiple")
INSTRUCTION = "Call the functions that do what is asked, with the arguments that it gives. Call none where none fits."
CHECK = tool_calls(CallOptions(accepted=True, ordered=True), Field("calls", "json"))
MOST_TOOLS = 128
"""Of a task: each row brings one to four."""
Row = dict[str, Any]


def rows_of(folder: Path, split: str, categories: Sequence[str]) -> list[Row]:
    """The rows of a split in these categories."""
    lines = (folder / f"{split}.jsonl").read_text("utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["category"] in categories]


def tools_of(row: Row) -> tuple[Tool, ...]:
    """The functions of a row as tools: types of JSON, names without dots, as providers take them."""
    tools, wrong = read_tools(
        [{**e, "name": plain(e["name"]), "parameters": as_schema(e["parameters"])} for e in row["functions"]]
    )
    if wrong:
        raise SystemExit(f"{row['id']}: {'; '.join(wrong)}")
    return tools


def plain(name: str) -> str:
    return name.replace(".", "_")


def wanted(row: Row) -> list[Row]:
    """The published answer: each call with the accepted values of its arguments."""
    return [{"name": plain(name), "arguments": values} for call in row["ground_truth"] for name, values in call.items()]


def right_answers(row: Row) -> Iterator[list[Row]]:
    """Answers that must be right: with the first, with the last accepted values, and with all that may be left out."""
    for place in (0, -1):
        for keep in (False, True):
            yield [
                {
                    "name": call["name"],
                    "arguments": {
                        name: plain_value([value for value in values if value != ""][place])
                        for name, values in call["arguments"].items()
                        if any(value != "" for value in values) and (keep or "" not in values)
                    },
                }
                for call in wanted(row)
            ]


def plain_value(value: Any) -> Any:
    """One accepted value; the fields of an object are lists of accepted values, too."""
    if isinstance(value, dict) and all(isinstance(each, list) for each in value.values()):
        return {name: plain_value(each[0]) for name, each in value.items() if each and each[0] != ""}
    return [plain_value(each) for each in value] if isinstance(value, list) else value


def wrong_answers(row: Row) -> Iterator[list[Row]]:
    """Answers that must be wrong."""
    right = next(right_answers(row))
    if not right:
        yield [{"name": plain(row["functions"][0]["name"]), "arguments": {}}]
        return
    yield []
    yield [{**right[0], "name": "another_function"}, *right[1:]]
    yield [*right, right[0]]
    if right[0]["arguments"]:
        first, *others = right[0]["arguments"].items()
        yield [{**right[0], "arguments": dict(others)}, *right[1:]]
        yield [{**right[0], "arguments": {**right[0]["arguments"], first[0]: "no such value"}}, *right[1:]]


def check_scorer(folder: Path) -> None:
    """Prints how many answers of each kind the scorer takes for what they are, and those that it does not."""
    every = ("simple_python", "multiple", "parallel", "irrelevance")
    counts = {"right": [0, 0], "wrong": [0, 0]}
    for split in ("train", "dev", "test"):
        for row in rows_of(folder, split, every):
            for kind, answers in (("right", right_answers(row)), ("wrong", wrong_answers(row))):
                for answer in answers:
                    value, why = CHECK(answer, wanted(row))
                    agrees = value == float(kind == "right")
                    counts[kind][0] += agrees
                    counts[kind][1] += 1
                    if not agrees:
                        print(f"{row['id']}: {kind} answer scored {value} ({why}): {json.dumps(answer)[:200]}")
    for kind, (agreed, total) in counts.items():
        print(f"{kind} answers: {agreed} of {total} scored so")


async def ask(folder: Path, name: str, rows: int) -> None:
    """Asks a model the first rows of test, each with its own tools, and prints each verdict and the mean."""
    lm = create_model(name)
    scores = []
    try:
        for row in rows_of(folder, "test", CATEGORIES)[:rows]:
            tools = tools_of(row)
            messages = (Message("system", INSTRUCTION), Message("user", row["messages"][0]["content"]))
            reply = await lm.complete(Request(messages, 300, tools=tools, timeout=600.0))
            field = Field("calls", "json", schema=calls_schema(tools))
            read = parse_reply(reply.text, (field,))
            value, why = (0.0, read.error) if read.error else CHECK(read.fields["calls"], wanted(row))
            scores.append(value or 0.0)
            print(f"{row['id']}: {value:g} {why}", flush=True)
    finally:
        await lm.close()
    mean, low, high = mean_ci(scores)
    print(f"{name}: {100 * mean:.1f} % of {len(scores)} rows right ({100 * low:.1f} to {100 * high:.1f})")


def write_task(folder: Path, data: Path) -> None:
    """Writes a task whose rows share their tools: a row that would bring one too many, or another one of a name that is
    taken, is left out."""
    tools: dict[str, Tool] = {}
    asked = set[str]()
    folder.mkdir(parents=True)
    for split, share in (("train", 0.4), ("dev", 0.7), ("test", 1.0)):
        kept = []
        for row in rows_of(data, split, CATEGORIES):
            new, request = {tool.name: tool for tool in tools_of(row)}, row["messages"][0]["content"]
            fits = request not in asked and all(tools.get(name, tool) == tool for name, tool in new.items())
            if fits and len({*tools, *new}) <= share * MOST_TOOLS:
                tools |= new
                asked.add(request)
                kept.append({"id": row["id"], "request": request, "calls": wanted(row)})
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in kept), "utf-8")
        print(f"{split}: {len(kept)} rows")
    (folder / "tools.json").write_text(json.dumps(openai_tools(list(tools.values())), indent=1), "utf-8")
    (folder / "task.toml").write_text(
        f'name = "bfcl"\ndescription = "Call the right function."\nsignature = "request -> calls"\n'
        f'instruction = "{INSTRUCTION}"\ntools = "tools.json"\n\n[fields.calls]\ntype = "json"\n'
        'schema = { type = "array" }\n\n'
        '[[metrics]]\nname = "tool_calls"\naccepted = true\nordered = true\n',
        "utf-8",
    )


def main() -> None:
    """See the head of the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model", default="")
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--task", type=Path)
    given = parser.parse_args()
    if given.task:
        write_task(given.task, given.data)
    elif given.model:
        asyncio.run(ask(given.data, given.model, given.rows))
    else:
        check_scorer(given.data)


if __name__ == "__main__":
    main()
