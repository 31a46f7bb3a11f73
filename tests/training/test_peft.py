"""Training by transformers and peft against numpy, and Hugging Face files. Runs by `make test-extras`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.errors import InputError
from agent.training.base_model import BaseModel, load_base
from agent.training.decoder import logits
from agent.training.parameters import read_lora
from agent.training.rows import TokenPair, pack
from agent.training.settings import FullSettings, LoraSettings
from tests.training.test_decoder import FAMILIES
from tests.training.tiny import END, rows, tiny, train_tokens

pytestmark = pytest.mark.extra("tune")
ROWS = rows(18)
LORA = LoraSettings(rank=4, alpha=8.0, learning_rate=1e-2, batch=4, epochs=4, threads=1)
FULL = FullSettings(learning_rate=1e-2, batch=4, epochs=8, threads=1)


@FAMILIES
def test_both_trainers_go_the_same_way_and_not_from_one_checkpoint(tmp_path: Path, family: str, tied: bool) -> None:
    base = load_base(tiny(tmp_path / "tiny.gguf", family, tied))
    ours, theirs = (
        train_tokens(base, ROWS, LORA, trainer=trainer, folder=tmp_path, validation=ROWS[:6])
        for trainer in ("numpy", "peft")
    )
    assert len(ours.losses) == 20
    assert theirs.losses != ours.losses
    np.testing.assert_allclose(theirs.losses, ours.losses, atol=1e-2)
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-2)
    one, other = (read_lora(made.path, base.path).flat for made in (ours, theirs))
    assert np.abs(one - other).max() < 0.02  # two steps of Adam; a gradient near 0 may change its sign


@FAMILIES
def test_all_weights_are_trained_and_read_back_from_the_file(tmp_path: Path, family: str, tied: bool) -> None:
    base = load_base(tiny(tmp_path / "tiny.gguf", family, tied))
    made = train_tokens(base, ROWS, FULL, folder=tmp_path, validation=ROWS)
    assert made.losses[-1] < 0.3 < 3 < made.losses[0]
    model = load_base(made.path)
    for one, other in zip(base.layers, model.layers, strict=True):
        assert all(np.abs(one.maps[name] - other.maps[name]).max() > 0.01 for name in one.maps)
    assert (model.output is model.embedding) == tied
    still = replace(FULL, epochs=1, learning_rate=1e-9)
    again = train_tokens(model, ROWS, still, folder=tmp_path / "b", validation=ROWS)
    assert again.scores[0] == pytest.approx(made.scores[made.best_epoch - 1], abs=1e-2)  # float16 rounds


@FAMILIES
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


@FAMILIES
def test_weights_of_a_folder_have_the_layout_of_the_file(tmp_path: Path, family: str, tied: bool) -> None:
    from agent.training.hf_files import with_weights

    base = load_base(tiny(tmp_path / "tiny.gguf", family, tied))
    found = with_weights(base, saved(base, tmp_path / "hf"))
    assert found.sha256 != base.sha256
    for one, other in zip(base.layers, found.layers, strict=True):
        assert all((one.maps[name] == other.maps[name]).all() for name in one.maps)
        assert all((one.biases[name] == other.biases[name]).all() for name in one.biases)
        assert (one.attn_norm == other.attn_norm).all()
    assert (found.embedding == base.embedding).all()
    assert (found.output is found.embedding) == tied
    assert (found.frequencies == base.frequencies).all()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("empty", "not a Hugging Face model folder"),
        ("family", "unsupported family 'gpt2'"),
        ("code", r"has no model\*\.safetensors"),
        ("cut", "its weights cannot be read"),
        ("other", r"is not what .*tiny\.gguf has \(cosine -?0\.\d\d\); give the folder that the file was made from"),
        ("larger", "not the model that .*: vocab_size 41, not 40"),
    ],
)
def test_a_folder_that_is_not_the_model_is_refused(tmp_path: Path, damage: str, why: str) -> None:
    from agent.training.hf_files import with_weights

    base = load_base(tiny(tmp_path / "tiny.gguf"))
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
