"""Click commands made of declared jobs, and click options of declared options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import click
from click.core import ParameterSource

from agent.cli import SHOW_ALL, show_all
from agent.cli.common import PATH, SETTINGS, FilePath, Registered, completions, print_shown
from agent.jobs import JOBS
from agent.jobs.registry import JobSpec
from agent.options.option import JobOptions, Option, with_names
from agent.options.shared import GROUPS, OUTPUT, JsonOption, QuietOption, TrackOptions, in_order

WIDEST = 26
"""Columns for the names in a help text; longer names get a separate line."""
SHORT = 20
"""The most options for which `--help` shows all."""
UNGROUPED, PLAIN = 8, "Options"
"""The most options in one ungrouped list, and its heading."""
UNGIVEN = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)
FILES = {"db": FilePath(is_file=True)}


class OptionType(click.ParamType[Any]):
    """The value of a declared option, refused in the same words as everywhere."""

    def __init__(self, model: type[JobOptions], option: Option) -> None:
        self.name, self._model, self._option = option.name, model, option

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return f"[{'|'.join(self._option.choices)}]" if self._option.choices else None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            parsed = self._option.parse(value)
        except ValueError:
            parsed = value
        if self._option.is_repeatable:
            if parsed is value and self._option.reading is not None:
                self.fail(f"{value!r}: {self._option.expected()}", param, ctx)
            return parsed
        if wrong := self._model.problems({self._option.name: parsed}).get(self._option.name):
            self.fail(wrong, param, ctx)
        return parsed

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return completions(self._option.choices, incomplete)


class JobCommand(click.Command):
    """A command with grouped options; a long `--help` shows only the everyday ones."""

    groups: Mapping[str, str]
    everyday: frozenset[str]
    home: str
    """The heading of `--help`."""
    listed: tuple[str, Callable[[], Iterable[tuple[str, str]]]] | None = None
    """A list at the end of the help, made on demand."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.listed is not None:
            heading, lines = self.listed
            with formatter.section(heading):
                formatter.write_dl([*lines()])

    @property
    def is_long(self) -> bool:
        """Whether `--help` leaves options to `--help-all`."""
        return len(self.groups) > SHORT

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shows_all = ctx.meta.get(SHOW_ALL, False) or not self.is_long
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in GROUPS}
        hidden = 0
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is None:
                continue
            name = str(option.name)
            if shows_all or name in self.everyday or name not in self.groups:
                names, about = record
                shown = about if shows_all else _first_sentence(about)
                sections.setdefault(self.groups.get(name, self.home), []).append((names, shown))
            else:
                hidden += 1
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl([(f"{names:<{WIDEST}}", about) for names, about in records], col_max=WIDEST)
        if hidden:
            formatter.write_paragraph()
            formatter.write_text(f"{hidden} more options: {ctx.command_path} --help-all")


def _first_sentence(about: str) -> str:
    end, default = re.search(r"\.(?= |$)", about), re.search(r"  \[default: [^]]*\]$", about)
    return (about[: end.end()] if end else about) + (default[0] if default and end else "")


def command(
    *models: type[JobOptions], types: Mapping[str, click.ParamType[Any]] | None = None, **changes: Mapping[str, Any]
) -> Callable[[Callable[..., None]], JobCommand]:
    """Make a command from a function of one instance of each model, then its arguments.

    Args:
        models: the options; a name that two of them declare is passed to both.
        types: click types by option, such as the names in a registry.
        changes: other click keywords by option.
    """

    def made(function: Callable[..., None]) -> JobCommand:
        @wraps(function)
        def called(**values: Any) -> None:
            ctx = click.get_current_context()
            given = {name: value for name, value in values.items() if ctx.get_parameter_source(name) not in UNGIVEN}
            parts = [model.given(_values(model, given), model.spelled) for model in models]
            names = {_click_name(option) for model in models for option in model.declared().values()}
            function(*parts, **{name: value for name, value in values.items() if name not in names})

        options: dict[str, tuple[type[JobOptions], Option]] = {}
        for model in models:
            for option in model.declared().values():
                options.setdefault(option.name, (model, option))
        ordered = [*options.values()]
        is_plain = len(ordered) <= UNGROUPED or any(not option.group for _, option in ordered)
        if not is_plain:
            ordered = [options[option.name] for option in in_order(option for _, option in ordered)]
        arguments = getattr(function, "__click_params__", [])
        every = click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=show_all,
            help="Show every option and exit.",
        )
        params = [_click_option(model, option, types or {}, changes) for model, option in ordered]
        result = JobCommand(
            None,
            callback=called,
            help=function.__doc__,
            context_settings=SETTINGS,
            params=[*reversed(arguments), *params, *([every] if len(params) > SHORT else [])],
        )
        result.home = PLAIN if is_plain else OUTPUT
        result.groups = {_click_name(option): PLAIN if is_plain else option.group for _, option in ordered}
        result.everyday = frozenset(_click_name(option) for _, option in ordered if option.is_everyday)
        return result

    return made


class _WholeText(click.types.StringParamType):
    """A text whose environment variable is one value, blanks included, even if the option is repeatable."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


class _ListedOption(click.Option):
    """An option whose help shows one long name; it also takes that of its argument in Python."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None or self.is_flag:
            return record
        first = next(name for name in self.opts if name.startswith("--"))
        names = record[0]
        for name in self.opts[self.opts.index(first) + 1 :]:
            names = names.replace(f", {name}", "")
        return names, record[1]


def _single_model(ctx: click.Context, option: click.Parameter, names: tuple[str, ...]) -> str | None:
    if len(names) > 1:
        raise click.BadParameter("a run prompts one model; `optimize transfer` scores its best prompts on others")
    return names[0] if names else None


CHANGES: Mapping[str, Mapping[str, Any]] = {
    "customize": {"ray": {"is_flag": False, "flag_value": "local"}},
    "run": {"model": {"type": _WholeText(), "multiple": True, "callback": _single_model}},
    "report": {"output": {"type": FilePath(allows_stdout=True)}},
}
"""Click keywords by command and option."""


def job_command(spec: JobSpec) -> click.Command:
    """Make the command of a job: arguments, options, `--json`, and `--quiet` if it asks models."""

    def called(*parts: Any, **arguments: Any) -> None:
        output = parts[-1] if shown else JsonOption()
        if spec.makes_work or spec.takes_observer:
            from agent.cli.carry_out import carry_out  # here, as it loads what only jobs that ask models need

            code = carry_out(spec, parts, arguments, output)
        else:
            code = print_shown(spec.begin(arguments, parts, as_json=output.as_json), output.as_json)
        if code:
            raise SystemExit(code)

    called.__doc__ = spec.about
    called.__click_params__ = [_argument(each) for each in reversed(spec.arguments)]  # type: ignore[attr-defined]
    shown: list[type[JobOptions]] = [TrackOptions] if spec.tracks else []
    if spec.has_json:
        shown.append(QuietOption if spec.makes_work or spec.takes_observer else JsonOption)
    types = {name: Registered(registry) for name, registry in spec.registries.items()}
    changes: dict[str, Any] = {**CHANGES.get(spec.name, {}), **{name: {"required": True} for name in spec.required}}
    changes |= {name: {"allow_from_autoenv": False} for name in spec.typed}
    made = command(*spec.models.values(), *shown, types=types, **changes)(called)
    made.listed = spec.listed
    return made


class JobGroup(click.Group):
    """The commands of jobs whose first word is its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        jobs = [word for first, _, word in (name.partition(" ") for name in JOBS.names()) if first == self.name]
        return sorted(jobs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = f"{self.name} {cmd_name}"
        return job_command(JOBS.get(name)) if name in JOBS else None


def _argument(parameter: inspect.Parameter) -> click.Argument:
    kind, *notes = (
        get_args(parameter.annotation) if get_origin(parameter.annotation) is Annotated else [parameter.annotation]
    )
    about: dict[str, Any] = {"metavar": notes[0]} if notes else {}
    if parameter.default is not inspect.Parameter.empty:
        about |= {"required": False, "default": parameter.default}
    if get_origin(kind) is tuple:
        about |= {"nargs": -1, "required": True}
    if Path in (kind, *get_args(kind)):
        about["type"] = PATH
    return click.Argument([parameter.name], **about)


def _click_name(option: Option) -> str:
    return option.flag.removeprefix("--").replace("-", "_") if option.field.default is True else option.name


def _values(model: type[JobOptions], given: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, option in model.declared().items():
        if (at := _click_name(option)) in given:
            found[name] = not given[at] if option.field.default is True else given[at]
    return found


def _click_option(
    model: type[JobOptions],
    option: Option,
    types: Mapping[str, click.ParamType[Any]],
    changes: Mapping[str, Mapping[str, Any]],
) -> click.Option:
    short, alias = [option.short] * bool(option.short), f"--{option.name.replace('_', '-')}"
    unlisted = [alias] * (option.kind is not bool and alias != option.flag)
    names = [*short, option.flag, *unlisted, _click_name(option)]
    about: dict[str, Any] = {"help": _help(model, option.help)}
    default = option.field.default
    if option.kind is bool:
        about["is_flag"] = True
    else:
        usual = FILES.get(option.name, PATH) if option.kind is Path else OptionType(model, option)
        about |= {"type": types.get(option.name, usual), "multiple": option.is_repeatable}
        if option.metavar and option.name not in types:
            about["metavar"] = option.metavar
        if default is not None and default != "" and not option.is_repeatable and default != ():
            about |= {"default": default, "show_default": True}
    return _ListedOption(names, **{**about, **changes.get(option.name, {})})


def _help(model: type[JobOptions], text: str) -> str:
    known = model.declared()
    return with_names(text, lambda name: known[name].flag if name in known else f"{{{name}}}")
