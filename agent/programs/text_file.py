"""The kind `text_file`: one text file, such as AGENTS.md, that a command of the user's own scores row by row.

A candidate is the text of the file; the empty text is "no file", the second baseline. The command answers in place of a
model, so each run of it is a call: reserved, capped, recorded, and answered from the ledger when a run is resumed. It
runs as its author does, within limits of time and size. There is no sandbox.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from agent.errors import InputError, Problem, RowRefused, RunRefused, refuse_all
from agent.options.run import TextSource
from agent.programs.agent import AgentProgram
from agent.programs.agent_call import AgentFault, Rollout
from agent.programs.child_process import Children
from agent.programs.kinds import ReleaseSpec, WrittenRelease, program
from agent.prompt.named_texts import as_texts
from agent.redact import redact, secrets_in
from agent.safe_data import parse_data
from agent.safe_file import OutsideFile, decoded, disk_errors, new_file, sha256_of
from agent.safe_text import counted, printable, quoted
from agent.shipped import label_text
from agent.task.splits import split_rows
from agent.task.tables import DataFile
from agent.task.task_text import slug
from agent.types import (
    LM,
    Call,
    Candidate,
    Completion,
    Constraints,
    Example,
    Field,
    Message,
    MetricSpec,
    Prediction,
    Request,
    Rollouts,
    SearchSpace,
    Signature,
    Task,
    Usage,
    canonical,
    content_id,
)

NO_FILE, FILE, ROW, ROW_FILE = "no file", "{file}", "{row}", "promptassay-row.json"
FEWEST_ROWS, SHARES = 20, (0.0, 0.4, 0.6)  # of the rows none is for training
MOST_REASON = 2_000


@program("text_file", about="Your own text file, scored by a command.", takes="a text file with a command")
class TextFileProgram(AgentProgram):
    """Has the command of a task score the texts of a file."""

    is_fixed, what = True, "a text file"

    def __init__(self, task: Task, lm: LM, own: object = None, made: object = None) -> None:
        assert task.rollouts is not None
        super().__init__(task, lm)
        (self._name,) = task.texts
        self.file_name = self._name.partition(":")[2]
        self.target = self._lm = TextCommand(task.rollouts, self.file_name)

    def references(self) -> dict[str, Candidate]:
        return {NO_FILE: self.baseline().with_text(self._name, "")}

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        messages = (Message("system", self.whole(candidate)), Message("user", example.inputs["row"]))
        found, _ = read_score((await call(Request(messages, max_tokens=0, repeat=repeat))).text)
        return Prediction({"score": found.score}, f"{found.score:g}: {found.notes}", reported=found.score)

    def texts(self, candidate: Candidate) -> list[str]:
        text = as_texts(candidate).texts[self._name]
        is_cut = self.task.instruction.endswith("\n") and text and not text.endswith("\n")
        return [f"{text}\n" if is_cut else text]

    def check(self, candidate: Candidate) -> str:
        return super().check(candidate) if self.whole(candidate) else ""

    def ablations(self, candidate: Candidate, baseline: Candidate) -> dict[str, Candidate]:
        return {}

    async def write(self, candidate: Candidate, spec: ReleaseSpec) -> WrittenRelease:
        """Write texts.json and, unless no file is better, the file."""
        written = await super().write(candidate, spec)
        if text := self.whole(candidate):
            path = spec.folder / "file" / self.file_name
            with disk_errors(f"{path}: cannot be written"), new_file(path) as file:
                file.write(text.encode("utf-8", "replace"))
        return written

    async def close(self) -> None:
        await super().close()
        await self._lm.close()


class TextCommand:
    """The command as a model: a request is a text and a row, the reply what the command says of them."""

    concurrency: int | None = None

    def __init__(self, how: Rollouts, file: str) -> None:
        self._words, self._seconds, self._file, self._children = how.command, how.seconds, file, Children()
        own = [Path(word) for word in how.command if os.path.isfile(word)]  # a word may be a whole script, no path
        self.name = f"command/{printable((own or [Path(how.command[0])])[0].name)}"
        self.endpoint = content_id("e", {"words": list(how.command), "files": [sha256_of(path) for path in own]})

    async def complete(self, request: Request) -> Completion:
        with tempfile.TemporaryDirectory(prefix="promptassay-", ignore_cleanup_errors=True) as folder:
            places = {FILE: Path(folder, self._file), ROW: Path(folder, ROW_FILE)}
            for place, message in zip(places.values(), request.messages, strict=True):
                if message.content:
                    place.write_bytes(message.content.encode("utf-8", "replace"))
            try:
                words = [word.replace(FILE, str(places[FILE])).replace(ROW, str(places[ROW])) for word in self._words]
                printed = await self._children.output(words, os.environ, Path.cwd(), b"", self._seconds)
                found, usd = read_score(printed.rpartition("\n")[2])
            except AgentFault as fault:
                raise RowRefused(self._safe(f"{self.name}: {fault}; a row needs a score and exit code 0")) from None
            except (OSError, ValueError) as problem:
                raise RunRefused(f"{self.name}: cannot be started ({problem}); correct --eval") from problem
        reason = self._safe(found.notes)[:MOST_REASON]
        said = canonical({"score": found.score, "reason": reason, "cost_usd": usd})
        return Completion(said, "stop", Usage(usd=usd), self.name)

    @staticmethod
    def _safe(text: str) -> str:
        return printable(redact(text, secrets_in(os.environ)))

    def count_tokens(self, text: str) -> int:
        return -(-len(text.encode("utf-8", "replace")) // 4)

    async def close(self) -> None:
        await self._children.close()


def read_score(line: str) -> tuple[Rollout, float]:
    """Read `{"score": ..., "reason": ..., "cost_usd": ...}`: a rollout with its dollars. Raises AgentFault."""
    try:
        data = parse_data(line)
        score, usd = (data.get("score"), data.get("cost_usd") or 0) if isinstance(data, dict) else (None, 0)
        if any(isinstance(each, bool) or not isinstance(each, int | float) for each in (score, usd)) or usd < 0:
            raise ValueError('it is not {"score": 0.5, "reason": "...", "cost_usd": 0.01}')
        return Rollout(None, data.get("reason") or "", score), float(usd)
    except ValueError as problem:
        raise AgentFault(f"ended its output with {quoted(line)}, which is no score ({problem})") from None


# -- the task ----------------------------------------------------------------------------------------------------------


def text_task(path: Path, source: TextSource, seed: int, tell: Callable[[str], None]) -> Task:
    """Make the task of a text file. `tell` gets what to know of its rows. Raises InputError with all problems."""
    rows, file, words, problems = DataFile(Path(source.rows)), OutsideFile(path), list[str](), list[Problem]()
    with file.at(1):
        text = decoded(file.data, file.where)
        if not text.strip() or not path.name.isprintable():
            raise ValueError("is empty, or has a name that cannot be printed; change that")
    try:
        words = shlex.split(source.command)
        lost = [mark for mark in (FILE, ROW) if not any(mark in word for word in words)]
        problems += [Problem("--eval", f"lacks {mark}, which is replaced by a path") for mark in lost]
        if words and shutil.which(words[0]) is None:
            problems += [Problem("--eval", f"{quoted(words[0])} is no program that can be run; correct its path")]
    except ValueError as fault:
        problems += [Problem("--eval", f"{quoted(source.command)}: {fault}; quote it as in a shell")]
    refuse_all([*file.problems, *problems, *rows.problems])
    texts = [" ".join(map(label_text, row.values())) for _, row in rows.rows]
    _, *parts = split_rows(texts, [""] * len(texts), random.Random(seed), SHARES)

    def example(split: str, at: int) -> Example:
        line, row = rows.rows[at]
        return Example(f"{split}-{line}", {"row": json.dumps(row, ensure_ascii=False)}, {})

    dev, test = (tuple(example(split, at) for at in part) for split, part in zip(("dev", "test"), parts, strict=True))
    left_out = len(rows.rows) - len(dev) - len(test)
    if len(dev) + len(test) < FEWEST_ROWS:
        raise InputError(f"{rows.where}: has {len(dev) + len(test)} different rows; give {FEWEST_ROWS} or more")
    if left_out:
        tell(f"{rows.where}: {counted(left_out, 'row is', 'rows are')} left out, as others are nearly the same")
    how = Rollouts(command=tuple(words), seconds=float(source.seconds or 0), kind="text_file")
    command = TextCommand(how, path.name)
    inputs = {"dev": [dict(row.inputs) for row in dev], "test": [dict(row.inputs) for row in test], path.name: text}
    hashes = {name: hashlib.sha256(canonical(part).encode()).hexdigest() for name, part in inputs.items()}
    return Task(
        name=slug(path.stem),
        description=f"The file {path.name} is scored by {command.name}.",
        signature=Signature((Field("row"),), (Field("score", "number"),)),
        instruction=text,
        metrics=(MetricSpec("reported", "score"),),
        space=SearchSpace((), (), ()),
        constraints=Constraints(),
        train=dev,
        dev=dev,
        test=test,
        folder="",
        program=command.name,
        texts={f"file:{path.name}": text},
        rollouts=how,
        repeats=source.repeats,
        defaults={"calibrate": False},
        hashes={**hashes, "the command": command.endpoint},
    )
