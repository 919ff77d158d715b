"""A progress bar, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress:
    """Shows how many bytes of a stage are done, on standard error, if `visible`."""

    def __init__(self, visible: bool) -> None:
        self._visible = visible
        self._bar: tqdm[Any] | None = None

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` bytes; the one before ends."""
        self.stop()
        if self._visible:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=stage, unit="B", unit_scale=True, leave=False)

    def advance(self, nbytes: int) -> None:
        """Report more bytes as done."""
        if self._bar is not None:
            self._bar.update(nbytes)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
