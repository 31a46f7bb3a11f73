"""What cannot be compared is refused in a line each, before a search is made or a call is paid for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.jobs.customize.arms import ARMS
from agent.jobs.customize.plan import require_arms
from agent.jobs.customize.trainer import require_trainer, why_no_soft_prompt, why_not_tuned
from agent.options.jobs import CustomizeOptions
from agent.task.load import load_task
from tests.child import ROOT
from tests.cli.world import compatible, knowing, refused, write_csv
from tests.customize.conftest import Made
from tests.customize.world import MODEL, write_world
from tests.training.tiny import LAYERS, WIDTH, speaking, tiny, with_vocabulary
from tests.wire import WireServer

WORDS = ["customize", "rows.csv", "--target", "label", "--prompt", "p.txt", "-q"]


def said(*more: str, model: str = MODEL) -> str:
    """The errors of a comparison that nothing was begun for."""
    return "\n".join(refused(2, *WORDS, "-m", model, *more))


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        (
            ("--arms", "lorra,retreived", "--curve", "4,x"),
            [
                "--arms lorra: no arm of this name; did you mean 'lora'?",
                "--arms retreived: no arm of this name; did you mean 'retrieved'?",
                "--curve: '4': write numbers of train rows from 16",
                "--curve: 'x': write numbers of train rows from 16",
            ],
        ),
        (("--train-time", "soon"), ["Invalid value for '--train-time': 'soon': write seconds above 0"]),
        (("--trainer", "pefd"), ["Invalid value for '--trainer': 'pefd': write one of numpy, peft"]),
        (("--settings", "2", "--tune", "6"), ["--settings and --tune both say how many settings are tried; give one"]),
        (
            ("--limit", "12-20-30", "--arms", "lora+prompt"),
            ["--arms lora+prompt: 12 train rows are too few to train on; give at least 16"],
        ),
        (("--arms", "hosted"), ["--arms hosted: local/tiny.gguf is not trained at a provider"]),
        (
            ("--arms", "soft-prompt"),
            ["--arms soft-prompt: tiny.gguf: its tokenizer or chat template changes the tokens of a soft prompt"],
        ),
        (("--arms", "lora", "--hf-folder", "."), ["--hf-folder: .: not a Hugging Face model folder; it has no config"]),
    ],
)
def test_all_that_is_wrong_is_said_at_once(here: Path, more: tuple[str, ...], lines: list[str]) -> None:
    write_world()
    text = said(*more)
    assert [line for line in lines if line not in text] == []
    assert not Path("runs").exists()


def test_models_that_no_arm_can_be_trained_of(here: Path) -> None:
    write_world()
    speaking(Path("tiny.gguf"), expert_count=2)
    assert "--arms lora: tiny.gguf: cannot be trained: it has a mixture of experts" in said("--arms", "lora")
    with WireServer(knowing) as server:
        text = said("--price", "1,2", "--arms", "lora", model=compatible(server))
        assert not server.requests
    assert "is not trained here; name an embedded model" in text
    assert not Path("runs").exists()
    task = load_task(ROOT / "tasks" / "support_triage")
    for name in ("smollm2-135m", "mine.gguf"):
        assert "has an adapter already" in why_not_tuned(task, f"local/{name}+a.gguf", Path("gone"))
        assert not why_not_tuned(task, f"local/{name}", Path("gone"))
    without, one = with_vocabulary(tiny(Path("a.gguf"))), with_vocabulary(tiny(Path("b.gguf")), control={3: "<a>"})
    assert "no free control token" in why_no_soft_prompt(without)
    assert why_no_soft_prompt(one) == why_no_soft_prompt(Path("not-fetched-yet.gguf")) == ""


def test_a_run_that_is_no_search_of_this_model_and_these_rows(compared: Made) -> None:
    search, made = compared
    Path("other.gguf").write_bytes(Path("tiny.gguf").read_bytes())
    want = "a run with local/tiny.gguf, not local/other.gguf; give -m local/tiny.gguf"
    assert want in said("--run", search["run_id"], model="local/other.gguf")
    assert "no run 20000101T000000-000000" in said("--run", "20000101T000000-000000")
    assert "name a run of `optimize run`" in said("--run", made["run_id"])
    write_csv(Path("rows.csv"), 120, seed=9)
    assert search["run_id"] in said("--run", search["run_id"])


def test_which_arms_take_part() -> None:
    names = ["yours", "best", "retrieved", "calibrated", "soft-prompt", "lora", "lora+prompt", "full", "hosted"]
    assert list(ARMS) == [*names, "no-model"]
    by_default, unknown = require_arms([])
    assert [spec.name for spec in by_default] == [
        name for name in ARMS if name not in ("soft-prompt", "full", "hosted")
    ]
    assert unknown == []
    asked, _ = require_arms(["lora", "soft-prompt"])
    assert [(spec.name, spec.family) for spec in asked] == [
        ("yours", "prompt"),
        ("soft-prompt", "tuned"),
        ("lora", "tuned"),
    ]
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
