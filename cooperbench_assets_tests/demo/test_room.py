"""What the room promises to its neighbours: that the harness can import it with nothing else of ours at hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cooperbench_assets
from cooperbench_assets.demo import DEMO_AGENT, DEMO_MODULE

ALONE = """
import sys, types, pathlib
package = types.ModuleType("cooperbench_assets")
package.__path__ = [sys.argv[1]]
sys.modules["cooperbench_assets"] = package
import cooperbench_assets.demo as demo
import cooperbench_assets.demo.assignment, cooperbench_assets.demo.conversation, cooperbench_assets.demo.usage
demo.build_dataset(pathlib.Path(sys.argv[2]))
strangers = [name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names]
print(sorted({name for name in strangers if not name.startswith(("cooperbench_assets", "__main__"))}))
"""


def test_all_but_the_agents_need_only_the_standard_library(tmp_path: Path) -> None:
    package = Path(cooperbench_assets.__file__).parent
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, str(package), str(tmp_path / "dataset")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_harness_finds_the_agents_by_the_modules_name(harness: object) -> None:
    from cooperbench.agents import get_runner, list_agents

    assert DEMO_AGENT in list_agents()
    assert type(get_runner(DEMO_AGENT)).__module__ == DEMO_MODULE
