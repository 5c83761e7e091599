"""How the forward pass is computed fast: kernels, matrix products, threads, packs, and taps.

textbook.py defines what everything here computes; checked inputs come in, columns go out.
"""
