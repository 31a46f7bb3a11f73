"""Labels of people: the log, where a labelled row goes, and which row comes next."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputError, ProblemsError
from agent.prompt.draft_requests import Refused, read_definition, read_labels, read_opening, read_row
from agent.task import label_session
from agent.task.copies import near_duplicates
from agent.task.label_files import LabelledTask, SplitRow, places
from agent.task.label_log import LabelLog, agreed, current_labels
from agent.task.label_session import LabelQueue, agreements
from tests.cli.label_world import DESCRIPTION, topic_of, write_label_task

FOLDER = Path("tasks/mails")
WORDS = ("red", "blue", "green", "grey", "pink", "gold", "black", "white", "brown", "amber", "coral", "khaki", "lilac")
ROWS = st.lists(
    st.builds(SplitRow, st.lists(st.sampled_from(WORDS), min_size=3, max_size=4).map(" ".join), st.sampled_from("abc")),
    max_size=40,
)


@given(ROWS, st.integers(0, 40))
def test_more_labels_move_no_row(rows: list[SplitRow], cut: int) -> None:
    assert places(rows)[:cut] == places(rows[:cut])


def test_each_split_gets_its_share_of_each_label() -> None:
    rows = [SplitRow(" ".join(f"{word}{n}" for word in WORDS[:3]), "ab"[n % 3 == 0]) for n in range(120)]
    found = Counter(zip(places(rows), (row.label for row in rows), strict=True))
    for label, count in (("a", 80), ("b", 40)):
        for split, share in (("train", 0.3), ("dev", 0.25), ("test", 0.45)):
            assert abs(found[split, label] - share * count) <= 1, (split, label)


def test_a_near_duplicate_of_a_test_row_goes_nowhere_and_of_a_train_row_into_train() -> None:
    rows = [SplitRow("one two three four five", "a"), SplitRow("six seven eight nine ten", "a")]
    assert places(rows) == ["train", "test"]
    twins = [SplitRow("one two three four five!", "a"), SplitRow("ten six seven eight nine", "b")]
    assert places([*rows, *twins]) == ["train", "test", "train", None]


@given(ROWS)
def test_a_row_goes_by_its_own_near_duplicates_and_not_by_those_of_a_chain(rows: list[SplitRow]) -> None:
    found = places(rows)
    for at, row in enumerate(rows):
        before = zip(rows[:at], found, strict=False)
        homes = {home for other, home in before if home and near_duplicates([other.text, row.text])}
        assert not homes or found[at] == ("train" if homes == {"train"} else None)


def label_rows(task: LabelledTask, start: int, end: int) -> None:
    """Gives these rows of a task their labels."""
    task.log.add_all([(row.id, topic_of(row.text)) for row in task.rows[start:end]], "ann", "spread")


def splits() -> dict[str, str]:
    """By row of the files its split."""
    return {
        json.loads(line)["id"]: name
        for name in ("train", "dev", "test")
        for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()
    }


def test_a_session_that_was_open_before_rows_came_moves_none() -> None:
    write_label_task(FOLDER, 100)
    file = FOLDER / "unlabelled.jsonl"
    lines = file.read_text("utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:50]), "utf-8")
    open_before = LabelledTask(FOLDER)
    label_rows(open_before, 0, 40)
    file.write_text("".join(lines), "utf-8")
    label_rows(LabelledTask(FOLDER), 50, 100)
    before = splits()
    assert len(before) == 90
    open_before.label(open_before.rows[45].id, "billing", "ben", "spread")
    assert before.items() <= splits().items()
    assert len(splits()) == 91


def test_a_row_that_is_deleted_leaves_its_split_and_moves_no_other() -> None:
    write_label_task(FOLDER)
    task = LabelledTask(FOLDER)
    label_rows(task, 0, 50)
    before = splits()
    gone = {row.id for row in task.rows[:9:3]}
    file = FOLDER / "unlabelled.jsonl"
    lines = file.read_text("utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if json.loads(line)["id"] not in gone), "utf-8")
    after = LabelledTask(FOLDER)
    after.write_splits()
    assert splits() == {row: split for row, split in before.items() if row not in gone}
    label_rows(after, 50, 57)
    assert {row: split for row, split in splits().items() if row in before} == {
        row: split for row, split in before.items() if row not in gone
    }


def test_labels_without_splits_keep_theirs_when_new_ones_come() -> None:
    write_label_task(FOLDER)
    task = LabelledTask(FOLDER)
    LabelLog(task.log.path).add_all([(row.id, topic_of(row.text)) for row in task.rows[:40]], "ann", "spread")
    task.write_splits()
    before = splits()
    label_rows(task, 40, 60)
    assert before.items() <= splits().items()
    assert Counter(bool(event.split) for event in task.log.events()) == {False: 40, True: 20}


def test_several_write_to_one_file_and_the_chain_holds(tmp_path: Path) -> None:
    logs = [LabelLog(tmp_path / "labels.jsonl") for _ in range(4)]

    def work(number: int) -> None:
        for row in range(25):
            logs[number].add(f"r{row}", "a", f"labeller {number}", "spread")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    events = logs[0].events()
    assert len(events) == 100
    assert all(len(of_row) == 4 for of_row in current_labels(events).values())
    assert (tmp_path / "labels.jsonl").stat().st_mode & 0o077 == 0


def test_a_line_that_was_cut_off_by_a_kill_is_left_out_and_overwritten(tmp_path: Path) -> None:
    log = LabelLog(tmp_path / "labels.jsonl")
    log.add_all([("r1", "a"), ("r2", "b")], "ann", "spread")
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b'{"row": "r')
    assert len(log.events()) == 2
    log.add("r3", "a", "ann", "spread")
    assert log.path.read_bytes().startswith(whole + b'{"row": "r3"')
    assert [event.row for event in log.events()] == ["r1", "r2", "r3"]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_line_that_is_gone_or_another_is_named(tmp_path: Path, line: int) -> None:
    path = tmp_path / "labels.jsonl"
    log = LabelLog(path)
    for row in ("r1", "r2", "r3", "r4"):
        log.add(row, "a", "ann", "spread")
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:line], *lines[line + 1 :]]), "utf-8")
    with pytest.raises(ProblemsError, match=rf"labels\.jsonl:{line + 1}: "):
        log.events()
    with pytest.raises(ProblemsError):
        log.add("r5", "a", "ann", "spread")


STEPS = st.tuples(st.sampled_from(["ann", "ben"]), st.sampled_from(["r1", "r2", "undo"]), st.sampled_from("ab"))


@given(st.lists(STEPS, max_size=12))
def test_an_undo_brings_back_what_the_labeller_said_before(steps: list[tuple[str, str, str]]) -> None:
    with TemporaryDirectory() as folder:
        log, stand = LabelLog(Path(folder) / "labels.jsonl"), list[tuple[str, str, str]]()
        for labeller, step, label in steps:
            if step != "undo":
                log.add(step, label, labeller, "spread")
                stand.append((labeller, step, label))
                continue
            taken, own = log.undo(labeller), [at for at, (name, *_) in enumerate(stand) if name == labeller]
            assert ((taken.row, taken.label) if taken else None) == (stand.pop(own[-1])[1:] if own else None)
        said: dict[str, dict[str, str]] = {}
        for labeller, row, label in stand:
            said.setdefault(row, {})[labeller] = label
        current = current_labels(log.events())
        assert {row: {name: event.label for name, event in of.items()} for row, of in current.items()} == said
        agree = {row: labels.pop() if len(labels := {*of.values()}) == 1 else None for row, of in said.items()}
        assert {row: agreed(of) for row, of in current.items()} == agree


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101, "\x1b[31m"])
def test_a_wrong_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="--labeller"):
        LabelLog(tmp_path / "labels.jsonl").add("r1", "a", name, "spread")


def test_rows_come_first_where_prompts_disagree_then_of_the_rarest_label_then_far_from_all() -> None:
    texts = ["pay the bill", "pay the bill today", "lost parcel", "parcel late", "broken screen glass"]
    queue = LabelQueue(texts, {}, {3: ["a", "b"], 1: ["a", "a"]})
    assert queue.pick({0: "money", 2: "post"}, [1, 3, 4]) == 3
    plain = LabelQueue(texts, {})
    assert plain.pick({0: "money", 2: "post"}, [1, 3, 4]) == 4, "unlike all that is labelled"
    assert plain.pick({0: "money", 4: "money", 2: "post"}, [1, 3]) == 3, "post has fewer labels"


def plain_pick(texts: list[str], labelled: dict[int, str], candidates: list[int]) -> int:
    """The choice of a queue, each row compared with each labelled one."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True).fit_transform(texts)
    similar = (vectors @ vectors.T).toarray()
    counts = Counter(labelled.values())

    def order(at: int) -> tuple[int, float]:
        closest = max(labelled, key=lambda other: similar[at, other])
        nearest = similar[at, closest]
        return counts[labelled[closest]] if nearest > 0 else min(counts.values()), round(nearest, 9)

    return min(candidates, key=order)


@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join), min_size=9, max_size=12),
    st.lists(st.tuples(st.sampled_from(["label", "take back", "both", "change"]), st.sampled_from("abc")), max_size=9),
    st.integers(0, 7),
    st.integers(1, 3),
)
def test_a_queue_that_remembers_what_is_nearest_chooses_as_one_that_compares_all(
    texts: list[str], steps: list[tuple[str, str]], gone: int, at_once: int
) -> None:
    queue, labelled = LabelQueue(texts, {}), {8: "a"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_session, "AT_ONCE", at_once)
        for step, label in steps:
            if not (left := [at for at in range(len(texts)) if at not in labelled]):
                return
            at, known = queue.pick(labelled, left), list(labelled)[gone % len(labelled)]
            assert at == plain_pick(texts, labelled, left)
            if step == "change":
                labelled[known] = label
            if step in ("label", "both"):
                labelled[at] = label
            if step in ("take back", "both") and len(labelled) > 1:
                del labelled[known]


def test_of_a_labeller_with_one_label_only_no_kappa_is_said() -> None:
    write_label_task(FOLDER)
    task = LabelledTask(FOLDER)
    label_rows(task, 0, 20)
    task.log.add_all([(row.id, "billing") for row in task.rows[:20]], "ben", "")
    (pair,) = agreements(task, task.log.events())
    assert pair == "agreement of ann and ben on 20 rows: too few to tell, 25 % the same"


@pytest.mark.parametrize(
    ("read", "reply"),
    [
        (lambda text: read_labels(text, DESCRIPTION), "I cannot tell."),
        (lambda text: read_labels(text, DESCRIPTION), "<b>one</b>, two"),
        (lambda text: read_labels(text, DESCRIPTION), "{{text}}, two"),
        (lambda text: read_definition(text, DESCRIPTION, "billing", []), "It is labelled billing."),
        (lambda text: read_definition(text, DESCRIPTION, "billing", []), DESCRIPTION),
        (lambda text: read_definition(text, DESCRIPTION, "billing", ["Money is due."]), "money is due."),
        (lambda text: read_definition(text, DESCRIPTION, "billing", []), "x" * 400),
        (lambda text: read_opening(text), "Which department?"),
        (lambda text: read_opening(text), "Fill {{text}} in and answer."),
        (lambda text: read_row(text, DESCRIPTION, "", []), "Sure!"),
        (lambda text: read_row(text, DESCRIPTION, "", ["My parcel is late."]), "my parcel is late."),
        (lambda text: read_row(text, DESCRIPTION, "", []), f"Here: {DESCRIPTION}"),
        (lambda text: read_row(text, DESCRIPTION, "", []), "my parcel \x1b[31m is late today"),
    ],
)
def test_a_reply_that_says_nothing_of_its_own_is_refused(read: object, reply: str) -> None:
    assert callable(read)
    with pytest.raises(Refused):
        read(reply)
