"""Prompt optimizers against each other.

    python -m tests.bench.arena [--sets trec,banking8] [--systems ours,random] [--seeds 3] [--quick] [--report-only]

Results go to results.jsonl next to this file, one line per run; a bench that was killed continues. At the end, and with
--report-only, RESULTS.md and score-by-calls.svg are written next to it and the report is printed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from agent.models.model_registry import DEFAULT_MODEL
from tests.bench.arena import results
from tests.bench.arena.bench import Arena, run_all, schedule
from tests.bench.arena.data import MORE_SETS, ROOT, SETS, data_folder, known
from tests.bench.arena.report import write_report
from tests.bench.arena.systems import ALL, QUICK, SYSTEMS
from tests.bench.arena.weights import PARTED, gguf, label

QUICK_SETS = ("trec", "snips")
QUICK_FILE = ROOT / "runs" / "arena-quick" / "results.jsonl"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.arena", description=(__doc__ or "").splitlines()[0])
    names = ", ".join((*SETS, *MORE_SETS))
    parser.add_argument("--sets", help=f"with commas, of {names}; a name with :N has at most N demos; the first five")
    parser.add_argument("--systems", help=f"with commas, of {', '.join(SYSTEMS)}; all without it")
    parser.add_argument("--seeds", type=int, help="runs of ours and of random search; 3 without it. Others run once")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"{DEFAULT_MODEL}, {', '.join(PARTED)} or a GGUF file")
    parser.add_argument("--proposer", help="another model that proposes; else the model itself")
    parser.add_argument("--data", help="the folder of the rows; else ARENA_DATA, else ../shared/data")
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="MIN", help="minutes for one search")
    parser.add_argument("--steps", type=int, help="incumbents of a run that are scored on test; 4, or 0 with --quick")
    parser.add_argument("--rows", type=int, default=0, help="cut dev and test to so many rows, to try things out")
    parser.add_argument("--budget", type=int, help="calls of search for every system, to try things out")
    parser.add_argument("--results", type=Path, help="the file of results; RESULTS.md and the chart go beside it")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="trec and snips, 300 calls, one seed, DSPy on the first of them: under 20 minutes; results go to "
        "runs/arena-quick",
    )
    parser.add_argument("--replies", type=Path, help="keep replies in this file, so that no request is computed twice")
    parser.add_argument("--fresh", action="store_true", help="forget the results of these runs and make them again")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    given = parser.parse_args(words)
    given.systems = chosen(parser, given.systems, SYSTEMS, QUICK if given.quick else ALL)
    given.sets = given.sets.split(",") if given.sets else list(QUICK_SETS if given.quick else SETS)
    if unknown := [name for name in given.sets if not known(name)]:
        parser.error(f"{unknown[0]}: not one of {names}")
    given.seeds = given.seeds or (1 if given.quick else 3)
    given.steps = (0 if given.quick else 4) if given.steps is None else given.steps
    given.results = given.results or (QUICK_FILE if given.quick else results.FILE)
    return given


def chosen(parser: argparse.ArgumentParser, text: str | None, known: object, default: object) -> list[str]:
    names = text.split(",") if text else list(default)  # type: ignore[call-overload]
    if unknown := [name for name in names if name not in known]:  # type: ignore[operator]
        parser.error(f"{unknown[0]}: not one of {', '.join(known)}")  # type: ignore[call-overload]
    return names


def main() -> None:
    given = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not given.report_only:
        model = label(given.model) + (f" + {label(given.proposer)}" if given.proposer else "")
        wanted = schedule(given.systems, given.sets, given.seeds, model, given.rows)
        if given.quick:
            wanted = [one for one in wanted if one[1] == given.sets[0] or not SYSTEMS[one[0]].slow]
        if given.budget:
            wanted = [(s, n, m, given.budget if b else 0, seed, rows) for s, n, m, b, seed, rows in wanted]
        if given.fresh:
            results.forget(wanted, given.results)
        arena = Arena(
            model, data_folder(given.data), 60 * given.time_limit, given.steps, given.rows, given.results, given.replies
        )
        try:
            proposer = gguf(given.proposer, say) if given.proposer else None
            run_all(arena, wanted, gguf(given.model, say), say, proposer)
        except KeyboardInterrupt:
            say("arena: stopped; the same command goes on from here")
    write_report(results.read(given.results), given.results.parent)


if __name__ == "__main__":
    main()
