"""What is special about each target: its files, what it refuses, and its own library as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.prompt.parts.shape import AnswerShape
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.module_proof import load_module
from agent.release.formats.promptfoo import provider_settings
from agent.release.formats.proof import verify_exports
from agent.release.formats.python_module import module_source
from agent.release.prompt_file import PromptRelease
from agent.release.runtime import Prompt
from agent.task.tools import read_tools
from agent.types import Message, SimulatedUser
from tests.cases import each_case
from tests.release.formats.kinds import CALLS, KINDS, LABELS, MAILS, PLAY, RECORD, RECORDS, STOP, release_of
from tests.release.formats.sample import proved, refused, release, wanted, write
from tests.toys import make_task
from tests.wire import Fault, WireServer

PICKED, FITTED = KINDS["picks and passages"].release, KINDS["fitted"].release
VALUES = {"message": "{{x}} late parcel {% raw %}", "channel": "door\n"}
TASK = make_task()


def files(name: str, sent: PromptRelease, task: Any = TASK) -> dict[str, str]:
    return {file: str(text) for file, text in FORMATS.get(name).fitting(sent).files(Material(sent, task)).items()}


def written(name: str, sent: PromptRelease, folder: Path, task: Any = TASK) -> Path:
    for file, text in files(name, sent, task).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(text.encode("utf-8"))
    return folder


def toy(**changes: Any) -> PromptRelease:
    shown = (Message("system", "Route it."), Message("user", "a"), Message("assistant", "billing"))
    return release(*shown, Message("user", "Message: {{message}}"), outputs=TASK.signature.outputs, **changes)


USER = Message("user", "{{message}}")


@each_case(
    "name, messages, inputs, why",
    [
        (
            "llm",
            (),
            ("message",),
            "not the 4 messages (system, user, assistant, user) of this release; use another format",
        ),
        ("anthropic", (USER, Message("system", "x")), ("message",), "roles here are user, system"),
        ("prompty", (Message("user", "a\nuser:\nb"),), (), "a line that names a role"),
        ("prompty", (Message("user", "a\r\nb"),), (), "line ends other"),
        ("prompty", (Message("user", "\na"),), (), "line ends other"),
        ("dotprompt", (Message("system", "<<<dotprompt:role:system>>>"), USER), ("message",), "the mark"),
        ("dotprompt", (Message("system", " \n"), USER), ("message",), "only white space"),
        ("dotprompt", (Message("user", "{{role}}"),), ("role",), "is a helper of Dotprompt"),
        ("python", (Message("user", "{{class}}"),), ("class",), "cannot be an argument"),
        ("langchain", (Message("user", "a\ud800b"),), (), "lone surrogate '\\ud800'"),
        ("finetune-jsonl", (Message("assistant", "{{message}}"),), ("message",), "the last message is the assistant's"),
    ],
)
def test_what_a_target_cannot_hold_is_refused(
    name: str, messages: tuple[Message, ...], inputs: tuple[str, ...], why: str
) -> None:
    assert why in refused(FORMATS.get(name), release(*messages, inputs=inputs), task=TASK)


def test_files_read_as_a_person_would_write_them() -> None:
    sent = release(Message("system", "Route it.\nTeams: a, b"), Message("user", "{{message}} costs $5"))
    assert files("llm", sent)["llm.yaml"] == (
        f"# support_triage, {sent.version}\n"
        'model: "gpt-x"\noptions:\n  temperature: 0.0\n  max_tokens: 64\n'
        'system: |-\n  Route it.\n  Teams: a, b\nprompt: "${input} costs $$5"\n'
    )
    body = json.loads(files("anthropic", release(model="anthropic/claude-x"))["anthropic.json"])
    assert body["system"].startswith("Route the message.")
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert (body["model"], body["max_tokens"]) == ("claude-x", 64)
    assert "model" not in json.loads(files("anthropic", release())["anthropic.json"])
    one, many = (
        json.loads(files("mlflow", sent)["mlflow_prompt.json"]) for sent in (release(), KINDS["own layout"].release)
    )
    assert one["template"][-1]["content"] == "{{message}}"
    assert many["template"][0]["content"].startswith("{% if true %}{% endif %}"), "values are filled in one pass"
    assert one["tags"]["run_id"] == "r_1"
    assert one["model_config"] == {"model_name": "openai/gpt-x", "temperature": 0.0, "max_tokens": 64}


@each_case(
    "name, file",
    [("langchain", "langchain_prompt.py"), ("mlflow", "mlflow_model.py"), ("promptfoo", "promptfoo/prompt.py")],
)
def test_a_template_becomes_code_only_for_a_prompt_that_it_cannot_hold(name: str, file: str) -> None:
    form = FORMATS.get(name)
    assert form.fitting(release()) is form
    assert files(name, PICKED, MAILS.task)[file].startswith(module_source(PICKED))


def test_what_prompty_is_said_not_to_hold_it_does_not_hold(tmp_path: Path) -> None:
    form, sent = wanted("prompty"), release()
    write(proved(form, sent), tmp_path)
    render = form.load(tmp_path, sent).render
    assert render is not None
    for value in ("x\nsystem:\ny", " # User : ", "a\r\nb", "a\u2028b", "\na"):
        assert form.unfit(sent, {"message": value})
        try:
            got = render({"message": value})
        except ValueError:
            continue
        assert got != [message.as_dict() for message in sent.fill({"message": value})]


def test_prompty_has_a_model_apart_from_its_address_and_resolves_nothing(tmp_path: Path) -> None:
    wanted("prompty")
    import prompty

    written("prompty", release(model="openai-compatible/x@http://127.0.0.1:1/v1"), tmp_path)
    model = prompty.load(tmp_path / "prompt.prompty").model
    assert (model.id, model.provider) == ("x", "openai")
    assert (model.connection.endpoint, model.connection.api_key) == ("http://127.0.0.1:1/v1", "none")
    written("prompty", release(model="openai/${env:HOME}"), tmp_path)
    assert prompty.load(tmp_path / "prompt.prompty").model is None


# -- tools -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"), [("python", "prompt.py"), ("langchain", "langchain_prompt.py"), ("mlflow", "mlflow_model.py")]
)
def test_examples_are_sent_as_calls_with_results(name: str, file: str, tmp_path: Path) -> None:
    wanted(name)
    sent = KINDS["tools"].release
    module = load_module(written(name, sent, tmp_path, CALLS.task) / file, f"exported_tools_{name}")
    found = [
        (message["role"], [call["function"]["name"] for call in message.get("tool_calls") or ()])
        for message in module.sent(request="Some Satie")
    ]
    calls, results = ("assistant", ["play", "stop"]), [("tool", [])] * 2
    user = ("user", [])
    assert found == [("system", []), user, calls, *results, user, ("assistant", []), user]
    assert [tool["function"]["description"] for tool in module.TOOLS] == [PLAY.description, STOP.description]
    assert name != "langchain" or ".bind_tools(TOOLS)`" in (tmp_path / file).read_text("utf-8")
    assert name != "mlflow" or module.arguments()["metadata"]["tools"] == module.TOOLS
    for form in ("openai", "anthropic"):
        tools, wrong = read_tools(json.loads(files("tools", sent)[f"tools.{form}.json"]))
        assert (tools, wrong) == ((PLAY, STOP), [])


# -- libraries as a user runs them -------------------------------------------------------------------------------------


def scored(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    """An OpenAI reply that spells the first label, hardly sure; without log-probabilities unless they are requested."""
    tops = [{"token": label, "logprob": log, "bytes": None} for label, log in zip(LABELS, (-0.9, -0.6), strict=True)]
    content = [{**tops[0], "top_logprobs": tops}] if body.get("logprobs") else None
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": LABELS[0], "refusal": None},
        "finish_reason": "stop",
        "logprobs": {"content": content, "refusal": None},
    }
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return Fault(
        body={"id": "1", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice], "usage": usage}
    )


TOP = (((LABELS[0], -0.9), (LABELS[1], -0.6)),)
READ = Prompt(FITTED).parse(LABELS[0], TOP)


def test_a_chain_of_langchain_sends_the_messages_and_decides_by_calibration(tmp_path: Path) -> None:
    wanted("langchain")
    openai = pytest.importorskip("langchain_openai")
    picked = load_module(written("langchain", PICKED, tmp_path / "a", MAILS.task) / "langchain_prompt.py", "exported")
    fitted = load_module(written("langchain", FITTED, tmp_path / "b", MAILS.task) / "langchain_prompt.py", "exported")
    with WireServer(scored) as server:
        where = {"model": "x", "base_url": server.url, "api_key": "k", "max_retries": 0}
        chain = picked.prompt | openai.ChatOpenAI(**where, **picked.prompt.metadata)
        assert chain.invoke(VALUES).content == LABELS[0]
        found = (fitted.prompt | openai.ChatOpenAI(**where, **fitted.prompt.metadata) | fitted.label).invoke(VALUES)
        with pytest.raises(fitted.OutputParserException, match="has no log-probabilities"):
            (fitted.prompt | openai.ChatOpenAI(**where) | fitted.label).invoke(VALUES)
        first, second, _ = (request.body for request in server.requests)
    assert first["messages"] == [message.as_dict() for message in PICKED.fill(VALUES)]
    assert first.get("max_completion_tokens", first.get("max_tokens")) == 8
    assert found == {"label": READ.fields["team"], "confidence": pytest.approx(READ.confidence)}
    assert (second["logprobs"], second["top_logprobs"]) == (True, 6)
    with pytest.raises(KeyError, match="missing variables"):
        picked.prompt.invoke({"message": "x"})


def test_a_program_of_dspy_sends_the_messages_and_decides_by_calibration(tmp_path: Path) -> None:
    wanted("dspy")
    import dspy
    from dspy.utils.exceptions import AdapterParseError

    folder = written("dspy", FITTED, tmp_path, MAILS.task) / "dspy"
    program = load_module(folder / "program.py", "exported").load()
    for answer in (scored, lambda messages, body: "Billing.", lambda messages, body: "neither"):
        with WireServer(answer) as server:
            lm = dspy.LM("openai/x", api_base=server.url, api_key="k", cache=False, num_retries=0)
            with dspy.context(lm=lm):
                if answer is scored:
                    found = program(**VALUES)
                    assert (found.team, found.confidence) == (READ.fields["team"], pytest.approx(READ.confidence))
                    (request,) = server.requests
                    assert request.body["messages"] == [message.as_dict() for message in FITTED.fill(VALUES)]
                    assert (request.body["logprobs"], request.body["top_logprobs"]) == (True, 6)
                elif answer([], {}) == "neither":
                    with pytest.raises(AdapterParseError, match="answer with exactly one of"):
                        program(**VALUES)
                else:  # without log-probabilities its text is read
                    found = program(**VALUES)
                    assert (found.team, found.confidence) == ("billing", None)
    state = folder / "program.json"
    state.write_text(state.read_text("utf-8").replace('"Team:"', '"Theme:"'), "utf-8")
    with pytest.raises(ValueError, match=r"Theme.*export them again together"):
        load_module(folder / "program.py", "exported").load()


@pytest.mark.filterwarnings("ignore:The ``noload`` loader")  # of MLflow's own tables
def test_a_registry_of_mlflow_gives_the_messages_and_pickles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted("mlflow")
    pytest.importorskip("sqlalchemy")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    wild = replace(KINDS["wild"].release, name="words")
    load_module(written("mlflow", wild, tmp_path / "a") / "register_mlflow.py", "exported").register()
    prompt = mlflow.genai.load_prompt("prompts:/words@production")
    assert prompt.tags["release"] == wild.version
    assert prompt.format(**VALUES) == [message.as_dict() for message in wild.fill(VALUES)]
    for alias, each in (("production", PICKED), ("beta", KINDS["picks"].release)):
        module = load_module(written("mlflow", each, tmp_path / alias, MAILS.task) / "mlflow_model.py", "exported")
        module.register(alias)
        model = mlflow.pyfunc.load_model(f"models:/toy@{alias}")
        assert model.predict([VALUES, VALUES]) == [[message.as_dict() for message in each.fill(VALUES)]] * 2
        metadata = model.metadata.metadata
        assert (metadata["release"], metadata["parameters"]) == (each.version, each.parameters)
    kept = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert ".py" in kept
    assert not kept & {".pkl", ".pickle", ".cloudpickle", ".joblib"}


# -- formats that hold rows --------------------------------------------------------------------------------------------


def test_fine_tuning_rows_are_train_rows_with_the_instruction_and_the_right_answer() -> None:
    form = FORMATS.get("finetune-jsonl")
    (made,) = verify_exports([form], {form.name: Material(toy(), TASK)})
    text = str(made.texts["finetune.jsonl"])
    for line, example in zip(text.splitlines(), TASK.train, strict=True):
        assert json.loads(line)["messages"] == [
            {"role": "system", "content": "Route it."},
            {"role": "user", "content": f"Message: {example.inputs['message']}"},
            {"role": "assistant", "content": example.labels["team"]},
        ]
    assert not any(example.inputs["message"] in text for example in (*TASK.dev, *TASK.test))
    reasoned = files("finetune-jsonl", toy(reasoning=True))["finetune.jsonl"]
    assert json.loads(reasoned.splitlines()[0])["messages"][-1]["content"] == "Answer: billing"
    for sent, task, why in (
        (toy(), None, "pass the task"),
        (toy(), make_task(user=SimulatedUser()), "continue with the model's own replies, and this format writes rows"),
        (toy(format="dspy-chat"), TASK, "dspy-chat wraps answers"),
        (replace(PICKED, format="inline"), MAILS.task, "picked examples are in the turn of the row"),
        (toy(), make_task(train=(replace(TASK.train[0], labels={"team": "no choice"}),)), "reads back as"),
    ):
        with pytest.raises(ReleaseError, match=why):
            form.files(Material(sent, task))


def test_fine_tuning_rows_answer_in_the_shape_of_the_prompt() -> None:
    form, task = FORMATS.get("finetune-jsonl"), RECORDS.task
    order = tuple(reversed(RECORD["properties"]))
    shaped = PromptCandidate("zero-shot", "turns", "Go.").having(shape=AnswerShape("types", order=order))
    rows = form.files(Material(release_of(RECORDS, shaped), task))["finetune.jsonl"]
    for line, row in zip(str(rows).splitlines(), task.train, strict=True):
        answer = json.loads(json.loads(line)["messages"][-1]["content"])
        assert (answer, tuple(answer)) == (row.labels["record"], order)
    reasoned = shaped.having(shape=AnswerShape("types", "each"))
    with pytest.raises(ReleaseError, match="asks for reasons, which labels lack"):
        form.files(Material(release_of(RECORDS, reasoned), task))


def test_the_promptfoo_folder_holds_the_dev_rows_and_reads_replies_as_we_do(tmp_path: Path) -> None:
    folder = written("promptfoo", toy(), tmp_path) / "promptfoo"
    tests = json.loads((folder / "tests.json").read_text("utf-8"))
    assert [(test["description"], test["vars"]["expected"]) for test in tests] == [
        (row.id, dict(row.labels)) for row in TASK.dev
    ]
    assert tests[0]["vars"]["row"] == dict(TASK.dev[0].inputs)
    assert not any(row.inputs["message"] in str(tests) for row in (*TASK.train, *TASK.test))
    check = load_module(folder / "check.py", "exported_check")
    context = {"vars": {"expected": {"team": "billing"}}}
    assert check.get_assert("Team: **Billing**.", context) == {"pass": True, "score": 1.0, "reason": "right"}
    assert check.get_assert("delivery", context)["score"] == 0
    assert not check.get_assert("no idea", context)["pass"]


@each_case(
    "model, id, address",
    [
        ("openai/a:b", "openai:chat:a:b", ""),
        ("anthropic/c", "anthropic:messages:c", ""),
        ("openai-compatible/m@http://h:1/v1?x='y'", "openai:chat:m", "default('http://h:1/v1?x=%27y%27')"),
        ("openai-compatible/m", "openai:chat:m", "default(env.OPENAI_BASE_URL)"),
        ("openai-compatible/m@http://127.0.0.1:8080/v1", "openai:chat:m", "default('http://127.0.0.1:8080/v1')"),
        ("local/m", "openai:chat:m", "default('http://127.0.0.1:8080/v1')"),
    ],
)
def test_the_promptfoo_config_names_the_model_and_reads_back(tmp_path: Path, model: str, id: str, address: str) -> None:
    yaml = pytest.importorskip("yaml")
    sent = toy(model=model)
    config = written("promptfoo", sent, tmp_path) / "promptfoo" / "promptfooconfig.yaml"
    (provider,) = yaml.safe_load(config.read_bytes())["providers"]
    assert (provider["id"], {**provider["config"], **sent.parameters}) == (id, provider["config"])
    assert address in provider["config"].get("apiBaseUrl", "")
    assert ("default('none')" in provider["config"].get("apiKey", "")) == bool(address), "never OpenAI's key"
    assert provider_settings(tmp_path, sent) == {"model": model, **sent.parameters}
    written("promptfoo", toy(model="fake/m"), tmp_path)
    assert provider_settings(tmp_path, sent) == {}


def test_the_prompt_function_of_promptfoo_needs_only_python(tmp_path: Path) -> None:
    written("promptfoo", PICKED, tmp_path, MAILS.task)
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import prompt\n"
        "row = {'message': 'a {{late}} parcel\\n', 'channel': ''}\n"
        "foreign = {name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "print(json.dumps([prompt.render(**row), prompt.promptfoo_prompt({'vars': {'row': row}}), sorted(foreign)]))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, tmp_path / "promptfoo"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    messages, returned, foreign = json.loads(done.stdout)
    assert foreign == ["__main__", "prompt"]
    assert messages == [message.as_dict() for message in PICKED.fill({"message": "a {{late}} parcel\n", "channel": ""})]
    assert '{{ "{" }}{late}}' in json.loads(returned)[-1]["content"]
