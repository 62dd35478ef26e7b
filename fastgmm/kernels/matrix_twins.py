"""Plain NumPy twins of the micro-kernels in `matrix.py`; see `twins.py`. The tiles of parts are the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastgmm.kernels.matrix import PAIR
from fastgmm.kernels.matrix_units import PARTS, SIDE, TERMS, TILE_FLOATS
from fastgmm.kernels.twins import Array, Float64, add_lower, by_component, front, rows_of

Float32 = npt.NDArray[np.float32]
UPPER = np.uint32(0xFFFF0000)


def split(x: Float32) -> list[npt.NDArray[np.uint16]]:
    """High, middle and low part of float32 numbers, each the upper half of a float32's bits."""
    high = x.view(np.uint32) + np.uint32(0x8000)
    high &= UPPER
    rest = x - high.view(np.float32)
    middle = rest.view(np.uint32) & UPPER
    low = rest - middle.view(np.float32)
    return [part.view(np.uint16)[..., 1::2] for part in (high, middle, low)]


def pack_tiles(factors: Float64) -> Float32:
    """(K, D, D) lower triangles as the left factors of `matrix.matrix_density`, (K, length)."""
    k, d, _ = factors.shape
    blocks, steps = -(-d // SIDE), -(-d // TERMS)
    whole = np.zeros((k, blocks, SIDE, steps, TERMS), np.float32)
    whole.reshape(k, blocks * SIDE, steps * TERMS)[:, :d, :d] = factors
    tiles = [whole[:, i, :, s] for i in range(blocks) for s in range(i // 2 + 1)]
    parts = np.stack([np.stack(split(np.ascontiguousarray(tile)), axis=1) for tile in tiles], axis=1)
    return np.ascontiguousarray(parts).view(np.float32).reshape(k, -1)


def begin_units(_: Array) -> None:
    """Nothing to set up."""


def end_units(_: Array) -> None:
    """Nothing to give back."""


def right_factor(terms: Array) -> Array:
    """(32, 16) float32, terms in the order of pairs, as (parts, tile) float32."""
    out = np.empty((PARTS, SIDE, SIDE, 2), np.uint16)
    for part, values in enumerate(split(np.ascontiguousarray(terms))):
        out[part] = values.reshape(SIDE, 2, SIDE).transpose(0, 2, 1)
    return out.reshape(PARTS, -1).view(np.float32)


def numbers(tiles: Array) -> Float64:
    """(..., parts, tile) float32 as the numbers that the parts add up to, (..., 16, 32), in the tile's own order."""
    halves = np.ascontiguousarray(tiles).view(np.uint16).astype(np.uint32) << np.uint32(16)
    parts: Float64 = halves.view(np.float32).astype(np.float64).sum(axis=-2)
    return parts.reshape(*tiles.shape[:-2], SIDE, TERMS)


def by_terms(right: Float64) -> Float64:
    """The numbers of right factors, (..., 16, 32), as (..., 32 terms, 16 columns)."""
    pairs = right.reshape(*right.shape[:-1], SIDE, 2)
    return np.moveaxis(pairs, -1, -2).reshape(*right.shape[:-2], TERMS, SIDE)


def split_columns(panels: Array, count: int, n: int, out: Array) -> None:
    """Right factors of the density."""
    steps = -(-n // TERMS)
    tiles = front(out, -(-count // TERMS), steps, PAIR, PARTS, TILE_FLOATS)
    x = np.zeros((count, steps * TERMS), np.float32)
    x[:, :n] = rows_of(panels, -(-count // 48), n)[:count]
    for v in range(count // SIDE):
        for s in range(steps):
            block = x[v * SIDE : (v + 1) * SIDE, s * TERMS : (s + 1) * TERMS]
            tiles[v // PAIR, s, v % PAIR] = right_factor(block.T)


def matrix_density(
    columns: Array,
    shifts: Array,
    factors: Array,
    length: int,
    n: int,
    k: int,
    log_norm: Array,
    work: Array,
    out: Array,
    stride: int,
) -> None:
    """out[c] = log_norm[c] - |W_c x + shift_c|^2 / 2 for 32 rows."""
    steps, blocks = -(-n // TERMS), -(-n // SIDE)
    right = by_terms(numbers(front(columns, steps, PAIR, PARTS, TILE_FLOATS)))
    x = right.transpose(0, 2, 1, 3).reshape(steps * TERMS, PAIR, SIDE).reshape(steps * TERMS, -1)
    for c in range(k):
        triangle = np.zeros((blocks * SIDE, steps * TERMS))
        left = numbers(front(factors.reshape(-1)[c * length :], length // (PARTS * TILE_FLOATS), PARTS, TILE_FLOATS))
        places = [(i, s) for i in range(blocks) for s in range(i // 2 + 1)]
        for (i, s), tile in zip(places, left, strict=True):
            triangle[i * SIDE : (i + 1) * SIDE, s * TERMS : (s + 1) * TERMS] = tile
        y = triangle @ x + front(shifts, k, blocks * SIDE)[c][:, None]
        out.reshape(-1)[c * stride :][: PAIR * SIDE] = log_norm.reshape(-1)[c] - 0.5 * (y * y).sum(axis=0)


def split_halves(rows: Array, count: int, padded: int, out: Array) -> None:
    """Right factors of the moments."""
    steps, blocks = -(-count // TERMS), padded // SIDE
    x = np.zeros((steps * TERMS, padded), np.float32)
    x[:count] = front(rows, count, padded)
    tiles = front(out, steps, blocks, PARTS, TILE_FLOATS)
    order = np.arange(TERMS).reshape(2, SIDE).T.ravel()  # terms t and t + 16 side by side
    for s in range(steps):
        for b in range(blocks):
            tiles[s, b] = right_factor(x[s * TERMS + order, b * SIDE : (b + 1) * SIDE])


def matrix_moments(
    resp: Array,
    stride: int,
    k: int,
    panels: Array,
    halves: Array,
    begin: int,
    end: int,
    n: int,
    weighted: Array,
    work: Array,
    fresh: int,
    out: Array,
) -> None:
    """Weighted sums of products of features, tiles of the lower triangles."""
    b = -(-n // SIDE)
    x = np.zeros((end - begin, b * SIDE))
    x[:, :n] = rows_of(panels, -(-end // 48), n)[begin:end]
    r = by_component(resp, k, stride, end).astype(np.float64)[:, begin:]
    for c, tiles in enumerate(front(out, k + k % 2, b * (b + 1) // 2, SIDE, SIDE)):
        square = (x * (r[c] if c < k else 0.0 * r[0])[:, None]).T @ x
        places = [(i, j) for i in range(b) for j in range(i + 1)]
        for tile, (i, j) in zip(tiles, places, strict=True):
            mine = square[i * SIDE : (i + 1) * SIDE, j * SIDE : (j + 1) * SIDE]
            tile[:] = mine if fresh else tile + mine


def add_sums(given: Array, k: int, n: int, moments: Array, length: int) -> None:
    """Tiles of lower triangles into packed moments."""
    b = -(-n // SIDE)
    for c, tiles in enumerate(front(given, k, b * (b + 1) // 2, SIDE, SIDE)):
        square = np.zeros((b * SIDE, b * SIDE))
        places = [(i, j) for i in range(b) for j in range(i + 1)]
        for tile, (i, j) in zip(tiles, places, strict=True):
            square[i * SIDE : (i + 1) * SIDE, j * SIDE : (j + 1) * SIDE] = tile
        add_lower(moments.reshape(-1)[c * length :], square[:n], given.itemsize)
