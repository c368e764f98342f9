"""The part of `cupy.cuda.cublas` that generated modules use: one product of matrices, on plain addresses."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from gategen.emulator.errors import EmulatorError
from gategen.emulator.memory import Host, matrix
from gategen.emulator.tally import note

CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32 = 68, 70, 77
CUBLAS_GEMM_DEFAULT = -1
CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF = 0, 1, 2, 14  # of the runtime


def _dtype(kind: int) -> np.dtype[Any]:
    if kind == CUDA_R_16BF:
        import ml_dtypes

        narrow: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return narrow
    return np.dtype({CUDA_R_32F: "f4", CUDA_R_64F: "f8", CUDA_R_16F: "f2"}[kind])


def gemmEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int,
    alpha: int, A: int, Atype: int, lda: int, B: int, Btype: int, ldb: int,
    beta: int, C: int, Ctype: int, ldc: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """C = alpha * A @ B + beta * C, all of them column by column: here, as rows of their transposes."""
    double = computeType == CUBLAS_COMPUTE_64F
    if not Atype == Btype == Ctype or double != (Ctype == CUDA_R_64F):
        raise EmulatorError(f"CUBLAS_STATUS_NOT_SUPPORTED: types {Atype}, {Btype}, {Ctype} in {computeType}")
    if min(m, n, k) < 1 or lda < (k if transa else m) or ldb < (n if transb else k) or ldc < m:
        raise EmulatorError(f"CUBLAS_STATUS_INVALID_VALUE: {m, n, k} with steps of {lda}, {ldb} and {ldc}")
    real = ctypes.c_double if double else ctypes.c_float
    a, b = (np.dtype(real).type(real.from_address(address).value) for address in (alpha, beta))
    dtype = _dtype(Ctype)
    left = matrix(A, dtype, (m, k) if transa else (k, m), lda)
    right = matrix(B, dtype, (k, n) if transb else (n, k), ldb)
    out = matrix(C, dtype, (n, m), ldc)
    if np.shares_memory(out, left) or np.shares_memory(out, right):  # columns of one array may take turns
        raise EmulatorError("a product that overwrites what it reads")
    first: Host = np.asarray(right.T if transb else right, real)
    second: Host = np.asarray(left.T if transa else left, real)
    with np.errstate(all="ignore"):
        result: Host = a * np.matmul(first, second)
        out[...] = result if b == 0 else result + b * np.asarray(out, real)
    note("product")
