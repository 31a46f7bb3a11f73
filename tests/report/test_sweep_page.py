"""The page of a sweep: its numbers, and that names, errors and instructions stay text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.report.sweep_page import best_of_task, model_names, sweep_html, write_page
from tests.report.hostile import PAYLOADS
from tests.report.pages import assert_harmless

LIFT = {"diff": 0.1, "ci95": [0.02, 0.18], "p_value": 0.01, "p_holm": 0.02, "shown": 1}


def sweep(text: str, folder: str = "runs/sweep-x") -> dict[str, Any]:
    """A sweep of two groups in which every text is this one, so that each is told from the other by its strategy."""
    model = text.replace("//", "/")  # a model is the head of a column, which an attribute repeats
    axes = {"task": text, "model": model}
    group = {**axes, "seeds": [0], "n": 60, "baseline": 0.5, "score": 0.6, "ci95": [0.5, 0.7], "lift": LIFT}
    group |= {"promoted": 1, "cost_usd": None, "instruction": text, "technique": text, "examples": 2, "release": text}
    names = [{"model": model, "strategy": strategy} for strategy in (text, None)]
    pair = {"one": names[0], "other": names[1], "p_holm": 0.5, **LIFT, "shown": 0}
    cell = {**axes, "cell": text, "state": "partial", "error": text, "run_id": None, "baseline": None, "score": None}
    return {
        "sweep": text,
        "folder": folder,
        "cells": [{**cell, "cost_usd": 0.5}],
        "groups": [{**group, **name} for name in names],
        "tasks": [{"task": text, "best": names[0], "score": 0.6, "beats": [], "not_shown": names[1:], "pairs": [pair]}],
        "cost_usd": 0.5,
        "report": None,
    }


def test_hostile_texts_of_a_sweep_stay_text() -> None:
    for payload in PAYLOADS[::7]:
        assert_harmless(sweep_html(sweep(payload, payload)))


def test_the_page_has_the_scores_and_is_its_owners(tmp_path: Path) -> None:
    path = write_page(sweep("one", str(tmp_path)))
    page = path.read_text("utf-8")
    assert path == tmp_path / "report.html"
    assert path.stat().st_mode & 0o077 == 0
    for figure in ("60.0 (50.0 to 70.0)", "+10.0 (+2.0 to +18.0)", "p = 0.02", "unknown", "$0.5000"):
        assert figure in page, figure


def test_the_best_is_named_with_what_is_shown_of_it() -> None:
    names = [{"model": f"openai/{name}@https://host/v1", "strategy": None} for name in "abc"]
    task = {"task": "t", "best": names[0], "score": 0.9, "beats": [names[1]], "not_shown": [names[2]]}
    said = best_of_task(task, model_names(names))
    assert "openai/a, task's own has the highest score, 90.0." in said
    assert "better than openai/b, task's own. Not shown to be better than openai/c, task's own." in said
    assert best_of_task({**task, "beats": [], "not_shown": []}, model_names(names)).endswith("90.0.")


def test_models_that_only_their_addresses_tell_apart_keep_them() -> None:
    one, other = (f"openai-compatible/x@http://{host}:8000/v1" for host in ("127.0.0.1", "localhost"))
    groups = [{"model": model, "strategy": None} for model in (one, other, "openai/a@https://host/v1", None)]
    assert list(model_names(groups).values()) == [one, other, "openai/a", "task's own"]
    task = {"task": "t", "best": groups[0], "score": 0.9, "beats": groups[1:2], "not_shown": []}
    assert f"better than {other}," in best_of_task(task, model_names(groups))
