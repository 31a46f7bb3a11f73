"""Who may import whom: no layer a higher one, no sibling another, and each package enters through one door."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "agent"
LAYERS = (
    ("errors", "conversation", "documents", "shipped", "safe_sql", "worker"),
    ("safe_text", "calls"),
    ("safe_data", "turns"),
    ("safe_file",),
    ("types", "redact", "registry", "extras", "retrieval", "results"),
    ("metrics", "stats", "observer", "cluster"),
    ("options",),
    ("task", "models", "ledger", "tracking"),
    ("prompt", "gateway", "training"),
    ("scoring",),
    ("evaluate",),
    ("search", "release"),
    ("programs", "report"),
    ("jobs",),
    ("api",),
    ("cli",),
)
LEVEL = {name: number for number, names in enumerate(LAYERS) for name in names}
DOORS = {
    "dspy": ("prompt/render.py", "search/dspy/", "programs/dspy.py", "release/formats/dspy"),
    "optuna": ("search/samplers.py", "report/optuna_study.py"),
    "tomllib": ("safe_data.py",),
    "click": ("cli/",),
    "rich": ("cli/progress_screen.py", "report/screen.py"),
    "openai": ("models/openai.py",),
    "httpx2": ("models/transport.py", "models/openai.py", "models/anthropic.py", "models/sdk_model.py"),
    "anthropic": ("models/anthropic.py",),
    "xllamacpp": ("models/engine.py", "models/local_engines.py"),
    "langchain": ("models/langchain.py",),
    "langchain_core": ("models/langchain.py", "programs/chain", "release/formats/langchain.py"),
    "llm": ("release/formats/templates.py",),
    "prompty": ("release/formats/templates.py",),
    "dotpromptz": ("release/formats/templates.py",),
    "mlflow": ("release/formats/templates.py", "release/formats/mlflow.py", "tracking/to_mlflow.py"),
    "wandb": ("tracking/to_wandb.py",),
    "clearml": ("tracking/to_clearml.py",),
    "opentelemetry": ("tracking/spans.py",),
    "yaml": ("task/promptfoo_tests.py", "task/skills.py", "release/formats/promptfoo.py"),
    "langsmith": ("models/langchain.py",),
    "matplotlib": ("report/blocks.py", "report/charts.py"),
    "jinja2": ("report/html.py",),
    "datasette": ("report/web/only_datasette.py",),
    "starlette": ("report/web/",),
    "uvicorn": ("report/web/", "gateway/endpoint.py"),
    "pandas": ("report/notebook.py",),
    "sqlalchemy": ("ledger/team_store.py",),
    "genai_prices": ("gateway/prices.py",),
    "pypdf": ("task/documents.py",),
    "sklearn": ("retrieval/classifiers.py", "task/label_session.py"),
    "wordllama": ("retrieval/vectors.py",),
    "torch": ("training/torch_learner.py",),
    "transformers": ("training/torch_learner.py",),
    "peft": ("training/torch_learner.py",),
    "safetensors": ("training/hf_files.py",),
    "ray": ("cluster.py",),
}
CODE_IN_DATA = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "multiprocessing"}
"""What reads data by running what stands in it, or sends its own data so."""
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))
}
"""Each file of the package by its name, parsed."""


def imports(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """Every module that is imported anywhere in the tree, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, node.module] if node.module else start)
            yield module
            if module == "agent" or (PACKAGE.parent / module.replace(".", "/")).is_dir():
                yield from (f"{module}.{alias.name}" for alias in node.names)


def package_of(name: str) -> list[str]:
    return ["agent", *name.split("/")[:-1]]


IMPORTED = {name: set(imports(tree, package_of(name))) for name, tree in SOURCES.items()}


def part(name: str) -> str:
    """The layer's word for a file or a module: its first folder, or the file itself."""
    return name.split("/")[0].removesuffix(".py")


def test_a_file_imports_only_from_lower_layers() -> None:
    faults = [fault for name in SOURCES for fault in layer_faults(name)]
    assert faults == []


def layer_faults(name: str) -> Iterator[str]:
    mine = part(name)
    if mine == "__init__":  # the public names: anything but the top
        yield from (module for module in IMPORTED[name] if module.startswith(("agent.cli", "agent.jobs.optimize")))
    elif mine not in LEVEL:
        yield f"{name} belongs to no layer"
    else:
        for words in (module.split(".") for module in IMPORTED[name]):
            if words[0] != "agent":
                continue
            if len(words) == 1:
                yield f"{name} imports the whole package"
            elif words[1] not in LEVEL:
                yield f"{name} imports {words[1]}, which is no layer"
            elif words[1] != mine and LEVEL[words[1]] >= LEVEL[mine]:
                yield f"{name} imports {'.'.join(words)}: not below {mine}"


def test_a_package_enters_through_its_one_door() -> None:
    entries = [(name, module, DOORS.get(module.split(".")[0])) for name in SOURCES for module in IMPORTED[name]]
    assert [
        f"{name} imports {module}; only {', '.join(doors)} may"
        for name, module, doors in entries
        if doors is not None and not name.startswith(doors)
    ] == []


def test_nothing_but_the_standard_library_is_imported_when_a_file_loads() -> None:
    """Heavy packages load with a file of theirs, or inside a function; pydantic is for tasks, options and results."""
    allowed = {
        "cli/": {"click"},
        "cli/progress_screen.py": {"rich"},
        "task/schema.py": {"pydantic", "pydantic_core"},
        "task/label_session.py": {"numpy"},
        "task/task_file.py": {"pydantic"},
        "metrics/": {"pydantic"},
        "gateway/prices.py": {"pydantic"},
        "models/quantization.py": {"numpy"},
        "training/": {"numpy"},
        "training/learner.py": {"threadpoolctl"},
        "training/torch_learner.py": {"torch", "peft", "transformers"},
        "stats/": {"numpy"},
        "stats/drift.py": {"scipy"},
        "retrieval/linear_training.py": {"numpy", "scipy", "threadpoolctl"},
        "search/dspy/strategies.py": {"dspy"},
        "search/effects.py": {"numpy"},
        "search/samplers.py": {"optuna"},
        "options/": {"pydantic"},
        "results/": {"pydantic"},
        "release/result.py": {"pydantic"},
        "scoring/task_metrics.py": {"pydantic"},
        "report/html.py": {"markupsafe"},
        "report/screen.py": {"rich"},
        "report/web/": {"starlette"},
        "report/web/app.py": {"pydantic_core", "uvicorn"},
        "jobs/": {"pydantic"},
        "ledger/team_store.py": {"sqlalchemy"},
        "programs/chain.py": {"langchain_core"},
        "programs/chain_parts.py": {"langchain_core"},
        "programs/dspy.py": {"dspy"},
    }
    faults = {}
    for name in SOURCES:
        found = {module.split(".")[0] for module in imports(at_the_top(name), ["agent"])}
        may = {package for start, packages in allowed.items() if name.startswith(start) for package in packages}
        faults[name] = found - {"agent", "__future__"} - sys.stdlib_module_names - may
    assert {name: more for name, more in faults.items() if more} == {}


def test_a_file_that_loads_a_heavy_package_is_imported_inside_functions() -> None:
    heavy = {"dspy", "langchain_core", "optuna", "rich", "scipy", "sqlalchemy", "torch", "uvicorn"}
    top = {module_of(name): set(imports(at_the_top(name), package_of(name))) for name in SOURCES}
    doors = {name for name, modules in top.items() if heavy & {module.split(".")[0] for module in modules}}
    assert {name: modules & doors for name, modules in top.items() if name not in doors and modules & doors} == {}


def module_of(name: str) -> str:
    return ".".join([*package_of(name), Path(name).stem]).removesuffix(".__init__")


def at_the_top(name: str) -> ast.Module:
    """The imports at the top of a file: what a function imports when it runs comes after loading."""
    return ast.Module([node for node in SOURCES[name].body if isinstance(node, ast.Import | ast.ImportFrom)], [])


def test_no_file_reads_data_that_may_be_code() -> None:
    readers = {"UnsafeLoader", "FullLoader", "unsafe_load", "full_load", "read_pickle", "to_pickle"}
    faults = {}
    for name, tree in SOURCES.items():
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        faults[name] = {module.split(".")[0] for module in IMPORTED[name]} & CODE_IN_DATA | used & readers
    assert {name: more for name, more in faults.items() if more} == {}


def test_the_import_graph_has_no_circle() -> None:
    """Of the imports at the top of files."""
    graph: dict[str, set[str]] = {}
    for name in SOURCES:
        found = imports(at_the_top(name), package_of(name))
        graph[module_of(name)] = {module for module in found if module.startswith("agent.")}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_a_public_class_name_stands_for_one_thing() -> None:
    found = defaultdict[str, list[str]](list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
