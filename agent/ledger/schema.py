"""The tables of ledger.db as numbered steps: a step is only ever added, never changed. Knows no live code.

`calls` holds one row per attempt or cache hit: state is reserved -> sent -> ok | error | unknown, or cached. Payloads
lie in `blobs` by SHA-256, so that a text can be erased while the history around it stays. `events` is a hash chain.
"""

from __future__ import annotations

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, task TEXT NOT NULL, folder TEXT NOT NULL, status TEXT NOT NULL, model TEXT NOT NULL,
        proposer TEXT NOT NULL, seed INTEGER NOT NULL, started_utc TEXT NOT NULL, ended_utc TEXT, tool TEXT NOT NULL,
        python TEXT NOT NULL, sqlite TEXT NOT NULL, hashes TEXT NOT NULL, budget TEXT NOT NULL, plan TEXT, result TEXT,
        tags TEXT NOT NULL DEFAULT '{}'
    );
    CREATE TABLE candidates (
        id TEXT PRIMARY KEY, technique TEXT NOT NULL, format TEXT NOT NULL, role TEXT NOT NULL,
        instruction TEXT NOT NULL, n_demos INTEGER NOT NULL, template TEXT NOT NULL
    );
    CREATE TABLE demos (
        candidate_id TEXT NOT NULL REFERENCES candidates(id), position INTEGER NOT NULL, example_id TEXT NOT NULL,
        inputs TEXT NOT NULL, outputs TEXT NOT NULL, rationale TEXT NOT NULL, source TEXT NOT NULL,
        PRIMARY KEY (candidate_id, position)
    );
    CREATE TABLE proposals (
        run_id TEXT NOT NULL REFERENCES runs(id), round INTEGER NOT NULL, candidate_id TEXT NOT NULL,
        parent_id TEXT, operator TEXT NOT NULL, reason TEXT NOT NULL, rejected TEXT NOT NULL,
        PRIMARY KEY (run_id, candidate_id)
    );
    CREATE TABLE trials (
        run_id TEXT NOT NULL REFERENCES runs(id), number INTEGER NOT NULL, round INTEGER NOT NULL,
        candidate_id TEXT NOT NULL REFERENCES candidates(id), state TEXT NOT NULL, n INTEGER NOT NULL, mean REAL,
        low REAL, high REAL, reason TEXT NOT NULL, PRIMARY KEY (run_id, number)
    );
    CREATE TABLE outcomes (
        run_id TEXT NOT NULL REFERENCES runs(id), split TEXT NOT NULL, candidate_id TEXT NOT NULL,
        example_id TEXT NOT NULL, value REAL, reply TEXT NOT NULL, fields TEXT NOT NULL, error TEXT NOT NULL,
        scores TEXT NOT NULL, call_key TEXT NOT NULL, PRIMARY KEY (run_id, split, candidate_id, example_id)
    );
    CREATE TABLE calls (
        id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs(id), role TEXT NOT NULL, model TEXT NOT NULL,
        call_key TEXT NOT NULL, candidate_id TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL,
        finish TEXT, prompt_tokens INTEGER NOT NULL DEFAULT 0, cached_prompt_tokens INTEGER NOT NULL DEFAULT 0,
        completion_tokens INTEGER NOT NULL DEFAULT 0, cost_usd REAL NOT NULL DEFAULT 0,
        reserved_usd REAL NOT NULL DEFAULT 0, latency_s REAL, error_class TEXT, error TEXT, sent_utc TEXT NOT NULL,
        request_hash TEXT NOT NULL, response_hash TEXT
    );
    CREATE INDEX calls_by_key ON calls(call_key, state);
    CREATE INDEX calls_by_run ON calls(run_id, role, state);
    CREATE TABLE blobs (hash TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, utc TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
        prev_hash TEXT NOT NULL, hash TEXT NOT NULL
    );
    CREATE TRIGGER events_append_only_update BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
    CREATE TRIGGER events_append_only_delete BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
    CREATE TRIGGER events_in_sequence BEFORE INSERT ON events
        WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM events)
        BEGIN SELECT RAISE(ABORT, 'events have no gaps'); END;
    """,
)
