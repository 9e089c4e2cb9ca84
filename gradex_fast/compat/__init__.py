"""Other libraries' interfaces over these kernels: scikit-learn's estimators, TRAK's and dattri's projectors."""
