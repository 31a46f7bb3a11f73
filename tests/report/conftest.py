"""Every test of this folder runs in its own empty current folder, without keys and settings of the user."""

from tests.cli.conftest import here, made, two_runs
from tests.report.chromium import browser

__all__ = ["browser", "here", "made", "two_runs"]
