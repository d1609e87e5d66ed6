"""The user-item graph: constant sparse matrices, their products, and LightGCN's propagation."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F

COLUMNS = 8192  # of a block: as many rows of x (2 MB at 64 float32) stay in a core's cache


class Sparse:
    """A constant float32 matrix as the sum of blocks of `columns` columns; a block is cut to the rows with an entry."""

    def __init__(self, matrix: scipy.sparse.csr_array, columns: int = COLUMNS):
        self.shape, self.blocks = matrix.shape, []
        by_column = matrix.tocsc()
        for start in range(0, matrix.shape[1], columns):
            part = by_column[:, start : start + columns].tocsr()
            filled = np.flatnonzero(np.diff(part.indptr))
            if len(filled):
                rows = slice(int(filled[0]), int(filled[-1]) + 1)
                begin = part.indptr[rows.start : rows.stop + 1]  # where in `indices` each row begins
                csr = part.indices.astype(np.int32), begin.astype(np.int32), part.data.astype(np.float32)
                self.blocks.append((rows, slice(start, start + columns), *map(torch.from_numpy, csr)))

    def __matmul__(self, x: torch.Tensor) -> torch.Tensor:
        """A @ x, [R, D], for x [C, D], by embedding_bag: a little faster here than torch's own CSR product.

        Raises ValueError where x has another number of rows.
        """
        if len(x) != self.shape[1]:
            raise ValueError(f"a matrix of {self.shape[1]} columns cannot be multiplied with one of {len(x)} rows")
        out = x.new_zeros(self.shape[0], x.shape[1])
        for rows, columns, indices, begin, values in self.blocks:
            out[rows] += F.embedding_bag(
                indices, x[columns], begin, mode="sum", per_sample_weights=values, include_last_offset=True
            )
        return out


class _Product(torch.autograd.Function):
    """A @ x with the gradient A^T @ g. A^T is handed in: transposing at each step would take longer than all else."""

    @staticmethod
    def forward(ctx, matrix: Sparse, transposed: Sparse, x: torch.Tensor):
        ctx.transposed = transposed
        return matrix @ x

    @staticmethod
    def backward(ctx, gradient):
        return None, None, ctx.transposed @ gradient


product = _Product.apply


def normalised_adjacency(users: np.ndarray, items: np.ndarray, n_users: int, n_items: int) -> Sparse:
    """D^-1/2 A D^-1/2 of the bipartite graph, sparse [U + I, U + I]. A repeated interaction counts once."""
    user, item = np.divmod(np.unique(users * n_items + items), n_items)
    rows, columns = np.concatenate([user, item + n_users]), np.concatenate([item + n_users, user])
    degree = np.bincount(rows, minlength=n_users + n_items)
    values = 1 / np.sqrt(degree[rows] * degree[columns])
    return Sparse(scipy.sparse.csr_array((values, (rows, columns)), shape=(n_users + n_items,) * 2))


def hops(adjacencies: Sequence[Sparse], e: torch.Tensor) -> torch.Tensor:
    """E^0, A_1 E^0, A_2 A_1 E^0, ..., one hop for each of the L (symmetric) adjacencies: [U + I, L + 1, D]."""
    out = [e]
    for adjacency in adjacencies:
        out.append(product(adjacency, adjacency, out[-1]))
    return torch.stack(out, dim=1)


def propagate(adjacencies: Sequence[Sparse], e: torch.Tensor) -> torch.Tensor:
    """The mean of `hops`, (E^0 + ... + E^L) / (L + 1), [U + I, D], without storing them."""
    total = e
    for adjacency in adjacencies:
        e = product(adjacency, adjacency, e)
        total = total + e
    return total / (len(adjacencies) + 1)
