"""What cannot be compared is refused in a line each, before a search is made or a call is paid for."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.jobs.customize.trainer import why_not_tuned
from agent.task.load import load_task
from tests.child import ROOT
from tests.cli.world import compatible, good_json, knowing, refused, write_csv
from tests.customize.conftest import Made
from tests.customize.world import write_world
from tests.training.tiny import speaking
from tests.wire import WireServer


def words_of(*words: str) -> list[str]:
    return ["customize", *words, "-q"]


def ends(lines: list[str]) -> list[str]:
    """The errors among the lines."""
    return [line for line in lines if "error" in line or line.startswith("--")]


@pytest.fixture
def world(here: Path) -> list[str]:
    return write_world()


def test_a_hosted_model_has_no_arm_to_train(here: Path) -> None:
    words = write_world()[:-1]
    with WireServer(knowing) as server:
        lines = refused(2, *words_of(*words, compatible(server), "--price", "1,2", "--arms", "lora"))
        assert not server.requests
    assert any("--arms lora: " in line and "is not trained here; name an embedded model" in line for line in lines)
    assert not Path("runs").exists()


def test_a_model_that_has_an_adapter_is_not_trained_on_top_of_it(compared: Made) -> None:
    adapter = next(Path("runs/adapters").glob("adapter-*.gguf"))
    words = ["rows.csv", "--target", "label", "--prompt", "p.txt", "-m", f"local/tiny.gguf+{adapter}"]
    (line,) = ends(refused(2, *words_of(*words, "--arms", "lora", "--db", "other/ledger.db")))
    assert f"--arms lora: local/tiny.gguf+{adapter} has an adapter already; name the model without it" in line
    assert not Path("other").exists()


@pytest.mark.parametrize("name", ["smollm2-135m", "mine.gguf"])
def test_an_adapter_is_seen_in_each_form_of_a_name(name: str) -> None:
    task = load_task(ROOT / "tasks" / "support_triage")
    assert "has an adapter already" in why_not_tuned(task, f"local/{name}+a.gguf", Path("gone"))
    assert not why_not_tuned(task, f"local/{name}", Path("gone"))


def test_a_model_of_another_family_is_refused_before_a_search(world: list[str]) -> None:
    speaking(Path("tiny.gguf"), expert_count=2)
    (line,) = ends(refused(2, *words_of(*world, "--arms", "lora")))
    assert "--arms lora: tiny.gguf: cannot be trained: it has a mixture of experts" in line
    assert not Path("runs").exists()


def test_all_that_is_wrong_is_said_at_once(world: list[str]) -> None:
    more = ("--arms", "lorra,retreived", "--curve", "4,x")
    text = "\n".join(refused(2, *words_of(*world, *more)))
    for line in (
        "--arms lorra: no arm of this name; did you mean 'lora'?",
        "--arms retreived: no arm of this name; did you mean 'retrieved'?",
        "--curve: 4 rows are too few to train on; give at least 16",
        "--curve: 'x': write numbers of train rows",
    ):
        assert line in text
    text = "\n".join(refused(2, *words_of(*world, "--train-time", "soon")))
    assert "Invalid value for '--train-time': 'soon': write seconds above 0" in text
    assert not Path("runs").exists()


def test_too_few_train_rows(world: list[str]) -> None:
    write_csv(Path("rows.csv"), 120)
    text = "\n".join(refused(2, *words_of(*world, "--limit", "12-20-30", "--arms", "lora+prompt")))
    assert "--arms lora+prompt: 12 train rows are too few to train on; give at least 16" in text
    assert not Path("runs").exists()


@pytest.mark.parametrize("run", ["search", "none"])
def test_a_run_of_another_model_or_none(compared: Made, run: str) -> None:
    search, _ = compared
    Path("other.gguf").write_bytes(Path("tiny.gguf").read_bytes())
    words = ["rows.csv", "--target", "label", "--prompt", "p.txt", "-m", "local/other.gguf"]
    named = search["run_id"] if run == "search" else "20000101T000000-000000"
    (line,) = ends(refused(2, *words_of(*words, "--run", named)))
    want = "a run with local/tiny.gguf, not local/other.gguf; give -m local/tiny.gguf"
    assert (want if run == "search" else "no run 20000101T000000-000000") in line


def test_a_comparison_is_no_search_to_take_prompts_from(compared: Made) -> None:
    _, made = compared
    words = ["rows.csv", "--target", "label", "--prompt", "p.txt", "-m", "local/tiny.gguf"]
    (line,) = ends(refused(2, *words_of(*words, "--run", made["run_id"])))
    assert "`optimize customize` is not a search; name a run of `optimize run`" in line


def test_a_search_without_a_proposer_is_taken_too(world: list[str]) -> None:
    search = good_json("run", *world, "--limit", "20-8-8", "-n", "1", "--proposer", "none", "-q")
    made = good_json("customize", *world, "--limit", "20-8-8", "--arms", "no-model", "-q")
    assert made["of_run"] == search["run_id"]


def test_rows_that_changed_since_the_search(compared: Made) -> None:
    search, _ = compared
    write_csv(Path("rows.csv"), 120, seed=9)
    words = ["rows.csv", "--target", "label", "--prompt", "p.txt", "-m", "local/tiny.gguf"]
    lines = ends(refused(2, *words_of(*words, "--run", search["run_id"])))
    assert lines
    assert all(search["run_id"] in line for line in lines)


def test_a_model_of_this_machine_is_not_trained_at_a_provider(world: list[str]) -> None:
    text = "\n".join(refused(2, *words_of(*world, "--arms", "hosted")))
    assert "--arms hosted: local/tiny.gguf is not trained at a provider" in text
    assert not Path("runs").exists()


def test_a_tokenizer_that_takes_soft_prompts_apart_is_named_before_a_search(world: list[str]) -> None:
    text = "\n".join(refused(2, *words_of(*world, "--arms", "soft-prompt")))
    assert "--arms soft-prompt: tiny.gguf: its tokenizer or chat template changes the tokens of a soft prompt" in text
    assert not Path("runs").exists()
