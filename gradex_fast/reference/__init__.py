"""The specification: NumPy and torch in float64, obviously correct, slow. Every backend is tested against it."""
