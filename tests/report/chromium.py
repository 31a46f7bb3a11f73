"""The path of Chromium on this machine; Playwright brings none here."""

from __future__ import annotations

import shutil

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium on PATH: `apt-get install chromium` (Debian, Ubuntu) or your system's package"
)
