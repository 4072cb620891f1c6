"""Hypothesis strategies for programs, small enough to run."""

from hypothesis import strategies as st

from einscale.program.trace import (
    add,
    apply,
    cast,
    dropout,
    einsum,
    geglu,
    gelu,
    group,
    layer_norm,
    mask,
    mul,
    rms_norm,
    rope,
    scale,
    section,
    silu,
    softcap,
    softmax,
    sum_over,
    swiglu,
    trace,
)

SIZES = {"a": 2, "b": 3, "c": 4}


@st.composite
def programs(draw, most_statements=6):
    """A program of einsums and smooth maps over axes a, b and c."""
    axes = st.permutations(list(SIZES)).flatmap(lambda names: st.integers(1, 3).map(lambda n: names[:n]))
    inputs = {name: f"{draw(st.sampled_from(['fp32', 'bf16']))}[{' '.join(draw(axes))}]" for name in ("x", "y")}
    parameters = {f"w_{axis}": f"bf16[{axis}]" for axis in SIZES} | {"w": f"bf16[{' '.join(draw(axes))}]"}

    def body(**tensors):
        pool = list(tensors.values())
        for _ in range(draw(st.integers(1, most_statements))):
            region = draw(st.sampled_from(["", "section", "group"]))
            if region:
                with (section if region == "section" else group)(draw(st.sampled_from(["first", "second"]))):
                    pool.append(statement(draw, pool, tensors))
            else:
                pool.append(statement(draw, pool, tensors))
        last = pool[-1]
        others = [value for value in pool[len(tensors) : -1] if draw(st.booleans())]
        return (last, *others[:1])

    composites = {"h": ("a", "c")} if draw(st.booleans()) else {}
    return trace(body, inputs, parameters, name="random", sizes=SIZES, composites=composites)


def statement(draw, pool, tensors):
    x = draw(st.sampled_from(pool))
    within = [value for value in pool if set(value.axes) <= set(x.axes)]
    same = [value for value in pool if value.axes == x.axes]
    kinds = ["einsum", "einsum", "add", "mul", "scale", "gelu", "silu", "swiglu", "geglu", "cast", "dropout", "diamond"]
    kinds += ["softcap"]
    if x.axes:
        kinds += ["sum", "softmax", "rms", "layer"]
    if len(x.axes) > 1:
        kinds += ["mask", "rms over two axes"]
    if "c" in x.axes and len(x.axes) > 1:
        kinds.append("rope")
    kind = draw(st.sampled_from(kinds))
    axis = draw(st.sampled_from(x.axes)) if x.axes else ""
    if kind == "einsum":
        y = draw(st.sampled_from(pool))
        labels = list(dict.fromkeys((*x.axes, *y.axes)))
        kept = [label for label in draw(st.permutations(labels)) if draw(st.booleans())]
        return scale(einsum(f"{' '.join(x.axes)}, {' '.join(y.axes)} -> {' '.join(kept)}", x, y), 0.3)
    if kind == "mask":
        # At least as many keys as queries: a query that may see nothing has no softmax.
        query, key = sorted(draw(st.permutations(x.axes))[:2], key=lambda name: SIZES[name])
        masked = mask(x, query=query, key=key, causal=draw(st.booleans()), window=draw(st.integers(0, 2)), factor=0.5)
        return softmax(masked, key)
    return {
        "add": lambda: add(x, draw(st.sampled_from(within)), *draw(st.lists(st.sampled_from(within), max_size=1))),
        "mul": lambda: mul(x, draw(st.sampled_from(within))),
        "scale": lambda: scale(x, draw(st.sampled_from([0.5, -0.25, 1e-05 + 1]))),
        "gelu": lambda: gelu(x, approximate=draw(st.sampled_from(["tanh", "none"]))),
        "silu": lambda: silu(x),
        "swiglu": lambda: swiglu(x, draw(st.sampled_from(same))),
        "geglu": lambda: geglu(x, draw(st.sampled_from(same))),
        "cast": lambda: cast(x, draw(st.sampled_from(["fp32", "bf16"]))),
        "dropout": lambda: dropout(x, 0.25),
        "softcap": lambda: softcap(x, 3.0, factor=0.5),
        "diamond": lambda: add(x, x, gelu(x)),
        "sum": lambda: sum_over(x, axis),
        "softmax": lambda: softmax(x, axis),
        "rms": lambda: rms_norm(x, tensors[f"w_{axis}"], axis=axis, eps=0.1),
        "rms over two axes": lambda: rms_norm(x, axis=" ".join(x.axes[:2]), eps=0.1),
        "layer": lambda: layer_norm(x, tensors[f"w_{axis}"], tensors[f"w_{axis}"], axis=axis, eps=0.1),
        "rope": lambda: rope(x, "c", next(name for name in x.axes if name != "c"), theta=100.0),
        "broadcast": lambda: apply("broadcast", x, axes=tuple(SIZES))[0],
    }[kind]()
