"""Charts on our pages: one is drawn at a time, and without the style that the pages' policy refuses."""

from __future__ import annotations

import re
import threading

CHART = threading.Lock()
"""Held while a chart is drawn: matplotlib's settings are the whole process's."""


def without_style(svg: str) -> str:
    """An <svg> without its style element, which the policy of our pages refuses; web.css has the same rules."""
    return re.sub(r"<style[^<]*</style>", "", svg)
