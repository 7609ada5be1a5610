"""Specs that pods of our handlers cannot pass, each with its reason; anything else that fails is a bug."""

from __future__ import annotations

from collections.abc import Mapping

NOT_OFFERED: Mapping[str, str] = {}
"""From a pattern of names to the reason."""
