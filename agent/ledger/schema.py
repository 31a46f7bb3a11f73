"""The tables of ledger.db as numbered steps: a step is only ever added, never changed. Knows no live code but the SQL
function `sha256(text)`, which the connection must have.

`calls` holds one row per attempt or cache hit: reserved -> sent -> ok | error | unknown, or cached. Payload texts lie
in `blobs` by SHA-256, and rows name them in columns that end in `_hash`: a text can be erased while the history around
it stays. `events` is a hash chain that describes every row of the tables in `AUDITED`; `head` holds its last link.
"""

from __future__ import annotations

from collections.abc import Mapping

AUDITED: Mapping[str, tuple[str, ...]] = {
    "runs": ("id",),
    "candidates": ("id",),
    "demos": ("candidate_id", "position"),
    "proposals": ("run_id", "candidate_id"),
    "trials": ("run_id", "number"),
    "outcomes": ("run_id", "split", "candidate_id", "example_id"),
    "calls": ("id",),
    "owner": ("id",),
}
"""Each table that the chain describes, with the columns of its primary key."""

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
    """
    ALTER TABLE runs ADD COLUMN parent TEXT;
    ALTER TABLE runs ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN origin TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE runs ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE runs ADD COLUMN prices TEXT NOT NULL DEFAULT '';
    ALTER TABLE runs ADD COLUMN result_hash TEXT;
    INSERT OR IGNORE INTO blobs SELECT sha256(result), result FROM runs WHERE result IS NOT NULL;
    UPDATE runs SET result_hash = sha256(result) WHERE result IS NOT NULL;
    ALTER TABLE runs DROP COLUMN result;

    ALTER TABLE candidates ADD COLUMN instruction_hash TEXT NOT NULL DEFAULT '';
    ALTER TABLE candidates ADD COLUMN template_hash TEXT NOT NULL DEFAULT '';
    INSERT OR IGNORE INTO blobs SELECT sha256(instruction), instruction FROM candidates;
    INSERT OR IGNORE INTO blobs SELECT sha256(template), template FROM candidates;
    UPDATE candidates SET instruction_hash = sha256(instruction), template_hash = sha256(template);
    ALTER TABLE candidates DROP COLUMN instruction;
    ALTER TABLE candidates DROP COLUMN template;

    ALTER TABLE demos ADD COLUMN body_hash TEXT NOT NULL DEFAULT '';
    INSERT OR IGNORE INTO blobs SELECT sha256(body), body FROM (SELECT json_object(
        'inputs', json(inputs), 'outputs', json(outputs), 'rationale', rationale) AS body FROM demos);
    UPDATE demos SET body_hash = sha256(json_object(
        'inputs', json(inputs), 'outputs', json(outputs), 'rationale', rationale));
    ALTER TABLE demos DROP COLUMN inputs;
    ALTER TABLE demos DROP COLUMN outputs;
    ALTER TABLE demos DROP COLUMN rationale;

    ALTER TABLE outcomes ADD COLUMN body_hash TEXT NOT NULL DEFAULT '';
    INSERT OR IGNORE INTO blobs SELECT sha256(body), body FROM (SELECT json_object(
        'fields', json(fields), 'error', error, 'scores', json(scores)) AS body FROM outcomes);
    UPDATE outcomes SET body_hash = sha256(json_object(
        'fields', json(fields), 'error', error, 'scores', json(scores)));
    ALTER TABLE outcomes DROP COLUMN reply;
    ALTER TABLE outcomes DROP COLUMN fields;
    ALTER TABLE outcomes DROP COLUMN error;
    ALTER TABLE outcomes DROP COLUMN scores;

    ALTER TABLE calls ADD COLUMN prefix_hash TEXT NOT NULL DEFAULT '';
    ALTER TABLE calls ADD COLUMN reserved_tokens INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE calls ADD COLUMN served_model TEXT;
    ALTER TABLE calls ADD COLUMN http_status INTEGER;
    ALTER TABLE calls ADD COLUMN retry_after REAL;
    CREATE INDEX calls_by_candidate ON calls(run_id, candidate_id);
    CREATE INDEX calls_open ON calls(id) WHERE state IN ('reserved', 'sent');

    CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL);
    INSERT INTO head SELECT 1, COALESCE(MAX(seq), 0),
        COALESCE((SELECT hash FROM events ORDER BY seq DESC LIMIT 1), printf('%064d', 0)) FROM events;
    CREATE TABLE owner (
        id INTEGER PRIMARY KEY CHECK (id = 1), host TEXT NOT NULL, pid INTEGER NOT NULL, boot_id TEXT NOT NULL,
        since_utc TEXT NOT NULL
    );
    CREATE VIEW prompts AS
        SELECT c.*, i.body AS instruction, t.body AS template FROM candidates c
        LEFT JOIN blobs i ON i.hash = c.instruction_hash LEFT JOIN blobs t ON t.hash = c.template_hash;
    """,
    "ALTER TABLE calls ADD COLUMN written_prompt_tokens INTEGER NOT NULL DEFAULT 0;",
    "ALTER TABLE runs ADD COLUMN error TEXT NOT NULL DEFAULT '';",
)
