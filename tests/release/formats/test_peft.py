"""The form of peft: the adapter's tensors are the same bits there and back, in the order that transformers has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import InputError, ReleaseError
from agent.models.gguf import read_gguf
from agent.prompt.parts.adapter import released_model
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports, write_exports
from agent.release.prompt_file import PromptRelease
from agent.release.runtime import load_prompt
from agent.training.base_model import read_architecture
from agent.training.parameters import Lora, lora_size, read_lora
from agent.training.torch_learner import hf_order
from agent.types import Field, Message
from tests.training.tiny import tiny

safetensors = pytest.importorskip("safetensors.numpy", reason="no safetensors here: run `make setup`")
FORM = FORMATS.get("peft")


def made(folder: Path, family: str = "llama") -> PromptRelease:
    """A prompt with a random adapter of rank 3 of a tiny model."""
    base = tiny(folder / "tiny.gguf", family, tied=family == "llama")
    architecture = read_architecture(read_gguf(base))
    flat = np.random.default_rng(3).normal(0, 0.3, lora_size(architecture, 3)).astype(np.float32)
    adapter, _ = Lora(architecture, 3, 4 / 3, flat).write(folder)
    model, found = released_model(f"local/{base}+{adapter}")
    return PromptRelease(
        name="toy",
        messages=(Message("user", "Sort: {{message}}"),),
        inputs=("message",),
        outputs=(Field("team", "choice", choices=("billing", "delivery")),),
        format="turns",
        reasoning=False,
        model=model,
        parameters={"max_tokens": 8, "temperature": 0.0},
        provenance={"run_id": "r_1"},
        adapter=found,
    )


def written(release: PromptRelease, folder: Path) -> Path:
    (export,) = verify_exports([FORM], {"peft": Material(release)}, strict=True)
    assert export.rows > 200
    write_exports([export], folder)
    return folder


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_tensors_are_bit_equal_there_and_back(tmp_path: Path, family: str) -> None:
    from agent.training.hf_files import read_peft_form

    release = made(tmp_path, family)
    folder, base = written(release, tmp_path / "out"), tmp_path / "tiny.gguf"
    assert release.adapter is not None
    architecture, mine = read_architecture(read_gguf(base)), read_lora(release.adapter.path, base)
    back = read_peft_form(folder, architecture)
    assert back.flat.tobytes() == mine.flat.tobytes()
    path, digest = back.write(tmp_path / "again")
    assert path.read_bytes() == release.adapter.path.read_bytes()
    assert digest == release.adapter.sha256
    tensors = safetensors.load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * architecture.layers
    there = tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"]
    order = hf_order("attn_q", architecture)
    assert (order is not None) == (family == "llama")
    own = mine.layers[1]["attn_q"][1]
    assert (there == (own if order is None else own[order])).all()


def test_its_files_say_how_to_serve_it_and_no_path_of_the_adapter(tmp_path: Path) -> None:
    release = made(tmp_path)
    folder = written(release, tmp_path / "out")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (3, 4, "LORA")
    assert config["base_model_name_or_path"] is None
    assert config["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    readme = (folder / "PEFT.md").read_text()
    assert "vllm serve BASE --enable-lora --max-lora-rank 8 --lora-modules toy=." in readme
    assert release.adapter is not None
    assert release.adapter.base in readme
    assert str(release.adapter.path) not in readme
    assert load_prompt(folder).version == release.version


def test_a_map_that_an_adapter_leaves_alone_is_left_out(tmp_path: Path) -> None:
    from agent.training.hf_files import peft_form, read_peft_form

    architecture = read_architecture(read_gguf(tiny(tmp_path / "tiny.gguf")))
    lora = Lora(architecture, 2, 1.0)
    lora.layers[1]["attn_v"][1][:] = 1
    files = peft_form(lora, architecture, "own/name")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    config = json.loads(files["adapter_config.json"])
    assert (config["target_modules"], config["base_model_name_or_path"]) == (["v_proj"], "own/name")
    assert (read_peft_form(tmp_path, architecture).flat == lora.flat).all()


@pytest.mark.parametrize("damage", ["cut", "config", "other"])
def test_files_that_are_not_the_adapter_are_refused(tmp_path: Path, damage: str) -> None:
    from agent.training.hf_files import read_peft_form

    folder = written(made(tmp_path), tmp_path / "out")
    architecture = read_architecture(read_gguf(tmp_path / "tiny.gguf"))
    match damage:
        case "cut":
            path = folder / "adapter_model.safetensors"
            path.write_bytes(path.read_bytes()[:-9])
        case "config":
            (folder / "adapter_config.json").write_text('{"r": 0, "lora_alpha": 1}')
        case "other":
            architecture = replace(architecture, hidden=architecture.hidden + 1)
    with pytest.raises(InputError) as refused:
        read_peft_form(folder, architecture)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def gone(release: PromptRelease, folder: Path) -> None:
    (folder / "tiny.gguf").unlink()


def replaced(release: PromptRelease, folder: Path) -> None:
    tiny(folder / "tiny.gguf", seed=1)


def cut(release: PromptRelease, folder: Path) -> None:
    assert release.adapter is not None
    release.adapter.path.write_bytes(release.adapter.path.read_bytes()[:-99])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (gone, "base weights are missing"),
        (replaced, "its adapter needs weights"),
        (cut, "truncated"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_a_line(tmp_path: Path, damage: Any, why: str) -> None:
    release = made(tmp_path)
    damage(release, tmp_path)
    with pytest.raises(ReleaseError, match=why) as refused:
        verify_exports([FORM], {"peft": Material(release)})
    assert "\n" not in str(refused.value)
