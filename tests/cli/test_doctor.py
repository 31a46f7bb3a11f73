"""`optimize doctor` tells what of the machine and the ledger a run depends on."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.chain import SCHEMA, VERSION
from agent.ledger.store import Ledger
from tests.cli.world import optimize

DB = Path("runs/ledger.db")


def checks(*arguments: str) -> dict[str, dict[str, Any]]:
    return {check["what"]: check for check in json.loads(optimize("doctor", *arguments, "--json").stdout)["checks"]}


def test_the_ledger_is_told_with_its_schema_lock_and_seal() -> None:
    assert checks()["runs/ledger.db"]["found"] == "no ledger yet"
    ledger = Ledger(DB)
    held = checks()
    ledger.close()
    free = checks()
    assert held["lock"]["found"].startswith(f"held by process {ledger_owner()} on ")
    assert free["lock"]["found"] == "free"
    assert free["schema"]["found"] == str(VERSION)
    assert free["seal"]["found"] == "fits"
    assert free["runs/ledger.db"] == {"what": "runs/ledger.db", "ok": True, "found": "0 runs, whole"}
    DB.with_name("ledger.db.seal").unlink()
    assert checks()["seal"]["found"] != "fits"
    assert checks()["runs/ledger.db"]["ok"] is True


def ledger_owner() -> int:
    with sqlite3.connect(DB) as db:
        return int(db.execute("SELECT json_extract(body, '$.pid') FROM events ORDER BY seq LIMIT 1").fetchone()[0])


def test_a_ledger_of_another_version_is_a_problem_and_stays_as_it_is() -> None:
    with sqlite3.connect("old.db") as db:
        db.executescript(SCHEMA)
        db.execute("PRAGMA user_version = 1")
    before = Path("old.db").read_bytes()
    found = checks("--db", "old.db")
    assert found["old.db"]["ok"] is False
    assert "another version" in found["old.db"]["found"]
    assert Path("old.db").read_bytes() == before


def test_a_file_that_is_no_ledger_is_a_problem() -> None:
    Path("noise.db").write_bytes(b"noise " * 1000)
    assert checks("--db", "noise.db")["noise.db"]["ok"] is False


def test_a_user_without_a_home_folder_has_no_place_for_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 98765)
    found = checks()["local/smollm2-135m"]
    assert not found["ok"]
    assert "set OPTIMIZE_CACHE" in found["found"]


def test_tracing_variables_are_named_but_not_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks()["tracing"]["found"] == "none is set"
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "somewhere-private")
    found = checks()["tracing"]["found"]
    assert "LANGSMITH_TRACING" in found
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in found
    assert "somewhere-private" not in found
    monkeypatch.setenv("OPTIMIZE_ALLOW_TRACING", "1")
    assert "may leave this machine" in checks()["tracing"]["found"]


def test_the_disk_the_prices_and_the_known_bug_of_sqlite_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks("--db", "not/yet/there.db")
    assert found["disk"]["ok"] is True
    assert "fsync takes" in found["disk"]["found"]
    assert not Path("not").exists()
    assert found["prices"]["found"].startswith("genai-prices ")
    for version, has_bug in (((3, 51, 2), True), ((3, 51, 3), False), ((3, 46, 1), True)):
        monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
        assert ("WAL-reset" in checks()["sqlite"]["found"]) is has_bug


def test_addresses_of_the_environment_are_told_without_their_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks()["OPENAI_BASE_URL"]["found"] == checks()["ANTHROPIC_BASE_URL"]["found"] == "not set"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:pass-word-1@gateway.example/v1")
    found = checks()["OPENAI_BASE_URL"]["found"]
    assert found == "openai/NAME and openai-compatible/NAME: rows go to http://gateway.example/v1"
