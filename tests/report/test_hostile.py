"""Texts of rows, answers, names, labels and reasons stay text: no markup, no control character, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.ledger.query import History
from agent.report import html as page_module
from agent.report.html import report_html, visible
from agent.report.view import RunView
from tests.report.hostile import add_runs
from tests.report.pages import Page, assert_harmless


def _plain(value: Any) -> Any:
    """Every character that could mean something to a browser as an x."""
    shown = visible(value)
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return shown
    return "".join(c if c.isalnum() or c in " .,:-_\n" else "x" for c in value)


def told(view: RunView) -> set[str]:
    """Texts of the ledger and of the result that the report shows."""
    result = view.result
    assert result is not None
    found = [view.run["task"], view.run["model"], view.run["proposer"], *view.run["tags"], *view.run["tags"].values()]
    found += [trial[key] for trial in view.trials for key in ("instruction", "operator", "reason")]
    found += [row[key] for row in view.history.rejected("evil") for key in ("operator", "rejected")]
    found += [*result.blocked, str(result.release.path), result.judges[0].why, result.ledger_head]
    found += [result.slices[0].slice, result.slices[0].groups[0].value, *(row.part for row in result.attribution)]
    for pair in view.pairs("test", view.baseline["id"], result.winner.candidate_id):  # type: ignore[index]
        found += [*pair.inputs.values(), *pair.labels.values(), (pair.two or {})["reply"]]
    return set(found)


def test_a_report_over_payloads_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    add_runs(Path("ledger.db"))
    view = RunView(History(Path("ledger.db")), "evil")
    page = assert_harmless(report_html(view))
    assert len(told(view)) > 150
    assert {text for text in told(view) if visible(text) not in page.text} == set()
    plain = page_module.environment().overlay(finalize=_plain)
    monkeypatch.setattr(page_module, "environment", lambda: plain)
    assert page.structure == Page(report_html(view)).structure


def test_a_letter_that_utf_8_cannot_encode_becomes_a_mark() -> None:
    assert visible("a\ud800b\x1b\t\n") == "a\\xd800b\\x1b\t\n"
