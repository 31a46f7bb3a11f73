"""`optimize audit` on a ledger that real runs wrote: what it says is what happened, and no change goes unseen."""

import gc
import json
import shlex
import shutil
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import promptassay
from agent.errors import InputError
from agent.ledger.store import Ledger
from agent.release.runtime import load_prompt
from agent.types import canonical, content_id
from tests.cli.world import good, good_json, optimize, refused
from tests.conftest import Made
from tests.ledger.ledgers import alter, first_break, read

DB = Path("runs/ledger.db")
ASKED = ("--actor", "a", "--reason", "r")
ROOT_PAGE = "SELECT rootpage FROM sqlite_master WHERE name = 'calls_by_key'"


def tamper(sql: str, db: Path = DB) -> None:
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        alter(connection, sql)


def found_wrong(*arguments: str | Path) -> dict[str, Any]:
    result = optimize("audit", "verify", *arguments, "--json")
    answer: dict[str, Any] = json.loads(result.stdout)
    assert (result.exit_code, answer["whole"], bool(answer["findings"])) == (1, False, True)
    return answer


# -- verify and anchor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "first"),
    [
        ("UPDATE events SET body = replace(body, '\"', '\" ') WHERE seq = 5", "SELECT 5"),
        ("UPDATE outcomes SET value = 1 - value WHERE rowid = 3",
         "SELECT MAX(seq) FROM events e, outcomes o WHERE o.rowid = 3 AND kind = 'outcome' AND e.run_id = o.run_id "
         "AND instr(body, o.candidate_id) AND instr(body, '\"' || o.example_id || '\"')"),
        ("UPDATE calls SET cost_usd = 0 WHERE id = 4", "SELECT seq FROM events WHERE body LIKE '{\"key\":[4],%'"),
        ("DELETE FROM blobs WHERE rowid = 20",
         "SELECT MIN(seq) FROM events, blobs b WHERE b.rowid = 20 AND instr(events.body, b.hash)"),
    ],
)  # fmt: skip
def test_verify_names_the_first_event_that_a_change_contradicts(two_runs: Made, sql: str, first: str) -> None:
    expected = read(DB, first)[0][0]
    tamper(sql)
    answer = found_wrong()
    assert answer["first_bad_seq"] == answer["findings"][0]["seq"] == expected
    lines = optimize("audit", "verify").stdout.splitlines()
    assert lines == [f"event {finding['seq']}: {finding['what']}" for finding in answer["findings"]]
    (line,) = refused(1, "audit", "anchor")
    assert "runs/ledger.db" in line


def test_a_file_that_is_no_database_is_not_whole() -> None:
    Path("noise.db").write_bytes(b"noise " * 1000)
    assert found_wrong("--db", "noise.db")["events"] == 0
    assert optimize("audit", "verify", "--db", "noise.db").stdout.startswith("the file is damaged: ")
    (line,) = refused(1, "runs", "--db", "noise.db")
    assert "`sqlite3 FILE .recover | sqlite3 NEW.db`" in line


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the shell of SQLite is not installed")
def test_what_sqlites_shell_saves_of_a_ledger_is_one_again(two_runs: Made) -> None:
    """As the message about a damaged file says; a root page of an index is lost, and with it nothing."""
    expected, ((page,),) = good_json("audit", "verify"), read(DB, ROOT_PAGE)
    data = bytearray(DB.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    data[(page - 1) * size : page * size] = b"\xff" * size
    DB.write_bytes(data)
    found_wrong()
    (line,) = refused(1, "runs")
    assert "`sqlite3 FILE .recover | sqlite3 NEW.db`" in line
    dump = subprocess.run(["sqlite3", str(DB), ".recover"], capture_output=True, check=True).stdout
    subprocess.run(["sqlite3", "new.db"], input=dump, check=True)
    assert DB.read_bytes() == data
    assert good_json("audit", "verify", "--db", "new.db") == expected
    assert len(good_json("runs", "--db", "new.db")["runs"]) == 2


def test_a_ledger_that_was_emptied_is_refused_by_every_command_and_left_as_it_is(two_runs: Made) -> None:
    DB.write_bytes(b"")
    seal = DB.with_name("ledger.db.seal").read_bytes()
    for words in (["runs"], ["history"], ["promote"], ["audit", "verify"]):
        (line,) = refused(1, *words)
        assert "restore a copy" in line
    checks = json.loads(optimize("doctor", "--json").stdout)["checks"]
    assert [check["ok"] for check in checks if check["what"] == str(DB)] == [False]
    assert (DB.read_bytes(), DB.with_name("ledger.db.seal").read_bytes()) == (b"", seal)


def test_reading_makes_no_ledger_of_an_empty_file() -> None:
    Path("new.db").touch()
    for words in (["runs"], ["show"], ["audit", "verify"], ["audit", "anchor"]):
        (line,) = refused(2, *words, "--db", "new.db")
        assert "no ledger here" in line
    assert {path.name for path in Path().iterdir()} == {"new.db"}
    assert Path("new.db").read_bytes() == b""


def test_a_head_that_was_noted_elsewhere_is_found_again_in_every_form(two_runs: Made) -> None:
    first, _ = two_runs
    noted = json.loads(good("audit", "anchor"))
    assert (noted["seq"], noted["hash"]) == read(DB, "SELECT seq, hash FROM head")[0]
    assert Path(noted["ledger"]) == DB.resolve()
    good("audit", "anchor", "-o", "anchor.json")
    assert stat.S_IMODE(Path("anchor.json").stat().st_mode) == 0o600
    Path("result.json").write_text(json.dumps(first))
    Ledger(DB).close()  # the chain goes on
    release = Path(first["release"])
    for word in (noted["hash"], "anchor.json", "result.json", release, release.with_name("messages.json")):
        assert good("audit", "verify", "--anchor", word).startswith("whole: ")


def test_a_ledger_that_was_made_anew_does_not_hold_the_head_that_was_noted(two_runs: Made) -> None:
    good("audit", "anchor", "-o", "anchor.json")
    Ledger(Path("new.db")).close()
    assert good_json("audit", "verify", "--db", "new.db")["whole"]
    assert found_wrong("--db", "new.db", "--anchor", "anchor.json")["first_bad_seq"] == 1


# -- show and lineage --------------------------------------------------------------------------------------------------


def test_a_run_and_its_trials_are_shown_with_their_events_in_order(two_runs: Made) -> None:
    first, second = two_runs
    run_id, trials = first["run_id"], good_json("history", first["run_id"])["trials"]
    shown = good_json("audit", "show", run_id)
    events = read(DB, "SELECT seq, utc, kind FROM events WHERE run_id = ? ORDER BY seq", run_id)
    assert [(e["seq"], e["utc"], e["kind"]) for e in shown["events"]] == events
    assert (shown["run"]["options"]["max_calls"], shown["run"]["result"]) == (800, first)
    assert sum(cost["cost_usd"] for cost in shown["costs"]) == pytest.approx(first["cost_usd"])
    trial = max(trials, key=lambda trial: int(trial["n"]))
    shown = good_json("audit", "show", f"{run_id}:{trial['number']}")
    states, keys = shown["states"], ("state", "n", "mean", "reason")
    assert shown["trial"] == trial
    assert (states[0]["state"], states[0]["n"]) == ("incomplete", 0)
    assert [state["n"] for state in states] == sorted(state["n"] for state in states)
    assert [states[-1][key] for key in keys] == [trial[key] for key in keys]
    assert len(shown["outcomes"]["dev"]) == trial["n"]
    assert good("audit", "show", "0").startswith(f"trial 0 of {second['run_id']}: ")


def test_a_call_is_shown_with_exactly_the_request_that_its_key_stands_for(two_runs: Made) -> None:
    for number, key, model in read(DB, "SELECT id, call_key, model FROM calls WHERE id % 90 = 1"):
        shown = good_json("audit", "show", f"call:{number}")
        assert content_id("k", {"model": model, **shown["request"]}) == key == shown["call"]["call_key"]
        assert [event["kind"] for event in shown["events"]][-1] == f"call_{shown['call']['state']}"
        assert shown["reply"]["text"]
    state = "SELECT id, call_key FROM calls WHERE state = 'cached' LIMIT 1"
    number, key = read(DB, state)[0]
    hit, bought = good_json("audit", "show", f"#{number}"), good_json("audit", "show", key)
    assert bought["call"]["state"] == "ok"
    assert (hit["request"], hit["reply"]) == (bought["request"], bought["reply"])
    assert hit["attempts"] == bought["attempts"]
    assert shown["reply"]["text"] in good("audit", "show", f"call:{shown['call']['id']}")


def test_the_lineage_of_a_prompt_leads_to_its_first_ancestor_under_every_name(two_runs: Made) -> None:
    first, _ = two_runs
    trials = good_json("history", first["run_id"])["trials"]
    child = next(trial for trial in trials if trial["operator"].startswith("instruction:proposed"))
    (prompt,) = good_json("audit", "lineage", child["candidate_id"])["prompts"]
    (run,) = prompt["runs"]
    chain = run["chain"]
    assert chain[0]["candidate_id"] == child["candidate_id"]
    assert [step["parent_id"] for step in chain] == [*(step["candidate_id"] for step in chain[1:]), None]
    assert len(chain) > 1
    told = json.loads(read(DB, "SELECT body FROM events WHERE seq = ?", run["proposal"]["seq"])[0][0])
    assert told["round"] < child["round"] + 1
    template, instruction = prompt["candidate"]["template_hash"], prompt["candidate"]["instruction_hash"]
    assert good_json("audit", "lineage", template[:20]) == good_json("audit", "lineage", child["candidate_id"][:12])
    same = [found["candidate"] for found in good_json("audit", "lineage", instruction)["prompts"]]
    assert child["candidate_id"] in [candidate["id"] for candidate in same]
    assert {candidate["instruction_hash"] for candidate in same} == {instruction}


def test_the_lineage_of_a_released_prompt_has_its_release_and_the_moves_of_its_aliases(two_runs: Made) -> None:
    first, second = two_runs
    for result in two_runs:
        version = load_prompt(result["release"]).version
        (prompt,) = good_json("audit", "lineage", version)["prompts"]
        assert (prompt["candidate"]["id"], prompt["versions"]) == (result["winner"]["candidate_id"], [version])
        run = next(run for run in prompt["runs"] if run["run_id"] == result["run_id"])
        assert (run["released"], run["release"], run["test"]) == (True, result["release"], result["winner"]["test"])
        assert f"released as {version}" in good("audit", "lineage", version)
    baseline = good("audit", "lineage", good_json("history")["trials"][0]["candidate_id"])
    assert ("not released" in baseline, "@production" in baseline) == (True, False)
    one = good_json("promote", first["run_id"], "--actor", "jo", "--reason", "the first")
    two = good_json("promote", second["run_id"], "--override", "--reason", "the second")
    good("rollback", "rows", "--reason", "back again")
    (prompt,) = good_json("audit", "lineage", one["version"])["prompts"]
    assert [(move["version"], move["action"], move["mine"]) for move in prompt["aliases"]] == [
        (one["version"], "promote", True), (two["version"], "promote", False), (one["version"], "rollback", True),
    ]  # fmt: skip
    told = good("audit", "lineage", one["version"])
    assert told.count("* rows@production") == 2
    assert all(word in told for word in ("jo", "the first", "the second", "back again"))


# -- export ------------------------------------------------------------------------------------------------------------


def test_an_export_is_the_whole_chain_and_writes_over_nothing_unless_it_is_forced(two_runs: Made) -> None:
    Path("mine").write_text("precious")
    for form in ("jsonl", "zip"):
        (line,) = refused(2, "audit", "export", "--format", form, "-o", "mine")
        assert ("--force" in line, Path("mine").read_text(), [*Path().glob("mine?*")]) == (True, "precious", [])
    good("audit", "export", "-o", "mine", "--force")
    events = [json.loads(line) for line in Path("mine").read_bytes().split(b"\n")[:-1]]
    assert first_break({**event, "body": canonical(event["body"])} for event in events) is None
    assert events[-1]["hash"] == read(DB, "SELECT hash FROM head")[0][0]
    for bad in ("runs", "mine/x"):
        assert len(refused(2, "audit", "export", "-o", bad, "--force")) == 1
    good("audit", "export", "-o", "new.jsonl")
    assert stat.S_IMODE(Path("new.jsonl").stat().st_mode) == 0o600


# -- erase -------------------------------------------------------------------------------------------------------------


def everything() -> dict[str, bytes]:
    return {path.as_posix(): path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}


def test_an_erased_text_is_in_no_file_any_more_and_the_ledger_is_whole(two_runs: Made) -> None:
    shown = "SELECT example_id FROM examples"
    example = read(DB, f"SELECT example_id FROM outcomes WHERE split = 'test' AND example_id NOT IN ({shown})")[0][0]
    text = next(line for line in Path("rows.csv").read_text().splitlines() if line.startswith(f"{example},"))
    text = text.split(",")[1]
    assert any(text.encode() in data for data in everything().values())
    before = good_json("history")
    gc.collect()  # closes what the commands before have open, as the end of their processes would
    command = ["audit", "erase", "--containing", text, "--actor", "ann", "--reason", "she asked", "--yes"]
    answer = good_json(*command)
    assert set(answer["kinds"]) == {"request"}
    assert answer["left"] == []
    assert not [name for name, data in everything().items() if text.encode() in data]
    assert good_json("audit", "verify")["whole"]
    told = json.loads(read(DB, "SELECT body FROM events WHERE kind = 'texts_erased'")[0][0])
    assert (told["actor"], told["reason"], told["erased"]) == ("ann", "she asked", answer["erased"])
    assert good_json("history") == before
    assert good_json(*command)["erased"] == []
    number = read(DB, "SELECT id FROM calls WHERE request_hash = ?", answer["erased"][0])[0][0]
    assert good_json("audit", "show", f"call:{number}")["request"] is None
    assert "(erased)" in good("audit", "show", f"call:{number}")


def test_a_result_that_was_erased_is_called_so_everywhere(two_runs: Made) -> None:
    first, _ = two_runs
    digest = read(DB, "SELECT result_hash FROM runs WHERE id = ?", first["run_id"])[0][0]
    good("audit", "erase", "--hash", digest, *ASKED, "--yes")
    for words in (["show"], ["promote"], ["export"], ["reproduce", "--offline"], ["check"]):
        (said,) = refused(2, words[0], first["run_id"], *words[1:])
        assert f"{first['run_id']}: its result was erased, so " in said
    assert "its result was erased" in refused(2, "compare", first["run_id"], first["run_id"])[0]


def test_erasing_asks_first_and_a_no_changes_nothing(two_runs: Made) -> None:
    digest = read(DB, "SELECT response_hash FROM calls WHERE response_hash <> '' LIMIT 1")[0][0]
    before = everything()
    command = ["audit", "erase", "--hash", digest, *ASKED]
    result = optimize(*command)
    assert result.exit_code == 1  # nobody is there to answer
    assert "1 texts go for good: 1 reply" in result.stderr
    assert {name: data for name, data in everything().items() if not name.endswith(("-shm", "-wal"))} == before
    Path("runs/some").mkdir()
    Path("runs/some/report.html").write_text("made before")
    assert "runs/some/report.html: a report made before" in optimize(*command, "--yes").stderr
    assert read(DB, "SELECT COUNT(*) FROM blobs WHERE hash = ?", digest) == [(0,)]


def test_erasing_from_python_needs_a_yes(two_runs: Made) -> None:
    digest = read(DB, "SELECT response_hash FROM calls WHERE response_hash <> '' LIMIT 1")[0][0]
    with pytest.raises(InputError, match="yes=True"):
        promptassay.audit_erase(hash=[digest], actor="a", reason="r")
    assert promptassay.audit_erase(hash=[digest], actor="a", reason="r", yes=True).erased == (digest,)
    assert read(DB, "SELECT COUNT(*) FROM blobs WHERE hash = ?", digest) == [(0,)]


def test_erasing_names_the_places_that_it_cannot_reach(two_runs: Made) -> None:
    first, _ = two_runs
    trials = good_json("history", first["run_id"])["trials"]
    text = next(t["instruction"] for t in trials if t["operator"].startswith("instruction:proposed"))
    shutil.copy(DB, "runs/copy.db")
    good("audit", "export", "--format", "zip", "-o", "runs/old.zip")
    answer = good_json("audit", "erase", "--containing", text, *ASKED, "--yes")
    left = "\n".join(answer["left"])
    assert "runs/copy.db" in left
    assert "runs/old.zip" in left
    for seq in answer["events"]:
        assert text in read(DB, "SELECT body FROM events WHERE seq = ?", seq)[0][0]
    assert good_json("audit", "verify")["whole"]


def test_erasing_through_a_link_names_the_log_that_a_reader_keeps(two_runs: Made) -> None:
    Path("link.db").symlink_to(DB)
    gc.collect()
    text = Path("rows.csv").read_text("utf-8").splitlines()[1].split(",")[1]
    command = ["audit", "erase", "--containing", text, *ASKED, "--yes", "--db", "link.db"]
    with closing(sqlite3.connect(DB)) as reader:
        reader.execute("BEGIN").execute("SELECT COUNT(*) FROM events").fetchone()
        assert any("another process reads the ledger" in line for line in good_json(*command)["left"])


def test_erasing_needs_something_to_erase_and_words_that_do_not_repeat_it(two_runs: Made) -> None:
    for wrong in ("--actor ann --reason asked", f"--actor ann --reason asked --hash {'0' * 64}",
                  "--containing ann --actor ann --reason asked", "--containing x --actor '' --reason r"):  # fmt: skip
        assert len(refused(2, "audit", "erase", *shlex.split(wrong), "--yes")) == 1
    assert good_json("audit", "verify")["whole"]


# -- manners -----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_told_in_one_line(two_runs: Made) -> None:
    verify = ("verify --db none.db", "verify --anchor no-such-file", "verify --anchor rows.csv")
    show = ("show no-run", "show no-run:1", "show call:99999999", "show k_0123456789abcdef", "check no-run")
    lineage = ("lineage c_zz", "lineage c_0123456789abcdef", "lineage p_0123456789abcdef")
    for words in (*verify, *show, *lineage, "export no-run --format zip -o x.zip"):
        (line,) = refused(2, "audit", *words.split())
        assert line.startswith("error: ")
        assert ";" in line or ": give " in line
