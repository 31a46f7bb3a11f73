"""A task without labels: rows of four topics, a model that drafts and answers, and a person who knows the topics."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.jobs.label import keys_of
from agent.report.web.labelling_pages import LabelPlace
from agent.task.label_files import LabelledTask, rows_text, unlabelled_rows
from agent.task.label_session import queue_of
from tests.cli.world import TOPICS, WORD, compatible, good, learner, write_csv
from tests.wire import WireServer

DESCRIPTION = "Sort messages of customers into billing, delivery, account or repair."
MEANINGS = {
    "billing": "Money that was paid or is due.",
    "delivery": "A parcel on its way to the customer.",
    "account": "Signing in and personal settings.",
    "repair": "Something that does not work any more.",
}


def drafter(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Drafts as a small model does: it first repeats the request for a definition; all else it answers as `learner`."""
    system, asked = messages[0]["content"], messages[-1]["content"]
    if "set up a text classifier" not in system:
        return learner(messages, body)
    if "Which labels" in asked:
        return "Billing, delivery, account, repair, and other"
    if label := re.search(r"labelled (\w+), and not another|labelled (\w+)\.$", asked):
        name = label[1] or label[2]
        return DESCRIPTION if label[1] == "billing" else MEANINGS[name]
    if "one sentence that tells an assistant" in asked:
        return "Decide which department handles the message. It has four."
    label = re.search(r"^Label: (\w+)", asked, re.MULTILINE)
    assert label, asked
    topic, number = TOPICS[label[1]].split(), body["seed"]
    return f"please help with my {topic[number % 10]} and the {topic[(number // 1000) % 10]} number {number}"


def topic_of(text: str) -> str:
    """What a person would say."""
    words = WORD.findall(text)
    return max(TOPICS, key=lambda topic: sum(word in TOPICS[topic].split() for word in words))


def write_unlabelled(path: Path, count: int = 60) -> Path:
    """The texts of `write_csv`, a row a line."""
    rows = write_csv(path.with_suffix(".csv"), count).read_text("utf-8").splitlines()[1:]
    path.write_text("".join(f"{row.split(',')[1]}\n" for row in rows), "utf-8")
    return path


def write_label_task(folder: Path, count: int = 60) -> None:
    """The task `mails` as it is drafted, without a model."""
    folder.mkdir(parents=True)
    meanings = "\n".join(f"- {label}: {about}" for label, about in MEANINGS.items())
    head = f'name = "mails"\ndescription = "{DESCRIPTION}"\nsignature = "text -> label"\n'
    body = f'instruction = """\nName the department.\n{meanings}"""\n\n[fields.label]\ntype = "choice"\n'
    (folder / "task.toml").write_text(f"{head}{body}choices = {json.dumps(list(MEANINGS))}\n", "utf-8")
    texts = write_unlabelled(folder / "mails.txt", count).read_text("utf-8").splitlines()
    rows = unlabelled_rows([({"text": text}, f"mails.txt:{line}") for line, text in enumerate(texts, start=1)])
    (folder / "unlabelled.jsonl").write_text(rows_text(rows), "utf-8")


def label_place(folder: Path) -> LabelPlace:
    """What `optimize label --web` shows of this task."""
    task = LabelledTask(folder)
    return LabelPlace(task, keys_of(task.choices), "ann", queue_of(task), 10)


def drafted(server: WireServer, *more: str | Path) -> str:
    """What `optimize init` says of the task `mails` that it drafts out of 60 rows."""
    write_unlabelled(Path("mails.txt"))
    words = ["init", "mails", "--describe", DESCRIPTION, "--from", "mails.txt", "-m", compatible(server)]
    return good(*words, "--price", "1,2", "-q", *more)


def keys(labels: Mapping[str, str], screen: str) -> str:
    """The key for the last row on the screen; `labels` by key."""
    text = screen.rpartition("\ntext: ")[2].partition("\n")[0]
    return next(key for key, label in labels.items() if label == topic_of(text))
