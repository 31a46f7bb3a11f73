"""Every test of this folder runs in its own empty current folder, without keys and settings of the user."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import here, made, two_runs
from tests.report.chromium import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["here", "made", "two_runs"]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()
