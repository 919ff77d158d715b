from collections.abc import Sequence

from bitnet_cy.engine.screen import Screen
from bitnet_cy.engine.weights import Float32Array, Layer, Matrix, Shape

class Network:
    shape: Shape
    @property
    def screen(self) -> Screen | None: ...
    def __init__(
        self,
        shape: Shape,
        layers: Sequence[Layer],
        embedding: Matrix,
        head: Matrix,
        output_norm: Float32Array,
    ) -> None: ...
    @property
    def layout(self) -> str: ...
    @property
    def parts(self) -> dict[str, dict[str, int]]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def mapped_nbytes(self) -> int: ...
