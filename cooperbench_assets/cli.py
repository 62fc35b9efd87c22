"""The command line: one group that knows its commands by name and imports each only when it is called.

What belongs here: the group, its exit codes, and how errors reach a person. What does not: what a command does
(``commands``). Importing Dagster takes seconds, so nothing here, and no module of a command at its top, may import
it, the harness or litellm.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import sys
import traceback
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import click

from cooperbench_assets import __version__
from cooperbench_assets.errors import UserError

NOT_IN_ORDER: Final = 1
"""Exit code: the command was carried out, and says that something is not in order."""

NOT_DONE: Final = 3
"""Exit code: the command could not be carried out; standard error says why."""

OBJECTS_BEFORE_COLLECTION: Final = 50_000
"""Python's own 700 has it look through all that imports made some thirty times before the first line is printed."""

STANDARD_ERROR: Final = 2
"""Its descriptor: where a crash is told of nothing else works any more."""

INTERRUPTED: Final = 130
"""Exit code: Ctrl-C, as a shell reports it."""


class CannotError(click.ClickException):
    """A command cannot be carried out: one sentence on standard error, no traceback."""

    exit_code: ClassVar[int] = NOT_DONE


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command that is not imported yet."""

    target: str
    """module:attribute."""

    summary: str
    """First sentence of its help, so that the group's help needs no import."""


COMMANDS: Final = {
    "demo": Lazy(
        "cooperbench_assets.commands.demo:demo",
        "Run the built-in experiment: scripted agents, real tests, no engine, key or network.",
    ),
    "import-logs": Lazy(
        "cooperbench_assets.commands.import_logs:import_logs",
        "Make an experiment of runs that exist, or adopt them.",
    ),
    "materialize": Lazy(
        "cooperbench_assets.commands.materialize:materialize",
        "Bring an experiment's cells and its results store up to date.",
    ),
    "status": Lazy(
        "cooperbench_assets.commands.status:status",
        "Show every cell: what is planned, what is there, what came out.",
    ),
    "report": Lazy(
        "cooperbench_assets.commands.report:report", "Make figures and one self-contained page of the results."
    ),
    "view": Lazy(
        "cooperbench_assets.commands.view:view",
        "Show experiments, pairs and transcripts in the browser, or write them as files.",
    ),
    "query": Lazy("cooperbench_assets.commands.query:query", "Ask the results store something, in SQL."),
    "power": Lazy("cooperbench_assets.commands.power:power", "Say how many tasks, pairs and seeds a difference needs."),
    "export": Lazy("cooperbench_assets.commands.export:export", "Write an experiment as one file for co-authors."),
    "import-bundle": Lazy(
        "cooperbench_assets.commands.import_bundle:import_bundle",
        "Take in the cells of a bundle that another machine exported.",
    ),
    "doctor": Lazy(
        "cooperbench_assets.commands.doctor:doctor",
        "Say what is there, what is missing, and what that prevents.",
    ),
    "cleanup": Lazy(
        "cooperbench_assets.commands.cleanup:cleanup",
        "Remove what dead runs have left on the Docker engine.",
    ),
}
"""Every command, in the order of the help."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and whose known errors are one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, without importing any."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None if there is none of that name."""
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        module, _, attribute = lazy.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their summaries, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error that is written for people becomes one sentence on standard error."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nInterrupted", err=True)
            ctx.exit(INTERRUPTED)
        except UserError as error:
            raise CannotError(str(error)) from error


EXIT_CODES = """\b
Exit codes:
  0    done
  1    done, and something is not in order (each command's help says what)
  2    the command line is wrong: an option, an experiment's name, SQL
  3    could not be done; the reason is on standard error
  130  interrupted
"""


@click.group(
    cls=LazyGroup,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="cooperbench-assets")
def cli() -> None:
    """Run and judge CooperBench: run logs, verdicts and one DuckDB results store.

    Every command finds its project by itself: the checkout that the current folder is in, else the one that the
    command was installed from; COOPERBENCH_ASSETS_ROOT names another. Its runs are recorded in the Dagster instance
    that its dagster.yaml describes; COOPERBENCH_ASSETS_INSTANCE names the folder of another dagster.yaml, such as that
    of a deployment. Variables in the project's .env are set, as they are for the UI. Paths are relative to the current
    folder.
    """


def main() -> None:
    """Entry point of the console script; a mistake of ours ends with its traceback and exit code 3."""
    gc.set_threshold(OBJECTS_BEFORE_COLLECTION)
    # A library that crashes the process would end it without a word.
    faulthandler.enable(file=STANDARD_ERROR)
    try:
        cli(prog_name="cooperbench-assets")
    except Exception:
        traceback.print_exc()
        sys.exit(NOT_DONE)


if __name__ == "__main__":
    main()
