"""CAPO and EvoPromptGA of promptolution, which has its own environment and is no dependency of this project.

The environment is made once, in the user's cache folder, with `pip install`; when it cannot be made, that is what the
result says. What comes back is a prompt text. promptolution sends it as "PROMPT\\nINPUT" in one user turn under its
own system message, and so does the scoring here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from agent.models.weights import cache_folder
from agent.prompt.template import escape, join
from agent.types import Example, Message, Task
from tests.bench.arena.client import base_url
from tests.bench.arena.data import right, scorer, text_field
from tests.bench.arena.systems.base import Found, TemplatePrompt, most_examples, reply_tokens

REQUIREMENT = "promptolution==2.3.0"
SCRIPT = Path(__file__).with_name("promptolution_script.py")
SYSTEM = "You are a helpful assistant."
DEV_ROWS = 60
REPLY_TOKENS = 96
PROPOSAL_TOKENS = 1024
SHOTS = 5  # CAPO's own default


def capo(task: Task, url: str, budget: int, seed: int) -> Found:
    return _run("capo", task, url, budget, seed)


def evoprompt(task: Task, url: str, budget: int, seed: int) -> Found:
    return _run("evopromptga", task, url, budget, seed)


def environment() -> Path:
    """The Python of promptolution's environment, which is there after `install`."""
    return cache_folder() / "arena-promptolution" / "bin" / "python"


def install() -> Path:
    """Makes the environment unless it is there. Raises CalledProcessError when pip cannot get the packages."""
    python = environment()
    done = python.parent / REQUIREMENT
    if not done.is_file():
        venv.create(python.parents[1], with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT]
        subprocess.run(command, check=True)
        done.touch()
    return python


def _run(optimizer: str, task: Task, url: str, budget: int, seed: int) -> Found:
    python = environment()
    if not python.is_file():
        raise RuntimeError(f"{python}: promptolution is not installed")
    score = scorer(task)
    job = {
        "optimizer": optimizer,
        "instruction": task.instruction,
        "answers": score.answers,
        "labels": score.labels,
        "dev": _table(task, task.dev[:DEV_ROWS]),
        "train": _table(task, task.train),
        "task_url": base_url(url, "task"),
        "proposer_url": base_url(url, "proposer"),
        "reply_tokens": reply_tokens(task, REPLY_TOKENS),
        "proposal_tokens": PROPOSAL_TOKENS,
        "shots": most_examples(task, SHOTS),
        "budget": budget,
        "seed": seed,
    }
    done = subprocess.run(
        [str(python), str(SCRIPT)], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise RuntimeError(f"promptolution: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Found(_prompt(task, found["prompt"]), note=found["note"], facts=found["facts"])


def _table(task: Task, rows: tuple[Example, ...]) -> list[list[str]]:
    return [[row.inputs[text_field(task)], label] for row, label in zip(rows, right(task, rows), strict=True)]


def _prompt(task: Task, prompt: str) -> TemplatePrompt:
    names = [text_field(task)]
    turn = join([f"{prompt}\n", (names[0],)], names)
    messages = (Message("system", escape(SYSTEM, names)), Message("user", turn))
    return TemplatePrompt(prompt, messages, reply_tokens(task, REPLY_TOKENS))
