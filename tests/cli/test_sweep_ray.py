"""`optimize sweep --ray`: cells on the nodes of a Ray cluster, of which one is killed."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import pytest

from agent.jobs.observers import CellLine, Watcher
from agent.jobs.sweep.prepare import prepare_sweep
from agent.jobs.sweep.sweep import run_sweep
from tests.cli.sweeps import broken_cells, resumed, scores, settled, write_sweep
from tests.cli.test_sweep import until
from tests.cli.world import compatible, good_json, learner
from tests.ray_nodes import ray_nodes
from tests.warm import start
from tests.wire import Fault, WireServer

pytestmark = pytest.mark.extra("ray")
SLOW = "trials = 1\nmax_concurrency = 2\n[resources]\nnum_cpus = 1\n"


def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    return Fault(text=learner(messages, body), delay=0.1)


def test_a_killed_node_loses_no_cell_and_buys_nothing_twice() -> None:
    killed: list[str] = []

    class Killer(Watcher):
        def on_cells(self, cells: Sequence[CellLine]) -> None:
            running = [line.name for line in cells if line.state == "running" and (line.calls or 0) > 3]
            if not killed and len(running) == 3:
                killed.extend(running)
                cluster.remove_node(cluster.others[0], allow_graceful=False)

    with ray_nodes(1) as cluster, WireServer(slow) as server:
        prepared = prepare_sweep(write_sweep([compatible(server)], range(5), SLOW))
        found = run_sweep(prepared, Killer(), cluster.address).to_json()
    assert killed
    assert [(cell["state"], cell["error"]) for cell in found["cells"]] == [("finished", "")] * 5
    assert broken_cells() == {}
    (again,) = resumed()
    assert again in killed, "the cell of the node that died, and no other"


def test_ctrl_c_stops_cells_on_nodes_gently_and_they_continue_without_ray_to_the_same_scores() -> None:
    with WireServer(slow) as server:
        path = write_sweep([compatible(server)], (0, 1), SLOW)
        process = start("sweep", str(path), "--ray", "local", "-q", "--json")
        until(lambda: len(server.requests) >= 10, 120)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(120)
        assert (process.returncode, out) == (130, ""), err
        assert settled() == len(server.requests), "what was in flight has landed"
        found = good_json("sweep", path, "-q", "--jobs", "2")
        assert settled() == len(server.requests)
        assert scores(found) == scores(good_json("sweep", path, "-q", "--folder", "plain"))
    assert resumed()
    assert broken_cells() == {}
