"""What runs the embedded model, one process at a time."""

from tests.release.conftest import promptfoo_on_the_path
from tests.report.chromium import browser

__all__ = ["browser", "promptfoo_on_the_path"]
