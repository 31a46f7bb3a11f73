"""`optimize init --describe`: what comes of a draft that ends early, and what it says of replies it cannot use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.task.label_files import LabelledTask
from tests.cli.label_world import DESCRIPTION, MEANINGS, drafted, drafter
from tests.cli.world import refused
from tests.wire import WireServer


def test_a_cap_among_the_definitions_leaves_a_task_with_those_that_there_are() -> None:
    with WireServer(drafter) as server:
        said = drafted(server, "--labels", "delivery,account", "--max-calls", "1")
    assert "the budget ended it early" in said
    assert "account: (no definition could be drafted" in said
    task = LabelledTask(Path("tasks/mails"))
    assert task.choices == ("delivery", "account")
    assert f"- delivery: {MEANINGS['delivery']}\n- account\n" in task.instruction


def test_a_file_without_labels_is_told_of_describe() -> None:
    Path("un.csv").write_text("text\nwhere is my parcel\n", "utf-8")
    (line,) = refused(2, "init", "mails", "--from", "un.csv")
    assert "--target COLUMN; where none holds the answers" in line
    assert "`optimize init mails --describe TEXT --from un.csv`" in line


def test_equal_reasons_of_replies_that_cannot_be_used_are_said_once() -> None:
    def repeats(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        return DESCRIPTION if "In one sentence" in messages[-1]["content"] else drafter(messages, body)

    with WireServer(repeats) as server:
        said = drafted(server)
    assert "replies that could not be used: 4 (repeats the description of the task, 4 times)" in said
