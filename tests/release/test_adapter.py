"""A prompt with an adapter is one folder with one version: no byte changes unseen, and it goes where prompts go."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import InputError, ReleaseError
from agent.models.weights import known_weights
from agent.prompt.parts.adapter import (
    ADAPTER_FILE,
    ReleasedAdapter,
    in_folder,
    named_models,
    released_model,
    require_base,
    without_folder,
)
from agent.release.export import write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports, write_exports
from agent.release.promotion import ReleaseRegistry
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease, read_release
from agent.release.runtime import load_prompt
from agent.release.versions import form_of, is_whole
from tests.cases import each_case
from tests.models.lora import gguf, lora
from tests.release.formats.sample import refused, release
from tests.toys import make_task, open_ledger

MODEL = "local/smollm2-135m"
BASE = known_weights("smollm2-135m").running


def tuned(adapter: Path, base: str = MODEL) -> PromptRelease:
    model, found = released_model(f"{base}+{adapter}")
    assert found is not None
    return release(name="toy", model=model, parts=(found,))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return lora(tmp_path / "mine.gguf", 0, layers=1)


@pytest.fixture
def folder(tmp_path: Path, adapter: Path) -> Path:
    return write_release(tuned(adapter), tmp_path / "out").parent


def test_the_folder_holds_the_adapter_and_the_version_covers_it_and_its_base(
    folder: Path, adapter: Path, tmp_path: Path
) -> None:
    one, other = tuned(adapter), tuned(lora(tmp_path / "other.gguf", 1, layers=1))
    held = one.part(ReleasedAdapter)
    assert held is not None
    assert tuned(Path(shutil.copy(adapter, tmp_path / "copy.gguf"))).version == one.version
    changed = replace(one, parts=(replace(held, base="0" * 64),))
    assert len({each.version for each in (one, other, changed, replace(one, parts=()))}) == 4
    assert sorted(path.name for path in folder.iterdir()) == [ADAPTER_FILE, MESSAGES_FILE, PROMPT_FILE]
    assert (folder / ADAPTER_FILE).read_bytes() == adapter.read_bytes()
    adapter.unlink()
    for path in (folder, folder / PROMPT_FILE, folder / MESSAGES_FILE):
        found = load_prompt(path)
        read = found.release.part(ReleasedAdapter)
        assert read is not None
        assert (found.release.model, read.base) == (MODEL, BASE)
        assert found.model == f"{MODEL}+{folder}/{ADAPTER_FILE}"
    assert str(tmp_path) not in (folder / PROMPT_FILE).read_text() + (folder / MESSAGES_FILE).read_text()


def edited(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (edited, "was edited after release"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "was edited after release"),
        (Path.unlink, "the adapter of the prompt cannot be read"),
    ],
)
def test_an_adapter_that_is_not_the_released_one_is_refused(
    folder: Path, damage: Callable[[Path], object], why: str
) -> None:
    version = load_prompt(folder).version
    assert is_whole(folder, version)
    damage(folder / ADAPTER_FILE)
    for path in (folder, folder / MESSAGES_FILE):
        with pytest.raises(ReleaseError, match=why) as caught:
            load_prompt(path)
        assert "\n" not in str(caught.value)
    assert not is_whole(folder, version)
    assert load_prompt(folder, verify=False).version == version


@each_case(
    "change, why",
    [
        ({"file": "../x.gguf"}, "adapter.file must be one of adapter.gguf"),
        ({"more": 1}, "adapter has the unknown key 'more'"),
        ({"sha256": "0"}, "sha256 must be 64 hex digits"),
        ({"base": 7}, "base must be 64 hex digits"),
        ({}, "takes no adapter"),
    ],
)
def test_what_a_release_does_not_write_is_refused_by_its_line(folder: Path, change: dict[str, Any], why: str) -> None:
    whole = (folder / MESSAGES_FILE).read_text()
    data = json.loads(whole)
    data |= {"adapter": data["adapter"] | change, "model": MODEL if change else "openai/gpt-x"}
    path = folder / "messages.copy.json"
    path.write_text(json.dumps(data, indent=2))
    with pytest.raises(ReleaseError, match=why) as caught:
        load_prompt(path, verify=False)
    assert f"{path}:" in str(caught.value)


def test_names_lead_to_the_weights_that_it_was_made_for_and_nowhere_else(
    folder: Path, adapter: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(gguf({"general.type": "model"}, {"token_embd.weight": np.zeros((2, 2))}))
    made = tuned(adapter, f"local/{own}")
    require_base(made)
    edited(own)
    with pytest.raises(ReleaseError, match="its adapter needs weights"):
        load_prompt(write_release(made, tmp_path / "own")).complete(message="x")
    here, moved = read_release(folder), read_release(shutil.copytree(folder, tmp_path / "moved"))
    name = without_folder(here, here.target)
    assert name == f"{MODEL}+adapter.gguf"
    assert in_folder(moved, name) == moved.target
    for other in (MODEL, "openai/x"):
        assert in_folder(moved, without_folder(moved, other)) == other
    away = replace(here, model="local//etc/passwd.gguf")
    assert [named_models(each) for each in (here, away, replace(here, parts=()))] == [set(), {away.target}, {MODEL}]
    for name in (MODEL, "local/own.gguf", "openai/a+b.gguf", "openai-compatible/m+x@http://h/v1"):
        assert released_model(name) == (name, None)
    with pytest.raises(InputError, match="cannot be read"):
        released_model(f"{MODEL}+{tmp_path}/none.gguf")


def test_a_version_with_an_adapter_gets_aliases_and_a_lost_folder_stays_lost(tmp_path: Path, folder: Path) -> None:
    registry, with_adapter = ReleaseRegistry(tmp_path / "releases"), read_release(folder)
    plain = replace(with_adapter, parts=())
    with contextlib.closing(open_ledger(tmp_path / "own.db")) as ledger:
        for release, alias, share in (
            (plain, "production", None),
            (with_adapter, "production", None),
            (with_adapter, "ab", 0.5),
        ):
            registry.promote(release, alias, ledger, share=share, evidence={"run_id": "run-1"})
        assert form_of(with_adapter.version).kept(folder) is None
        shutil.rmtree(folder)
        found = load_prompt("toy@production", root=registry.root)
        assert found.version == with_adapter.version
        assert found.model.endswith(f"{with_adapter.version}/{ADAPTER_FILE}")
        edited(registry.root / "toy" / with_adapter.version / ADAPTER_FILE)
        with pytest.raises(ReleaseError, match="was edited after release"):
            load_prompt("toy@production", root=registry.root)
        assert registry.rollback("toy", "production", ledger).version == plain.version
        shutil.rmtree(registry.root / "toy")
        (registry.root / "toy").mkdir()
        registry.catch_up(ledger)
    assert load_prompt("toy@production", root=registry.root).version == plain.version
    with pytest.raises(ReleaseError, match=r"prompt\.md"):
        load_prompt(f"toy@{with_adapter.version}", root=registry.root)


def test_its_export_says_how_to_serve_it_and_every_format_without_a_place_for_it_refuses(
    tmp_path: Path, folder: Path
) -> None:
    made, form = read_release(folder), FORMATS.get("llama-server")
    (export,) = verify_exports([form], {form.name: Material(made)}, strict=True)
    assert export.rows > 200
    assert not export.unset
    write_exports([export], tmp_path / "served")
    assert load_prompt(tmp_path / "served").version == made.version
    readme = (tmp_path / "served" / "README.md").read_text()
    assert 'llama-server --model "$BASE" --lora adapter.gguf' in readme
    assert f'echo "{BASE}  $BASE" | sha256sum --check' in readme
    assert str(tmp_path) not in readme
    for name in sorted(set(FORMATS.names()) - {"llama-server", "peft", "finetune-jsonl"}):
        said = refused(FORMATS.get(name), made, task=make_task())
        assert said.startswith(
            f"{name}: 'toy' has an adapter, which this target cannot hold; export as llama-server or"
        )
    soft = {"general.type": "adapter", "adapter.type": "lora", "soft_prompt.tokens": '["<a>"]'}
    path = tmp_path / "soft.gguf"
    path.write_bytes(gguf(soft, {f"token_embd.weight.lora_{end}": np.ones((1, 1)) for end in "ab"}))
    with pytest.raises(ReleaseError, match=r"'toy' has a soft prompt.*load_prompt"):
        form.files(Material(tuned(path)))
