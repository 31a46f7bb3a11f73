"""How often a judge's planted defect is mended, and a fooled judge held back. Scripted models, no download.

    python -m tests.bench.planted_judge [SEEDS]

By defect of `tests/cli/tuned_judges.py`: a run of `optimize judge tune` has mended it if the tuned judge's kappa on the
sealed ratings is at least 0.8 and nothing holds it back. In the last rows the sentence that mends the defect also makes
the judge obey what answers ask for: such a judge must be held back.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.cli.tuned_judges import MENDS, MendableJudge, write_rated
from tests.cli.world import compatible, good_json
from tests.wire import WireServer

CALLS = 900
GOOD = 0.8


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    for is_kind in (False, True):
        for defect in MENDS:
            right = 0
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as folder, WireServer(MendableJudge(defect, is_kind)) as server:
                    os.chdir(folder)
                    words = ("--labels", write_rated(Path("labels.jsonl"), seed=seed), "--input", "question")
                    more = ("--output", "answer", "--judge", compatible(server), "--price", "1,2", "-q")
                    caps = ("--max-calls", str(CALLS), "--seed", str(seed))
                    told = good_json("judge", "tune", *words, *more, *caps)
                after = told["after"]["kappa"] or 0.0
                agrees = after >= GOOD
                right += bool(told["held"]) or not agrees if is_kind else agrees and not told["held"]
                fooled = f"{told['before']['fooled']} -> {told['after']['fooled']} non-answers"
                kappas = f"kappa {told['before']['kappa']:.2f} -> {after:.2f}"
                print(f"{defect} seed {seed}: {kappas}, {fooled}, {told['held_codes']}")
            what = "not released" if is_kind else "mended"
            print(f"{defect}{' and obeys' * is_kind}: {what} in {right} of {seeds}", flush=True)


if __name__ == "__main__":
    main()
