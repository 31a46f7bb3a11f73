"""`kill -9` of comparisons (`optimize customize`): with adapters trained here, and with a job at a provider.

After each kill the same command continues. It must end as an undisturbed one, with byte-equal adapters, and pay twice
for no kept epoch, no settled call and no job.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.chaos.books import DOLLARS_IN, DOLLARS_OUT, broken_promises, copied, dollars
from tests.chaos.command import Command, Ended
from tests.chaos.harness import Campaign, Folder, Provider, Row
from tests.chaos.points import MARKS, NEVER, Point, epochs_again, mark_and_die, points
from tests.training.tiny import speaking

KILLS = 30
TINY_MODEL = "tiny.gguf"
DATA = ("rows.csv", "--target", "label", "--prompt", "p.txt", "--limit", "48-12-16")
SEARCH = ("-n", "1", "--proposer", "none")
TRAINED_HERE = ("--arms", "lora,no-model", "--curve", "16,all")
LATENCY = 0.05
MOST_DOLLARS = 0.3
"""The cap of a comparison; one job takes nearly all of it."""
HOSTED = ("--arms", "hosted", "--train-price", "25", "--max-cost", str(MOST_DOLLARS))
PRICE = ("--price", f"{DOLLARS_IN},{DOLLARS_OUT}")
PATIENCE = 600.0
"""Seconds after which a comparison hangs: it starts three engines, on a machine that may be busy."""
HEAVY = ("agent.jobs.customize.plan", "agent.training.loop", "sklearn.linear_model", "sklearn.neighbors")
"""Imported before the forks, so that these need not."""
STAGES = {"training": "training", "fine_tuning_files": "training", "fine_tuning_started": "training"}
STAGES |= {"trained": "scoring", "fine_tuning_ended": "scoring", "test_opened": "sealed test"}
"""By the last event of a killed comparison what it was at."""


def trained_here(c: Campaign) -> Row:
    """Comparisons with an adapter and a label curve, of a tiny random model in the embedded engine."""
    folder = c.folder("customize")
    speaking(folder.path / TINY_MODEL)
    model = ("-m", f"local/{TINY_MODEL}")
    _searched(folder, model)
    broken, happened, kills = _killed(c, folder, (*model, *TRAINED_HERE))
    promised = "as undisturbed, adapters to the byte; no kept epoch and no settled call again"
    return Row("kill -9 of a comparison", kills, promised, happened, tuple(broken))


def hosted(c: Campaign) -> Row:
    """Comparisons with an arm that the provider trains, under a cap in dollars."""
    folder = c.folder("hosted")
    with c.provider("tuning", latency=LATENCY) as server:
        model = ("-m", f"openai-compatible/x@{server.url}", *PRICE)
        _searched(folder, model)
        before = server.bill()
        broken, happened, kills = _killed(c, folder, (*model, *HOSTED), server)
        after = server.bill()
    runs = after["jobs"] - before["jobs"]
    happened = f"{happened}; {runs} jobs, {after['requests'] - before['requests']} requests"
    promised = "as undisturbed, one job a comparison however often killed, each dollar in the ledger, under the cap"
    return Row("kill -9 of a hosted training", kills, promised, happened, tuple(broken))


# -- the commands -----------------------------------------------------------------------------------------------------


def _searched(folder: Folder, model: Sequence[str]) -> None:
    ended = folder.start("run", *DATA, *model, *SEARCH, "-q", "--db", folder.db).wait(PATIENCE)
    if ended.code:
        raise RuntimeError(f"the search failed: {ended.err[-500:]}")


def _started(folder: Folder, words: Sequence[str], at: Point = NEVER) -> Command:
    """The comparison; it kills itself at its point `at`."""
    hook = partial(mark_and_die, folder.path / MARKS, at)
    return folder.start("customize", *DATA, *words, "-q", "--json", "--db", folder.db, hook=hook)


def _killed(
    c: Campaign, searched: Folder, words: Sequence[str], server: Provider | None = None
) -> tuple[list[str], str, int]:
    """Comparisons that are killed until there were enough kills, each against an undisturbed one.

    Returns what was broken, what happened in words, and the number of kills.
    """
    rng, wanted, kills, runs, stages = c.rng(searched.path.name), c.times(KILLS, 3), 0, 0, dict[str, int]()
    for name in HEAVY:
        import_module(name)
    whole = _copy(c, searched)
    undisturbed = _started(whole, words).wait(PATIENCE)
    if undisturbed.code:
        raise RuntimeError(f"the undisturbed comparison failed: {undisturbed.err[-500:]}")
    passed, expected, broken = points(whole.path / MARKS), standing(whole.ledger), list[str]()
    while kills < wanted:
        runs += 1
        folder, ended = _copy(c, searched), None
        before, seen = folder.books(), server.bill() if server else {}
        paid = charged(folder.ledger)
        while ended is None or ended.code == -signal.SIGKILL:
            ended = _once(folder, words, rng, passed, undisturbed.seconds if kills < wanted else None)
            if ended.code == -signal.SIGKILL:
                kills += 1
                stage = stage_of(folder.ledger)
                stages[stage] = stages.get(stage, 0) + 1
            books = folder.books()
            broken += broken_promises(books, None, before)
            before = books
        if ended.code:
            broken.append(f"exit {ended.code}: {ended.err[-300:]}")
            break
        found = standing(folder.ledger)
        broken += [f"not as undisturbed: {name}" for name in expected if found[name] != expected[name]]
        broken += epochs_again(folder.path / MARKS)
        broken += _unlike_the_bill(seen, server.bill(), charged(folder.ledger) - paid) if server else []
    at = ", ".join(f"{number} in {stage}" for stage, number in sorted(stages.items()))
    return broken, f"{runs} comparisons, killed {at}", kills


def _copy(c: Campaign, searched: Folder) -> Folder:
    folder = c.folder("killed")
    shutil.copytree(searched.path, folder.path, dirs_exist_ok=True)
    return folder


def _once(
    folder: Folder, words: Sequence[str], rng: random.Random, passed: Mapping[str, int], seconds: float | None
) -> Ended:
    """The comparison, killed at a random point or a random moment of the time of an undisturbed one; None: not."""
    if seconds is None:
        return _started(folder, words).wait(PATIENCE)
    if rng.random() < 0.5:
        kind = rng.choice(list(passed))
        return _started(folder, words, (kind, rng.randrange(passed[kind]))).wait(PATIENCE)
    command = _started(folder, words)
    time.sleep(rng.uniform(0.0, seconds))
    return command.poll() or command.kill()


# -- what is held against each other ----------------------------------------------------------------------------------


def standing(ledger: Path) -> dict[str, Any]:
    """What no kill may change: arms, curve and advice of the last comparison, its adapters with all their losses."""
    with copied(ledger) as db:
        run, result = db.execute(
            "SELECT r.id, b.body FROM runs r JOIN blobs b ON b.hash = r.result_hash ORDER BY r.rowid DESC LIMIT 1"
        ).fetchone()
        trained = db.execute("SELECT body FROM events WHERE run_id = ? AND kind = 'trained' ORDER BY seq", (run,))
        adapters = [json.loads(body) for (body,) in trained]
    found = json.loads(result)
    names = ("arm", "candidate_id", "test", "ci95", "diff", "diff_ci95", "unscored", "labels", "tokens_per_call")
    return {
        "arms": [{name: arm[name] for name in (*names, "elsewhere", "megabytes")} for arm in found["arms"]],
        "curve": [{name: point[name] for name in ("arm", "labels", "test", "ci95")} for point in found["curve"]],
        "advice": [found["advice"]["verdict"], found["advice"]["arm"]],
        "adapters": [{**each, "seconds": None} for each in adapters],
    }


def stage_of(ledger: Path) -> str:
    """What the last comparison was at when it was killed."""
    with copied(ledger) as db:
        (run,) = db.execute("SELECT id FROM runs ORDER BY rowid DESC LIMIT 1").fetchone()
        kinds = db.execute("SELECT kind FROM events WHERE run_id = ? ORDER BY seq DESC", (run,)).fetchall()
    return next((STAGES[kind] for (kind,) in kinds if kind in STAGES), "its beginning")


def charged(ledger: Path) -> float:
    """Dollars of the calls in a ledger, of those whose outcome is not known as reserved, and of trainings."""
    with copied(ledger) as db:
        (calls,) = db.execute(
            "SELECT sum(CASE WHEN state IN ('reserved', 'sent') THEN reserved_usd ELSE cost_usd END) FROM calls"
        ).fetchone()
        ended = db.execute("SELECT body FROM events WHERE kind = 'fine_tuning_ended'").fetchall()
    return float(calls or 0) + sum(json.loads(body)["usd"] or 0.0 for (body,) in ended)


def _unlike_the_bill(before: dict[str, Any], after: dict[str, Any], paid: float) -> list[str]:
    """Compare two bills of a provider with what the ledger was charged in between."""
    found = []
    if (jobs := after["jobs"] - before["jobs"]) != 1:
        found.append(f"{jobs} jobs for one comparison")
    if paid < (billed := dollars(after) - dollars(before)) - 1e-9:
        found.append(f"the provider billed ${billed:.6f}, the ledger charged ${paid:.6f}")
    if paid > MOST_DOLLARS:
        found.append(f"${paid:.6f} charged, above the cap of ${MOST_DOLLARS}")
    return found
