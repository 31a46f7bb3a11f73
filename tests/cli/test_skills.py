"""Skills from end to end: read with their queries, searched by descriptions alone, and written back into SKILL.md."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.release.formats.skills import with_description, with_tool_description
from agent.release.runtime import load_prompt
from agent.safe_file import sha256_of
from agent.task.label_files import LabelledTask
from agent.task.load import load_task
from agent.task.skills import front_matter
from agent.types import Message, Request
from tests.bench import skills
from tests.cli.label_world import drafter, topic_of
from tests.cli.test_tool_sources import SERVER, command
from tests.cli.world import FILLER, TOPICS, WORD, good, good_json, refused, write_lines
from tests.programs.moves.proposals.planted_tools import small_proposer
from tests.scripted import Toys

BODY = "\n# How to\n\nKeep \u00fcmlauts,  blanks  and\ttabs.\r\nDo not read description: here.\n"
SWAPPED = {"billing": "delivery", "delivery": "billing"}


def write_skill(name: str, description: str, head: str = "", folder: str = "skills") -> Path:
    path = Path(folder, name, "SKILL.md")
    path.parent.mkdir(parents=True)
    path.write_bytes(f"---\n{head}name: {name}\ndescription: {description} # ours\n---\n{BODY}".encode())
    return path


def write_skills() -> dict[str, Path]:
    """Four skills, of which two are described in each other's words."""
    told = {name: ", ".join(TOPICS[SWAPPED.get(name, name)].split()[:5]) for name in TOPICS}
    return {name: write_skill(name, f"Notes on {words}.", "license: MIT # of all\n") for name, words in told.items()}


def queries(count: int, none: int = 0) -> list[dict[str, Any]]:
    rng, rows = random.Random(3), list[dict[str, Any]]()
    for number in range(count):
        name = "none" if number < none else list(TOPICS)[number % len(TOPICS)]
        words = rng.sample(TOPICS[name].split(), 3) if name in TOPICS else []
        words += rng.sample(FILLER, 6)
        rng.shuffle(words)
        rows.append({"query": " ".join(words), "skill": name})
    return rows


def chooser(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Choose the skill whose description shares most words with the query; none without one."""
    if "tools" not in body:
        asked = messages[-1]["content"].replace("Begin with: Use it", "Begin with: Call it")
        sent = tuple(
            Message(each["role"], each["content"]) for each in [*messages[:-1], {**messages[-1], "content": asked}]
        )
        return small_proposer(Request(sent, 8, seed=body.get("seed"))).replace("Call it", "Use it")
    row = set(WORD.findall(messages[-1]["content"].lower())) - set(FILLER)
    shared = {
        each["function"]["name"]: len(row & set(WORD.findall(each["function"]["description"].lower())))
        for each in body["tools"]
    }
    best = max(shared, key=lambda name: shared[name])
    return json.dumps([{"name": best, "arguments": "{}"}] if shared[best] else [])


def test_descriptions_are_searched_shown_as_a_diff_and_written_back(toys: Toys) -> None:
    paths = write_skills()
    write_lines("queries.jsonl", queries(200, none=20))
    before = {name: path.read_bytes() for name, path in paths.items()}
    said = good("init", "which", "--from-skills", "skills", "--queries", "queries.jsonl")
    assert "4 skills: account, billing, delivery, repair\n200 queries: 180 name a skill, 20 need none\n" in said
    assert "train: 60 rows, dev: 50 rows, test: 90 rows\nthe smallest gain that the sealed test can show" in said
    words = ("-m", toys(chooser).name, "--price", "1,2", "--max-calls", "600")
    assert "only descriptions" not in good("run", "which", *words, "--dry-run")
    (line,) = refused(2, "run", "which", *words, "--strategy", "dspy-mipro")
    assert "allows descriptions only" in line
    run = good_json("run", "which", *words)
    assert run["decision"] == "promote", run
    release, task = load_prompt(Path(run["release"])).release, load_task(Path("tasks/which"))
    assert [tool.name for tool in release.tools] == [tool.name for tool in task.tools]
    assert release.messages[0].content == task.instruction
    new = {tool.name: tool.description for tool in release.tools}
    changed = [name for name in paths if new[name] != front_matter(before[name].decode()).description]
    assert {"billing", "delivery"} & set(changed)
    trials = good_json("history", run["run_id"])["trials"]
    assert {trial["operator"].partition(":")[0] for trial in trials[1:]} <= {"zero-shot", "tools"}

    patch = good("export", run["run_id"], "--format", "skills")
    assert {name: path.read_bytes() for name, path in paths.items()} == before
    assert patch.count("\n-description: Notes on") == patch.count("# ours\n+description: ") == len(changed)
    (line,) = refused(2, "export", run["run_id"], "--write")
    assert "use --format skills alone" in line
    Path("skills.patch").write_text(patch, "utf-8", newline="")
    subprocess.run(["git", "apply", "--check", "skills.patch"], check=True)
    assert good("export", run["run_id"], "--format", "skills", "--write") == ""
    for name, path in paths.items():
        old = front_matter(before[name].decode())
        text = before[name].decode()
        now = path.read_bytes().decode()
        assert front_matter(now).description == new[name]
        if name in changed:
            assert (now[: old.place.start], now[front_matter(now).place.stop :]) == (
                text[: old.place.start],
                text[old.place.stop :],
            )
        else:
            assert now == text
    lines = refused(1, "export", run["run_id"], "--format", "skills")
    assert [line.split(": ")[-1].partition(";")[0] for line in lines] == ["changed since the task was made"] * len(
        changed
    )
    for name, path in paths.items():
        path.write_bytes(before[name])
    plain = Path("plain.md").absolute()
    plain.write_text("no front matter", "utf-8")
    found = json.loads(Path("tasks/which/skills.json").read_text("utf-8"))
    strangers = {name: {"path": str(plain), "sha256": sha256_of(plain)} for name in ("other", changed[0])}
    Path("tasks/which/skills.json").write_text(json.dumps({**strangers, **found}), "utf-8")
    assert good("export", run["run_id"], "--format", "skills") == patch, "a skill that was no tool of the run stays"
    Path("tasks/which/skills.json").write_text(json.dumps({**found, **strangers}), "utf-8")
    (line,) = refused(1, "export", run["run_id"], "--format", "skills")
    assert line.startswith("error: plain.md: has no front matter; ")


@pytest.mark.parametrize(
    ("old", "new", "written"),
    [
        ("plain text # note", "better: text", '"better: text" # note'),
        ("plain text # note", "better text", "better text # note"),
        ("'it''s' # note", "it's new", "'it''s new' # note"),
        ('"a \\"b\\"" # note', 'c "d" \u2028.', '"c \\"d\\" \\U00002028." # note'),
        ("one\n  line and\n  more", "yes", '"yes"'),
        ("> # note\n  folded\n  text\n\n", "now # new", "> # note\n  now # new\n\n"),
        ("|-\n    one\n    two\n", "three", "|-\n    three\n"),
        ("|\r\n  one\r\n", "a\nb", '"a\\nb"\r\n'),
        ("x", "null", '"null"'),
    ],
)
def test_a_description_keeps_its_style_of_yaml_where_it_can(old: str, new: str, written: str) -> None:
    form = "---\n# top\nname: pdf\nmetadata: {a: [1, 2]} # kept\ndescription: %s\n# end\nlicense: MIT\n---\nbody\n---\n"
    text = with_description(form % old, new)
    assert text == form % written
    assert front_matter(text).description.strip() == new


def write_evals(evals: Mapping[str, Sequence[tuple[str, bool]]]) -> None:
    for name, rows in evals.items():
        found = [{"query": query, "should_trigger": told} for query, told in rows]
        Path("skills", name, "evals.json").write_text(json.dumps(found, indent=1), "utf-8")


def test_rows_of_several_skills_are_joined_and_not_this_one_is_right_for_any_other(toys: Toys) -> None:
    write_skills()
    evals: dict[str, list[tuple[str, bool]]] = {name: [] for name in TOPICS}
    for row in queries(60):
        others = [name for name in TOPICS if name != row["skill"]]
        evals[row["skill"]].append((row["query"], True))
        evals[others[0]].append((row["query"].upper(), False))
    for name in evals:
        evals[name] += [(row["query"], False) for row in queries(9, none=9)]
    evals["repair"] += [(f"again {row['query']}", False) for row in queries(20, none=20)[9:]]
    write_evals(evals)
    assert "60 name a skill, 9 need none, 11 say only which skill is not meant" in good(
        "init", "which", "--from-skills", "skills"
    )
    task = load_task(Path("tasks/which"))
    partial = [row for row in (*task.dev, *task.test) if isinstance(row.labels["calls"], dict)]
    assert len(partial) == 11
    assert all(row.labels["calls"] == {"not": ["repair"]} for row in partial)
    assert all(isinstance(row.labels["calls"], list) for row in task.train)

    def always(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        return json.dumps([{"name": str(body["model"]).removeprefix("toy/"), "arguments": "{}"}])

    right = {}
    for name in ("billing", "repair"):
        words = ("run", "which", "-m", toys(always, name).name, "--price", "1,2", "-n", "1", "--proposer", "none")
        right[name] = round(good_json(*words)["baseline"]["test"] * len(task.test))
    meant = {name: sum(row.labels["calls"] == [{"name": name, "arguments": {}}] for row in task.test) for name in right}
    others = sum(isinstance(row.labels["calls"], dict) for row in task.test)
    assert right == {"billing": meant["billing"] + others, "repair": meant["repair"]}

    write_evals({name: [(row["query"], False) for row in queries(40)] if name == "repair" else [] for name in TOPICS})
    (line,) = refused(2, "init", "other", "--from-skills", "skills")
    assert line.startswith("error: too few queries say which skill is meant; add rows such as")


WRONG_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"query": "pay it", "skill": "billing"}, ""),
    ({"query": "Pay  IT", "skill": "billing"}, "repeats the query of rows.jsonl:1; keep one"),
    ({"query": "pay it", "skill": "none"}, "means no skill, and rows.jsonl:1 billing; keep one"),
    ({"query": "log in", "skill": "acount"}, "there is no skill 'acount'; did you mean 'account'?"),
    ({"query": " ", "skill": "account"}, "has no query; write"),
    ({"query": "fix it", "should_trigger": True}, "needs the skill of its should_trigger"),
    ({"query": "fix the pipe"}, "says no skill; write its name"),
    ({"query": "pay it", "skill": "billing", "should_trigger": False}, "contradicts rows.jsonl:1; keep one"),
    ({"query": "pay it", "tool": "repair", "should_trigger": False}, ""),
]
WRONG_SKILLS = {
    "a": ("no front matter", ":1: has no front matter"),
    "b": ("---\nname: b\n---\n", "has no text for description"),
    "c": ("---\nname: c\ndescription: a: b\n---\n", "wrong YAML"),
    "d": ("---\nname: billing\ndescription: again\n---\n", "the name 'billing' is that of skills/billing/SKILL.md"),
    "e": ("---\nname: &x not\ndescription: *x\n---\n", "or an alias as description"),
    "f": ("---\nname: two words\ndescription: x\n---\n", "the name 'two words' cannot be that of a tool"),
    "g": ("---\nname: g\nname: g\ndescription: x\n---\n", "has a key twice, or"),
    "h": ("---\n- name\n---\n", "is no mapping"),
    "i": ("---\nname: i\ndescription: 12\n---\n", "has no text for description"),
}


def test_all_wrong_rows_and_skills_are_told_at_once_with_their_lines() -> None:
    write_skills()
    write_lines("rows.jsonl", [row for row, _ in WRONG_ROWS])
    found = refused(2, "init", "which", "--from-skills", "skills", "--queries", "rows.jsonl")
    told = {line.removeprefix("error: ").partition(": ")[0]: line for line in found}
    wanted = {f"rows.jsonl:{number}": what for number, (_, what) in enumerate(WRONG_ROWS, 1) if what}
    assert sorted(told) == sorted(wanted)
    assert all(what in told[place] for place, what in wanted.items())
    (line,) = refused(2, "init", "which", "--from-skills", "skills")
    assert "0 queries; a task needs 12; draft some: optimize init which --from-skills skills --draft 40" in line

    for name, (text, _) in WRONG_SKILLS.items():
        Path("skills", name).mkdir()
        Path("skills", name, "SKILL.md").write_text(text)
    found = refused(2, "init", "which", "--from-skills", "skills")
    # `billing` is sorted behind "b", so the later file is told
    told = {line.removeprefix("error: ").partition("/SKILL.md")[0].removeprefix("skills/"): line for line in found}
    assert sorted(told) == sorted(WRONG_SKILLS)
    for name, (_, what) in WRONG_SKILLS.items():
        assert what in told[name], told[name]
    assert not Path("tasks").exists()


def test_near_duplicates_are_left_out_and_counted() -> None:
    write_skills()
    rows = queries(40)
    copies = [{**row, "query": f"{row['query']} {'!' * n}"} for row in rows[:20] for n in range(1, 5)]
    write_lines("rows.jsonl", [*rows, *copies])
    said = good("init", "which", "--from-skills", "skills", "--queries", "rows.jsonl")
    assert "120 queries: 120 name a skill, 0 need none\n" in said
    left = re.search(r"train: (\d+) rows, dev: (\d+) rows, test: (\d+) rows; near-duplicates left out: (\d+)\n", said)
    assert left is not None, said
    assert sum(map(int, left.groups())) == 120


def test_twenty_queries_are_said_to_show_no_gain(toys: Toys) -> None:
    write_skill("billing", "Invoices.")
    write_evals({"billing": [(row["query"], row["skill"] == "billing") for row in queries(20)]})
    said = good("init", "which", "--from-skills", "skills")
    assert "20 queries: 5 name a skill, 15 need none\ntrain: 6 rows, dev: 5 rows, test: 9 rows\n" in said
    assert "none if your prompt scores 50" in said
    assert "a gain of 20 points needs about 213 queries; --draft N drafts some to confirm" in said
    model = toys(chooser)
    assert "none if your prompt scores 50" in good("run", "which", "-m", model.name, "--price", "1,2", "--dry-run")
    assert model.seen == []


def test_drafted_queries_become_rows_once_a_person_has_labelled_them(toys: Toys) -> None:
    write_skills()

    def written(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        if "Label: none" in messages[-1]["content"]:
            return f"thanks for nothing, number {body['seed']}"
        return drafter(messages, body)

    model = toys(written)
    words = ("-m", model.name, "--price", "1,2", "--draft", "45")
    drafted = good_json("init", "which", "--from-skills", "skills", *words)
    assert "when is a text labelled" not in str(model.bodies)
    assert drafted["labels"]["billing"].startswith("Notes on parcel")
    assert drafted["folder"] == "tasks/which-queries"
    (line,) = refused(2, "init", "which", "--from-skills", "skills", "--queries", "tasks/which-queries")
    assert "0 queries; a task needs 12" in line
    task = LabelledTask(Path("tasks/which-queries"))
    told = {row.id: "none" if "nothing" in row.inputs["text"] else topic_of(row.inputs["text"]) for row in task.rows}
    task.label_confirmed([*told.items()], "ann")
    task.write_splits()
    said = good("init", "which", "--from-skills", "skills", "--queries", "tasks/which-queries")
    assert "24 name a skill, 9 need none" in said


def test_tools_of_a_server_are_chosen_from_by_name() -> None:
    good("tools", "--mcp", command(SERVER), "-o", "tools.json")
    rows = [
        {"query": f"light {n} {'on' if n % 2 else 'off'}", "tool": "lamp_on" if n % 2 else "lamp_off"}
        for n in range(20)
    ]
    write_lines("rows.jsonl", rows)
    said = good("init", "lamps", "--from-skills", "tools.json", "--queries", "rows.jsonl")
    assert said.startswith("2 skills: lamp_on, lamp_off\n20 queries: 20 name a skill, 0 need none\n")
    (line,) = refused(2, "init", "x", "--from-skills", "tools.json", "--labels", "a,b", "--queries", "rows.jsonl")
    assert "--labels" in line
    (line,) = refused(2, "init", "x", "--from", "rows.jsonl", "--queries", "rows.jsonl")
    assert "goes with --from-skills" in line


def test_new_descriptions_are_written_into_the_file_of_tools(toys: Toys) -> None:
    told = {name: ", ".join(TOPICS[SWAPPED.get(name, name)].split()[:5]) for name in TOPICS}
    tools = [
        {"description": f"Notes on {words}.", "name": name, "inputSchema": {"type": "object", "properties": {}}}
        for name, words in told.items()
    ]
    before = json.dumps({"tools": tools, "note": "\u00fc"}, indent=3) + "\n"
    Path("listed.json").write_text(before, "utf-8")
    write_lines("queries.jsonl", queries(200, none=20))
    good("init", "which", "--from-skills", "listed.json", "--queries", "queries.jsonl")
    run = good_json("run", "which", "-m", toys(chooser).name, "--price", "1,2", "--max-calls", "600")
    assert run["decision"] == "promote", run
    new = {tool.name: tool.description for tool in load_prompt(Path(run["release"])).release.tools}
    patch = good("export", run["run_id"], "--format", "skills")
    changed = [each for each in tools if new[each["name"]] != each["description"]]
    assert (
        patch.count('\n-         "description": "Notes on')
        == patch.count('\n+         "description": ')
        == len(changed)
        > 0
    )
    Path("skills.patch").write_text(patch, "utf-8", newline="")
    subprocess.run(["git", "apply", "--check", "skills.patch"], check=True)
    good("export", run["run_id"], "--format", "skills", "--write")
    wanted = [{**each, "description": new[each["name"]]} for each in tools]
    assert json.loads(Path("listed.json").read_text("utf-8")) == {"tools": wanted, "note": "\u00fc"}
    (line,) = refused(1, "export", run["run_id"], "--format", "skills")
    assert line.startswith("error: listed.json: changed since the task was made")


def test_a_description_of_a_tool_is_found_by_reading_the_file_back() -> None:
    inner = {"type": "object", "properties": {"x": {"type": "string", "description": "Adds."}}}
    text = json.dumps(
        [{"name": "a", "inputSchema": inner, "description": "Adds."}, {"name": "b", "inputSchema": inner}]
    )
    made = json.loads(with_tool_description(text, "a", 'Adds "two".'))
    assert (made[0]["description"], made[0]["inputSchema"]) == ('Adds "two".', inner)
    with pytest.raises(ValueError, match="b has no description to replace"):
        with_tool_description(text, "b", "Better.")


def test_the_bench_runs_our_search_and_the_loop_with_the_same_calls(
    toys: Toys, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        if "tools" not in body and "<new_description>" in messages[-1]["content"]:
            content = messages[-1]["content"].partition("<skill_content>")[2]
            return f"<new_description>Use this skill for {' '.join(WORD.findall(content)[:40])}.</new_description>"
        return chooser(messages, body)

    model = toys(answer)
    skills.main(["--model", model.name, "--price", "1", "2", "-o", "out"])
    asked = len(model.seen)
    found = json.loads(Path("out/skills-0.json").read_text("utf-8"))
    own, loop = found["ours"], found["loop"]
    assert own["calls"] <= 280
    assert loop["calls"] == own["calls"] - own["sealed"]
    opened = len(own["before"])
    assert asked <= own["calls"] + loop["calls"] + 54 + 2 * (54 - opened)
    assert len(loop["before"]) == len(loop["ours"]) == len(loop["after"]) == 54
    assert sum(own["before"].values()) <= sum(loop["before"])
    assert {name for name, text in loop["texts"].items() if text.startswith("Use this skill for")}
    said = capsys.readouterr().out
    assert re.search(r"it reports .* on \d+ held-out queries", said), said


def test_a_label_or_setting_that_does_not_fit_is_refused_with_its_line() -> None:
    write_skills()
    write_lines("rows.jsonl", queries(40))
    good("init", "which", "--from-skills", "skills", "--queries", "rows.jsonl")
    folder = Path("tasks/which")
    with (folder / "dev.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"query": "anything", "calls": {"not": ["biling"]}}) + "\n")
    last = len((folder / "dev.jsonl").read_text("utf-8").splitlines())
    toml = (folder / "task.toml").read_text("utf-8")
    (folder / "task.toml").write_text(toml.replace('"zero-shot"', '"few-shot"'), "utf-8")
    at = toml.splitlines().index("descriptions_only = 1024") + 1
    lines = refused(2, "run", "which", "-m", "scripted/none.jsonl")
    assert lines[0].removeprefix("error: ").startswith(f"tasks/which/task.toml:{at}: descriptions_only needs tools")
    assert f"tasks/which/dev.jsonl:{last}: " in lines[1]
    assert "excludes 'biling', which is not a tool; did you mean 'billing'?" in lines[1]
    (folder / "task.toml").write_text(toml.replace("right_tool", "tool_choice"), "utf-8")
    (line,) = refused(2, "run", "which", "-m", "scripted/none.jsonl")
    assert f"tasks/which/dev.jsonl:{last}: " in line
    assert "is not valid" in line or "array" in line
