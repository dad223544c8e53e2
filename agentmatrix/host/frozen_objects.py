"""What a process has before it serves, out of the sight of Python's garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

__all__ = ["frozen_objects"]

_THRESHOLD: Final = 2_000
"""New objects after which the collector looks at them: what later Pythons begin with. A run that waits for its nodes
has some hundred, which die with it."""


@contextlib.contextmanager
def frozen_objects() -> Iterator[None]:
    """Has the collector pass over all that is there, inside of this.

    Where something has been frozen before, the program sees to it itself: nothing is frozen then, and nothing unfrozen,
    which goes for all objects or none.

    The modules and classes of a host are some 300,000 objects that live as long as it does. Under many callers the
    collector went through all of them several times a second, for a quarter of the host's time.
    """
    before, *others = gc.get_threshold()
    freezes = not gc.get_freeze_count()
    if freezes:
        gc.collect()
        gc.freeze()
    if before:
        gc.set_threshold(max(before, _THRESHOLD), *others)
    try:
        yield
    finally:
        gc.set_threshold(before, *others)
        if freezes:
            gc.unfreeze()
