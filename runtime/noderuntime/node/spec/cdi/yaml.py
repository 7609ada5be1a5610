"""A YAML parser for CDI files. It refuses tags, and aliases, with which a small file could exhaust memory."""

from __future__ import annotations

from typing import Any

import yaml


def load(content: str) -> Any:
    """Return the parsed document. ValueError if it is invalid."""
    try:
        return yaml.load(content, _Loader)  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, unless it is an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)
