"""Products with a constant sparse matrix, forwards and backwards."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F

COLUMNS = 8192  # of a block: as many rows of x, 2 MB of them at 64 float32, as a core's cache can hold


@dataclass(frozen=True)
class Block:
    """Some rows and columns of a matrix, in CSR form: few enough columns that the rows of x asked for stay in cache."""

    rows: slice
    columns: slice
    indices: torch.Tensor  # int32 [nnz], counted from the block's first column
    begin: torch.Tensor  # int32 [rows + 1], where in `indices` a row begins
    values: torch.Tensor  # float32 [nnz]


@dataclass(frozen=True)
class Sparse:
    """A constant matrix as the sum of its blocks, which share no column."""

    shape: tuple[int, int]
    blocks: list[Block]

    def __matmul__(self, x: torch.Tensor) -> torch.Tensor:
        """A @ x, [R, D], for x [C, D]; embedding_bag is a little faster at it than torch's own CSR product."""
        if len(x) != self.shape[1]:
            raise ValueError(f"a matrix of {self.shape[1]} columns cannot be multiplied with one of {len(x)} rows")
        out = x.new_zeros(self.shape[0], x.shape[1])
        for block in self.blocks:
            out[block.rows] += F.embedding_bag(
                block.indices,
                x[block.columns],
                block.begin,
                mode="sum",
                per_sample_weights=block.values,
                include_last_offset=True,
            )
        return out

    def to_dense(self) -> torch.Tensor:
        out = torch.zeros(self.shape)
        for block in self.blocks:
            part = out[block.rows, block.columns]
            part[torch.arange(len(part)).repeat_interleave(block.begin.diff()), block.indices.long()] = block.values
        return out


def sparse(matrix: scipy.sparse.csr_array, columns: int = COLUMNS) -> Sparse:
    """float32, the same shape, in blocks of so many columns; of rows only those between its first and last entry."""
    by_column, blocks = matrix.tocsc(), []
    for start in range(0, matrix.shape[1], columns):
        part = by_column[:, start : start + columns].tocsr()
        filled = np.flatnonzero(np.diff(part.indptr))
        if not len(filled):
            continue
        first, end = int(filled[0]), int(filled[-1]) + 1
        indices, begin = part.indices.astype(np.int32), part.indptr[first : end + 1].astype(np.int32)
        arrays = map(torch.from_numpy, (indices, begin, part.data.astype(np.float32)))
        blocks.append(Block(slice(first, end), slice(start, start + columns), *arrays))
    return Sparse(matrix.shape, blocks)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, matrix, transposed, x):
        ctx.transposed = transposed
        return matrix @ x

    @staticmethod
    def backward(ctx, gradient):
        return None, None, ctx.transposed @ gradient


def product(matrix: Sparse, transposed: Sparse, x: torch.Tensor) -> torch.Tensor:
    """A @ x, whose gradient is A^T @ g; A^T is given, since making it at each step would take longer than the rest."""
    return _Product.apply(matrix, transposed, x)
