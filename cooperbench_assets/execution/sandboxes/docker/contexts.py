"""Which engine the docker command line means: its contexts, which the Docker SDK does not know.

What belongs here: from a context's name to the variables that both understand. What does not: connecting. Standard
library only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cooperbench_assets.execution.infra_errors import InfrastructureError

HOST, CONTEXT, CONFIG = "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"


def resolved(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with the engine that they mean in `DOCKER_HOST`, so that the command line and the SDK agree.

    As the command line has it, `DOCKER_HOST` goes before `DOCKER_CONTEXT`, and that before the context in use.

    Raises:
        InfrastructureError: family ``engine``, if the context is not there or cannot be read.
    """
    variables = dict(environment)
    name = variables.pop(CONTEXT, "")
    if variables.get(HOST):
        return variables
    folder = Path(variables.get(CONFIG) or Path(variables.get("HOME") or Path.home(), ".docker"))
    name = name or _in_use(folder)
    if name in ("", "default"):
        return variables
    key = hashlib.sha256(name.encode()).hexdigest()
    try:
        meta = json.loads((folder / "contexts" / "meta" / key / "meta.json").read_bytes())
        endpoint = meta["Endpoints"]["docker"]
        variables[HOST] = str(endpoint["Host"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InfrastructureError(
            "engine",
            f"the docker context {name!r} is not in {folder}; see `docker context ls`, or set DOCKER_HOST",
        ) from error
    return variables | _tls(folder / "contexts" / "tls" / key / "docker", endpoint)


def _in_use(folder: Path) -> str:
    try:
        content: Any = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    return str(content.get("currentContext") or "") if isinstance(content, dict) else ""


def _tls(certificates: Path, endpoint: Mapping[str, Any]) -> dict[str, str]:
    if not certificates.is_dir():
        return {}
    # Any value but the empty one has the SDK and the command line look at the engine's certificate.
    verify = {} if endpoint.get("SkipTLSVerify") else {"DOCKER_TLS_VERIFY": "1"}
    return {"DOCKER_CERT_PATH": str(certificates), **verify}
