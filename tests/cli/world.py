"""A small world for the command line: rows with something to learn, a model behind a socket, and the command itself."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
import tomllib
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from agent.cli import main
from agent.release.runtime import Prompt
from tests.schemas import require_schema
from tests.wire import Fault, WireServer

TOPICS = {
    "billing": "invoice receipt vat charge statement amount bank ledger payment due",
    "delivery": "parcel courier van doorstep tracking depot box shipment late address",
    "account": "password login username email profile reset verification locked settings avatar",
    "repair": "screen cracked battery noise broken button hinge leaking faulty overheats",
}
WORD = re.compile(r"\w+")
FILLER = WORD.findall(
    "please help with my thing since monday because nobody answers at all and i would like some advice today thanks "
    "again hello there we are still waiting for good news from you about this matter here in town"
)
INSTRUCTION = "Read the message. Answer with one of: billing, delivery, account, repair."
UNSURE = "I am not sure"
LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")
"""What one line of output may hold: no control character at all."""

Answer = Callable[[list[dict[str, Any]], dict[str, Any]], str | Fault]


def write_csv(path: Path, count: int = 360, seed: int = 5) -> Path:
    """Rows of `id,text,label`: three words of a topic among filler."""
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "text", "label"])
        for number in range(count):
            label = list(TOPICS)[number % len(TOPICS)]
            words = rng.sample(TOPICS[label].split(), 3) + rng.sample(FILLER, 9)
            rng.shuffle(words)
            table.writerow([f"r{number}", " ".join(words), label])
    return path


def write_lines(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A .jsonl file with these rows."""
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_task(toml: str, splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """The folder of a task under its own name, with these rows."""
    folder = Path(tomllib.loads(toml)["name"])
    folder.mkdir()
    (folder / "task.toml").write_text(toml)
    for split, rows in splits.items():
        write_lines(folder / f"{split}.jsonl", rows)


def files(count: int = 360) -> list[str]:
    """Writes rows.csv and p.txt here; returns the start of the command that runs them."""
    write_csv(Path("rows.csv"), count)
    Path("p.txt").write_text(INSTRUCTION, "utf-8")
    return ["run", "rows.csv", "--target", "label", "--prompt", "p.txt"]


def learner(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Answer as the example that shares most words with the last user turn; without examples, one word only."""
    if "improve the instruction" in messages[0]["content"]:
        return f"<instruction>{_proposal(messages)}</instruction>"
    if "describe texts" in messages[0]["content"]:
        return _definition(messages)
    words = set(WORD.findall(messages[-1]["content"].lower())) - set(FILLER)
    best, answer = 0, UNSURE
    for user, assistant in pairwise(messages):
        if user["role"] == "user" and assistant["role"] == "assistant":
            shared = len(words & set(WORD.findall(user["content"].lower())))
            if shared > best:
                best, answer = shared, assistant["content"]
    return "billing" if answer == UNSURE and "invoice" in words else answer


def _proposal(messages: list[dict[str, Any]]) -> str:
    tag = hashlib.sha256(messages[-1]["content"].encode()).hexdigest()[:6]
    return f"Decide which department handles the note (edition {tag}). Answer with one of {', '.join(TOPICS)} only."


def _definition(messages: list[dict[str, Any]]) -> str:
    """What the shown texts are about: the words of a topic that they hold."""
    words = Counter(WORD.findall(messages[-1]["content"].lower()))
    topic = max(TOPICS.values(), key=lambda known: sum(words[word] for word in known.split()))
    said = [word for word, _ in words.most_common() if word in topic.split()]
    return f"Texts about {', '.join(said[:4])}."


def knowing(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Right whatever the prompt: nothing is left to win."""
    words = WORD.findall(messages[-1]["content"].lower())
    return max(TOPICS, key=lambda topic: sum(word in TOPICS[topic].split() for word in words[-12:]))


def stubborn(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Says the same whatever the prompt: nothing can be found."""
    return "billing"


def optimize(*arguments: str | Path) -> Result:
    """The command, in this process; a traceback of it is a failure of the test."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return result


def good(*arguments: str | Path) -> str:
    """stdout of a command that must end with exit code 0."""
    result = optimize(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def good_json(*arguments: str | Path) -> dict[str, Any]:
    found = json.loads(good(*arguments, "--json"))
    assert isinstance(found, dict)
    require_schema(tuple(map(str, arguments)), found)
    return found


def refused(code: int, *arguments: str | Path) -> list[str]:
    """The lines of stderr of a command that must end with `code` and print nothing else."""
    result = optimize(*arguments)
    assert result.exit_code == code, (result.exit_code, result.output)
    assert result.stdout == ""
    return result.stderr.splitlines()


def compatible(server: WireServer) -> str:
    return f"openai-compatible/x@{server.url}"


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """One request with nothing but the standard library."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as reply:
        found = json.load(reply)
    assert isinstance(found, dict)
    return found


def scores_by_hand(server: WireServer, prompt: Prompt, rows: Sequence[Any], name: str, anthropic: bool) -> list[float]:
    """What a program gets that renders each row with the released prompt, sends it and reads the reply."""
    scores = []
    for row in rows:
        messages = prompt.render(**row.inputs)
        body: dict[str, Any] = {"model": name, **prompt.parameters}
        if anthropic:
            system = [m["content"] for m in messages if m["role"] == "system"]
            turns = [m for m in messages if m["role"] != "system"]
            reply = post(f"{server.root}/v1/messages", body | {"system": "\n\n".join(system), "messages": turns})
            text = "".join(block["text"] for block in reply["content"])
        else:
            reply = post(f"{server.url}/chat/completions", body | {"messages": messages})
            text = reply["choices"][0]["message"]["content"]
        predicted = prompt.parse(text).fields
        scores.append(float(all(predicted.get(key) == label for key, label in row.labels.items())))
    return scores
