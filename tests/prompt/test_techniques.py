"""What the built-in words of a prompt ask for."""

from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import answers_last, reasons_first
from agent.types import Demo
from tests.cases import each_case

DEMO = Demo("t0", {"text": "a"}, {"team": "billing"})
LINES = ('Weigh every team, then write it on the last line, after "Answer:".', "Reply in the form **Answer: X**")


@each_case(
    "instruction",
    [
        "Think step by step.",
        "Work step-by-step, then give the team.",
        "First think about the tone, then answer.",
        "Think it through before you decide.",
        "Explain why in a sentence, then give the label.",
        *LINES,
    ],
)
def test_reasons_are_asked_for_in_many_words(instruction):
    asking = PromptCandidate("zero-shot", "turns", instruction)
    assert reasons_first(asking)
    assert answers_last(asking) == (instruction in LINES)
    shown = PromptCandidate("few-shot", "turns", instruction, "", (DEMO,))
    assert not reasons_first(shown), "answers of examples show that there are to be none"


@each_case(
    "instruction",
    [
        "Name the team.",
        "Do not explain why.",
        "Don't think about it too long: name the team.",
        "Find the reason of the contact: billing or returns.",
        "Text: {{text}}\nAnswer:",
        "Question: {{text}}\nFinal answer:",
        "Give your answer: yes or no",
    ],
)
def test_a_place_for_the_answer_asks_for_no_reasons(instruction):
    assert not reasons_first(PromptCandidate("zero-shot", "turns", instruction))
    assert answers_last(PromptCandidate("chain-of-thought", "turns", instruction))
