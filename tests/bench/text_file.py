"""How often a planted defect of a long text file is mended: `python -m tests.bench.text_file [SEEDS]`.

`optimize text` as a user types it, with a scripted proposer behind a socket and a shell script as the command: the file
of 100 kB has one wrong sentence, which must be replaced. The proposer is of use all the time, half or a third of it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.cli.text_world import COMMAND, KINDS, Editor, is_right, write_world
from tests.cli.world import compatible, good_json
from tests.wire import WireServer


def main() -> None:
    """Prints a line a seed and the count, for each share of useful replies."""
    seeds, home = int(sys.argv[1]) if len(sys.argv) > 1 else 10, Path.cwd()
    os.environ["OPENAI_COMPATIBLE_API_KEY"] = "none"
    for reliable in (1.0, 0.5, 0.3):
        mended = 0
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                editor = Editor(reliable)
                write_world(list(KINDS)[seed % len(KINDS)], (list(KINDS)[seed % len(KINDS)], "plain"))
                size = Path("AGENTS.md").stat().st_size
                with WireServer(editor) as server:
                    words = ("text", "AGENTS.md", "--rows", "rows.jsonl", "--eval", COMMAND, "--seed", str(seed))
                    found = good_json(*words, "--proposer", compatible(server), "--max-runs", "400", "-q")
                os.chdir(home)
            is_mended = found["decision"] == "promote" and is_right(found["winner"]["instruction"])
            mended += is_mended
            before, after = found["baseline"]["test"], found["winner"]["test"]
            asked = f"{editor.asked} calls of the proposer, of at most {editor.longest:,} letters"
            print(f"seed {seed}: {before:.2f} -> {after:.2f} on sealed rows; {asked}; a file of {size:,} bytes")
        print(f"mended in {mended} of {seeds} where {reliable:.0%} of the replies are of use", flush=True)


if __name__ == "__main__":
    main()
