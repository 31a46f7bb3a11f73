"""The options of a data file: `--metric`, `--type`, `--input`, `--ignore`, `--knowledge`, `--tools`, `--encoding`,
`--sheet` and `--strip-html`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.metrics.metric_registry import METRICS
from agent.task.tables import AS_IT_IS, FileForm
from agent.task.words import listed, near, quoted
from agent.types import FieldType, MetricSpec, Tool

if TYPE_CHECKING:
    from agent.options.shared import ScoredOptions


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed. `knowledge`: the folder of the documents, or ""; `tools`: those that the answers call."""

    metric: str = ""
    type: FieldType | None = None
    inputs: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    knowledge: str = ""
    tools: tuple[Tool, ...] = ()
    form: FileForm = AS_IT_IS

    @classmethod
    def of(cls, options: ScoredOptions, with_metric: bool = True) -> Asked:
        """Read the options of a run; a Python function that scores is no option of the file."""
        return cls(
            (options.metric or "") if with_metric else "",
            options.type,
            tuple(options.input),
            tuple(options.ignore),
            form=FileForm.of(options),
        )

    @property
    def is_any(self) -> bool:
        """Whether an option was given."""
        return bool(self.metric or self.type or self.inputs or self.ignored)


NOTHING = Asked()


def metric_asked(text: str, outputs: Sequence[str]) -> MetricSpec:
    """Return the metric that `NAME[:FIELD][,k=v]` names, with options of the right types.

    Raises:
        InputError: No such metric, output or option, or a value that the metric refuses.
    """
    head, *pairs = text.split(",")
    name, _, field = head.strip().partition(":")
    try:
        rule = METRICS.get(name)
    except InputError as error:
        raise InputError(f"--metric {text}: {error}") from None
    if field and field not in outputs:
        raise InputError(f"--metric {text}: {quoted(field)} is not an output{near(field, outputs)}")
    if not field and len(outputs) > 1:
        raise InputError(f"--metric {text}: which output? write {name}:FIELD with one of {listed(outputs)}")
    given: dict[str, str] = {}
    key = ""
    for pair in pairs:
        new, equals, value = pair.partition("=")
        if equals:
            key = new.strip()
            given[key] = value
        elif key:  # a comma within a value
            given[key] += f",{pair}"
        else:
            raise InputError(f"--metric {text}: {quoted(pair)} is no option; write NAME,option=value")
    options: dict[str, Any] = {}
    for key, value in given.items():
        if key not in rule.options.model_fields:
            known = listed(rule.options.model_fields) or "none"
            raise InputError(f"--metric {text}: the metric {name} has no option {quoted(key)}; its options: {known}")
        options[key] = _value(rule.options, key, value, text)
    checked = rule.options.model_validate(options)
    if rule.needs and not any(need in options for need in rule.needs):
        raise InputError(
            f"--metric {text}: the metric {name} needs {' or '.join(rule.needs)}; write {name},OPTION=VALUE"
        )
    if fault := next(iter(rule.faults(checked, None)), None):
        raise InputError(f"--metric {text}: {fault[1]}")
    return MetricSpec(name, field or outputs[0], options=options)


def _value(options: Any, key: str, text: str, whole: str) -> Any:
    """An option's value: as a number, true or false where the metric takes it, else as the text or its parts."""
    from pydantic import ValidationError

    said = ""
    for read in (json.loads, str, lambda text: [part.strip() for part in text.split(",")]):
        try:
            value = read(text)
            options.model_validate({key: value})
        except ValidationError as error:
            said = said or error.errors()[0]["msg"].removeprefix("Input ")
        except ValueError:
            continue
        else:
            return value
    raise InputError(f"--metric {whole}: {key} = {quoted(text)}: {said[:1].lower()}{said[1:]}")
