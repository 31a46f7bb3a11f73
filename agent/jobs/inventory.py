"""`optimize tasks`, `metrics list`, `models list` and `tools`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from agent.errors import InputError, ProblemsError
from agent.jobs.observers import Watcher
from agent.jobs.registry import Printed, about, job
from agent.jobs.tool_sources import tools_in_file, tools_of_server, write_tools
from agent.metrics.metric_registry import METRICS
from agent.models.model_registry import MODELS
from agent.models.weights import CATALOG, fetch, weights_path
from agent.options.kinds import File, Texts
from agent.options.option import option
from agent.report.blocks import Block, Column, short, table
from agent.results.base import Result
from agent.results.rows import ListedTool, ToolsResult
from agent.task.by_name import find_task, tasks_here
from agent.task.load import load_task


class ListedTask(Result):
    """A task with its rows by split; `problem` if it is broken."""

    name: str
    problem: str = ""
    signature: str = ""
    description: str = ""
    rows: Mapping[str, int] = {}
    metrics: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()


class TasksResult(Result):
    """The tasks under tasks/."""

    tasks: tuple[ListedTask, ...]

    def blocks(self) -> Iterator[Block]:
        rows = [
            (
                each.name,
                each.signature,
                "/".join(map(str, each.rows.values())),
                ", ".join(each.metrics),
                short(each.problem or each.description, 70),
            )
            for each in self.tasks
        ]
        yield table("tasks", ("task", "signature", "train/dev/test", "metrics", "about"), rows, tabbed=True)


@job("tasks")
def tasks(task: str | None = None) -> TasksResult:
    """List the tasks under tasks/, or check TASK. Every problem is printed with file and line."""
    found = []
    for folder in [find_task(task)] if task else [Path("tasks") / name for name in tasks_here()]:
        try:
            found.append(_listed(folder))
        except ProblemsError:
            if task:
                raise
            problem = f"broken: `optimize tasks {folder.name}` says where"
            found.append(ListedTask(name=folder.name, problem=problem))
    return TasksResult(tasks=tuple(found))


def _listed(folder: Path) -> ListedTask:
    loaded = load_task(folder)
    return ListedTask(
        name=loaded.name,
        signature=str(loaded.signature),
        description=loaded.description,
        rows={"train": len(loaded.train), "dev": len(loaded.dev), "test": len(loaded.test)},
        metrics=tuple(metric.name for metric in loaded.metrics),
        techniques=tuple(loaded.space.techniques),
        formats=tuple(loaded.space.formats),
    )


class ListedMetric(Result):
    """A metric: the output types that it scores, its options, and its package (`from`)."""

    name: str
    types: tuple[str, ...]
    options: tuple[str, ...]
    about: str
    origin: str = Field(serialization_alias="from")


class MetricsResult(Result):
    """The available metrics."""

    metrics: tuple[ListedMetric, ...]

    def blocks(self) -> Iterator[Block]:
        heads = ("metric", "scores", "options", Column("about", wraps=True, floor=20), "from")
        rows = [(m.name, ", ".join(m.types), ", ".join(m.options), m.about, m.origin) for m in self.metrics]
        yield table("metrics", heads, rows, tabbed=True)


@job("metrics list")
def metrics() -> MetricsResult:
    """List the metrics: the output types that each scores, its options, and its package."""
    found = [
        ListedMetric(
            name=one.name,
            types=tuple(one.thing.types) if one.thing else (),
            options=tuple(one.thing.options.model_fields) if one.thing else (),
            about=about(one),
            origin=one.origin,
        )
        for one in METRICS.all()
    ]
    return MetricsResult(metrics=tuple(found))


class ListedModel(Result):
    """A form of model names, and its package (`from`)."""

    form: str
    about: str
    origin: str = Field(serialization_alias="from")


class ListedWeights(Result):
    """Weights that can be downloaded, and whether they are here."""

    name: str
    megabytes: int
    licence: str
    here: bool
    path: str


class ModelsResult(Result):
    """The forms of model names, and the weights of the embedded models."""

    forms: tuple[ListedModel, ...]
    weights: tuple[ListedWeights, ...]

    def blocks(self) -> Iterator[Block]:
        forms = [(each.form, each.about, each.origin) for each in self.forms]
        yield table("model names", ("form", "about", "from"), forms, tabbed=True)
        rows = [(w.name, w.megabytes, w.licence, "yes" if w.here else "no", w.path) for w in self.weights]
        yield table("weights", ("model", "MB", "licence", "here", "path"), rows, tabbed=True)


@job("models list")
def models() -> ModelsResult:
    """List the forms of model names, and which weights are downloaded."""
    forms = (
        ListedModel(form=one.thing.form if one.thing else one.name, about=about(one), origin=one.origin)
        for one in MODELS.all()
    )
    weights = (
        ListedWeights(
            name=f"local/{w.name}",
            megabytes=w.megabytes,
            licence=w.licence,
            here=weights_path(w.name).is_file(),
            path=str(weights_path(w.name)),
        )
        for w in CATALOG
    )
    return ModelsResult(forms=tuple(forms), weights=tuple(weights))


@job("models fetch", has_json=False)
def fetch_model(name: str = "local/smollm2-135m", *, observer: Watcher) -> Printed[None]:
    """Download the weights of NAME into the cache and verify their SHA-256. Resumes a partial download."""
    return Printed(None, exact=f"{name}: {fetch(name, observer.download)}\n")


@job("tools", typed=("env",))
def tools(
    file: Path | None = None,
    *,
    mcp: str | None = option(None, "The shell command that starts an MCP server over stdio.", metavar="COMMAND"),
    env: Texts = option((), "An environment variable to pass on to the server; repeatable.", metavar="NAME"),
    output: File = option(None, "Write the tools to this file, in OpenAI's format.", short="-o"),
) -> ToolsResult:
    """List the tools of FILE or an MCP server, and write them for a task.

    FILE is JSON: a list of tools in the format of OpenAI or Anthropic, the result of MCP's tools/list, or an OpenAPI 3
    document, whose operations become tools. FILE.py:NAME,... names functions of a Python file, which is run: their
    types and docstrings become schemas and descriptions. With --mcp the command is run, asked for its tools, and ended
    within a minute; use only a server that you trust. It gets PATH, HOME, LANG and TMPDIR of the environment, and what
    --env names. A task names the written file: tools = "tools.json".
    """
    if (file is None) == (mcp is None):
        raise InputError("give a FILE, or --mcp with the command of a server")
    if env and mcp is None:
        raise InputError("--env is for the server of --mcp; leave it out")
    found = tools_in_file(file) if file is not None else tools_of_server(mcp or "", names=env)
    if output is not None:
        write_tools(found, output)
    listed = tuple(ListedTool(**tool.as_dict()) for tool in found)
    return ToolsResult(tools=listed, file=str(output) if output else None)
