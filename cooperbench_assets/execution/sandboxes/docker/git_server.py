"""What upstream makes on an engine through the SDK: its git server, for agents who share code.

What belongs here: a server of the child's own, with labels and limits like those of agents' containers. What does not:
agents' containers, which upstream makes with the engine's command line (``agent_cli``). Standard library and the Docker
SDK only: it runs in a child.

Upstream keeps one server for everybody, with its network and its volume, and for ever. A child's own has an owner, so
that a sweep knows when nobody needs it any more; and no agent is on a network with another pair's. Upstream has the
names as constants and takes neither labels nor limits, so that both are put in where it is about to use them: in its
module, and in the SDK's own functions, for the life of one child.
"""

from __future__ import annotations

import functools
import importlib
import secrets
from collections.abc import Mapping
from typing import Any

from docker.models.containers import ContainerCollection
from docker.models.networks import NetworkCollection
from docker.models.volumes import VolumeCollection

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.docker import ownership
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions

MODULE = "cooperbench.agents.mini_swe_agent_v2.connectors.git_servers.docker"
"""Where upstream's server is made, and its names stand."""

_NAMES = ("_CONTAINER_NAME", "_NETWORK_NAME", "_VOLUME_NAME")


def own_git_server(options: DockerOptions) -> None:
    """Give this process a git server of its own, and label and limit all that it makes through the SDK.

    Only for a child: it changes upstream's module and the SDK for as long as the process lives.

    Args:
        options: Limits, and labels that say what the server is for.

    Raises:
        InfrastructureError: family ``configuration``, if upstream's server is not where it was.
    """
    try:
        module: Any = importlib.import_module(MODULE)
        if lost := [name for name in _NAMES if not hasattr(module, name)]:
            raise AttributeError(lost[0])
    except (ImportError, AttributeError) as error:
        raise InfrastructureError(
            "configuration",
            f"this harness makes its git server in another way, which would leave it behind ({error}); "
            "take git: out of the setting, or use another version of the harness",
        ) from error
    own = f"cooperbench-assets-git-{secrets.token_hex(6)}"
    for name in _NAMES:
        setattr(module, name, own)
    labels = ownership.labels("agent", options.labels)
    _add_to(ContainerCollection, labels, {"init": True, **options.limits()})
    _add_to(NetworkCollection, labels, {})
    _add_to(VolumeCollection, labels, {})


def _add_to(collection: Any, labels: Mapping[str, str], more: Mapping[str, Any]) -> None:
    """Have everything that a collection of the SDK creates carry labels; a container's `run` creates it so, too."""
    create = collection.create

    @functools.wraps(create)
    def labelled(self: Any, *args: Any, **kwargs: Any) -> Any:
        carried = {**(kwargs.pop("labels", None) or {}), **labels}
        return create(self, *args, labels=carried, **{**more, **kwargs})

    collection.create = labelled
