"""Who may import whom: no layer a higher one, no sibling another, and each package enters through one door."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "agent"
LAYERS = (
    ("errors", "shipped", "files", "strict", "worker"),
    ("types", "redact", "privacy", "registry", "extras", "retrieval"),
    ("metrics", "stats", "observer"),
    ("task", "models", "ledger"),
    ("prompt", "gateway", "tuning"),
    ("scoring",),
    ("search", "release"),
    ("programs", "report"),
    ("run",),
    ("api",),
    ("cli",),
)
LEVEL = {name: number for number, names in enumerate(LAYERS) for name in names}
DOORS = {
    "dspy": (
        "prompt/render.py",
        "search/dspy/",
        "programs/dspy.py",
        "programs/prompt_dspy.py",
        "release/formats/dspy",
    ),
    "optuna": (
        "search/study.py",
        "search/run_study.py",
        "search/ask_tell.py",
        "search/wilcoxon.py",
        "report/optuna_study.py",
        "report/importances.py",
    ),
    "tomllib": ("strict.py",),
    "click": ("cli/",),
    "rich": ("cli/",),
    "openai": ("models/openai.py",),
    "httpx2": ("models/transport.py", "models/openai.py", "models/anthropic.py", "models/fine_tuning.py"),
    "anthropic": ("models/anthropic.py",),
    "xllamacpp": ("models/local_engines.py", "tuning/engine_tokens.py"),
    "langchain": ("models/langchain.py", "models/embeddings.py"),
    "langchain_core": ("models/langchain.py", "programs/chain", "release/formats/langchain.py"),
    "llm": ("release/formats/llm.py",),
    "prompty": ("release/formats/prompty.py",),
    "dotpromptz": ("release/formats/dotprompt.py",),
    "mlflow": ("release/formats/mlflow",),
    "yaml": ("task/promptfoo_tests.py", "release/formats/promptfoo.py"),
    "langsmith": ("models/langchain.py",),
    "matplotlib": ("report/charts.py",),
    "jinja2": ("report/html.py",),
    "datasette": ("report/web/",),
    "pandas": ("report/notebook.py",),
    "sqlite_utils": ("ledger/connect.py", "ledger/texts.py"),
    "genai_prices": ("gateway/prices.py",),
    "pypdf": ("task/documents.py",),
    "sklearn": ("programs/classifiers.py",),
    "wordllama": ("retrieval/static_vectors.py",),
}
CODE_IN_DATA = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "multiprocessing"}
"""What reads data by running what stands in it, or sends its own data so."""
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]
EACH = pytest.mark.parametrize(("path", "name"), list(zip(FILES, NAMES, strict=True)), ids=NAMES)


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


def of(path: Path) -> set[str]:
    package = ["agent", *path.relative_to(PACKAGE).parent.parts]
    return set(imports(ast.parse(path.read_text("utf-8")), package))


def part(name: str) -> str:
    """The layer's word for a file or a module: its first folder, or the file itself."""
    return name.split("/")[0].removesuffix(".py")


@EACH
def test_a_file_imports_only_from_lower_layers(path: Path, name: str) -> None:
    mine = part(name)
    if mine == "__init__":  # the public names: anything but the top
        assert not [module for module in of(path) if module.startswith(("agent.cli", "agent.run.optimize"))]
        return
    assert mine in LEVEL, f"{name} belongs to no layer"
    for module in of(path):
        words = module.split(".")
        if words[0] != "agent":
            continue
        assert len(words) > 1, f"{name} imports the whole package"
        theirs = words[1]
        assert theirs in LEVEL, f"{name} imports {module}, which is no layer"
        assert theirs == mine or LEVEL[theirs] < LEVEL[mine], f"{name} imports {module}: not below {mine}"


@EACH
def test_a_package_enters_through_its_one_door(path: Path, name: str) -> None:
    for module in of(path):
        doors = DOORS.get(module.split(".")[0])
        assert doors is None or name.startswith(doors), f"{name} imports {module}; only {', '.join(doors)} may"


@EACH
def test_nothing_but_the_standard_library_is_imported_when_a_file_loads(path: Path, name: str) -> None:
    """Heavy packages load inside the function that uses them; pydantic is for task.toml and the options of metrics."""
    tree = ast.parse(path.read_text("utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {module.split(".")[0] for module in imports(ast.Module(top, []), ["agent"])}
    allowed = {"cli/": {"click"}, "task/task_file.py": {"pydantic"}, "metrics/": {"pydantic"}}
    may = {package for start, packages in allowed.items() if name.startswith(start) for package in packages}
    assert found - {"agent", "__future__"} - sys.stdlib_module_names <= may


@EACH
def test_no_file_reads_data_that_may_be_code(path: Path, name: str) -> None:
    assert not {module.split(".")[0] for module in of(path)} & CODE_IN_DATA
    used = {node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
    assert not used & {"UnsafeLoader", "FullLoader", "unsafe_load", "full_load", "read_pickle", "to_pickle"}


def test_the_import_graph_has_no_circle() -> None:
    """Of the imports at the top of files: what a function imports when it runs comes after loading."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        package = ["agent", *path.relative_to(PACKAGE).parent.parts]
        top: list[ast.stmt] = [
            node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        mine = ".".join([*package, path.stem]).removesuffix(".__init__")
        graph[mine] = {module for module in imports(ast.Module(top, []), package) if module.startswith("agent.")}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
