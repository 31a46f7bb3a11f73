"""Training by transformers and peft: the loss, the order, the files and the ends of the numpy trainer.

Runs where the extra `tune` is installed, and says that it was skipped where it is not.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import InputError
from agent.training.base_model import BaseModel, load_base
from agent.training.decoder import logits
from agent.training.parameters import read_lora
from agent.training.rows import TokenPair, pack
from agent.training.settings import FullSettings, LoraSettings, SoftPromptSettings, Step, TrainingSettings
from tests.training.tiny import END, rows, tiny, train_tokens

pytestmark = pytest.mark.skipif(
    find_spec("peft") is None, reason="training by PyTorch is not tested: the extra `tune` is not installed here"
)

ROWS = rows(18)
LORA = LoraSettings(rank=4, alpha=8.0, learning_rate=1e-2, batch=4, epochs=4, threads=1)
FULL = FullSettings(learning_rate=1e-2, batch=4, epochs=4, threads=1)
HOW = [LORA, FULL]
FAMILIES = [("llama", True), ("qwen2", False)]


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return load_base(tiny(tmp_path / "tiny.gguf"))


class Killed(Exception):
    """Ends a training as a kill would, between two steps."""


def killed_at(step: int) -> Callable[[Step], None]:
    def on_step(done: Step) -> None:
        if done.step == step:
            raise Killed

    return on_step


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_both_trainers_go_the_same_way(tmp_path: Path, family: str, tied: bool) -> None:
    base = load_base(tiny(tmp_path / "tiny.gguf", family, tied))
    ours, theirs = (
        train_tokens(base, ROWS, LORA, trainer=trainer, folder=tmp_path / trainer, validation=ROWS[:6])
        for trainer in ("numpy", "peft")
    )
    assert len(ours.losses) == 20
    np.testing.assert_allclose(theirs.losses, ours.losses, atol=1e-2)
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-2)
    one, other = (read_lora(made.path, base.path).flat for made in (ours, theirs))
    assert np.abs(one - other).max() < 0.02  # two steps of Adam; a gradient near 0 may change its sign


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_all_weights_are_trained_and_read_back_from_the_file(tmp_path: Path, family: str, tied: bool) -> None:
    base = load_base(tiny(tmp_path / "tiny.gguf", family, tied))
    made = train_tokens(base, ROWS, replace(FULL, epochs=8), folder=tmp_path, validation=ROWS)
    assert made.losses[-1] < 0.3 < 3 < made.losses[0]
    model = load_base(made.path)
    for one, other in zip(base.layers, model.layers, strict=True):
        assert all(np.abs(one.maps[name] - other.maps[name]).max() > 0.01 for name in one.maps)
    assert (model.output is model.embedding) == tied
    again = train_tokens(
        model, ROWS, replace(FULL, epochs=1, learning_rate=1e-9), folder=tmp_path / "b", validation=ROWS
    )
    assert again.scores[0] == pytest.approx(made.scores[made.best_epoch - 1], abs=1e-2)  # float16 rounds


@pytest.mark.parametrize("settings", HOW)
@pytest.mark.parametrize("step", [2, 7, 10])
def test_a_killed_training_ends_with_the_same_bytes(
    base: BaseModel, tmp_path: Path, settings: TrainingSettings, step: int
) -> None:
    def trained(name: str, **more: Any) -> Any:
        held = ROWS[:4]
        return train_tokens(base, ROWS, settings, trainer="peft", folder=tmp_path / name, validation=held, **more)

    whole = trained("whole")
    with pytest.raises(Killed):
        trained("a", on_step=killed_at(step))
    seen: list[Step] = []
    again = trained("a", on_step=seen.append)
    assert seen[0].step == (step - 1) // 5 * 5 + 1
    assert (again.sha256, again.losses, again.scores) == (whole.sha256, whole.losses, whole.scores)


def test_a_checkpoint_of_one_trainer_is_none_of_the_other(base: BaseModel, tmp_path: Path) -> None:
    train_tokens(base, ROWS, LORA, folder=tmp_path)
    seen: list[Step] = []
    train_tokens(base, ROWS, LORA, trainer="peft", folder=tmp_path, on_step=seen.append)
    assert len(seen) == 20


@pytest.mark.parametrize("settings", HOW)
def test_caps_are_kept(base: BaseModel, tmp_path: Path, settings: TrainingSettings) -> None:
    capped = replace(settings, max_seconds=1e-9)
    made = train_tokens(base, ROWS, capped, trainer="peft", folder=tmp_path)
    assert (made.ended, made.steps) == ("seconds", 1)
    with pytest.raises(InputError, match=r"max_tokens is 3, and the first step alone has \d+ tokens"):
        train_tokens(base, ROWS, replace(settings, max_tokens=3), trainer="peft", folder=tmp_path)


def test_a_training_that_diverges_says_what_to_do(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"diverged at step \d+ .*learning rate below 1e\+30"):
        train_tokens(base, ROWS, replace(LORA, learning_rate=1e30), trainer="peft", folder=tmp_path)


def test_it_connects_to_nothing(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for settings in HOW:
        train_tokens(base, ROWS, replace(settings, epochs=1), trainer="peft", folder=tmp_path)


def test_a_soft_prompt_is_trained_in_numpy_alone(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in numpy alone"):
        train_tokens(base, ROWS, SoftPromptSettings(), trainer="peft", folder=tmp_path)


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_peft_reads_the_exported_form_and_gives_the_same_scores(tmp_path: Path, family: str, tied: bool) -> None:
    import torch
    from peft import PeftModel

    from agent.training.hf_files import peft_form
    from agent.training.torch_learner import hf_model

    base = load_base(tiny(tmp_path / "tiny.gguf", family, tied))
    made = train_tokens(base, ROWS, LORA, folder=tmp_path)
    lora = read_lora(made.path, base.path)
    for name, data in peft_form(lora, base.architecture, None).items():
        (tmp_path / name).write_bytes(data)
    loaded = PeftModel.from_pretrained(hf_model(base), str(tmp_path)).eval()
    for row in ROWS[:5]:
        ours = logits(base, lora, pack([TokenPair(row.prompt, (END,))]))[0]
        with torch.no_grad():
            theirs = loaded(torch.tensor([row.prompt])).logits[0, -1].numpy()
        np.testing.assert_allclose(theirs, ours, atol=1e-4)


def saved(base: BaseModel, folder: Path) -> Path:
    """A Hugging Face folder of the same weights."""
    from agent.training.torch_learner import hf_model

    hf_model(base).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_weights_of_a_folder_have_the_layout_of_the_file(tmp_path: Path, family: str, tied: bool) -> None:
    from agent.training.hf_files import with_weights

    base = load_base(tiny(tmp_path / "tiny.gguf", family, tied))
    found = with_weights(base, saved(base, tmp_path / "hf"))
    assert found.sha256 != base.sha256
    for one, other in zip(base.layers, found.layers, strict=True):
        assert all((one.maps[name] == other.maps[name]).all() for name in one.maps)
        assert all((one.biases[name] == other.biases[name]).all() for name in one.biases)
    assert (found.embedding == base.embedding).all()
    assert (found.output is found.embedding) == tied
    ours, theirs = (
        train_tokens(each, ROWS, replace(LORA, epochs=1), folder=tmp_path / name)
        for name, each in (("a", base), ("b", found))
    )
    assert ours.losses == theirs.losses


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("empty", "no Hugging Face model folder; it has no config.json"),
        ("family", "a model of the family 'gpt2'"),
        ("code", r"has no model\*\.safetensors"),
        ("cut", "its weights cannot be read"),
        ("other", r"is not what .*tiny\.gguf has \(cosine -?0\.\d\d\); give the folder that the file was made from"),
        ("larger", "another model than .*: vocab_size 41, not 40"),
    ],
)
def test_a_folder_that_is_not_the_model_is_refused(base: BaseModel, tmp_path: Path, damage: str, why: str) -> None:
    from agent.training.hf_files import with_weights

    folder = saved(base, tmp_path / "hf")
    config, weights = folder / "config.json", folder / "model.safetensors"
    match damage:
        case "empty":
            config.unlink()
        case "family":
            config.write_text(json.dumps({"model_type": "gpt2"}))
        case "code":
            weights.rename(folder / "pytorch_model.bin")
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-99])
        case "other":
            saved(load_base(tiny(tmp_path / "other.gguf", seed=1)), folder)
        case "larger":
            saved(load_base(tiny(tmp_path / "other.gguf", vocabulary=41)), folder)
    with pytest.raises(InputError, match=why) as refused:
        with_weights(base, folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)
