"""What a start may load: `import agent` and `optimize --help` stay free of everything heavy."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "openai", "anthropic", "dspy", "litellm", "langchain", "langchain_core", "langchain_openai", "langchain_anthropic",
    "langsmith", "optuna", "xllamacpp", "numpy", "scipy", "pydantic", "sqlite_utils", "rich", "httpx", "jsonschema",
    "rouge_score", "genai_prices", "asyncio", "sqlite3",
}  # fmt: skip
STARTS = {
    "import promptassay": {"agent"},
    "import agent": {
        "agent", "agent.errors", "agent.shipped", "agent.types", "agent.prompt",
        "agent.prompt.template",
        "agent.release", "agent.release.aliases", "agent.release.prompt_file", "agent.release.runtime",
        "agent.safe_data", "agent.safe_file", "agent.safe_text", "agent.task", "agent.task.checks",
        "agent.task.load", "agent.task.task_file", "agent.task.examples", "agent.task.splits",
    },
}  # fmt: skip
HELP = "from agent.cli import main; main(['--help'], standalone_mode=False)"
ALONE = "import agent.release.runtime"


@cache
def loaded(code: str) -> frozenset[str]:
    """The modules that `code` loads in a fresh process."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint('\\n' + ' '.join(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return frozenset(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("code", ["import agent", "import promptassay", HELP, ALONE])
def test_a_start_loads_nothing_heavy(code: str) -> None:
    found = {name.partition(".")[0] for name in loaded(code)}
    assert not found & HEAVY


def test_the_package_loads_only_the_modules_of_its_public_names() -> None:
    for code, wanted in STARTS.items():
        ours = {name for name in loaded(code) if name.partition(".")[0] == "agent"}
        assert ours <= wanted, sorted(ours - wanted)


@pytest.mark.parametrize("command", ["run", "runs"])
def test_the_help_of_a_command_computes_nothing(command: str) -> None:
    found = {name.partition(".")[0] for name in loaded(HELP.replace("['", f"['{command}', '"))}
    assert not found & {"numpy", "scipy", "langchain", "openai", "anthropic", "dspy", "optuna"}


def test_help_loads_no_command() -> None:
    ours = {name for name in loaded(HELP) if name.startswith("agent.cli")}
    assert ours == {"agent.cli"}
