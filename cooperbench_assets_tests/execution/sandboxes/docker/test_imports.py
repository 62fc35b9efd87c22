from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cooperbench_assets

# As the harness server makes our package known in an environment that has nothing of ours.
PROGRAM = """\
import sys
from types import ModuleType
package = ModuleType("cooperbench_assets")
package.__path__ = [sys.argv[1]]
sys.modules["cooperbench_assets"] = package
import docker
before = set(sys.modules)
import cooperbench_assets.execution.sandboxes.docker.sandbox
import cooperbench_assets.execution.sandboxes.docker.leftovers
for name in sorted({module.partition(".")[0] for module in set(sys.modules) - before}):
    print(name)
"""


def test_the_sandbox_needs_the_sdk_and_the_standard_library_only() -> None:
    folder = Path(cooperbench_assets.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], check=True, capture_output=True, text=True, cwd="/"
    )
    foreign = set(done.stdout.split()) - sys.stdlib_module_names
    assert foreign == {"cooperbench_assets"}
