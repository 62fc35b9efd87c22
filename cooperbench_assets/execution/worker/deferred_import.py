"""Modules whose import waits, and what is done once a module has been imported.

What belongs here: the hooks of the import system. What does not: which modules, and why (``harness``, ``model_calls``).
Standard library only.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


@contextlib.contextmanager
def deferred(names: re.Pattern[str]) -> Iterator[None]:
    """Import modules of these names only if something of them is asked for meanwhile.

    ``import name`` alone asks for nothing. Those that nobody asked anything of are as if never imported afterwards: a
    lazy module that stayed would be imported by whoever looks through `sys.modules`.
    """
    finder = _Deferring(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.found:
            _forget_unused(name)


def once_imported(name: str, then: Callable[[], None]) -> None:
    """Call `then` as soon as the module has been imported: now, if it is there."""
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Following(name, then))


class _Deferring(MetaPathFinder):
    def __init__(self, names: re.Pattern[str]) -> None:
        self._names = names
        self.found: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if self._names.fullmatch(fullname) else None
        if spec is None or spec.loader is None:
            return None
        spec.loader = LazyLoader(spec.loader)
        self.found.append(fullname)
        return spec


def _forget_unused(name: str) -> None:
    module = sys.modules.get(name)
    # LazyLoader has no public name for what a module is until it is used; asking the module itself would import it.
    if module is None or type(module) is ModuleType:
        return
    del sys.modules[name]
    parent, _, child = name.rpartition(".")
    vars(sys.modules[parent]).pop(child, None)


class _Following(MetaPathFinder):
    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == self._name else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            with contextlib.suppress(ValueError):
                sys.meta_path.remove(self)
            self._then()

        vars(spec.loader)["exec_module"] = exec_module
        return spec
