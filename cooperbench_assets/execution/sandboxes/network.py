"""How the host reaches the network, passed on to tests that install packages: certificates, indexes and proxies.

What belongs here: finding these settings. What does not: writing them anywhere: an index may carry a password.
Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

FOLDER = "/etc/cooperbench-assets"
"""Where the host's certificates lie in a container."""

_CERTIFICATES = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO"),
    *("NODE_EXTRA_CA_CERTS", "CARGO_HTTP_CAINFO"),
)
_ADDRESSES = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"),
    *("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"),
    *("NPM_CONFIG_REGISTRY", "npm_config_registry", "GOPROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
)
_PLAIN = ("PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "GONOSUMDB", "GOSUMDB", "no_proxy", "NO_PROXY")
_LIST = re.compile(r"[,|]+")
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+")
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1|0\.0\.0\.0")

VARIABLES = (*_CERTIFICATES, *_ADDRESSES, *_PLAIN)
"""Every variable that is looked at."""


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """Variables for a container, and the files of the host that they name."""

    environment: Mapping[str, str] = field(repr=False)
    files: Mapping[str, Path]
    """Path in the container → file of the host."""


def of_host(environment: Mapping[str, str] | None = None) -> HostNetwork:
    """What this process was told about the network, as far as it means the same inside a container.

    Paths of the host do not (but for certificates, which are passed on as files), nor does its loopback address.
    """
    told = os.environ if environment is None else environment
    variables = {name: value for name in _PLAIN if (value := told.get(name))}
    variables |= {name: value for name in _ADDRESSES if (value := _travelling(told.get(name, "")))}
    files: dict[str, Path] = {}
    names: dict[Path, str] = {}
    for name in _CERTIFICATES:
        file = Path(told.get(name) or "/nonexistent").resolve()
        if file.is_file():
            inside = names.setdefault(file, f"{FOLDER}/certificates-{len(names) + 1}.pem")
            files[inside] = file
            variables[name] = inside
    return HostNetwork(variables, files)


def _travelling(value: str) -> str:
    """The part of a variable that means the same elsewhere: of several addresses, those that do."""
    words = value.split()
    if len(words) > 1:
        return " ".join(filter(_travelling, words))
    return value.strip() if words and all(_is_remote(part) for part in _LIST.split(words[0])) else ""


def _is_remote(address: str) -> bool:
    if address in ("direct", "off"):  # Go's words in a list of proxies
        return True
    if "://" not in address:
        address = f"//{address}" if _HOST_AND_PORT.fullmatch(address) else "file:"
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme != "file" and bool(host) and not _LOOPBACK.fullmatch(host)
