"""A conversation as one text, and the text as messages again. Imports the standard library alone.

A row stores a conversation as a text: each message begins on a new line with `User: `, `Assistant: ` or `System: `, and
its further lines are indented by two spaces, so that no message can look like another one. Whatever reads, compares or
shows rows uses this text; a prompt sends it as messages. An export to Python embeds this file.

Only `turns_of` and `messages_of` parse this text, of rows that `as_text` wrote. A text from outside is one user
message.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

Speaker: TypeAlias = Literal["system", "user", "assistant"]
Turns: TypeAlias = list[tuple[Speaker, str]]
"""Messages as (role, content)."""
ROLES = ("system", "user", "assistant")
MOST_MESSAGES = 200
AS_TURNS = " as turns"
"""After an input's name in a template: the message with this mark stands for the messages of a conversation."""
QUERY_TURNS = 2
"""Last user messages by which rows and documents are compared."""
_TITLES: dict[str, Speaker] = {"System": "system", "User": "user", "Assistant": "assistant"}
_START = re.compile(rf"({'|'.join(_TITLES)}):(?: (.*))?")


def as_text(turns: Sequence[tuple[Speaker, str]]) -> str:
    r"""Join messages to a text, from which `turns_of` makes the same messages.

    >>> as_text([("user", "Two seats.\nBy the window."), ("assistant", "When?")])
    'User: Two seats.\n  By the window.\nAssistant: When?'
    """
    return "\n".join(f"{role.capitalize()}: " + content.replace("\n", "\n  ") for role, content in turns)


def turns_of(text: str) -> Turns:
    """Parse a text of `as_text` into messages; any other text is one user message.

    >>> turns_of("Hello")
    [('user', 'Hello')]
    """
    turns: list[tuple[Speaker, list[str]]] = []
    for line in text.split("\n"):
        if start := _START.fullmatch(line):
            turns.append((_TITLES[start[1]], [start[2] or ""]))
        elif turns and (not line or line.startswith("  ")):
            turns[-1][1].append(line[2:])
        else:
            return [("user", text)]
    return [(role, "\n".join(lines)) for role, lines in turns]


def messages_of(text: str) -> list[dict[str, str]] | str:
    """Parse a text of `as_text` into messages; one user message gives its content.

    >>> messages_of("User: Hello"), messages_of("User: Hello\\nAssistant: Hi")
    ('Hello', [{'role': 'user', 'content': 'Hello'}, {'role': 'assistant', 'content': 'Hi'}])
    """
    turns = turns_of(text)
    if [role for role, _ in turns] == ["user"]:
        return turns[0][1]
    return [{"role": role, "content": content} for role, content in turns]


def user_text(content: str) -> str:
    """Return a conversation text with the given text as its only user message."""
    return as_text([("user", content)])


def after(before: Sequence[tuple[Speaker, str]], text: str) -> Turns:
    """Append the messages of a conversation to those of a prompt; system messages are joined."""
    turns = turns_of(text)
    system = "\n\n".join(content for role, content in turns if role == "system")
    if not system:
        return [*before, *turns]
    head, rest = (before[0][1], before[1:]) if before and before[0][0] == "system" else ("", before)
    said = [turn for turn in turns if turn[0] != "system"]
    return [("system", f"{head}\n\n{system}" if head else system), *rest, *said]


def last_said(text: str) -> str:
    """Return the user's last messages, one per line: the text by which conversations are compared."""
    said = [content for role, content in turns_of(text) if role == "user"]
    return "\n".join(said[-QUERY_TURNS:])


def worked_turns(text: str) -> tuple[str, ...]:
    """Split an example's messages into turns, each from a user message on. A system message opens the first."""
    turns = after([], text)
    if turns[0][0] == "system":
        (_, system), (role, first), *turns = turns if len(turns) > 1 else [*turns, ("user", "")]
        turns = [(role, f"{system}\n\n{first}"), *turns]
    return tuple(content for _, content in turns)


def read_turns(value: Any) -> Turns:
    """Read the messages of a list of {"role", "content"}, or of a user's text. Raises ValueError."""
    if isinstance(value, str):
        turns, wrong = Turns([("user", value)]), list[str]()
    elif isinstance(value, list):
        turns = [(each["role"], each["content"]) for each in value if not _fault(each)]
        wrong = [f"message {number} {fault}" for number, each in enumerate(value, 1) if (fault := _fault(each))]
    else:
        raise ValueError('is no list of messages; write [{"role": "user", "content": "..."}, ...]')
    wrong += [f"message {number} is empty" for number, turn in enumerate(turns, 1) if not wrong and not turn[1].strip()]
    if not turns and not wrong:
        wrong.append('has no message; write {"role": "user", "content": "..."}')
    if len(turns) > MOST_MESSAGES:
        wrong.append(f"has {len(turns)} messages, at most {MOST_MESSAGES} are sent; leave the oldest out")
    if wrong:
        raise ValueError("; ".join(wrong))
    return turns


def _fault(message: Any) -> str:
    if not isinstance(message, dict):
        return 'is no object; write {"role": "user", "content": "..."}'
    if message.get("role") not in ROLES:
        return f"has the role {str(message.get('role'))[:40]!r}, not one of {', '.join(ROLES)}"
    if not isinstance(message.get("content"), str):
        return "has no text as content (pictures and tool calls are not carried)"
    more = [key for key, part in message.items() if key not in ("role", "content") and part not in (None, [], "")]
    return f"has {str(more[0])[:40]!r} in addition to role and content, which is not carried" if more else ""


def order_faults(turns: Sequence[tuple[Speaker, str]]) -> Iterator[str]:
    """Check the order of messages. The system is first, then user and assistant alternate, from user to user."""
    expected = "user"
    for number, (role, _) in enumerate(turns, 1):
        if role == "system" and number == 1:
            continue
        if role != expected:
            yield f"message {number} is the {role}'s where the {expected}'s comes; join or remove it"
            return
        expected = "assistant" if role == "user" else "user"
    if expected == "user":
        yield "ends with the assistant's message, or has none of the user; the user's comes last, the answer is scored"


def waiting_text(value: Any) -> str:
    """Return the text of messages that wait for an answer. Raises ValueError with all problems."""
    turns = read_turns(value)
    if wrong := list(order_faults(turns)):
        raise ValueError("; ".join(wrong))
    return as_text(turns)
