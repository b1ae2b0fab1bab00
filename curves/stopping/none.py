"""Never stop before the horizon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from curves.stopping.base import EvaluationRule


@dataclass
class NoRule(EvaluationRule):
    """Runs to the horizon; still says which checkpoint is best."""

    name: ClassVar[str] = "none"

    def decide(self) -> str | None:
        """Never."""
        return None
