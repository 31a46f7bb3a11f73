"""Data files as people have them: in other encodings, of several sheets, with HTML in their cells."""

import csv
import io
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import promptassay as pa
from agent.safe_file import as_utf8, told
from agent.task.html_text import is_html, strip_html
from tests.cases import each_case
from tests.cli.test_apply import words, written
from tests.cli.world import INSTRUCTION, files, good, good_json, learner, optimize, refused
from tests.conftest import Made
from tests.wire import WireServer

MODEL = "openai-compatible/x@http://127.0.0.1:9/v1"
CP1252 = [letter for at in range(1, 256) if (letter := bytes([at]).decode("cp1252", "ignore"))]


def table(**more: str) -> str:
    """The rows of `files` with German letters, as CSV."""
    files(120)
    with open("rows.csv", encoding="utf-8", newline="") as file:
        rows = [row | {"text": f"{row['text']} für Köln"} | more for row in csv.DictReader(file)]
    text = io.StringIO()
    made = csv.DictWriter(text, [*rows[0]])
    made.writeheader()
    made.writerows(rows)
    return text.getvalue()


def asked(name: str, *more: str) -> tuple[str, ...]:
    return ("run", name, "--target", "label", "--prompt", INSTRUCTION, "-m", MODEL, "--dry-run", *more)


def shown(name: str, *more: str) -> list[str]:
    """The lines of a dry run."""
    done = optimize(*asked(name, *more))
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-be"])
def test_a_file_in_another_encoding_is_read_and_a_line_says_so(encoding: str) -> None:
    Path("plain.csv").write_text(text := table(), "utf-8")
    Path("rewritten.csv").write_bytes(text.encode(encoding))
    (line, *lines), plain = shown("rewritten.csv"), shown("plain.csv")
    assert line == f"rewritten.csv: read as {encoding} (not UTF-8); --encoding NAME sets another"
    assert [each.replace("rewritten", "plain") for each in lines] == plain
    assert not any("read as" in each for each in shown("rewritten.csv", "--encoding", encoding))


def test_a_wrong_encoding_is_refused() -> None:
    Path("rewritten.csv").write_bytes(table().encode("cp1252"))
    for encoding, says in (
        ("klingon", "no encoding 'klingon'"),
        ("utf-8", "byte 0xfc is not UTF-8"),
        ("utf-16", "is not utf-16"),
    ):
        assert says in refused(2, *asked("rewritten.csv", "--encoding", encoding))[0]
    Path("damaged.csv").write_bytes(table().encode("utf-8").replace("für".encode(), b"f\xfcr", 1))
    assert "is not UTF-8" in refused(2, *asked("damaged.csv"))[0]


@given(st.text(st.sampled_from(CP1252), min_size=1))
@example("Straße")
def test_text_in_cp1252_is_never_read_as_another_text(text: str) -> None:
    data = text.encode("cp1252")
    if told(data) == "cp1252":
        assert as_utf8(data, "x") == (text.encode(), "cp1252")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")))
def test_utf_8_is_always_read_as_it_is(text: str) -> None:
    assert as_utf8(text.encode(), "x") == (text.encode(), "")
    assert as_utf8(text.encode("utf-16"), "x") == (text.encode(), "utf-16")


def workbook() -> None:
    book = openpyxl.Workbook()
    rows = list(csv.reader(io.StringIO(table())))
    book.active.title = "Jan"
    for row in rows:
        book.active.append(row)
    other = book.create_sheet("Feb")
    for row in [rows[0], *rows[61:]]:
        other.append(row)
    book.save("orders.xlsx")


def test_the_sheet_that_was_read_is_named_and_another_can_be() -> None:
    workbook()
    lines = shown("orders.xlsx")
    assert lines[0] == 'orders.xlsx: sheet "Jan" of 2 was read; --sheet NAME reads another: Feb'
    assert lines[1].startswith("orders.xlsx: 120 rows")
    lines = shown("orders.xlsx", "--sheet", "Feb")
    assert lines[0] == 'orders.xlsx: sheet "Feb" of 2 was read; --sheet NAME reads another: Jan'
    assert lines[1].startswith("orders.xlsx: 60 rows")
    (line,) = refused(2, *asked("orders.xlsx", "--sheet", "Fab"))
    assert line == "error: orders.xlsx:1: no sheet 'Fab'; did you mean 'Feb'? Known: Jan, Feb"
    assert "--sheet goes with .xlsx" in refused(2, *asked("rows.csv", "--sheet", "Feb"))[0]
    assert "--encoding goes with text files" in refused(2, *asked("orders.xlsx", "--encoding", "cp1252"))[0]


def with_html() -> str:
    return "".join(
        f"{line.replace(' für Köln', '<br>f&uuml;r K&ouml;ln</p>')}\n" if at else f"{line}\n"
        for at, line in enumerate(table().splitlines())
    )


def test_html_in_a_column_is_said_and_taken_out_of_the_inputs() -> None:
    Path("mails.csv").write_text(with_html(), "utf-8")
    lines = shown("mails.csv")
    assert lines[0] == "column 'text': HTML in 120 of 120 rows; --strip-html takes it out"
    assert "optimize apply --strip-html" in shown("mails.csv", "--strip-html")[0]
    good("init", "mails", "--from", "mails.csv", "--target", "label", "--strip-html")
    rows = Path("tasks/mails/train.jsonl").read_text("utf-8")
    assert "für Köln" in rows
    assert "<br>" not in rows
    assert not any("HTML" in line for line in shown("rows.csv"))


def test_apply_asks_without_html_and_writes_the_rows_as_they_are(two_runs: Made) -> None:
    texts = ["<p>the invoice</p><p>&amp; the vat</p>", "<b>parcel</b> courier"]
    Path("mail.csv").write_text("text\n" + "\n".join(texts) + "\n", "utf-8")
    given_words: tuple[Any, ...] = ("apply", two_runs[0]["release"], "mail.csv", "-o", "out.csv")
    with WireServer(learner) as server:
        told_ = good_json(*given_words, *words(server))
        assert told_["notes"] == ["column 'text': HTML in 2 of 2 rows; --strip-html takes it out"]
        assert all("<" in request.body["messages"][-1]["content"] for request in server.requests)
        asked_before = len(server.requests)
        told_ = good_json(*given_words, "--strip-html", *words(server))
        sent = [request.body["messages"][-1]["content"] for request in server.requests[asked_before:]]
    assert told_["notes"] == []
    assert any("the invoice\n& the vat" in text for text in sent)
    assert not any("<" in text for text in sent)
    assert [row["text"] for row in written("out.csv")] == texts


def test_rows_that_are_added_to_label_are_read_the_same() -> None:
    Path("mails.csv").write_bytes(with_html().encode("cp1252"))
    from agent.jobs.unlabelled import table_of
    from agent.options.shared import FormOptions

    Path("mails.txt").write_bytes("für <b>Köln</b>\n".encode("cp1252"))
    rows, notes, _ = table_of(Path("mails.txt"), FormOptions(strip_html=True))
    assert rows == [(1, {"text": "für Köln"})]
    assert notes[0] == "mails.txt: read as cp1252 (not UTF-8); --encoding NAME sets another"


@each_case(
    ("html", "text"),
    [
        ("""<img alt="a > b" src='x'> cat <a title='1>0' href="u">link</a>""", "cat link"),
        ("<p title=don't>one</p><p title=\">two<br/>three", "one\ntwo\nthree"),
        ("<p>a<!-- > b", "a"),
        ("a<script>if (a < b) x()</script><br>&lt;p&gt;", "a\n<p>"),
        *(("<br>" + text * 20_000, text * 20_000) for text in ("<", '<a x="', "<a href='")),
    ],
)
def test_tags_go_and_text_stays(html: str, text: str) -> None:
    assert strip_html(html) == text


@given(st.text("ab <>/&;p\n-!", max_size=60))
@example("<!--")
@example("<p")
@example("a < b and c > d <bob@example.org>")
def test_stripping_never_fails_and_keeps_what_is_no_html(text: str) -> None:
    made = strip_html(text)
    if not is_html(text):
        assert made == text
    assert pa.strip_html(text) == made
