"""Untrusted text inside a prompt: between marks that it cannot know, with what could steer a model made harmless. Pure.

The tag of the marks is a hash of everything that they hold, so whoever writes a row or a reply would have to put the
hash of a text into that text to close the fence from inside. It needs no dice: equal texts give equal prompts, which
the ledger serves again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

TAG_DIGITS = 16
_MARK = re.compile(r"(</?)(data-)", re.IGNORECASE)
_CONTROL_TOKEN = re.compile(
    r"<(?=\|[^<>|\n]{0,40}\|>)|<(?=/?(?:s|bos|eos|pad|start_of_turn|end_of_turn)>)|\[(?=/?INST\])|<(?=</?SYS>>)",
    re.IGNORECASE,
)
_HIDDEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ud800-\udfff"
    "\U000e0000-\U000e01ef]"
)
_GAP = "\u00b7"  # a middle dot: visible, and no tokenizer joins over it


@dataclass(frozen=True, slots=True)
class Fence:
    """Marks for the texts of one prompt."""

    tag: str

    @staticmethod
    def around(texts: Sequence[str]) -> Fence:
        """A fence for exactly these texts."""
        digest = hashlib.sha256()
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return Fence(f"data-{digest.hexdigest()[:TAG_DIGITS]}")

    def __call__(self, text: str) -> str:
        """`text` between the marks, defused."""
        return f"<{self.tag}>\n{defused(text)}\n</{self.tag}>"


def defused(text: str) -> str:
    """`text` without a mark of ours, chat-template token, control or invisible character; other texts as they are.

    A dot breaks marks and tokens; what cannot be seen is written as its code, so that nothing is hidden from a judge.
    Tab and line feed stay; a carriage return becomes a line feed.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _HIDDEN.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", text)
    text = _MARK.sub(rf"\1{_GAP}\2", text)
    return _CONTROL_TOKEN.sub(lambda found: f"{found[0]}{_GAP}", text)
