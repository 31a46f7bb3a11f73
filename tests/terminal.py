"""A command on a real pseudo-terminal, and what a person sees there."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.warm import start_on_terminal

CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Terminal:
    """Lines of text under the controls that a live block uses: a cursor that goes up and back, and lines taken out.

    It grows downwards without an end, as with a scrollback. A control that it does not know is an error. `modes`: the
    local modes of the kernel's side (termios).
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]
        self.cursor_is_shown = True
        self.modes = 0
        self._row = self._column = 0
        self._rest = ""

    def write(self, text: str) -> None:
        """Takes what a program wrote; an escape sequence may come in pieces."""
        text = self._rest + text
        cut = text.rfind("\x1b")
        is_whole = cut < 0 or re.match(r"\x1b\[[?0-9;]*[A-Za-z]", text[cut:])
        text, self._rest = (text, "") if is_whole else (text[:cut], text[cut:])
        at = 0
        while at < len(text):
            found = CONTROL.match(text, at)
            assert found, repr(text[at : at + 20])
            at = found.end()
            self._do(*found.groups())

    def _do(self, number: str | None, control: str | None, move: str | None, text: str | None) -> None:
        if text is not None:
            for character in text:
                if self._column == self.columns:
                    self._down()
                    self._column = 0
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
                self._column += 1
        elif move == "\r":
            self._column = 0
        elif move == "\n":
            self._down()
        elif control == "A":
            self._row = max(0, self._row - int(number or 1))
        elif control == "K":
            assert number == "2", number
            self.lines[self._row] = ""
        elif control in ("h", "l"):
            assert number == "?25", number
            self.cursor_is_shown = control == "h"
        else:
            assert control == "m", (number, control)

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append("")

    def shown(self) -> list[str]:
        """The lines, without blanks at their ends and empty lines at the end."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip().split("\n")


@dataclass(frozen=True, slots=True)
class Session:
    """A command that has ended: its exit code, all that it wrote, the end of the screen, and each screen before."""

    code: int
    written: str
    terminal: Terminal
    screens: list[list[str]] = field(default_factory=list)


def on_terminal(
    arguments: Sequence[str],
    columns: int = 80,
    environment: Mapping[str, str] | None = None,
    keys: Callable[[Terminal], str] = lambda terminal: "",
) -> Session:
    """Runs `optimize` with these arguments on a separate terminal; `keys` says what is typed at each new screen."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = start_on_terminal(arguments, theirs, {**plain, "TERM": "xterm-256color", **(environment or {})})
    os.close(theirs)
    terminal, raw, screens, deadline = Terminal(columns), b"", list[list[str]](), time.monotonic() + 90
    decoded = 0
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other side was closed
                break
            raw += piece
            text = raw.decode("utf-8", "ignore")
            terminal.write(text[decoded:])
            decoded = len(text)
            screens.append(terminal.shown())
            terminal.modes = termios.tcgetattr(ours)[3]
            if typed := keys(terminal):
                os.write(ours, typed.encode())
        code = process.wait(timeout=20)
        terminal.modes = termios.tcgetattr(ours)[3]
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return Session(code, raw.decode("utf-8"), terminal, screens)
