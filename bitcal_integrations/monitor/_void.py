"""A profile without what it promised: certificates and early stops hold for one confidence only."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from bitcal_integrations.profile import Profile, TaskProfile


def nothing_promised(one: TaskProfile) -> dict[str, Any]:
    """The fields of a task's profile that hold promises, as they are where there are none."""
    empty: dict[str, Any] = {"certificates": (), "stops": ()}
    return {f.name: empty[f.name] for f in fields(one) if f.name in empty}


def without_promises(profile: Profile) -> Profile:
    tasks = {name: replace(one, **nothing_promised(one)) for name, one in profile.tasks.items()}
    return replace(profile, tasks=tasks)
