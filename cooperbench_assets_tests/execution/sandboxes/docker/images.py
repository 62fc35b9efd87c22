"""Images of tasks that are made on the spot: no registry, no package mirror, nothing but this machine's own files.

A base image is put together from the host's own programs (bash, git, Python with pip, coreutils) and the libraries
that they load: 2 s instead of the minute that a bootstrap from a mirror takes. A task's image adds its checkout and
its runner, laid out as upstream's are.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from cooperbench_assets.benchmark.images import image_name
from cooperbench_assets.benchmark.pairs import Task
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets_tests.services import missing

BASE = "cooperbench-assets-test-base"
CONTENT = "cooperbench-assets-test.content"
"""Label with the hash of what an image was made from."""

_RECIPE = 2
"""Raise it when the way of making a base image changes."""

_PATH = "/usr/local/bin:/usr/bin:/bin"
_NEEDED = "bash sh cat cp mkdir rm sleep base64 git env"
_PROGRAMS = (
    f"{_NEEDED} mv rmdir ls test echo printf true false head tail wc touch chmod ln dirname basename tr cut sort uniq "
    "tee sed grep awk find xargs id seq date dd mktemp kill nohup timeout which readlink realpath uname stat diff "
    "patch tar gzip sha256sum setsid ps git-receive-pack git-upload-pack"
)
_UNUSED = frozenset(
    {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "site-packages", "dist-packages", "ensurepip"}
)


def build_task_images(engine: Engine, dataset: Path) -> list[str]:
    """Make the image of every task of a dataset that has ``<repo>/task<id>/{repo/,runner.sh}``, where it is not there.

    Returns:
        The images' names, in order.
    """
    base = base_image(engine)
    runners = sorted(dataset.glob("*/task*/runner.sh"))
    with _alone("tasks"):  # Else a name could change its image in the middle of another worker's test.
        return [_task_image(engine, base, runner.parent) for runner in runners if (runner.parent / "repo").is_dir()]


def base_image(engine: Engine) -> str:
    """The name of an image with bash, git, Python and pip."""
    if sys.platform != "linux" or shutil.which("ldd") is None:
        missing("base image", "it is made from the programs of a Linux host with ldd")
    programs = _programs()
    name = f"{BASE}:{_fingerprint(programs)}"
    with _alone("base"):
        if not is_there(engine, name):
            import_base(engine, name)
    return name


def _alone(images: str) -> FileLock:
    """Keeps other workers from making the same images."""
    return FileLock(Path(tempfile.gettempdir()) / f"cooperbench-assets-{images}-{os.getuid()}.lock")


def import_base(engine: Engine, name: str, more: Callable[[tarfile.TarFile], None] = lambda _: None) -> None:
    """Make an image with bash, git, Python and pip, and what `more` adds: one layer, the fastest way to a large one."""
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        with _EachOnce.open(fileobj=archive, mode="w") as tar:
            _write_base(tar, _programs())
            more(tar)
        archive.flush()
        repository, _, tag = name.partition(":")
        changes = [f"ENV PATH={_PATH}", "ENV PYTHONDONTWRITEBYTECODE=1", "WORKDIR /workspace"]
        engine.api.import_image(archive.name, repository=repository, tag=tag, changes=changes)


class _EachOnce(tarfile.TarFile):
    """An archive that takes each name once: the engine imports no other."""

    def addfile(self, tarinfo: tarfile.TarInfo, fileobj: Any = None) -> None:
        if tarinfo.name not in self._taken:
            self._taken.add(tarinfo.name)
            super().addfile(tarinfo, fileobj)

    @cached_property
    def _taken(self) -> set[str]:
        return set()


def make_image(engine: Engine, name: str, base: str, files: Mapping[str, bytes], mode: int = 0o755) -> str:
    """An image with a few files on top of another one; returns its id."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path, data in files.items():
            add_bytes(tar, path, data, mode)
    return commit(engine, name, base, content.getvalue(), {})


def git_server_image(engine: Engine) -> str:
    """The name of an image that serves git as upstream's does."""
    core = subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip()
    if not Path(core, "git-daemon").is_file():
        missing("git server's image", "this machine's git has no daemon to put into it")
    base = base_image(engine)
    name = f"{BASE.removesuffix('base')}git:{base.rpartition(':')[2]}"
    with _alone("git"):
        if not is_there(engine, name):
            serve = ["git", "daemon", "--reuseaddr", "--export-all", "--enable=receive-pack", "--base-path=/git"]
            empty = io.BytesIO()
            tarfile.open(fileobj=empty, mode="w").close()
            commit(engine, name, base, empty.getvalue(), {"Entrypoint": [*serve, "--listen=0.0.0.0", "/git"]})
    return name


def _task_image(engine: Engine, base: str, task: Path) -> str:
    name = image_name(Task(task.parent.name, int(task.name.removeprefix("task"))))
    content = _content_hash(task, base)
    if _label(engine, name, CONTENT) == content:
        return name
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(task / "repo", "workspace/repo", filter=as_root)
        add_bytes(tar, "usr/local/bin/runner.sh", (task / "runner.sh").read_bytes(), 0o755)
    config: dict[str, object] = {
        "Entrypoint": ["/usr/local/bin/runner.sh"],
        "Cmd": [],
        "WorkingDir": "/workspace",
        "Env": [f"PATH={_PATH}", "PYTHONDONTWRITEBYTECODE=1"],
        "Labels": {CONTENT: content},
    }
    commit(engine, name, base, archive.getvalue(), config)
    return name


def commit(engine: Engine, name: str, base: str, archive: bytes | BinaryIO, config: dict[str, object]) -> str:
    """Make an image of another one with the files of an archive; returns its id."""
    container = engine.api.create_container(base, ["true"])["Id"]
    try:
        engine.api.put_archive(container, "/", archive)
        repository, _, tag = name.rpartition(":")
        made = engine.api.commit(container, repository=repository, tag=tag, conf=config)
    finally:
        engine.api.remove_container(container, force=True)
    return str(made["Id"])


def is_there(engine: Engine, name: str) -> bool:
    """Whether the engine has an image."""
    return bool(engine.api.images(name=name))


def _label(engine: Engine, name: str, label: str) -> str | None:
    found = engine.api.images(name=name)
    return (found[0].get("Labels") or {}).get(label) if found else None


def _content_hash(task: Path, base: str) -> str:
    # Without .git: commits of the same files differ in their times, and patches see the files only.
    content = hashlib.sha256(base.encode())
    for path in sorted([task / "runner.sh", *(task / "repo").rglob("*")]):
        name = path.relative_to(task)
        if path.is_file() and ".git" not in name.parts:
            content.update(f"\0{name}\0{path.stat().st_mode:o}\0".encode() + path.read_bytes())
    return content.hexdigest()


def _programs() -> dict[Path, Path]:
    """Path in the image → file of the host."""
    found = {name: shutil.which(name, path=_PATH) for name in _PROGRAMS.split()}
    if lacking := [name for name in _NEEDED.split() if found[name] is None]:
        missing("base image", f"this machine has no {', '.join(lacking)} to put into it")
    programs = {Path(path): Path(path).resolve() for path in found.values() if path is not None}
    core = Path(subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip())
    if core.is_dir():
        programs |= {path: path.resolve() for path in core.iterdir() if path.is_file() and not path.is_symlink()}
    return programs | {_python(): _python().resolve()}


def _python() -> Path:
    """The interpreter that this environment was made from."""
    return Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"


def _fingerprint(programs: Mapping[Path, Path]) -> str:
    described = [f"{path} {file.stat().st_size} {file.stat().st_mtime_ns}" for path, file in sorted(programs.items())]
    text = "\n".join([str(_RECIPE), sys.version, *described])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write_base(tar: tarfile.TarFile, programs: Mapping[Path, Path]) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        add_link(tar, name, f"usr/{name}")
    library = dict(_standard_library())
    objects = [*programs.values(), *(path for path in library.values() if ".so" in path.name)]
    written: set[str] = set()
    for inside, file in {**programs, **library, **libraries(objects)}.items():
        name = re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", str(inside)).lstrip("/")
        if name not in written:
            written.add(name)
            add_file(tar, name, file)
    for name in ("python3", "python"):
        add_link(tar, f"usr/local/bin/{name}", str(_python()))
    for name, mode in (("tmp", 0o1777), ("root", 0o700), ("workspace", 0o755)):
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, mode
        tar.addfile(folder)
    add_bytes(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n", 0o644)
    add_bytes(tar, "etc/group", b"root:x:0:\n", 0o644)


def _standard_library() -> Iterator[tuple[Path, Path]]:
    folder = Path(sysconfig.get_paths(vars={"base": sys.base_prefix, "installed_base": sys.base_prefix})["stdlib"])
    for path, names, files in os.walk(folder):
        names[:] = [name for name in names if name not in _UNUSED and not name.startswith("config-")]
        for file in files:
            yield Path(path, file), Path(path, file).resolve()
    pip = importlib.util.find_spec("pip")
    if pip is None or pip.origin is None:
        missing("base image", "the tests' environment has no pip to put into it")
    package = Path(pip.origin).parent
    for found in package.rglob("*"):
        if found.is_file() and found.suffix != ".pyc":
            # Debian's Python looks into the second.
            for site in ("site-packages", "dist-packages"):
                yield folder / site / "pip" / found.relative_to(package), found


def libraries(objects: Iterable[Path]) -> dict[Path, Path]:
    """Path in the image → file of the host, of what these programs load."""
    told = subprocess.run(["ldd", *map(str, objects)], capture_output=True, text=True, check=False).stdout
    return {Path(path): Path(path).resolve() for path in re.findall(r"(/\S+) \(0x", told)}


def add_file(tar: tarfile.TarFile, name: str, file: Path) -> None:
    """Add a file of the host, root's."""
    information = tar.gettarinfo(file, name)
    # One inode under several names would become a link to a name that may come later.
    information.type, information.size = tarfile.REGTYPE, file.stat().st_size
    with file.open("rb") as content:
        tar.addfile(as_root(information), content)


def add_bytes(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    """Add a file that is made here."""
    information = tarfile.TarInfo(name)
    information.size, information.mode = len(content), mode
    tar.addfile(information, io.BytesIO(content))


def add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    information = tarfile.TarInfo(name)
    information.type, information.linkname = tarfile.SYMTYPE, target
    tar.addfile(information)


def as_root(information: tarfile.TarInfo) -> tarfile.TarInfo:
    information.uid = information.gid = 0
    information.uname = information.gname = "root"
    return information
