"""A Ray cluster of three nodes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def ray_nodes(head_cpus: int) -> Iterator[Any]:
    """The cluster: a head, and two nodes of one CPU each as `others`. Its workers import what is tested here."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": head_cpus, "include_dashboard": False})
        try:
            made.others = [made.add_node(num_cpus=1) for _ in range(2)]
            yield made
        finally:
            ray.shutdown()
            made.shutdown()
