"""docs/cli.md, made from the help of the commands: ``python -m cooperbench_assets.commands.docs``.

What belongs here: turning help into a page. What does not: what the help says (the commands).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from cooperbench_assets.cli import cli

PAGE: Final = Path(__file__).parents[2] / "docs" / "cli.md"
WIDTH: Final = 100

HEAD: Final = """# Command line

<!-- Made by `python -m cooperbench_assets.commands.docs` from the commands' own help; a test compares the two. -->

The command is `.venv/bin/cooperbench-assets` after `make .venv`.
"""


def help_of(command: click.Command, name: str, parent: click.Context | None = None) -> str:
    """A command's help as a terminal of a fixed width shows it."""
    with click.Context(command, parent, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH) as context:
        return command.get_help(context)


def page() -> str:
    """The whole page."""
    parts = [HEAD, f"```\n{help_of(cli, 'cooperbench-assets')}\n```\n"]
    with click.Context(cli, info_name="cooperbench-assets") as parent:
        for name in cli.list_commands(parent):
            command = cli.get_command(parent, name)
            assert command is not None
            parts.append(f"## {name}\n\n```\n{help_of(command, name, parent)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    click.echo(f"Wrote {PAGE}")
