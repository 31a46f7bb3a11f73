"""The registry: what is there by name, loaded when it is asked for, and never broken by somebody else's package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.metrics.comparison import Check
from agent.metrics.metric_registry import METRICS
from agent.metrics.metric_rule import Options, metric
from agent.registry import Registry
from agent.scoring.task_metrics import build_metrics
from agent.search.registered import STRATEGIES
from agent.task.task_file import json_schema
from agent.types import Example, Field, MetricSpec, Prediction
from tests.cli.world import files, good, good_json
from tests.registry.conftest import ALL
from tests.registry.packages import install
from tests.toys import make_task

GROUP = "promptassay.metrics"
METRIC = """
from agent.metrics.metric_rule import metric
@metric("{name}", about="It is there.", types=("text",))
def there(options, field):
    return lambda got, label: (1.0, "")
"""


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.what)
def test_what_is_ours_is_known_by_name_and_is_where_it_is_said_to_be(registry: Registry[object]) -> None:
    found = list(registry.all())
    assert tuple(one.name for one in found) == registry.names()
    assert all(one.thing is not None and one.origin == "promptassay" for one in found), found
    assert all(one.thing.about for one in found)  # type: ignore[attr-defined]
    with pytest.raises(InputError) as caught:
        registry.get("no-such-thing")
    assert all(name in str(caught.value) for name in registry.names())


def test_a_near_miss_is_named() -> None:
    said = r"^no metric is called 'exat'; did you mean exact_match\? there are exact_match, choice, "
    with pytest.raises(InputError, match=said):
        METRICS.get("exat")


def test_nothing_takes_the_place_of_another() -> None:
    registry: Registry[int] = Registry("thing", "promptassay.things", {"ours": "agent.ours"})
    registry.add("mine", 1, "notebook")
    registry.add("mine", 2, "notebook")  # a cell that is run again
    assert registry.get("mine") == 2
    for name, holder in (("ours", "agent.ours"), ("mine", "notebook")):
        with pytest.raises(InputError, match=rf"^other: {holder} has a thing called '{name}' already"):
            registry.add(name, 3, "other")


def test_another_name_of_ours_is_known_and_taken_and_in_no_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert STRATEGIES.get("bayes") is STRATEGIES.get("evolve")
    assert "bayes" in STRATEGIES
    assert "bayes" not in STRATEGIES.names()
    with pytest.raises(InputError, match=r"agent.search.evolve.evolve has a strategy called 'bayes' already"):
        STRATEGIES.add("bayes", STRATEGIES.get("evolve"), "other")
    install(tmp_path / "site", "acme", "1.0", {STRATEGIES.group: {"bayes": "acme_bayes"}})
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert "bayes" not in STRATEGIES.names()
    (left_out,) = [one for one in STRATEGIES.all() if one.name == "bayes"]
    assert (left_out.origin, left_out.fault) == ("acme 1.0", "left out: promptassay has a strategy of that name")


def test_what_a_program_registers_itself_is_listed_by_its_module() -> None:
    registry: Registry[int] = Registry("thing", "promptassay.things", {})
    registry.add("mine", 1, "notebook")
    assert [(one.name, one.origin, one.thing) for one in registry.all()] == [("mine", "module notebook", 1)]


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        (lambda: 1 / 0, "failing failed: ZeroDivisionError"),
        (lambda: (1.5, ""), "failing gave 1.5, which is not in [0, 1]"),
        (lambda: 0.5, "failing failed: TypeError"),
    ],
)
async def test_a_metric_that_fails_on_a_row_leaves_it_unscored(gives: Callable[[], Any], says: str) -> None:
    @metric("failing", about="It fails.", types=("text", "choice"))
    def failing(options: Options, field: Field) -> Check:
        return lambda got, label: gives()

    task = make_task()
    name = task.signature.outputs[0].name
    (made,) = build_metrics(replace(task, metrics=(MetricSpec("failing", name),)))
    found = await made.score(Example("r", {}, {name: "x"}), Prediction({name: "x"}, "x"))
    assert found.value is None
    assert found.reason.startswith(says)


BROKEN = {
    "gone": ("", "ModuleNotFoundError"),
    "raising": ("raise ValueError('no\\nway')", "ValueError: no way"),
    "leaving": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "silent": ("x = 1", "registers nothing of that name"),
    "taking": (METRIC.format(name="choice"), "agent.metrics.text_match has a metric called 'choice' already"),
}


@pytest.mark.parametrize(("name", "source", "says"), [(name, *rest) for name, rest in BROKEN.items()], ids=list(BROKEN))
def test_a_broken_package_is_told_by_name_and_spoils_no_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, says: str
) -> None:
    install(tmp_path / "site", "acme-broken", "0.3", {GROUP: {name: f"acme_{name}"}})
    if source:
        (tmp_path / "site" / f"acme_{name}.py").write_text(source, "utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(InputError) as caught:
        METRICS.get(name)
    said = str(caught.value)
    assert said.startswith(f"the metric '{name}' of the package acme-broken 0.3")
    assert says in said
    assert "\n" not in said
    listed = good_json("metrics", "list")["metrics"]
    (row,) = [row for row in listed if row["name"] == name]
    assert row["from"] == "acme-broken 0.3"
    assert says in row["about"]
    assert len(listed) == len(METRICS.names()) == len(METRICS.usable()) + 1
    assert says in good("metrics", "list")
    assert name not in json_schema()["$defs"]["MetricTable"]["properties"]["name"]["enum"]


def test_a_name_of_ours_stays_ours_and_the_other_is_said_to_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "acme", "1.0", {GROUP: {"choice": "acme_choice"}})
    (tmp_path / "site" / "acme_choice.py").write_text("raise SystemExit('it was loaded')", "utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert METRICS.get("choice").build.__module__ == "agent.metrics.text_match"
    rows = [(row["from"], row["about"]) for row in good_json("metrics", "list")["metrics"] if row["name"] == "choice"]
    assert rows[0][0] == "promptassay"
    assert rows[1] == ("acme 1.0", "cannot be used: left out: promptassay has a metric of that name")


def test_two_packages_with_one_name_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        install(tmp_path / "site", f"acme{number}", "1.0", {GROUP: {"twice": f"acme_twice{number}"}})
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(InputError, match=r"acme[12] 1.0 and acme[12] 1.0; uninstall all but one"):
        METRICS.get("twice")


def test_a_package_is_imported_when_its_name_is_asked_for_and_not_before(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "acme", "1.0", {GROUP: {"first": "acme_first", "second": "acme_second"}})
    for name in ("first", "second"):
        (site / f"acme_{name}.py").write_text(METRIC.format(name=name), "utf-8")
    script = f"""
import sys
sys.path.insert(0, {str(site)!r})
from agent.metrics.metric_registry import METRICS
METRICS.get("choice"), METRICS.names()
assert not [name for name in sys.modules if name.startswith("acme")]
METRICS.get("first")
print([name for name in sys.modules if name.startswith(("acme", "agent.metrics.ref", "agent.metrics.text_s"))])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout == "['acme_first']\n"


def test_a_plan_without_their_things_imports_nothing_of_theirs(site: Path) -> None:
    words = [*files(120), "-m", "openai-compatible/x@http://127.0.0.1:9/v1", "--dry-run"]
    script = f"""
import sys
sys.path.insert(0, {str(site)!r})
from agent.cli import main
for words in (["--help"], ["run", "-h"], {words!r}):
    main(words, standalone_mode=False)
assert "agent.programs.prompt" in sys.modules
print([name for name in sys.modules if name.startswith("acme")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")
