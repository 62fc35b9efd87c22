"""An agent that gives its keys away wherever it can. The harness imports this module by name.

The features of a pair say how: see `_WAYS`.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cooperbench.agents import AgentResult, register  # type: ignore[import-untyped,unused-ignore]

from cooperbench_assets_tests.execution.leaks import ANCESTORS, KEYS


@register("leaking")
class LeakingAgent:
    """Does its work, and leaks."""

    def run(self, task: str, image: str, **given: Any) -> Any:
        self.given = given
        keys = [os.environ[name] for name in os.environ[KEYS].split(",")]
        self.text = " ".join(_written([*keys, given["config"]["model"]["api_key"]]))
        self.features = [int(part[1:]) for part in Path(given["log_dir"]).name.split("_")]
        return _WAYS[self.features[0], self.features[1]](self)

    def print(self) -> Any:
        print(self.text)
        print(self.text, file=sys.stderr)
        exec(ANCESTORS)
        return self._result(self._gold())

    def raise_it(self) -> Any:
        raise RuntimeError(f"401 Unauthorized: {self.text}")

    def exit_with_it(self) -> Any:
        raise SystemExit(self.text)

    def patch(self) -> Any:
        body = "".join(f"+{line}\n" for line in self.text.split())
        lines = len(self.text.split())
        header = "diff --git a/keys.txt b/keys.txt\nnew file mode 100644\n--- /dev/null\n+++ b/keys.txt\n"
        return self._result(f"{self._gold()}{header}@@ -0,0 +1,{lines} @@\n{body}")

    def talk(self) -> Any:
        messages = [{"role": "assistant", "content": self.text}, {"role": "tool", "content": json.dumps(self.text)}]
        return self._result(self._gold(), messages=messages)

    def hostile(self) -> Any:
        return self._result(Path(os.environ["TOY_HOSTILE"]).read_text())

    def _gold(self) -> str:
        agent = self.given["agent_id"]
        mine = self.features if agent == "solo" else [self.features[int(agent.removeprefix("agent")) - 1]]
        task = Path(os.environ["TOY_TASK"])
        return "".join((task / f"feature{n}" / "feature.patch").read_text() for n in mine)

    def _result(self, patch: str, **said: Any) -> Any:
        sent = [{"to": "agent2", "content": self.text, "timestamp": 1.0}] if self.given["messaging_enabled"] else []
        values: dict[str, Any] = {"status": "Submitted", "cost": 0.5, "steps": 3, "sent_messages": sent}
        return AgentResult(patch=patch, **{**values, **said})


def _written(keys: list[str]) -> list[str]:
    """Keys as they are, and as they are usually written."""
    found = []
    for key in keys:
        whole = f"user:{key}".encode()
        found += [key, quote(key, safe=""), base64.b64encode(key.encode()).decode(), base64.b64encode(whole).decode()]
        found += [f"https://me:{quote(key, safe='')}@example.org/", json.dumps({"key": key})]
    return found


_WAYS = {
    (1, 2): LeakingAgent.print,
    (1, 3): LeakingAgent.exit_with_it,
    (1, 4): LeakingAgent.patch,
    (2, 3): LeakingAgent.raise_it,
    (2, 4): LeakingAgent.talk,
    (3, 4): LeakingAgent.hostile,
}
