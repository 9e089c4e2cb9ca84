"""Other packages' interfaces over the kernels: `compat.trak` and `compat.dattri`. Needs torch and NumPy only."""
