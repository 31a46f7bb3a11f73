"""Loading of a task folder: all problems of task.toml, its files and its rows in one error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.documents import Knowledge
from agent.errors import Problem, ProblemsError
from agent.metrics.metric_registry import METRICS
from agent.registry import OURS
from agent.safe_data import TomlLines, parse_data, parse_toml
from agent.safe_file import decoded, read_bytes
from agent.safe_text import near, problem, quoted, shown
from agent.task import checks
from agent.task.agent_texts import TEXTS_FOLDER, how_to_write, program_faults, rollouts_of, text_faults, text_files
from agent.task.checks import CONVERSATION_FORMATS, DEMO_TECHNIQUES, TOOL_FORMATS, Fault
from agent.task.documents import read_documents
from agent.task.examples import (
    PlacedExample,
    RowReader,
    conversation_text,
    find_clashes,
    goal_text,
    json_checker,
    script_text,
)
from agent.task.judge_files import read_rubric
from agent.task.tables import TEXT_CELLS, read_rows
from agent.task.tools import FUNCTIONS, accepted_checker, calls_checker, read_tools, tools_in_source
from agent.types import (
    SPLITS,
    Constraints,
    Drift,
    Field,
    Rubric,
    SearchSpace,
    Signature,
    SimulatedUser,
    SplitName,
    Task,
    Tool,
    calls_schema,
)

if TYPE_CHECKING:
    from agent.task.schema import FieldTable

METRIC_FIX = "write def metric(example, prediction)"


def load_task(path: str | Path, documents: Path | None = None) -> Task:
    """Load a task from its folder or task.toml, with the SHA-256 of its files.

    `documents` replaces the path under [knowledge] and may be anywhere. Raises ProblemsError with every problem at its
    `file:line`, and nothing else for any content of the folder.
    """
    folder = _folder(Path(path))
    return _Loading(folder, documents).task()


def _folder(path: Path) -> Path:
    folder = path.parent if path.name == "task.toml" else path
    try:
        if folder.is_dir():
            return folder
        near_by = sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
    except (OSError, ValueError):
        near_by = []
    raise ProblemsError((problem(shown(folder), 1, f"no such task folder{near(folder.name, near_by)}"),))


class _Loading:
    def __init__(self, folder: Path, documents: Path | None) -> None:
        self.folder = folder
        self.documents = None if documents is None else documents.resolve()
        self.problems: list[Problem] = []
        self.faults: list[Fault] = []  # of task.toml
        self.hashes: dict[str, str] = {}
        self.tools: tuple[Tool, ...] = ()
        self.unsure: frozenset[str] = frozenset()  # fields whose definition is wrong

    def task(self) -> Task:
        from agent.task.task_file import parse

        toml = self.folder / "task.toml"
        text = self._text(toml.name)
        raw = parse_toml(text, shown(toml))
        self.parsed = parsed = parse(raw)
        self.file = parsed.file
        self.is_played = "conversation" in self.file.model_fields_set
        self.faults = [*checks.find_nul(raw), *parsed.faults]
        signature = self._signature()
        self.faults += [*self._metrics(signature), *self._program()]
        lines = TomlLines(text)
        places = sorted((lines.of(fault.path, fault.holding), fault.what) for fault in self.faults)
        self.problems[:0] = [problem(shown(toml), line, what) for line, what in places]
        rubrics, knowledge = self._rubrics(), self._knowledge()
        splits = self._splits(signature, knowledge)
        for name in ("rubric.md", "labels.jsonl"):  # hashed, as the splits are made from labels
            if (self.folder / name).exists() and name not in self.hashes:
                with self._noting():
                    self._text(name)
        if self.problems or signature is None:
            raise ProblemsError(tuple(self.problems))
        return self._build(signature, splits, rubrics, knowledge)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except ProblemsError as error:
            self.problems += error.problems

    def _bytes(self, name: str, key: str | None = None) -> bytes:
        data = read_bytes(self.folder / name, self.folder)
        if key != "":  # "" is not hashed
            self.hashes[key or name] = hashlib.sha256(data).hexdigest()
        return data

    def _problem(self, name: str, what: str) -> None:
        self.problems.append(problem(shown(self.folder / name), 1, what))

    def _text(self, name: str, key: str | None = None) -> str:
        return decoded(self._bytes(name, key), shown(self.folder / name))

    def _signature(self) -> Signature | None:
        parsed, inputs, outputs = self.parsed, tuple[str, ...](), tuple[str, ...]()
        try:
            if not parsed.doubts("signature"):
                inputs, outputs = checks.parse_signature(self.file.signature)
        except ValueError as error:
            self.faults.append(Fault(("signature",), str(error)))
        found = list(checks.check_keys(parsed, inputs, outputs))
        self._tools()
        fields = {}
        for name in inputs + outputs:
            table = self.file.fields.get(name)
            try:
                fields[name] = self._field(name, table)
                if name in inputs and self.file.conversation.user:
                    fields[name] = replace(fields[name], type="conversation")
            except ValueError as error:
                fields[name] = Field(name, "json")
                found.append(Fault(("fields", name, "schema"), f"schema: {error}"))
        self.faults += found
        if not inputs:
            return None
        unsure = {name for name in fields if parsed.doubts("fields", name)}
        self.unsure = frozenset(unsure | {str(fault.path[1]) for fault in found if fault.path[0] == "fields"})
        return Signature(tuple(fields[n] for n in inputs), tuple(fields[n] for n in outputs))

    def _field(self, name: str, table: FieldTable | None) -> Field:
        if table is None:
            return Field(name)
        schema: Any = table.schema_
        if schema is None and table.type == "json" and self.tools:
            return Field(name, table.type, table.description, (), calls_schema(self.tools))
        if schema is None or table.type != "json":
            limits = (table.min_words, table.max_words, tuple(table.forbidden), tuple(table.required))
            return Field(name, table.type, table.description, tuple(table.choices), None, *limits, table.optional)
        if isinstance(schema, str):
            text: str | None = None
            with self._noting():
                text = self._text(schema, key="")  # not hashed, as it is a part of the signature
            if text is None:
                raise ValueError(f"the file {quoted(schema)} cannot be used; correct it or its name")
            schema = parse_data(text)
        if not isinstance(schema, dict | bool):
            raise ValueError(f"{quoted(schema)} is not a JSON schema; write an object")
        try:
            as_json = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"cannot be written as JSON ({error}); use texts and finite numbers") from error
        json_checker(as_json)
        return Field(name, table.type, table.description, (), as_json)

    def _tools(self) -> None:
        value = self.file.tools
        if value is None or self.parsed.doubts("tools"):
            return
        tools, wrong = tuple[Tool, ...](), list[str]()
        if not isinstance(value, str):
            tools, wrong = read_tools(value, own=True)
            self.faults += [Fault(("tools",), what) for what in wrong]
        else:
            functions = FUNCTIONS.fullmatch(value)
            name = functions["file"] if functions else value
            with self._noting():
                try:
                    if functions:
                        given: Any = tools_in_source(self.folder / name, functions["names"], self._bytes(name))
                    else:
                        given = parse_data(self._text(name))
                    tools, wrong = read_tools(given)
                except ValueError as error:
                    wrong = [f"is not JSON: {error}"]
            for what in wrong:
                self._problem(name, what)
        self.tools = () if wrong else tools

    def _label_checkers(self, signature: Signature) -> dict[str, Callable[[Any], str]]:
        from agent.metrics.tool_calls import CallOptions

        first = signature.outputs[0].name
        metrics = list(zip(self.file.metrics, self.parsed.options, strict=True))
        excluding = {metric.field or first for metric, _ in metrics if METRICS.get(metric.name).excludes}
        accepted = {
            metric.field or first
            for metric, options in metrics
            if isinstance(options, CallOptions) and options.accepted
        }
        checkers: dict[str, Callable[[Any], str]] = {}
        for field in signature.outputs:
            if field.type == "json" and field.name not in self.unsure:
                if self.tools and self.file.fields[field.name].schema_ is None:
                    checkers[field.name] = calls_checker(self.tools, field.name in accepted, field.name in excluding)
                elif field.name in accepted:
                    checkers[field.name] = accepted_checker(field.schema)
        return checkers

    def _metrics(self, signature: Signature | None) -> Iterator[Fault]:
        parsed = self.parsed
        if signature is not None and ("metrics",) not in parsed.broken:
            yield from checks.check_metrics(parsed, signature.outputs, self.unsure)
        for metric in self.file.metrics:
            if (origin := METRICS.origin(metric.name)) != OURS:  # another version may score differently
                self.hashes[f"metric {metric.name}"] = hashlib.sha256(origin.encode()).hexdigest()
        present = (self.folder / "metric.py").exists()
        for index, metric in enumerate(self.file.metrics):
            if metric.name == "python" and not present and ("metrics", index, "name") not in parsed.broken:
                yield Fault(("metrics", index), f"the metric python needs metric.py; {METRIC_FIX}")
        if present:
            with self._noting():
                checks.function_in(self._text("metric.py"), "metric", shown(self.folder / "metric.py"), METRIC_FIX, 2)

    def _rubrics(self) -> dict[str, Rubric]:
        found: dict[str, Rubric] = {}
        from agent.metrics.reference_free import JudgeOptions

        judges = [each for each in self.parsed.options if isinstance(each, JudgeOptions) and not each.judge]
        for name in dict.fromkeys(judge.rubric for judge in judges):
            here = (self.folder / name).exists()
            asked = any(j.rubric == name and (j.mode == "rubric" or "rubric" in j.model_fields_set) for j in judges)
            if not here and not asked:
                continue
            with self._noting():
                if here:
                    found[name] = read_rubric(self._text(name), shown(self.folder / name))
                else:
                    self._problem(name, "no such file, and a judge needs it; write what makes an answer good")
        return found

    def _knowledge(self) -> Knowledge | None:
        table = self.file.knowledge
        if table.path is None:
            return None
        documents, self.hashes["knowledge"], problems = read_documents(table.path, self.folder, self.documents)
        self.problems += problems
        return Knowledge(documents, table.source or "", table.unanswerable or "")

    def _program(self) -> Iterator[Fault]:
        files = text_files(self.folder / TEXTS_FOLDER)
        self.texts, self.rollouts = dict(self.file.texts), rollouts_of(self.file)
        for name, path in files.items():
            with self._noting():
                text = self._text(f"{TEXTS_FOLDER}/{path.name}")
                self.texts.setdefault(name, text)
                for what in text_faults({name: text}):
                    self._problem(f"{TEXTS_FOLDER}/{path.name}", what)
        faults = () if self.parsed.doubts("program") else program_faults(self.file, self.texts, bool(files))
        yield from (Fault(tuple(place.split(".")), what) for place, what in faults if not self.parsed.doubts(place))
        named = self.file.program if self.rollouts is None else self.rollouts.run
        if not isinstance(named, str) or not named:
            return
        module, function = named.split(":")
        name = f"{module.removesuffix('.py')}.py"
        if not (self.folder / name).exists():
            yield Fault(("program",), f"program = {quoted(named)} needs {name} in the task folder")
        else:
            with self._noting():
                is_agent = self.rollouts is not None
                made = f"write def {function}() for a DSPy module, or def {function}(model) for a LangChain chain"
                fix = how_to_write(function) if is_agent else made
                source, where = self._text(name), shown(self.folder / name)
                checks.function_in(source, function, where, fix, 3 if is_agent else None, may_wait=is_agent)

    def _splits(self, signature: Signature | None, knowledge: Knowledge | None) -> list[list[PlacedExample]]:
        reader = None
        if signature is not None:
            checkers = self._label_checkers(signature)
            played = goal_text if self.file.conversation.user else script_text
            read = played if self.is_played else conversation_text
            reader = RowReader(signature, self.file.slices, knowledge, self.unsure, read, checkers)
        files = [self._split_name(split) for split in SPLITS]
        splits: list[list[PlacedExample]] = []
        for split, name in zip(SPLITS, files, strict=True):
            path = self.folder / (name or f"{split}.jsonl")
            data = None
            with self._noting():
                data = self._bytes(name, split) if name else None
            if data is None:
                continue
            if name and files.count(name) > 1:
                self._problem(name, "is the file of two splits; give each split its own file")
                continue
            rows, problems = read_rows(path, data)
            if not rows and not problems:
                problems = [problem(shown(path), 1, f"no rows; the {split} split needs at least one")]
            if reader is not None:
                placed, wrong = reader.examples(rows, shown(path), path.suffix.lower() in TEXT_CELLS)
                problems += wrong
                splits.append(placed)
            self.problems += sorted(problems, key=lambda each: int(each.where.rsplit(":", 1)[1]))
        self.problems += find_clashes(splits)
        return splits

    def _split_name(self, split: SplitName) -> str | None:
        if (name := getattr(self.file.splits, split)) is not None:
            return str(name)
        found = [name for name in (f"{split}.jsonl", f"{split}.csv") if (self.folder / name).exists()]
        if len(found) == 1:
            return found[0]
        what = "no such file; write it, as .jsonl or .csv"
        if found:
            what = f"{split}.csv exists, too; remove one or name the right one under [splits]"
        elif (self.folder / "unlabelled.jsonl").exists():
            what = f"not written yet; `optimize label {self.folder.name}` makes it from your labels"
        self._problem(f"{split}.jsonl", what)
        return None

    def _build(
        self,
        signature: Signature,
        splits: list[list[PlacedExample]],
        rubrics: dict[str, Rubric],
        knowledge: Knowledge | None,
    ) -> Task:
        file, is_played = self.file, self.is_played
        train, dev, test = (tuple(row.example for row in placed) for placed in splits)
        search, limits, models, talk = file.search, file.constraints, file.models, file.conversation
        left_out = checks.without_dspy(search.formats)
        usable = set(TOOL_FORMATS) if self.tools else set(search.formats) - set(left_out)
        if signature.conversation:
            usable &= set(CONVERSATION_FORMATS)
        techniques = [name for name in search.techniques if not is_played or name not in DEMO_TECHNIQUES]
        user = SimulatedUser(talk.user or "", talk.prompt or "", talk.max_turns, talk.stop, talk.reply_tokens)
        return Task(
            name=file.name,
            description=file.description,
            signature=signature,
            instruction=checks.PLACEHOLDER.sub(lambda mark: f"{{{{{mark[1]}}}}}", file.instruction.strip())
            or "\n\n".join(self.texts.values()),
            metrics=checks.metric_specs(self.parsed, signature.outputs),
            space=SearchSpace(
                tuple(techniques),
                tuple(name for name in search.formats if name in usable),
                tuple(sorted(search.demo_counts)),
                tuple(search.roles),
                left_out,
                search.retrieval and not is_played,
                search.embeddings or "",
                search.descriptions_only,
                search.shape,
            ),
            constraints=Constraints(limits.max_prompt_tokens, limits.max_examples, tuple(limits.forbidden)),
            train=train,
            dev=dev,
            test=test,
            folder=str(self.folder),
            model=models.model or "",
            proposer=models.proposer or models.model or "",
            max_tokens=models.max_tokens,
            thinking=models.thinking,
            program=str(self.rollouts) if self.rollouts else str(file.program),
            texts=self.texts,
            rollouts=self.rollouts,
            judges=tuple([models.judge] if isinstance(models.judge, str) else models.judge or ()),
            rubrics=rubrics,
            slices=tuple(file.slices),
            repeats=file.repeats,
            human_score=file.human_score,
            run=file.run,
            defaults=self.parsed.defaults,
            precision=file.calibration.precision,
            monitor=Drift(**file.monitor.model_dump()),
            knowledge=knowledge,
            tools=self.tools,
            user=user if is_played else None,
            hashes=self.hashes,
        )
