"""Modules whose import waits: as if never imported where nobody asks, as ever where somebody does."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from cooperbench_assets.execution.worker.deferred_import import deferred, once_imported, standing_in


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of this test's own, whose modules are forgotten with it."""
    folder = tmp_path / f"package_{tmp_path.parent.name.replace('-', '_')}_{tmp_path.name}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in ("heavy", "light"):
        (folder / f"{name}.py").write_text(f"import sys\nsys.{name}_imported = __name__\nVALUE = 1\n")
        monkeypatch.setattr(sys, f"{name}_imported", None, raising=False)
    return folder


def heavy(package: Path) -> re.Pattern[str]:
    return re.compile(rf"{package.name}\.heavy")


def stand_alone(package: Path) -> str:
    """The name of a package that has a class and a module, and is in no other package."""
    name = f"{package.name}_heavy"
    folder = package.parent / name
    folder.mkdir()
    (folder / "part.py").write_text("VALUE = 1\n")
    text = (package / "heavy.py").read_text()
    (folder / "__init__.py").write_text(f"{text}\n\nclass Named:\n    VALUE = 1\n")
    return name


def was_imported(name: str) -> bool:
    return vars(sys)[f"{name}_imported"] is not None


def test_a_deferred_module_that_nobody_uses_is_as_if_never_imported_and_can_be_imported_later(package: Path) -> None:
    with deferred(heavy(package)):
        importlib.import_module(f"{package.name}.heavy")
        importlib.import_module(f"{package.name}.light")
        assert (was_imported("heavy"), was_imported("light")) == (False, True)
    assert not was_imported("heavy")
    assert f"{package.name}.heavy" not in sys.modules
    assert not hasattr(sys.modules[package.name], "heavy")
    assert importlib.import_module(f"{package.name}.heavy").VALUE == 1
    assert was_imported("heavy")


def test_a_deferred_module_that_another_one_uses_is_imported_and_stays(package: Path) -> None:
    (package / "user.py").write_text(f"from {package.name}.heavy import VALUE\n")
    with deferred(heavy(package)):
        assert importlib.import_module(f"{package.name}.user").VALUE == 1
    assert was_imported("heavy")
    assert sys.modules[f"{package.name}.heavy"].VALUE == 1


def test_a_deferred_module_that_is_not_there_is_an_import_error_at_once(package: Path) -> None:
    with deferred(re.compile(rf"{package.name}\..*")), pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{package.name}.nowhere")


def test_a_package_is_imported_when_something_of_it_is_first_used_however_late(package: Path) -> None:
    (package / "user.py").write_text(f"import {package.name}_heavy as heavy\n\ndef use(): return heavy.VALUE\n")
    name = stand_alone(package)
    with standing_in({name: ()}):
        user = importlib.import_module(f"{package.name}.user")
    assert (was_imported("heavy"), name in sys.modules) == (False, False)
    assert user.use() == 1
    assert user.heavy.sys is sys
    assert importlib.import_module(name).VALUE is user.heavy.VALUE


@pytest.mark.parametrize(
    "use",
    [
        "from {0} import VALUE as found",
        "from {0}.part import VALUE as found",
        "import {0}.part; found = {0}.part.VALUE",
        "import {0}; found = {0}.VALUE",
        "import {0}; {0}.SET = 1; import {0}; found = {0}.SET",
        "import {0}; found = {0}.Named.VALUE",
        "import {0}; found = {0}.Named().VALUE",
        "import {0}\nclass Own({0}.Named): ...\nfound = Own().VALUE",
    ],
)
def test_a_package_that_is_used_as_it_is_imported_is_there_at_once(package: Path, use: str) -> None:
    name = stand_alone(package)
    (package / "user.py").write_text(use.format(name))
    with standing_in({name: ("Named",)}):
        assert importlib.import_module(f"{package.name}.user").found == 1
        assert was_imported("heavy")
        assert sys.modules[name].VALUE == 1


def test_what_annotations_name_of_a_package_does_not_import_it_and_is_its_own_afterwards(package: Path) -> None:
    name = stand_alone(package)
    (package / "user.py").write_text(
        f"import {name} as heavy\n\n"
        "def use(one: heavy.Named | None = None, *more: None | heavy.Named) -> heavy.Named:\n"
        "    return heavy.Named()\n"
    )
    with standing_in({name: ("Named",)}):
        use = importlib.import_module(f"{package.name}.user").use
        assert not was_imported("heavy")
    assert isinstance(use(), importlib.import_module(name).Named)


def test_a_class_that_a_module_keeps_a_name_for_is_asked_of_an_instance_as_any_other(package: Path) -> None:
    name = stand_alone(package)
    text = f"import {name} as heavy\n\nKIND = heavy.Named\n\ndef use(one): return isinstance(one, KIND)\n"
    (package / "user.py").write_text(text)
    with standing_in({name: ("Named",)}):
        use = importlib.import_module(f"{package.name}.user").use
        assert not was_imported("heavy")
    assert use(importlib.import_module(name).Named())
    assert not use(1)


def test_modules_of_a_hollow_package_are_imported_without_it(package: Path) -> None:
    name = stand_alone(package)
    with standing_in({}, [name]):
        assert importlib.import_module(f"{name}.part").VALUE == 1
        assert not was_imported("heavy")
    assert importlib.import_module(name).VALUE == 1
    assert was_imported("heavy")


def test_a_package_to_stand_in_for_that_is_not_there_is_an_import_error_at_once(package: Path) -> None:
    name = f"{package.name}_nowhere"
    with standing_in({name: ()}), pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


def test_what_follows_an_import_is_done_after_it_and_once(package: Path) -> None:
    done: list[bool] = []
    once_imported(f"{package.name}.heavy", lambda: done.append(was_imported("heavy")))
    importlib.import_module(f"{package.name}.light")
    assert done == []
    for _ in range(2):
        importlib.import_module(f"{package.name}.heavy")
    assert done == [True]
    once_imported(f"{package.name}.heavy", lambda: done.append(True))
    assert done == [True, True]


def test_what_follows_an_import_waits_for_one_that_succeeds(package: Path) -> None:
    done: list[bool] = []
    (package / "heavy.py").write_text("import no_such_module_at_all\n")
    once_imported(f"{package.name}.heavy", lambda: done.append(True))
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        importlib.import_module(f"{package.name}.heavy")
    assert done == []
    (package / "heavy.py").write_text("VALUE = 'a longer text than before, so that its size tells'\n")
    importlib.import_module(f"{package.name}.heavy")
    assert done == [True]
