"""The one place that proves: drift is refused with its place, and nothing is left behind."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.release.export import probe_rows
from agent.release.formats.export_format import FORMATS, Format, Material
from agent.release.formats.proof import verify_exports, write_exports, write_file
from agent.release.runtime import PromptRelease
from agent.types import Message
from tests.release.formats.sample import INPUTS, plain_turns, proved, refused, release, two, wanted

PYTHON = FORMATS.get("python")


def drifting(old: str, new: str):
    return replace(
        PYTHON,
        files=lambda material: {name: text.replace(old, new) for name, text in PYTHON.files(material).items()},
    )


def test_drift_is_refused_and_its_place_is_said() -> None:
    said = refused(drifting("Refund me", "Refund  me"), release())
    assert "python: message 1 drifts at character 7" in said
    assert "'Refund  me', not 'Refund me'" in said


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [("return [", "return 1 / 0 and [", "ZeroDivisionError"), ("def render", "deaf render", "SyntaxError")],
)
def test_what_does_not_load_or_render_is_refused(old: str, new: str, what: str) -> None:
    assert "does not load or render with" in (said := refused(drifting(old, new), release()))
    assert what in said


def changing(name: str, old: str, new: str) -> Format:
    """The export `name` whose files say `new` where they should say `old`."""
    form = wanted(name)

    def files(material: Material) -> dict[str, str]:
        texts = form.files(material)
        assert any(old in text for text in texts.values())
        return {file: text.replace(old, new) for file, text in texts.items()}

    return replace(form, files=files)


CLAUDE, GPT = "anthropic/claude-x", "openai/gpt-x"
PARAMETERS = "config={'max_tokens': 64, 'temperature': 0.0}"


@pytest.mark.parametrize(
    ("name", "model", "old", "new", "what"),
    [
        (
            "anthropic",
            CLAUDE,
            '"claude-x"',
            '"claude-y"',
            "model = 'anthropic/claude-y', the release says 'anthropic/c",
        ),
        ("anthropic", CLAUDE, '"max_tokens": 64', '"max_tokens": 1', "max_tokens = 1, the release says 64"),
        (
            "anthropic",
            GPT,
            '"max_tokens"',
            '"model": "x", "max_tokens"',
            "model = 'anthropic/x', the release says 'openai",
        ),
        ("anthropic", CLAUDE, "{\n", '{"stop_sequences": ["a"],\n', "stop = ['a'], the release says ()"),
        ("anthropic", CLAUDE, "{\n", '{"top_p": 0.1,\n', "top_p = 0.1, the release says None"),
        ("langchain", GPT, '"temperature": 0.0', '"temperature": 1.0', "temperature = 1.0, the release says 0.0"),
        ("mlflow", GPT, '"max_tokens": 64', '"max_tokens": 1', "max_tokens = 1, the release says 64"),
        ("mlflow", GPT, "openai/gpt-x", "openai/gpt-y", "model = 'openai/gpt-y'"),
        ("llm", GPT, "max_tokens: 64", "max_tokens: 1", "max_tokens = 1, the release says 64"),
        ("llm", GPT, 'model: "gpt-x"', 'model: "gpt-y"', "model = 'openai/gpt-y'"),
        ("python", GPT, "'max_tokens': 64", "'max_tokens': 1", "max_tokens = 1, the release says 64"),
        ("python", GPT, "MODEL = 'openai/gpt-x'", "MODEL = ''", "model = '', the release says 'openai/gpt-x'"),
        ("dotprompt", GPT, "maxOutputTokens: 64", "maxOutputTokens: 1", "max_tokens = 1, the release says 64"),
        ("dotprompt", GPT, 'model: "openai/gpt-x"', 'model: "gpt-x"', "model = 'gpt-x'"),
        ("prompty", GPT, "maxOutputTokens: 64", "maxOutputTokens: 1", "max_tokens = 1, the release says 64"),
        ("prompty", GPT, 'id: "gpt-x"', 'id: "gpt-y"', "model = 'openai/gpt-y'"),
        (
            "prompty",
            "openai-compatible/x@http://h:1/v1",
            "http://h:1/v1",
            "http://h:2/v1",
            "model = 'openai-compatible/x@http://h:2/v1'",
        ),
        ("dspy", GPT, PARAMETERS, "config={'max_tokens': 1}", "max_tokens = 1, the release says 64"),
    ],
)
def test_a_model_or_parameter_that_the_files_hold_otherwise_is_refused(
    name: str, model: str, old: str, new: str, what: str
) -> None:
    sent = release(*two("Plain."), model=model)
    assert proved(wanted(name), sent).settings
    assert f"{name}: the files say {what}" in refused(changing(name, old, new), sent)


REST = {"max_tokens": 64, "temperature": 0.0}


@pytest.mark.parametrize(
    ("name", "model", "untold"),
    [
        *[
            (name, model, {})
            for model in (GPT, "local/x")
            for name in ("md", "messages", "mlflow", "python", "dotprompt")
        ],
        ("anthropic", CLAUDE, {}),
        ("anthropic", GPT, {"model": GPT}),
        ("dspy", GPT, {"model": GPT}),
        ("llm", GPT, {}),
        ("llm", CLAUDE, {"model": CLAUDE, **REST}),
        ("llm", "local/x", {"model": "local/x", **REST}),
        ("prompty", "openai-compatible/x@http://h:1/v1", {}),
        ("prompty", "openai/${env:HOME}", {"model": "openai/${env:HOME}", **REST}),
    ],
)
def test_what_the_files_do_not_hold_is_told(name: str, model: str, untold: dict[str, Any]) -> None:
    made = proved(wanted(name), release(*two("Plain."), model=model))
    assert made.unset == untold
    assert {**made.settings, **made.unset} == {"model": model, **REST}
    lines = [line for line in made.notes() if "does not set" in line]
    said = ", ".join(f"{key} = {value}" for key, value in untold.items())
    assert lines == [f"{name}: does not set {said}; set it where you use the file"] * bool(untold)


def test_a_text_to_stop_at_is_read_back_or_told() -> None:
    sent = release(*two("Plain."), model=CLAUDE, parameters={**REST, "stop": "END"})
    assert proved(FORMATS.get("anthropic"), sent).unset == {}
    assert proved(wanted("mlflow"), sent).unset == {"stop": "END"}


def test_drift_of_one_format_leaves_nothing_of_any(tmp_path: Path) -> None:
    forms = [FORMATS.get("md"), drifting("Refund", "refund")]
    with pytest.raises(ReleaseError, match="drifts"):
        write_exports(verify_exports(forms, dict.fromkeys(("md", "python"), Material(release()))), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_one_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path, link = tmp_path / "prompt.md", tmp_path / "link.md"
    write_file("old", path)
    path.chmod(0o640)
    link.symlink_to(path)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most[1]))  # as a disk that is full
    try:
        with pytest.raises(ReleaseError, match="cannot write the export"):
            write_file("new" * 4096, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert path.read_text() == "old"
    write_file("new", link)
    assert (link.is_symlink(), path.read_text(), path.stat().st_mode & 0o777) == (True, "new", 0o640)
    assert sorted(os.listdir(tmp_path)) == ["link.md", "prompt.md"]
    write_file("seen", Path(os.devnull))
    inside, outside = os.pipe()
    write_file("through", Path(f"/dev/fd/{outside}"))
    assert os.read(inside, 100) == b"through"
    for end in (inside, outside):
        os.close(end)


def test_a_missing_library_is_said_and_strict_refuses() -> None:
    form = replace(PYTHON, library="no-such-library", install="pip install no-such-library")
    material = {"python": Material(release())}
    (made,) = verify_exports([form], material)
    assert list(made.notes()) == ["python: not verified with no-such-library: pip install no-such-library"]
    with pytest.raises(ReleaseError, match=r"pip install no-such-library \(--strict\)"):
        verify_exports([form], material, strict=True)


def test_values_that_a_target_cannot_carry_are_counted_by_reason_and_strict_refuses() -> None:
    form = replace(PYTHON, unfit=lambda release, values: "a dollar" if "$" in values["message"] else "")
    material = {"python": Material(plain_turns())}
    (made,) = verify_exports([form], material)
    assert made.unfit["a dollar"] > 5
    assert made.rows >= 200
    assert any("cannot hold a dollar" in note for note in made.notes())
    with pytest.raises(ReleaseError, match="cannot hold a dollar"):
        verify_exports([form], material, strict=True)


def test_several_formats_are_put_together_and_nothing_else_stays(tmp_path: Path) -> None:
    forms = [FORMATS.get(name) for name in ("md", "messages", "anthropic", "langchain", "python")]
    made = verify_exports(forms, {form.name: Material(release()) for form in forms})
    paths = write_exports(made, tmp_path / "out")
    names = ["anthropic.json", "langchain.json", "messages.json", "prompt.md", "prompt.py"]
    assert sorted(path.name for path in paths) == sorted(os.listdir(tmp_path / "out")) == names


def test_a_folder_that_is_a_file_is_one_line_of_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = verify_exports([PYTHON], {"python": Material(release())})
    with pytest.raises(ReleaseError, match="cannot write the export"):
        write_exports(made, tmp_path / "file")


def test_a_lone_surrogate_in_the_prompt_is_refused_by_name() -> None:
    assert "lone surrogate '\\ud800'" in refused(FORMATS.get("langchain"), release(Message("user", "a\ud800b")))


def test_there_are_200_hostile_rows_and_they_are_the_same_each_time() -> None:
    rows = list(probe_rows(release().inputs))
    assert rows == list(probe_rows(release().inputs))
    assert all(set(row) == set(INPUTS) for row in rows)


@pytest.mark.parametrize("sent", [release(), plain_turns()], ids=["two inputs", "one input"])
def test_no_two_hostile_rows_are_alike_and_200_are_without_line_ends(sent: PromptRelease) -> None:
    rows = list(probe_rows(sent.inputs))
    assert len({tuple(row.items()) for row in rows}) == len(rows) >= 400
    assert sum("".join(row.values()).isprintable() for row in rows) >= 200
