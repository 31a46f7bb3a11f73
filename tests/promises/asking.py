"""Every job that asks models as one command over the recorded world, and the scripted model that counts its calls.

A new job that asks models needs a line in CASES; then all promises of this folder are checked for it.
"""

from __future__ import annotations

import shlex
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from agent.jobs import JOBS
from agent.task.label_files import LabelledTask
from tests.cli.judges import PlantedJudge
from tests.cli.label_world import drafter, topic_of, write_label_task
from tests.cli.text_world import COMMAND
from tests.cli.world import optimize
from tests.snapshots import world as recorded

DATA = "rows.csv --target label --prompt p.txt"
TEXT_COMMAND = COMMAND.replace("{", "{{").replace("}", "}}")
CASES: Mapping[str, str] = {
    "run": f"run {DATA} -m toy/asked --max-calls 120 --proposer none",
    "resume": "resume {interrupted}",
    "migrate": "migrate {search} -m toy/asked --max-calls 100 --margin 10",
    "transfer": "transfer {search} --models toy/asked --top 2",
    "text": f"text AGENTS.md --rows rows.jsonl --eval '{TEXT_COMMAND}' --proposer toy/asked --max-runs 150",
    "apply": "apply rows@production more.csv -o out.csv -m toy/asked",
    "check": "check rows@production -m toy/asked --repeats 2",
    "bless": "bless rows@production -m toy/asked --reason again --repeats 2",
    "customize": f"customize {DATA} -m toy/asked --max-calls 150 --proposer none --arms best,no-model",
    "judge calibrate": "judge calibrate --labels ratings.jsonl --input question --output answer --judge toy/asked",
    "judge tune": "judge tune --labels rated.jsonl --input question --output answer --judge toy/asked --proposer none "
    "--max-calls 700",
    "init": "init letters --describe 'Sort messages of customers.' --from mails.txt -m toy/asked "
    "--labels billing,delivery,account,repair",
    "label": "label mails --ask --max-calls 60",
}
"""By job what is typed; {NAME} is a recorded run."""
EXEMPT = {"demo": "a run over replies that ship with the package: nothing is asked or paid"}
"""Jobs that ask models and are not checked, with the reason."""
LABELLED = 60


def asks(name: str) -> bool:
    """Whether a job asks models; `sweep` asks through the runs that it starts as processes."""
    return JOBS.get(name).makes_work


def has(name: str, option: str) -> bool:
    return any(option in model.declared() for model in JOBS.get(name).models.values())


class Asked:
    """The scripted model: counts its calls and tokens in a file, so that those of a killed process count, too.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._judge = PlantedJudge()
        self.on_call: Callable[[int], None] = lambda number: None
        """Called with the number of each call before it is answered."""
        path.write_text("", "utf-8")

    def __call__(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        is_judge = "strict and fair judge" in messages[0]["content"]
        text = self._judge(messages, body) if is_judge else drafter(messages, body)
        assert isinstance(text, str)
        asked = sum(len(message["content"].split()) for message in messages)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{asked} {len(text.split())}\n")
        self.on_call(self.calls)
        return text

    def _lines(self) -> list[tuple[int, int]]:
        found = (line.split() for line in self._path.read_text("utf-8").splitlines())
        return [(int(asked), int(answered)) for asked, answered in found]

    @property
    def calls(self) -> int:
        return len(self._lines())

    @property
    def tokens(self) -> int:
        return sum(asked + answered for asked, answered in self._lines())

    @property
    def usd(self) -> float:
        """At `--price 1,2`."""
        return sum(asked + 2 * answered for asked, answered in self._lines()) / 1e6


def prepare(folder: Path) -> None:
    """Unpack the recorded world, and add rows to ask about and a task that is half labelled."""
    recorded.unpack(folder)
    with recorded.surroundings(folder):
        Path("more.csv").write_text("text\n" + "".join(f"invoice number {n}\n" for n in range(40)), "utf-8")
        shutil.copy("tasks/mails/mails.txt", "mails.txt")
        shutil.rmtree("tasks/mails")
        write_label_task(Path("tasks/mails"), LABELLED + 20)
        task = LabelledTask(Path("tasks/mails"))
        task.label_confirmed([(row.id, topic_of(row.inputs["text"])) for row in task.rows[:LABELLED]], "ann")
        task.write_splits()
        done = optimize(*shlex.split("run mails -m toy/learner --max-calls 90 --proposer none -q --price 1,2"))
        assert done.exit_code == 0, done.output


@contextmanager
def answered_by(model: Callable[[list[dict[str, Any]], dict[str, Any]], str], folder: Path) -> Iterator[None]:
    """`folder` as the current one; every model in it is the scripted one."""
    with recorded.surroundings(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "REPLIES", defaultdict(lambda: model))
        yield


@contextmanager
def fresh(world: Path, folder: Path) -> Iterator[Asked]:
    """A copy of the prepared world as the current folder; every model in it is the counted one."""
    shutil.copytree(world, folder)
    asked = Asked(folder.with_name(f"{folder.name}.calls"))
    with answered_by(asked, folder):
        yield asked


def words_of(name: str, *more: str, is_paid: bool = True, in_turn: bool = False) -> list[str]:
    """The command of a job in the current world, with a price where one may be given."""
    words = shlex.split(CASES[name].format(**recorded.names_in(Path())))
    priced = ["--price", "1,2"] if is_paid and has(name, "price") else []
    return [*words, "-q", *priced, *(["--max-concurrency", "1"] if in_turn else []), *more]


def typed(name: str, *more: str, is_paid: bool = True, in_turn: bool = False) -> Result:
    return optimize(*words_of(name, *more, is_paid=is_paid, in_turn=in_turn))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, byte for byte, but what SQLite keeps next to a database that is open."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
