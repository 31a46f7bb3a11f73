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

from agent.programs.moves.asking import (
    FREE,
    MAX_CHARACTERS,
    Ask,
    Data,
    Draft,
    Question,
    Read,
    fewer_words,
    messages_about,
    one_sentence,
    replies_to,
    steps,
    task_line,
    why_alike,
    why_labels_lost,
    why_not_whole,
    why_part_refused,
    why_refused,
)
from agent.programs.moves.author import FAILURES, STYLES, read_proposal, whole_question
from agent.programs.moves.evidence import (
    Assembled,
    Evidence,
    InstructionPart,
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
    labels, bought = labels_of_task(evidence.task), evidence.history.definitions
    times = evidence.confusions()
    mixed = {label: sum(n for pair, n in times.items() if label in pair) for label in labels}
    order = sorted(labels, key=lambda label: -mixed[label])
    if missing := [label for label in order if label not in bought]:
        return missing[:AT_ONCE]
    return [label for label in order[:1] if mixed[label]]


async def definitions(evidence: Evidence, wanted: list[str], ask: Ask) -> list[Draft]:
    """Ask for definitions, and once again for a label with an unusable reply."""
    is_again = all(label in evidence.history.definitions for label in wanted)
    made = await _defined(evidence, wanted[:FIRST], ask, [], is_again)
    if not made:
        return []
    made += await _defined(evidence, wanted[FIRST:], ask, made)
    answered = {part.about[0] for part in made}
    made += await _defined(evidence, [label for label in wanted if label not in answered], ask, made, is_again=True)
    labels = [part.about[0] for part in made]
    named = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
    latest = [parts[-1] for parts in evidence.history.definitions.values()]
    rows = [wrong.row.id for wrong in evidence.wrong() if str(wrong.row.labels[evidence.field]) in labels]
    old, rows_of = evidence.instruction(evidence.parent), tuple(rows[:DEFINED_BY])
    about = f"what the label says is not enough: a definition of {named}"
    drafts = [Draft(old.having(made), about, rows_of, alone=True)]
    if bare := goal(evidence.task, latest):  # the user's words may be what is wrong
        drafts.append(Draft(bare, f"the user's words mislead: definitions without them, new for {named}", rows_of))
    return [draft for draft in drafts if draft.made != old]


async def _defined(
    evidence: Evidence, labels: Sequence[str], ask: Ask, others: Sequence[InstructionPart], is_again: bool = False
) -> list[InstructionPart]:
    known = [part.text for part in others]
    questions = [_definition_question(evidence, label, known, is_again) for label in labels]
    made = []
    for label, texts in zip(labels, await ask(questions), strict=False):
        made += [InstructionPart("definition", text, (label,)) for text in texts]
        if texts:
            evidence.history.definitions.setdefault(label, []).extend(made[-len(texts) :])
    return made


def _definition_question(evidence: Evidence, label: str, others: Sequence[str], is_again: bool) -> Question:
    what, rows = nouns(evidence.task), Data(listed(evidence.rows_of(label, DEFINED_BY)))
    asked = f"what all these {what} have in common" if is_again else f"what these {what} are about"
    return one_sentence(
        "You describe texts.",
        [f"{what.capitalize()} of one kind:", rows, f"In one short sentence, say {asked}."],
        f"{what.capitalize()} about",
        evidence.task,
        lambda rest: f"{what} about {rest}",
        lambda text: why_alike(text, others),
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
    guard = tuple(evidence.drawn(evidence.right(), GUARDED))
    answer = f" where {cluster[0].row.labels[evidence.field]} is right" if evidence.field else ""
    old, hypothesis = (
        evidence.instruction(evidence.best),
        f"{len(cluster)} answers are wrong{answer}: a rule mends them",
    )
    drafts = [
        Draft(old.having([InstructionPart("rule", text)]), hypothesis, _ids(cluster), claim=text) for text in texts
    ]
    return [replace(draft, guard=guard, parent=evidence.best) for draft in drafts]


def clusters(evidence: Evidence) -> list[list[Wrong]]:
    """Group the failures by right answer, largest first; one group without repeated answers."""
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
    """Return the most confused pair that was not asked for yet."""
    known = {frozenset(part.about) for part in evidence.instruction(evidence.best).of("contrast")}
    return next((pair for pair in evidence.mixed_pairs() if frozenset(pair) not in known), None)


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
    old = evidence.instruction(evidence.best)
    rows = [wrong.row.id for wrong in evidence.wrong() if set(evidence.labels(wrong)) == set(pair)]
    hypothesis = f"{pair[0]} and {pair[1]} are mixed up ({len(rows)} rows): what tells them apart is said"
    made = [(old.having([_contrast_part(evidence.task, pair, text)]), text) for text in texts]
    shown = tuple(rows[:CONTRASTED_BY])
    return [Draft(each, hypothesis, shown, parent=evidence.best, claim=text) for each, text in made]


def _contrast_part(task: Task, pair: tuple[str, str], text: str) -> InstructionPart:
    names = [each.name for each in task.signature.inputs]
    one, two = (escape(label, names) for label in pair)
    named = re.sub(r"\bthe second( kind)?\b", lambda _: two, re.sub(r"\bthe first( kind)?\b", lambda _: one, text))
    return InstructionPart("contrast", f"{one} or {two}: {one} is about {named}", pair)


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
    old = evidence.instruction(evidence.best)
    hypothesis = f"replies cannot be read ({len(unread)} rows): the form of the answer is said"
    made = [old.having([InstructionPart("form", text)]) for text in await replies_to(ask, question)]
    return [Draft(each, hypothesis, _ids(unread), parent=evidence.best) for each in made]


# -- procedure: the steps of a solution, for a candidate that reasons before it answers --------------------------------

MOST_TRACES = 3  # failures that are shown
FEWEST_STEPS, MOST_STEPS = 2, 6


def traced(evidence: Evidence) -> list[Wrong]:
    """Return wrong rows of a parent that reasons, with its reasoning."""
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
        [task_line(task)],
    )

    def read(reply: Completion) -> Read:
        found = steps(reply)[: -1 if reply.finish == "length" else None]
        if not FEWEST_STEPS <= len(found) <= MOST_STEPS:
            return (), f"{len(found)} steps, not {FEWEST_STEPS} to {MOST_STEPS}"
        refused = next(filter(None, (why_part_refused(step, task, messages) for step in found)), "")
        text = "\n".join(f"{number}. {step}" for number, step in enumerate(found, 1))
        return ((), refused) if refused else ((text,), "")

    texts = await replies_to(ask, Question(messages, read, PROPOSAL_TOKENS, FREE))
    old, hypothesis = (
        evidence.instruction(evidence.parent),
        "the reasoning goes astray: the steps of a solution are said",
    )
    return [Draft(old.having([InstructionPart("procedure", text)]), hypothesis, _ids(failed)) for text in texts]


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
    """Join the words of `one` and the parts of both.

    Of two parts for the same labels the one with the larger effect in points (0 if unknown) stays; a rule or contrast
    with an estimated effect below -`NOISE` is dropped.
    """
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
    return len(words.split()) >= FEWEST_WORDS and len(words) <= MAX_CHARACTERS


async def shorter(evidence: Evidence, found: bool, ask: Ask) -> list[Draft]:
    task, old = evidence.task, evidence.instruction(evidence.parent)
    keep = ", ".join(held(old.words, task))
    lines = [
        "The instruction of a prompt:",
        Data(old.words),
        f"Say the same in at most {int(AIMED_AT * len(old.words.split()))} words."
        f"{f' Keep these: {keep}.' if keep else ''}",
        "Put it between <instruction> and </instruction>.",
    ]
    system = "You shorten the instruction of a prompt. You answer with the instruction only."

    def read(reply: Completion) -> tuple[str, str]:
        text = read_proposal(reply.text)
        return text, why_not_whole(reply) or why_refused(text, task) or why_labels_lost(text, task, old.words)

    question = fewer_words(messages_about(system, lines), old.words, SHARE, read, proposal_tokens(task))
    texts = await replies_to(ask, question)
    about = "fewer words do as well: {} characters, not {}"
    return [Draft(replace(old, words=text), about.format(len(text), len(old.words))) for text in texts]
