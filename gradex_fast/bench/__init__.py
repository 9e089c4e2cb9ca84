"""`gradex-fast bench`: how fast kernels, passes and the subset solver are here, beside what this machine allows.

Nothing is imported until it is needed: the command line is read before torch is.
"""
