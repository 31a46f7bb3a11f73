"""`optimize text`: a file is mended by bounded edits, scored by a command, and compared with no file on sealed rows."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

import promptassay as pa
from agent.errors import RowRefused, RunRefused
from agent.programs.text_file import TextCommand
from agent.types import Message, Request, Rollouts
from tests.cases import each_case
from tests.cli.text_world import COMMAND, LEFT_OUT, PLAIN, Editor, agents_md, is_right, runs, write_world
from tests.cli.world import good, good_json, optimize, refused
from tests.scripted import Toys
from tests.toys import is_alive, until

WORDS = ("text", "AGENTS.md", "--rows", "rows.jsonl", "--eval", COMMAND)
SMALL = {"rows": 90, "sections": 12}


def test_a_wrong_sentence_of_a_long_file_is_replaced_and_the_file_itself_stays(toys: Toys) -> None:
    write_world("date", ("date", PLAIN))
    own, editor = Path("AGENTS.md").read_bytes(), Editor()
    words = (*WORDS, "--proposer", toys(editor).name, "--max-runs", "400", "--prefer", "short", "-o", "new.md")
    plan = good(*words, "--dry-run")
    assert f"a call of command/score.sh is one run of: {COMMAND}" in plan
    assert (runs(), editor.asked) == (0, 0)
    told = optimize(*words)
    assert told.exit_code == 0, told.output
    assert "Better: " in told.stdout
    assert "-Write the date of an invoice month first.\n+Write the date of an invoice day first." in told.stdout
    assert "no file scores" in told.stdout
    assert "wrote new.md" in told.stderr
    assert editor.longest < 20_000 < len(own)
    assert Path("AGENTS.md").read_bytes() == own
    found = good_json("show")["result"]
    assert found["winner"]["test"] == 1.0
    assert is_right(Path("new.md").read_text("utf-8"))
    assert (Path(found["release"]).parent / "file" / "AGENTS.md").read_bytes() == Path("new.md").read_bytes()
    assert found["calls"]["model"] == runs() <= 400
    assert found["cost_usd"] == pytest.approx(0.001 * runs())
    assert pa.load_texts(found["release"])["file:AGENTS.md"] == Path("new.md").read_text("utf-8")
    good("reproduce")
    assert "whole: " in good("audit", "verify")
    assert found["calls"]["model"] == runs(), "a replay runs no command"


def test_eval_is_also_called_command() -> None:
    """Its name in Python, which the help does not list."""
    write_world("date", **SMALL)
    given = tuple("--command" if word == "--eval" else word for word in WORDS)
    assert good(*given, "--dry-run") == good(*WORDS, "--dry-run")
    assert "--command" not in good("text", "--help")


def test_a_file_that_only_hurts_is_told() -> None:
    write_world("", (LEFT_OUT, PLAIN), rows=160, sections=4)
    told = optimize(*WORDS, "--max-runs", "400", "-o", "new.md", "-q")
    assert told.stdout.lstrip().startswith("No file is better: +")
    assert "AGENTS.md is best left out; nothing is written or deleted" in told.stderr
    assert not Path("new.md").exists()
    assert Path("AGENTS.md").read_text("utf-8") == agents_md("", 4)
    found = good_json("show")["result"]
    assert (found["references"][0]["test"], found["winner"]["prompt_tokens"]) == (1.0, 0)
    assert "Better" not in good("runs")


def test_a_file_that_helps_is_kept_and_no_file_is_compared() -> None:
    write_world("", ("amount", PLAIN), **SMALL)
    told = optimize(*WORDS, "--max-runs", "300", "-o", "new.md", "-q")
    assert "Keep your texts: " in told.stdout
    assert "your texts against it: +" in told.stdout
    assert "AGENTS.md is best as it is; nothing is written" in told.stderr
    Path("score.sh").write_text(Path("score.sh").read_text("utf-8").replace('touch "$1"', "exit 3"), "utf-8")
    assert "Keep your texts: " in good(*WORDS, "--max-runs", "150", "-q")
    Path("score.sh").write_text("#!/bin/sh\n[ -f $1 ] || exit 3\necho '{\"score\": 0.5}'\n", "utf-8")
    assert "no file has no score: command/score.sh: ended with exit code 3" in good(*WORDS, "--max-runs", "150", "-q")


def run_killed(*words: str) -> None:
    if not (pid := os.fork()):
        optimize(*words)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def test_a_killed_run_is_resumed_and_no_run_is_bought_twice(toys: Toys) -> None:
    write_world("date", ("date", PLAIN), **SMALL)
    words = (*WORDS, "--max-runs", "200", "--max-concurrency", "1", "-q", "--proposer", toys(Editor()).name)
    good(*words, "--db", "whole/ledger.db")
    whole = runs()
    Path("runs.log").unlink()
    script = Path("score.sh").read_text("utf-8")
    kill = '[ "$(wc -l < runs.log)" -eq 80 ] && [ ! -f killed ] && touch killed && kill -9 $PPID'
    Path("score.sh").write_text(script.replace("echo run >> runs.log", f"echo run >> runs.log\n{kill}"), "utf-8")
    run_killed(*words)
    assert good_json("resume", "-q")["decision"] == "promote"
    assert runs() == whole + 1, "the run that the kill cut off, and no other, is made again"
    assert "whole: " in good("audit", "verify")


def test_a_run_is_not_continued_with_another_command_or_file() -> None:
    write_world("date", ("date", PLAIN), **SMALL)
    Path("score.sh").write_text("#!/bin/sh\necho run >> runs.log\nkill -9 $PPID\n", "utf-8")
    run_killed(*WORDS, "-q")
    Path("score.sh").write_text("#!/bin/sh\n", "utf-8")
    Path("AGENTS.md").write_text("Others.\n", "utf-8")
    told = "\n".join(refused(2, "resume"))
    assert "the command changed" in told
    assert "AGENTS.md changed" in told


def test_no_cap_on_runs_dollars_or_time_is_passed() -> None:
    write_world("date", ("date", PLAIN), **SMALL)
    for cap in (84, 120):
        good(*WORDS, "--max-runs", str(cap), "--db", f"{cap}/ledger.db", "-q")
        assert 0 < runs() <= cap
        Path("runs.log").unlink()
    assert "--max-runs = 40 is too few" in refused(3, *WORDS, "--max-runs", "40")[-1]
    optimize(*WORDS, "--max-cost", "0.05", "--max-runs", "300", "-q", "--db", "cost/ledger.db")
    assert 0 < runs() <= 50, "each costs 0.001 dollars"
    Path("score.sh").write_text("#!/bin/sh\necho run >> runs.log\nsleep 60 & echo $! >> pids\nwait\n", "utf-8")
    told = "\n".join(refused(1, *WORDS, "--seconds", "0.3", "-q", "--db", "late/ledger.db"))
    assert "command/score.sh: took longer than 0.3 s; a row needs a score and exit code 0" in told
    pids = [int(pid) for pid in Path("pids").read_text("utf-8").split()]
    assert pids
    asyncio.run(until(lambda: not any(map(is_alive, pids))))  # what a command started ends with it


@each_case(
    "body, words",
    [
        ("true", "no score"),
        ("echo nothing", "no score"),
        ("echo '[]'", "it is not {"),
        ("echo '{\"score\": 1.5}'", "score 1.5 is not a number from 0 to 1"),
        ("echo '{\"score\": true}'", "it is not {"),
        ("echo '{\"score\": NaN}'", "is not finite"),
        ('echo \'{"score": 1, "score": 0}\'', "stands twice"),
        ('echo \'{"score": 1, "reason": [1]}\'', "are not a text"),
        ('echo \'{"score": 1, "cost_usd": -1}\'', "it is not {"),
        ("echo '{\"score\": 1}'; echo more", "no score"),
        ("head -c 100000 /dev/zero | tr '\\0' '['", "nested too deeply"),
        ("head -c 3000000 /dev/zero", "printed more than 1,000,000 bytes"),
        ("printf '\\377\\376{\\n'", "no score"),
        (
            "echo first >&2; echo 'key sk-abcdefgh12345678 \x1b[2J' >&2; exit 7",
            "exit code 7: first | key [key]",
        ),
        ("kill -9 $$", "was ended by SIGKILL"),
        ("sleep 30", "took longer than 0.5 s"),
    ],
)
def test_what_a_command_prints_or_does_that_is_no_score_leaves_the_row_unscored(body: str, words: str) -> None:
    script(body)
    with pytest.raises(RowRefused) as why:
        score("a text", "{}")
    assert words in str(why.value), why.value
    assert str(why.value).startswith("command/own.sh: ")
    assert str(why.value).isprintable()
    assert len(str(why.value)) < 3000


def test_a_command_gets_its_own_folder_and_its_last_line_is_read() -> None:
    said = r'{"score": 0.25, "reason": "a\u001b[2Jb", "more": 1}'
    script(f'echo chatter; printf %s "$(cat "$1" "$2" 2>/dev/null)" > got\ncat <<END\n{said}\nEND')
    assert json.loads(score("a text", '{"n": 1}')) == {"score": 0.25, "reason": r"a\x1b[2Jb", "cost_usd": 0.0}
    assert Path("got").read_text("utf-8") == 'a text{"n": 1}'
    score("", '{"n": 1}')
    assert Path("got").read_text("utf-8") == '{"n": 1}', "no file is a path that does not exist"
    with pytest.raises(RunRefused, match="cannot be started"):
        score("a text", "{}", "./none.sh")


def test_a_script_within_the_command_may_be_long() -> None:
    write_world("", ("amount", PLAIN), **SMALL)
    inline = f"sh -c '{'true; ' * 99}exec sh score.sh $0 $1' {{file}} {{row}}"
    assert "a call of command/sh is one run of: " in good(*WORDS[:-1], inline, "--dry-run")


def script(body: str) -> None:
    Path("own.sh").write_text(f"#!/bin/sh\n{body}\n", "utf-8")
    Path("own.sh").chmod(0o755)


def score(text: str, row: str, command: str = "./own.sh") -> str:
    async def scored() -> str:
        made = TextCommand(
            Rollouts(command=(command, "{file}", "{row}"), seconds=0.5 if text else 5.0, kind="text_file"), "AGENTS.md"
        )
        try:
            return (await made.complete(Request((Message("system", text), Message("user", row)), 0))).text
        finally:
            await made.close()

    return asyncio.run(scored())


@each_case(
    "more, words",
    [
        (("--eval", "sh score.sh {file}"), "--eval: lacks {row}"),
        (("--eval", "sh 'x"), "No closing quotation"),
        (("--eval", "./none.sh {file} {row}"), "'./none.sh' is no program that can be run"),
        (("--rows", "few.jsonl"), "few.jsonl: has 1 different rows; give 20 or more"),
        (("--rows", "none.jsonl"), "none.jsonl"),
        (("--rows", "AGENTS.md"), "unknown kind of file '.md'"),
        (("--repeats", "0"), "--repeats"),
        (("--proposer", "gpt-9"), "gpt-9"),
    ],
)
def test_what_is_wrong_is_told_before_a_run(more: tuple[str, ...], words: str) -> None:
    write_world("", ("amount", PLAIN), **SMALL)
    Path("few.jsonl").write_text('{"a": 1}\n', "utf-8")
    told = "\n".join(refused(2, *WORDS, *more))
    assert words in told, told
    assert runs() == 0
    Path("AGENTS.md").write_text(" \n", "utf-8")
    told = "\n".join(refused(2, *WORDS, *more))
    assert more[0] != "--eval" or ("AGENTS.md:1: is empty" in told and words in told), told
