"""Blocks on a screen and on a page: the same cells; what does not fit is hidden and named; no text steers either.

The screens of commands at 80 and 120 columns are snapshots; here are other widths, colours and terminals.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping
from typing import Any

import click.testing
import pytest
from rich.cells import cell_len

from agent.report.blocks import (
    ChartBlock,
    Column,
    DiffBlock,
    PageCell,
    PageSection,
    cells,
    filled,
    group,
    line,
    sentence,
    short,
    table,
    text,
)
from agent.report.html import environment
from agent.report.page_blocks import Button, FormBlock, FormField
from agent.report.screen import fit
from agent.report.terminal import LEVELS, lines_of, rendered, sparkline, whisker, won_and_lost
from tests.cli.test_untrusted import CONTROL, EVIL
from tests.cli.world import good, good_json
from tests.report.pages import Page

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HEADS = ("metric", "your prompt (95 % CI) #", "best found (95 % CI) #", "difference (95 % CI) #")
ROWS = [("exact", "52.0 (42.0 to 61.9)", "78.0 (68.7 to 85.3)", "+26.0 (+15.0 to +36.0)")]


class _Screen(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def on_screen(monkeypatch: pytest.MonkeyPatch, width: int, *blocks: Any) -> list[str]:
    monkeypatch.setattr(sys, "stdout", _Screen())
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    return [COLOUR.sub("", line) for line in rendered(blocks)]


def on_page(block: Any) -> Page:
    parts: Any = environment().get_template("parts.html").module
    return Page(f"<main>{parts.block(block)}</main>")


def test_a_pipe_gets_whole_columns_and_a_narrow_screen_hides_intervals_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made = table("By metric", HEADS, ROWS, note="of 100 rows")
    title, heads, row, note = rendered([made])
    assert (title, note) == ("By metric", "of 100 rows")
    assert [name.removesuffix(" #") in heads for name in HEADS] == [True] * 4
    assert all(cell in row for cell in ROWS[0])
    wide, narrow = (on_screen(monkeypatch, width, made) for width in (120, 60))
    assert all(cell in wide[2] for cell in ROWS[0])
    assert narrow[2].split() == ["exact", "52.0", "78.0", "+26.0", "(+15.0", "to", "+36.0)"]
    assert max(map(len, narrow)) <= 60


def test_a_table_that_must_be_whole_gives_way_to_what_it_has_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = ("right answer", *(f"{'l' * 30}{at} #" for at in range(6)))
    made = table("matrix", heads, [("a", *range(6))], instead=text("a read as b: 2 of 3", heading="worst"))
    assert rendered([made]) == on_screen(monkeypatch, 80, made) == ["worst", "  a read as b: 2 of 3"]
    assert on_screen(monkeypatch, 300, made)[0] == "matrix"
    assert {"table", "li"} <= set(on_page(made).structure), "a page shows both"


def test_commands_are_in_one_piece_on_any_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "optimize export RUN --format python -o " + "x" * 80
    made = table("next:", (Column(""), Column("", "code")), [("write it", command)])
    assert on_screen(monkeypatch, 40, made) == ["next:", f"  write it  {command}"]
    assert on_page(made).structure[1:] == ["dl", "dt", "dd", "code"]


def test_long_lines_are_wrapped_between_words_and_a_prompt_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "word " * 20
    assert max(map(len, on_screen(monkeypatch, 40, text(words)))) <= 40
    assert on_screen(monkeypatch, 40, text(words, exact=True, heading="prompt"))[1].split() == words.split()


def test_a_surface_shows_its_own_blocks_and_columns() -> None:
    made = table("t", (Column("a"), Column("s", on="screen"), Column("p", on="page")), [(1, 2, 3)])
    section = PageSection("x", "X", filled(made, text("screen", on="screen"), text("page", on="page"), text("")))
    assert lines_of([section]) == ["", "t", "  a  s", "  1  2", "screen"]
    assert section.as_dict()["blocks"] == [
        {"table": "t", "columns": ["a", "p"], "rows": [["1", "3"]], "note": ""},
        {"text": "", "lines": ["page"]},
    ]
    assert on_page(made).tables["t"] == [["a", "p"], ["1", "3"]]
    chart = ChartBlock("c", "C", lambda: pytest.fail("a screen draws nothing"), made)
    assert rendered([chart]) == rendered([made])


@pytest.mark.parametrize("words", [True, False])
def test_a_diff_shows_what_is_gone_and_what_is_new(words: bool) -> None:
    made = DiffBlock("say yes", "say no", "diff", words=words)
    lines = rendered([made])
    assert lines[0] == "diff"
    assert lines[-1] == ("say [-yes-]{+no+}" if words else "+say no")
    assert rendered([DiffBlock("a", "a", words=words)]) == ["(the same)"]
    assert {"del", "ins"} <= set(on_page(made).structure)


def test_untrusted_text_steers_neither_screen_nor_page(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = f"{EVIL}<b>x</b>[red]"
    blocks = (
        table(evil, (Column(evil), evil), [(evil, evil)], note=evil),
        text(evil, heading=evil),
        text(evil, exact=True, heading=evil),
        DiffBlock("", evil, evil),
    )
    for lines in (rendered(blocks), on_screen(monkeypatch, 200, *blocks)):
        assert not CONTROL.search("\n".join(lines).replace("\n", ""))
        assert "[red]" in "".join(lines)
    for block in blocks:
        assert "b" not in on_page(block).structure


def test_a_listing_is_tabs_in_a_pipe_also_without_rows() -> None:
    made = table("t", ("a", Column("b", on="page"), "c #"), [("x\ty", "hidden", 1)], tabbed=True)
    assert rendered([made, table("", ("a",), [], tabbed=True)]) == ["a\tc", "x y\t1", "a"]


def test_a_form_sends_what_its_fields_and_buttons_say_and_a_screen_has_none() -> None:
    row = (
        cells(PageCell("Compare r1", "r1", "pick"), "r1"),
        PageCell("r1", "/run/r1"),
        PageCell("good one", tag="good"),
    )
    fields = (
        FormField("text", EVIL, "has", more={"size": 4}),
        FormField("state", "b", "state", "select", ("", "a", "b")),
        FormField("rows", "won", kind="hidden"),
    )
    listed = table("runs", ("pick", "run", "state"), [row])
    form = FormBlock("/compare", fields, (Button("Go", "ask", "g"),), blocks=(listed,))
    page = on_page(group(line("so ", PageCell("far", tag="strong"), look="soft"), form, tag="section", label="all"))
    found = {own.get("name"): own for tag, own in page.nodes if tag in ("input", "select", "button")}
    assert (found["pick"]["value"], found["rows"]["value"], found["action"]["value"]) == ("r1", "won", "ask")
    assert found["action"]["data-key"] == "g"
    assert [own for tag, own in page.nodes if tag == "option" and "selected" in own] == [{"selected": None}]
    assert "/run/r1" in page.links
    assert [cell.strip() for cell in page.tables["runs"][1]] == ["r1", "r1", "good one"]
    assert not CONTROL.search(found["text"]["value"] or "")
    assert rendered([form, line("x")]) == []


def test_texts_are_cut_and_made_into_sentences() -> None:
    assert (short("a\n b\x1b", 20), short("abcdef", 4)) == ("a b\\x1b", "abc…")
    assert [sentence(text) for text in ("it is", "Is it?", "")] == ["It is.", "Is it?", ""]


# -- commands on a terminal -------------------------------------------------------------------------------------------


def shown(monkeypatch: pytest.MonkeyPatch, width: int, *words: str, **variables: str) -> str:
    """What a command prints on a terminal of that width, with its colour codes."""
    for name, value in {"COLUMNS": str(width), "TERM": "xterm-256color", **variables}.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as patch:
        patch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda self: self.name == "<stdout>")
        return good(*words)


@pytest.mark.parametrize("width", [40, 60, 200])
def test_no_line_of_a_table_is_wider_than_the_terminal(
    runs: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    for words in (["runs"], ["history", runs["search"]], ["compare", runs["search"], runs["kept"]]):
        text = COLOUR.sub("", shown(monkeypatch, width, *words))
        assert max(map(cell_len, text.split("\n"))) <= width


def test_a_wide_terminal_has_all_cells_of_a_pipe_and_a_narrow_one_names_the_hidden_ones(
    runs: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads, *cells_of = [line.split("\t") for line in good("runs").splitlines() if "\t" in line]
    _, header, rule, *lines = COLOUR.sub("", shown(monkeypatch, 260, "runs")).splitlines()
    assert ([head for head in heads if head not in header], set(rule)) == ([], {"─"})
    for row, printed in zip([row for row in cells_of if len(row) == len(heads)], lines, strict=False):
        assert [cell for cell in row if cell not in printed] == []
    narrow = COLOUR.sub("", shown(monkeypatch, 80, "runs"))
    gone = narrow.partition("hidden (narrow terminal): ")[2].replace("\n", " ").strip().split(", ")
    assert [head for head in heads if (head in narrow.splitlines()[1].split()) == (head in gone)] == []


def test_colour_marks_gain_loss_and_pruned_and_can_be_turned_off(
    runs: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lift = runs["search"], good_json("show", runs["search"])["result"]["lift"]["diff"]
    assert f"\x1b[32m+{100 * lift:.1f}" in shown(monkeypatch, 120, "runs")
    trials = good_json("history", run)["trials"]
    assert {trial["state"] for trial in trials} >= {"complete", "pruned"}
    for printed, trial in zip(shown(monkeypatch, 120, "history", run).splitlines()[3:], trials, strict=False):
        assert ("\x1b[2m" in printed) == (trial["state"] == "pruned")
    best = max((trial for trial in trials if trial["state"] == "complete"), key=lambda trial: trial["mean"])
    both = [f"{run}:0", f"{run}:{best['number']}"]
    for pair, mark in ((both, "\x1b[32m▲"), (both[::-1], "\x1b[31m▼")):
        assert mark in shown(monkeypatch, 120, "compare", *pair)
    assert "\x1b" not in shown(monkeypatch, 90, "runs", TERM="dumb")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown(monkeypatch, 90, "runs", NO_COLOR="1"))


def test_a_terminal_without_our_letters_gets_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Screen, "encoding", "ascii")
    made = table("t", ("a", Column("curve", drawn=True)), [("12.5", sparkline([0.1, 0.9], 8))], tabbed=True)
    text_of = "\n".join(on_screen(monkeypatch, 80, made))
    assert "12.5" in text_of
    assert not set(text_of) & {*LEVELS, "─"}


# -- the pure parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "fitted"),
    [
        (56, {0: 10, 1: 10, 2: 10, 3: 20}), (50, {0: 10, 1: 10, 2: 10, 3: 14}), (43, {0: 10, 2: 10, 3: 19}),
        (20, {0: 10, 3: 8}), (5, {0: 10, 3: 8}),
    ],
)  # fmt: skip
def test_columns_go_by_rank_and_only_as_many_as_they_must(room: int, fitted: dict[int, int]) -> None:
    assert fit([0, 2, 1, 0], [10, 10, 10, 20], [10, 10, 10, 8], room) == fitted
    assert fit([0, 0], [30, 20], [5, 18], 32) == {0: 12, 1: 18}


def test_strips_draw_what_the_numbers_say() -> None:
    assert [sparkline(scores, 8) for scores in ([0.0, 0.5, 1.0], [])] == ["▁▅█", ""]
    assert sparkline([n / 100 for n in range(101)], 8) == "▁▂▃▄▅▆▇█"
    assert whisker(0.5, 0.2, 0.8, 10) == "  ───●─── "
    assert whisker(1.0, 1.0, 1.0, 4) == "   ●"
    assert whisker(0.0, None, None, 4) == "●   "
    assert whisker(None, None, None, 4) == ""
    assert won_and_lost([0.5, -0.1, 0.0]) == "▲▼·"
