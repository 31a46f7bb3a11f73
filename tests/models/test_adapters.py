"""An adapter of a local model: its name, its hash in every call, and what is refused before anything is paid for."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.errors import InputError
from agent.models.adapters import adapter_fault, split_adapter
from agent.models.model_registry import create_model, file_digest, leads_elsewhere, own_files, require_files
from agent.models.weights import known_weights, weights_path
from agent.types import call_key, endpoint_of
from tests.models.lora import KEYS, WIDTH, gguf, lora
from tests.toys import ask


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A file with the names and shapes of one layer of the embedded model."""
    tensors = {
        "token_embd.weight": (9, WIDTH),
        "blk.0.attn_q.weight": (WIDTH, WIDTH),
        "blk.0.attn_v.weight": (KEYS, WIDTH),
    }
    path = tmp_path / "base.gguf"
    values = {"general.type": "model", "general.architecture": "llama"}
    path.write_bytes(gguf(values, {name: np.zeros(shape) for name, shape in tensors.items()}))
    return path


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return lora(tmp_path / "a.gguf", 0, layers=1)


@pytest.mark.parametrize(
    ("rest", "base", "adapter"),
    [
        ("smollm2-135m", "smollm2-135m", None),
        ("smollm2-135m+a/b.gguf", "smollm2-135m", "a/b.gguf"),
        ("own.gguf+a+b.gguf", "own.gguf", "a+b.gguf"),
        ("my+own.gguf", "my+own.gguf", None),
        ("./smollm2-135m+own.gguf", "./smollm2-135m+own.gguf", None),
        ("own.gguf+", "own.gguf+", None),
    ],
)
def test_a_name_is_a_base_and_an_adapter(rest: str, base: str, adapter: str | None) -> None:
    assert split_adapter(rest) == (base, Path(adapter) if adapter else None)


def test_what_fits_is_taken(base: Path, adapter: Path, tmp_path: Path) -> None:
    assert adapter_fault(adapter, base) == ""
    assert adapter_fault(adapter, tmp_path / "not-fetched-yet.gguf") == ""


def test_a_call_has_the_hash_of_its_adapter(base: Path, adapter: Path) -> None:
    names = [f"local/{base}", f"local/{base}+{adapter}", f"local/smollm2-135m+{adapter}", "local/smollm2-135m"]
    models = [create_model(name) for name in names]
    digest, weights = file_digest(f"local/smollm2-135m+{adapter}"), known_weights("smollm2-135m").running[:16]
    assert len(digest) == 64
    assert [endpoint_of(model) for model in models[:2]] == ["", f"sha256:+{digest}"]
    assert endpoint_of(models[3]) == f"sha256:{weights}"
    if not weights_path("smollm2-135m").is_file():  # else the layers of this toy do not matter: it fits
        pytest.skip("no weights here")
    assert endpoint_of(models[2]) == f"sha256:{weights}+{digest}"


def test_another_adapter_at_the_same_place_is_another_call(base: Path, adapter: Path) -> None:
    def key() -> str:
        return call_key(create_model(f"local/{base}+{adapter}"), ask("x"))

    first, digest = key(), file_digest(f"local/{base}+{adapter}")
    assert key() == first
    lora(adapter, 1, layers=1, strength=0.5)
    assert key() != first
    assert file_digest(f"local/{base}+{adapter}") != digest


def test_both_files_of_a_name_are_the_user_s_own(base: Path, adapter: Path) -> None:
    assert own_files(f"local/{base}+{adapter}") == (base, adapter)
    assert own_files(f"local/smollm2-135m+{adapter}") == (adapter,)
    assert leads_elsewhere(f"local/smollm2-135m+{adapter}")
    assert not leads_elsewhere("local/smollm2-135m")
    assert file_digest("local/smollm2-135m") == ""


def transposed(path: Path) -> Path:
    values = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": "llama"}
    pair = {"lora_a": np.ones((WIDTH, 2)), "lora_b": np.ones((2, KEYS))}
    path.write_bytes(gguf(values, {f"blk.0.attn_v.weight.{part}": matrix for part, matrix in pair.items()}))
    return path


def alone(path: Path) -> Path:
    values = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": "llama"}
    path.write_bytes(gguf(values, {"blk.0.attn_v.weight.lora_a": np.ones((2, WIDTH))}))
    return path


def cut(path: Path) -> Path:
    whole = lora(path, 0, layers=1).read_bytes()
    path.write_bytes(whole[:-40])
    return path


def cut_in_its_head(path: Path) -> Path:
    path.write_bytes(lora(path, 0, layers=1).read_bytes()[:150])
    return path


def written(content: bytes) -> object:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path, "no such adapter file"),
        (cut, "truncated within tensor"),
        (cut_in_its_head, "is truncated"),
        (written(b""), "not a GGUF file"),
        (written(b"PK\x03\x04" + b"x" * 99), "not a GGUF file"),
        (lambda path: lora(path, 0, layers=1, general_type="model"), "type 'model', not an adapter"),
        (lambda path: lora(path, 0, layers=1, adapter_type="control"), "type 'control', not lora"),
        (lambda path: lora(path, 0, layers=1, adapter_alora_invocation__tokens=""), "aLoRA"),
        (lambda path: lora(path, 0, layers=1, general_architecture="qwen2"), "architecture 'qwen2', not 'llama'"),
        (lambda path: lora(path, 0, layers=2), "changes 'blk.1.attn_q.weight', which the model does not have"),
        (lambda path: lora(path, 0, layers=1, width=64), r"has \(2, 64\) and \(64, 2\)"),
        (transposed, r"which is \(192, 576\) in the model"),
        (alone, "does not hold a matrix .lora_a and one .lora_b"),
    ],
)
def test_an_adapter_that_cannot_be_served_is_refused_in_one_line(
    make: object, why: str, base: Path, tmp_path: Path
) -> None:
    path = make(tmp_path / "bad.gguf")  # type: ignore[operator]
    with pytest.raises(InputError, match=why) as caught:
        require_files([f"local/{base}+{path}"])
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=why):
        endpoint_of(create_model(f"local/{base}+{path}"))


def test_every_file_of_every_name_is_named_at_once(base: Path, tmp_path: Path) -> None:
    names = [f"local/{tmp_path}/no.gguf+{tmp_path}/none.gguf", f"local/{base}+{cut(tmp_path / 'cut.gguf')}"]
    with pytest.raises(InputError) as caught:
        require_files(names)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "no such model file; `optimize models list` shows the models that can be fetched",
        "no such adapter file; give the path of a LoRA adapter in GGUF after the +",
        "the GGUF file cannot be used",
    ]


def test_a_damaged_head_is_refused_whatever_its_bytes(base: Path, adapter: Path, tmp_path: Path) -> None:
    whole, rng, path = adapter.read_bytes(), random.Random(0), tmp_path / "bad.gguf"
    for _ in range(300):
        bad = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            bad[rng.randrange(0, 600)] = rng.choice((0, 1, 8, 9, 127, 255))
        path.write_bytes(bad)
        assert "\n" not in adapter_fault(path, base)


def test_a_run_is_refused_before_anything_is_written(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["init", "--sample", "support_triage"]).exit_code == 0
    done = CliRunner().invoke(main, ["run", "support_triage", "-m", f"local/{base}+{cut(tmp_path / 'cut.gguf')}"])
    assert done.exit_code == 2
    assert "is truncated" in done.stderr
    assert not Path("runs/ledger.db").exists()
