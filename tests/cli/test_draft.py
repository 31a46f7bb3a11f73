"""`optimize init --describe`: what comes of a draft that ends early, and what it says of replies it cannot use."""

from __future__ import annotations

from pathlib import Path

from agent.task.labelled_task import LabelledTask
from tests.cli.label_world import MEANINGS, drafted, drafter
from tests.wire import WireServer


def test_a_cap_among_the_definitions_leaves_a_task_with_those_that_there_are() -> None:
    with WireServer(drafter) as server:
        said = drafted(server, "--labels", "delivery,account", "--max-calls", "1")
    assert "the budget ended it early" in said
    assert "account: (no definition could be drafted" in said
    task = LabelledTask(Path("tasks/mails"))
    assert task.choices == ("delivery", "account")
    assert f"- delivery: {MEANINGS['delivery']}\n- account\n" in task.instruction
