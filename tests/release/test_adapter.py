"""A prompt with an adapter is one folder with one version: no byte changes unseen, and it goes where prompts go."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import InputError, ReleaseError
from agent.ledger.store import Ledger
from agent.models.weights import known_weights
from agent.prompt.parts.adapter import (
    ADAPTER_FILE,
    in_folder,
    named_models,
    released_model,
    require_base,
    without_folder,
)
from agent.release.export import write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports, write_exports
from agent.release.promotion import ReleaseRegistry, is_whole, kept_text
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease, read_release
from agent.release.runtime import load_prompt
from agent.types import Field, Message
from tests.models.lora import gguf, lora
from tests.toys import make_task, open_ledger

BASE = known_weights("smollm2-135m").running


def release(adapter: Path, **changes: Any) -> PromptRelease:
    model, found = released_model(f"local/smollm2-135m+{adapter}")
    values: dict[str, Any] = {
        "name": "toy",
        "messages": (Message("user", "Sort: {{message}}"),),
        "inputs": ("message",),
        "outputs": (Field("team", "choice", choices=("billing", "delivery")),),
        "format": "turns",
        "reasoning": False,
        "model": model,
        "parameters": {"max_tokens": 8, "temperature": 0.0},
        "provenance": {"run_id": "r_1"},
        "adapter": found,
    }
    return PromptRelease(**{**values, **changes})


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return lora(tmp_path / "mine.gguf", 0, layers=1)


@pytest.fixture
def folder(tmp_path: Path, adapter: Path) -> Path:
    write_release(release(adapter), tmp_path / "out")
    return tmp_path / "out"


def test_the_folder_holds_the_adapter_and_the_prompt_says_both_hashes(folder: Path, adapter: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [ADAPTER_FILE, MESSAGES_FILE, PROMPT_FILE]
    assert (folder / ADAPTER_FILE).read_bytes() == adapter.read_bytes()
    adapter.unlink()
    for path in (folder, folder / PROMPT_FILE, folder / MESSAGES_FILE):
        found = load_prompt(path)
        assert found.release.adapter is not None
        assert found.release.adapter.base == BASE
        assert found.release.model == "local/smollm2-135m"
        assert found.model == f"local/smollm2-135m+{folder}/{ADAPTER_FILE}"
    assert str(folder.parent) not in (folder / PROMPT_FILE).read_text() + (folder / MESSAGES_FILE).read_text()


def test_the_version_covers_the_adapter_and_its_base_and_not_where_they_lie(adapter: Path, tmp_path: Path) -> None:
    one = release(adapter)
    elsewhere = release(Path(shutil.copy(adapter, tmp_path / "copy.gguf")))
    other = release(lora(tmp_path / "other.gguf", 1, layers=1))
    assert one.adapter is not None
    assert one.version == elsewhere.version
    versions = {one.version, other.version, replace(one, adapter=None).version}
    versions.add(replace(one, adapter=replace(one.adapter, base="0" * 64)).version)
    assert len(versions) == 4


def edited(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (edited, "was edited after release"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "was edited after release"),
        (Path.unlink, "the adapter of the prompt cannot be read"),
    ],
)
def test_an_adapter_that_is_not_the_released_one_is_refused(folder: Path, damage: Any, why: str) -> None:
    version = load_prompt(folder).version
    assert is_whole(folder, version)
    damage(folder / ADAPTER_FILE)
    for path in (folder, folder / MESSAGES_FILE):
        with pytest.raises(ReleaseError, match=why) as caught:
            load_prompt(path)
        assert "\n" not in str(caught.value)
    assert not is_whole(folder, version)
    assert load_prompt(folder, verify=False).version == version


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"file": "../x.gguf"}, "adapter.file must be one of adapter.gguf"),
        ({"more": 1}, "adapter has the unknown key 'more'"),
        ({"sha256": "0"}, "sha256 must be 64 hex digits"),
        ({"base": 7}, "base must be 64 hex digits"),
    ],
)
def test_what_a_release_does_not_write_is_refused_by_its_line(folder: Path, change: dict[str, Any], why: str) -> None:
    path = folder / MESSAGES_FILE
    data = json.loads(path.read_text())
    data["adapter"] |= change
    path.write_text(json.dumps(data, indent=2))
    with pytest.raises(ReleaseError, match=why) as caught:
        load_prompt(path, verify=False)
    assert f"{path}:" in str(caught.value)


def test_a_hosted_model_takes_no_adapter(folder: Path) -> None:
    path = folder / MESSAGES_FILE
    path.write_text(path.read_text().replace("local/smollm2-135m", "openai/gpt-x"))
    with pytest.raises(ReleaseError, match="takes no adapter"):
        load_prompt(path, verify=False)


def test_other_weights_under_the_same_name_are_refused_before_a_call(tmp_path: Path, adapter: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(gguf({"general.type": "model"}, {"token_embd.weight": np.zeros((2, 2))}))
    model, found = released_model(f"local/{own}+{adapter}")
    made = replace(release(adapter), model=model, adapter=found)
    require_base(made)
    edited(own)
    with pytest.raises(ReleaseError, match="its adapter needs weights"):
        load_prompt(write_release(made, tmp_path / "out")).complete(message="x")


def test_a_name_is_written_down_without_the_folder_and_found_again(folder: Path, tmp_path: Path) -> None:
    moved = load_prompt(shutil.copytree(folder, tmp_path / "moved")).release
    name = without_folder(read_release(folder), read_release(folder).target)
    assert name == "local/smollm2-135m+adapter.gguf"
    assert in_folder(moved, name) == moved.target
    for other in ("local/smollm2-135m", "openai/x"):
        assert in_folder(moved, without_folder(moved, other)) == other


def test_an_adapter_beside_its_prompt_is_no_other_place_but_a_model_file_is(folder: Path, tmp_path: Path) -> None:
    made = read_release(folder)
    assert named_models(made) == set()
    elsewhere = replace(made, model="local//etc/passwd.gguf")
    assert named_models(elsewhere) == {elsewhere.target}
    assert named_models(replace(made, adapter=None)) == {"local/smollm2-135m"}


def test_a_version_with_an_adapter_gets_aliases_and_rolls_back(tmp_path: Path, folder: Path, ledger: Ledger) -> None:
    registry, plain = ReleaseRegistry(tmp_path / "releases"), replace(read_release(folder), adapter=None)
    tuned = read_release(folder)
    evidence = {"run_id": "run-1"}
    registry.promote(plain, "production", ledger, evidence=evidence)
    registry.promote(tuned, "production", ledger, evidence=evidence)
    registry.promote(tuned, "ab", ledger, share=0.5, evidence=evidence)
    shutil.rmtree(folder)
    found = load_prompt("toy@production", root=registry.root)
    assert found.version == tuned.version
    assert found.model.endswith(f"{tuned.version}/{ADAPTER_FILE}")
    assert registry.rollback("toy", "production", ledger).version == plain.version
    edited(registry.root / "toy" / tuned.version / ADAPTER_FILE)
    with pytest.raises(ReleaseError, match="was edited after release"):
        load_prompt(f"toy@{tuned.version}", root=registry.root)


def test_a_ledger_keeps_no_text_of_it_so_a_lost_folder_stays_lost(tmp_path: Path, folder: Path) -> None:
    registry = ReleaseRegistry(tmp_path / "releases")
    tuned = read_release(folder)
    with contextlib.closing(open_ledger(tmp_path / "own.db")) as ledger:
        registry.promote(tuned, "production", ledger, evidence={"run_id": "run-1"})
        assert kept_text(folder, tuned.version) is None
        shutil.rmtree(registry.root / "toy")
        registry.catch_up(ledger)
        (registry.root / "toy").mkdir()
        registry.catch_up(ledger)
    with pytest.raises(ReleaseError, match=r"prompt\.md"):
        load_prompt("toy@production", root=registry.root)


def test_its_export_is_a_folder_that_loads_and_says_how_to_serve_it(tmp_path: Path, folder: Path) -> None:
    made = read_release(folder)
    form = FORMATS.get("llama-server")
    (export,) = verify_exports([form], {form.name: Material(made)}, strict=True)
    assert export.rows > 200
    assert not export.unset
    write_exports([export], tmp_path / "served")
    assert load_prompt(tmp_path / "served").version == made.version
    readme = (tmp_path / "served" / "README.md").read_text()
    assert 'llama-server --model "$BASE" --lora adapter.gguf' in readme
    assert f'echo "{BASE}  $BASE" | sha256sum --check' in readme
    assert str(tmp_path) not in readme


def test_a_soft_prompt_is_not_exported_for_a_server_that_does_not_send_its_tokens(tmp_path: Path) -> None:
    values = {"general.type": "adapter", "adapter.type": "lora", "soft_prompt.tokens": '["<a>"]'}
    pair = {f"token_embd.weight.lora_{end}": np.ones((1, 1)) for end in "ab"}
    path = tmp_path / "soft.gguf"
    path.write_bytes(gguf(values, pair))
    with pytest.raises(ReleaseError, match=r"'toy' has a soft prompt.*load_prompt"):
        FORMATS.get("llama-server").files(Material(release(path)))


def test_every_other_format_refuses_an_adapter_with_what_takes_it(folder: Path) -> None:
    made, task = read_release(folder), make_task()
    for name in sorted(set(FORMATS.names()) - {"llama-server", "peft", "finetune-jsonl"}):
        with pytest.raises(ReleaseError, match=f"{name}: 'toy' has an adapter.*export as llama-server"):
            verify_exports([FORMATS.get(name)], {name: Material(made, task)})
    plain = replace(made, adapter=None)
    for name in ("llama-server", "peft"):
        with pytest.raises(ReleaseError, match=f"{name}: 'toy' has no adapter"):
            verify_exports([FORMATS.get(name)], {name: Material(plain)})


def test_a_model_without_an_adapter_is_released_by_its_name_alone(tmp_path: Path) -> None:
    for name in ("local/smollm2-135m", "local/own.gguf", "openai/a+b.gguf", "openai-compatible/m+x@http://h/v1"):
        assert released_model(name) == (name, None)
    with pytest.raises(InputError, match="cannot be read"):
        released_model(f"local/smollm2-135m+{tmp_path}/none.gguf")
