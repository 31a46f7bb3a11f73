"""Released texts: any program reads them as written, an edited or hostile file is one line, aliases move as asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import promptassay as pa
from agent.errors import InputError, ReleaseError
from agent.ledger.store import Ledger
from agent.programs.kinds import read_fields
from agent.release.aliases import ALIAS, VERSION, NeedsUnit, bucket
from agent.release.promotion import ReleaseRegistry
from agent.release.prompt_file import MAX_FILE
from agent.release.runtime import load_prompt
from agent.release.texts import MOST_TEXTS, TEXTS_FILE, Texts, TextsRelease, load_texts, read_texts
from agent.types import Field, Signature
from tests.cases import each_case
from tests.cli.world import good_json, optimize, write_lines
from tests.cli.world import refused as refused_line
from tests.release.test_promotion import NAME, ONE, promote

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {"planner": "Plan.\n\n## user\n{{x}} {x} Änne", "tool:search": "", "odd Ä": "\r\n\x00\ud800"}


def release(**changes: Any) -> TextsRelease:
    values: dict[str, Any] = {
        "name": NAME,
        "texts": TEXTS,
        "program": "agent.py:run",
        "inputs": ("message",),
        "outputs": (Field("team", "choice", choices=("billing", "account")),),
        "model": "openai/x",
        "parameters": {"temperature": 0.0, "stop": ("a",), "seed": None},
        "provenance": {"run_id": "r"},
    }
    return TextsRelease(**{**values, **changes})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return release().write(tmp_path / "run")


def refused(path: Any, **options: Any) -> str:
    with pytest.raises(ReleaseError) as caught:
        load_texts(path, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert said.encode(), "a log can hold it"
    return said


def test_loaded_texts_are_a_mapping_that_nobody_changes(file: Path) -> None:
    texts = pa.load_texts(file)
    assert texts == TEXTS == dict(texts)
    assert list(texts) == list(TEXTS), "in the order of the task"
    assert (texts.name, texts.version, texts.model) == (NAME, release().version, "openai/x")
    assert (texts.parameters, texts.provenance) == ({"temperature": 0.0, "stop": ["a"]}, {"run_id": "r"})
    assert load_texts(str(file.parent)).release == texts.release == release()
    texts.parameters["stop"] = ()
    with pytest.raises(TypeError):
        texts["planner"] = "x"  # type: ignore[index]
    with pytest.raises(KeyError):
        texts["other"]
    assert texts.parameters["stop"] == ["a"]
    assert json.loads(file.read_text("utf-8"))["texts"] == TEXTS, "what another language reads"


def test_the_version_is_of_all_but_name_and_provenance() -> None:
    one = release()
    assert VERSION.fullmatch(one.version)
    assert not ALIAS.fullmatch(one.version)
    assert release(name="other", provenance={}).version == one.version
    changes: list[dict[str, Any]] = [
        {"texts": {**TEXTS, "planner": ""}},
        {"texts": {"planner": TEXTS["planner"]}},
        {"program": "other.py:run"},
        {"inputs": ()},
        {"outputs": ()},
        {"model": "openai/y"},
        {"parameters": {}},
    ]
    assert len({one.version, *(release(**change).version for change in changes)}) == len(changes) + 1
    assert release(texts=dict(reversed(TEXTS.items()))).version == one.version


@given(st.dictionaries(st.text(min_size=1, max_size=5).filter(str.isprintable), st.text(), min_size=1, max_size=3))
def test_any_texts_are_read_back_as_they_are_or_are_not_written(texts: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        release(texts=texts).write(Path(folder))
        assert load_texts(folder) == texts


def test_what_would_be_read_as_something_else_is_not_written(tmp_path: Path) -> None:
    written = release().write(tmp_path).read_bytes()
    for texts, why in (
        (
            {"planner": "\ud83d\ude00"},
            "cannot hold the text 'planner'",
        ),  # JSON would read the two halves as one character
        ({}, "1 to 1,000 texts"),
        ({"a\nb": ""}, "printable names"),
        ({str(number): "" for number in range(MOST_TEXTS + 1)}, "1 to 1,000 texts"),
        ({"planner": "x" * MAX_FILE}, "larger than 16,000,000 bytes"),
    ):
        with pytest.raises(ReleaseError, match=why):
            release(texts=texts).write(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [TEXTS_FILE]
    assert (tmp_path / TEXTS_FILE).read_bytes() == written, "a release that fails leaves what was there"


# -- files that must not be trusted ------------------------------------------------------------------------------------


@each_case("old, new", [(b"Plan.", b"plan."), (b"agent.py", b"other.py"), (b'"account"', b'"b"'), (b'"t_', b'"t_0')])
def test_an_edited_file_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    file = release().write(tmp_path)
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))
    assert refused(file).startswith(f"{file}: was edited after release or truncated")


def test_every_cut_is_refused(file: Path) -> None:
    data = file.read_bytes()
    for end in range(0, len(data) - 1, 5):
        file.write_bytes(data[:end])
        assert refused(file).startswith(f"{file}: ")


@each_case(
    "key, value, what",
    [
        ("texts", [], "texts must be 1 to 1,000 texts"),
        ("texts", {}, "texts must be 1 to 1,000 texts"),
        ("texts", {"a": 1}, "texts.a must be a text, not 1"),
        ("texts", {"\x1b[2J": 1}, "with printable names"),
        ("program", ["rm"], "program must be a text"),
        ("inputs", [1], "inputs[0] must be a text"),
        ("inputs", ["x"] * 1001, "inputs must be a list of at most 1,000"),
        ("outputs", [{"name": "x", "type": "choices"}], "outputs[0].type must be one of"),
        ("parameters", [], "parameters must be a table"),
        ("provenance", {"x": [float("nan")]}, "provenance.x[0] = nan cannot be stored"),
        ("more", 1, "unknown key 'more'"),
        ("name", None, "name must be a text"),
    ],
)
def test_data_that_is_no_release_is_one_line(tmp_path: Path, key: str, value: Any, what: str) -> None:
    file = release().write(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), key: value}))
    said = refused(file)
    assert what in said
    assert said.isprintable()


_PIECES = st.sampled_from([*'"{}[]:,\\\n\0', "[" * 600, '"texts": 1', "9" * 5000, "1e999", "\ufeff"]) | st.text(
    max_size=4
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(cuts=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 20), _PIECES), min_size=1, max_size=4))
def test_any_file_is_a_release_or_a_release_error(cuts: list[tuple[int, int, str]], tmp_path: Path) -> None:
    text = release().write(tmp_path).read_text("utf-8")
    for start, length, piece in cuts:
        text = text[:start] + piece + text[start + length :]
    (tmp_path / TEXTS_FILE).write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert load_texts(tmp_path).version == release().version
    except ReleaseError:
        refused(tmp_path)


def test_a_path_that_leads_nowhere_and_the_other_kind_of_file_are_told(file: Path, tmp_path: Path) -> None:
    prompt = ONE.write(tmp_path / "prompt")
    assert "cannot be read" in refused(tmp_path / "none")
    assert f"{tmp_path / 'prompt' / TEXTS_FILE}: cannot be read" in refused(prompt.parent)
    assert "is not the texts.json of a release: invalid JSON" in refused(prompt)
    with pytest.raises(ReleaseError, match="is a set of texts, not a prompt; load_texts loads it"):
        load_prompt(file)
    for wrong in (None, 3, b"bytes"):
        with pytest.raises(TypeError):
            load_texts(wrong, fallback=file)  # type: ignore[arg-type]


# -- versions and aliases ----------------------------------------------------------------------------------------------


def test_texts_are_versions_next_to_prompts_and_come_back_from_the_ledger(tmp_path: Path) -> None:
    root, one, two = tmp_path / "releases", release(), release(texts={"planner": "two"}, provenance={"run_id": "r_2"})
    ledger, registry = Ledger(tmp_path / "ledger.db"), ReleaseRegistry(root)
    for each in (one, two):
        assert registry.promote(each, "production", ledger, evidence={})
    assert registry.promote(two, "production", ledger, evidence={}) is None
    assert load_texts(f"{NAME}@production", root=root).alias == "production"
    shutil.rmtree(root)
    assert registry.rollback(NAME, "production", ledger).version == one.version
    assert load_texts(f"{NAME}@production", root=root) == TEXTS
    assert read_texts(root / NAME / two.version) == two
    (root / NAME / one.version / TEXTS_FILE).write_text("{}")
    assert "is not the texts.json" in refused(f"{NAME}@{one.version}", root=root)
    registry.promote(one, "staging", ledger, evidence={})
    assert load_texts(f"{NAME}@{one.version}", root=root).version == one.version, "promoting again mends it"
    shutil.copytree(root / NAME / one.version, root / NAME / "t_0123456789abcdef")
    assert "holds" in refused(f"{NAME}@t_0123456789abcdef", root=root)
    promote(root, ledger, ONE)
    assert "is a prompt, not a set of texts; " in refused(f"{NAME}@production", root=root)
    with pytest.raises(ReleaseError, match=rf"is a set of texts, not a prompt; .* load_texts\('{NAME}@staging', root="):
        load_prompt(f"{NAME}@staging", root=root)
    with pytest.raises(ReleaseError, match=r"is a set of texts, not files; .*load_texts"):
        pa.load_classifier(f"{NAME}@staging", root=root)
    with pytest.raises(InputError, match="the same function loads"):
        registry.promote(one, "ab", ledger, share=0.5, evidence={})
    ledger.close()


def test_an_ab_alias_assigns_units_and_a_fallback_stands_in(file: Path, tmp_path: Path) -> None:
    root, two = tmp_path / "releases", release(texts={"planner": "two"})
    registry = ReleaseRegistry(root)
    registry.promote(release(), "production", None, evidence={})
    registry.promote(two, "ab", None, share=0.5, evidence={})
    for number in range(20):
        texts = load_texts(f"{NAME}@ab", root=root, unit=f"u{number}")
        wanted = (two.version, "candidate") if bucket(NAME, f"u{number}") < 0.5 else (release().version, "production")
        assert (texts.version, texts.arm) == wanted
    for unit in (None, 3):
        with pytest.raises(NeedsUnit if unit is None else ReleaseError):
            load_texts(f"{NAME}@ab", root=root, unit=unit, fallback=file)  # type: ignore[arg-type]
    texts = load_texts(f"{NAME}@production", root=tmp_path / "none", fallback=file)
    assert texts == TEXTS
    assert "no releases of this name" in texts.fallback_reason
    other = replace(release(), name="other").write(tmp_path / "other")
    assert "the fallback is of 'other'" in refused(f"{NAME}@production", root=tmp_path / "none", fallback=other)


def test_loading_texts_needs_no_third_party_package(file: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "from agent.release.texts import load_texts\n"
        "assert load_texts(sys.argv[2])['planner']\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT), str(file)]  # nothing but the standard library
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"agent"}
    assert not {"sqlite3", "asyncio", "tempfile"} & set(names)
    assert [name for name in names if name.startswith("agent.release")] == [
        *("agent.release", "agent.release.aliases", "agent.release.prompt_file", "agent.release.runtime"),
        "agent.release.texts",
    ]


# -- answers -----------------------------------------------------------------------------------------------------------

ROOM = (Field("room", "choice", choices=("hall", "bath")), Field("degrees", "number"), Field("plan", "json"))
_ROOMS = st.fixed_dictionaries(
    {
        "room": st.sampled_from(["hall", "bath"]),
        "degrees": st.integers(-50, 50) | st.sampled_from([20.5, -1.25]),
        "plan": st.dictionaries(st.text("abc", max_size=3), st.lists(st.integers() | st.text(max_size=3), max_size=2)),
    }
)


@given(answer=_ROOMS, count=st.integers(1, 3))
def test_a_kept_answer_is_read_as_it_was_scored(answer: dict[str, Any], count: int) -> None:
    outputs = ROOM[:count]
    scored = read_fields(answer.get, Signature((), outputs), "answer")
    texts = Texts(release(outputs=outputs))
    assert not scored.error
    assert texts.parse(scored.raw) == scored
    assert texts.parse(json.dumps(answer)).fields == scored.fields, "as a log holds it"


def test_any_text_is_an_answer_or_an_error_of_one() -> None:
    one, several = (Texts(release(outputs=outputs)) for outputs in (ROOM[:1], ROOM))
    assert one.parse("hall").fields == one.parse('"hall"').fields == {"room": "hall"}
    assert several.parse("room: hall\ndegrees: 3\nplan: {}").fields == {"room": "hall", "degrees": 3, "plan": {}}
    for reply in (
        "",
        "null",
        "[]",
        "[" * 9000,
        '{"room": 1}',
        '{"room": "attic", "degrees": [], "plan": "{"}',
        "\ud800",
    ):
        for texts in (one, several):
            found = texts.parse(reply)
            assert found.error
            assert found.raw == reply
    wrong = several.parse('{"room": "hall", "degrees": "many", "plan": [1], "more": 2}')
    assert wrong.fields == {"room": "hall", "plan": [1]}
    assert wrong.error.startswith("degrees: ")


def test_a_log_of_answers_is_monitored_by_the_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    release(outputs=ROOM).write(tmp_path)
    for name, hot in (("good.jsonl", 10), ("bad.jsonl", 90)):
        answers = [{"room": ("hall", "bath")[at % 100 < hot], "degrees": 20, "plan": {}} for at in range(300)]
        write_lines(name, [{"reply": json.dumps(each) if at % 2 else each} for at, each in enumerate(answers)])
    words = ("monitor", TEXTS_FILE, "--reference", "good.jsonl")
    assert not good_json(*words, "good.jsonl")["drift"]
    done = optimize(*words, "bad.jsonl", "--json")
    assert (done.exit_code, json.loads(done.stdout)["alarms"][:1]) == (100, ["labels of room"])
    ReleaseRegistry(tmp_path / "runs" / "releases").promote(release(outputs=ROOM), "production", None, evidence={})
    told = good_json("monitor", f"{NAME}@production", "good.jsonl", "--reference", "good.jsonl")
    assert (told["name"], told["version"]) == (NAME, release(outputs=ROOM).version)
    write_lines("bad.jsonl", [{"reply": None}, {"answer": 1}, {"answer": 2}])
    assert "reply: no key 'reply'" in "\n".join(refused_line(2, *words, "bad.jsonl"))
