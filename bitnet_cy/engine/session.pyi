from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_cy.engine.network import Network

class Session:
    def __init__(
        self,
        network: Network,
        context_length: int,
        threads: int = 1,
        kv_dtype: str = "float16",
        block_size: int = 128,
    ) -> None: ...
    @property
    def network(self) -> Network: ...
    @property
    def position(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def cache_nbytes(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def stage_seconds(self) -> dict[str, float]: ...
    def time_stages(self, on: bool = True) -> None: ...
    def truncate(self, position: int) -> None: ...
    @property
    def screened(self) -> bool: ...
    def forward(self, ids: Any, logits: str = "last", threads: int | None = None) -> Any: ...
    def forward_top(
        self,
        ids: Any,
        k: int,
        listed: NDArray[np.uint8] | None = None,
        rows: str = "last",
        threads: int | None = None,
    ) -> Any: ...
    def make_screen(self, threads: int | None = None) -> None: ...

def forward_together(
    sessions: Sequence[Session],
    ids: Sequence[int],
    threads: int | None = None,
    asks: Any = None,
) -> Any: ...
