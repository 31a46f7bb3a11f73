"""Documents of each kind become sections; what cannot be read is refused with file, line and what to do."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from agent.documents import Section, TextBlock
from agent.errors import ProblemsError
from agent.extras import is_here
from agent.task import documents
from agent.task.documents import (
    MOST_PAGES,
    TEXTS,
    read_documents,
    read_html,
    read_markdown,
    read_pdf,
    read_table,
    read_text,
)
from agent.task.load import load_task
from tests.knowledge.planted import write_task

MARKDOWN = """\
Before.

# Cards

Version 2,
in force.

## Fees #

| Tier | Fee |
|:-----|----:|
| Harbour | £5 |
| Ocean | free |
After the table.

```
# no heading
```

# Loans

None.
"""
HTML = """\
<!doctype html><html><head><title>Cards</title><style>p {}</style></head><body>
<h1>Our <em>cards</em></h1><p>Version&nbsp;2,<br>in force &lt;now&gt;.</p><!-- hidden -->
<script>alert("x")</script>
<h2>Fees</h2><table><thead><tr><th>Tier</th><th>Fee</th></tr></thead>
<tr><td><p>Harbour</p></td><td>&pound;5</td></tr><tr><td>Ocean</td><td>free</td></tr></table>
<ul><li>one<li>two</ul><p>open
"""


def test_markdown_keeps_headings_tables_and_code_whole() -> None:
    assert read_markdown(MARKDOWN) == (
        Section((), (TextBlock("Before."),)),
        Section(("Cards",), (TextBlock("Version 2,\nin force."),)),
        Section(
            ("Cards", "Fees"),
            (
                TextBlock("| Harbour | £5 |\n| Ocean | free |", "| Tier | Fee |\n|:-----|----:|"),
                TextBlock("After the table."),
                TextBlock("```\n# no heading\n```"),
            ),
        ),
        Section(("Loans",), (TextBlock("None."),)),
    )


def test_html_is_its_text_under_its_headings() -> None:
    top, fees = read_html(HTML)
    assert top == Section(("Cards", "Our cards"), (TextBlock("Version 2,"), TextBlock("in force <now>.")))
    assert fees.heading == ("Cards", "Our cards", "Fees")
    assert fees.blocks == (
        TextBlock("Harbour | £5\nOcean | free", "Tier | Fee"),
        TextBlock("one"),
        TextBlock("two"),
        TextBlock("open"),
    )


def test_a_table_keeps_the_names_of_its_columns_apart() -> None:
    (section,) = read_table('code,fee\nA,"£5,\nor less"\n\nB,£0\n')
    assert section.blocks == (TextBlock("A | £5, or less\nB | £0", "code | fee"),)
    assert TEXTS[".tsv"]("a\tb\n1\t2\n")[0].blocks == (TextBlock("1 | 2", "a | b"),)
    assert read_table("only\n")[0].blocks == (TextBlock("only", "only"),)


def test_plain_text_is_paragraphs() -> None:
    assert read_text("one\ntwo\n \n\nthree\n") == (Section((), (TextBlock("one\ntwo"), TextBlock("three"))),)


PIECES = "</ <table> <tr> <td &#0; <!-- <![ |---| ``` ]]> <? <script"
BITS = [*'<>&#|",\n\t x\u00e9\u202e\r', *PIECES.split()]


@pytest.mark.parametrize("suffix", sorted(TEXTS))
def test_hostile_texts_end_as_sections_or_as_a_reason(suffix: str) -> None:
    rng, reasons = random.Random(suffix), list[str]()
    for _ in range(300):
        text = "".join(rng.choices(BITS, k=60))
        try:
            sections = TEXTS[suffix](text)
        except ValueError as error:
            reasons.append(str(error))
        else:
            assert all(block.text.strip() for section in sections for block in section.blocks)
    assert all(reason.endswith("; correct it") for reason in reasons)


@pytest.mark.parametrize("text", ["<!--" * 100_000, "<a " * 100_000, "<![CDATA[" * 50_000, "<script>" + "</" * 100_000])
def test_html_that_is_never_closed_is_read_in_one_pass(text: str) -> None:
    read_html(text)


def refused(folder: Path, name: str, data: bytes) -> str:
    """What the loader says of one document more; the folder is as before after that."""
    path = folder / "pages" / name
    path.write_bytes(data)
    with pytest.raises(ProblemsError) as caught:
        load_task(folder)
    path.unlink()
    (line,) = str(caught.value).splitlines()
    return line.partition("pages/")[2]


def test_what_is_no_document_is_refused_where_it_stands(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "task")
    assert refused(folder, "a.md", b"") == "a.md:1: holds no text; write it, or take the file out of the folder"
    assert refused(folder, "a.md", b"# only a heading\n").startswith("a.md:1: holds no text")
    assert refused(folder, "a.md", b"fine\ncaf\xe9\n") == "a.md:2: byte 0xe9 is not UTF-8; save the file as UTF-8"
    assert refused(folder, "a.txt", "né".encode("utf-16")) == "a.txt:1: is UTF-16; save the file as UTF-8"
    assert refused(folder, "a.txt", b"a\0b").startswith("a.txt:1: holds a NUL")
    assert refused(folder, "a.png", b"x").startswith("a.png:1: is no document that can be read (.txt, .md,")
    assert refused(folder, "a.csv", b'a,b\n"' + b"x" * 200_000).startswith("a.csv:1: is no table of values")
    assert "has a name with characters that do not show" in refused(folder, "a\u202eb.md", b"x")
    hostile = random.Random(1).randbytes(10_000)
    for name in ("a.md", "a.html", "a.csv", "a.pdf"):
        assert refused(folder, name, hostile).startswith(f"{name}:")
    load_task(folder)


def test_links_out_of_the_folder_and_links_to_folders_are_refused(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "task")
    (tmp_path / "secret.md").write_text("secret", "utf-8")
    (tmp_path / "more").mkdir()
    os.symlink(tmp_path / "secret.md", folder / "pages" / "z.md")
    os.symlink(tmp_path / "more", folder / "pages" / "more")
    with pytest.raises(ProblemsError) as caught:
        load_task(folder)
    first, second = str(caught.value).splitlines()
    assert first.partition("pages/")[2] == "more:1: is a link to a folder; copy the folder"
    assert "z.md:1: is outside the task folder" in second


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('path = "pages"', 'path = "page"', "page:1", "no such file or folder"),
        ('path = "pages"', 'path = "../other"', "other:1", "is outside the task folder"),
        ('path = "pages"', "", "task.toml:6", "the key 'path' is missing"),
        ('path = "pages"', 'path = "pages"\nfolder = "x"', "task.toml:8", "unknown key 'folder'"),
        ('source = "page"', 'source = "question"', "task.toml:8", "is an input, which the model sees"),
        ('source = "page"', 'source = "the page"', "task.toml:8", "cannot be a column"),
        ("question -> answer", "question, context -> answer", "task.toml:3", "the place of passages"),
        ("\n[knowledge]", 'program = "own:build"\n[knowledge]', "task.toml:6", "works with a prompt, not with program"),
    ],
)
def test_a_wrong_block_is_refused_at_its_line(old: str, new: str, line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    folder = write_task(tmp_path / "task")
    toml = folder / "task.toml"
    toml.write_text(toml.read_text("utf-8").replace(old, new), "utf-8")
    with pytest.raises(ProblemsError) as caught:
        load_task(folder)
    assert any(f"{line}: " in each and words in each for each in str(caught.value).splitlines()), str(caught.value)


def test_a_place_for_passages_needs_documents(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "task", "Answer. {{context}}")
    toml = folder / "task.toml"
    text = toml.read_text("utf-8")
    load_task(folder)
    start = text.index("[knowledge]")
    toml.write_text(text[:start] + text[text.index("[search]") :], "utf-8")
    with pytest.raises(ProblemsError, match=r"task\.toml:4: .*'\{\{context\}\}', which is for passages"):
        load_task(folder)


def test_a_row_names_documents_that_there_are(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "task")
    rows = folder / "dev.jsonl"
    text = rows.read_text("utf-8")
    rows.write_text(text.replace('"goods-b.md"', '"goods-b.md; goods-c.md"', 1), "utf-8")
    (both,) = [row for row in load_task(folder).dev if len(row.sources) == 2]
    assert both.sources == ("goods-b.md", "goods-c.md")
    rows.write_text(text.replace('"goods-b.md"', '"goods-bb.md"', 1), "utf-8")
    with pytest.raises(ProblemsError, match=r"dev\.jsonl:\d+: page: 'goods-bb\.md' is not a document"):
        load_task(folder)


def test_the_documents_are_among_the_hashes_and_hidden_files_are_not(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "task")
    first = load_task(folder).hashes["knowledge"]
    (folder / "pages" / ".DS_Store").write_bytes(b"\0")
    assert load_task(folder).hashes["knowledge"] == first
    (folder / "pages" / "goods-b.md").rename(folder / "pages" / "goods-z.md")
    for split in ("train", "dev", "test"):
        rows = folder / f"{split}.jsonl"
        rows.write_text(rows.read_text("utf-8").replace("goods-b.md", "goods-z.md"), "utf-8")
    assert load_task(folder).hashes["knowledge"] != first


def test_one_file_is_a_folder_of_one(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("One page.", "utf-8")
    (document,), digest, problems = read_documents("all.txt", tmp_path)
    assert (document.name, problems) == ("all.txt", [])
    assert len(digest) == 64


def test_limits_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("x" * 100, "utf-8")
    monkeypatch.setattr(documents, "MOST_LETTERS", 250)
    (problem,) = read_documents(".", tmp_path)[2]
    assert "2.txt:1: the documents up to here have more than 250 letters" in str(problem)
    monkeypatch.setattr(documents, "MOST_FILES", 3)
    (problem,) = read_documents(".", tmp_path)[2]
    assert "holds 4 files; 3 documents at most" in str(problem)
    monkeypatch.setattr(documents, "MOST_FILES", 9)
    monkeypatch.setattr(documents, "MOST_BYTES", 99)
    assert len(read_documents(".", tmp_path)[2]) == 4


@pytest.mark.skipif(is_here("knowledge"), reason="pypdf is installed")
def test_a_pdf_without_pypdf_names_the_command_that_brings_it() -> None:
    with pytest.raises(ValueError, match=r'takes pypdf; pip install "promptassay\[knowledge\]"'):
        read_pdf(b"%PDF-1.4")


@pytest.mark.skipif(not is_here("knowledge"), reason="pypdf is not installed")
def test_a_pdf_is_its_pages(tmp_path: Path) -> None:
    assert MOST_PAGES > 2
    text, _ = read_pdf(pdf("The fee is 5 crowns.", "No fee."))
    assert text == Section(("page 1",), (TextBlock("The fee is 5 crowns."),))
    with pytest.raises(ValueError, match="cannot be read as a PDF"):
        read_pdf(b"%PDF-1.4 nonsense")


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page."""
    count = len(pages)
    kids = " ".join(f"{3 + 2 * n} 0 R" for n in range(count))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {count} >>"]
    font = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET"
        box = f"/MediaBox [0 0 600 800] /Resources {font} /Contents {4 + 2 * number} 0 R"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{place:010} 00000 n \n" for place in places)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    return out.encode("latin-1")
