"""Model files: containers, tensor types and packed ternary layouts. Needs NumPy only."""
