"""Products with a constant sparse matrix, forwards and backwards."""

import warnings

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F


def csr(matrix: scipy.sparse.csr_array) -> torch.Tensor:
    """float32, sparse CSR, the same shape; places as int32 where they fit, which MKL would turn them into each time."""
    whole = np.int32 if matrix.nnz < 2**31 else np.int64
    parts = (torch.from_numpy(part.astype(whole)) for part in (matrix.indptr, matrix.indices))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            *parts, torch.from_numpy(matrix.data), size=matrix.shape, dtype=torch.float32, check_invariants=True
        )


def times(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A @ x for a sparse CSR A. Unlike torch's own product it fetches the rows of x ahead of their use."""
    return F.embedding_bag(
        matrix.col_indices(),
        x,
        matrix.crow_indices(),
        mode="sum",
        per_sample_weights=matrix.values(),
        include_last_offset=True,
    )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, matrix, transposed, x):
        ctx.transposed = transposed
        return times(matrix, x)

    @staticmethod
    def backward(ctx, gradient):
        return None, None, times(ctx.transposed, gradient)


def product(matrix: torch.Tensor, transposed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A @ x, whose gradient is A^T @ g. torch would transpose A at each step, ten times slower."""
    return _Product.apply(matrix, transposed, x)
