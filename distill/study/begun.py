"""What is asked of a run that has begun: the settings with which it would become another one."""

from __future__ import annotations

from yacs.config import CfgNode

from fasthamer.config import differing


def changed(begun: CfgNode, asked: CfgNode) -> dict[str, tuple[object, object]]:
    """The settings that differ, each as the run began and as it is now; a run stores what `auto` stood for.

    Args:
        begun: the run's own config.yaml.
        asked: what would start it today.
    """
    before, now = differing(asked, begun), differing(begun, asked)
    return {key: (before[key], now[key]) for key in now if now[key] != "auto"}
