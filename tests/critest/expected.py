"""Specs that pods of our handlers cannot pass, each with its reason; anything else that fails is a bug."""

from __future__ import annotations

NOT_OFFERED: dict[str, str] = {}
