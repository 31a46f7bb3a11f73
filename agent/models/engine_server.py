"""Starts a llama.cpp engine, with its HTTP server for what its Python interface does not give: tokens and templates."""

from __future__ import annotations

import json
import secrets
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from agent.errors import InputError


class EngineServer(NamedTuple):
    """Where an engine's server listens, on loopback, and the key that it asks for."""

    address: str
    key: str

    def post(self, path: str, body: Any) -> Any:
        """What the server answers, JSON to JSON, past any proxy of the user."""
        request = urllib.request.Request(
            f"{self.address}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            return json.load(response)


def start_engine(path: Path, context: int, **more: Any) -> tuple[Any, EngineServer]:
    """An engine of one thread on `path`, and its server: not to be switched off, with a random key."""
    import xllamacpp

    key, params = secrets.token_hex(16), xllamacpp.CommonParams()
    params.model.path = str(path)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    own = {"n_ctx": context, "n_parallel": 1, "warmup": False, "verbosity": -1, "api_keys": [key]}
    for name, value in {**own, "endpoint_metrics": True, **more}.items():
        setattr(params, name, value)
    engine = xllamacpp.Server(params)
    engine.handle_metrics()  # computes nothing; an engine that is ended before its loop answers would never end
    return engine, EngineServer(engine.listening_address, key)


def cannot_load(what: object, error: Exception) -> InputError:
    """The error of a file that llama.cpp refuses, in words of ours."""
    return InputError(f"{what}: the engine cannot load this file ({error}); fetch it again or name another GGUF")
