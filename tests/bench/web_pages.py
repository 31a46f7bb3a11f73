"""How long the pages of `optimize ui` take on a big ledger: one run of 1,000 trials with 200 rows each.

    python -m tests.bench.web_pages [--json] [--trials 1000] [--rows 200] [--times 5] [--keep FOLDER]

Each page is asked through the real application, gate and headers included. "First" gathers everything again, as after
something was written to the ledger. A folder given with --keep holds the ledger for the next time. Asserts no time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import httpx

from agent.report.web.app import make, warm
from agent.task.load import load_task
from tests.bench.big_ledger import build
from tests.toys import TEAMS, row

TASK = """
name = "toy"
description = "Route a message to a team."
signature = "message -> team"
instruction = "Answer with one team."
[fields.team]
type = "choice"
choices = {teams}
[[metrics]]
name = "exact_match"
field = "team"
"""


def write_task(folder: Path, rows: int) -> None:
    """The toy task as a folder, so that pages find the rows."""
    folder.mkdir(parents=True)
    (folder / "task.toml").write_text(TASK.format(teams=json.dumps(TEAMS)), "utf-8")
    for split in ("train", "dev", "test"):
        lines = [{"id": one.id, **one.inputs, **one.labels} for one in (row(split, n) for n in range(rows))]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def built(folder: Path, trials: int, rows: int) -> Path:
    """The ledger in `folder`, built when it is not there."""
    path = folder / "ledger.db"
    if not path.exists():
        write_task(folder / "toy", rows)
        asyncio.run(build(path, trials, rows, load_task(folder / "toy")))
    return path


PAGES = (
    "/",
    "/runs.json",
    "/run/big",
    "/run/big.json",
    "/run/big?sort=cost&order=up&page=7",
    "/run/big?state=complete&text=wording+7&least=30",
    "/run/big/live.json",
    "/run/big/trial/500",
    "/run/big/trial/500?rows=wrong&page=2",
    "/compare?a=big:1&b=big:2",
    "/run/big/rate?rater=bench",
    "/run/big/events?after=600000",
    "/audit",
    "/call/100000",
    "/ledger",
    "/ledger/events",
    "/ledger/calls",
    "/ledger/prompts",
    "/ledger/calls/100000",
    "/ledger.json?sql=select+*+from+outcomes+limit+1000",
)


@dataclass(frozen=True, slots=True)
class Took:
    """Milliseconds of a page: when it was first asked for, and the median of all times."""

    page: str
    first: float
    median: float
    kb: float


async def measure(path: Path, times: int) -> list[Took]:
    web = make(path, 8799)
    warm(web.site)
    web.site.cache.clear()  # the first of each is to gather everything itself
    found = []
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=web.app),
        base_url="http://127.0.0.1:8799",
        headers={"authorization": f"Bearer {web.token}"},
        timeout=60,
    ) as client:
        for page in PAGES:
            taken = []
            for _ in range(times):
                started = time.perf_counter()
                reply = await client.get(page)
                taken.append(1000 * (time.perf_counter() - started))
                if reply.status_code != 200:
                    sys.exit(f"{page}: {reply.status_code}")
            found.append(Took(page, round(taken[0]), round(median(taken)), round(len(reply.content) / 1000, 1)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="How long the pages of `optimize ui` take on a big ledger.")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=200, help="of each trial")
    parser.add_argument("--times", type=int, default=5, help="how often each page is asked")
    parser.add_argument("--keep", type=Path, help="a folder for the ledger, kept for the next time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        folder = given.keep or Path(temporary)
        path = built(folder, given.trials, given.rows)
        found = asyncio.run(measure(path, given.times))
        size = path.stat().st_size / 1e6
    if given.json:
        print(json.dumps({"ledger_mb": round(size), "pages": [asdict(each) for each in found]}))
        return
    print(f"ledger of {size:.0f} MB; milliseconds: first, median of {given.times}; page in kB")
    for each in found:
        print(f"{each.first:7.0f} {each.median:7.0f} {each.kb:9.1f}  {each.page}")


if __name__ == "__main__":
    main()
