"""The options of a command under headings, for its help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

WIDEST = 26
"""Columns that the names of an option take beside its help; longer ones stand in a line above it."""


class GroupedCommand(click.Command):
    """A command whose help has its options in groups.

    Args:
        groups: by heading the names of the options, in the order of the help; --help, which click adds, comes under
            the last heading.
    """

    def __init__(self, *args: Any, groups: Mapping[str, tuple[str, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        group_of = {name: heading for heading, names in self.groups.items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in self.groups}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                sections[group_of.get(str(option.name), list(self.groups)[-1])].append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{names:<{WIDEST}}", about) for names, about in records], col_max=WIDEST)
