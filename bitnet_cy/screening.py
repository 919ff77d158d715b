"""When a model's output head is screened: read in part, for the same tokens."""

from __future__ import annotations

from bitnet_cy import engine, memory
from bitnet_cy.errors import OptionError

CHOICES = ("auto", "full", "screened")
WORTH_BYTES, WORTH_TOKENS = 2**23, 16
"""What auto asks for: a screen of at least so many bytes, so many tokens to come."""


def tokens_worth_it(network: engine.Network, choice: str, name: str) -> int | None:
    """From how many tokens to come a screen of the head is made; None: never.

    name: the model's file, for messages. Raises OptionError if the choice is "screened" and the
    head cannot be, ResourceError if the memory does not allow it.
    """
    supported = engine.screen.supports(network)
    if choice == "screened" and not supported:
        raise OptionError(
            f"the output head of {name} is of a type or width that cannot be screened (F16, BF16 "
            "and F32 can); use head='auto'"
        )
    if choice == "full" or not supported:
        return None
    nbytes = engine.screen.nbytes(network)
    if choice == "screened":
        memory.require(nbytes, f"the screened head of {name}", "use head='full'")
        return 0
    free = memory.available()
    worth = nbytes >= WORTH_BYTES and (free is None or free > 2 * nbytes)
    return WORTH_TOKENS if worth else None
