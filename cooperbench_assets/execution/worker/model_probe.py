"""One small question to the model, in the harness's own environment: does it answer, to this key, at this endpoint?

What belongs here: the call. What does not: when it is made and what its failure means (``runner.preflight``). Standard
library and what comes with the harness only: it runs in a child of the harness server, which has the key.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cooperbench_assets.execution.worker.protocol import ChildRequest

SECONDS = 60.0
"""How long the model may take to answer."""

QUESTION = [{"role": "user", "content": "Say yes."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    },
}
"""Agents call with a tool; some models, and some installations of litellm, fail with one only."""

_NOT_FOR_A_QUESTION = ("max_tokens", "max_completion_tokens", "stream", "num_retries", "max_retries", "timeout")


def ask_model(request: ChildRequest) -> None:
    """Ask the model of a request for one token, as upstream's agent would call it: one request, no retry.

    Raises:
        Exception: litellm's own, where the model does not answer.
    """
    litellm: Any = importlib.import_module("litellm")
    kwargs = _model_kwargs(request.agent_config)
    model = request.model_name
    with contextlib.suppress(ImportError):
        azure: Any = importlib.import_module("cooperbench.agents._azure")
        if found := azure.resolve_azure_config():
            model = azure.azure_litellm_model(model)
            kwargs |= {"api_base": found["endpoint"], "api_key": found["api_key"]}
    patience = {"timeout": SECONDS, "num_retries": 0, "max_retries": 0}
    call = {"model": model, "messages": QUESTION, "tools": [TOOL], **kwargs, **patience}
    try:
        litellm.completion(**call, max_tokens=1)
    except litellm.exceptions.BadRequestError:
        # Some models take no limit of that name, or none so low.
        litellm.completion(**call)


def _model_kwargs(agent_config: str | None) -> dict[str, Any]:
    """What the agent config says of the model's calls, but for what bounds an answer."""
    if agent_config is None:
        return {}
    yaml: Any = importlib.import_module("yaml")
    content: Any = yaml.safe_load(Path(agent_config).read_text()) or {}
    for key in ("config", "model", "model_kwargs"):
        inner = content.get(key) if isinstance(content, dict) else None
        content = content if key == "config" and inner is None else inner
    found = content if isinstance(content, dict) else {}
    return {name: value for name, value in found.items() if name not in _NOT_FOR_A_QUESTION}
