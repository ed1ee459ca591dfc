"""The kernel of gated.py, in a module of its own: Triton is imported only where it is asked for."""

import triton
import triton.language as tl


@triton.jit
def gated_tiles(
    h, gate_up, out, inner, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr
):
    """One tile of silu(h · gateᵀ) · (h · upᵀ); h, gate_up, out: descriptors of tiles.

    What lies beyond an edge is read as zero and not written; beyond gate's last row it reads up's, which
    are not written either.
    """
    across = tl.cdiv(inner, COLUMNS)
    row = tl.program_id(0) // across * ROWS
    column = tl.program_id(0) % across * COLUMNS
    gate = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    up = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for at in range(0, width, DEPTH):
        some = h.load([row, at])
        gate = tl.dot(some, gate_up.load([column, at]).T, gate)
        up = tl.dot(some, gate_up.load([inner + column, at]).T, up)
    out.store([row, column], (gate * tl.sigmoid(gate) * up).to(out.dtype))
