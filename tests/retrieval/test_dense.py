"""Rows picked by their vectors: the order is that of the cosine, and search and release send the same messages."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import agent
from agent.errors import InputError, ReleaseError
from agent.programs.prompt import PromptProgram
from agent.prompt.parts.picks import PickedDemos, PickedRows
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import hostile_rows, write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE
from agent.release.runtime import load_prompt
from agent.retrieval import pick
from agent.retrieval.pick import Picks, PoolIndex, PoolRow, words_of
from agent.retrieval.vectors import (
    BM25_DENSE,
    DENSE,
    DENSE_RETRIEVERS,
    DenseIndex,
    PoolVectors,
    Vector,
    packed,
    pool_id,
    unpacked,
)
from agent.types import Example
from tests.release.formats.kinds import release_of
from tests.retrieval.test_pool_file import refused
from tests.retrieval.test_same_picks import NAMES, TASK, row
from tests.toys import FakeModel

ROWS = [PoolRow(f"r{number}", f"text {number}", f"label{number % 3}", f"r{number}") for number in range(40)]
EMBEDDED = replace(TASK, space=replace(TASK.space, retrieval=True, embeddings="wordllama"))


needs_wordllama = pytest.mark.extra("embedding")


def vector(rng: random.Random, size: int = 12) -> Vector:
    return [rng.gauss(0, 1) for _ in range(size)]


def indexed(made: list[Vector], asked: Vector) -> DenseIndex:
    return DenseIndex(ROWS[: len(made)], PoolVectors("toy", len(made[0]), tuple(map(packed, made))), lambda text: asked)


def cosine(one: Vector, other: Vector) -> float:
    return sum(map(float.__mul__, one, other)) / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


@pytest.mark.parametrize("seed", range(5))
def test_rows_come_by_cosine_whatever_the_lengths_of_the_vectors(seed: int) -> None:
    rng = random.Random(seed)
    made, asked = [vector(rng) for _ in ROWS], vector(rng)
    wanted = sorted(range(len(ROWS)), key=lambda at: -cosine(made[at], asked))[:8]
    for scale in (1.0, 1e-3, 1e3):
        stretched = [[scale * number for number in each] for each in made]
        assert indexed(stretched, asked).pick("", Picks(DENSE, 8, "nearest-first")) == wanted
    out = {ROWS[wanted[0]].id, ROWS[wanted[3]].id}
    left = indexed(made, asked).pick("", Picks(DENSE, 8, "nearest-first"), out)
    assert left[:6] == [at for at in wanted if ROWS[at].id not in out]


def test_equal_vectors_come_as_in_the_pool_and_a_vector_of_zeros_ranks_nothing() -> None:
    same = indexed([[1.0, 2.0]] * 9, [2.0, 4.0])
    assert same.pick("", Picks(DENSE, 4, "nearest-first")) == [0, 1, 2, 3]
    labels = [ROWS[at].label for at in indexed([[1.0, 2.0]] * 9, [0.0, 0.0]).pick("", Picks(DENSE, 3))]
    assert sorted(labels) == ["label0", "label1", "label2"]  # labels in turn, as where no word is in common


def test_the_fused_ranking_takes_from_words_and_from_vectors() -> None:
    rng = random.Random(3)
    made = [vector(rng) for _ in ROWS]
    index = indexed(made, made[7])
    assert index.pick("21", Picks(BM25_DENSE, 2, "nearest-first")) == [21, 7]
    assert index.pick("21", Picks(DENSE, 1)) == [7]
    by_words = Picks("bm25", 3, "nearest-first")
    assert index.pick("text 21", by_words) == PoolIndex(ROWS).pick("text 21", by_words)


def test_the_words_of_a_pool_are_indexed_once_for_all_inputs_with_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, read = random.Random(4), list[str]()
    monkeypatch.setattr(pick, "words_of", lambda text: read.append(text) or words_of(text))
    made = [vector(rng) for _ in ROWS]
    index = indexed(made, made[0])
    for asked in (7, 8):
        assert index.for_vector(made[asked]).pick("21", Picks(BM25_DENSE, 2, "nearest-first")) == [21, asked]
    assert read == [row.text for row in ROWS]


def test_a_vector_is_kept_as_float32_and_what_is_no_vector_is_refused() -> None:
    numbers = [0.1, -2.5, 1e-30, 3e38]
    assert unpacked(packed(numbers), 4) == pytest.approx(numbers, rel=1e-6)
    assert packed(unpacked(packed(numbers), 4)) == packed(numbers)
    for text, words in (("?", "base64"), (packed([1.0]), "has 4 bytes, not 8"), (packed([1.0, math.inf]), "finite")):
        with pytest.raises(ValueError, match=words):
            unpacked(text, 2)


def test_the_hash_of_a_pool_changes_with_a_vector_and_is_as_before_without() -> None:
    made = PoolVectors("toy", 2, tuple(packed([1.0, number]) for number in range(len(ROWS))))
    other = replace(made, rows=(packed([1.0, 0.5]), *made.rows[1:]))
    assert len({pool_id(ROWS), pool_id(ROWS, made), pool_id(ROWS, other), pool_id(ROWS, replace(made, model="x"))}) == 4
    pool = PickedRows(TASK)
    assert pool.id_of("bm25") == pool.id == pool_id(pool.rows)


def prompts(program: PromptProgram) -> list[PromptCandidate]:
    picks = [Picks(name, 4, pool=program.pool.id_of(name)) for name in DENSE_RETRIEVERS]
    return [
        PromptCandidate("few-shot", layout, "Route.").having(picks=each)
        for each in picks
        for layout in ("turns", "inline")
    ]


def embedded() -> PromptProgram:
    return PromptProgram(EMBEDDED, FakeModel(lambda request: "billing"))


@needs_wordllama
def test_search_and_release_send_the_same_messages_and_a_row_never_sees_itself(tmp_path: Path) -> None:
    program = embedded()
    rows = [Example(f"x{n}", values, {"team": "billing"}) for n, values in enumerate(hostile_rows(NAMES))]
    rows += [replace(row(number), id=f"dev{number}") for number in range(100, 110)]
    for number, prompt in enumerate(prompts(program)):
        assert program.check(prompt) == ""
        release = release_of(program, prompt)
        folder = write_release(release, tmp_path / str(number)).parent
        loaded = [load_prompt(folder / file) for file in (PROMPT_FILE, MESSAGES_FILE)]
        assert {one.version for one in loaded} == {release.version}
        for example in rows:
            wanted = [message.as_dict() for message in program.request(prompt, example).messages]
            assert len(program.pool.positions(prompt, example)) == 4
            assert [one.render(**example.inputs) for one in loaded] == [wanted, wanted]
        for example in program.task.train:
            assert example.id not in {program.task.train[at].id for at in program.pool.positions(prompt, example)}
        with pytest.raises(ReleaseError, match="picks examples by vectors"):
            verify_exports([FORMATS.get("python")], {"python": Material(release)})


@needs_wordllama
def test_a_file_whose_vectors_were_edited_or_are_others_than_those_of_the_run_is_refused(tmp_path: Path) -> None:
    release = release_of(embedded(), prompts(embedded())[0])
    file = write_release(release, tmp_path).with_name(MESSAGES_FILE)
    edits: list[tuple[Any, str]] = [
        (lambda data: data["picks"]["rows"][2].update(vector=packed([1.0] * 256)), "rows of the pool are"),
        (lambda data: data["picks"]["rows"][2].update(vector=packed([1.0])), "rows.2..vector has 4 bytes"),
        (lambda data: data["picks"]["rows"][2].pop("vector"), "rows.2. lacks vector"),
        (lambda data: data["picks"].update(dimensions=0), "dimensions must be"),
        (lambda data: data["picks"].pop("embeddings"), "lacks embeddings"),
    ]
    for edit, words in edits:
        refused(file, edit, words)
    shown = release.part(PickedDemos)
    assert shown is not None
    assert shown.vectors is not None
    made = [packed([number + 0.5 for number in shown.vectors.vector(at)]) for at in range(len(TASK.train))]
    vectors = replace(shown.vectors, rows=tuple(made))
    picks = replace(shown.picks, pool=pool_id(shown.rows, vectors))
    other = replace(release, parts=(replace(shown, vectors=vectors, picks=picks, shared=None),))
    with pytest.raises(ReleaseError, match="makes different ones"):
        other.fill(dict.fromkeys(NAMES, "a late parcel"))


@needs_wordllama
def test_a_process_without_wordllama_names_the_extra_and_one_with_it_keeps_its_logging(tmp_path: Path) -> None:
    write_release(release_of(embedded(), prompts(embedded())[0]), tmp_path)
    start = "import logging, sys; sys.path.insert(0, sys.argv[1]); from agent.release.runtime import load_prompt\n"
    render = "load_prompt(sys.argv[2]).render(message='a late parcel', context='door')\n"
    command = [sys.executable, "-c", "{}", Path(agent.__file__).parent.parent, tmp_path]
    command[2] = (
        f"{start}sys.modules['wordllama'] = None\nload_prompt(sys.argv[2])\nprint('numpy' in sys.modules)\n{render}"
    )
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "False\n")
    assert "pip install 'promptassay[embedding]'" in done.stderr.splitlines()[-1]
    command[2] = f"{start}{render}print(logging.root.handlers, logging.root.level)"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[] 30\n", ""), "on import wordllama would show every package's messages"


@needs_wordllama
def test_more_vectors_than_a_release_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.prompt.parts.picks.MOST_NUMBERS", 256 * 29)
    with pytest.raises(InputError, match="30 train rows with vectors of 256 numbers"):
        assert PickedRows(EMBEDDED).vectors
