"""Runs made through the program, as for the command line; every test in its own empty current folder."""

from tests.cli.conftest import here, made, two_runs

__all__ = ["here", "made", "two_runs"]
