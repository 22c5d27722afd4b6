"""Triton kernels, one a file; the torch function of the same name in `kernels/` is the reference of each.

Written for the common subset of triton 3.6 to 3.9: plain pointers, no autotuning (configurations are chosen in Python,
so that CUDA graphs and the interpreter can run them).
"""
