"""The HTTP server of an embedded engine, for what its Python interface does not give: tokens and chat templates."""

from __future__ import annotations

import json
import urllib.request
from typing import Any, NamedTuple


class EngineServer(NamedTuple):
    """Where an engine's server listens.

    Args:
        address: On loopback, with its port.
        key: What the server asks for.
    """

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
