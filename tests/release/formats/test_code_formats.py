"""Exports that are Python code, by the real libraries: chains, models and folders as a user has them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.formats.python_module import load_module, module_source
from agent.release.prompt_file import PromptRelease
from agent.release.runtime import Prompt
from agent.types import Example
from tests.release.formats.sample import plain_turns, proved, refused, wanted, write
from tests.release.test_calibration_part import LABELS, RELEASE, TOP
from tests.retrieval.shipped import release_of
from tests.retrieval.test_same_picks_in_exports import PROGRAM, prompts
from tests.wire import Fault, Reply, WireServer

CANDIDATES = list(prompts())
PICKED = release_of(PROGRAM, CANDIDATES[0])
"""Examples as turns, and passages."""
VALUES = {"message": "{{x}} late parcel {% raw %}", "channel": "door\n"}


def sent(release: PromptRelease, values: dict[str, str] = VALUES) -> list[dict[str, str]]:
    return [message.as_dict() for message in release.fill(values)]


def exported(name: str, release: PromptRelease, folder: Path) -> None:
    write(proved(wanted(name), release, task=PROGRAM.task), folder)


def scored(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    """A reply of an OpenAI model that spells the first label; the calibration decides for the third."""
    message = {"role": "assistant", "content": LABELS[0], "refusal": None}
    (place,) = TOP
    tops = [{"token": token, "logprob": log, "bytes": None} for token, log in place]
    content = [{**tops[0], "top_logprobs": tops}] if body.get("logprobs") else None
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "stop",
        "logprobs": {"content": content, "refusal": None},
    }
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    head = {"id": "1", "object": "chat.completion", "created": 1, "model": "x"}
    return Fault(body={**head, "choices": [choice], "usage": usage})


# -- LangChain --------------------------------------------------------------------------------------------------------


def test_langchain_gets_a_prompt_template_for_a_chain(tmp_path: Path) -> None:
    exported("langchain", PICKED, tmp_path)
    openai = pytest.importorskip("langchain_openai")
    prompt = load_module(tmp_path / "langchain_prompt.py", "exported").prompt
    assert prompt.input_variables == ["message", "channel"]
    assert prompt.metadata == PICKED.parameters
    with WireServer(lambda messages, body: "billing") as server:
        model = openai.ChatOpenAI(model="x", base_url=server.url, api_key="k", max_retries=0, **prompt.metadata)
        assert (prompt | model).invoke(VALUES).content == "billing"
        (request,) = server.requests
    assert request.body["messages"] == sent(PICKED)
    assert request.body.get("max_completion_tokens", request.body.get("max_tokens")) == 8
    with pytest.raises(KeyError, match="missing variables"):
        prompt.invoke({"message": "x"})


async def test_a_chain_of_langchain_is_awaited_and_one_input_needs_no_name(tmp_path: Path) -> None:
    release = replace(PICKED, inputs=("message",), passages=None, messages=PICKED.messages[:1])
    assert release.picks is not None
    wanted("langchain")
    write(verify_exports([FORMATS.get("langchain")], {"langchain": Material(release)})[0], tmp_path)
    prompt = load_module(tmp_path / "langchain_prompt.py", "exported").prompt
    assert (await prompt.ainvoke("late")).to_messages() == prompt.format_messages(message="late")


def test_langchain_decides_by_calibration(tmp_path: Path) -> None:
    exported("langchain", RELEASE, tmp_path)
    openai = pytest.importorskip("langchain_openai")
    module = load_module(tmp_path / "langchain_prompt.py", "exported")
    with WireServer(scored) as server:
        where = {"model": "x", "base_url": server.url, "api_key": "k", "max_retries": 0}
        found = (module.prompt | openai.ChatOpenAI(**where, **module.prompt.metadata) | module.label).invoke("x")
        (request,) = server.requests
        with pytest.raises(module.OutputParserException, match="has no log-probabilities"):
            (module.prompt | openai.ChatOpenAI(**where) | module.label).invoke("x")
    want = Prompt(RELEASE).parse(LABELS[0], TOP)
    assert found == {"label": want.fields["label"], "confidence": pytest.approx(want.confidence)}
    assert found["label"] == LABELS[2]
    assert (request.body["logprobs"], request.body["top_logprobs"]) == (True, 6)


# -- DSPy -------------------------------------------------------------------------------------------------------------


def test_dspy_decides_by_calibration(tmp_path: Path) -> None:
    exported("dspy", RELEASE, tmp_path)
    import dspy

    program = load_module(tmp_path / "dspy" / "program.py", "exported").load()
    with WireServer(scored) as server:
        lm = dspy.LM("openai/x", api_base=server.url, api_key="k", cache=False, num_retries=0)
        with dspy.context(lm=lm):
            found = program(text="late")
        (request,) = server.requests
    want = Prompt(RELEASE).parse(LABELS[0], TOP)
    assert (found.label, found.confidence) == (LABELS[2], pytest.approx(want.confidence))
    assert request.body["messages"] == sent(RELEASE, {"text": "late"})
    assert (request.body["logprobs"], request.body["top_logprobs"]) == (True, 6)


def replying(text: str) -> Reply:
    return lambda messages, body: text


def test_dspy_reads_a_reply_without_log_probabilities_as_it_stands(tmp_path: Path) -> None:
    exported("dspy", RELEASE, tmp_path)
    import dspy
    from dspy.utils.exceptions import AdapterParseError

    program = load_module(tmp_path / "dspy" / "program.py", "exported").load()
    for reply in ("b c", "neither"):
        with WireServer(replying(reply)) as server:
            lm = dspy.LM("openai/x", api_base=server.url, api_key="k", cache=False, num_retries=0)
            with dspy.context(lm=lm):
                if reply == "b c":
                    found = program(text="late")
                    assert (found.label, found.confidence) == ("b c", None)
                else:
                    with pytest.raises(AdapterParseError, match="answer with exactly one of"):
                        program(text="late")


# -- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The ``noload`` loader")  # of MLflow's own tables
def test_mlflow_gives_the_messages_from_a_real_registry_and_nothing_is_pickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported("mlflow", PICKED, tmp_path)
    pytest.importorskip("sqlalchemy")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    module = load_module(tmp_path / "mlflow_model.py", "exported")
    assert module.register() == "models:/toy/1"
    other = release_of(PROGRAM, CANDIDATES[1])
    exported("mlflow", other, tmp_path)
    assert load_module(tmp_path / "mlflow_model.py", "exported").register("beta") == "models:/toy/2"
    first, second = (mlflow.pyfunc.load_model(f"models:/toy@{alias}") for alias in ("production", "beta"))
    assert first.predict([VALUES, VALUES]) == [sent(PICKED)] * 2
    assert second.predict([VALUES]) == [sent(other)] != [sent(PICKED)]
    metadata = first.metadata.metadata
    assert (metadata["release"], metadata["parameters"]) == (PICKED.version, PICKED.parameters)
    kept = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert ".py" in kept
    assert not kept & {".pkl", ".pickle", ".cloudpickle", ".joblib"}


# -- promptfoo --------------------------------------------------------------------------------------------------------


@pytest.mark.extra("promptfoo")
def test_promptfoo_sends_what_its_prompt_function_returns() -> None:
    made = proved(wanted("promptfoo"), PICKED, task=PROGRAM.task)
    assert set(made.unfit) == {"half a character (a lone surrogate)"}
    assert made.settings == {"model": PICKED.model, **PICKED.parameters}


def test_the_prompt_function_of_promptfoo_needs_only_python(tmp_path: Path) -> None:
    form = FORMATS.get("promptfoo").fitting(PICKED)
    files = form.files(Material(PICKED, PROGRAM.task))
    assert "  - file://prompt.py:promptfoo_prompt\n" in files["promptfoo/promptfooconfig.yaml"]
    (tmp_path / "prompt.py").write_bytes(files["promptfoo/prompt.py"].encode())
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import prompt\n"
        "row = {'message': 'a {{late}} parcel\\n', 'channel': ''}\n"
        "foreign = {name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "print(json.dumps([prompt.render(**row), prompt.promptfoo_prompt({'vars': {'row': row}}), sorted(foreign)]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    messages, returned, foreign = json.loads(done.stdout)
    assert foreign == ["__main__", "prompt"]
    assert messages == sent(PICKED, {"message": "a {{late}} parcel\n", "channel": ""})
    assert '{{ "{" }}{late}}' in json.loads(returned)[-1]["content"]


# -- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"),
    [("langchain", "langchain_prompt.py"), ("mlflow", "mlflow_model.py"), ("promptfoo", "promptfoo/prompt.py")],
)
def test_each_begins_with_the_module_of_the_python_export(name: str, file: str) -> None:
    form = FORMATS.get(name).fitting(PICKED)
    assert form.files(Material(PICKED, PROGRAM.task))[file].startswith(module_source(PICKED))


@pytest.mark.parametrize("name", ["langchain", "mlflow", "promptfoo"])
def test_a_prompt_that_a_template_holds_stays_a_template(name: str) -> None:
    form = FORMATS.get(name)
    assert form.fitting(plain_turns()) is form
    assert form.fitting(PICKED) is form.as_code


@pytest.mark.parametrize(
    ("name", "old", "new", "what"),
    [
        ("langchain", "Picks(**{'retriever': 'bm25', 'k': 4", "Picks(**{'retriever': 'bm25', 'k': 3", "drifts"),
        ("langchain", "'max_tokens': 8})", "'max_tokens': 9})", "max_tokens = 9, the release says 8"),
        ("dspy", '"k": 4', '"k": 3', "was edited after release"),
        ("mlflow", "'k': 3, 'tag'", "'k': 2, 'tag'", "drifts"),
        ("mlflow", "PARAMETERS: dict[str, Any] = {'max_tokens': 8}", "PARAMETERS: dict[str, Any] = {'max_tokens': 9}",
         "max_tokens = 9, the release says 8"),
    ],
)  # fmt: skip
def test_code_that_looks_up_or_sets_otherwise_is_refused(name: str, old: str, new: str, what: str) -> None:
    form = wanted(name).fitting(PICKED)

    def files(material: Material) -> dict[str, str]:
        texts = form.files(material)
        assert any(old in text for text in texts.values())
        return {file: text.replace(old, new) for file, text in texts.items()}

    assert what in refused(replace(form, files=files), PICKED)


@pytest.mark.parametrize(("name", "old", "new"), [
    ("langchain", "'b c': 0.0", "'b c': 9.0"),
    ("dspy", "parse(reply, tokens or (), ", "parse(reply, (), "),
])  # fmt: skip
def test_calibration_that_decide_otherwise_are_refused(name: str, old: str, new: str) -> None:
    form = wanted(name).fitting(RELEASE)

    def files(material: Material) -> dict[str, str]:
        texts = form.files(material)
        assert any(old in text for text in texts.values())
        return {file: text.replace(old, new) for file, text in texts.items()}

    assert f"{name}: its calibration drifts" in refused(replace(form, files=files), RELEASE)


def test_weights_and_picks_go_out_together(tmp_path: Path) -> None:
    assert PICKED.picks is not None
    labels = PICKED.outputs[0].choices
    calibration = replace(RELEASE.calibration, bias=dict.fromkeys(labels, 0.5))  # type: ignore[type-var]
    both = replace(PICKED, calibration=calibration, parameters={"max_tokens": 8, "logprobs": 5})
    for name in ("langchain", "dspy", "python"):
        made = proved(wanted(name), both, task=PROGRAM.task)
        assert {**made.settings, **made.unset} == {"model": PICKED.model, **both.parameters}
    write(proved(wanted("langchain"), both, task=PROGRAM.task), tmp_path)
    module = load_module(tmp_path / "langchain_prompt.py", "exported")
    label, confidence = module.answer([[(labels[1], math.log(0.8)), (labels[0], math.log(0.2))]])
    assert label == labels[1]
    assert 0.5 < confidence < 0.8  # the temperature of 1.5 makes it less sure
    with pytest.raises(ReleaseError, match="mlflow: 'toy' has a calibration"):
        verify_exports([FORMATS.get("mlflow")], {"mlflow": Material(both)})


def test_what_is_looked_up_is_what_the_search_looked_up() -> None:
    example = Example("x", VALUES, {"team": "billing"})
    assert sent(PICKED) == [message.as_dict() for message in PROGRAM.request(CANDIDATES[0], example).messages]
