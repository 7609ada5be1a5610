"""YAML, as far as CDI files need it: without tags and without references, by which a file could explode."""

from __future__ import annotations

from typing import Any

import yaml


def load(content: str) -> Any:
    """Parse a document. Raises ValueError."""
    try:
        return yaml.load(content, _Loader)  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, unless it stands for another."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references (*name) are not allowed")
        return super().compose_node(parent, index)
