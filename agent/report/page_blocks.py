"""Blocks for pages only: lines of links and badges, groups, forms, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from agent.report.blocks import Block, Surface


@dataclass(frozen=True, slots=True)
class LineBlock:
    """A paragraph of texts, links and badges with a class of web.css; `level`: a heading of this level."""

    kind: ClassVar = "line"
    parts: tuple[str, ...]
    look: str = ""
    level: int = 0
    on: Surface = "page"


@dataclass(frozen=True, slots=True)
class GroupBlock:
    """An element around several blocks; `details` is folded under its `title`, `label` names it for screen readers.

    `live`: the part that a running run updates.
    """

    kind: ClassVar = "group"
    blocks: tuple[Block, ...]
    tag: Literal["div", "article", "section", "details"] = "div"
    look: str = ""
    label: str = ""
    title: str = ""
    is_open: bool = False
    live: str = ""
    on: Surface = "page"


@dataclass(frozen=True, slots=True)
class FormField:
    """A field of a form; `more`: other attributes of its element, such as `size`."""

    name: str
    value: str = ""
    label: str = ""
    kind: Literal["text", "hidden", "select", "marks", "number", "lines"] = "text"
    choices: Sequence[str] = ()
    about: str = ""
    notes: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Button:
    """A submit button that sends `value` as `action`; `key`: its keyboard shortcut."""

    text: str
    value: str = ""
    key: str = ""
    is_main: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FormBlock:
    """A form. `blocks` are above its fields; `after`: links behind its buttons; `is_post`: it writes or calls."""

    kind: ClassVar = "form"
    action: str
    fields: tuple[FormField, ...] = ()
    buttons: tuple[Button, ...] = ()
    is_post: bool = False
    blocks: tuple[Block, ...] = ()
    after: tuple[str, ...] = ()
    look: str = "filters"
    on: Surface = "page"


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """Named figures; `live`: by name the key and format with which a running run updates it."""

    kind: ClassVar = "figures"
    figures: tuple[tuple[str, str], ...]
    live: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    look: str = "numbers"
    on: Surface = "page"


@dataclass(frozen=True, slots=True)
class ProgressBlock:
    """A progress bar. `url`: the progress of a running run, with its `figures`."""

    kind: ClassVar = "progress"
    done: int
    of: int
    label: str
    url: str = ""
    figures: FigureBlock | None = None
    parts: tuple[str, ...] = ()
    on: Surface = "page"


@dataclass(frozen=True, slots=True)
class TermsBlock:
    """Words and their meanings."""

    kind: ClassVar = "terms"
    words: Mapping[str, str]
    on: Surface = "page"
