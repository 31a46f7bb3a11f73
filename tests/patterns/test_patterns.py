"""No regular expression of the package takes more than a second on 100 KB, whatever the text."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from tests.patterns.measure import MOST
from tests.patterns.registry import ROOT, Found, patterns

NOT_LITERAL = {
    "agent/jobs/agent_sources.py: AGENT": "a name of a file and a function that were typed, of limited length",
    "agent/metrics/comparison.py: source": "a pattern of the user's: searched for in a child process, two seconds",
    "agent/metrics/text_match.py: pattern": "compiled to see whether it is valid; no text is searched",
    "agent/models/model_registry.py: start": "beginnings of model names in a table of ours, on a name that was typed",
    "agent/prompt/value_readers.py: name_pattern(choice)": "an escaped label, with one letter between its words",
    "agent/release/remembered.py: pattern": "escaped pieces of a layout in atomic groups: each is looked for once",
    "agent/report/charts.py: '|'.join(COLOURS)": "seven characters of a colour each, without a repeat",
    "agent/safe_data.py: pattern": "names of aliases and versions, measured where they are written, and 64 hex digits",
    "agent/redact.py: '|'.join(map(re.escape, ordered)) or '(?!)'": "escaped secrets, without a repeat",
}
"""Patterns that are not read from the code, with the reason why none of them is slow."""


def slow(found: Sequence[Found]) -> list[tuple[str, str, str]]:
    """Place, pattern and text of each that takes more than a second of processor time."""
    lines = [json.dumps((each.where, each.source, each.flags, each.methods)) for each in found]
    done = subprocess.run(
        [sys.executable, "-m", "tests.patterns.measure"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=20 * MOST,
        check=False,
    )
    assert done.returncode == 0, f"ended after {MOST} s of processor time: {done.stdout}{done.stderr}"
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_each_pattern_is_read_from_the_code_or_has_a_reason() -> None:
    found = patterns()
    assert len(found) > 200
    assert {f"{each.where.rpartition(':')[0]}: {each.argument}" for each in found if each.source is None} == set(
        NOT_LITERAL
    )
    for each in found:
        if each.source is not None:
            re.compile(each.source, each.flags)


def test_no_pattern_takes_more_than_a_second_on_100_kb() -> None:
    assert slow([each for each in patterns() if each.source is not None]) == []


def test_a_slow_pattern_is_seen() -> None:
    known = {
        "square, of blanks": (r"\s+$", "search"),
        "square, of what is not closed": (r"<b>.*?</b>", "finditer"),
        "exponential": (r"(?:a+)+b", "match"),
    }
    found = [Found(where, source, "", re.DOTALL, (how,)) for where, (source, how) in known.items()]
    assert [where for where, _, _ in slow(found)] == list(known)
    linear = [
        Found("linear", source, "", 0, ("finditer",)) for source in (r"\s+", r"(?<!\s)\s+$", r"(?<![a-z])[a-z]++\d")
    ]
    assert slow(linear) == []
