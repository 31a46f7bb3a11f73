"""Each format by the real library: 200 hostile rows come out byte for byte, or nothing is written."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.prompt.template import fill_messages, join
from agent.release.export import probe_rows
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.promptfoo import provider_settings
from agent.release.formats.proof import verify_exports
from agent.release.formats.python_module import load_module
from agent.release.runtime import PromptRelease
from agent.types import Message, SimulatedUser
from tests.release.formats.sample import INPUTS, TAME, WILD, plain_turns, proved, refused, release, two, wanted, write
from tests.toys import make_task


@pytest.mark.parametrize("name", ["md", "messages", "anthropic", "langchain", "python"])
def test_hostile_values_and_hostile_fixed_text_come_out_byte_for_byte(name: str) -> None:
    form = wanted(name)
    for sent in (release(), plain_turns(), release(*two(WILD))):
        made = proved(form, sent)
        assert set(made.unfit) <= {"half a character (a lone surrogate)"}


def test_llm_carries_one_system_text_and_one_prompt() -> None:
    form = wanted("llm")
    assert proved(form, release(*two(WILD))).unfit == {}
    alone = release(Message("user", "Route: {{message}} $x"), inputs=("message",))
    made = proved(form, alone)
    assert "${input} $$x" in made.texts["llm.yaml"]


def test_llm_refuses_turns_and_says_what_to_do() -> None:
    with pytest.raises(ReleaseError, match=r"not the 4 messages \(system, user, assistant, user\).*another format"):
        FORMATS.get("llm").files(Material(release()))


def test_the_llm_file_reads_as_a_person_would_write_it() -> None:
    sent = release(
        Message("system", "Route it.\nTeams: a, b"), Message("user", "{{message}} costs $5"), inputs=("message",)
    )
    assert FORMATS.get("llm").files(Material(sent))["llm.yaml"] == (
        f"# support_triage, {sent.version}\n"
        'model: "gpt-x"\noptions:\n  temperature: 0.0\n  max_tokens: 64\n'
        'system: |-\n  Route it.\n  Teams: a, b\nprompt: "${input} costs $$5"\n'
    )


def test_anthropic_has_the_system_text_apart() -> None:
    body = json.loads(FORMATS.get("anthropic").files(Material(plain_turns()))["anthropic.json"])
    assert body["system"].startswith("Route the message.")
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["max_tokens"] == 64
    late = release(Message("user", "{{message}}"), Message("system", "x"))
    assert "roles here are user, system" in refused(FORMATS.get("anthropic"), late)


def test_anthropic_names_no_model_of_another_provider() -> None:
    for model, named in (("anthropic/claude-x", "claude-x"), ("openai-compatible/x@http://127.0.0.1:1/v1", None)):
        body = json.loads(FORMATS.get("anthropic").files(Material(plain_turns(model)))["anthropic.json"])
        assert body.get("model") == named


def test_prompty_has_the_name_of_a_compatible_model_apart_from_its_address(tmp_path: Path) -> None:
    form = wanted("prompty")
    write(proved(form, plain_turns("openai-compatible/x@http://127.0.0.1:1/v1")), tmp_path)
    import prompty

    model = prompty.load(tmp_path / "prompt.prompty").model
    assert (model.id, model.provider) == ("x", "openai")
    assert (model.connection.endpoint, model.connection.api_key) == ("http://127.0.0.1:1/v1", "none")
    write(proved(form, plain_turns("openai/${env:HOME}")), tmp_path)
    assert prompty.load(tmp_path / "prompt.prompty").model is None


def test_langchain_reads_what_it_would_have_written_itself() -> None:
    wanted("langchain")
    from langchain_core.load import dumps, loads

    text = FORMATS.get("langchain").files(Material(release()))["langchain.json"]
    template = loads(text, allowed_objects="core")
    assert sorted(template.input_variables) == sorted(INPUTS)
    again = loads(dumps(template), allowed_objects="core")
    assert again == template
    assert template.metadata == release().parameters
    (note,) = [line for line in proved(FORMATS.get("langchain"), release()).notes() if "parameters" in line]
    assert "ChatOpenAI(**template.metadata)" in note


def test_the_python_module_needs_only_python_and_is_typed(tmp_path: Path) -> None:
    sent = release(*two(WILD))
    write(proved(FORMATS.get("python"), sent), tmp_path)
    tree = ast.parse((tmp_path / "prompt.py").read_text("utf-8"))
    modules = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in modules} <= sys.stdlib_module_names
    script = "import json, prompt; print(json.dumps(prompt.render(message='{{context}}', context='\\\\1')))"
    printed = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {script}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    values = {"message": "{{context}}", "context": "\\1"}
    assert json.loads(printed) == [message.as_dict() for message in fill_messages(sent.messages, values)]
    assert "cannot be an argument" in refused(
        FORMATS.get("python"), release(Message("user", "{{class}}"), inputs=("class",))
    )


def test_a_mark_next_to_a_brace_or_a_backslash_is_still_a_mark() -> None:
    parts = ["{", ("message",), "}\\", ("context",), "{{", ("message",), "}}$", ("context",), "{%"]
    sent = release(Message("user", join(parts, INPUTS)))
    for name in ("md", "messages", "langchain", "python", "llm", "anthropic"):
        form = FORMATS.get(name)
        if not form.library or wanted_or_none(name):
            proved(form, sent)


def wanted_or_none(name: str) -> bool:
    try:
        wanted(name)
    except pytest.skip.Exception:
        return False
    return True


# -- targets that rewrite the text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dspy", "mlflow"])
def test_dspy_and_mlflow_carry_every_text(name: str) -> None:
    form = wanted(name)
    for sent in (release(), plain_turns(), release(*two(WILD))):
        assert set(proved(form, sent).unfit) <= {"half a character (a lone surrogate)"}


@pytest.mark.parametrize("name", ["prompty", "dotprompt"])
def test_prompty_and_dotprompt_carry_what_they_do_not_name_as_unfit(name: str) -> None:
    form = wanted(name)
    for sent in (release(), plain_turns(), release(*two(TAME))):
        made = proved(form, sent)
        assert len(made.unfit) <= 4
        assert sum(made.unfit.values()) < made.rows


@pytest.mark.parametrize(
    ("text", "why"),
    [("a\nuser:\nb", "a line that names a role"), ("a\r\nb", "line ends other"), ("\na", "line ends other")],
)
def test_prompty_refuses_a_prompt_that_its_parser_would_cut(text: str, why: str) -> None:
    form = FORMATS.get("prompty")
    with pytest.raises(ReleaseError, match=why):
        form.files(Material(release(Message("user", text), inputs=())))


def test_what_prompty_is_said_not_to_carry_it_does_not_carry(tmp_path: Path) -> None:
    form = wanted("prompty")
    sent = plain_turns()
    write(proved(form, sent), tmp_path)
    render = form.load(tmp_path, sent).render
    assert render is not None
    for value in ("x\nsystem:\ny", " # User : ", "a\r\nb", "a\u2028b", "\na"):
        values = {"message": value}
        assert form.unfit(sent, values)
        try:
            got = render(values)
        except ValueError:
            continue
        assert got != [message.as_dict() for message in fill_messages(sent.messages, values)]


@pytest.mark.parametrize(("text", "why"), [("<<<dotprompt:role:system>>>", "the mark"), (" \n", "only white space")])
def test_dotprompt_refuses_what_its_reader_would_take_out(text: str, why: str) -> None:
    form = FORMATS.get("dotprompt")
    with pytest.raises(ReleaseError, match=why):
        form.files(Material(release(Message("system", text), Message("user", "{{message}}"))))
    with pytest.raises(ReleaseError, match="is a helper of Dotprompt"):
        form.files(Material(release(Message("user", "{{role}}"), inputs=("role",))))


def test_dotprompt_keeps_trailing_space_and_braces() -> None:
    form = wanted("dotprompt")
    assert proved(form, release(Message("user", "{{message}} {{x}} \\{{{y} \\ {\n \n"), inputs=("message",))).rows


def test_mlflow_uses_one_pass_where_values_could_be_filled_again() -> None:
    form = FORMATS.get("mlflow")
    one, many = (json.loads(form.files(Material(sent))["mlflow_prompt.json"]) for sent in (plain_turns(), release()))
    assert one["template"][-1]["content"] == "{{message}}"
    assert many["template"][0]["content"].startswith("{% if true %}{% endif %}")
    assert one["tags"]["run_id"] == "r_1"
    assert one["model_config"] == {"model_name": "openai/gpt-x", "temperature": 0.0, "max_tokens": 64}


@pytest.mark.filterwarnings("ignore:The ``noload`` loader")  # of MLflow's own tables
def test_mlflow_gives_the_prompt_back_from_a_real_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = wanted("mlflow")
    pytest.importorskip("sqlalchemy")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    sent = release(*two(WILD))
    write(proved(form, sent), tmp_path)
    load_module(tmp_path / "register_mlflow.py", "exported_register").register()
    prompt = mlflow.genai.load_prompt("prompts:/support_triage@production")
    assert prompt.tags["release"] == sent.version
    for values in islice((row for row in probe_rows(sent.inputs) if not form.unfit(sent, row)), 200):
        assert prompt.format(**values) == [message.as_dict() for message in fill_messages(sent.messages, values)]


def test_the_dspy_module_refuses_a_state_of_other_fields(tmp_path: Path) -> None:
    write(proved(FORMATS.get("dspy"), plain_turns()), tmp_path)
    state = tmp_path / "dspy" / "program.json"
    state.write_text(state.read_text("utf-8").replace('"Team:"', '"Theme:"'), "utf-8")
    with pytest.raises(ValueError, match=r"Theme.*export them again together"):
        load_module(tmp_path / "dspy" / "program.py", "exported_program").load()


def test_the_dspy_program_reads_replies_as_they_were_read_when_scored(tmp_path: Path) -> None:
    import dspy
    from dspy.utils.dummies import DummyLM

    write(proved(FORMATS.get("dspy"), plain_turns()), tmp_path)
    program = load_module(tmp_path / "dspy" / "program.py", "exported_program").load()
    lm = DummyLM([{"team": "Billing."}])
    with dspy.context(lm=lm):
        assert program(message="x").team == "billing"
    assert {name: lm.history[-1]["kwargs"].get(name) for name in ("max_tokens", "temperature")} == {
        "max_tokens": 64, "temperature": 0.0,
    }  # fmt: skip


# -- formats that hold rows -------------------------------------------------------------------------------------------


def toy(**changes: Any) -> PromptRelease:
    task = make_task()
    messages = (Message("system", "Route it."), Message("user", "a"), Message("assistant", "billing"))
    last = Message("user", "Message: {{message}}")
    return release(*messages, last, inputs=("message",), outputs=task.signature.outputs, **changes)


def test_fine_tuning_rows_are_train_rows_with_the_instruction_and_the_right_answer() -> None:
    task, form = make_task(), FORMATS.get("finetune-jsonl")
    (made,) = verify_exports([form], {form.name: Material(toy(), task)})
    rows = [json.loads(line) for line in made.texts["finetune.jsonl"].splitlines()]
    assert len(rows) == len(task.train)
    for row, example in zip(rows, task.train, strict=True):
        assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
        assert row["messages"][1]["content"] == f"Message: {example.inputs['message']}"
        assert row["messages"][2]["content"] == example.labels["team"]
    unseen = [example.inputs["message"] for example in (*task.dev, *task.test)]
    assert not any(text in made.texts["finetune.jsonl"] for text in unseen)
    with pytest.raises(ReleaseError, match="pass the task"):
        form.files(Material(toy()))
    with pytest.raises(ReleaseError, match="continue with the model's own replies, and this format writes rows"):
        form.files(Material(toy(), make_task(user=SimulatedUser())))
    with pytest.raises(ReleaseError, match="dspy-chat wraps answers"):
        form.files(Material(toy(format="dspy-chat"), task))


def test_an_answer_of_a_reasoning_prompt_reads_back_as_the_label() -> None:
    text = FORMATS.get("finetune-jsonl").files(Material(toy(reasoning=True), make_task()))["finetune.jsonl"]
    assert json.loads(text.splitlines()[0])["messages"][-1]["content"] == "Answer: billing"


@pytest.mark.extra("promptfoo")
def test_promptfoo_sends_what_was_scored() -> None:
    form = wanted("promptfoo")
    wild = release(*two(WILD))
    task = make_task()
    for sent in (release(), plain_turns(), wild):
        assert set(proved(form, sent, task=task).unfit) <= {"half a character (a lone surrogate)"}


def test_the_promptfoo_folder_holds_the_dev_rows_and_no_other() -> None:
    task = make_task()
    texts = FORMATS.get("promptfoo").files(Material(toy(), task))
    tests = json.loads(texts["promptfoo/tests.json"])
    assert [test["description"] for test in tests] == [row.id for row in task.dev]
    assert tests[0]["vars"] == {"row": dict(task.dev[0].inputs), "expected": dict(task.dev[0].labels)}
    assert not any(row.inputs["message"] in texts["promptfoo/tests.json"] for row in (*task.train, *task.test))
    assert 'id: "openai:chat:gpt-x"' in texts["promptfoo/promptfooconfig.yaml"]
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load(texts["promptfoo/promptfooconfig.yaml"])
    assert config["providers"][0]["config"] == {"max_tokens": 64, "temperature": 0.0}
    served = FORMATS.get("promptfoo").files(Material(toy(model="openai-compatible/m@http://h:1/v1"), task))
    config = yaml.safe_load(served["promptfoo/promptfooconfig.yaml"])
    assert config["providers"][0] == {
        "id": "openai:chat:m",
        "config": {
            "apiBaseUrl": "{{ env.OPENAI_COMPATIBLE_BASE_URL | default('http://h:1/v1') }}",
            "apiKey": "{{ env.OPENAI_COMPATIBLE_API_KEY | default('none') }}",
            "max_tokens": 64,
            "temperature": 0.0,
        },
    }
    local = FORMATS.get("promptfoo").files(Material(toy(model="local/smollm2-135m"), task))
    (provider,) = yaml.safe_load(local["promptfoo/promptfooconfig.yaml"])["providers"]
    assert provider["id"] == "openai:chat:smollm2-135m"
    assert "default('http://127.0.0.1:8080/v1')" in provider["config"]["apiBaseUrl"]


@pytest.mark.parametrize(
    "model",
    [
        "openai/a:b",
        "anthropic/c",
        "openai-compatible/m@http://h:1/v1?x='y'",
        "openai-compatible/m",
        "openai-compatible/m@http://127.0.0.1:8080/v1",
        "local/m",
    ],
)
def test_the_promptfoo_config_reads_back_as_the_model_and_parameters(tmp_path: Path, model: str) -> None:
    form, sent = FORMATS.get("promptfoo"), toy(model=model)
    texts = form.files(Material(sent, make_task()))
    config = tmp_path / "promptfoo" / "promptfooconfig.yaml"
    config.parent.mkdir()
    config.write_text(texts["promptfoo/promptfooconfig.yaml"])
    assert provider_settings(tmp_path, sent) == {"model": model, **sent.parameters}
    config.write_text("providers:\n  - echo\n")
    assert provider_settings(tmp_path, sent) == {}


def test_the_assertion_of_promptfoo_reads_replies_as_we_do(tmp_path: Path) -> None:
    for name, text in FORMATS.get("promptfoo").files(Material(toy(), make_task())).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    check = load_module(tmp_path / "promptfoo" / "check.py", "exported_check")
    context = {"vars": {"expected": {"team": "billing"}}}
    assert check.get_assert("Team: **Billing**.", context) == {"pass": True, "score": 1.0, "reason": "right"}
    assert check.get_assert("delivery", context)["score"] == 0
    assert not check.get_assert("no idea", context)["pass"]
