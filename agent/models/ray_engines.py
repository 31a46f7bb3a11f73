"""Engines of a local model on a Ray cluster: one actor per engine, with one thread and one CPU.

    ray/local/smollm2-135m?engines=8

The model is `local/smollm2-135m` in all but place: name, endpoint and call keys are those of the local model. Calls
wait in the queue of `local_engines.py`. An actor that dies leaves one call of unknown outcome, which the gateway
retries, and is replaced.
"""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.cluster import ADDRESS, LOCAL, join_cluster, leave_cluster
from agent.errors import AgentError, InputError, RunRefused, Transient, TransportUnknown, error_lines
from agent.extras import require
from agent.models.adapters import Adapter
from agent.models.local import LocalModel, embedded
from agent.models.local_engines import EngineCall, Engines, close_engines, open_engines
from agent.models.model_registry import MODELS, NO_FILE, model
from agent.models.weights import CATALOG, fetch, weights_path

START_SECONDS = 120.0  # timeout for placing an actor, importing this package and loading the weights
LOOK_SECONDS = 0.5  # interval of checks whether a starting actor is still needed
AGAIN_SECONDS = 2.0  # pause between a failed start and the next
NAME = re.compile(r"local/(?P<rest>.+)\?engines=(?P<engines>[1-9]\d{0,3})", re.DOTALL)


class EngineActor:
    """One engine on a node."""

    def start(self, path: str, sha256: str) -> None:
        """Load the weights at `path`, fetched if catalogued. Raises InputError for a missing or different file."""
        file, node = Path(path), platform.node()
        if not file.is_file():
            name = next((known.name for known in CATALOG if weights_path(known.name).name == file.name), None)
            if name is None:
                raise InputError(f"{path} on {node}: {NO_FILE}; the file must have this path on every node")
            file = fetch(name, lambda done, total: None)
        if Adapter.read(file).sha256 != sha256:
            raise InputError(f"{file} on {node}: not the same file as on this machine; copy it to every node")
        self._engines = Engines(file, 1)
        self._engines.join(None)
        self._adapters: set[Adapter | None] = {None}

    async def answer(self, body: dict[str, Any], text: str, adapter: Adapter | None, labels: tuple[str, ...]) -> Any:
        if adapter not in self._adapters:  # stays loaded once named
            self._adapters.add(adapter)
            self._engines.join(adapter)
        return await self._engines.complete(EngineCall(body, text, adapter, labels))


class RayEngines(Engines):
    """The engines of a model file as actors of a Ray cluster. Raises InputError."""

    def __init__(self, path: Path, count: int) -> None:
        super().__init__(path, count)
        self._sha256 = Adapter.read(path).sha256
        self._counter: Engines | None = None
        self._actors: dict[int, Any] = {}
        self._failed: set[int] = set()
        self._ray = join_cluster(os.environ.get(ADDRESS) or LOCAL, ADDRESS)
        cpus = int(self._ray.cluster_resources().get("CPU", 0))
        if cpus < count:
            leave_cluster(self._ray)
            raise InputError(f"ray/...?engines={count}: an engine takes one CPU, and the cluster has {cpus}")
        self._actor: Callable[[], Any] = self._ray.remote(num_cpus=1)(EngineActor).remote

    def count_tokens(self, text: str) -> int:
        with self._publishing:
            if self._counter is None:  # in this process, as the pool's are busy or gone
                self._counter = open_engines(self.path, 1, None)
        return self._counter.count_tokens(text)

    def end(self) -> None:
        """End the actors, even hung ones, without waiting for their calls."""
        with self._wake:
            self._closed = True
            running = list(self._actors.values())
        for actor in running:
            self._ray.kill(actor)
        super().end()
        if self._counter is not None:
            close_engines(self._counter, None)
        leave_cluster(self._ray)

    def _serve(self, number: int, ready: threading.Event) -> None:
        ready.set()  # calls queue until an actor is ready
        while (actor := self._started(number)) is not None:
            with self._wake:
                self._actors[number] = actor
            is_alive = True
            while is_alive and (call := self._next(number)) is not None:
                is_alive = self._asked(actor, call)
            with self._wake:
                del self._actors[number]
                self._held.pop(number, None)  # free for the others
                self._wake.notify_all()
            self._ray.kill(actor)

    def _asked(self, actor: Any, call: EngineCall) -> bool:
        adapter = call.adapter and replace(call.adapter, path=call.adapter.path.absolute())
        try:
            call.settle(self._ray.get(actor.answer.remote(call.body, call.text, adapter, call.labels)), None)
        except self._ray.exceptions.RayTaskError as error:
            call.settle(None, self._own(error))
        except Exception as error:  # Ray raises bare exceptions when it is down
            why = f"{self.path}: an engine of the pool died and is replaced ({error_lines(error)[0]})"
            call.settle(None, TransportUnknown(why))
            return False
        return True

    def _own(self, error: Any) -> AgentError:
        cause = error.cause
        return cause if isinstance(cause, AgentError) else Transient(f"{self.path}: the engine failed: {cause}")

    # -- starting -----------------------------------------------------------------------------------------------------

    def _started(self, number: int) -> Any:
        """Start an actor and load the weights, until it succeeds; None when the engines end."""
        while not self._closed:
            actor = self._actor()
            fault = self._start(actor)
            if fault is None and not self._closed:
                self._failed.discard(number)
                return actor
            self._ray.kill(actor)
            if fault is not None:
                self._failed.add(number)
                if isinstance(fault, InputError) or len(self._failed) == self.count:
                    self._refuse(fault)
                time.sleep(AGAIN_SECONDS)
        return None

    def _start(self, actor: Any) -> AgentError | None:
        up = actor.start.remote(os.path.abspath(self.path), self._sha256)
        late = time.monotonic() + START_SECONDS
        try:
            while not self._ray.wait([up], timeout=LOOK_SECONDS)[0]:
                if self._closed:
                    return None
                if time.monotonic() > late:
                    free = self._ray.available_resources().get("CPU", 0)
                    return RunRefused(
                        f"{self.path}: no engine of the pool started in {START_SECONDS:.0f} s; "
                        f"the cluster has {free:g} CPUs free, and an engine takes one"
                    )
            self._ray.get(up)
        except self._ray.exceptions.RayTaskError as error:
            return self._own(error)
        except Exception as error:
            return Transient(f"{self.path}: an engine of the pool died while starting ({error_lines(error)[0]})")
        return None

    def _refuse(self, fault: AgentError) -> None:
        with self._wake:
            waiting = list(self._waiting)
            self._waiting.clear()
        for call in waiting:
            call.settle(None, fault)


def _local(rest: str) -> str:
    found = NAME.fullmatch(rest)
    return found["rest"] if found else ""


@model(
    "ray",
    form="ray/local/NAME?engines=N",
    about="a local model with N engines on a Ray cluster (RAY_ADDRESS; else one of this machine)",
    own_files=lambda rest: MODELS.get("local").own_files(_local(rest)),
    faults=lambda rest: MODELS.get("local").faults(_local(rest)),
    leads_elsewhere=False,
)
def pool(name: str, rest: str) -> LocalModel:
    found = NAME.fullmatch(rest)
    if found is None:
        raise InputError(f"{name!r}: name it as ray/local/NAME?engines=N, with N from 1 to 9999")
    require("ray", name)
    local = found["rest"]
    return embedded(f"local/{local}", local, int(found["engines"]), RayEngines)
