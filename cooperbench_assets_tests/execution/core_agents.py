"""An agent for tests of execution's core: a file says what it does at each try of each pair.

The harness imports this module by name. The file is the agent config: `{"tries": {"<pair>": ["<first try>", …]}}`;
after the last one listed, and where a pair is not listed, the agent does the right thing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cooperbench.agents import AgentResult, register  # type: ignore[import-untyped,unused-ignore]

PING = """
import socket, sys
with socket.create_connection(sys.argv[1:3], 20) as connection:
    if sys.argv[3:]:
        connection.sendall(f"AUTH {sys.argv[3]}\\r\\n".encode())
        connection.recv(100)
    connection.sendall(b"*1\\r\\n$4\\r\\nPING\\r\\n")
    print(connection.recv(100).decode())
"""


@register("core")
class CoreAgent:
    """Does what the agent config says."""

    def run(self, task: str, image: str, **given: Any) -> Any:
        self.given = given
        self.log_dir = Path(given["log_dir"])
        tries = (given["config"].get("tries") or {}).get(os.environ["COOPERBENCH_ASSETS_PAIR"], [])
        attempt = int(os.environ["COOPERBENCH_ASSETS_ATTEMPT"])
        deed, _, argument = (tries[attempt - 1] if attempt <= len(tries) else "gold").partition(":")
        if given["messaging_enabled"] and given["comm_url"]:
            self._greet()
        return getattr(self, f"_{deed}")(argument)

    def _greet(self) -> None:
        import redis

        url, _, space = self.given["comm_url"].partition("#")
        client = redis.from_url(url)
        client.rpush(f"{space}:inbox", self.given["agent_id"])
        client.close()

    def _result(self, patch: str, **said: Any) -> Any:
        sent = [{"to": "agent2", "content": "hello", "timestamp": 1.0}] if self.given["messaging_enabled"] else []
        values: dict[str, Any] = {"status": "Submitted", "cost": 0.5, "steps": 3, "sent_messages": sent}
        return AgentResult(patch=patch, **{**values, **said})

    def _gold(self, argument: str) -> Any:
        time.sleep(float(argument or 0))
        both = [int(part[1:]) for part in self.log_dir.name.split("_")]
        agent = self.given["agent_id"]
        mine = both if agent == "solo" else [both[int(agent.removeprefix("agent")) - 1]]
        task = Path(os.environ["TOY_TASK"])
        return self._result("".join((task / f"feature{n}" / "feature.patch").read_text() for n in mine))

    def _patch(self, argument: str) -> Any:
        """Hand in the patch in a file."""
        return self._result(Path(argument).read_text())

    def _ping(self, argument: str) -> Any:
        """Ping the Redis that the agent was told of, from a container of an image."""
        where = urlsplit(self.given["comm_url"])
        command = ["docker", "run", "--rm", "--entrypoint=", argument, "python3", "-S", "-c", PING]
        said = []
        for password in ([where.password] if where.password else [], []):
            call = [*command, where.hostname, str(where.port), *password]
            done = subprocess.run(call, capture_output=True, text=True, check=False)
            said.append(done.stdout.strip() + done.stderr)
        return self._result(f"{where.hostname} {' '.join(said)}")

    def _nothing(self, argument: str) -> Any:
        return self._result("")

    def _free(self, argument: str) -> Any:
        return self._result("", cost=0.0)

    def _error(self, argument: str) -> Any:
        """The harness's own way to say that an agent died."""
        return self._result("", status="Error", error=argument, cost=0.0, steps=0)

    def _late(self, argument: str) -> Any:
        """The same after some replies of the model."""
        return self._result("", status="Error", error=argument, cost=0.25, steps=2)

    def _raise(self, argument: str) -> Any:
        raise RuntimeError(argument)

    def _exit(self, argument: str) -> Any:
        raise SystemExit(3)

    def _tell(self, argument: str) -> Any:
        """Show that a variable is there, without its value."""
        raise RuntimeError(f"the secret has {len(os.environ[argument])} characters")

    def _hang(self, argument: str) -> Any:
        """Never say a word."""
        time.sleep(600)

    def _hold(self, argument: str) -> Any:
        """Wait as long as a file is there, and do the right thing then."""
        while Path(argument).exists():
            time.sleep(0.02)
        return self._gold("")

    def _leave(self, argument: str) -> Any:
        """Start a program in a session of its own, and wait for ever."""
        sleeper = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
        Path("sleeper.json").write_text(str(sleeper.pid))
        time.sleep(600)

    def _work(self, argument: str) -> Any:
        """Go on for ever, with a step in the log now and then."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        while True:
            with (self.log_dir / "steps.txt").open("a") as log:
                log.write("step\n")
            time.sleep(0.1)

    def _ask(self, argument: str) -> Any:
        """Ask the model at an address three times, and wait for ever."""
        litellm: Any = import_module("litellm")  # Not an import: mypy would read half as many modules again.

        prices = {"input_cost_per_token": 0.000002, "output_cost_per_token": 0.00001}
        messages = [{"role": "user", "content": "?"}]
        for _ in range(3):
            litellm.completion("openai/scripted", messages, api_base=argument, api_key="sk-none", **prices)
        time.sleep(600)

    def _warn(self, argument: str) -> Any:
        """Print for ever that the endpoint is asked again."""
        while True:
            print("Retrying in 4 seconds as it raised Timeout", flush=True)
            time.sleep(0.1)

    def _half(self, argument: str) -> Any:
        """Die while the result is written."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        (self.log_dir / "solo.patch").write_text("diff --git")
        (self.log_dir / "result.json").write_text('{"repo": "toy_task", "task_id": 1, "agent": {"sta')
        os._exit(0)

    def _disk(self, argument: str) -> Any:
        """Have upstream meet a full disk as it writes the trajectory."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        (self.log_dir / "solo_traj.json").symlink_to("/dev/full")
        return self._gold("")

    def _stranger(self, argument: str) -> Any:
        """Have a result of another pair lie where this one's belongs."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        about = '"repo": "toy_task", "task_id": 1, "features": [7, 8], "setting": "solo"'
        (self.log_dir / "result.json").write_text(f'{{{about}, "agent": {{"status": "Submitted"}}}}')
        os._exit(0)
