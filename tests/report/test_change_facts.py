"""What changed, the proposer and the missing rows in words; nothing is said that the result does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.jobs.locations import LEDGER
from agent.release.result import RunResult
from agent.report import findings, wording
from agent.report.breakdown_blocks import confusion_table
from agent.report.next_steps import Excerpts, next_steps
from agent.report.prompt_texts import prompt_text
from agent.report.run_tables import proposals
from tests.cli.test_result import RESULT

OWN = {
    "technique": "zero-shot",
    "format": "turns",
    "n_examples": 0,
    "prompt_tokens": 30,
    "tokens_a_call": 75,
    "role": "",
}
USE = {
    "model": "a/b", "planned": 40, "asked": 3, "refused": 0, "failed": 0, "tried": 3, "finalists": 0, "won": False,
    "why_not": "",
}  # fmt: skip
NEED = {
    "gain": 0.06, "rows_needed": 310, "rows_tested": 35, "rows_there": 94, "max_calls": 540, "other_caps": [],
}  # fmt: skip


def of(**parts: Any) -> RunResult:
    return RunResult.from_json({**RESULT, **parts})


def changes(*, instruction: bool = False, keeps: bool = False, won: bool = False, **winner: Any) -> list[str]:
    change = {"winner": {**OWN, **winner}, "baseline": OWN, "instruction": instruction, "keeps": keeps}
    return findings.changes(of(change=change, proposer={**USE, "won": won}))


def test_what_changed_is_said_in_plain_words() -> None:
    assert changes(n_examples=18, format="dspy-json", tokens_a_call=310) == [
        "your instruction is unchanged",
        "18 examples were added",
        "the answers' layout is dspy-json instead of turns",
        "310 tokens a call instead of 75 (4.1x)",
    ]
    assert changes(instruction=True, won=True, tokens_a_call=76) == [
        "your instruction is replaced by one that the proposer wrote",
        "76 tokens a call instead of 75 (about the same)",
    ]
    kept = "your instruction is kept; the proposer added text to it"
    assert changes(instruction=True, keeps=True, won=True)[0] == kept
    assert changes(instruction=True, keeps=True)[0] == "your instruction is kept; text was added to it"
    assert changes(instruction=True, technique="chain-of-thought", role="You are a clerk.")[:3] == [
        "your instruction is changed",
        "it is asked to reason before it answers",
        "it is given a role",
    ]
    assert changes(tokens_a_call=0, prompt_tokens=90)[-1] == "about 90 prompt tokens instead of 30 (3.0x)"


@pytest.mark.parametrize(("decision", "form"), [("promote", " --format python -o DIR"), ("keep_baseline", "")])
def test_a_prompt_that_looks_rows_up_is_offered_in_the_form_that_can(decision: str, form: str) -> None:
    picks = {"retriever": "bm25", "k": 8, "order": "nearest-last", "diverse": False, "balanced": False, "pool": "p"}
    result = of(decision=decision, winner={**RESULT["winner"], "picks": picks})
    (command,) = [step.command for step in next_steps(result, LEDGER) if step.what == "export it for other tools"]
    assert command == f"optimize export {result.run_id}{form}"


def test_a_prompt_with_an_adapter_is_offered_in_the_form_that_holds_it(tmp_path: Path) -> None:
    (tmp_path / "adapter.gguf").write_bytes(b"")
    result = of(release=str(tmp_path / "prompt.md"))
    (command,) = [step.command for step in next_steps(result, LEDGER) if step.what == "export it for other tools"]
    assert command == f"optimize export {result.run_id} --format llama-server -o DIR"


def test_of_a_program_its_texts_are_named_and_no_instruction() -> None:
    size = {**OWN, "technique": "program", "format": "dspy"}
    change = {"winner": {**size, "n_examples": 4}, "baseline": size, "instruction": True}
    said = findings.changes(of(change=change, release="runs/x/program.json"))
    assert said[:2] == ["the prompts of your program changed", "4 examples were added"]
    steps = next_steps(of(release="runs/x/program.json"), LEDGER)
    assert [step.command.split()[1] for step in steps] == ["export", "show", "report"]


@pytest.mark.parametrize(
    ("use", "says"),
    [
        ({}, "3 of at most 40 planned calls; 3 prompts with a proposed instruction tried, none on all dev rows; "
             "the best found has none"),
        ({"finalists": 1, "won": True}, "3 of at most 40 planned calls; 3 prompts with a proposed instruction tried, "
             "1 on all dev rows; the best found has one"),
        ({"refused": 2, "failed": 1, "tried": 0}, "3 of at most 40 planned calls; 1 without a reply; 2 without a "
             "usable instruction; no prompt with a proposed instruction was tried"),
        ({"tried": None}, "3 calls; the strategy does not report the resulting prompts"),
        ({"asked": 0, "why_not": "nothing was searched"}, "not called: nothing was searched"),
    ],
)  # fmt: skip
def test_what_came_of_the_proposer(use: dict[str, Any], says: str) -> None:
    assert findings.proposer(of(proposer={**USE, **use})) == f"proposer: {says}"


def fate(number: int, operator: str, became: str, **more: Any) -> dict[str, Any]:
    return {
        "number": number, "operator": operator, "hypothesis": f"why {number}", "rows": [], "instruction": "",
        "refused": "", "parent_id": "c_1", "before": None, "after": None, "became": became, **more,
    }  # fmt: skip


def test_each_proposal_is_told_with_its_reason_its_rows_and_what_became_of_it() -> None:
    fates = [
        fate(1, "definitions", "winner", before=0.5, after=0.625),
        fate(2, "rule", "dropped", rows=["d1", "d2"], before=0.5, after=0.25),
        fate(3, "whole", "refused", refused="lost billing", hypothesis=""),
    ]
    operators = [
        {"operator": "definitions", "asked": 1, "refused": 0, "dropped": 0, "tried": 1, "finalists": 1, "points": 12.5},
        {"operator": "rule", "asked": 1, "refused": 0, "dropped": 1, "tried": 0, "finalists": 0, "points": None},
        {"operator": "whole", "asked": 1, "refused": 1, "dropped": 0, "tried": 0, "finalists": 0, "points": None},
    ]
    result = of(proposer={**USE, "won": True, "points": 9.04, "operators": operators, "proposals": fates})
    assert findings.proposer(result) == (
        "proposer: 3 of at most 40 planned calls; 1 of 3 proposals tried, 1 among the finalists, +9.0 points against "
        "the best prompt without one; the best found has one"
    )
    assert proposals(result, {2: "If new, say it"}).rows == (
        ("1", "definitions", "why 1", "all", "50.0", "62.5", "winner"),
        ("2", "rule", "why 2: If new, say it", "d1, d2", "50.0", "25.0", "dropped"),
        ("3", "whole", "-", "all", "-", "-", "refused: lost billing"),
    )
    assert proposals(None, {}).rows == proposals(of(), {}).rows == ()


@pytest.mark.parametrize(
    ("need", "says"),
    [
        ({}, "a gain of 6.0 points needs about 310 test rows for 80 % power; 35 of 94 were within budget: "
             "--max-calls 540; then add rows"),
        ({"rows_there": 400, "max_calls": 1780, "other_caps": ["--max-cost"]}, "a gain of 6.0 points needs about 310 "
             "test rows for 80 % power; 35 of 400 were within budget: --max-calls 1780, and more of --max-cost"),
        ({"rows_tested": 94, "max_calls": None}, "a gain of 6.0 points needs about 310 test rows for 80 % power; "
             "there are 94: add rows to the test split"),
        ({"rows_needed": None, "rows_tested": 94, "max_calls": None}, "a gain of 6.0 points is too small for any "
             "number of test rows; there are 94: add rows to the test split"),
    ],
)  # fmt: skip
def test_what_would_show_the_gain(need: dict[str, Any], says: str) -> None:
    assert findings.to_show(of(to_show={**NEED, **need})) == says


def test_more_calls_are_offered_only_where_a_command_can_start_the_run_again() -> None:
    result = of(to_show={**NEED, "other_caps": ["--max-tokens"]}, decision="keep_baseline", blocked=["not shown"])
    first = next_steps(result, LEDGER)[0]
    assert first.command == f"optimize resume {result.run_id} --fork --max-calls 540 --max-tokens MORE"
    assert not any("resume" in step.command for step in next_steps(result, LEDGER, texts=Excerpts(own_function=True)))


def test_rows_without_a_label_are_offered_where_no_gain_was_shown() -> None:
    undecided = of(decision="keep_baseline", blocked=["not shown"])
    steps = next_steps(undecided, LEDGER, texts=Excerpts(task_words="'my mails' -m m", to_label=70))
    assert [step.command for step in steps if "label" in step.command] == ["optimize label 'my mails' --count 20"]
    (few,) = [
        each
        for each in next_steps(undecided, LEDGER, texts=Excerpts(task_words="mails", to_label=7))
        if "label" in each.command
    ]
    assert (few.what, few.command) == ("label the 7 rows that help most", "optimize label mails --count 7")
    for result, words, left in ((undecided, "mails", 0), (undecided, "", 70), (of(decision="promote"), "mails", 70)):
        made = next_steps(result, LEDGER, texts=Excerpts(task_words=words, to_label=left))
        assert not any("optimize label" in step.command for step in made)


def counts(right: int, wrong: int, partly: int = 0) -> RunResult:
    count = {"right": right, "partly": partly, "wrong": wrong, "unscored": 0, "unreadable": 0, "unreadable_rows": []}
    return of(answers={"winner": count, "baseline": count})


def test_rows_that_are_not_right_are_counted_and_said_as_a_plain_ratio() -> None:
    def words(result: RunResult) -> str:
        return findings.in_absolute_terms(result)

    assert words(counts(39, 121)) == "the best found gets 78.0 of 100; still wrong on 121 of 160 rows (about 3 of 4)"
    assert words(counts(20, 20)).endswith("still wrong on 20 of 40 rows (about 1 of 2)")
    assert words(counts(159, 1)).endswith("still wrong on 1 of 160 rows")
    assert words(counts(40, 0)).endswith("right on all 40 rows")
    assert words(counts(4, 1, partly=35)).endswith("short of full marks on 36 of 40 rows (about 9 of 10)")
    assert words(of()) == "", "of an older version"
    assert words(of(human_score=0.93)) == "the best found gets 78.0 of 100; people: 93.0 (according to the task)"


def test_a_large_matrix_shows_the_labels_that_lost_most() -> None:
    names = [f"l{at}" for at in range(77)]
    scores = [{"label": n, "support": 3, "said": 3, "right": 3, "precision": 1.0, "recall": 1.0} for n in names]
    cells = [{"label": name, "said": name, "rows": 3} for name in names[2:]]
    cells += [{"label": "l0", "said": "l5", "rows": 3}, {"label": "l1", "said": "l1", "rows": 2}]
    cells += [{"label": "l1", "said": None, "rows": 1}]
    side = {"scores": scores, "cells": cells}
    (report,) = of(labels=[{"field": "x", "labels": names, "winner": side, "baseline": side}]).labels
    made = confusion_table(report, "it")
    assert made is not None
    assert [column.name for column in made.columns] == ["right answer", "l1", "l5", "unreadable", "all"]
    assert made.rows == (("l0", ".", "3", ".", "3"), ("l1", "2", ".", "1", "3"))
    assert made.shades[0] == ("", "", "lost-4", "", "")
    assert "75 more are left out" in made.note


@pytest.mark.parametrize(("picks", "mark"), [(None, []), ({"k": 2}, ["[user]", "{{picked examples}}"])])
def test_fixed_demos_alone_are_left_out_of_a_prompt(picks: dict[str, Any] | None, mark: list[str]) -> None:
    """Of a prompt that also picks, the place of the picked ones stands between them and the input."""
    turns = [("system", "Pick."), ("user", "one"), ("assistant", "a"), ("user", "two"), ("assistant", "b")]
    turns += [("user", "{{picked examples}}")] if picks else []
    template = [{"role": role, "content": content} for role, content in [*turns, ("user", "{{text}}")]]
    said = prompt_text({"template": template, "format": "turns", "demos": [{}, {}], "picks": picks})
    assert said.split("\n") == ["[system]", "Pick.", "(2 examples)", *mark, "[user]", "{{text}}"]


def test_a_run_that_is_no_search_is_called_so() -> None:
    row = {"result": {"kind": "judge_calibration"}, "result_hash": "h", "status": "complete", "error": ""}
    assert wording.without_result(row) == "not a search (judge calibration)"
    assert wording.without_result({**row, "result": None}) == "its result was erased"


@pytest.mark.parametrize(
    ("readable", "different", "right", "said"),
    [
        (17, 2, 9, "the best found gave 2 different answers on 17 rows (your rows have 9)"),
        (160, 1, 2, "the best found gave the same answer on 160 rows (your rows have 2)"),
        (160, 3, 8, ""),
        (40, 1, 1, ""),
        (4, 1, 4, ""),
        (0, 0, 0, ""),
    ],
)
def test_answers_that_hardly_vary_are_told_of_and_others_are_not(
    readable: int, different: int, right: int, said: str
) -> None:
    counts = {"right": 0, "readable": readable, "different": different, "different_right": right}
    assert findings.hardly_varied(of(answers={"winner": counts, "baseline": {}})) == said
