"""What report and web page say of a run beside its scores: answers by label, what changed, replies that could not be
read, the proposer, what to type next. JSON-ready."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agent.release.result_details import LabelReport
from agent.report import answer_facts, change_facts, facts
from agent.report.excerpts import excerpts
from agent.report.next_steps import held_folder, next_steps
from agent.report.run_tables import labels, proposals
from agent.report.view import RunView

MOST_CONFUSIONS = 20


def run_details(view: RunView) -> dict[str, Any]:
    """The details of a run with a result; what its version did not write is empty."""
    result = view.result
    assert result is not None
    texts, folder = excerpts(view.history, view.run, result), held_folder(result)
    return {
        "absolute": answer_facts.in_absolute_terms(result),
        "alike": answer_facts.hardly_varied(result),
        "to_show": change_facts.to_show(result),
        "untested": facts.untested(result),
        "changes": change_facts.changes(result),
        "proposer": change_facts.proposer(result),
        "proposals": asdict(table) if (table := proposals(view)) else None,
        "labels": [{"table": asdict(labels(result, one)), **_confused(one)} for one in result.by_answer],
        "winner_name": answer_facts.winner_name(result),
        "unreadable": answer_facts.unreadable(result),
        "quotes": [asdict(reply) for reply in texts.replies],
        "quotes_of": texts.of,
        "held": str(folder) if folder else "",
        "steps": [
            asdict(step)
            for step in next_steps(
                result, view.history.path, view.promoted, texts.own_function, texts.task_words, texts.to_label
            )
        ],
    }


def _confused(report: LabelReport) -> dict[str, Any]:
    """The winner's confusion matrix and its worst confusions; none where every row is right."""
    said = answer_facts.confusions(report.winner)
    matrix = answer_facts.matrix(report)
    return {
        "matrix": None if matrix.is_clean else asdict(matrix),
        "confusions": said[:MOST_CONFUSIONS],
        "confusions_left": max(0, len(said) - MOST_CONFUSIONS),
    }
