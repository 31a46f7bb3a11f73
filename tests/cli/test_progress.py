"""What progress says: its words, within the width that there is, whatever names and numbers come."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from agent.cli import progress
from agent.cli.progress_screen import block
from agent.cli.progress_view import (
    ENOUGH,
    LINE_WIDTH,
    STAGES,
    View,
    as_line,
    clock,
    count,
    job_view,
    search_view,
    seconds_left,
    sparkline,
    training_view,
    waiting,
)
from agent.gateway.budget import Account
from agent.gateway.in_flight import InFlight, in_flight
from agent.jobs.observers import Snapshot
from agent.ledger.resume_state import ResumeState
from agent.observer import TrainingProgress
from agent.search.plan import Plan
from agent.types import Budget, CallRole, Spend, Summary, Usage

PLAN = Plan(1100, 104, 160, 10, 8, (8, 26, 104), 3, 40)
HOSTILE = "[red]x[/red]\x1b[2J\x9b31m\n:smile:"
BUSY = InFlight(4, ("openai/x",), 12.4)


def account(calls: int = 0, budget: Budget | None = None, role: CallRole = "model", usd: float = 0.001) -> Account:
    made = Account(budget or Budget(), ResumeState(seconds=100.0))
    for _ in range(calls):
        made.charge(role, Spend(1, 500, usd))
        made.use(role, Usage(400, 100), usd, cached=False)
    return made


def snapshot(stage: str = "step 3", spent: Account | None = None, plan: Plan = PLAN) -> Snapshot:
    leader = Summary("c_12ab34cd56ef7890", "few-shot", "turns", "Sort it.", n_examples=16)
    best = (0.625, 0.541, 0.703)
    return Snapshot(stage, plan, spent or account(200), 9, 2, best, 1, 8, 3, leader, "c_base", 0.412)


def drawn(view: View, width: int, flying: InFlight = BUSY, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(block(view, flying, "*", width))
    return captured.get().rstrip("\n").split("\n")


def test_a_search_says_where_it_is_in_eight_lines_of_80() -> None:
    spent = account(200, Budget(max_calls=1200, max_cost=2.0))
    spent.charge("judge", Spend(12, 6000, 0.012))
    lines = drawn(search_view(snapshot(spent=spent)), 80)
    assert len(lines) == 8
    text = "\n".join(lines)
    assert lines[0].startswith("  stage 2 of 5: searching, round 3, 9 tried ")
    assert lines[0].rstrip().endswith("1:40 elapsed, at most 7:30 left")
    assert "200 of 1,100 calls, 0 cached, 1 retry" in lines[1]
    assert lines[2].strip() == "best 62.5 (95 % CI 54.1 to 70.3), baseline 41.2: few-shot, 16 examples, c_12ab"
    assert [line.split()[0] for line in lines[3:7]] == ["model", "proposer", "judge", "all"]
    assert lines[6].split() == ["all", "212", "of", "1,200", "calls", "106,000", "tokens", "$0.2120", "of", "$2.00"]
    assert lines[7].strip() == "* waiting for 4 replies of openai/x, the oldest 12 s"
    assert "…" not in text
    narrow = [" ".join(line.split()) for line in drawn(search_view(snapshot(spent=spent)), 40)]
    assert narrow[3] == "model 200 calls $0.2000", "calls and dollars stay where the table does not fit"


def test_each_stage_has_its_place_and_its_words() -> None:
    stages = {
        "baseline": (1, "your own prompt"),
        "designs": (2, "searching, round 3, 9 tried"),
        "dspy-mipro": (2, "searching (dspy-mipro), 9 tried"),
        "finalists": (3, "finalists on all of dev"),
        "attribution": (4, "what each part of the best adds"),
        "sealed test": (5, "sealed test"),
    }
    for stage, (place, title) in stages.items():
        view = search_view(snapshot(stage))
        assert (view.place, view.title) == (f"stage {place} of {len(STAGES)}", title)
        assert "…" not in drawn(view, 80)[0]
    assert search_view(snapshot("sealed test", plan=replace(PLAN, finalists=0))).place == "stage 2 of 2", "no search"


def test_before_a_score_there_is_none_and_the_own_prompt_is_called_so() -> None:
    none = replace(snapshot("baseline"), best=None, leader=None, baseline=None, trials=1)
    assert "best none yet: your own prompt is scored first" in "\n".join(drawn(search_view(none), 80))
    tried = replace(none, trials=15, baseline=0.125)
    said = "\n".join(drawn(search_view(tried), 100))
    assert f"none of 15 tried was scored on {PLAN.rungs[-2:][0]} dev rows yet; your own prompt 12.5" in said


def test_what_is_searched_has_its_name() -> None:
    texts = replace(snapshot("baseline"), best=None, leader=None, baseline=None, trials=1, noun="texts")
    said = "\n".join(drawn(search_view(texts), 100))
    assert "stage 1 of 5: your own texts" in said
    assert "best none yet: your own texts are scored first" in said
    assert "yet; your own texts 12.5" in "\n".join(drawn(search_view(replace(texts, trials=15, baseline=0.125)), 100))
    own = replace(snapshot(), baseline_id="c_12ab34cd56ef7890", noun="texts")
    assert "(95 % CI 54.1 to 70.3): your own texts" in "\n".join(drawn(search_view(own), 100))
    own = replace(snapshot(), baseline_id="c_12ab34cd56ef7890")
    assert "(95 % CI 54.1 to 70.3): your own prompt" in "\n".join(drawn(search_view(own), 80))


def test_a_migration_starts_from_the_released_prompt() -> None:
    begun = replace(snapshot("baseline"), best=None, leader=None, baseline=None, trials=1, is_migration=True)
    said = "\n".join(drawn(search_view(begun), 80))
    assert "stage 1 of 5: the released prompt" in said
    assert "best none yet: the released prompt is scored first" in said
    leads = replace(snapshot(), baseline_id="c_12ab34cd56ef7890", is_migration=True)
    said += "\n".join(drawn(search_view(leads), 80))
    assert "to 70.3): the released prompt" in said
    said += "\n".join(drawn(search_view(replace(snapshot(), is_migration=True)), 80))
    assert "to 70.3), released 41.2: few-shot" in said
    assert not re.search("baseline|your", said)


def test_the_time_left_is_told_when_it_can_be_and_never_past_the_limit() -> None:
    assert seconds_left(account(ENOUGH - 1), ENOUGH - 1, 100) is None
    assert "time left -" in drawn(search_view(snapshot(spent=account(3))), 80)[0]
    assert seconds_left(account(ENOUGH), ENOUGH, 2 * ENOUGH) == pytest.approx(100, abs=1)
    assert seconds_left(account(50, Budget(time_limit=130)), 50, 100) == pytest.approx(30, abs=1)
    cached = account(ENOUGH)
    for _ in range(84):
        cached.use("model", Usage(1, 1), 0.0, cached=True)
    assert seconds_left(cached, 100, 100 + ENOUGH) == pytest.approx(100, abs=1)  # what is cached takes no time


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_line_is_wider_than_the_terminal(encoding: str) -> None:
    spent = account(20, Budget(max_calls=10**9, max_tokens=10**12, max_cost=1e7), usd=12345.678)
    spent.charge("proposer", Spend(10**7, 10**11, 9e5))
    leader = Summary("c_" + "9" * 16, HOSTILE * 9, "turns", "x", n_examples=10**6)
    wide = replace(snapshot("s" * 300, spent), leader=leader, round=10**6, retries=10**9)
    flying = InFlight(10**6, (HOSTILE * 20, "b/" + "y" * 200), 1e6)
    for view in (search_view(wide), job_view(HOSTILE * 30, 10**9, 10**10, spent, 10**9)):
        for width in (1, 2, 5, 10, 20, 33, 40, 60, 79, 80, 81, 120, 200):
            lines = drawn(view, width, flying, encoding)
            assert len(lines) <= 8
            assert all(len(line) <= width for line in lines)
        assert all(len(as_line(view, each)) <= LINE_WIDTH for each in (flying, InFlight()))


def test_names_from_elsewhere_are_shown_and_not_obeyed() -> None:
    leader = Summary("c_1234567890", HOSTILE, "turns", "x", n_examples=1)
    view = search_view(replace(snapshot(), leader=leader, baseline=None))
    lines = drawn(view, 120, InFlight(1, (HOSTILE,), 3.0, outage=HOSTILE))
    assert "[red]x[/red]\\x1b[2J\\x9b31m :smile:, 1 example, c_1234" in lines[2]
    assert "no answer from [red]x[/red]\\x1b[2J\\x9b31m :smile:" in lines[-1]
    assert all(character.isprintable() for line in lines for character in line)


def test_a_line_is_short_and_leaves_out_what_does_not_fit() -> None:
    view = search_view(snapshot())
    assert as_line(view, InFlight()) == ("[1:40] searching, round 3, 9 tried: 200 of 1,100 calls, best 62.5, 7:30 left")
    first = replace(snapshot("baseline", account()), best=None)
    assert as_line(search_view(first), BUSY).endswith("0 of 1,100 calls, $0.0000, waiting 12 s")


TRAINING = TrainingProgress("lora", 2, 4, 30, 80, [2.0, 1.5, 1.0, 0.5], 62.0, 103.0)


def test_a_training_shows_its_steps_and_its_loss_in_the_place_of_calls() -> None:
    view = training_view(TRAINING, account())
    lines = drawn(view, 80)
    assert " ".join(lines[0].split()) == "epoch 2 of 4: training lora 1:02 elapsed, at most 1:43 left"
    assert lines[1].rstrip().endswith("30 of 80 steps")
    assert lines[2].strip() == "loss 1.250 █▆▃▁"
    assert as_line(view, InFlight()) == "[1:02] training lora: 30 of 80 steps, loss 1.250, 1:43 left, $0.0000"
    for width in (10, 30, 66):
        assert all(len(line) <= width for line in drawn(view, width))


def test_numbers_stay_short_and_a_curve_has_no_more_marks_than_columns() -> None:
    assert [clock(seconds) for seconds in (7.9, 754, 3723)] == ["0:07", "12:34", "1:02:03"]
    assert [count(n) for n in (0, 999_999, 1_234_567, 5 * 10**9)] == ["0", "999,999", "1.23 M", "5.00 G"]
    assert sparkline([3.0, 3.0], 5, "abc") == "aa"
    assert sparkline([float(n) for n in range(100)], 4, "0123") == "0123"
    assert sparkline([1.0], 1, "ab") == "a"


def test_what_a_run_waits_for_is_said() -> None:
    assert waiting(InFlight()) == "at work; no call in flight"
    assert waiting(InFlight(1, ("openai/x",), 3.2)) == "waiting for 1 reply of openai/x, 3 s"
    two = in_flight([("b/y@http://127.0.0.1/v1", 8.0), ("a/x", 10.0), ("a/x", 11.0)], 20.0, "")
    assert waiting(two) == "waiting for 3 replies of a/x, b/y, the oldest 12 s"


def test_dollars_that_are_not_all_known_are_called_so() -> None:
    spent = Account(Budget(), no_price=["x"])
    for role, usd, said in (("model", 0.0, "unknown price"), ("judge", 0.5, "over $0.5000")):
        spent.charge(role, Spend(1, 10, usd))  # type: ignore[arg-type]
        assert search_view(snapshot(spent=spent)).usd == said


def test_a_line_is_printed_at_each_stage_and_else_every_30_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress.Progress(quiet=False) as shown:
        for stage, seconds in (("baseline", 0), ("baseline", 29), ("designs", 0), ("step 1", 1), ("step 2", 28)):
            now[0] += seconds
            shown.on_snapshot(snapshot(stage))
        now[0] += 1
        shown.on_heartbeat(BUSY)
        shown.on_heartbeat(BUSY)
    lines = capsys.readouterr().err.splitlines()
    said = [line.split("] ")[1].split(":")[0] for line in lines]
    assert said == ["your own prompt", *["searching, round 3, 9 tried"] * 2]
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.JobProgress(False, "comparing the arms") as job:
        job.on_job_progress(0, 1050, account())
        job.on_training_progress(TRAINING)
        job.on_heartbeat(InFlight())
    lines = capsys.readouterr().err.splitlines()
    assert ["training lora: 30 of 80 steps" in line for line in lines] == [False, True, True], "no line of calls"
    with progress.Progress(quiet=True) as quiet:
        quiet.on_snapshot(snapshot())
        quiet.on_heartbeat(BUSY)
        quiet.on_message("a message")
        quiet.download(1, 1)
        quiet.warn("a \x1b[2J warning")
    assert capsys.readouterr().err == "a \\x1b[2J warning\n", "a quiet run shows warnings alone"
