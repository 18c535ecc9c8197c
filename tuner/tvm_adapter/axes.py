"""Arithmetic on axis orders: which stored order stands for which original one. Pure functions on tuples.

A tensor of original shape `shape` is stored as `transpose(original, order)`: stored axis j holds original axis
`order[j]`. `(0, 2, 3, 1)` is NHWC storage of an NCHW tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

Order = tuple[int, ...]
Shape = tuple[int, ...]


def identity(rank: int) -> Order:
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """(batch, channel, *space) stored with the channels last."""
    return (0, *range(2, rank), 1)


def stored_shape(shape: Shape, order: Order) -> Shape:
    return tuple(shape[axis] for axis in order)


def moves(stored: Order, wanted: Order) -> Order:
    """The axes of a transpose that turns `stored` order into `wanted` order."""
    return tuple(stored.index(axis) for axis in wanted)


def moves_nothing(shape: Shape, axes: Order) -> bool:
    """True when transposing a tensor of `shape` by `axes` leaves its memory as it is (only unit axes move)."""
    real = [axis for axis in axes if shape[axis] != 1]
    return real == sorted(real)


def transposed(order: Order, axes: Order) -> Order:
    """The order of the same memory seen through `transpose(original, axes)`."""
    return tuple(axes.index(axis) for axis in order)


def without(order: Order, dropped: set[int]) -> Order:
    """The order after removing original axes."""
    kept = [axis for axis in order if axis not in dropped]
    return tuple(sorted(kept).index(axis) for axis in kept)


@dataclass(frozen=True, slots=True)
class Group:
    """Axes before a reshape that become these axes after it, element by element in the same order."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def reshape_groups(before: Shape, after: Shape) -> list[Group]:
    """Cut a reshape into the smallest independent groups of axes; unit axes join the group on their left."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left_unit = i < len(before) and before[i] == 1 and not (j < len(after) and after[j] == 1)
        right_unit = j < len(after) and after[j] == 1 and not (i < len(before) and before[i] == 1)
        if groups and (left_unit or j >= len(after)):
            groups[-1][0].append(i)
            i += 1
        elif groups and (right_unit or i >= len(before)):
            groups[-1][1].append(j)
            j += 1
        else:
            i, j, group = _grow(before, after, i, j)
            groups.append(group)
    return [Group(tuple(first), tuple(second)) for first, second in groups]


def _grow(before: Shape, after: Shape, i: int, j: int) -> tuple[int, int, tuple[list[int], list[int]]]:
    """Take axes from both sides, the lesser product first, until the products are equal."""
    first, second = list(range(i, min(i + 1, len(before)))), list(range(j, min(j + 1, len(after))))
    i, j = i + len(first), j + len(second)
    left, right = (before[first[0]] if first else 1), (after[second[0]] if second else 1)
    while left != right:
        if left < right:
            left *= before[i]
            first.append(i)
            i += 1
        else:
            right *= after[j]
            second.append(j)
            j += 1
    return i, j, (first, second)


def order_for_reshape(shape: Shape, order: Order, groups: list[Group]) -> Order:
    """`order` itself when its memory can be reshaped as it is, else the nearest order whose memory can."""
    position = {axis: index for index, axis in enumerate(order)}
    real = [axis for axis in order if shape[axis] != 1]
    arranged = _arrange(shape, position, groups)
    wanted = [axis for group in arranged for axis in group.before if shape[axis] != 1]
    if real == wanted:
        return order
    return tuple(axis for group in arranged for axis in group.before)


def order_after_reshape(shape: Shape, order: Order, groups: list[Group]) -> Order:
    """The order of the reshaped tensor in the memory of one stored in an order from `order_for_reshape`."""
    position = {axis: index for index, axis in enumerate(order)}
    return tuple(axis for group in _arrange(shape, position, groups) for axis in group.after)


def _arrange(shape: Shape, position: dict[int, int], groups: list[Group]) -> list[Group]:
    def place(group: Group) -> tuple[int, int]:
        real = [position[axis] for axis in group.before if shape[axis] != 1]
        places = real or [position[axis] for axis in group.before] or [-1]
        return max(places), group.after[0] if group.after else -1

    return sorted(groups, key=place)
