"""Modules whose import waits, and what is done once a module has been imported.

What belongs here: the hooks of the import system. What does not: which modules, and why (``harness``, ``model_calls``).
Standard library only.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any


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


@contextlib.contextmanager
def standing_in(packages: Mapping[str, Collection[str]], hollow: Collection[str] = ()) -> Iterator[None]:
    """Import these packages only when something of them is used, however much later that is.

    Who imports one meanwhile keeps a module that imports the package at its first use. Others get the package itself.

    Args:
        packages: Each with those of its classes that annotations name: naming them uses nothing.
        hollow: More packages, whose modules can be imported without them.
    """
    finder = _StandInFinder(packages, hollow)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for module in finder.made.values():
            module._leave()


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
    _forget(name)


def _forget(name: str) -> None:
    del sys.modules[name]
    parent, _, child = name.rpartition(".")
    if parent:
        vars(sys.modules[parent]).pop(child, None)


class _StandInFinder(MetaPathFinder, Loader):
    def __init__(self, packages: Mapping[str, Collection[str]], hollow: Collection[str]) -> None:
        self._packages = packages
        self._hollow = hollow
        self.made: dict[str, _StandIn] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self.made or (fullname not in self._packages and fullname not in self._hollow):
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is None:
            return None
        spec = ModuleSpec(fullname, self)
        if fullname in self._hollow:
            spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        # Only now: the import system looks for some attributes as it makes a module.
        module.__class__ = _StandIn
        assert isinstance(module, _StandIn)
        module._named = self._packages.get(module.__name__, ())
        self.made[module.__name__] = module


class _StandIn(ModuleType):
    """A module in the place of a package that nobody has used yet."""

    _named: Collection[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name in self._named:
            return _Named(self, name)
        # Also for what the import system asks before it looks for a submodule: a stand-in has no __path__.
        return getattr(self._import(), name)

    def __setattr__(self, name: str, value: object) -> None:
        # The import system notes in a hollow package what was imported of it.
        if name.startswith("_") or "__path__" in vars(self):
            super().__setattr__(name, value)
        else:
            setattr(self._import(), name, value)

    def _import(self) -> ModuleType:
        """The package itself."""
        self._leave()
        return importlib.import_module(self.__name__)

    def _leave(self) -> None:
        """Have whoever imports the package from now on get it; what annotations name is then used as any other."""
        self._named = ()
        if sys.modules.get(self.__name__) is self:
            _forget(self.__name__)


class _Named:
    """A class of a package that nobody has used yet, as an annotation has it; whatever else it is for uses it."""

    def __init__(self, package: _StandIn, name: str) -> None:
        self._package = package
        self._name = name

    def _real(self) -> Any:
        return getattr(self._package._import(), self._name)

    def __or__(self, other: object) -> _Named:
        return self

    __ror__ = __or__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._real())

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return (self._real(),)


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
