"""YAML as settings are written in it: what is ambiguous, or no value at all, is refused with its key and its line."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.constructor import ConstructorError

from separation.errors import UserError

MOST_VALUES = 10_000
"""So many values no config has: a short file of aliases of aliases may stand for billions."""


def read_yaml(text: str, source: str) -> Any:
    """The values that `text` stands for. Raises `UserError` naming `source` when it is no YAML, or ambiguous."""
    try:
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "too many brackets" if isinstance(error, RecursionError) else " ".join(str(error).split())
        reason = reason.replace('in "<unicode string>", ', "in ")[:300].rstrip(".")
        raise UserError(f"{source} is not valid YAML: {reason}.") from error
    _count(values, source)
    return values


class _Loader(yaml.SafeLoader):
    """Each key once, and each value one that it can be."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, KeyError, AttributeError, TypeError) as error:  # as `!!bool maybe` does
            raise ConstructorError(
                None, None, f"{node.value!r:.80} is no such value ({error})", node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        seen = set()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConstructorError(None, None, f"the key {key.value} is there twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            if isinstance(value, yaml.ScalarNode):
                try:
                    self.construct_object(value)
                except ConstructorError as error:
                    raise ConstructorError(None, None, f"{key.value}: {error.problem}", value.start_mark) from error
        return super().construct_mapping(node, deep)


def _count(values: Any, source: str) -> None:
    waiting, count = [values], 0
    while waiting:
        value, count = waiting.pop(), count + 1
        if count > MOST_VALUES:
            raise UserError(f"{source} is not valid YAML: it stands for more than {MOST_VALUES} values.")
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()][: MOST_VALUES + 1]
        elif isinstance(value, list | tuple | set):
            waiting += [*value][: MOST_VALUES + 1]
