"""`optimize init --sample`: the tasks that ship with the package, copied here."""

from pathlib import Path

from agent.jobs.tasks import samples
from tests.cli.world import good, good_json, refused

TASKS = Path(__file__).resolve().parents[2] / "tasks"


def test_a_sample_is_copied_whole_and_loads() -> None:
    said = good("init", "--sample", "support_triage")
    assert (
        said
        == "wrote tasks/support_triage; look at tasks/support_triage/task.toml, then: optimize run support_triage\n"
    )
    copied = sorted(path.name for path in Path("tasks/support_triage").iterdir())
    assert copied == sorted(path.name for path in (TASKS / "support_triage").iterdir())
    for name in copied:
        assert (Path("tasks/support_triage") / name).read_bytes() == (TASKS / "support_triage" / name).read_bytes()
    assert sorted(path.name for path in Path("tasks").iterdir()) == ["support_triage", "task.schema.json"]
    assert [task["name"] for task in good_json("tasks")["tasks"]] == ["support_triage"]


def test_every_sample_loads() -> None:
    for name in samples():
        good("init", "--sample", name)
    assert [task["name"] for task in good_json("tasks")["tasks"] if not task["problem"]] == samples()


def test_nothing_is_written_over() -> None:
    Path("tasks/support_triage").mkdir(parents=True)
    (line,) = refused(2, "init", "--sample", "support_triage")
    assert "tasks/support_triage exists" in line
    assert not list(Path("tasks/support_triage").iterdir())


def test_an_unknown_sample_lists_those_there_are() -> None:
    (line,) = refused(2, "init", "--sample", "support_triag")
    assert "did you mean 'support_triage'?" in line
    assert "word_problems" in line
    assert not Path("tasks").exists()
    (line,) = refused(2, "init", "--sample", "../support_triage")
    assert "no sample of this name" in line


def test_a_task_that_is_not_here_but_is_a_sample_says_so() -> None:
    for command in (["run", "support_triage"], ["support_triage"]):
        (line,) = refused(2, *command)
        assert "`optimize init --sample support_triage` copies" in line


def test_a_sample_takes_nothing_of_your_own_and_your_own_needs_a_file() -> None:
    assert "give no NAME" in refused(2, "init", "mine", "--sample", "support_triage")[-1]
    assert "Missing argument 'NAME'" in refused(2, "init")[-1]
    assert "Missing option '--from'" in refused(2, "init", "mine")[-1]
