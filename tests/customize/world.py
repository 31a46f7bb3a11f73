"""Rows, a prompt and a tiny model in the current folder."""

from __future__ import annotations

from pathlib import Path

from tests.cli.world import write_csv
from tests.training.tiny import speaking

MODEL = "local/tiny.gguf"


def write_world(rows: int = 120, model: str = MODEL) -> list[str]:
    """Writes rows.csv, p.txt and tiny.gguf; returns the words that name task and model."""
    write_csv(Path("rows.csv"), rows)
    Path("p.txt").write_text("Sort: {{text}}", "utf-8")
    speaking(Path("tiny.gguf"))
    return ["rows.csv", "--target", "label", "--prompt", "p.txt", "-m", model]
