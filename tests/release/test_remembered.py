"""What users confirm is shown to them alone, changes no release, and can be erased."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agent
from agent.errors import ReleaseError
from agent.prompt.parts.picks import PickedDemos
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import shown_demos, template
from agent.release import remembered
from agent.release.export import hostile_rows, write_release
from agent.release.remembered import answers_of, demo_texts, require_layout, wrong_answers
from agent.release.runtime import Prompt, PromptRelease, load_prompt
from agent.retrieval.pick import ORDERS, Picks, PoolRow
from agent.retrieval.vectors import pool_id
from agent.types import Demo, Field, Signature
from tests.cases import each_case
from tests.release.formats.kinds import KINDS, MAILS, NAMES, searched
from tests.release.test_completion import Recorder
from tests.release.test_runtime import RELEASE

INPUTS = {"message": "zebra crossing fee", "channel": "kiosk"}
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
    candidate = PromptCandidate("few-shot", "turns", "Route.").having(picks=picks)
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
        parts=(PickedDemos(picks, (), tuple(rows), tuple(zip(texts, labels, strict=True))),),
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


def texts_in(file: Path) -> list[str]:
    return [json.loads(line)["inputs"]["message"] for line in file.read_bytes().splitlines()]


def refused(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(ReleaseError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_example_is_laid_out_as_the_search_would() -> None:
    signature = MAILS.task.signature
    two = Signature(signature.inputs, (*signature.outputs, Field("fee", "number")))
    for kind in (*(each for each in searched() if each.prompt.part("passages") is None), KINDS["picked talks"]):
        if kind.program is not MAILS:
            asked, of = [row.inputs for row in kind.program.task.train], kind.program.task.signature
        else:
            asked, of = list(hostile_rows(NAMES)), signature
        require_layout(kind.release)
        for inputs in asked:
            for team in ("billing", "<b> & \n"):
                demo = Demo("x", inputs, {"team": team})
                assert [demo_texts(kind.release, inputs, demo.outputs)] == shown_demos(kind.prompt, [demo], of)
        if kind.program is MAILS and kind.prompt.format != "labelled-turns":  # whose turns name the output
            release = dataclasses.replace(kind.release, outputs=two.outputs)
            demo = Demo("x", INPUTS, {"team": "delivery", "fee": "3"})
            assert [demo_texts(release, INPUTS, demo.outputs)] == shown_demos(kind.prompt, [demo], two)
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


def test_a_correction_replaces_the_row_that_says_otherwise_and_only_what_is_alike_is_picked(tmp_path: Path) -> None:
    prompt = loaded(tmp_path)
    prompt.remember({"message": "unrelated words"}, "billing", who="bob")
    assert prompt.render(who="bob", message="late fee") == prompt.render(message="late fee")
    assert ("fee trouble", "delivery") in pairs(prompt.render(message="fee"))
    for answer in ("billing", "delivery"):  # the same inputs again: the newer answer
        prompt.remember({"message": "Trouble: FEE"}, answer, who="ann")
        shown = pairs(prompt.render(who="ann", message="fee"))
        assert (shown[0], len(shown)) == (("Trouble: FEE", answer), 4)
        assert "fee trouble" not in dict(shown)
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


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(STEP, max_size=12))
def test_no_user_ever_sees_the_rows_of_another(steps: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        prompt = loaded(Path(name), k=16)
        picks = prompt.release.part(PickedDemos)
        pool = {row.text for row in picks.rows} if picks else set()
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
    (folder / ".new-x").mkdir()
    (folder / ".new-x" / file.name).write_bytes(b'{"inputs": {"message": "half a first sec')  # as kill -9 leaves it
    assert prompt.forget("ann", inputs={"message": "first secret"}) == 1
    assert b"first" not in all_bytes(folder)
    assert b"second secret" in all_bytes(folder)
    file.write_bytes(b"broken secret")  # what cannot be read can be erased
    (folder / ".new-y").mkdir()
    (folder / ".new-y" / file.name).write_bytes(b'{"inputs": {"message": "half a second sec')
    assert f"{file}:1" in refused(prompt.render, who="ann", message="x")
    prompt.forget("ann")
    assert all_bytes(folder) == b".lock\n"
    assert prompt.forget("ann") == 0


def test_files_are_for_their_owner_only_and_bounded_and_the_oldest_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "MOST_ROWS", 20)
    prompt, umask = loaded(tmp_path, k=16), os.umask(0)
    try:
        for number in range(23):
            prompt.remember({"message": f"number {number}"}, "billing", who="ann")
    finally:
        os.umask(umask)
    folder = tmp_path / "remembered"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    (file,) = folder.glob("*.jsonl")
    assert texts_in(file) == [f"number {number}" for number in range(3, 23)]
    size = len("number 22") + len("billing")
    monkeypatch.setattr(remembered, "MOST_IN_ALL", 2 * size)
    prompt.remember({"message": "number 99"}, "billing", who="ann")
    assert texts_in(file) == ["number 22", "number 99"]
    most = remembered.MOST_IN_ROW - len("billing")
    monkeypatch.setattr(remembered, "MOST_IN_ALL", 10**6)
    prompt.remember({"message": "x" * most}, "billing", who="ann")
    assert "10,000" in refused(prompt.remember, {"message": "x" * (most + 1)}, "billing", who="ann")
    prompt.remember({"message": "x"}, "billing", who="x" * 1000)
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


@each_case(
    "field, value, words",
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


def test_a_lock_that_another_program_keeps_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_PATIENCE", 0.0)
    rows = remembered.RememberedRows(RELEASE, tmp_path, "me")
    with (tmp_path / ".lock").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ReleaseError, match="another program has held it for 0 seconds; try again later"):
            rows.forget()


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
    kept = texts_in(file)
    assert sorted(kept) == sorted(f"{name} {number}" for name in ("one", "two") for number in range(30))
    assert [text for text in kept if text.startswith("one")] == [f"one {number}" for number in range(30)]
