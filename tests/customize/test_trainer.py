"""`--trainer`, `--hf-folder` and the arm `full`: what is refused before a search is paid, and a comparison by peft."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from agent.jobs.customize.arms import ARMS
from agent.jobs.customize.trainer import require_trainer
from agent.models.gguf import read_gguf
from agent.options.jobs import CustomizeOptions
from agent.release.runtime import load_prompt
from tests.cli.world import good, good_json, refused
from tests.customize.conftest import Made
from tests.customize.test_customize import WORDS, by_name, events
from tests.training.tiny import LAYERS, WIDTH, tiny

HAS_PEFT = find_spec("peft") is not None
NEEDS_PEFT = pytest.mark.extra("tune")


@pytest.mark.parametrize("arms", ["lora", "lora,soft-prompt,full"])
def test_all_that_is_wrong_is_said_at_once_and_before_a_search(compared: Made, arms: str) -> None:
    before = good("runs")
    Path("empty").mkdir()
    words = ["customize", *WORDS, "--arms", arms, "--hf-folder", "empty", "-q"]
    text = "\n".join(refused(2, *words))
    assert "--hf-folder: empty: not a Hugging Face model folder; it has no config.json" in text
    if not HAS_PEFT:
        asked = "--arms full, --hf-folder" if "full" in arms else "--hf-folder"
        assert f'{asked}: needs peft, which is not installed; pip install "promptassay[tune]"' in text
    text = "\n".join(refused(2, *words, "--trainer", "pefd"))
    assert "Invalid value for '--trainer': 'pefd': write one of numpy, peft" in text
    assert good("runs") == before


def test_a_soft_prompt_has_no_other_trainer() -> None:
    problems = require_trainer(CustomizeOptions(trainer="peft"), [ARMS["soft-prompt"]], None)
    assert "--arms soft-prompt: trained in numpy alone; leave it or --trainer peft out" in map(str, problems)
    assert require_trainer(CustomizeOptions(), [ARMS["soft-prompt"], ARMS["lora"]], None) == []


def test_a_folder_of_another_model_is_told_by_its_sizes(tmp_path: Path) -> None:
    folder, base = tmp_path / "hf", tiny(tmp_path / "tiny.gguf")
    folder.mkdir()
    (folder / "model.safetensors").touch()
    sizes = {"model_type": "llama", "hidden_size": WIDTH, "num_hidden_layers": LAYERS}
    for change, why in (
        ({}, ""),
        ({"hidden_size": 99}, f"hidden_size 99, not {WIDTH}"),
        ({"model_type": "qwen2"}, "llama"),
    ):
        (folder / "config.json").write_text(json.dumps(sizes | change))
        problems = require_trainer(CustomizeOptions(hf_folder=folder), [], base)
        lines = [str(problem) for problem in problems if "needs peft" not in str(problem)]
        assert bool(lines) == bool(why)
        assert all(f"not the model that {base} was made from: " in line and line.endswith(why) for line in lines)


def test_an_arm_that_needs_the_extra_takes_part_only_where_it_is_named() -> None:
    assert not ARMS["full"].by_default
    assert ARMS["full"].family == "tuned"


@NEEDS_PEFT
def test_a_comparison_by_peft_is_as_one_by_numpy(compared: Made) -> None:
    _, made = compared
    found = good_json("customize", *WORDS, "--arms", "best,lora,full", "--trainer", "peft", "-q")
    assert [arm["arm"] for arm in found["arms"]] == ["yours", "best", "lora", "full"]
    before, after = (events(found["run_id"], kind) for kind in ("training", "trained"))
    assert [(one["arm"], one["trainer"]) for one in before] == [("lora", "peft"), ("full", "peft")]
    assert set(before[0]["versions"]) == {"promptassay", "numpy", "torch", "transformers", "peft"}
    (numpy,) = (one for one in events(made["run_id"], "trained") if (one["arm"], one["labels"]) == ("lora", 36))
    assert after[0]["losses"] == pytest.approx(numpy["losses"], abs=1e-2)
    assert numpy["trainer"] == "numpy"
    assert after[1]["losses"]

    full = by_name(found)["full"]
    prompt = load_prompt(full["path"])
    model = Path(prompt.model.removeprefix("local/"))
    assert prompt.release.adapter is None
    assert model.name == f"model-{after[1]['adapter'][:16]}.gguf"
    assert read_gguf(model).tensors.keys() == read_gguf(Path("tiny.gguf")).tensors.keys()
    assert prompt.complete(text="a parcel that is late") is not None
    done = good_json("promote", "--arm", "full", "--override", "--reason", "a trial")
    assert load_prompt("rows@production", root=Path("runs/releases")).version == done["version"] == prompt.version
    assert good("audit", "verify").startswith("whole: ")


@pytest.mark.skipif(find_spec("safetensors") is None, reason="no safetensors here: run `make setup`")
def test_an_adapter_of_a_comparison_is_exported_in_the_form_of_peft(compared: Made) -> None:
    search, made = compared
    done = good_json("export", "--arm", "lora", "--format", "peft", "--format", "llama-server", "-o", "out")
    assert done["run_id"] == made["run_id"]
    assert done["version"] == load_prompt(by_name(made)["lora"]["path"]).version
    assert [one["verified"] for one in done["formats"]] == [True, True]
    assert Path("out/adapter_model.safetensors").stat().st_size > 1000
    (line,) = refused(2, "export", search["run_id"], "--arm", "lora", "--format", "peft", "-o", "more")
    assert "not a run of `optimize customize`" in line
    assert not Path("more").exists()
