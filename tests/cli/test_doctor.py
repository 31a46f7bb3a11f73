"""`optimize doctor` tells what of the machine and the ledger a run depends on."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.jobs import doctor
from agent.ledger.chain import SCHEMA, VERSION
from agent.ledger.store import Ledger
from tests.cli.world import good, good_json, optimize

DB = Path("runs/ledger.db")


def checks(*arguments: str) -> dict[str, dict[str, Any]]:
    return {check["what"]: check for check in json.loads(optimize("doctor", *arguments, "--json").stdout)["checks"]}


def test_the_ledger_is_told_with_its_schema_lock_and_seal() -> None:
    assert checks()["runs/ledger.db"]["found"] == "no ledger yet"
    with closing(Ledger(DB)):
        held = checks()
    free = checks()
    with closing(sqlite3.connect(DB)) as db:
        ((owner,),) = db.execute("SELECT json_extract(body, '$.pid') FROM events ORDER BY seq LIMIT 1").fetchall()
    assert held["lock"]["found"].startswith(f"held by process {owner} on ")
    assert [free[name]["found"] for name in ("lock", "schema", "seal")] == ["free", str(VERSION), "fits"]
    assert free["runs/ledger.db"] == {"what": "runs/ledger.db", "ok": True, "found": "0 runs, whole"}
    DB.with_name("ledger.db.seal").unlink()
    found = checks()
    assert (found["seal"]["found"] != "fits", found["runs/ledger.db"]["ok"]) == (True, True)


def test_another_file_and_another_version_are_problems_and_stay_as_they_are() -> None:
    with closing(sqlite3.connect("old.db")) as db:
        db.executescript(SCHEMA)
        db.execute("PRAGMA user_version = 1")
    Path("noise.db").write_bytes(b"noise " * 1000)
    for name, said in (("old.db", "another version"), ("noise.db", "")):
        before = Path(name).read_bytes()
        found = checks("--db", name)[name]
        assert (found["ok"], said in found["found"], Path(name).read_bytes()) == (False, True, before)


def test_variables_are_told_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks()
    names = ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "tracing")
    assert [found[name]["found"] for name in names] == ["not set"] * 3 + ["none is set"]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:pass-word-1@gateway.example/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-this-is-never-shown")
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "somewhere-private")
    found = checks()
    base = "openai/NAME and openai-compatible/NAME: rows go to http://gateway.example/v1"
    assert [found[name]["found"] for name in names[::2]] == [base, "set"]
    for name in ("LANGSMITH_TRACING", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        assert name in found["tracing"]["found"]
    for secret in ("pass-word-1", "sk-this", "somewhere-private"):
        assert secret not in json.dumps(found) + optimize("doctor").output
    monkeypatch.setenv("OPTIMIZE_ALLOW_TRACING", "1")
    assert "may leave this machine" in checks()["tracing"]["found"]


def test_weights_are_here_or_say_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        for name in ("HOME", "XDG_CACHE_HOME"):
            patch.delenv(name, raising=False)
        patch.setattr(os, "getuid", lambda: 98765)
        found = checks()["local/smollm2-135m"]
        assert (found["ok"], "set OPTIMIZE_CACHE" in found["found"]) == (False, True)
    monkeypatch.setenv("OPTIMIZE_CACHE", str(tmp_path / "nothing"))
    assert good_json("models", "list")["weights"][0]["here"] is False
    assert optimize("doctor").exit_code == 1
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"GGUF")
    monkeypatch.setattr("agent.models.weights.weights_path", lambda name: weights)
    monkeypatch.setattr("agent.jobs.doctor.version_of", lambda package: "1.0")
    assert good_json("doctor")["healthy"] is True
    assert "PROBLEM" not in good("doctor")


def test_the_disk_the_prices_and_the_known_bug_of_sqlite_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks("--db", "not/yet/there.db")
    assert (found["disk"]["ok"], "fsync takes" in found["disk"]["found"], Path("not").exists()) == (True, True, False)
    assert found["prices"]["found"].startswith("genai-prices ")
    for version, has_bug in (((3, 51, 2), True), ((3, 51, 3), False), ((3, 46, 1), True)):
        monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
        assert ("WAL-reset" in checks()["sqlite"]["found"]) is has_bug


def test_what_is_optional_and_not_installed_is_not_called_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_here", lambda extra: extra != "wandb")
    found = checks()
    assert (found["wandb"]["ok"], found["wandb"]["found"].startswith("not installed; pip install")) == (None, True)
    assert found["OPENAI_API_KEY"]["ok"] is None
    lines = optimize("doctor").stdout.splitlines()
    assert [line.split("\t")[1] for line in lines if line.startswith(("wandb", "dspy"))] == ["ok", "-"]
