"""The exceptions bitnet_cy raises: what was found, what is supported, what to do, in a sentence."""

from __future__ import annotations


class BitNetError(Exception):
    """Base of every error raised on purpose."""


class FormatError(BitNetError):
    """A file is malformed, truncated, or inconsistent with itself."""


class UnsupportedError(BitNetError):
    """A well-formed file or request that bitnet_cy does not run."""


class OptionError(BitNetError, ValueError):
    """An argument or option has a wrong type or value."""


class ContextError(BitNetError):
    """More tokens than the context holds."""


class DownloadError(BitNetError):
    """A model could not be had: no network, no such repository or file, or no permission."""


class ResourceError(BitNetError):
    """Not enough memory or disk space."""
