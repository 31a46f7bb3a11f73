"""Who proposed what, why, and what became of it: in the result, in `history`, in the report and in the lineage."""

from __future__ import annotations

from pathlib import Path

from tests.cli.world import good, good_json
from tests.conftest import Made


def test_each_proposal_can_be_read_everywhere(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    use = two_runs[0]["proposer"]
    assert use["proposals"]
    assert sum(each["asked"] for each in use["operators"]) == len(use["proposals"])
    tried = next(each for each in use["proposals"] if each["became"] in ("tried", "finalist", "winner"))
    assert tried["operator"] == "definitions"
    found = good_json("history", run_id)
    assert found["proposals"] == use["proposals"]
    assert tried["hypothesis"][:40] in good("history", run_id)
    good("report", run_id, "-o", "r.html")
    page = Path("r.html").read_text("utf-8")
    assert "What the proposer was asked for" in page
    assert tried["hypothesis"][:40] in page
    trial = next(t for t in found["trials"] if t["operator"] == f"instruction:{tried['instruction']}")
    (prompt,) = good_json("audit", "lineage", trial["candidate_id"])["prompts"]
    proposal = prompt["runs"][0]["proposal"]
    assert (proposal["operator"], proposal["hypothesis"]) == ("definitions", tried["hypothesis"])
    assert tried["hypothesis"][:40] in good("audit", "lineage", trial["candidate_id"])
