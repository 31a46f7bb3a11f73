"""`import promptassay`: light, typed and ours wherever it is typed, also next to a user's agent.py."""

import subprocess
import sys
from pathlib import Path

import pytest

import promptassay as pa

ROOT = Path(__file__).resolve().parents[2]
OPTIMIZE = Path(sys.executable).with_name("optimize")
STRANGER = 'raise RuntimeError("a stranger was imported")\n'


def ran(*command: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize(
    ("command", "stranger"),
    [([OPTIMIZE], "agent.py"), ([sys.executable, "-m", "promptassay"], "agent/__init__.py")],
    ids=["optimize", "python -m promptassay"],
)
def test_the_command_starts_in_a_folder_with_an_agent_of_the_users(command: list[str], stranger: str) -> None:
    Path(stranger).parent.mkdir(exist_ok=True)
    Path(stranger).write_text(STRANGER, "utf-8")
    assert ran(*command, "--version").stdout == f"optimize, version {pa.__version__}\n"
    assert "no ledger here yet" in ran(*command, "runs", code=2).stderr


@pytest.mark.parametrize("stranger", ["agent.py", "agent/__init__.py"])
def test_it_imports_beside_an_agent_of_the_users(stranger: str) -> None:
    """The path is left as it was, so that the user's other modules are found."""
    Path(stranger).parent.mkdir(exist_ok=True)
    Path(stranger).write_text(STRANGER, "utf-8")
    Path("own.py").write_text("ANSWER = 42\n", "utf-8")
    Path("script.py").write_text(
        "import sys\nbefore = list(sys.path)\nimport promptassay as pa\nimport own\n"
        "print(pa.load_task.__name__, pa.__name__, own.ANSWER, sys.path == before)\n",
        "utf-8",
    )
    assert ran(sys.executable, "script.py").stdout == "load_task promptassay 42 True\n"


def test_a_module_agent_that_was_imported_before_is_left_alone() -> None:
    """Python has one module of a name: it is said whose it is, and the user's own stays as it is."""
    Path("agent.py").write_text("NAME = 'mine'\n", "utf-8")
    Path("script.py").write_text(
        "import agent\ntry:\n    import promptassay\nexcept ImportError as error:\n    print(error)\n"
        "import agent as again\nprint(again.NAME)\n",
        "utf-8",
    )
    said, name = ran(sys.executable, "script.py").stdout.splitlines()
    assert said.startswith("promptassay needs the module name agent, and ")
    assert "agent.py has it" in said
    assert name == "mine"


def test_an_own_agent_that_is_hidden_is_told() -> None:
    Path("agent.py").write_text("NAME = 'mine'\n", "utf-8")
    Path("script.py").write_text(
        "import promptassay\ntry:\n    from agent import NAME\nexcept ImportError:\n    import agent\n"
        "    try:\n        agent.NAME\n    except AttributeError as error:\n        print(error)\n",
        "utf-8",
    )
    assert "is Promptassay's" in ran(sys.executable, "script.py").stdout


def test_the_public_names_are_sorted_documented_and_there() -> None:
    import agent

    for module in (pa, agent):
        assert module.__all__ == sorted(module.__all__)
        assert [name for name in module.__all__ if not getattr(module, name).__doc__] == []
    assert set(pa.__all__) <= set(dir(pa))
    with pytest.raises(AttributeError, match="module 'promptassay' has no attribute 'nothing'"):
        pa.nothing  # noqa: B018
