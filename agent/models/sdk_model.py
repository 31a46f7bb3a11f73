"""A model behind the client of an SDK, which sends requests; the reply's JSON is read here."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from agent.models.hosted import PROBE_SECONDS, HostedModel
from agent.models.transport import time_limits
from agent.types import Request

if TYPE_CHECKING:
    from httpx2 import Response


class SdkModel(HostedModel):
    """A model that is called at a path of its provider's address."""

    path: ClassVar[str]
    models_path: ClassVar[str]

    @abstractmethod
    def body(self, request: Request) -> dict[str, Any]:
        """Return the JSON of a call."""

    async def asked(self, method: str, path: str, seconds: float, **sent: Any) -> dict[str, Any]:
        """Send an auxiliary request and return the JSON object of its reply. Raises ModelError."""
        content = await self.answered(method, path, seconds, **sent)
        with self._errors(seconds):
            return self._object(content)

    async def answered(self, method: str, path: str, seconds: float, **sent: Any) -> bytes:
        """Send an auxiliary request and return the body of its reply. Raises ModelError."""
        await self._started()
        with self._errors(seconds):
            async with asyncio.timeout(seconds):
                reply = await self._ask(method, path, seconds, **sent)
            return reply.content

    async def _ask(self, method: str, path: str, seconds: float, *, options: Any = None, **sent: Any) -> Response:
        """Send a request without the SDK's typed methods. Their checks take half of a call's CPU time."""
        from httpx2 import Response

        how = {"cast_to": Response, "options": {"timeout": time_limits(seconds), **(options or {})}}
        reply: Response = await getattr(self._client, method)(path, **how, **sent)
        return reply

    async def _stop(self, client: Any) -> None:
        await client.close()

    async def _send(self, request: Request) -> Response:
        return await self._ask("post", self.path, request.timeout, body=self.body(request))

    async def _look(self) -> str:
        await self._ask("get", f"{self.models_path}/{quote(self._model, safe='')}", PROBE_SECONDS)
        return ""
