"""The commands that are run for the snapshots: every command of the program at least once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.cli.text_world import COMMAND


@dataclass(frozen=True, slots=True)
class Case:
    """One run of a command, in a fresh copy of the recorded world.

    Args:
        words: What is typed after `optimize`; {NAME} is the id of a recorded run.
        keys: What is typed on stdin.
        screen: The width of the terminal that it writes to; 0: a pipe.
        before: Commands that are run first.
        files: What it writes and is shown.
    """

    words: str
    keys: str = ""
    screen: int = 0
    before: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def screens(words: str) -> tuple[Case, Case]:
    """A command on a terminal of 80 and of 120 columns."""
    return Case(words, screen=80), Case(words, screen=120)


def both(words: str) -> tuple[Case, Case]:
    """A command as text and as JSON."""
    return Case(words), Case(f"{words} --json")


DATA = "rows.csv --target label --prompt p.txt --price 1,2"
WITH_PICKS = ("messages", "langchain", "python")
WITHOUT_PICKS = ("anthropic", "dspy", "promptfoo", "prompty", "dotprompt", "mlflow", "llm")
ASKED = "--price 1,2 -q"
TEXT = f"AGENTS.md --rows rows.jsonl --eval '{COMMAND.replace('{', '{{').replace('}', '}}')}' --max-runs 200 -q"

CASES: Mapping[str, tuple[Case, ...]] = {
    "demo": (Case("demo -q --db runs/demo.db", screen=80),),
    "run": (
        *both(f"run {DATA} -m toy/learner --dry-run"),
        *both(f"run {DATA} -q -m toy/learner --max-calls 200 --tag team=blue"),
        *screens(f"run {DATA} -q -m toy/learner --max-calls 200 --tag team=blue"),
        Case(f"run {DATA} -q -m toy/stubborn --max-calls 100 --proposer none"),
        Case(f"run {DATA} -q -m toy/learner --max-calls 3"),
        Case(f"run {DATA} -q -m toy/learner --max-calls none"),
        Case(f"run {DATA} -q -m gpt-9"),
        Case("run rows.csv --target lable --prompt p.txt"),
        Case("run nowhere"),
        Case("run rows.csv --target label --prompt p.txt --margin 60"),
    ),
    "resume": (
        *both("resume -q --max-calls 200"),
        Case("resume {interrupted} -q --max-calls 10"),
        Case("resume {search}"),
        Case("resume {interrupted} -q -m toy/learner --fork"),
    ),
    "migrate": (
        Case(f"migrate {{search}} -m toy/knowing {ASKED} --dry-run"),
        *both(f"migrate {{search}} -m toy/knowing {ASKED} --max-calls 100 --margin 10"),
        Case(f"migrate rows@production -m toy/stubborn {ASKED} --max-calls 120"),
    ),
    "text": (
        *both(f"text {TEXT} --dry-run"),
        *both(f"text {TEXT} -o new.md"),
        Case(f"text {TEXT} --max-runs 40"),
        Case("text AGENTS.md --rows none.jsonl --eval 'no-such-program {{file}}'"),
    ),
    "transfer": both(f"transfer {{search}} --models toy/stubborn,toy/knowing --top 2 {ASKED}"),
    "batch": (),
    "batch list": (
        *both("batch list --all --db batch/ledger.db"),
        *screens("batch list --db batch/ledger.db"),
        Case("batch list"),
    ),
    "batch cancel": (
        *both("batch cancel {waiting} --db batch/ledger.db"),
        Case("batch cancel {batched} --db batch/ledger.db"), Case("batch cancel {search}")),
    "sweep": (*both("sweep small.toml --dry-run"), *both("sweep small.toml -q"), *screens("sweep small.toml -q")),
    "customize": (
        Case(f"customize {DATA} -q -m toy/learner --run {{search}} --arms best,retrieved,no-model --dry-run"),
        *both(f"customize {DATA} -q -m toy/learner --run {{search}} --arms best,retrieved,no-model"),
        *screens(f"customize {DATA} -q -m toy/learner --run {{search}} --arms best,retrieved,no-model"),
        Case(f"customize {DATA} -q -m toy/learner --arms lora"),
    ),
    "runs": (*both("runs"), *screens("runs"), Case("runs --db runs/none.db")),
    "show": (
        *both("show {search}"),
        *screens("show {search}"),
        *both("show {kept}"),
        *(Case(f"show {{{name}}}") for name in ("migrated", "calibrated", "matrix", "customized", "interrupted")),
        Case("show 2025"),
    ),
    "history": (
        *both("history {search}"),
        *screens("history {search}"),
        *both("history {search} --trial 1"),
        *both("history --search courier --limit 3"),
        Case("history {calibrated}"),
    ),
    "report": (
        *(Case(f"report {{{name}}} -o -") for name in ("search", "kept", "migrated", "customized")),
        Case("report {search} --json"),
        Case("report {interrupted}"),
    ),
    "compare": (
        *both("compare {search} {kept}"),
        *screens("compare {search} {first}"),
        Case("compare {search}:0 {search}:1"),
    ),
    "ui": (*both("ui --optuna {search}"), Case("ui --allow-calls --no-open")),
    "export": (
        Case("export {search}"),
        *(Case(f"export {{search}} --format {name}") for name in WITH_PICKS),
        *(Case(f"export {{kept}} --format {name}") for name in WITHOUT_PICKS),
        Case("export {search} --format anthropic"),
        Case("export {search} --format finetune-jsonl --json"),
        Case("export {kept} --json"),
        Case("export {search} --arm classic -o classic"),
        Case("export {search} --format tools"),
        Case("export {search} --format peft -o peft"),
        Case("export {search} --format llama-server -o server"),
        Case("export {interrupted}"),
    ),
    "promote": (
        *both("promote {search} --actor ann --alias staging"),
        Case("promote {kept} --actor ann"),
        *both("promote {kept} --actor ann --override --reason because"),
        Case("promote {customized} --actor ann"),
    ),
    "rollback": (*both("rollback rows --actor ann --reason worse"), Case("rollback nobody")),
    "load": (*both("load rows"), Case("load rows@ab --unit u1"), Case("load rows@nothing"), Case("load nobody")),
    "aliases": (*both("aliases"), *both("aliases rows"), *screens("aliases rows")),
    "apply": (
        Case(f"apply rows@production mail.csv -o out.csv {ASKED}", files=("out.csv",)),
        Case(f"apply {{search}} mail.csv -o out.jsonl {ASKED} --json", files=("out.jsonl",)),
        Case("apply rows@production p.txt -o out.csv"),
    ),
    "check": (
        *both(f"check rows@production {ASKED} --repeats 1"),
        *screens(f"check rows@production {ASKED} --repeats 1"),
        Case(f"check rows@production {ASKED} --repeats 1 -m toy/stubborn --markdown out.md --junit out.xml",
             files=("out.md", "out.xml")),
        *both("check rows@production --history"),
        *screens("check rows@production --history --page page.html"),
        Case("check {kept}"),
    ),
    "bless": (
        *both(f"bless rows@production --reason again --actor ann {ASKED} --limit 10"),
        Case("bless rows@production"),
    ),
    "monitor": (
        *both("monitor rows@production log.jsonl"),
        Case("monitor rows@production drifted.jsonl --reference log.jsonl"),
        Case("monitor rows@production rows.csv"),
    ),
    "ab": (),
    "ab report": (*both("ab report outcomes.jsonl"), Case("ab report log.jsonl")),
    "learn": (
        Case("learn tasks/rows corrected.jsonl --dry-run", before=("init rows --from rows.csv --target label",)),
        Case("learn tasks/rows corrected.jsonl --json", before=("init rows --from rows.csv --target label",)),
        Case("learn tasks/rows rows.csv", before=("init rows --from rows.csv --target label",)),
    ),
    "audit": (),
    "audit anchor": (Case("audit anchor"), Case("audit anchor -o p.txt")),
    "audit check": (*both("audit check {search}"), *screens("audit check {search}"), Case("audit check {kept}")),
    "audit erase": (
        *both("audit erase --containing courier --actor ann --reason asked --yes"),
        Case("audit erase --containing courier --actor ann --reason asked", keys="n\n"),
        Case("audit erase --actor ann --reason asked"),
    ),
    "audit export": (Case("audit export {search} --format zip -o out.zip"), Case("audit export -o out.jsonl")),
    "audit lineage": (*both("audit lineage {winner}"), Case("audit lineage c_0000")),
    "audit show": (*both("audit show {search}:1"), *both("audit show call:1"), Case("audit show {search}")),
    "audit verify": (
        *both("audit verify"),
        Case("audit verify --anchor 0000"),
        Case("audit verify --db other/ledger.db"),
    ),
    "ledger": (),
    "ledger merge": (
        *both("ledger merge runs/ledger.db other/ledger.db -o merged.db"),
        Case("runs --db merged.db", before=("ledger merge runs/ledger.db other/ledger.db -o merged.db",)),
        Case("ledger merge runs/ledger.db p.txt -o merged.db"),
    ),
    "ledger publish": (
        *both("ledger publish {search} --to sqlite:///new.db"),
        Case("ledger publish {other} --to sqlite:///team.db --db other/ledger.db"),
        Case("ledger publish {search} --to mysql://team/x"),
    ),
    "ledger verify": (
        *both("ledger verify {other} --from sqlite:///team.db"),
        Case("ledger verify {search} --from sqlite:///team.db"),
    ),
    "reproduce": (*both("reproduce {first}"), Case("reproduce {interrupted}")),
    "init": (
        Case("init rows --from rows.csv --target label --prompt p.txt",
             files=("tasks/rows/task.toml",)),
        *both("init --sample support_triage"),
        Case("init letters --describe 'Sort messages of customers.' --from tasks/mails/mails.txt -m toy/drafter "
             f"--labels billing,delivery,account,repair {ASKED}"),
        Case("init rows --from rows.csv"),
    ),
    "label": (
        Case("label mails --labeller ann --count 3", keys="1\n2\ns\n3\nq\n"),
        *both("label mails --status"),
        Case("label mails --ask"),
    ),
    "tasks": (*both("tasks"), Case("tasks tasks/mails"), Case("tasks mailz")),
    "metrics": (),
    "metrics list": both("metrics list"),
    "tools": (*both("tools tools.json"), Case("tools p.txt")),
    "models": (),
    "models list": both("models list"),
    "models fetch": (Case("models fetch nobody"),),
    "judge": (),
    "judge calibrate": (
        Case("judge calibrate --labels ratings.jsonl --input question --output answer --judge toy/judge --dry-run"),
        *both(
            "judge calibrate --labels ratings.jsonl --input question --output answer --judge toy/judge --repeats 2 "
            f"{ASKED}"
        ),
        Case("judge calibrate --labels ratings.jsonl --output anwser"),
    ),
    "judge tune": (
        Case("judge tune --labels rated.jsonl --input question --output answer --judge toy/judge --dry-run"),
        *both(
            "judge tune --labels rated.jsonl --input question --output answer --judge toy/judge --proposer none "
            f"--max-calls 700 {ASKED}"
        ),
        Case("judge tune --labels ratings.jsonl --output anwser"),
    ),
    "judge rate": (
        Case("judge rate {search} --rater ann --count 2", keys="5\n1\n"),
        Case("judge rate {calibrated} --rater ann"),
    ),
    "doctor": both("doctor"),
}  # fmt: skip
