"""`optimize sweep --ray`: cells on the nodes of a Ray cluster, of which one is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import pytest

from agent.jobs.observers import CellLine, Watcher
from agent.jobs.sweep.prepare import prepare_sweep
from agent.jobs.sweep.sweep import run_sweep
from tests.cli.sweeps import broken_cells, resumed, scores, settled, write_sweep
from tests.cli.world import compatible, good_json, learner, refused
from tests.ray_nodes import ray_nodes
from tests.warm import start
from tests.wire import Fault, WireServer

HAS_RAY = find_spec("ray") is not None
needs_ray = pytest.mark.extra("ray")
SLOW = "trials = 1\nmax_concurrency = 2\n[resources]\nnum_cpus = 1\n"


def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    return Fault(text=learner(messages, body), delay=0.1)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three nodes with one CPU each."""
    with ray_nodes(1) as made:
        yield made


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_ray_is_asked_for_where_it_is_missing() -> None:
    with WireServer(learner) as server:
        lines = refused(2, "sweep", write_sweep([compatible(server)]), "--ray", "local", "-q")
        assert not server.requests
    assert lines == ['error: --ray needs ray, which is not installed; pip install "promptassay[ray]"']


@needs_ray
def test_a_killed_node_loses_no_cell_and_buys_nothing_twice(cluster: Any) -> None:
    killed: list[str] = []

    class Killer(Watcher):
        def on_cells(self, cells: Sequence[CellLine]) -> None:
            kill_a_node(cells)

    def kill_a_node(lines: Sequence[CellLine]) -> None:
        running = [line.name for line in lines if line.state == "running" and (line.calls or 0) > 3]
        if not killed and len(running) == 3 and any(line.state == "finished" for line in lines):
            killed.extend(running)
            cluster.remove_node(cluster.others[0], allow_graceful=False)

    with WireServer(slow) as server:
        prepared = prepare_sweep(write_sweep([compatible(server)], range(12), SLOW))
        found = run_sweep(prepared, Killer(), cluster.address).to_json()
    assert killed
    assert [(cell["state"], cell["error"]) for cell in found["cells"]] == [("finished", "")] * 12
    assert broken_cells() == {}
    (again,) = resumed()
    assert again in killed, "the cell of the node that died, and no other"


@needs_ray
def test_ctrl_c_stops_cells_on_nodes_gently_and_they_go_on_without_ray() -> None:
    with WireServer(slow) as server:
        path = write_sweep([compatible(server)], (0, 1), SLOW)
        process = start("sweep", str(path), "--ray", "local", "-q", "--json")
        deadline = time.monotonic() + 120
        while len(server.requests) < 10 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert (process.returncode, out) == (130, ""), err
        asked = len(server.requests)
        assert settled() == asked, "what was in flight has landed"
        found = good_json("sweep", path, "-q", "--jobs", "2")
        assert settled() == len(server.requests)
    assert resumed()
    assert broken_cells() == {}
    assert len(scores(found)) == 2


@needs_ray
def test_a_sweep_on_ray_prints_one_object_and_has_the_scores_of_one_without() -> None:
    with WireServer(learner) as server:
        path = write_sweep([compatible(server)], (0, 1), "trials = 1\n")
        process = start("sweep", str(path), "--ray", "local", "-q", "--json")
        out, err = process.communicate(200)
        assert process.returncode == 0, err
        plain = good_json("sweep", path, "-q", "--folder", "plain")
    assert scores(json.loads(out)) == scores(plain)
