"""How channels flow through operators without weights: elementwise, pooling, joining, taking apart, reshaping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import fx

from kneepoint.spaces.axis_shapes import (
    PERMUTATIONS,
    RESHAPES,
    Reshape,
    axis_before,
    bounds_of,
    permutation_of,
    pieces_of,
    reshape_of,
    squeezed_axes,
    stored_behind,
)
from kneepoint.spaces.channel_sets import Run, Runs
from kneepoint.spaces.flow_state import FlowState, Rule
from kneepoint.spaces.tracing import DROPOUTS, argument_of, as_node, is_tensor, operator_name, shape_of, source_of


def keep_axis(flow: FlowState, node: fx.Node) -> str:
    """The channels stay where they are."""
    source = source_of(node)
    if source in flow.values:
        flow.values[node] = flow.values[source]
    return ""


def elementwise(flow: FlowState, node: fx.Node) -> str:
    """Tensors that broadcast against each other: what meets along the channels varies together."""
    sides = [side for side in node.all_input_nodes if is_tensor(side)]
    rank = len(shape_of(node))
    wide: dict[fx.Node, int] = {}  # where the channels of a side lie in the result
    for side in sides:
        if side in flow.values and stored_behind(side) is None and shape_of(side)[flow.values[side][0]] > 1:
            wide[side] = flow.values[side][0] + rank - len(shape_of(side))
    if not wide:
        return ""
    at = next(iter(wide.values()))
    why = f"it meets a tensor whose channels are fixed ({node.name})"
    if set(wide.values()) != {at}:
        return why
    runs = flow.values[next(iter(wide))][1]
    for side in sides:
        place = at - rank + len(shape_of(side))
        if side in wide:
            flow.sets.unite(runs, flow.values[side][1], why)
        elif place >= 0 and shape_of(side)[place] != 1 and not _bind_stored(flow, side, place, runs):
            return why
    flow.values[node] = (at, runs)
    return ""


def bind_expression(flow: FlowState, node: fx.Node, axis: int, runs: Runs) -> bool:
    """Tie an axis of what is computed from stored tensors, one element at a time, to ``runs``; False if it is not."""
    if node in flow.values:
        flow.sets.unite(runs, flow.values[node][1], f"it meets a tensor whose channels are fixed ({node.name})")
        return flow.values[node][0] == axis
    if stored_behind(node) is not None:
        return _bind_stored(flow, node, axis, runs)
    if operator_name(node) in RESHAPES or operator_name(node) in PERMUTATIONS:
        before = axis_before(node, axis)
        bound = before is not None and bind_expression(flow, source_of(node), before, runs)
    else:
        sources = [(side, axis - len(shape_of(node)) + len(shape_of(side))) for side in node.all_input_nodes]
        wide = [(side, place) for side, place in sources if place >= 0 and shape_of(side)[place] > 1]
        known = operator_name(node) in (*_ELEMENTWISE, "expand")
        bound = known and bool(wide) and all(bind_expression(flow, side, place, runs) for side, place in wide)
    if bound:
        flow.values[node] = (axis, runs)
        flow.explained.add(node)
    return bound


def _bind_stored(flow: FlowState, side: fx.Node, axis: int, runs: Runs) -> bool:
    """Tie an axis of a stored tensor that comes in another shape (``gamma.view(1, -1, 1, 1)``); False if it is not."""
    shapes: dict[fx.Node, tuple[int, Runs]] = {}
    while side.op != "get_attr":
        shapes[side] = (axis, runs)
        before = None if stored_behind(side) is None else axis_before(side, axis)
        if before is None:
            return False
        side, axis = source_of(side), before
    flow.values.update(shapes)
    flow.bind(side, axis, runs)
    return True


def spatial(flow: FlowState, node: fx.Node) -> str:
    """Pooling and resizing, which work on the axes behind axis 1; some return indices, too."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    if axis != 1:
        return f"operator {operator_name(node)} works across it"
    if is_tensor(node):
        flow.values[node] = (axis, runs)
    else:
        flow.pieces[node] = [(axis, runs)] * len(node.meta["val"])
    return ""


def along_another(flow: FlowState, node: fx.Node) -> str:
    """Softmax, cumulative sums, flips: they mix what lies along one axis."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    rank = len(shape_of(node))
    dims = argument_of(node, 2 if operator_name(node) == "roll" else 1, "dim", ())
    mixed = {dim % rank for dim in (dims if isinstance(dims, list | tuple) else [dims])}
    if axis in mixed or not mixed:
        return f"operator {operator_name(node)} mixes its channels ({node.name})"
    flow.values[node] = (axis, runs)
    return ""


def reduce(flow: FlowState, node: fx.Node) -> str:
    """A mean, sum or extreme over other axes, or of two tensors; some return a second one, such as indices."""
    source = source_of(node)
    if isinstance(argument_of(node, 1, "other", None), fx.Node):
        return elementwise(flow, node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    rank = len(shape_of(source))
    reduced = _reduced_axes(node, rank)
    if axis in reduced:
        return f"it is summed up ({node.name})"
    first = node.meta["val"] if is_tensor(node) else node.meta["val"][0]
    kept = first.dim() == rank
    result = (axis if kept else axis - sum(dim < axis for dim in reduced), runs)
    if is_tensor(node):
        flow.values[node] = result
    else:
        flow.pieces[node] = [result] * len(node.meta["val"])
    return ""


def _reduced_axes(node: fx.Node, rank: int) -> set[int]:
    dims = argument_of(node, 2 if operator_name(node) == "linalg_vector_norm" else 1, "dim", None)
    if dims is None or dims == [] or isinstance(dims, bool):  # std(unbiased) has no axes
        return set(range(rank))
    return {dim % rank for dim in ([dims] if isinstance(dims, int) else dims)}


def permute(flow: FlowState, node: fx.Node) -> str:
    """The axes in another order."""
    source = source_of(node)
    if source in flow.values:
        axis, runs = flow.values[source]
        flow.values[node] = (permutation_of(node).index(axis), runs)
    return ""


def expand(flow: FlowState, node: fx.Node) -> str:
    """Axes of one element are repeated, new ones put in front."""
    source = source_of(node)
    if source in flow.values and shape_of(source)[flow.values[source][0]] > 1:
        axis, runs = flow.values[source]
        flow.values[node] = (axis + len(shape_of(node)) - len(shape_of(source)), runs)
    return ""


def repeat(flow: FlowState, node: fx.Node) -> str:
    """Copies behind each other along other axes, and along new ones in front."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    place = axis + len(shape_of(node)) - len(shape_of(source))
    if shape_of(node)[place] != shape_of(source)[axis]:
        return f"its channels are repeated ({node.name})"
    flow.values[node] = (place, runs)
    return ""


def sample(flow: FlowState, node: fx.Node) -> str:
    """Pixels at places that another tensor names."""
    places = as_node(node.args[1])
    if places in flow.values:
        flow.sets.freeze(flow.values[places][1], f"it says where to sample ({node.name})")
    return spatial(flow, node)


def fresh(flow: FlowState, node: fx.Node) -> str:
    """A new tensor of a written size, which reads nothing but the type of its input."""
    return ""


# --- joining and taking apart -----------------------------------------------------------------------------------------


def concatenate(flow: FlowState, node: fx.Node) -> str:
    """Along the channels they line up; along another axis they vary together."""
    listed = _listed(node)
    known = [flow.values[part] for part in listed if part in flow.values]
    if not known:
        return ""
    axis = known[0][0]
    if {place for place, _ in known} != {axis}:
        return f"it is concatenated along another axis ({node.name})"
    along = argument_of(node, 1, "dim", 0) % len(shape_of(node))
    everywhere = [_runs(flow, part, axis) for part in listed]
    if along == axis:
        flow.values[node] = (axis, tuple(run for runs in everywhere for run in runs))
        return ""
    return _together(flow, node, axis, everywhere)


def stack(flow: FlowState, node: fx.Node) -> str:
    """Along a new axis, so that they vary together."""
    listed = _listed(node)
    known = [flow.values[part] for part in listed if part in flow.values]
    if not known:
        return ""
    axis = known[0][0]
    if {place for place, _ in known} != {axis}:
        return f"it is stacked with a tensor whose channels lie elsewhere ({node.name})"
    along = argument_of(node, 1, "dim", 0) % len(shape_of(node))
    return _together(flow, node, axis + (along <= axis), [_runs(flow, part, axis) for part in listed])


def split(flow: FlowState, node: fx.Node) -> str:
    """Chunks: parts of the channels, or all of them in every chunk."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, rest = flow.values[source]
    pieces: list[tuple[int, Runs]] = []
    along = argument_of(node, 2, "dim", 0) % len(shape_of(source))
    if along != axis:
        flow.pieces[node] = [(axis, rest)] * len(node.meta["val"])
        return ""
    for size in pieces_of(node, axis):
        piece, rest = flow.sets.divide(rest, size, f"it is cut within a channel ({node.name})")
        pieces.append((axis, piece))
    flow.pieces[node] = pieces
    return ""


def take_piece(flow: FlowState, node: fx.Node) -> str:
    """One tensor of a list."""
    pieces, index = flow.pieces.get(source_of(node)), node.args[1]
    if pieces is not None and isinstance(index, int) and is_tensor(node):
        flow.values[node] = pieces[index]
    return ""


def take_slice(flow: FlowState, node: fx.Node) -> str:
    """Some of the channels, or of what lies along another axis."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    if argument_of(node, 1, "dim", 0) % len(shape_of(node)) == axis:
        bounds = bounds_of(node)
        if bounds is None:
            return f"it is sliced in steps, or at places that are computed ({node.name})"
        why = f"it is sliced within a channel ({node.name})"
        _, rest = flow.sets.divide(runs, bounds[0], why)
        runs, _ = flow.sets.divide(rest, bounds[1] - bounds[0], why)
    flow.values[node] = (axis, runs)
    return ""


def select(flow: FlowState, node: fx.Node) -> str:
    """One element along another axis."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    along = argument_of(node, 1, "dim", 0) % len(shape_of(source))
    if along == axis:
        return f"single channels are picked out of it ({node.name})"
    flow.values[node] = (axis - (along < axis), runs)
    return ""


def unbind(flow: FlowState, node: fx.Node) -> str:
    """Every element along another axis."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    along = argument_of(node, 1, "dim", 0) % len(shape_of(source))
    if along == axis:
        return f"single channels are picked out of it ({node.name})"
    flow.pieces[node] = [(axis - (along < axis), runs)] * len(node.meta["val"])
    return ""


def gate(flow: FlowState, node: fx.Node) -> str:
    """GLU: one half of an axis times the sigmoid of the other."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    if argument_of(node, 1, "dim", -1) % len(shape_of(node)) == axis:
        why = f"its halves gate each other ({node.name})"
        half, other = flow.sets.divide(runs, shape_of(node)[axis], why)
        flow.sets.unite(half, other, why)
        runs = half
    flow.values[node] = (axis, runs)
    return ""


def pad(flow: FlowState, node: fx.Node) -> str:
    """Constants around the channels, or along other axes."""
    source, sizes = source_of(node), argument_of(node, 1, "pad", ())
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    place = 2 * (len(shape_of(node)) - 1 - axis)  # sizes come in pairs, those of the last axis first
    added = list(sizes[place : place + 2]) if len(sizes) > place else [0, 0]
    if any(added):
        if argument_of(node, 2, "mode", "constant") in ("reflect", "replicate", "circular") or min(added) < 0:
            return f"channels are added to it or cut off ({node.name})"
        before, after = (flow.sets.constant(size, f"it is padding ({node.name})") if size else () for size in added)
        runs = (*before, *runs, *after)
    flow.values[node] = (axis, runs)
    return ""


# --- reshaping --------------------------------------------------------------------------------------------------------


def reshape(flow: FlowState, node: fx.Node) -> str:
    """An axis that stays whole, is merged with its neighbours, or is told apart into several."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    if operator_name(node) == "squeeze" and axis in squeezed_axes(node):
        return f"it is squeezed away where one channel is left ({node.name})"
    if shape_of(source)[axis] == 1:
        return ""
    change = reshape_of(node, axis)
    if change is None:
        return f"it is reshaped into the batch ({node.name})"
    merged = tuple(replace(run, repeat=run.repeat * change.trail) for run in flow.sets.resolve(runs)) * change.lead
    flow.values[node] = _told_apart(flow, node, merged, change)
    return ""


def _told_apart(flow: FlowState, node: fx.Node, runs: Runs, change: Reshape) -> tuple[int, Runs]:
    """Which of several axes carries the channels on, and how.

    Along an axis with ``outer`` elements before it and ``inner`` behind it, channels vary in blocks of ``inner``, and
    the same ones in each of the ``outer`` parts. An axis where this ties nothing together that was free is the one;
    else the one that attention has its heads along, or the longest.
    """
    why = f"it is reshaped across its channels ({node.name})"
    places = range(len(change.sizes))
    sides = [(math.prod(change.sizes[:place]), math.prod(change.sizes[place + 1 :])) for place in places]
    free = [place for place in places if _ties_nothing(flow, runs, *sides[place])]
    heads = flow.heads.get(node)
    longest = max(places, key=lambda place: change.sizes[place])
    place = free[0] if free else change.targets.index(heads) if heads in change.targets else longest
    outer, inner = sides[place]
    part = _one_of_equal(flow, runs, outer, change.sizes[place] * inner, why)
    return change.targets[place], flow.sets.scale(part, inner, 1, why)


def _one_of_equal(flow: FlowState, runs: Runs, count: int, size: int, why: str) -> Runs:
    """The first of ``count`` parts of an axis, each of ``size`` elements, that vary together."""
    part, rest = flow.sets.divide(runs, size, why)
    for _ in range(count - 1):
        other, rest = flow.sets.divide(rest, size, why)
        flow.sets.unite(part, other, why)
    return part


def _ties_nothing(flow: FlowState, runs: Runs, outer: int, inner: int) -> bool:
    resolved = flow.sets.resolve(runs)
    part = resolved[: len(resolved) // outer]
    blocks = all(run.repeat % inner == 0 or flow.sets.why_fixed(run) for run in part)
    return part * outer == resolved and blocks


def channel_shuffle(flow: FlowState, node: fx.Node) -> str:
    """The channels of several parts take turns: the first of each, then the second of each."""
    source, parts = source_of(node), argument_of(node, 1, "groups", 1)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    if axis != 1:
        return "operator channel_shuffle works across it"
    why = f"its parts take turns ({node.name})"
    part = _one_of_equal(flow, runs, parts, shape_of(node)[1] // parts, why)
    turns = tuple(replace(run, repeat=run.repeat * parts) for run in flow.sets.resolve(part))
    flow.values[node] = (axis, turns)
    return ""


def pixel_shuffle(flow: FlowState, node: fx.Node) -> str:
    """Blocks of channels become pixels, or pixels blocks of channels."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    if axis != len(shape_of(node)) - 3:
        return f"operator {operator_name(node)} works across it"
    before, after = shape_of(source)[axis], shape_of(node)[axis]
    least = min(before, after)
    why = f"its channels become pixels ({node.name})"
    flow.values[node] = (axis, flow.sets.scale(runs, before // least, after // least, why))
    return ""


def _listed(node: fx.Node) -> list[fx.Node]:
    listed = node.args[0]
    return [as_node(part) for part in listed] if isinstance(listed, list | tuple) else [as_node(listed)]


def _runs(flow: FlowState, part: fx.Node, axis: int) -> Runs:
    known = flow.values.get(part)
    if known is None and flow.has_caches and (handed := _handed_on(part))[-1].op == "placeholder":
        return flow.cache(handed, axis)
    return known[1] if known else flow.sets.constant(shape_of(part)[axis], f"it is fixed ({part.name})")


def _handed_on(node: fx.Node) -> list[fx.Node]:
    """A node, and the tensors that it is once the empty ones are left out which they are concatenated with."""
    found = [node]
    while operator_name(found[-1]) == "cat":
        parts = [part for part in _listed(found[-1]) if 0 not in shape_of(part)]
        if len(parts) != 1:
            break
        found.append(parts[0])
    return found


def _together(flow: FlowState, node: fx.Node, axis: int, sides: list[tuple[Run, ...]]) -> str:
    for side in sides[1:]:
        flow.sets.unite(sides[0], side, f"it lies beside a tensor whose channels are fixed ({node.name})")
    flow.values[node] = (axis, sides[0])
    return ""


_ELEMENTWISE = (
    "abs", "add", "addcdiv", "addcmul", "atan", "bitwise_and", "bitwise_not", "bitwise_or", "ceil", "celu", "clamp",
    "clamp_max", "clamp_min", "cos", "div", "elu", "eq", "erf", "exp", "expand_as", "expm1", "floor",
    "full_like", "ge", "gelu", "gt", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "isnan", "le", "leaky_relu",
    "lerp", "log", "log1p", "log_sigmoid", "logical_and", "logical_not", "logical_or", "lt", "masked_fill", "maximum",
    "minimum", "mish", "mul", "nan_to_num", "ne", "neg", "ones_like", "pow", "reciprocal", "relu", "relu6", "round",
    "rsqrt", "rsub", "selu", "sigmoid", "sign", "silu", "sin", "softplus", "softshrink", "softsign", "sqrt", "square",
    "sub", "tanh", "threshold", "to", "type_as", "where", "zeros_like",
)  # fmt: skip
_SPATIAL = (
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d",
    "max_pool2d_with_indices", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d",
    "upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_trilinear3d",
)  # fmt: skip
_REDUCTIONS = (
    "all", "amax", "amin", "any", "linalg_vector_norm", "logsumexp", "max", "mean", "min", "prod", "std", "std_mean",
    "sum", "var", "var_mean",
)  # fmt: skip
AXIS_RULES: Mapping[str, Rule] = {
    **dict.fromkeys((*_ELEMENTWISE, *DROPOUTS), elementwise),
    **dict.fromkeys(_SPATIAL, spatial),
    **dict.fromkeys(_REDUCTIONS, reduce),
    **dict.fromkeys(("softmax", "log_softmax", "cumsum", "cumprod", "flip", "roll"), along_another),
    **dict.fromkeys(RESHAPES, reshape),
    **dict.fromkeys(PERMUTATIONS, permute),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), split),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), pixel_shuffle),
    "cat": concatenate,
    "stack": stack,
    "slice": take_slice,
    "narrow": take_slice,
    "unbind": unbind,
    "channel_shuffle": channel_shuffle,
    "select": select,
    "getitem": take_piece,
    "expand": expand,
    "glu": gate,
    "grid_sampler": sample,
    **dict.fromkeys(("repeat", "tile"), repeat),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), fresh),
}
