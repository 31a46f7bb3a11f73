"""`optimize customize --ray` and `--tune`: the record of a comparison that a cluster trained is that of one without."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.jobs.customize.on_ray import RayTrainings
from agent.jobs.customize.training import Here, trained
from agent.observer import Observer, TrainingProgress
from agent.training.loop import TrainingOrder
from agent.training.settings import LoraSettings, TrainedAdapter, TrainingPair, drawn
from agent.types import Message
from tests.cli.world import good_json
from tests.customize.test_customize import WORDS, by_name, events
from tests.customize.world import write_world
from tests.ray_nodes import ray_nodes
from tests.training.tiny import speaking

pytestmark = pytest.mark.extra("ray")
WORDS_OF = ("apple", "bear", "cat", "dog", "eel", "fox")
PAIRS = [TrainingPair((Message("user", f"Sort: {word}"),), word[0]) for word in WORDS_OF]


@pytest.fixture(autouse=True)
def same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import what is tested here."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A head that trains nothing and two nodes of one CPU each."""
    with ray_nodes(0) as made:
        yield made


def without_seconds(bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: body[name] for name in body if name != "seconds"} for body in bodies]


def record(made: Mapping[str, Any]) -> list[Any]:
    """What the ledger has of the trainings of a comparison, and their results."""
    kinds = ("training", "trained", "test_opened")
    chosen = [
        (line["arm"], line["chosen"], without_seconds(line["tried"]))
        for line in events(made["run_id"], "settings_chosen")
    ]
    epochs = sorted(map(str, without_seconds(events(made["run_id"], "training_epoch"))))
    tests = {name: (arm["test"], arm["path"] != "") for name, arm in by_name(dict(made)).items()}
    return [*(without_seconds(events(made["run_id"], kind)) for kind in kinds), sorted(chosen, key=str), epochs, tests]


def test_a_comparison_on_ray_has_the_record_and_the_adapters_of_one_without(here: Path) -> None:
    good_json("run", *write_world(), "-n", "1", "-q")
    words = ["customize", *WORDS, "--arms", "lora", "--settings", "2", "--seeds", "2", "--curve", "16,all"]
    there = good_json(*words, "-q", "--ray")
    for file in Path("runs/adapters").iterdir():
        file.unlink()
    here_ = good_json(*words, "-q")
    assert len(events(there["run_id"], "trained")) == 3
    assert record(there) == record(here_)


def test_drawn_settings_are_stopped_early_and_dev_chooses_the_best(here: Path) -> None:
    good_json("run", *write_world(), "-n", "1", "-q")
    made = good_json("customize", *WORDS, "--arms", "lora", "--tune", "6", "-q")
    (line,) = made["settings"]
    tried = line["tried"]
    assert [(one["learning_rate"], one["rank"]) for one in tried] == [
        (one.learning_rate, one.rank) for one in drawn(LoraSettings(), 6) if isinstance(one, LoraSettings)
    ]
    ended = [one["ended"] for one in tried]
    assert "ASHA" in ended
    assert set(ended) <= {"ASHA", "epochs", "early stop"}
    assert all(1 <= one["epochs"] < 4 for one in tried if one["ended"] == "ASHA")
    best = min(tried, key=lambda one: one["dev_loss"])
    assert (line["chosen"]["learning_rate"], line["chosen"]["rank"]) == (best["learning_rate"], best["rank"])
    (chosen,) = events(made["run_id"], "settings_chosen")
    assert chosen["tried"] == tried
    epochs = [(one["name"], one["epoch"]) for one in events(made["run_id"], "training_epoch")]
    assert sorted(epochs) == sorted(
        (f"lora, setting {number} of 6", epoch)
        for number, one in enumerate(tried, 1)
        for epoch in range(1, one["epochs"] + 1)
    ), "each epoch once, those of the chosen are not trained again"
    again = good_json("reproduce", made["run_id"])  # without Ray
    assert again["same"]


class Watch(Observer):
    """Notes events; does the next of what it is given in the epochs 3, 7, ..."""

    def __init__(self, *kills: Callable[[], None]) -> None:
        self.kills, self.due, self.events = list(kills), 3, list[Any]()

    def on_event(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        self.events.append((kind, dict(body)))

    def on_training_progress(self, progress: TrainingProgress) -> None:
        if self.kills and progress.epoch >= self.due:
            self.due += 4
            self.kills.pop(0)()


def worker_and_parents() -> list[int]:
    """The process below this one that trains for Ray, and those above it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title, parents = (path / "cmdline").read_text(), list(ancestors(int(path.name)))
        except OSError:
            continue
        if title.startswith("ray::on_node") and os.getpid() in parents:
            found.append([int(path.name), *parents])
    (one,) = found
    return one


def ancestors(process: int) -> Iterator[int]:
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        yield process


def test_a_worker_and_a_node_that_are_killed_cost_an_epoch_at_most_and_nothing_counts_twice(
    nodes: Any, tmp_path: Path
) -> None:
    def kill_worker() -> None:
        os.kill(worker_and_parents()[0], signal.SIGKILL)

    def kill_node() -> None:
        _, *parents = worker_and_parents()
        (node,) = [node for node in nodes.others if node.all_processes["raylet"][0].process.pid in parents]
        nodes.remove_node(node, allow_graceful=False)

    base, settings = speaking(tmp_path / "tiny.gguf"), LoraSettings(epochs=16, patience=16)

    def train(observer: Watch, folder: str, on: Any) -> TrainedAdapter:
        # so many pairs that a fast machine has not ended the training before the second kill
        files = {"base": base, "folder": tmp_path / folder}
        order = TrainingOrder(rows=PAIRS, validation=PAIRS, settings=settings, fewest=360, **files)
        return asyncio.run(trained("lora", order, observer, lambda: None, on))

    killed, plain = Watch(kill_worker, kill_node), Watch()
    with contextlib.closing(RayTrainings(nodes.address)) as cluster:
        made = train(killed, "ray", cluster)
    whole = train(plain, "here", Here())
    assert killed.kills == [], "both were killed"
    assert made.path == tmp_path / "ray" / whole.path.name
    assert made.path.read_bytes() == whole.path.read_bytes()
    assert (made.losses, made.scores, made.tokens) == (whole.losses, whole.scores, whole.tokens)
    assert sorted(killed.events, key=lambda event: event[1]["epoch"]) == plain.events
