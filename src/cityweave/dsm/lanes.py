"""Steps of semi-global matching on many heights at once, for compiled functions.

A cell has few heights: what a compiled loop does before and after its wide part would take most of the time. Whole
lanes are read and written; arrays must be long enough for the last ones.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 32  # heights that are worked on at once
FAR = 30000  # what no path costs; with the dearest jump on top it still is an int16


class _Lanes:
    """Instructions on LANES int16 values."""

    kind = ir.VectorType(ir.IntType(16), LANES)

    def __init__(self, context, builder, signature):  # type: ignore[no-untyped-def]
        self._context, self._builder, self._arrays = context, builder, signature.args

    def place(self, argument, array, index, kind=kind):  # type: ignore[no-untyped-def]
        data = self._context.make_array(self._arrays[argument])(self._context, self._builder, array).data
        return self._builder.bitcast(self._builder.gep(data, [index]), kind.as_pointer())

    def read(self, argument, array, index):  # type: ignore[no-untyped-def]
        return self._builder.load(self.place(argument, array, index), align=2)

    def write(self, value, argument, array, index):  # type: ignore[no-untyped-def]
        self._builder.store(value, self.place(argument, array, index), align=2)

    def everywhere(self, value):  # type: ignore[no-untyped-def]
        one = self._builder.insert_element(ir.Constant(self.kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self._builder.shuffle_vector(one, one, mask)

    def least(self, a, b):  # type: ignore[no-untyped-def]
        return self._builder.select(self._builder.icmp_signed("<", a, b), a, b)

    def where_before(self, n, value, other):  # type: ignore[no-untyped-def]
        """`value` in the first `n` lanes, the constant `other` in the rest."""
        count = self._builder.trunc(self.shorter(n), ir.IntType(16))
        inside = self._builder.icmp_signed("<", ir.Constant(self.kind, list(range(LANES))), self.everywhere(count))
        return self._builder.select(inside, value, ir.Constant(self.kind, [other] * LANES))

    def shorter(self, n):  # type: ignore[no-untyped-def]
        most = ir.Constant(n.type, LANES)
        return self._builder.select(self._builder.icmp_signed("<", n, most), n, most)


@intrinsic
def _take_lanes(typing_context, cost, at, own, first, n):  # type: ignore[no-untyped-def]
    """Costs of a cell with `n` heights left; FAR beyond them."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        cost, at, own, first, n = arguments
        lanes = _Lanes(context, builder, signature)
        narrow = ir.VectorType(ir.IntType(8), LANES)
        value = builder.zext(builder.load(lanes.place(0, cost, at, narrow), align=1), lanes.kind)
        lanes.write(lanes.where_before(n, value, FAR), 2, own, first)

    return types.void(cost, at, own, first, n), generate


@intrinsic
def _add_lanes(typing_context, total, at, sums, first, n):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        total, at, sums, first, n = arguments
        lanes = _Lanes(context, builder, signature)
        more = lanes.where_before(n, lanes.read(2, sums, first), 0)
        lanes.write(builder.add(lanes.read(0, total, at), more), 0, total, at)

    return types.void(total, at, sums, first, n), generate


@intrinsic
def _carry_lanes(typing_context, before, at, own, path, out, sums, first, jump, p1, floor):  # type: ignore[no-untyped-def]
    """Carry LANES heights of a path one cell further; returns the least of them.

    `before[at]` is the neighbour's value of the first height; the lanes after those written to `path` are set to FAR.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        before, at, own, path, out, sums, first, jump, p1, floor = arguments
        lanes = _Lanes(context, builder, signature)
        step = ir.Constant(at.type, 1)
        below, above = (lanes.read(0, before, index) for index in (builder.sub(at, step), builder.add(at, step)))
        stepped = builder.add(lanes.least(below, above), lanes.everywhere(p1))
        value = lanes.least(lanes.least(lanes.read(0, before, at), lanes.everywhere(jump)), stepped)
        value = builder.add(builder.sub(value, lanes.everywhere(floor)), lanes.read(2, own, first))
        lanes.write(value, 3, path, out)
        lanes.write(ir.Constant(lanes.kind, [FAR] * LANES), 3, path, builder.add(out, ir.Constant(out.type, LANES)))
        lanes.write(builder.add(lanes.read(5, sums, first), value), 5, sums, first)
        kind = ir.FunctionType(ir.IntType(16), [lanes.kind])
        name = f"llvm.vector.reduce.smin.v{LANES}i16"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [value])

    return types.int16(before, at, own, path, out, sums, first, jump, p1, floor), generate


take_lanes: Any = _take_lanes
add_lanes: Any = _add_lanes
carry_lanes: Any = _carry_lanes
