"""The operators of the proposer on the words of a prompt.

Sources: reflection over a minibatch of failures (GEPA, arXiv 2507.19457) and instructions with their scores (OPRO,
arXiv 2309.03409) for `whole`; hypotheses that are verified one by one (VISTA, arXiv 2603.18388) for `rule`. A model of
1.5B echoes a request for a whole instruction and answers one for a sentence, hence `definitions`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.programs.moves import asking
from agent.programs.moves.asking import Ask, Data, Draft, Question, Read, messages_about, one_sentence, replies_to
from agent.programs.moves.author import FAILURES, STYLES, read_proposal, whole_question
from agent.programs.moves.evidence import (
    PERFECT,
    Assembled,
    Evidence,
    InstructionPart,
    PartKind,
    Wrong,
    goal,
    inputs_of,
    labels_of,
    labels_of_task,
    line_of,
    listed,
    nouns,
    wrong_rows,
)
from agent.programs.moves.prompt_parts import held
from agent.prompt.prompt_candidate import as_prompt
from agent.prompt.techniques import form_sentence, reasons_first
from agent.prompt.template import escape
from agent.search.costs import PROPOSAL_TOKENS, SEVERAL, proposal_tokens
from agent.types import Completion, Task

# -- definitions: what the inputs of a label are about, a sentence for each label --------------------------------------

DEFINED_BY = 8  # rows of a label
AT_ONCE = 8  # labels of one proposal, at most
FIRST = 3  # labels that are asked for before the others; where none of them is answered, the others are not asked for


def undefined(evidence: Evidence) -> list[str]:
    """Return labels to define: undefined ones, most confused first; else the most confused."""
    labels, times = labels_of_task(evidence.task), evidence.confusions()
    mixed = {label: sum(n for pair, n in times.items() if label in pair) for label in labels}
    order = sorted(labels, key=lambda label: -mixed[label])
    if missing := [label for label in order if label not in evidence.history.definitions]:
        return missing[:AT_ONCE]
    return [label for label in order[:1] if mixed[label]]


async def definitions(evidence: Evidence, wanted: list[str], ask: Ask) -> list[Draft]:
    bought, made = evidence.history.definitions, list[InstructionPart]()

    async def define(labels: list[str], is_again: bool = False) -> None:
        known = [part.text for part in made]
        replies = await ask([_definition_question(evidence, label, known, is_again) for label in labels])
        new = [
            InstructionPart("definition", text, (label,))
            for label, texts in zip(labels, replies, strict=False)
            for text in texts
        ]
        for part in new:
            bought.setdefault(part.about[0], []).append(part)
        made.extend(new)

    await define(wanted[:FIRST], is_again=all(label in bought for label in wanted))
    if not made:
        return []
    await define(wanted[FIRST:])
    answered = {part.about[0] for part in made}
    await define([label for label in wanted if label not in answered], is_again=True)
    labels = [part.about[0] for part in made]
    named = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
    rows = [wrong.row.id for wrong in evidence.wrong() if str(wrong.row.labels[evidence.field]) in labels]
    old, rows_of = evidence.instruction(evidence.parent), tuple(rows[:DEFINED_BY])
    about = f"what the label says is not enough: a definition of {named}"
    drafts = [Draft(old.having(made), about, rows_of, alone=True)]
    if bare := goal(evidence.task, [parts[-1] for parts in bought.values()]):  # the user's words may be what is wrong
        drafts.append(Draft(bare, f"the user's words mislead: definitions without them, new for {named}", rows_of))
    return [draft for draft in drafts if draft.made != old]


def _definition_question(evidence: Evidence, label: str, others: Sequence[str], is_again: bool) -> Question:
    what, rows = nouns(evidence.task), Data(listed(evidence.rows_of(label, DEFINED_BY)))
    asked = f"what all these {what} have in common" if is_again else f"what these {what} are about"
    return one_sentence(
        "You describe texts.",
        [f"{what.capitalize()} of one kind:", rows, f"In one short sentence, say {asked}."],
        f"{what.capitalize()} about",
        evidence.task,
        lambda rest: f"{what} about {rest}",
        lambda text: asking.why_alike(text, others),
    )


# -- rule: a hypothesis for a cluster of failures, kept or dropped by a look at those rows -----------------------------

FEWEST_FAILURES, MOST_FAILURES = 2, 5
GUARDED = 4  # rows that were right


def failed(evidence: Evidence) -> list[Wrong]:
    if len(evidence.wrong()) < FEWEST_FAILURES:
        return []
    found = clusters(evidence)
    return found[evidence.asked.get("rule", 0) % len(found)]


async def rule(evidence: Evidence, cluster: list[Wrong], ask: Ask) -> list[Draft]:
    asked = "In one short sentence, give a rule that would lead to the right answers here and on others like them."
    lines = ["These were answered wrongly:", *(_failure(each, "answer") for each in cluster), asked]
    question = one_sentence("You find out why answers are wrong.", lines, "If", evidence.task, says_task=True)
    texts = await replies_to(ask, question)
    right = [
        o.example_id for o in evidence.best.outcomes if (o.value or 0.0) >= PERFECT and o.example_id in evidence.dev
    ]
    guard = tuple(evidence.drawn(right, GUARDED))
    answer = f" where {cluster[0].row.labels[evidence.field]} is right" if evidence.field else ""
    about = f"{len(cluster)} answers are wrong{answer}: a rule mends them"
    return [
        Draft(_having(evidence, "rule", text), about, _ids(cluster), guard, evidence.best, claim=text) for text in texts
    ]


def _having(evidence: Evidence, kind: PartKind, text: str, about: tuple[str, ...] = ()) -> Assembled:
    return evidence.instruction(evidence.best).having([InstructionPart(kind, text, about)])


def clusters(evidence: Evidence) -> list[list[Wrong]]:
    """Group the failures by right answer, largest first; one group if no answer repeats."""
    wrong = evidence.wrong()
    times = Counter(labels_of(each.row) for each in wrong)
    found = [
        [each for each in wrong if labels_of(each.row) == answer][:MOST_FAILURES]
        for answer, count in times.most_common()
        if count >= FEWEST_FAILURES
    ]
    return found or [wrong[:MOST_FAILURES]]


def _ids(wrong: Sequence[Wrong]) -> tuple[str, ...]:
    return tuple(each.row.id for each in wrong)


def _failure(wrong: Wrong, word: str) -> Data:
    said = f"{word}: {line_of(wrong.outcome.prediction.raw)}"
    return Data(f"{line_of(inputs_of(wrong.row))}\n{said}\nright answer: {line_of(labels_of(wrong.row))}")


# -- contrast: what tells two labels apart that the best candidate mixes up --------------------------------------------

CONTRASTED_BY = 6  # rows of each label


def mixed_pair(evidence: Evidence) -> tuple[str, str] | None:
    """Return the most confused pair of labels still open, the rarer answer first."""
    both, places = Counter[tuple[str, str]](), {name: at for at, name in enumerate(labels_of_task(evidence.task))}
    for pair, times in evidence.confusions().items():
        both[pair if places[pair[0]] < places[pair[1]] else pair[::-1]] += times
    known = {frozenset(part.about) for part in evidence.instruction(evidence.best).of("contrast")}
    return next((pair for pair, _ in both.most_common() if frozenset(pair) not in known), None)


async def contrast(evidence: Evidence, pair: tuple[str, str], ask: Ask) -> list[Draft]:
    one, two = (Data(listed(evidence.rows_of(label, CONTRASTED_BY))) for label in pair)
    what = nouns(evidence.task)
    question = one_sentence(  # does not name the labels, as a small model says the name again
        "You tell two kinds of texts apart.",
        [
            *(f"{what.capitalize()} of the first kind:", one),
            *(f"{what.capitalize()} of the second kind:", two),
            f"In one short sentence, say what the {what} of the first kind are about and those of the second are not.",
        ],
        "The first kind is about",
        evidence.task,
        lambda rest: rest,
    )
    texts = await replies_to(ask, question)
    rows = tuple(wrong.row.id for wrong in evidence.wrong() if set(evidence.labels(wrong)) == set(pair))
    about = f"{pair[0]} and {pair[1]} are mixed up ({len(rows)} rows): what tells them apart is said"
    return [
        Draft(
            _having(evidence, "contrast", _contrast(evidence.task, pair, text), pair),
            about,
            rows[:CONTRASTED_BY],
            parent=evidence.best,
            claim=text,
        )
        for text in texts
    ]


def _contrast(task: Task, pair: tuple[str, str], text: str) -> str:
    names = [each.name for each in task.signature.inputs]
    one, two = (escape(label, names) for label in pair)
    named = re.sub(r"\bthe second( kind)?\b", lambda _: two, re.sub(r"\bthe first( kind)?\b", lambda _: one, text))
    return f"{one} or {two}: {one} is about {named}"


# -- whole: a new instruction; several in one call of a proposer whose latest one passed the checks --------------------


async def whole(evidence: Evidence, found: bool, ask: Ask) -> list[Draft]:
    number, wrong = evidence.asked.get("whole", 0), [each.line for each in evidence.wrong()]
    several, style = SEVERAL if evidence.is_strong else 1, STYLES[number % len(STYLES)]
    start = FAILURES * number % max(1, len(wrong))
    batch = [*wrong[start:], *wrong[:start]][:FAILURES]
    texts = await replies_to(ask, whole_question(evidence.task, evidence.tried, batch, style, evidence.rng, several))
    return [Draft(Assembled(text), f"the proposer was asked: {style}", alone=True) for text in texts]


# -- form: how the answer is written, from replies that could not be read ----------------------------------------------

MOST_UNREAD = 4  # replies that are shown


def unread(evidence: Evidence) -> list[Wrong]:
    return [each for each in evidence.wrong() if each.outcome.prediction.error][:MOST_UNREAD]


async def form(evidence: Evidence, unread: list[Wrong], ask: Ask) -> list[Draft]:
    replies = [each.outcome.prediction for each in unread]
    question = one_sentence(
        "You say how an answer must be written.",
        [
            "These answers could not be read:",
            *(Data(f"{line_of(reply.raw)}\n({line_of(reply.error)})") for reply in replies),
            f"What is asked for: {form_sentence(evidence.task.signature)}",
            "In one short sentence, say how the answer must be written.",
        ],
        "Write",
        evidence.task,
        lambda rest: f"Write {rest}.",
    )
    about = f"replies cannot be read ({len(unread)} rows): the form of the answer is said"
    return [
        Draft(_having(evidence, "form", text), about, _ids(unread), parent=evidence.best)
        for text in await replies_to(ask, question)
    ]


# -- procedure: the steps of a solution, for a candidate that reasons before it answers --------------------------------

MOST_TRACES = 3  # failures that are shown
FEWEST_STEPS, MOST_STEPS = 2, 6


def traced(evidence: Evidence) -> list[Wrong]:
    if not reasons_first(as_prompt(evidence.parent.proposal.candidate)):
        return []
    outcomes = [o for o in evidence.parent.outcomes if o.value is not None and o.value < 0.5]
    wrong = wrong_rows(evidence.dev.values(), outcomes)
    return [each for each in wrong if len(each.outcome.prediction.raw.split()) > 3][:MOST_TRACES]


async def procedure(evidence: Evidence, failed: list[Wrong], ask: Ask) -> list[Draft]:
    asked, task = f"List {FEWEST_STEPS + 1} to {MOST_STEPS - 1} short steps that solve any such question", evidence.task
    messages = messages_about(
        "You write down how to solve a kind of question. You answer with a numbered list of short steps.",
        [
            "These were answered wrongly:",
            *(_failure(each, "reply") for each in failed),
            f"{asked}, without the numbers and names above.",
        ],
        "1.",
        [asking.task_line(task)],
    )

    def read(reply: Completion) -> Read:
        found = asking.steps(reply)[: -1 if reply.finish == "length" else None]
        if not FEWEST_STEPS <= len(found) <= MOST_STEPS:
            return (), f"{len(found)} steps, not {FEWEST_STEPS} to {MOST_STEPS}"
        refused = next(filter(None, (asking.why_part_refused(step, task, messages) for step in found)), "")
        return ["\n".join(f"{number}. {step}" for number, step in enumerate(found, 1))], refused

    texts = await replies_to(ask, Question(messages, read, PROPOSAL_TOKENS, asking.FREE))
    old, about = evidence.instruction(evidence.parent), "the reasoning goes astray: the steps of a solution are said"
    return [Draft(old.having([InstructionPart("procedure", text)]), about, _ids(failed)) for text in texts]


# -- merge: two good instructions, part by part; asks nobody, as the parts were bought before --------------------------

NOISE = 1.0  # points that a part may seem to cost


def pairs(evidence: Evidence) -> list[tuple[Assembled, Assembled]]:
    """Return the better and the other instruction of good candidates for a merge."""
    good = list(dict.fromkeys(evidence.instruction(parent) for parent in evidence.parents))
    known = {*evidence.history.instructions, *(one.text(evidence.task) for one in good)}
    pairs = [(one, two) for at, one in enumerate(good) for two in good[at + 1 :] if two.parts]
    return [(one, two) for one, two in pairs if merged(one, two, {}).text(evidence.task) not in known]


async def merge(evidence: Evidence, pairs: list[tuple[Assembled, Assembled]], ask: Ask) -> list[Draft]:
    one, two = evidence.rng.choice(pairs)
    made = merged(one, two, evidence.effects())
    taken = len([part for part in made.parts if part not in one.parts])
    left = len([part for part in one.parts if part not in made.parts])
    hypothesis = f"two good instructions add up: {taken} parts of the other one"
    return [Draft(made, hypothesis + (f", without {left} that cost points" if left else ""))]


def merged(one: Assembled, two: Assembled, effects: Mapping[str, float]) -> Assembled:
    """Join the words of `one` and the parts of both. Of two for the same labels the better one stays."""
    kept = Assembled(one.words)
    for part in sorted({*one.parts, *two.parts}, key=lambda part: (effects.get(part.text, 0.0), part.kind, part.text)):
        if part.kind == "definition" or effects.get(part.text, 0.0) > -NOISE:  # a definition also names its label
            kept = kept.having([part])
    return kept


# -- shorter: the words that an instruction begins with, said in fewer -------------------------------------------------

FEWEST_WORDS = 30  # of an instruction that is worth it
SHARE = 0.8  # of its letters, at most
AIMED_AT = 0.6  # of its words, in the request


def is_long(evidence: Evidence) -> bool:
    words = evidence.instruction(evidence.parent).words
    return len(words.split()) >= FEWEST_WORDS and len(words) <= asking.MAX_CHARACTERS


def shorter_question(old: str, task: Task, what: str = "instruction of a prompt") -> Question:
    keep = ", ".join(held(old, task))
    lines = [
        f"The {what}:",
        Data(old),
        f"Say the same in at most {int(AIMED_AT * len(old.split()))} words.{f' Keep these: {keep}.' if keep else ''}",
        "Put it between <instruction> and </instruction>.",
    ]
    system = f"You shorten the {what}. You answer with the instruction only."

    def read(reply: Completion) -> tuple[str, str]:
        text = read_proposal(reply.text)
        lost = asking.why_labels_lost(text, task, old)
        return text, asking.why_not_whole(reply) or asking.why_refused(text, task) or lost

    return asking.fewer_words(messages_about(system, lines), old, SHARE, read, proposal_tokens(task))


async def shorter(evidence: Evidence, found: bool, ask: Ask) -> list[Draft]:
    old, about = evidence.instruction(evidence.parent), "fewer words do as well: {} characters, not {}"
    return [
        Draft(replace(old, words=text), about.format(len(text), len(old.words)))
        for text in await replies_to(ask, shorter_question(old.words, evidence.task))
    ]
