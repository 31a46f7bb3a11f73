"""Charts on our pages: one is drawn at a time, and without the style that the pages' policy refuses."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import TypeVar

from agent.report.blocks import PageSection
from agent.report.html import DrawnChart

T = TypeVar("T")

CHART = threading.Lock()
"""Held while a chart is drawn: matplotlib's settings are the whole process's."""


def without_style(svg: str) -> str:
    """An <svg> without its style element, which the policy of our pages refuses; web.css has the same rules."""
    return re.sub(r"<style[^<]*</style>", "", svg)


def bare_section(section: PageSection) -> PageSection:
    """A section without the style elements of its drawings."""
    return replace(section, blocks=tuple(map(bare, section.blocks)))


def bare(block: T) -> T:
    """A block, of a chart without the style element of its drawing."""
    from markupsafe import Markup

    if isinstance(block, DrawnChart):
        return replace(block, svg=Markup(without_style(block.svg)))
    return block
