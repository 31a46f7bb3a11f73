"""Datasette with its built-in plugins and ours only; installed ones are not even imported."""

from __future__ import annotations

import sys
from typing import Any

from agent.errors import InputError

_before = getattr(sys, "_called_from_test", None)
sys._called_from_test = True  # type: ignore[attr-defined]  # its one switch that leaves installed plugins out
try:
    from datasette import hookimpl
    from datasette.app import Datasette as Datasette
    from datasette.database import Database as Database
    from datasette.database import QueryInterrupted as QueryInterrupted
    from datasette.database import Results as Results
    from datasette.plugins import DEFAULT_PLUGINS, pm
    from datasette.utils.asgi import Base400 as Base400
    from datasette.views.base import DatasetteError as DatasetteError
finally:
    if _before is None:
        del sys._called_from_test  # type: ignore[attr-defined]

LONGEST_CELL = 2048
OTHER_HANDLERS = ("datasette.handle_exception", "datasette.forbidden")
"""Datasette's handlers, which print errors with the values of all variables and use scripts."""


class _Plugin:
    __name__ = "agent.report.web"

    @hookimpl  # type: ignore[untyped-decorator]
    def render_cell(self, value: Any) -> str | None:
        # else Datasette makes links of addresses
        if not isinstance(value, str) or not value:
            return None
        return value if len(value) <= LONGEST_CELL else f"{value[:LONGEST_CELL]}…"

    @hookimpl  # type: ignore[untyped-decorator]
    def handle_exception(self, exception: Exception) -> Any:
        raise exception

    @hookimpl  # type: ignore[untyped-decorator]
    def forbidden(self, message: str) -> Any:
        raise InputError(message)


for _name, _ in pm.list_name_plugin():
    if _name in OTHER_HANDLERS or _name not in DEFAULT_PLUGINS:
        pm.unregister(name=_name)
pm.register(_Plugin(), __name__)
