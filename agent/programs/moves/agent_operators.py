"""The operators of the proposer on one text of a chain, a DSPy program or an agent, or on a text file.

Source: few bounded edits, and a memory of edits that did not help (SkillOpt, arXiv 2605.23904).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.programs.moves import asking
from agent.programs.moves.asking import Data, Question, Read, messages_about, one_sentence
from agent.programs.moves.author import STYLES, whole_reader
from agent.programs.moves.evidence import Tried, cut, line_of, words_of
from agent.programs.moves.operators import FEWEST_WORDS, shorter_question
from agent.programs.moves.prompt_parts import SENTENCE
from agent.search.costs import proposal_tokens
from agent.types import Completion, Task

HISTORY = 3  # tried texts, and changes without success, that are shown
MOST_EDITS = 4
MOST_SHOWN = 12_000  # letters of a text; of a longer one that part is shown, so that a few edits of it stay cheap
GAP = "[...]\n"
_PIECE = re.compile(r"(?s).{1,999}(?:\n|\Z)|.{1,1000}")


@dataclass(frozen=True, slots=True)
class TextKind:
    """How requests speak of a text. `begins`: the first words of a rule, in turn; `is_part`: of several texts."""

    what: str
    asked: str
    begins: tuple[str, ...]
    is_part: bool = True


KINDS = {
    "tool:": TextKind(
        "description of the tool {}", "say when this tool is called or how its arguments are written", ("Call it",)
    ),
    "skill:": TextKind("description of the skill {}", "say when this skill is used", ("Use it",)),
    "file:": TextKind("file {}", "give a rule that this file lacks", ("If", "Always"), is_part=False),
    "": TextKind("instruction {}", "give a rule that this instruction lacks", ("If", "Always")),
}  # by how the text's name begins


@dataclass(frozen=True, slots=True)
class TextToChange:
    """What an operator knows. `program`: what the text is of, such as "an agent".

    `failures`: rollouts that went wrong, `lost`: changes that did not help, in words. `number`: how often the operator
    was used. The task's instruction is the text.
    """

    task: Task
    program: str
    name: str
    failures: Sequence[str]
    lost: Sequence[str] = ()
    tried: Tried = ()
    number: int = 0

    @property
    def text(self) -> str:
        return self.task.instruction

    @property
    def kind(self) -> TextKind:
        return next(kind for prefix, kind in KINDS.items() if self.name.startswith(prefix))

    @property
    def what(self) -> str:
        return self.kind.what.format(line_of(self.name.rpartition(":")[2]))

    @property
    def of_program(self) -> str:
        return f" of {self.program}" if self.kind.is_part else ""

    @property
    def noun(self) -> str:
        return self.program.partition(" ")[2]

    def lines(self, *asked: str | Sequence[str]) -> list[str | Sequence[str]]:
        seen = excerpt(self.text, " ".join(self.failures), self.number)
        several = f"{self.program[0].upper()}{self.program[1:]} works with several texts. One is the {self.what}:"
        opening = several if self.kind.is_part else f"The {self.what} is {self.program}:"
        lines: list[str | Sequence[str]] = [opening, Data(seen)]
        lines += ["It is long, so this is the part of it that fits what follows."] * (seen != self.text)
        lines += [f"Here the {self.noun} went wrong:", *map(Data, self.failures)] if self.failures else []
        lost = [Data(each) for each in self.lost[-HISTORY:]]
        return [*lines, *(["Changes of this text that were tried without success:", *lost] if lost else []), *asked]


def excerpt(text: str, about: str, turn: int = 0) -> str:
    """Return the parts of a long text that share rare words with `about`. Others change with `turn`."""
    if len(text) <= MOST_SHOWN:
        return text
    pieces = _PIECE.findall(text)
    words, wanted = [frozenset(words_of(piece)) for piece in pieces], frozenset(words_of(about))
    common, shown = Counter(word for each in words for word in each), MOST_SHOWN // 1_000

    def order(at: int) -> tuple[float, int]:
        return -sum(1 / common[word] for word in wanted & words[at]), (at - turn * shown) % len(pieces)

    best = {0, *sorted(range(1, len(pieces)), key=order)[:shown]}
    return "".join(pieces[at] if at in best else GAP for at in range(len(pieces)) if at in best or at - 1 in best)


# -- rule: one sentence more -------------------------------------------------------------------------------------------


def rule(of: TextToChange) -> Question:
    begins = of.kind.begins[of.number % len(of.kind.begins)]
    asked = f"In one short sentence, {of.kind.asked}, so that the {of.noun} is right here and on others like them."

    def whole(rest: str) -> str:
        return with_sentence(of.text, f"{begins} {rest}")

    system = f"You find out why {of.program} goes wrong."
    return one_sentence(system, of.lines(asked), begins, of.task, whole, says_task=True)


def with_sentence(text: str, sentence: str) -> str:
    """Add a sentence, on its own line to a text of several lines.

    >>> with_sentence("Plan the work", "Always name the city")
    'Plan the work. Always name the city.'
    """
    text, sentence = text.rstrip(), sentence if sentence[-1:] in ".!?" else f"{sentence}."
    if "\n" in text or text[-1:] in "}>`":
        return f"{text}\n{sentence}".lstrip("\n")
    return f"{text}{'' if text[-1:] in '.!?:;' else '.'} {sentence}"


# -- edit: a few bounded edits -----------------------------------------------------------------------------------------

_EDIT = re.compile(r"[\s\d.)•*-]*+(REPLACE|ADD|DELETE)\**:\**(.+)", re.IGNORECASE)
_QUOTES = " \t\"'`“”‘’"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `old` by `new`. Without `old`, add; without `new`, delete."""

    old: str
    new: str

    def applied(self, text: str) -> str:
        """Return the changed text; the same one if `old` does not occur exactly once."""
        if not self.old:
            return with_sentence(text, self.new)
        before, found, after = text.partition(self.old)
        if not found or self.old in text[len(before) + 1 :]:
            return text
        return f"{before}{self.new}{after}" if self.new else f"{before.rstrip(' ')}{after}".lstrip()


def edits_in(reply: str, text: str) -> list[Edit]:
    """Read the lines of edits. Quotation marks that the text does not have are the reply's.

    >>> edits_in('1. REPLACE: "the town" -> "the city"\\nADD: Name the country.', "Name the town.")
    [Edit(old='the town', new='the city'), Edit(old='', new='Name the country.')]
    """
    edits = []
    for match in filter(None, map(_EDIT.fullmatch, reply.splitlines())):
        kind, words = match[1].upper(), match[2].strip()
        old, *new = words.split("->") if kind == "REPLACE" else ("", words) if kind == "ADD" else (words, "")
        if len(new) == 1 and (old.strip() or kind == "ADD"):
            edits.append(Edit(old.strip() if old.strip() in text else old.strip(_QUOTES), new[0].strip(_QUOTES)))
    return edits


def edit(of: TextToChange) -> Question:
    messages = messages_about(
        "You improve a text by a few small edits. You answer with the edits only, one on each line.",
        of.lines(
            f"Give at most {MOST_EDITS} edits of the {of.what}, so that the {of.noun} is right here and on others"
            " like them. The forms are:",
            "REPLACE: old words -> new words",
            "ADD: ...",
            "DELETE: old words",
            "The old words must stand in the text exactly as you write them.",
        ),
        before=[asking.task_line(of.task)],
    )

    def read(reply: Completion) -> Read:
        made, left = of.text, MOST_EDITS  # what small models add beyond these is left out
        for each in edits_in(reply.text, of.text):
            unfit = asking.why_unfit(each.new, asking.MOST_LETTERS) or asking.why_copied(each.new, of.task)
            if refused := unfit if each.old else asking.why_part_refused(each.new, of.task):
                return (), refused
            if (changed := each.applied(made)) != made:
                made, left = changed, left - 1
            if not left:
                break
        return [made], "" if made != of.text and made.strip() else "none of its edits applies"

    return Question(messages, read, MOST_EDITS * asking.SENTENCE_TOKENS, asking.FREE)


# -- whole: a new text -------------------------------------------------------------------------------------------------

WAYS = ("Say what to do in cases like these.", *STYLES[1:3])


def whole(of: TextToChange) -> Question:
    tried = [(f"{mean:.2f}: ", Data(cut(text, asking.MAX_CHARACTERS))) for text, mean in of.tried[-HISTORY:]]
    messages = messages_about(
        f"You improve a text{of.of_program}. You answer with the text only.",
        of.lines(
            "Texts that were tried in its place, with their scores from 0 to 1:",
            *tried,
            f"Write one better {of.what}. {WAYS[of.number % len(WAYS)]}",
            "Put it between <instruction> and </instruction>.",
        ),
        before=[asking.task_line(of.task)],
    )

    return Question(messages, whole_reader(of.task), proposal_tokens(of.task), asking.FREE)


def shorter(of: TextToChange) -> Question:
    return shorter_question(of.text, of.task, f"{of.what}{of.of_program}")


# -- all ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextOperator:
    """`about`: the change in our words; `fewest`, `most`: words and letters of a text; `may_gain`: mends failures."""

    name: str
    question: Callable[[TextToChange], Question]
    about: str
    fewest: int = 0
    most: float = float("inf")
    may_gain: bool = True

    def fits(self, text: str) -> bool:
        return len(text) <= self.most and len(text.split()) >= self.fewest


OPERATORS = (
    TextOperator("rule", rule, "a sentence more"),
    TextOperator("edit", edit, "a few edits"),
    TextOperator("whole", whole, "a new text", most=asking.MAX_CHARACTERS),
    TextOperator("shorter", shorter, "fewer words", FEWEST_WORDS, asking.MAX_CHARACTERS, may_gain=False),
)  # in the order in which each is tried for the first time


def difference(before: str, after: str) -> str:
    """Say in one line what changed: the new sentences, or else those that are gone.

    >>> difference("Plan. Be brief.", "Plan. Name the city.")
    'Name the city.'
    """
    old, new = dict.fromkeys(_sentences(before)), dict.fromkeys(_sentences(after))
    added, gone = [one for one in new if one not in old], [one for one in old if one not in new]
    return line_of(" ".join(added) if added else f"without: {' '.join(gone)}")


def _sentences(text: str) -> list[str]:
    return [each.strip() for line in text.splitlines() for each in SENTENCE.split(line) if each.strip()]
