"""What is printed has the sign that a re-run without the part has, or no sign at all."""

from __future__ import annotations

import pytest

from agent.programs.moves.prompt_parts import features_of, leave_one_out
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import why_rejected
from agent.search.explanation import attribution as attributed
from agent.types import Demo, SearchSpace
from tests.search.analysis.test_effects import ROWS, World, observe
from tests.toys import make_task

TASK = make_task(12, space=SearchSpace(("zero-shot", "few-shot"), ("turns", "inline"), (3,)))
DEMOS = tuple(Demo(row.id, row.inputs, row.labels, "Because.", "target") for row in TASK.train[:3])
BASE = PromptCandidate("zero-shot", "turns", "Answer with one team.")
FULL = PromptCandidate("few-shot-cot", "inline", "Which team is it?", "You are R.", DEMOS)


def attribution(winner, ablations, table, **options):
    return attributed(winner, ablations, table, features_of, **options)


def test_each_part_that_differs_is_taken_out_once_and_alone():
    parts = {ablation.part: ablation.candidate for ablation in leave_one_out(FULL, BASE)}
    assert set(parts) == {"instruction", "examples", "technique", "format", "role"}
    assert parts["instruction"] == PromptCandidate("few-shot-cot", "inline", BASE.instruction, "You are R.", DEMOS)
    assert parts["examples"] == PromptCandidate("chain-of-thought", "inline", FULL.instruction, "You are R.")
    assert parts["format"].format == "turns"
    assert parts["role"].role == ""
    plain = parts["technique"]
    assert plain.technique == "few-shot"
    assert [d.example_id for d in plain.demos] == [d.example_id for d in DEMOS]
    assert all((d.rationale, d.source) == ("", "label") for d in plain.demos)
    for candidate in parts.values():
        assert why_rejected(candidate, TASK) == ""
    assert leave_one_out(BASE, BASE) == []


def test_demos_and_the_technique_that_needs_them_are_one_part():
    winner = PromptCandidate("few-shot", "turns", BASE.instruction, "", DEMOS)
    (only,) = leave_one_out(winner, BASE)
    assert (only.part, only.candidate) == ("examples", BASE)


def table(**scores):
    """Observations of FULL and of its ablations: `part=[...]`."""
    parts = {ablation.part: ablation.candidate for ablation in leave_one_out(FULL, BASE)}
    return [observe(FULL if part == "full" else parts[part], values) for part, values in scores.items()]


def test_a_part_that_was_taken_out_on_the_same_rows_is_measured():
    won, lost = [1.0] * 60, [0.0] * 30 + [1.0] * 30
    found = {
        c.part: c
        for c in attribution(
            FULL, leave_one_out(FULL, BASE), table(full=won, examples=lost, instruction=won, format=lost[:40])
        )
    }
    demos, same = found["examples"], found["instruction"]
    assert (demos.how, demos.points, demos.rows) == ("measured", 50.0, 60)
    assert 0 < demos.ci95[0] < 50 < demos.ci95[1]
    assert (same.how, same.points) == ("unknown", 0.0)
    assert found["format"].rows == 0  # it did not see all of the winner's rows
    assert found["role"].how == "unknown"
    assert set(demos.to_json()) == {"part", "points", "ci95", "how", "rows"}


def test_what_choosing_the_winner_adds_takes_the_sign_from_a_small_gain_only():
    won, close, far = [1.0] * 60, [0.0] * 7 + [1.0] * 53, [0.0] * 40 + [1.0] * 20
    seen = table(full=won, examples=far, instruction=close)
    plain = {c.part: c.how for c in attribution(FULL, leave_one_out(FULL, BASE), seen)}
    humble = {c.part: c.how for c in attribution(FULL, leave_one_out(FULL, BASE), seen, optimism=0.08)}
    assert (plain["examples"], plain["instruction"]) == ("measured", "measured")
    assert (humble["examples"], humble["instruction"]) == ("measured", "unknown")


def test_a_sign_that_is_given_is_the_sign_of_the_re_run():
    """Nothing but the winner's own rows and the run's other candidates are known; the truth is the planted level."""
    told, right, covered, parts = 0, 0, 0, 0
    for seed in range(20):
        world = World(seed)
        truth = {
            ablation.part: 100 * (world.level(world.winner) - world.level(ablation.candidate))
            for ablation in leave_one_out(world.winner, world.baseline)
        }
        for carried in attribution(world.winner, leave_one_out(world.winner, world.baseline), world.table):
            low, high = carried.ci95
            parts += 1
            covered += low <= truth[carried.part] <= high
            if carried.how != "unknown":
                told += 1
                right += (carried.points > 0) == (truth[carried.part] > 0)
    assert told >= 12
    assert right >= 0.95 * told
    assert covered >= 0.88 * parts


def test_a_re_run_of_every_part_on_the_winners_rows_agrees_with_what_was_measured():
    for seed in range(10):
        world = World(seed)
        seen = {scored.candidate_id: scored for scored in world.table}
        reruns = {}
        for ablation in leave_one_out(world.winner, world.baseline):
            scored = world.see(ablation.candidate, ROWS)
            seen[ablation.candidate.id] = reruns[ablation.part] = scored
        won = sum(seen[world.winner.id].values) / ROWS
        for carried in attribution(
            world.winner, leave_one_out(world.winner, world.baseline), list(seen.values()), optimism=0.02
        ):
            assert carried.rows == ROWS
            assert carried.points == pytest.approx(100 * (won - sum(reruns[carried.part].values) / ROWS), abs=0.006)
            assert carried.ci95[0] <= carried.points <= carried.ci95[1]
            if carried.how == "measured":
                assert carried.ci95[0] > 0 or carried.ci95[1] < 0
