"""`optimize init --describe` and `optimize label`: from a sentence and rows without labels to a released prompt."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.jobs import label as label_answers
from agent.jobs.label import _add_rows, keys_of
from agent.options.shared import FormOptions
from agent.release.runtime import load_prompt
from agent.safe_file import locked
from agent.task.label_files import LabelledTask, rows_text, unlabelled_rows
from agent.task.label_session import LabelSession
from tests.cli.label_world import (
    DESCRIPTION,
    MEANINGS,
    drafted,
    drafter,
    keys,
    topic_of,
    write_label_task,
    write_unlabelled,
)
from tests.cli.world import TOPICS, compatible, good, good_json, refused
from tests.terminal import Terminal, on_terminal
from tests.wire import WireServer

FOLDER = Path("tasks/mails")
LABELS = FOLDER / "labels.jsonl"
DB = Path("runs/ledger.db")
KEYS = keys_of(list(TOPICS))


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


def labelled(labeller: str, typed: str, *more: str) -> str:
    """What `optimize label` prints where these keys come over a pipe."""
    result = CliRunner().invoke(main, ["label", "mails", "--labeller", labeller, *more], input=typed)
    assert result.exit_code == 0, result.output
    return result.output


class Person:
    """Presses the key of the right topic for each row that comes, `count` times, and then `q`."""

    def __init__(self, count: int) -> None:
        self.left, self.seen = count, 0

    def __call__(self, terminal: Terminal) -> str:
        screen = "\n".join(terminal.shown())
        asked = screen.count("s skip  u undo  ? help")
        if asked == self.seen or not screen.rstrip().endswith("? help"):
            return ""
        self.seen = asked
        if not self.left:
            return "q"
        self.left -= 1
        return keys(KEYS, screen)


def test_from_a_sentence_and_sixty_rows_to_a_released_prompt_with_forty_keys() -> None:
    with WireServer(drafter) as server:
        said = drafted(server)
        assert "labels, from the description:" in said
        assert "at least" not in said
        assert "unusable replies: 1 (repeats" in said
        task = LabelledTask(FOLDER)
        assert task.definitions == MEANINGS
        assert "not written yet; `optimize label mails`" in refused(2, "run", "mails", "-n", "1")[0]
        done = on_terminal(["label", "mails", "--labeller", "ann", "--db", "runs/ledger.db"], 200, keys=Person(40))
        assert done.code == 0, done.terminal.shown()[-5:]
        assert "40 of 60 rows are labelled" in done.written
        made = {split: rows(f"{split}.jsonl") for split in ("train", "dev", "test")}
        assert sum(map(len, made.values())) == 40
        assert min(map(len, made.values())) >= 8
        assert all(row["label"] == topic_of(row["text"]) for split in made.values() for row in split)
        assert all(len({row["label"] for row in split}) == 4 for split in made.values())
        result = good_json("run", "mails", "-m", compatible(server), "--price", "1,2", "-q", "-n", "1")
    prompt = load_prompt(result["release"])
    assert prompt.release.inputs == ("text",)
    assert result["winner"]["test"] >= result["baseline"]["test"]


def label_all(count: int, labeller: str = "ann") -> None:
    """Label a number of rows, as a person does."""
    session = LabelSession(LabelledTask(FOLDER), labeller, overlap=0)
    for _ in range(count):
        shown = session.next(session.task.log.events())
        assert shown is not None
        session.label(shown.row.id, topic_of(shown.row.text), shown.chosen)


class Crowd:
    """Answers as `drafter`; after `met.clear()` it waits until more calls are in flight than those of one row."""

    def __init__(self) -> None:
        self.now, self.met, self._lock = 0, Event(), Lock()
        self.met.set()

    def __call__(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        with self._lock:
            self.now += 1
            if self.now > label_answers.MOST_PROMPTS:
                self.met.set()
        self.met.wait(1)
        with self._lock:
            self.now -= 1
        return drafter(messages, body)


def test_an_undecided_run_says_which_rows_to_label_and_prompts_say_where_they_disagree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows are asked side by side, and where the budget ends whole rows are kept in order."""
    write_label_task(FOLDER)
    label_all(30)
    crowd, priced = Crowd(), ("--price", "1,2", "-q")
    with WireServer(crowd) as server:
        text = good("run", "mails", "-m", compatible(server), *priced, "-n", "1")
        assert "label the 20 rows that help most" in text
        assert "optimize label mails --count 20" in text
        good("run", "mails", "-m", compatible(server), *priced, "--max-calls", "150", "--no-retrieval")
        crowd.met.clear()
        monkeypatch.setattr(label_answers, "AT_ONCE", 6)
        order = [row.id for row in label_answers._rows(LabelledTask(FOLDER), 30)]
        assert "get different answers from" in labelled("ann", "", "--ask", "--max-cost", "0.004", *priced)
        part = good_json("runs")["runs"][0]["result"]
        assert (part["kind"], part["status"]) == ("label_answers", "budget")
        assert 0 < len(part["answers"]) < 30
        assert list(part["answers"]) == [row for row in order if row in part["answers"]]
        assert crowd.met.is_set()
        labelled("ann", "", "--ask", "--max-cost", "1", *priced)
        whole = good_json("runs")["runs"][0]["result"]
        labelled("ann", "", "--ask", "--max-calls", "9", *priced)
        assert len(good_json("runs")["runs"][0]["result"]["answers"]) == 3
        known = {row: list(given) for row, given in label_answers.answers_of(LabelledTask(FOLDER), DB).items()}
        assert known == whole["answers"], "a smaller ask takes none away"
    assert (whole["status"], list(whole["answers"])) == ("complete", order)
    assert {row: whole["answers"][row] for row in part["answers"]} == part["answers"]
    assert whole["calls"]["cached"] >= part["prompts"] * len(part["answers"])
    apart = {row for row, given in whole["answers"].items() if len(set(given)) > 1}
    first = good_json("label", "mails")["next_rows"][0]
    assert first["row"] in apart, "the learner answers without and with examples differently"
    assert first["why"].startswith("prompts answer it differently")


def test_the_last_label_can_be_taken_back_and_rows_that_were_skipped_are_said() -> None:
    write_label_task(FOLDER, 3)
    said = labelled("ann", "1s2" + "1" + "u3" + "q")
    assert said.count("no row is left but 1 that you skipped\nu undo  q end") == 2
    assert "'1' is no key here" in said
    assert [event.label for event in LabelledTask(FOLDER).log.events()] == ["billing", "delivery", None, "account"]
    assert "\nno row is left\n" in labelled("ann", "4")


def test_more_labels_than_there_are_keys_are_refused() -> None:
    write_label_task(FOLDER, 3)
    toml = FOLDER / "task.toml"
    toml.write_text(toml.read_text("utf-8").replace('"billing"', ", ".join(f'"l{n}"' for n in range(53))), "utf-8")
    assert "56 labels, but only 55 keys" in refused(2, "label", "mails")[0]
    assert "0 of 3 rows" in good("label", "mails", "--status")
    assert len(keys_of([f"l{n}" for n in range(55)])) == 55


@pytest.mark.parametrize("other", [("--count", "1"), ("--status",), ("--json",)])
def test_what_the_browser_does_not_heed_is_refused(other: tuple[str, ...]) -> None:
    assert f"without {other[0]}; leave one" in "\n".join(refused(2, "label", "mails", "--web", *other))


def test_two_labellers_agree_or_see_the_row_again() -> None:
    write_label_task(FOLDER)
    labelled("ann", "1234" * 3, "--count", "12")
    said = labelled("ben", "1234" * 2 + "42", "--count", "10")
    assert said.count("another labeller has labelled it, too") == 10
    assert "agreement of ann and ben on 10 rows: Cohen's kappa 0." in said
    assert "90 % the same" in said
    again = labelled("ann", "4", "--count", "1")
    assert "you said billing" in again
    assert "ben says repair" in again
    assert "100 % the same" in again
    task = LabelledTask(FOLDER)
    assert task.status(task.log.events()).disputed == 0


def test_synthetic_rows_are_marked_and_no_split_has_one_without_a_label_of_a_person() -> None:
    with WireServer(drafter) as server:
        words = ["init", "mails", "--describe", DESCRIPTION, "--rows", "36", "-m", compatible(server)]
        said = good(*words, "--labels", ",".join(TOPICS), "--price", "1,2", "-q")
        assert "labels, from the user:" in said
        assert "36 of them synthetic" in said
    written = rows("unlabelled.jsonl")
    assert {row["source"] for row in written} == {"synthetic"}
    assert {row["drafted"] for row in written} == set(TOPICS)
    assert not any((FOLDER / f"{split}.jsonl").exists() for split in ("train", "dev", "test"))
    assert "billing" not in labelled("ann", "").split("most typical row")[1].split("1 billing")[0]


def test_rows_are_added_to_a_task_that_has_splits_and_those_stay() -> None:
    write_label_task(FOLDER)
    label_all(30)
    before = {split: rows(f"{split}.jsonl") for split in ("train", "dev", "test")}
    for name in ("unlabelled.jsonl", "labels.jsonl"):
        (FOLDER / name).unlink()
    Path("more.txt").write_text("".join(f"the courier lost box {n}\n" for n in ("one", "two", "of mine")) + "\n")
    assert "added 3 rows to label" in labelled("ann", "222", "--add", "more.txt")
    after = {split: rows(f"{split}.jsonl") for split in before}
    assert all(after[split][: len(before[split])] == before[split] for split in before)
    assert refused(2, "label", "mails", "--add", "more.txt")[0].startswith("error: more.txt: none of its rows is new")


def test_rows_that_two_commands_add_at_once_are_all_kept() -> None:
    write_label_task(FOLDER)
    file = FOLDER / "unlabelled.jsonl"
    Path("more.txt").write_text("the courier lost my box\n")
    with locked(FOLDER):
        second = Thread(target=_add_rows, args=("mails", Path("more.txt"), FormOptions()))
        second.start()
        second.join(0.5)
        assert second.is_alive()
        first = file.read_text("utf-8") + rows_text(unlabelled_rows([({"text": "the first has this"}, "a.txt:1")]))
        file.write_text(first, "utf-8")
    second.join()
    assert file.read_text("utf-8").startswith(first)
    assert "the courier lost my box" in file.read_text("utf-8")


def test_labels_in_a_table_that_is_added_are_not_taken_and_that_is_said() -> None:
    write_label_task(FOLDER)
    Path("more.csv").write_text("text,label\nthe courier lost it,delivery\nmy box is gone,\n")
    said = good("label", "mails", "--add", "more.csv", "--status")
    assert "added 2 rows to label\ncolumn 'label', with 1 filled in, is left out: people give the labels\n0 of" in said


def test_a_line_of_text_is_the_only_input_whatever_its_name() -> None:
    write_label_task(FOLDER)
    toml, file = FOLDER / "task.toml", FOLDER / "unlabelled.jsonl"
    toml.write_text(toml.read_text("utf-8").replace("text -> ", "message -> "), "utf-8")
    file.write_text(file.read_text("utf-8").replace('"text":', '"message":'), "utf-8")
    Path("more.txt").write_text("the courier lost my box\n")
    assert "of 61 rows" in good("label", "mails", "--add", "more.txt", "--status")
    toml.write_text(toml.read_text("utf-8").replace("message -> ", "title, message -> "), "utf-8")
    assert "the inputs are title, message; give a .csv" in refused(2, "label", "mails", "--add", "more.txt")[0]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--describe", "short"], "say in a sentence what the task is"),
        (["--describe", DESCRIPTION, "--labels", "one"], "1 label; 2 to 20 are taken"),
        (["--describe", DESCRIPTION, "--target", "text"], "--target text: give a name"),
        (["--describe", DESCRIPTION, "--from", "none.csv"], "none.csv:1: no such file"),
        (["--describe", DESCRIPTION, "--from", "mails.csv"], "has a column 'label'"),
        (["--describe", DESCRIPTION, "--type", "text"], "--metric and --type"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_asked(more: list[str], says: str) -> None:
    write_unlabelled(Path("mails.txt"))
    with WireServer(drafter) as server:
        lines = refused(2, "init", "mails", *more, "-m", compatible(server), "--price", "1,2", "-q")
        assert says in "\n".join(lines)
        assert server.requests == []
    assert not FOLDER.exists()


def test_a_model_that_names_no_labels_is_said_and_nothing_is_written() -> None:
    write_unlabelled(Path("mails.txt"))
    with WireServer(lambda messages, body: "I am not sure.") as server:
        words = ["init", "mails", "--describe", DESCRIPTION, "--from", "mails.txt", "-m", compatible(server)]
        (line,) = refused(2, *words, "--price", "1,2", "-q")
    assert "named no labels that can be used" in line
    assert "--labels a,b,c" in line
    assert not FOLDER.exists()


def test_a_cap_among_the_definitions_leaves_a_task_with_those_that_there_are() -> None:
    with WireServer(drafter) as server:
        said = drafted(server, "--labels", "delivery,account", "--max-calls", "1")
    assert "the budget ended it early" in said
    assert "account: (no definition drafted" in said
    task = LabelledTask(FOLDER)
    assert task.choices == ("delivery", "account")
    assert f"- delivery: {MEANINGS['delivery']}\n- account\n" in task.instruction


def test_the_ledger_has_the_draft_and_the_labels_of_a_run() -> None:
    with WireServer(drafter) as server:
        drafted(server)
        (draft,) = good_json("runs")["runs"]
        assert draft["result"]["kind"] == "draft"
        assert "labels, from the description:" in good("show", draft["id"])
        label_all(32)
        run = good_json("run", "mails", "-m", compatible(server), "-n", "1", "-q", "--price", "1,2")["run_id"]
        (found,) = [each for each in good_json("runs")["runs"] if each["id"] == run]
        assert found["hashes"]["labels.jsonl"] == hashlib.sha256(LABELS.read_bytes()).hexdigest()
        assert good("audit", "verify")
