"""The viewer beside another program: ``python -m cooperbench_assets.viewer.beside -- dagster dev …``.

What belongs here: taking the viewer's address first, running the program, and ending with it. What does not: serving
(``server``). Where the address is taken, nothing is started: links in what Dagster keeps would lead to somebody else.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from cooperbench_assets.commands.context import find_project
from cooperbench_assets.errors import UserError
from cooperbench_assets.viewer.server import listen, make_app, server_of
from cooperbench_assets.viewer.shelves import library_of_project
from cooperbench_assets.viewer_links import viewer_address

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


def run_beside(command: Sequence[str]) -> int:
    """Serve the project's pages as long as a program runs; returns its exit code.

    Raises:
        UserError: if there is no project, or its address is taken; the program is not started then.
    """
    project = find_project()
    address = viewer_address(project.root)
    with listen(address) as listener:
        server = server_of(make_app(library_of_project(project)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        program = subprocess.Popen(command)

        def pass_on(number: int, _: FrameType | None) -> None:
            program.send_signal(number)

        signal.signal(signal.SIGTERM, pass_on)
        # Ctrl-C reaches both: the program ends by it, and this one with the program.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.write(f"The viewer is at {address}\n")
        sys.stdout.flush()
        code = program.wait()
        server.should_exit = True
        thread.join(5)
    return code if code >= 0 else 128 - code


def main() -> None:
    """Run what stands behind ``--``."""
    try:
        sys.exit(run_beside(sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]))
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(3)


if __name__ == "__main__":
    main()
