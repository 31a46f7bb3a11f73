"""`kill -9` of runs whose agent makes two calls a row in child processes: nothing lost, bought twice or left behind."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.chaos.books import DOLLARS_IN, DOLLARS_OUT, Books, broken_promises, differences
from tests.chaos.command import PATIENCE, Command, Ended
from tests.chaos.harness import MAX_COST, Campaign, Folder, Provider, Row
from tests.cli.world import TOPICS

KILLS = 40
AT_ONCE = 4
"""Rollouts and processes at once."""
BEGINNING = 1.0
"""Seconds from a start to its kill, at most, for a quarter of the kills."""
FURTHER = 50
"""Requests from a start to its kill, at most, for the others."""
OPTIONS = ("--effort", "quick", "--trials", "2")
SAY = """
import http.client, json
from urllib.parse import urlsplit

def say(model, system, text):
    address = urlsplit(model.url)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    head = {"Authorization": f"Bearer {model.key}", "Content-Type": "application/json"}
    body = json.dumps({"model": model.name, "messages": messages})
    connection.request("POST", address.path + "/chat/completions", body, head)
    reply = connection.getresponse()
    data = json.loads(reply.read())
    connection.close()
    if reply.status != 200:
        raise RuntimeError(data["error"]["message"])
    return data["choices"][0]["message"]["content"]
"""
"""How an agent asks its model without an SDK, which a process takes a second to import."""
AGENT = f"""{SAY}
import zlib

TOPICS = {json.dumps(TOPICS)}

def run(texts, row, model):
    gist = say(model, texts["reader"], row["text"])
    said = say(model, texts["router"], f"{{gist}}: {{row['text']}}")
    found = [label for label, known in TOPICS.items() if set(known.split()) & set(row["text"].split())]
    is_right = "edition" in texts["router"] and zlib.crc32(f"{{texts}}{{row}}".encode()) % 16
    return {{"label": found[0] if is_right else said}}
"""
TASK = f"""
name = "notes"
description = "Route a note to a department."
signature = "text -> label"
program = {{ run = "agent.py:run", at_once = {AT_ONCE} }}
[texts]
reader = "Say in one word what the note is about."
router = "Answer with one of: {", ".join(TOPICS)}."
[fields.label]
type = "choice"
choices = {json.dumps(list(TOPICS))}
"""


class AgentFolder(Folder):
    """The folder of a scenario, with a task whose program is an agent."""

    def __init__(self, campaign: Campaign, number: int) -> None:
        super().__init__(campaign, campaign.path / f"agents-{number}", 36)
        task = self.path / "notes"
        task.mkdir()
        with (self.path / "rows.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for at, split in enumerate(("train", "dev", "test")):
            (task / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[at::3]), "utf-8")
        (task / "task.toml").write_text(TASK, "utf-8")
        (task / "agent.py").write_text(AGENT, "utf-8")

    def run(self, url: str, *options: str, **how: Any) -> Command:
        capped = ("--price", f"{DOLLARS_IN},{DOLLARS_OUT}", "--max-cost", str(MAX_COST))
        return self.start("run", "notes", "-m", f"openai-compatible/x@{url}", "--db", self.db, *capped, *options, **how)

    def left(self) -> list[str]:
        """The processes that still work in the folder of the task, after they had their time to end."""
        deadline = time.monotonic() + PATIENCE
        while (found := self._working()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    def _working(self) -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.readlink(process / "cwd") == str(self.path / "notes"):
                    found.append(process.name)
        return found


def kills(c: Campaign) -> Row:
    """Kill a run again and again until there were enough kills; each run ends as an undisturbed one."""
    rng, wanted, killed, runs, most = c.rng("agents"), c.times(KILLS), 0, 0, 0
    broken: list[str] = []
    with c.provider("agents", latency=0.02, jitter=0.03) as server:
        whole = AgentFolder(c, 0)
        ended = whole.run(server.url, *OPTIONS).wait()
        expected = whole.books()
        if ended.code or (wrong := broken_promises(expected, server.bill())):
            raise RuntimeError(f"the undisturbed run failed: {ended.err[-500:] if ended.code else wrong}")
        while killed < wanted and not broken:
            runs += 1
            server.reset()
            folder = AgentFolder(c, runs)
            books: Books | None = None
            while books is None or not books.results:
                command = folder.again(*OPTIONS, url=server.url)
                ended = _struck(server, command, rng) if killed < wanted else command.wait()
                killed += ended.code == -signal.SIGKILL
                broken += [f"process {process} is left" for process in folder.left()]
                before, books = books, folder.books()
                most = max(most, len(books.in_state("reserved", "sent")))
                broken += broken_promises(books, server.bill(), before, MAX_COST)
                if ended.code not in (0, -signal.SIGKILL):
                    broken.append(f"exit {ended.code}: {ended.err[-500:]}")
                    break
            broken += differences(books, expected)
    broken += [f"{most} unknown outcomes after one kill"] if most > AT_ONCE else []
    happened = f"{runs} runs of {len(expected.in_state('ok'))} calls, at most {most} unknown outcomes a kill"
    promised = f"0 settled calls bought again, <= {AT_ONCE} unknown a kill, no process left, the same result"
    return Row("kill -9 of agents", killed, promised, happened, tuple(broken))


def _struck(server: Provider, command: Command, rng: random.Random) -> Ended:
    if rng.random() < 0.25:
        time.sleep(rng.uniform(0.0, BEGINNING))
    else:
        server.further(command, server.requests() + rng.randint(1, FURTHER))
    return command.poll() or command.kill()
