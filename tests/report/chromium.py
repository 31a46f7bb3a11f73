"""Chromium on this machine, as Playwright brings none here, and what axe says of a page in it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium on PATH: `apt-get install chromium` (Debian, Ubuntu) or your system's package"
)


def unreadable(page: Page) -> list[tuple[str, str]]:
    """What axe finds that keeps somebody from reading the page: what it holds to be serious or worse."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
