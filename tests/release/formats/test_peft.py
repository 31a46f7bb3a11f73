"""The form of peft: the adapter's tensors are the same bits there and back, in the order that transformers has."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.errors import InputError, ReleaseError
from agent.models.gguf import read_gguf
from agent.prompt.parts.adapter import ReleasedAdapter, released_model
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports, write_exports
from agent.release.prompt_file import PromptRelease
from agent.release.runtime import load_prompt
from agent.training.base_model import read_architecture
from agent.training.hf_files import hf_order
from agent.training.parameters import Lora, lora_size, read_lora
from tests.release.formats.sample import release
from tests.training.tiny import tiny

safetensors = pytest.importorskip("safetensors.numpy", reason="no safetensors here: run `make setup`")
FORM = FORMATS.get("peft")


def made(folder: Path, family: str = "llama") -> PromptRelease:
    """A prompt with a random adapter of rank 3 of a tiny model."""
    base = tiny(folder / "tiny.gguf", family, tied=family == "llama")
    architecture = read_architecture(read_gguf(base))
    flat = np.random.default_rng(3).normal(0, 0.3, lora_size(architecture, 3)).astype(np.float32)
    path, _ = Lora(architecture, 3, 4 / 3, flat).write(folder)
    model, adapter = released_model(f"local/{base}+{path}")
    assert adapter is not None
    return release(name="toy", model=model, parts=(adapter,))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_tensors_are_bit_equal_there_and_back_and_the_files_say_how_to_serve_them(tmp_path: Path, family: str) -> None:
    from agent.training.hf_files import read_peft_form

    sent, base, folder = made(tmp_path, family), tmp_path / "tiny.gguf", tmp_path / "out"
    (export,) = verify_exports([FORM], {"peft": Material(sent)}, strict=True)
    assert export.rows > 200
    write_exports([export], folder)
    adapter = sent.part(ReleasedAdapter)
    assert adapter is not None
    architecture, mine = read_architecture(read_gguf(base)), read_lora(adapter.path, base)
    back = read_peft_form(folder, architecture)
    path, digest = back.write(tmp_path / "again")
    assert (back.flat.tobytes(), digest) == (mine.flat.tobytes(), adapter.sha256)
    assert path.read_bytes() == adapter.path.read_bytes()
    tensors = safetensors.load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * architecture.layers
    order, own = hf_order("attn_q", architecture), mine.layers[1]["attn_q"][1]
    assert isinstance(order, slice) == (family != "llama"), "only llama's rows are interleaved"
    there = tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"]
    assert (there == own[order]).all()
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (3, 4, "LORA")
    assert config["base_model_name_or_path"] is None
    assert config["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    readme = (folder / "PEFT.md").read_text()
    assert "vllm serve BASE --enable-lora --max-lora-rank 8 --lora-modules toy=." in readme
    assert adapter.base in readme
    assert str(adapter.path) not in readme
    assert load_prompt(folder).version == sent.version
    (folder / "adapter_config.json").write_text('{"r": 0, "lora_alpha": 1}')
    other = replace(architecture, hidden=architecture.hidden + 1)
    for wanted in (architecture, other):
        with pytest.raises(InputError, match=str(folder)):
            read_peft_form(folder, wanted)
    write_exports([export], folder)
    weights = folder / "adapter_model.safetensors"
    with pytest.raises(InputError, match=str(folder)):
        read_peft_form(folder, other)
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(InputError, match=str(folder)):
        read_peft_form(folder, architecture)


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


def cut(base: Path) -> None:
    (adapter,) = (path for path in base.parent.glob("*.gguf") if path != base)
    adapter.write_bytes(adapter.read_bytes()[:-99])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (Path.unlink, "base weights are missing"),
        (lambda base: tiny(base, seed=1), "its adapter needs weights"),
        (cut, "truncated"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_a_line(
    tmp_path: Path, damage: Callable[[Path], object], why: str
) -> None:
    sent = made(tmp_path)
    damage(tmp_path / "tiny.gguf")
    with pytest.raises(ReleaseError, match=why) as refused:
        verify_exports([FORM], {"peft": Material(sent)})
    assert "\n" not in str(refused.value)
