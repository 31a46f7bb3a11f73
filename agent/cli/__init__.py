"""The command line: parse, call, print. Heavy packages are imported by the command that needs them."""

from __future__ import annotations

import gc
import os
import sys
from functools import cache
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import click

from agent.errors import AgentError, Interrupted
from agent.jobs import JOBS
from agent.registry import OURS
from agent.safe_text import plain

GROUPS = {
    "Start": {"demo": "See a whole run in seconds: no model, no key, no network."},
    "Search": {
        "run": "Search for the best prompt of TASK and test it.",
        "resume": "Continue a run that did not finish.",
        "text": "Optimize a text file, such as AGENTS.md, by the scores of your own command.",
        "migrate": "Move a released prompt to another model, and show that it is not worse.",
        "transfer": "Score a run's best prompts on other models.",
        "batch": "List batches of calls at providers, or cancel those of a run.",
        "sweep": "Run tasks x models x strategies x seeds from one file, here or on a Ray cluster.",
        "customize": "Compare prompts, trained adapters and no language model on one sealed test.",
    },
    "Look": {
        "runs": "List the runs in the ledger.",
        "show": "Show a run: its winner, what changed, what it cost.",
        "history": "Show the trials of a run: instruction, examples, technique, score, cost; or search all texts.",
        "report": "Write a run as one HTML file.",
        "compare": "Compare two runs or two trials: options, scores, cost, text, and a paired test.",
        "ui": "Show the ledger in the browser, on this machine only.",
    },
    "Ship": {
        "export": "Write a run's prompt in the format of your program.",
        "promote": "Ship a run's winner if it passes the gate.",
        "rollback": "Point an alias back to its previous version.",
        "load": "Print the prompt behind an alias, as a program would load it.",
        "aliases": "List the aliases, or the history of a name.",
        "apply": "Run a released prompt on each row of a file, and write the answers.",
    },
    "Watch": {
        "check": "Run a released prompt on its regression suite; fails on regression.",
        "bless": "Record a released prompt's current answers as its regression suite.",
        "monitor": "Compare a log of production answers with the reference; fails on drift.",
        "ab": "Evaluate an A/B test, at any time.",
        "learn": "Add corrected production answers to a task's train rows, as a new version of it.",
    },
    "Audit": {
        "audit": "Check, read, export and erase from the ledger.",
        "ledger": "Merge ledgers into one; publish finished runs into a team's ledger.",
        "reproduce": "Replay a run from its stored replies and report every difference.",
    },
    "Set-up": {
        "init": "Make a task folder from your file, or copy a sample.",
        "label": "Label rows of a task with single keys, in the terminal or in the browser.",
        "tasks": "List the tasks here, or check one.",
        "metrics": "List the metrics that a task may name.",
        "tools": "Import tools from an OpenAPI file or an MCP server, for a task that calls them.",
        "models": "List models, or fetch the embedded one.",
        "judge": "Measure a judge against people, improve it, and collect blinded ratings.",
        "doctor": "Check this machine: Python, SQLite, model, keys, ledger.",
    },
}
"""The commands by heading of the help, each with a summary."""
EVERYDAY = ("demo", "init", "run", "resume", "show", "report", "ui", "export", "promote", "check", "doctor")
"""The commands that the short help shows."""
HELP = {name: about for commands in GROUPS.values() for name, about in commands.items()}
FAMILIES = ("batch", "ledger", "metrics", "models", "audit", "ab", "judge")
"""Groups of commands of two words."""
_WIDEST = max(map(len, HELP))
SETTINGS = {"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "OPTIMIZE"}
OTHERS = "Of other packages"
SKILL = Path(__file__).with_name("SKILL.md")
"""A skill for coding agents; copied into a folder of skills it works as it is."""
SHOW_ALL = "promptassay.show_all"
"""The key of a click context whose help shows everything."""


def _of_others() -> list[str]:
    return [name for name in JOBS.names() if JOBS.origin(name) != OURS]


def _loaded(name: str) -> click.Command | None:
    if name == "ui":  # the one command that is not a job
        from agent.cli.ui import ui_command

        return ui_command
    from agent.cli.declared import JobGroup, job_command

    if name in FAMILIES:
        return JobGroup(name, help=HELP[name], context_settings=SETTINGS)
    return job_command(JOBS.get(name)) if name in JOBS else None


_freeze = cache(gc.freeze)  # once in a process, as what is frozen is never freed


class _Commands(click.Group):
    """Loads a command on demand; a first word that is not a command is a task to run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*HELP, *_of_others()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        searches = gc.isenabled()
        gc.disable()  # what is imported stays: looking for garbage in it takes a sixth of the start
        try:
            return _loaded(cmd_name)
        finally:
            _freeze()
            if searches:
                gc.enable()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if ctx.meta.get(SHOW_ALL):
            super().format_options(ctx, formatter)
        else:
            self.format_commands(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if ctx.meta.get(SHOW_ALL):
            for heading, commands in GROUPS.items():
                with formatter.section(heading):
                    formatter.write_dl([(f"{name:<{_WIDEST}}", about) for name, about in commands.items()])
            if others := [(one.name, one.thing.summary if one.thing else one.fault) for one in JOBS.all(_of_others())]:
                with formatter.section(OTHERS):
                    formatter.write_dl([(f"{name:<{_WIDEST}}", about) for name, about in others])
            return
        with formatter.section("Every day"):
            formatter.write_dl([(f"{name:<{_WIDEST}}", HELP[name]) for name in EVERYDAY])
        more = {
            heading: ", ".join(name for name in commands if name not in EVERYDAY)
            for heading, commands in GROUPS.items()
        }
        more[OTHERS] = ", ".join(_of_others())
        with formatter.section("More (optimize --help-all)"):
            formatter.write_dl([(f"{heading:<{_WIDEST}}", names) for heading, names in more.items() if names])

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:
            raise  # click ends quietly
        except OSError as error:  # `-h` and `--version` are printed here
            _end_unwritten(error)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = next((number for number, word in enumerate(args) if word != "--debug"), len(args))
        if (
            own < len(args)
            and args[own].startswith("-")
            and args[own] not in {"-h", "--help", "--help-all", "--version", "--llms"}
        ):
            args = [*args[:own], "run", *args[own:]]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from agent.cli.common import require_first_word

        if args[0] not in HELP and args[0] not in JOBS:
            if not ctx.resilient_parsing:  # while the shell completes a word
                require_first_word(args[0], self.list_commands(ctx))
            args = ["run", *args]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        _prepare_streams()
        try:
            return super().invoke(ctx)
        except AgentError as error:
            _traced(ctx)
            mark = "" if isinstance(error, Interrupted) else "error: "
            for line in str(error).split("\n"):
                click.echo(f"{mark}{plain(line)}", err=True)
            if error.hint:
                click.echo(error.hint, err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(Interrupted.exit_code)
        except BrokenPipeError:
            sys.stderr.close()
            os._exit(1)
        except OSError as error:
            _traced(ctx)
            _end_unwritten(error)


def _traced(ctx: click.Context) -> None:
    if ctx.params.get("debug"):
        import traceback

        traceback.print_exc()


def _end_unwritten(error: OSError) -> NoReturn:
    where = f"{error.filename}: " if error.filename else ""
    what = f"{where}{error.strerror or str(error) or type(error).__name__}"
    hint = "make room or choose another place (TMPDIR names that of temporary files)"
    click.echo(f"error: {plain(what)}; {hint}", err=True)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try it again at its end, and complain
        os._exit(1)
    raise SystemExit(1)


class _DroppingIO(FileIO):
    """Drops output that can no longer be written, after the terminal or pipe was closed."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _prepare_streams() -> None:
    # A closed stream, or a stderr that closes later, must not end a run. A result that cannot be written is an error.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    if isinstance(sys.stderr, TextIOWrapper) and sys.stderr is sys.__stderr__:
        raw = _DroppingIO(sys.stderr.fileno(), "w", closefd=False)
        sys.stderr = TextIOWrapper(BufferedWriter(raw), sys.stderr.encoding, sys.stderr.errors, line_buffering=True)
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def show_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the whole help and exit."""
    if value and not ctx.resilient_parsing:
        ctx.meta[SHOW_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def for_agents(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the page for coding agents and exit."""
    if value and not ctx.resilient_parsing:
        _, _, page = SKILL.read_text("utf-8").split("---\n", 2)
        click.echo(page.strip())
        ctx.exit()


@click.group(cls=_Commands, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="promptassay", prog_name="optimize")
@click.option(
    "--help-all",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_all,
    help="Show every command and exit.",
)
@click.option(
    "--llms",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=for_agents,
    help="Print a page of text for coding agents and exit.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks of our own errors.", envvar="OPTIMIZE_DEBUG")
def main(debug: bool) -> None:
    """Find the best prompt that a budget buys, and prove how much better it is.

    \b
    optimize demo                       see a whole run in seconds
    optimize support_triage             run a task under tasks/
    optimize run data.csv --target label --prompt prompt.txt
    """
