"""`python -m promptassay` is the command `optimize`; its console script starts here as well."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from agent.cli import main as command

    command(prog_name="optimize")


if __name__ == "__main__":
    main()
