"""Room on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from bitnet_cy.errors import OptionError, ResourceError


def require(path: Path, nbytes: int) -> None:
    """ResourceError unless `nbytes` more fit where `path` is to be written."""
    try:
        free = shutil.disk_usage(path.parent).free
    except FileNotFoundError:
        raise OptionError(f"no such folder: {path.parent}; make it first") from None
    except OSError as error:
        raise ResourceError(f"cannot write to {path.parent}: {error.strerror}") from None
    if nbytes > free:
        raise ResourceError(
            f"the result takes {nbytes:,} bytes, and {path.parent} has {free:,} left; make room or "
            "write elsewhere"
        )
