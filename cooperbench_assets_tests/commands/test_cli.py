from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from cooperbench_assets import cli as module
from cooperbench_assets.cli import COMMANDS, Lazy, cli
from cooperbench_assets.commands import docs
from cooperbench_assets.commands.output import number
from cooperbench_assets.project import ROOT_VARIABLE
from cooperbench_assets.spec import ExperimentError
from cooperbench_assets.store.errors import FrameError
from cooperbench_assets.wording import count, some
from cooperbench_assets_tests.commands.place import CHECKOUT
from cooperbench_assets_tests.commands.store import read_into_store

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets_tests.commands.place import Place

HEAVY = ("dagster", "litellm", "cooperbench", "docker", "scipy", "altair")


def run_process(*arguments: str, where: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The console script's entry point in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cooperbench_assets.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=where,
        env={**os.environ, **variables},
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["query", "SELECT 1"], ["import-logs", "--help"]])
def test_commands_that_only_look_import_nothing_heavy(place: Place, arguments: list[str]) -> None:
    script = (
        "import sys; from cooperbench_assets.cli import cli\n"
        "try: cli()\n"
        f"finally: print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("HEAVY []\n"), done.stdout + done.stderr


def test_every_command_can_be_imported_and_says_of_itself_what_the_list_says() -> None:
    with click.Context(cli) as context:
        for name, lazy in COMMANDS.items():
            command = cli.get_command(context, name)
            assert command is not None
            assert command.name == name
            assert (command.help or "").split("\n")[0] == lazy.summary
        assert cli.get_command(context, "no-such-command") is None


def test_the_page_on_the_command_line_is_what_the_commands_say() -> None:
    assert docs.PAGE.read_text() == docs.page(), "run: python -m cooperbench_assets.commands.docs"


@pytest.mark.slow
def test_errors_of_this_package_are_one_sentence_and_exit_3(place: Place) -> None:
    place.project.database.parent.mkdir()
    place.project.database.write_text("no database")
    done = run_process("query", "SELECT 1")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert "results.duckdb" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["materialize", "nosuch"],
        ["status", "nosuch"],
        ["report", "nosuch"],
        ["export", "nosuch", "-o", "x.tar.gz"],
        ["import-logs", ".", "--experiment", "nosuch", "--adopt", "--run", "solo=x"],
        ["demo"],
    ],
)
def test_a_wrong_name_exits_2_and_names_those_there_are(place: Place, arguments: list[str]) -> None:
    place.add_run("s_1")
    place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", "--run", "solo=s_{seed}")
    done = place.run(*arguments)
    assert done.exit_code == 2, done.output
    assert f"no experiment '{'demo' if arguments == ['demo'] else 'nosuch'}' (there are: mine)" in done.stderr


def test_without_a_project_the_way_to_name_one_is_said(tmp_path: Path) -> None:
    done = run_process("status", where=tmp_path, **{ROOT_VARIABLE: str(tmp_path)})
    assert done.returncode == 3
    assert f"no project at {tmp_path} ({ROOT_VARIABLE})" in done.stderr


def test_a_wrong_option_is_usage_and_exits_2() -> None:
    assert run_process("status", "--colour").returncode == 2
    assert run_process("no-such-command").returncode == 2


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A command `raise` that raises what is put into this list."""
    errors: list[BaseException] = []

    @click.command("raise")
    def command() -> None:
        raise errors[0]

    monkeypatch.setattr(sys.modules[__name__], "_raising", command, raising=False)
    monkeypatch.setitem(module.COMMANDS, "raise", Lazy(f"{__name__}:_raising", "Raise."))
    return errors


@pytest.mark.parametrize("mistake", [KeyError("a bug"), FrameError("a table of ours that is none")])
def test_a_mistake_of_ours_keeps_its_traceback_and_exits_3(
    mistake: Exception,
    raising: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raising.append(mistake)
    monkeypatch.setattr(sys, "argv", ["cooperbench-assets", "raise"])
    monkeypatch.setattr("faulthandler.enable", lambda file: None)  # Pytest has its own.
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 3
    assert "Traceback" in capsys.readouterr().err


def test_a_command_that_a_library_crashes_says_where() -> None:
    code = (
        "import os, sys, click; from cooperbench_assets import cli; sys.argv[1:] = ['crash'];"
        "os.crash = click.Command('crash', callback=os.abort);"
        "cli.COMMANDS['crash'] = cli.Lazy('os:crash', 'Crash.'); cli.main()"
    )
    crashed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert crashed.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in crashed.stderr
    assert "cooperbench_assets/cli.py" in crashed.stderr


def test_known_errors_and_interrupts_have_their_exit_codes(raising: list[BaseException]) -> None:
    for error, code, said in (
        (ExperimentError("defs.yaml: a mistake"), 3, "Error: defs.yaml: a mistake\n"),
        (click.UsageError("no such thing"), 2, "no such thing"),
        (KeyboardInterrupt(), 130, "Interrupted"),
    ):
        raising[:] = [error]
        done = CliRunner().invoke(cli, ["raise"])
        assert done.exit_code == code
        assert said in done.stderr


def test_the_project_is_found_from_a_folder_below_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOT_VARIABLE)
    below = place.project.root / "data" / "deep"
    below.mkdir(parents=True)
    place.add_run("s_1")
    done = run_process(
        *("import-logs", str(place.logs), "--experiment", "mine", "--subset", str(place.subset)),
        *("--run", "solo=s_{seed}"),
        where=below,
    )
    assert done.returncode == 0, done.stderr
    assert (place.project.defs / "mine" / "defs.yaml").is_file()


def test_a_pipe_gets_plain_columns_however_wide(place: Place) -> None:
    place.add_run("s_1")
    long = "a-setting-with-a-very-long-name-" * 5
    place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", "--run", f"{long}=s_{{seed}}")
    done = run_process("status")
    assert long in done.stdout
    assert "\x1b" not in done.stdout
    assert all(line == line.rstrip() for line in done.stdout.splitlines())
    name, header, row = done.stdout.splitlines()
    assert name == "mine"
    assert header.index("results") + len("results") == row.index("–") + 1


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_every_figure_of_a_status_in_colour(place: Place, columns: int) -> None:
    place.add_run("talk", "coop", messages=1)
    place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", "--run", "coop-nocomm=talk")
    read_into_store(place.project, "mine")
    shown = on_a_terminal(columns, "status")
    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "…" not in plain
    row = next(line for line in plain.splitlines() if line.startswith("coop-nocomm"))
    assert row.split() == ["coop-nocomm", "0", "3/3", "3/3", "3", "0", "0", "0", "0", "0.75", "–"]


@pytest.mark.slow
def test_an_answer_too_wide_for_the_terminal_is_shown_below_one_another(place: Place) -> None:
    place.add_run("s_1")
    place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", "--run", "solo=s_{seed}")
    read_into_store(place.project, "mine")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(80, "query", "FROM cells"))
    lines = [line.split() for line in shown.splitlines()]
    assert ["experiment", "mine"] in lines
    assert ["pass_rate_planned", "1"] in lines
    assert "(1 row)" in shown


def on_a_terminal(columns: int, *arguments: str) -> str:
    """What a command writes on a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    hidden = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "CI")}
    child = subprocess.Popen(
        [sys.executable, "-m", "cooperbench_assets.cli", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**hidden, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    written = b""
    # A terminal whose last writer is gone answers with an error, not with an end.
    with contextlib.suppress(OSError):
        while part := os.read(ours, 65536):
            written += part
    os.close(ours)
    assert child.wait() == 0, written
    return written.decode()


def test_small_words_are_right() -> None:
    assert (count(1, "run"), count(2, "run"), count(0, "entry", "entries")) == ("1 run", "2 runs", "0 entries")
    assert some(["a", "b", "c"], 2) == "a, b and 1 more"
    assert (number(None).plain, number(0).plain, number(1234).plain) == ("–", "0", "1234")


def commands_shown() -> list[str]:
    """Every command line of ours that the README and the pages in docs show, on one line each."""
    pages = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    return [
        re.sub(r"\s*\\?\n\s*", " ", found)
        for found in re.findall(
            r"^\$? *(?:\.venv/bin/)?cooperbench-assets ((?:[^\n]*\\\n)*[^\n\\]*)$", text, re.MULTILINE
        )
    ]


def test_commands_in_the_docs_exist_with_the_options_they_show() -> None:
    shown = [line for line in commands_shown() if line.count('"') % 2 == 0]
    assert len(shown) > 5
    with click.Context(cli) as parent:
        for line in shown:
            name, *arguments = shlex.split(line, comments=True)
            command = cli.get_command(parent, name)
            assert command is not None, line
            with click.Context(command, parent, info_name=name) as context:
                command.make_parser(context).parse_args(arguments)
