"""Every test of this folder runs in its own empty current folder, without keys and settings of the user."""

from tests.cli.conftest import here, made, two_runs

__all__ = ["here", "made", "two_runs"]
