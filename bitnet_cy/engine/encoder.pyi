from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_cy.engine.network import Network

class Encoder:
    def __init__(self, network: Network, rows: int, threads: int = 1) -> None: ...
    @property
    def network(self) -> Network: ...
    def forward(
        self, sequences: Sequence[Any], threads: int | None = None
    ) -> NDArray[np.float32]: ...
