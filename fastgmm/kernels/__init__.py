"""The compiled data passes. Knows NumPy and Numba only.

Read in this order: `simd` (the vector language), `micro` and `tile` (the loops that take the time), `spherical` (the
simplest pass), `full`, `diag`, `tied`, `small` (the others), `runner` (grid, waves, fold), `programs` (the table).
"""
