"""What other libraries' users know, over this library's kernels: one module per library."""
