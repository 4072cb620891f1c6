"""Runs a program on numpy arrays in float64: the oracle of the tests of backward passes and models."""

import math
import zlib

import numpy as np
from recurrence import delta_rule, delta_rule_backward

from einscale.program.routed import routing_of
from einscale.program.shapes import program_sizes


def run(program, arrays, sizes=None):
    """Every value of a program by name, given its inputs and parameters."""
    table = program.table
    values = dict(arrays)
    for name in (*program.inputs, *(value.name for value in program.parameters)):
        assert name in values, name
    for statement in program.statements:
        inputs = [values[name] for name in statement.inputs]
        if statement.op == "einsum":
            results = (contract(statement.labels, inputs),)
        else:
            axes = [table[name].axes for name in statement.inputs]
            made = [table[name].axes for name in statement.outputs]
            results = MAPS[statement.op](inputs, axes, made, dict(statement.options), Context(statement, sizes or {}))
        for name, result in zip(statement.outputs, results, strict=True):
            values[name] = existing(program, table[name], result, values)
    return values


def existing(program, value, array, values):
    """The array with zeros where nothing exists: at the elements that no token chose."""
    for axis, _ in value.chosen:
        routing = routing_of(value.name, axis, program)
        if routing is not None and routing.gates != value.name:
            gates = routing.gates
            array = array * align(values[gates] != 0, program.table[gates].axes, value.axes)
    return array


class Context:
    def __init__(self, statement, sizes):
        self.source = statement.source or statement.output
        self.sizes = sizes


def contract(labels, inputs):
    letters = {}
    for operand in labels:
        for label in operand:
            letters.setdefault(label, chr(ord("a") + len(letters)))
    spec = ["".join(letters[label] for label in operand) for operand in labels]
    return np.einsum(",".join(spec[:-1]) + "->" + spec[-1], *inputs)


def align(array, axes, wanted):
    """The array with the wanted axes, those it lacks of size 1."""
    order = sorted(range(len(axes)), key=lambda k: wanted.index(axes[k]))
    moved = np.transpose(array, order)
    shape = [array.shape[axes.index(axis)] if axis in axes else 1 for axis in wanted]
    return moved.reshape(shape)


def pointwise(function):
    def apply(inputs, axes, made, options, context):
        return (function(*(align(x, a, made[0]) for x, a in zip(inputs, axes, strict=True)), options),)

    return apply


def scale_bias(inputs, axes, made):
    return [align(x, a, made[0]) for x, a in zip(inputs, axes, strict=True)]


def reduced(axes, options):
    """Positions of the axes that a statement reduces."""
    names = options["axis"] if isinstance(options["axis"], tuple) else (options["axis"],)
    return tuple(axes.index(name) for name in names)


def normalised(x, position, options):
    """x normalised, and one over its root."""
    if options["variant"] == "layer":
        x = x - x.mean(position, keepdims=True)
    root = 1 / np.sqrt((x * x).mean(position, keepdims=True) + options["eps"])
    return x * root, root


def norm(inputs, axes, made, options, context):
    x, *scale = scale_bias(inputs, axes, made)
    result = normalised(x, reduced(made[0], options), options)[0]
    result = result * scale[0] if scale else result
    return (result + scale[1] if len(scale) > 1 else result,)


def norm_backward(inputs, axes, made, options, context):
    g, x, *scale = (align(array, a, made[0]) for array, a in zip(inputs, axes, strict=True))
    position = reduced(made[0], options)
    hat, root = normalised(x, position, options)
    g = g * scale[0] if scale else g
    result = g - hat * (g * hat).mean(position, keepdims=True)
    if options["variant"] == "layer":
        result = result - g.mean(position, keepdims=True)
    return (result * root,)


def norm_scale_backward(inputs, axes, made, options, context):
    g, x = align(inputs[0], axes[0], axes[1]), inputs[1]
    position = reduced(axes[1], options)
    hat, _ = normalised(x, position, options)
    kept = [axes[1][k] for k in range(x.ndim) if k in position]
    summed = (g * hat).sum(tuple(k for k in range(x.ndim) if k not in position))
    return (align(summed, tuple(kept), made[0]),)


def softmax(inputs, axes, made, options, context):
    position = axes[0].index(options["axis"])
    highest = inputs[0].max(position, keepdims=True)
    x = np.exp(inputs[0] - highest)
    sink = np.exp(align(inputs[1], axes[1], axes[0]) - highest) if len(inputs) > 1 else 0.0
    return (x / (x.sum(position, keepdims=True) + sink),)


def sink_backward(inputs, axes, made, options, context):
    g, y = (align(array, a, axes[0]) for array, a in zip(inputs, axes, strict=True))
    position = axes[0].index(options["axis"])
    share = 1 - y.sum(position, keepdims=True)
    gone = tuple(k for k, axis in enumerate(axes[0]) if axis not in made[0])
    result = -(share * (g * y).sum(position, keepdims=True)).sum(gone)
    return (align(result, tuple(axis for axis in axes[0] if axis in made[0]), made[0]),)


def softmax_backward(inputs, axes, made, options, context):
    g, y = (align(array, a, made[0]) for array, a in zip(inputs, axes, strict=True))
    return (y * (g - (g * y).sum(made[0].index(options["axis"]), keepdims=True)),)


def allowed(axes, shape, options):
    query, key = axes.index(options["query"]), axes.index(options["key"])
    shapes = [1] * len(axes), [1] * len(axes)
    shapes[0][query], shapes[1][key] = shape[query], shape[key]
    q = np.arange(shape[query]).reshape(shapes[0]) + shape[key] - shape[query]
    k = np.arange(shape[key]).reshape(shapes[1])
    result = k <= q if options.get("causal") else (k < math.inf) & (q < math.inf)
    return result & (k > q - options["window"]) if options.get("window") else result


def alibi(axes, shape, options):
    """The bias of each score: its key's distance from the last times the slope of its head."""
    heads = options["heads"] if isinstance(options["heads"], tuple) else (options["heads"],)
    count = math.prod(shape[axes.index(name)] for name in heads)
    slopes = (2.0 ** (-options["alibi"] * np.arange(1, count + 1) / count)).reshape(
        [shape[axes.index(name)] for name in heads]
    )
    keys = np.arange(1 - shape[axes.index(options["key"])], 1)
    return align(np.multiply.outer(slopes, keys), (*heads, options["key"]), axes)


def mask(inputs, axes, made, options, context):
    keep = allowed(axes[0], inputs[0].shape, options)
    scores = inputs[0] * options.get("factor", 1.0)
    if options.get("alibi"):
        scores = scores + alibi(axes[0], inputs[0].shape, options)
    # A large negative number for minus infinity, so that finite differences through it are zero and not undefined.
    return (np.where(keep, scores, -1e9),)


def mask_backward(inputs, axes, made, options, context):
    return (np.where(allowed(axes[0], inputs[0].shape, options), inputs[0] * options.get("factor", 1.0), 0.0),)


def dropout(inputs, axes, made, options, context):
    seed = zlib.crc32(context.source.encode())
    keep = np.random.default_rng(seed).random(inputs[0].shape) >= options["rate"]
    return inputs[0] * keep / (1 - options["rate"]), keep


def gelu(x, options):
    if options.get("approximate") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_slope(x, options):
    if options.get("approximate") == "tanh":
        c = math.sqrt(2 / math.pi)
        t = np.tanh(c * (x + 0.044715 * x**3))
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu_slope(x):
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)))


def gated_backward(value, slope):
    def apply(inputs, axes, made, options, context):
        g, gate, up = (align(array, a, made[0]) for array, a in zip(inputs, axes, strict=True))
        return g * up * slope(gate, options), align(g * value(gate, options), made[0], made[1])

    return apply


def append(inputs, axes, made, options, context):
    """The cache with the new rows in its last places."""
    cache, new = inputs
    position = axes[0].index(options["axis"])
    old = np.take(cache, range(cache.shape[position] - new.shape[position]), position)
    return (np.concatenate([old, new], position),)


def rotate(inputs, axes, made, options, direction, past=0):
    x = np.moveaxis(inputs[0], (axes[0].index(options["sequence"]), axes[0].index(options["axis"])), (-2, -1))
    rotary = options.get("rotary", 0) or x.shape[-1]
    x, rest = x[..., :rotary], x[..., rotary:]
    half = rotary // 2
    frequency = options.get("theta", 10000.0) ** (-np.arange(half) / half)
    angle = direction * (past + np.arange(x.shape[-2]))[:, None] * frequency
    first, second = x[..., :half], x[..., half:]
    turned = np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle), rest], -1
    )
    back = np.moveaxis(turned, (-2, -1), (axes[0].index(options["sequence"]), axes[0].index(options["axis"])))
    return (back,)


def lookup(inputs, axes, made, options, context):
    table = np.moveaxis(inputs[0], axes[0].index(options["axis"]), 0)
    return (table[inputs[1]],)


def lookup_backward(inputs, axes, made, options, context):
    g, indices = inputs
    position = made[0].index(options["axis"])
    rest = tuple(axis for axis in made[0] if axis != options["axis"])
    g = align(g, axes[0], (*axes[1], *rest))
    result = np.zeros((context.sizes[options["axis"]], *g.shape[indices.ndim :]))
    np.add.at(result, indices, g)
    return (np.moveaxis(result, 0, position),)


def cross_entropy(inputs, axes, made, options, context):
    logits = np.moveaxis(align(inputs[0], axes[0], axes[0]), axes[0].index(options["axis"]), -1)
    lse = np.log(np.exp(logits).sum(-1))
    rest = tuple(axis for axis in axes[0] if axis != options["axis"])
    targets = align(inputs[1], axes[1], rest)
    return lse - np.take_along_axis(logits, targets[..., None], -1)[..., 0], lse


def cross_entropy_backward(inputs, axes, made, options, context):
    position = axes[0].index(options["axis"])
    logits = np.moveaxis(inputs[0], position, -1)
    rest = tuple(axis for axis in axes[0] if axis != options["axis"])
    targets, lse = align(inputs[1], axes[1], rest), align(inputs[2], axes[2], rest)
    result = np.exp(logits - lse[..., None])
    np.put_along_axis(result, targets[..., None], np.take_along_axis(result, targets[..., None], -1) - 1, -1)
    if len(inputs) == 4:
        result = result * align(inputs[3], axes[3], rest)[..., None]
    return (np.moveaxis(result, -1, position),)


def log_softmax(inputs, axes, made, options, context):
    position = axes[0].index(options["axis"])
    top = inputs[0].max(position, keepdims=True)
    return (inputs[0] - top - np.log(np.exp(inputs[0] - top).sum(position, keepdims=True)),)


def log_softmax_backward(inputs, axes, made, options, context):
    g, y = (align(array, a, made[0]) for array, a in zip(inputs, axes, strict=True))
    return (g - np.exp(y) * g.sum(made[0].index(options["axis"]), keepdims=True),)


def pick(inputs, axes, made, options, context):
    rows = np.moveaxis(inputs[0], axes[0].index(options["axis"]), -1)
    rest = tuple(axis for axis in axes[0] if axis != options["axis"])
    targets = align(inputs[1], axes[1], rest)
    return (-np.take_along_axis(rows, targets[..., None], -1)[..., 0],)


def pick_backward(inputs, axes, made, options, context):
    position = axes[0].index(options["axis"])
    rest = tuple(axis for axis in axes[0] if axis != options["axis"])
    g = align(inputs[2], axes[2], rest)[..., None] if len(inputs) == 3 else 1.0
    result = np.zeros_like(np.moveaxis(inputs[0], position, -1))
    targets = align(inputs[1], axes[1], rest)[..., None]
    np.put_along_axis(result, targets, -g * np.ones(targets.shape), -1)
    return (np.moveaxis(result, -1, position),)


def total(inputs, axes, made, options, context):
    rest = tuple(axis for axis in axes[0] if axis not in options["axes"])
    return (align(inputs[0].sum(tuple(axes[0].index(axis) for axis in options["axes"])), rest, made[0]),)


def broadcast(inputs, axes, made, options, context):
    shape = [
        inputs[0].shape[axes[0].index(axis)] if axis in axes[0] else context.sizes[axis] for axis in options["axes"]
    ]
    return (np.broadcast_to(align(inputs[0], axes[0], tuple(options["axes"])), shape),)


def scores_of(logits, position, options):
    """Softmax or sigmoid of the logits."""
    if options["scoring"] == "sigmoid":
        return sigmoid(logits)
    powers = np.exp(logits - logits.max(position, keepdims=True))
    return powers / powers.sum(position, keepdims=True)


def route(inputs, axes, made, options, context):
    position = axes[0].index(options["axis"])
    scores = np.moveaxis(scores_of(inputs[0], position, options), position, -1)
    ranks = scores + inputs[1] if len(inputs) > 1 else scores.copy()
    groups = options.get("groups", 1)
    if groups > 1:
        grouped = ranks.reshape(*ranks.shape[:-1], groups, -1)
        best = np.sort(grouped, -1)[..., -2:].sum(-1)
        order = np.argsort(-best, -1)[..., : options["top_groups"]]
        allowed_groups = np.zeros(best.shape, bool)
        np.put_along_axis(allowed_groups, order, True, -1)
        ranks = np.where(allowed_groups[..., None], grouped, -np.inf).reshape(ranks.shape)
    chosen = np.zeros(ranks.shape, bool)
    np.put_along_axis(chosen, np.argsort(-ranks, -1)[..., : options["top"]], True, -1)
    gates = np.where(chosen, scores, 0.0)
    gates = gates / gates.sum(-1, keepdims=True) if options.get("normalise") else gates
    return (np.moveaxis(gates * options.get("factor", 1.0), -1, position),)


def route_backward(inputs, axes, made, options, context):
    g, logits, gates = (align(array, a, made[0]) for array, a in zip(inputs, axes, strict=True))
    position = made[0].index(options["axis"])
    scores = scores_of(logits, position, options)
    g = np.where(gates != 0, g, 0.0) * options.get("factor", 1.0)
    if options.get("normalise"):
        total = np.where(gates != 0, scores, 0.0).sum(position, keepdims=True)
        g = np.where(gates != 0, g / total - (g * scores).sum(position, keepdims=True) / total**2, 0.0)
    if options["scoring"] == "sigmoid":
        return (g * scores * (1 - scores),)
    return (scores * (g - (g * scores).sum(position, keepdims=True)),)


def dispatch(inputs, axes, made, options, context):
    x, gates = (align(array, a, made[0]) for array, a in zip(inputs, axes, strict=True))
    return (x * (gates != 0),)


def combine(inputs, axes, made, options, context):
    rest = tuple(axis for axis in axes[0] if axis != options["axis"])
    return (align(inputs[0].sum(axes[0].index(options["axis"])), rest, made[0]),)


def clamped(gate, up, options):
    """What the clamped swiglu multiplies, and where its operands are within the limit."""
    limit, alpha = options["limit"], options["alpha"]
    low, near = np.minimum(gate, limit), np.clip(up, -limit, limit) + 1
    return low, near, sigmoid(alpha * low), gate < limit, np.abs(up) < limit


def swiglu_clamped(gate, up, options):
    low, near, share, *_ = clamped(gate, up, options)
    return low * share * near


def swiglu_clamped_backward(inputs, axes, made, options, context):
    g, gate, up = (align(array, a, made[0]) for array, a in zip(inputs, axes, strict=True))
    low, near, share, gate_free, up_free = clamped(gate, up, options)
    slope = share * (1 + options["alpha"] * low * (1 - share))
    return g * near * slope * gate_free, align(g * low * share * up_free, made[0], made[1])


def taps_of(weight, axes, wanted, options):
    """The weight of each tap, the last one's first, broadcast to the channels."""
    moved = np.moveaxis(weight, axes.index(options["taps"]), 0)
    rest = tuple(axis for axis in axes if axis != options["taps"])
    return [align(tap, rest, wanted) for tap in moved[::-1]]


def shifted(x, position, by):
    """x moved along an axis, zeros coming in."""
    result, x = np.zeros_like(x), np.moveaxis(x, position, 0)
    target = np.moveaxis(result, position, 0)
    if abs(by) < len(x):
        target[max(by, 0) : len(x) + min(by, 0)] = x[max(-by, 0) : len(x) - max(by, 0)]
    return result


def causal_conv(direction):
    def apply(inputs, axes, made, options, context):
        position = axes[0].index(options["sequence"])
        taps = taps_of(inputs[1], axes[1], axes[0], options)
        return (sum(shifted(inputs[0], position, direction * age) * tap for age, tap in enumerate(taps)),)

    return apply


def causal_conv_weight_backward(inputs, axes, made, options, context):
    g, x = align(inputs[0], axes[0], axes[1]), inputs[1]
    position = axes[1].index(options["sequence"])
    gone = tuple(k for k, axis in enumerate(axes[1]) if axis not in made[0])
    taps = [(g * shifted(x, position, age)).sum(gone) for age in reversed(range(options["width"]))]
    rest = tuple(axis for axis in axes[1] if axis in made[0])
    return (align(np.stack(taps), (options["taps"], *rest), made[0]),)


MAPS = {
    "add": pointwise(lambda *a: sum(a[:-1])),
    "mul": pointwise(lambda x, y, o: x * y),
    "scale": pointwise(lambda x, o: x * o["factor"]),
    "cast": pointwise(lambda x, o: x),
    "sum": total,
    "broadcast": broadcast,
    "mask": mask,
    "mask_backward": mask_backward,
    "softcap": pointwise(lambda x, o: o["cap"] * np.tanh(o.get("factor", 1.0) * x / o["cap"])),
    "softcap_backward": pointwise(lambda g, y, o: g * o.get("factor", 1.0) * (1 - (y / o["cap"]) ** 2)),
    "clamp": pointwise(lambda x, o: np.clip(x, -o["limit"], o["limit"])),
    "clamp_backward": pointwise(lambda g, y, o: g * (np.abs(y) < o["limit"])),
    "softmax": softmax,
    "softmax_backward": softmax_backward,
    "dropout": dropout,
    "dropout_backward": pointwise(lambda g, m, o: g * m / (1 - o["rate"])),
    "norm": norm,
    "norm_backward": norm_backward,
    "norm_scale_backward": norm_scale_backward,
    "gelu": pointwise(gelu),
    "gelu_backward": pointwise(lambda g, x, o: g * gelu_slope(x, o)),
    "relu": pointwise(lambda x, o: np.maximum(x, 0)),
    "relu_backward": pointwise(lambda g, y, o: g * (y > 0)),
    "silu": pointwise(lambda x, o: x * sigmoid(x)),
    "silu_backward": pointwise(lambda g, x, o: g * silu_slope(x)),
    "sink_backward": sink_backward,
    "sigmoid": pointwise(lambda x, o: sigmoid(x)),
    "sigmoid_backward": pointwise(lambda g, y, o: g * y * (1 - y)),
    "softplus": pointwise(lambda x, o: np.log1p(np.exp(x))),
    "softplus_backward": pointwise(lambda g, x, o: g * sigmoid(x)),
    "exp": pointwise(lambda x, o: np.exp(x)),
    "swiglu_clamped": pointwise(swiglu_clamped),
    "swiglu_clamped_backward": swiglu_clamped_backward,
    "causal_conv": causal_conv(1),
    "causal_conv_backward": causal_conv(-1),
    "causal_conv_weight_backward": causal_conv_weight_backward,
    "delta_rule": delta_rule,
    "delta_rule_backward": delta_rule_backward,
    "swiglu": pointwise(lambda x, y, o: x * sigmoid(x) * y),
    "swiglu_backward": gated_backward(lambda x, o: x * sigmoid(x), lambda x, o: silu_slope(x)),
    "geglu": pointwise(lambda x, y, o: gelu(x, o) * y),
    "geglu_backward": gated_backward(gelu, gelu_slope),
    "rope": lambda i, a, m, o, c: rotate(i, a, m, o, 1, c.sizes.get("past", 0) if o["sequence"] == "s" else 0),
    "rope_backward": lambda i, a, m, o, c: rotate(i, a, m, o, -1),
    "append": append,
    "carry": lambda i, a, m, o, c: (i[0],),
    "lookup": lookup,
    "lookup_backward": lookup_backward,
    "route": route,
    "route_backward": route_backward,
    "dispatch": dispatch,
    "arrange": pointwise(lambda x, o: x),
    "combine": combine,
    "log_softmax": log_softmax,
    "log_softmax_backward": log_softmax_backward,
    "pick": pick,
    "pick_backward": pick_backward,
    "cross_entropy": cross_entropy,
    "cross_entropy_backward": cross_entropy_backward,
}


def random_arrays(program, given, seed=0):
    """Random inputs and parameters at the sizes given; indices lie inside the table or logits they index."""
    sizes = program_sizes(program, given)
    table = program.table
    limits = {
        statement.inputs[1]: sizes[str(statement.option("axis"))]
        for statement in program.statements
        if statement.op in ("lookup", "cross_entropy", "pick")
    }
    generator = np.random.default_rng(seed)
    arrays = {}
    for name in (*program.inputs, *(value.name for value in program.parameters)):
        shape = tuple(sizes[axis] for axis in table[name].axes)
        if table[name].dtype.startswith("int"):
            arrays[name] = generator.integers(0, limits[name], shape)
        else:
            arrays[name] = generator.standard_normal(shape)
    return arrays, sizes


def slope(function, step=2e-4):
    """Derivative at 0 by differences of fourth order."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def check_gradients(forward, gradients, given, seed=0, directions=2, tolerance=1e-6):
    """Compare each gradient with central differences of the outputs along random directions.

    Returns the names checked and every value of the program with its backward pass.
    """
    program = gradients.program
    arrays, sizes = random_arrays(program, given, seed)
    values = run(program, arrays, sizes)
    incoming = {value.of: values[value.name] for value in program.values if value.name in program.inputs and value.of}
    generator = np.random.default_rng(seed + 1)

    def objective(name, change):
        moved = run(forward, {**arrays, name: arrays[name] + change}, sizes)
        return sum(float((moved[out] * incoming.get(out, 1.0)).sum()) for out in dict.fromkeys(forward.outputs))

    rounding = 1e-9 * (1 + sum(float(np.abs(values[out]).sum()) for out in forward.outputs))
    for name, gradient in gradients.gradients:
        assert values[gradient].shape == arrays[name].shape, name
        for _ in range(directions):
            direction = generator.standard_normal(arrays[name].shape)
            numeric = slope(lambda step, n=name, d=direction: objective(n, step * d))
            derived = float((values[gradient] * direction).sum())
            size = float(np.linalg.norm(values[gradient]) * np.linalg.norm(direction))
            assert abs(derived - numeric) <= tolerance * size + rounding, (name, derived, numeric)
    return [name for name, _ in gradients.gradients], values
