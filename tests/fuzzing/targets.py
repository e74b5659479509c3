"""All readers of files that others may have made."""

from __future__ import annotations

from fuzzing import labels, media, models
from fuzzing.sandbox import Target

TARGETS: tuple[Target, ...] = (*media.TARGETS, *labels.TARGETS, *models.TARGETS)
