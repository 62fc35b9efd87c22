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


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    """A context as the command line makes it, on a terminal of a fixed width."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    return command.context_class(command, parent, info_name=name, **settings)


def page() -> str:
    """The whole page."""
    with _context(cli, "cooperbench-assets") as parent:
        parts = [HEAD, f"```\n{cli.get_help(parent)}\n```\n"]
        for name in cli.list_commands(parent):
            command = cli.get_command(parent, name)
            assert command is not None
            with _context(command, name, parent) as context:
                parts.append(f"## {name}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    click.echo(f"Wrote {PAGE}")
