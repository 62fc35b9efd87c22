"""The file defs.yaml: which component it holds, before anybody looks at its attributes.

What belongs here: reading the file, and one sentence where that is not possible. What does not: what the attributes of
an experiment mean (``spec``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from cooperbench_assets.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

COMPONENT: Final = "cooperbench_assets.experiment.Experiment"
"""The `type:` of a defs.yaml that holds an experiment."""


class ExperimentError(UserError):
    """A defs.yaml that cannot be used; the message names the file, the key and the remedy."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, and says where a date is that is none.

    Of two keys PyYAML takes the last without a word, and what Python says of 2026-31-12 it lets through as it is.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.ScalarNode] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (other := first.setdefault((key.tag, key.value), key)) is not key:
                problem = f"the key {key.value} stands in line {other.start_mark.line + 1} already; keep one"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            problem = f"{node.value[:80]}: {error}; if it is text, put it in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error


def read_documents(file: Path) -> list[Any]:
    """What the YAML documents of a file hold.

    Raises:
        ExperimentError: if it cannot be read, or is no valid YAML.
    """
    try:
        return list(yaml.load_all(file.read_text(), Loader=_Loader))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise ExperimentError(f"{file}: {_why_unreadable(error)}") from error


def read_component(file: Path) -> dict[str, Any] | None:
    """The experiment in a defs.yaml as it stands there; None if the file holds other components.

    Raises:
        ExperimentError: if it cannot be read, does not say what it holds, or holds more than one experiment.
    """
    documents = read_documents(file)
    types = [_type_of(file, entry) for entry in documents or [None]]
    if COMPONENT not in types:
        return None
    if len(types) > 1:
        raise ExperimentError(f"{file}: holds {len(types)} components; give each a folder of its own")
    entry: dict[str, Any] = documents[0]
    if unknown := [str(key) for key in entry if key not in ("type", "attributes")]:
        raise ExperimentError(f"{file}: {', '.join(unknown)}: unknown key beside type and attributes")
    return entry


def _type_of(file: Path, entry: object) -> str:
    """The component's type; one of this package must be the one there is."""
    found = entry.get("type") if isinstance(entry, dict) else None
    if isinstance(found, str) and (found == COMPONENT or found.split(".")[0] != COMPONENT.split(".")[0]):
        return found
    said = "missing" if found is None else f"{found!r} is not known"
    raise ExperimentError(f"{file}: type: {said}; an experiment begins with: type: {COMPONENT}")


def _why_unreadable(error: OSError | UnicodeDecodeError | RecursionError | yaml.YAMLError) -> str:
    """In one line, with the place in the file where there is one."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = " ".join(part for part in (error.context, error.problem) if part)
        return f"invalid YAML, line {error.problem_mark.line + 1}: {what}"
    return f"invalid YAML: {' '.join(str(error).split())}"
