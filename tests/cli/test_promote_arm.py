"""What needs no language model as a version: promoted only when asked for, loaded, refused, rolled back, restored."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.errors import GateFailed, InputError, ReleaseError
from agent.jobs.aliases import prompt_named
from agent.ledger.query import History
from agent.release.file_release import read_files
from agent.release.runtime import load_prompt
from tests.cli.world import INSTRUCTION, TOPICS, UNSURE, good, good_json, refused, write_lines
from tests.conftest import Made
from tests.scripted import Toys

ROOT = Path("runs/releases/rows")
ALIASES = ROOT / "aliases.jsonl"
ARM = ("--arm", "classic")


def arm_of(run: dict[str, Any], *more: str) -> dict[str, Any]:
    return good_json("promote", run["run_id"], *ARM, *more)


def best_of(run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = max(run["yardsticks"][1:], key=lambda each: each["dev"])
    return found


def scored(run: dict[str, Any], split: str) -> dict[str, Any]:
    """What the best yardstick of the run said, by the text of the row."""
    with closing(History(Path("runs/ledger.db"))) as history:
        found = history.outcomes(run["run_id"], best_of(run)["candidate_id"], split)
        said = {row["example_id"]: row["fields"]["label"] for row in found}
    with open("rows.csv", newline="", encoding="utf-8") as file:
        return {row["text"]: said[row["id"]] for row in csv.DictReader(file) if row["id"] in said}


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def agree() -> list[dict[str, Any]]:
    """The history of the file, which must be that of the chain; and the ledger holds."""
    lines = [json.loads(line) for line in ALIASES.read_text().splitlines()]
    with closing(History(Path("runs/ledger.db"))) as history:
        assert [line["hash"] for line in lines] == [move["hash"] for move in history.alias_moves("rows")]
    assert good("audit", "verify").startswith("whole")
    return lines


def test_it_is_a_version_under_a_alias_and_answers_as_it_was_scored(two_runs: Made) -> None:
    run, _ = two_runs
    told = arm_of(run, "--actor", "jo", "--reason", "cheaper")
    best = best_of(run)
    folder = ROOT / told["version"]
    assert (told["promoted"], told["moved"], told["from"], told["overridden"]) == ("classic", True, "", False)
    assert (told["candidate_id"], told["release"]) == (best["candidate_id"], str(folder))
    assert set(bytes_in(folder)) == {"release.json", "classifier.py", "model.json", "rows.jsonl"}
    answer = pa.load_classifier("rows@production")
    for split in ("dev", "test"):
        rows = scored(run, split)
        assert len(rows) > 20
        assert {text: answer(text=text) for text in rows} == rows
    text = next(iter(rows))
    for other in (f"rows@{told['version']}", folder, str(folder)):
        assert pa.load_classifier(other)(text=text) == rows[text]
    (line,) = agree()
    evidence = line["evidence"]
    assert (line["actor"], line["reason"], line["version"]) == ("jo", "cheaper", told["version"])
    assert (evidence["run_id"], evidence["arm"], evidence["method"]) == (run["run_id"], "classic", best["name"])
    assert (evidence["test"], evidence["ci95"], evidence["overridden"]) == (best["test"], best["ci95"], [])
    assert evidence["ahead"]["the best prompt"]["diff"] == best["diff"]
    assert evidence["ahead"]["your own prompt"]["diff"] == pytest.approx(run["baseline"]["test"] - best["test"])
    assert len(evidence["ledger_head"]) == 64
    assert f"{run['run_id']} {best['name']} {100 * best['test']:.1f}" in good("aliases", "rows")
    assert "was it before" in good("promote", run["run_id"], *ARM)
    assert len(agree()) == 1
    lineage = good_json("audit", "lineage", told["version"])["prompts"]
    assert [each["candidate"]["id"] for each in lineage] == [best["candidate_id"]]
    assert lineage[0]["versions"] == [told["version"]]
    shown = good("audit", "lineage", told["version"])
    assert f"* rows@production\t{told['version']}" in shown
    assert "not released by the run; aliases that came to it: 1" in shown


def test_what_wants_a_prompt_says_what_it_is_and_how_it_is_loaded(
    two_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = two_runs
    version = arm_of(run)["version"]
    Path("log.jsonl").write_text('{"text": "x", "reply": "billing"}\n', "utf-8")
    lines = [
        refused(1, *words)[0]
        for words in (
            ["load", "rows"],
            ["load", f"rows@{version}"],
            ["check", "rows@production"],
            ["bless", "rows@production", "--reason", "x"],
            ["monitor", "rows@production", "log.jsonl"],
        )
    ]
    for line in lines:
        assert f"{version} is a method without a language model (" in line
        assert f"not a prompt; it is in {ROOT / version}; load it with: from promptassay import" in line
    rows = scored(run, "test")
    monkeypatch.setenv("PROMPTASSAY_RELEASES", str(Path("runs/releases").absolute()))
    with pytest.raises(ReleaseError) as elsewhere:
        load_prompt("rows@production", root="runs/releases")
    for line in (lines[0], lines[1], str(elsewhere.value)):
        names: dict[str, Any] = {}
        exec(line.partition("load it with: ")[2], names)
        assert names["loaded"](text=next(iter(rows))) == rows[next(iter(rows))]
    assert "root='runs/releases'" in str(elsewhere.value)
    prompt = load_prompt("rows@production", fallback=run["release"])
    assert f"{version} is a method" in prompt.fallback_reason
    back = good_json("promote", run["run_id"])
    assert back["from"] == version
    with pytest.raises(ReleaseError, match=f"{back['version']} is a prompt, not files; .* load_prompt"):
        pa.load_classifier("rows@production")


def test_a_row_that_is_erased_is_named_where_it_stays_and_no_folder_is_restored_with_it(two_runs: Made) -> None:
    run, _ = two_runs
    version = arm_of(run)["version"]
    row = json.loads((ROOT / version / "rows.jsonl").read_text("utf-8").splitlines()[0])["inputs"]["text"]
    found = good_json("audit", "erase", "--containing", row, "--actor", "jo", "--reason", "asked", "--yes")
    assert any(f"{ROOT / version / 'rows.jsonl'}: holds the text" in line for line in found["left"])
    with closing(sqlite3.connect("runs/ledger.db")) as db:
        assert not db.execute("SELECT 1 FROM blobs WHERE instr(body, ?)", [row]).fetchone()
    shutil.rmtree(ROOT)
    good("promote", run["run_id"], "--alias", "staging", "--override", "--reason", "x")
    assert not (ROOT / version).exists()
    assert good("audit", "verify").startswith("whole")


TICKET = re.compile(r"ticket(\d{4})")


def test_the_gate_says_no_where_a_prompt_is_better_and_an_override_is_kept(toys: Toys) -> None:
    """Nothing but the number of a row tells its label: a table knows it, no classifier can."""
    rng = random.Random(3)
    labels = {f"{number:04}": rng.choice(list(TOPICS)) for number in range(160)}
    rows = "".join(f"please see to ticket{number},{label}\n" for number, label in labels.items())
    Path("rows.csv").write_text(f"text,label\n{rows}", "utf-8")

    def table(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        if len(messages) > 3 or "Examples:" in messages[-1]["content"]:
            return labels[TICKET.findall(messages[-1]["content"])[-1]]
        return UNSURE

    words = ("run", "rows.csv", "--target", "label", "--prompt", INSTRUCTION, "--price", "0,0", "-q")
    run = good_json(*words, "--proposer", "none", "-m", toys(table).name, "--max-calls", "300", "--anyway")
    assert best_of(run)["diff"] > 0.3
    lines = refused(100, "promote", run["run_id"], *ARM)
    assert f"{run['run_id']}: the best prompt is better on the sealed test: +" in lines[0]
    assert lines[1] == "error: not promoted; --override --reason WHY promotes all the same"
    assert not Path("runs/releases").exists()
    with pytest.raises(GateFailed, match="the best prompt is better"):
        pa.promote(run["run_id"], arm="classic")
    assert "--reason" in refused(2, "promote", run["run_id"], *ARM, "--override")[0]
    told = pa.promote(run["run_id"], arm="classic", override=True, reason="no network there", actor="jo")
    assert told.against == (lines[0].partition(f"{run['run_id']}: ")[2],)
    (line,) = agree()
    assert line["evidence"]["overridden"] == list(told.against)
    assert (line["reason"], line["actor"]) == ("no network there", "jo")
    assert "overridden" in good("aliases", "rows")


def test_what_cannot_be_done_says_so_and_does_nothing(two_runs: Made) -> None:
    run = two_runs[0]["run_id"]
    for words, says in (
        (["--alias", "ab", "--share", "0.2"], "leave out --own and --share"),
        (["--own"], "leave out --own and --share"),
        (["--alias", "../x"], "lower-case letters"),
    ):
        assert says in refused(2, "promote", run, *ARM, *words)[0], words
    with pytest.raises(InputError, match="write one of classic"):
        pa.promote(run, arm="modern")
    with pytest.raises(ReleaseError, match="no releases of this name"):
        pa.load_classifier("rows@production")
    good("export", run, *ARM, "-o", "arm")
    assert pa.load_classifier("arm")
    Path("arm/release.json").unlink()
    with pytest.raises(ReleaseError, match=r"release\.json"):
        pa.load_classifier("arm")
    Path("rows.csv").write_text(Path("rows.csv").read_text("utf-8").replace("billing", "bills"), "utf-8")
    assert "the task changed since the run" in refused(2, "promote", run, *ARM)[0]
    assert not Path("runs/releases").exists()


def test_a_run_without_yardsticks_has_none(toys: Toys) -> None:
    write_lines("r.jsonl", [{"text": f"note number {n} of all", "reply": f"reply {n} to it"} for n in range(60)])
    command = ["run", "r.jsonl", "--target", "reply", "--prompt", "Reply to the note.", "-q", "-n", "1"]
    command += ["--metric", "length,max_words=5", "--max-calls", "200"]  # accepts one answer for every row
    run = good_json(*command, "-m", toys(lambda messages, body: "a reply").name)
    assert run["yardsticks"] == []
    assert "scored no method without a language model" in refused(2, "promote", run["run_id"], *ARM)[0]


def test_code_that_was_released_by_another_version_is_told(two_runs: Made, caplog: pytest.LogCaptureFixture) -> None:
    release = read_files(ROOT / arm_of(two_runs[0])["version"])
    pa.load_classifier("rows@production")
    assert not caplog.records
    old = replace(release, files={**release.files, "classifier.py": b"raise SystemExit\n"})
    old.write(Path("old"))
    pa.load_classifier("old")
    assert "another version of Promptassay" in caplog.text
    replace(release, files={**release.files, "model.json": b"{}"}).write(Path("broken"))
    with pytest.raises(ReleaseError, match="cannot be trained"):
        pa.load_classifier("broken")
    replace(release, loader="load_other").write(Path("other"))
    with pytest.raises(ReleaseError, match="load_other loads it"):
        pa.load_classifier("other")
    with pytest.raises(ReleaseError, match="not a prompt"):
        prompt_named("rows", None, Path("runs/ledger.db"))


def test_a_damaged_file_is_refused_and_mended_by_the_same_promotion(two_runs: Made) -> None:
    run, _ = two_runs
    folder = ROOT / arm_of(run)["version"]
    whole = bytes_in(folder)
    for name, data in whole.items():
        changed = data.replace(b"a method", b"no method") if name == "release.json" else data.replace(b"t", b"T", 1)
        (folder / name).write_bytes(changed)
        with pytest.raises(ReleaseError, match=rf"{name}: was edited after release") as found:
            pa.load_classifier("rows@production")
        assert "\n" not in str(found.value)
        assert f"{name}: was edited after release" in refused(1, "load", "rows")[0]
        assert arm_of(run)["moved"] is False
        assert bytes_in(folder) == whole
        (folder / name).unlink()
        with pytest.raises(ReleaseError, match=name):
            pa.load_classifier(folder)
        arm_of(run)
    (folder / "__pycache__").mkdir()  # what lies beside does not count
    pa.load_classifier(folder)
    (folder / "rows.jsonl").write_bytes(whole["rows.jsonl"][:-20])
    good("promote", run["run_id"])
    assert "is incomplete" in refused(1, "rollback", "rows")[0]
