"""The page for coding agents: an agent that goes by it alone optimizes, reads the verdict and ships."""

import json
import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from agent.cli import SKILL, main
from agent.release.runtime import load_prompt
from agent.task.skills import skills_in
from tests.cli.world import compatible, files, learner, optimize
from tests.wire import WireServer

CODE = re.compile(r"^ {4,}(optimize .*?)(?: {2,}#.*)?$", re.MULTILINE)


def page() -> str:
    return CliRunner().invoke(main, ["--llms"]).output


def test_a_scripted_agent_runs_reads_the_verdict_and_ships(here: Path) -> None:
    files(120)
    commands = [shlex.split(line) for line in CODE.findall(page())]
    dry = next(words for words in commands if "--dry-run" in words)
    with WireServer(learner) as server:
        named = {"data.csv": "rows.csv", "prompt.txt": "p.txt", "PROVIDER/NAME": compatible(server)}
        run = [named.get(word, word) for word in dry[1:]] + ["--price", "1,2"]
        plan = json.loads(optimize(*run).stdout)
        assert plan["plan"]["calls"] <= 600
        assert {"cost_usd_at_most", "detectable_gains"} <= {*plan}
        assert not server.requests
        done = optimize(*[word for word in run if word != "--dry-run"])
        assert done.exit_code == 0, done.output
        verdict = json.loads(optimize("show", "--json").stdout)["result"]
        keys = re.findall(r"`([a-z_]+)(?:\.[a-z_0-9]+)?`", page().partition("| key |")[2].partition("Report")[0])
        assert {*keys} - {"promote", "keep_baseline"} <= {*verdict}
        assert verdict["decision"] == "promote"
        assert verdict["lift"]["ci95"][0] > 0
        for words in commands:
            if words[1] in ("promote", "export", "check"):
                typed = [word.replace("NAME@", "rows@") for word in words[1:]]
                more = ["--price", "1,2"] if words[1] == "check" else []
                done = optimize(*typed, *more)
                assert done.exit_code == 0, done.output
    assert load_prompt("rows@production").version in Path("runs/releases/rows/aliases.jsonl").read_text("utf-8")


def test_the_page_is_a_skill_and_names_commands_that_exist(tmp_path: Path) -> None:
    folder = tmp_path / "skills" / "promptassay"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_bytes(SKILL.read_bytes())
    (skill,) = skills_in(tmp_path / "skills")
    assert skill.name == "promptassay"
    assert 100 < len(skill.description) <= 1024
    for words in re.findall(r"`?optimize ((?:judge |models )?[a-z]+)", page()):
        if words != "promptassay":
            assert CliRunner().invoke(main, [*words.split(), "--help"]).exit_code == 0, words
