"""What users confirm is shown to them alone, changes no release, and can be erased."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agent
from agent.errors import ReleaseError
from agent.prompt.parts.picks import PickedDemos
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import shown_demo, template
from agent.release import remembered
from agent.release.export import hostile_rows, write_release
from agent.release.remembered import answers_of, demo_texts, require_layout, wrong_answers
from agent.release.runtime import Prompt, PromptRelease, load_prompt
from agent.retrieval.pick import ORDERS, Picks, PoolRow
from agent.retrieval.pool import pool_id
from agent.types import Demo, Field, FormatName, Message, Signature
from tests.release.test_completion import Recorder
from tests.release.test_runtime import RELEASE
from tests.retrieval.test_same_picks import NAMES, SIGNATURE, prompts, released

INPUTS = {"message": "zebra crossing fee", "context": "kiosk"}
ROOT = Path(agent.__file__).parent.parent


def loaded(folder: Path, k: int = 4, balanced: bool = False) -> Prompt:
    """A prompt with one input whose pool has ten rows."""
    signature = Signature((Field("message"),), (Field("team", "choice", choices=("billing", "delivery")),))
    words = ("card", "fee", "parcel", "late", "door", "code", "refund", "box", "street", "lost")
    texts = [f"{word} trouble" for word in words]
    labels = [("billing", "delivery")[at % 2] for at in range(10)]
    rows = [
        PoolRow(f"t{at}", text, label, f"t{at}") for at, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    picks = Picks("bm25", k, ORDERS[1], balanced=balanced, pool=pool_id(rows))
    candidate = PromptCandidate("few-shot", "turns", "Route.", picks=picks)
    release = PromptRelease(
        name="toy",
        messages=template(candidate, signature),
        inputs=("message",),
        outputs=signature.outputs,
        format="turns",
        reasoning=False,
        model="openai/gpt-x",
        parameters={"max_tokens": 8},
        provenance={},
        picks=PickedDemos(picks, (), tuple(rows), tuple(zip(texts, labels, strict=True))),
    )
    return load_prompt(write_release(release, folder))


def pairs(messages: list[dict[str, str]]) -> list[tuple[str, str]]:
    """The examples of rendered messages, as they are shown."""
    turns = [message["content"] for message in messages[1:-1]]
    return list(zip(turns[::2], turns[1::2], strict=True))


def all_bytes(folder: Path) -> bytes:
    """The names and contents of all files below."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"\n".join(path.name.encode() + b"\n" + path.read_bytes() for path in files)


def refused(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(ReleaseError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", get_args(FormatName))
def test_an_example_is_laid_out_as_the_search_would(name: FormatName) -> None:
    if name.startswith("dspy"):
        pytest.importorskip("dspy")
    for prompt in prompts(name):
        release = released(prompt)
        require_layout(release)
        for inputs in hostile_rows(NAMES):
            for team in ("billing", "<b> & \n"):
                demo = Demo("x", inputs, {"team": team})
                assert demo_texts(release, inputs, demo.outputs) == shown_demo(prompt, demo, SIGNATURE)
    two = Signature(SIGNATURE.inputs, (*SIGNATURE.outputs, Field("fee", "number")))
    release = dataclasses.replace(release, outputs=two.outputs)
    demo = Demo("x", INPUTS, {"team": "delivery", "fee": "3"})
    assert demo_texts(release, INPUTS, demo.outputs) == shown_demo(prompt, demo, two)
    assert "layout" in refused(require_layout, release)


def test_a_remembered_example_comes_first_and_the_release_stays_as_it_is(tmp_path: Path) -> None:
    prompt = loaded(tmp_path)
    before = prompt.render(message="late fee")
    prompt.remember({"message": "late tram"}, "billing", who="ann@example.org")
    again = load_prompt(tmp_path)
    assert again.version == prompt.version
    assert again.render(message="late fee") == before
    mine = again.render(who="ann@example.org", message="late fee")
    assert pairs(mine)[0] == ("late tram", "billing")
    assert pairs(mine)[1:] == pairs(before)[:3]
    assert again.render(who="bob", message="late fee") == before
    assert b"ann" not in all_bytes(tmp_path / "remembered")
    assert prompt.forget("ann@example.org") == 1
    assert again.render(who="ann@example.org", message="late fee") == before
    assert b"tram" not in all_bytes(tmp_path)


def test_what_has_nothing_in_common_is_not_picked_before_what_has(tmp_path: Path) -> None:
    prompt = loaded(tmp_path)
    prompt.remember({"message": "unrelated words"}, "billing", who="ann")
    assert prompt.render(who="ann", message="late fee") == prompt.render(message="late fee")


def test_a_correction_stands_in_the_place_of_the_row_that_says_otherwise(tmp_path: Path) -> None:
    prompt = loaded(tmp_path)
    assert ("fee trouble", "delivery") in pairs(prompt.render(message="fee"))
    prompt.remember({"message": "Trouble: FEE"}, "billing", who="ann")
    shown = pairs(prompt.render(who="ann", message="fee"))
    assert shown[0] == ("Trouble: FEE", "billing")
    assert "fee trouble" not in dict(shown)
    assert len(shown) == 4
    prompt.remember({"message": "Trouble: FEE"}, "delivery", who="ann")  # the same inputs again: the newer answer
    assert pairs(prompt.render(who="ann", message="fee"))[0] == ("Trouble: FEE", "delivery")
    assert prompt.forget("ann") == 1


def test_labels_stay_balanced_and_k_holds_over_both_pools(tmp_path: Path) -> None:
    prompt = loaded(tmp_path, balanced=True)
    for number in range(9):
        prompt.remember({"message": f"late fee {number}"}, "billing", who="ann")
    shown = pairs(prompt.render(who="ann", message="late fee"))
    assert [label for _, label in shown] == ["billing", "billing", "delivery", "delivery"]


TEXT = st.text(st.sampled_from('ab é漢\ud83d{\n"'), min_size=1, max_size=6).map(lambda text: f"secret {text}")
WHO = st.sampled_from(["ann", "bob", "../../etc", "a\nb", "é", "e\u0301", "\ud83d"])
STEP = st.tuples(st.sampled_from(["remember", "remember", "render", "forget", "forget one"]), WHO, TEXT)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, max_size=12))
def test_no_user_ever_sees_the_rows_of_another(steps: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        prompt = loaded(Path(name), k=16)
        pool = {row.text for row in prompt.release.picks.rows} if prompt.release.picks else set()
        mine: dict[str, dict[str, str]] = {}
        for number, (verb, who, text) in enumerate(steps):
            inputs = {"message": f"{text} trouble"}
            known = mine.setdefault(who, {})
            if verb == "remember":
                answer = ("billing", "delivery")[number % 2]
                prompt.remember(inputs, answer, who=who)
                known[inputs["message"]] = answer
            elif verb == "forget":
                assert prompt.forget(who) == len(known)
                known.clear()
            elif verb == "forget one":
                chosen = next(iter(known), inputs["message"])
                assert prompt.forget(who, inputs={"message": chosen}) == (known.pop(chosen, None) is not None)
            for one in mine:
                shown = dict(pairs(prompt.render(who=one, message="trouble")))
                assert {text: label for text, label in shown.items() if text not in pool} == mine[one]
            assert not {text for text, _ in pairs(prompt.render(message="trouble"))} - pool
        for who in list(mine):
            prompt.forget(who)
        assert b"secret" not in all_bytes(Path(name) / "remembered")


def test_an_erased_example_is_in_no_file_even_where_a_writer_was_killed(tmp_path: Path) -> None:
    prompt = loaded(tmp_path)
    folder = tmp_path / "remembered"
    for text in ("first secret", "second secret"):
        prompt.remember({"message": text}, "billing", who="ann")
    (file,) = folder.glob("*.jsonl")
    file.with_suffix(".new").write_bytes(b'{"inputs": {"message": "half a first sec')  # as kill -9 leaves it
    assert prompt.forget("ann", inputs={"message": "first secret"}) == 1
    assert b"first" not in all_bytes(folder)
    assert b"second secret" in all_bytes(folder)
    file.write_bytes(b"broken secret")  # what cannot be read can be erased
    file.with_suffix(".new").write_bytes(b'{"inputs": {"message": "half a second sec')
    assert f"{file}:1" in refused(prompt.render, who="ann", message="x")
    prompt.forget("ann")
    assert all_bytes(folder) == b".lock\n"
    assert prompt.forget("ann") == 0


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        loaded(tmp_path).remember({"message": "x"}, "billing", who="ann")
    finally:
        os.umask(umask)
    folder = tmp_path / "remembered"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_rows_and_sizes_are_bounded_and_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = loaded(tmp_path, k=16)
    for number in range(remembered.MOST_ROWS + 3):
        prompt.remember({"message": f"number {number}"}, "billing", who="ann")
    (file,) = (tmp_path / "remembered").glob("*.jsonl")
    kept = [json.loads(line)["inputs"]["message"] for line in file.read_bytes().splitlines()]
    assert kept == [f"number {number}" for number in range(3, remembered.MOST_ROWS + 3)]
    assert "10,000" in refused(prompt.remember, {"message": "x" * 10_000}, "billing", who="ann")
    monkeypatch.setattr(remembered, "MOST_IN_ALL", 100)
    prompt.remember({"message": "the last one"}, "billing", who="ann")
    assert sum(len(json.loads(line)["inputs"]["message"]) for line in file.read_bytes().splitlines()) <= 100
    assert "1000 characters" in refused(prompt.remember, {"message": "x"}, "billing", who="x" * 1001)
    for who in ("", 7):
        assert "who is" in refused(prompt.remember, {"message": "x"}, "billing", who=who)


def test_what_does_not_fit_the_prompt_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    prompt = loaded(tmp_path)
    assert "not one of billing, delivery" in refused(prompt.remember, {"message": "x"}, "Billing", who="ann")
    assert "team is 7" in refused(prompt.remember, {"message": "x"}, 7, who="ann")
    assert "'queue' is unknown" in refused(prompt.remember, {"message": "x"}, {"queue": "billing"}, who="ann")
    assert "message is missing" in refused(prompt.remember, {"text": "x"}, "billing", who="ann")
    assert "secret key" in refused(prompt.remember, {"message": "mine is sk-abcdefgh12345678"}, "billing", who="ann")
    assert b"sk-abc" not in all_bytes(tmp_path)
    assert not (tmp_path / "remembered").exists()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (Field("n", "number"), 3.5, ""),
        (Field("n", "number"), True, "not a number"),
        (Field("n", "number"), float("nan"), "not a number"),
        (Field("n", "number"), 10**400, "not a number"),
        (Field("j", "json"), {"a": [1, None]}, ""),
        (Field("j", "json"), {"a": {1, 2}}, "not JSON"),
        (Field("j", "json"), float("inf"), "not JSON"),
        (Field("j", "json"), {"a": {1: 2, "1": 3}}, "not JSON"),
        (Field("t"), "fine", ""),
        (Field("t"), "  ", "not a text"),
        (Field("t", max_words=1), "two words", "at most 1"),
    ],
)
def test_an_answer_is_checked_against_its_type(field: Field, value: Any, words: str) -> None:
    wrong = wrong_answers((field,), answers_of((field,), value))
    assert (words in " ".join(wrong)) if words else wrong == []


def test_a_prompt_without_picks_remembers_nothing_and_renders_as_before(tmp_path: Path) -> None:
    prompt = load_prompt(write_release(RELEASE, tmp_path))
    assert "same examples" in refused(prompt.remember, {"message": "x"}, "billing", who="ann")
    assert prompt.render(who="ann", message="x") == prompt.render(message="x")
    assert prompt.forget("ann") == 0
    assert "load_prompt" in refused(Prompt(RELEASE).forget, "ann")


def test_an_input_with_the_name_who_stays_an_input(tmp_path: Path) -> None:
    named = dataclasses.replace(RELEASE, messages=(Message("user", "{{who}}"),), inputs=("who",))
    prompt = load_prompt(write_release(named, tmp_path))
    assert prompt.render(who="x") == [{"role": "user", "content": "x"}]


def test_a_folder_may_be_shared_by_versions_and_rows_that_do_not_fit_are_passed_over(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    file = tmp_path / "one" / "prompt.md"
    loaded(file.parent)
    prompt = load_prompt(file, remembered=shared)
    prompt.remember({"message": "late tram"}, "billing", who="ann")
    (stored,) = shared.glob("*.jsonl")
    other = {"inputs": {"message": "late bus"}, "answers": {"team": "a label of before"}, "time": ""}
    stored.write_bytes(stored.read_bytes() + json.dumps(other).encode() + b"\n")
    loaded(tmp_path / "two", k=6)
    second = load_prompt(tmp_path / "two", remembered=shared)
    assert second.version != prompt.version
    assert pairs(second.render(who="ann", message="late"))[0] == ("late tram", "billing")
    assert "late bus" not in dict(pairs(second.render(who="ann", message="late")))
    assert not (file.parent / "remembered").exists()


async def test_a_call_shows_the_rows_of_its_user(tmp_path: Path) -> None:
    prompt = loaded(tmp_path)
    prompt.remember({"message": "late tram"}, "billing", who="ann")
    model = Recorder()
    assert (await prompt.acomplete(model, who="ann", message="late")).fields == {"team": "billing"}
    await prompt.acomplete(model, message="late")
    sent = [[message.as_dict() for message in asked.messages] for asked in model.asked]
    assert sent == [prompt.render(who="ann", message="late"), prompt.render(message="late")]
    assert sent[0] != sent[1]


def test_writers_in_several_processes_lose_nothing(tmp_path: Path) -> None:
    loaded(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from agent.release.runtime import load_prompt\n"
        "prompt = load_prompt(sys.argv[2])\n"
        "for number in range(30):\n"
        "    prompt.remember({'message': f'{sys.argv[3]} {number}'}, 'billing', who='ann')\n"
        "foreign = {name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "print(sorted(foreign))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT), str(tmp_path)]  # the standard library alone
    writers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("one", "two")]
    assert [writer.communicate(timeout=120)[0].strip() for writer in writers] == ["['__main__', 'agent']"] * 2
    (file,) = (tmp_path / "remembered").glob("*.jsonl")
    kept = [json.loads(line)["inputs"]["message"] for line in file.read_bytes().splitlines()]
    assert sorted(kept) == sorted(f"{name} {number}" for name in ("one", "two") for number in range(30))
    assert [text for text in kept if text.startswith("one")] == [f"one {number}" for number in range(30)]
