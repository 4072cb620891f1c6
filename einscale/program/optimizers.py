"""The table of optimizers: what each keeps for a parameter, and what its step computes.

FLOPs are counted as in `maps`: one for each addition, multiplication, division, comparison and square root. A step is
bound by memory almost always; its bytes follow from the tensors: gradient, weights and states are read once, weights
and states written once.
"""

from __future__ import annotations

from msgspec import Struct

from einscale.dtypes import BITS
from einscale.errors import ProgramError, did_you_mean
from einscale.precision import Precision
from einscale.program.typed import VOCABULARY, typed
from einscale.program.values import Program, Value
from einscale.vocabulary import FORWARD, STATE

SAME, ROWS, COLUMNS = "same", "rows", "columns"
"""Axes of a state: the parameter's, or of a weight matrix those of its rows or of its columns alone."""


class State(Struct, frozen=True):
    """One tensor an optimizer keeps for a parameter.

    Args:
        name: what it is called.
        axes: `same` as the parameter, or `rows` or `columns` of a matrix.
        dtype: element type; "" is the precision's type of moments.
    """

    name: str
    axes: str = SAME
    dtype: str = ""


class Step(Struct, frozen=True):
    """What is done to one parameter.

    Args:
        op: name of the kernel.
        states: what it reads and writes besides gradient and weights.
        flops_per_element: FLOPs for each element of the gradient.
        why: how they were counted.
    """

    op: str
    states: tuple[State, ...]
    flops_per_element: int
    why: str


class Optimizer(Struct, frozen=True):
    """An optimizer.

    Args:
        name: how it is called.
        step: what is done to every parameter.
        matrices: what is done to weight matrices instead.
        tables: embedding and head count among the matrices.
        orthogonal: the momentum of a matrix is made orthogonal before it is applied, which needs it whole.
        source: where it was described.
    """

    name: str
    step: Step
    source: str
    matrices: Step | None = None
    tables: bool = True
    orthogonal: bool = False


_ADAM = "first moment (3), second moment (4), both corrected (2), root, epsilon, quotient, learning rate, subtraction"
_MOMENTS = (State("first_moment"), State("second_moment"))
_ADAMW = Step("adamw", _MOMENTS, 15, f"{_ADAM}, decay of the weight")
_DYNAMIC = (State("first_moment", dtype="dynamic8"), State("second_moment", dtype="dynamic8"))
_FACTORED = (State("row_factor", ROWS, "fp32"), State("column_factor", COLUMNS, "fp32"))

NEWTON_SCHULZ = "newton_schulz"
"""Kernel that makes a matrix orthogonal."""

ITERATIONS = 5
"""Newton-Schulz iterations of Muon."""

KERNELS = {
    "muon_momentum": (4, "momentum (2) and Nesterov's look-ahead (2)"),
    "muon_apply": (4, "scale to AdamW's size, decay of the weight, learning rate, subtraction"),
}
"""Kernels of Muon on either side of the orthogonalisation: FLOPs an element, and how they were counted."""

OPTIMIZERS: dict[str, Optimizer] = {
    optimizer.name: optimizer
    for optimizer in (
        Optimizer("adamw", _ADAMW, "Loshchilov and Hutter 2017, arXiv 1711.05101"),
        Optimizer("adam", Step("adam", _MOMENTS, 14, _ADAM), "Kingma and Ba 2014, arXiv 1412.6980"),
        Optimizer(
            "adam8bit",
            Step("adam8bit", _DYNAMIC, 23, "as adamw, both moments decoded (2) and encoded with a block's maximum (6)"),
            "Dettmers et al. 2021, 8-bit Optimizers via Block-wise Quantization, arXiv 2110.02861",
        ),
        Optimizer(
            "adafactor",
            Step("adafactor", (State("second_moment", dtype="fp32"),), 10, "as of a matrix, the second moment whole"),
            "Shazeer and Stern 2018, arXiv 1804.04235, without momentum",
            matrices=Step(
                "adafactor",
                _FACTORED,
                13,
                "square, epsilon, sums by row and column (2), their product and quotient (2), root, quotient, the"
                " update's mean square (2), clipping, learning rate, subtraction",
            ),
        ),
        Optimizer(
            "muon",
            _ADAMW,
            "Jordan et al. 2024, Muon; Liu et al. 2025, Muon is Scalable, arXiv 2502.16982, algorithm 1",
            matrices=Step("muon", (State("momentum"),), 8, "momentum and look-ahead (4), application (4)"),
            tables=False,
            orthogonal=True,
        ),
        Optimizer("sgd", Step("sgd", (), 2, "learning rate and subtraction"), "Robbins and Monro 1951"),
        Optimizer(
            "sgd-momentum",
            Step("sgd_momentum", (State("momentum"),), 4, "momentum (2), learning rate and subtraction (2)"),
            "Polyak 1964",
        ),
        Optimizer(
            "lion",
            Step(
                "lion",
                (State("momentum"),),
                11,
                "interpolation (3), sign, decay (2), learning rate and subtraction (2), momentum (3)",
            ),
            "Chen et al. 2023, Symbolic Discovery of Optimization Algorithms, arXiv 2302.06675",
        ),
    )
}
"""Optimizers by name."""

ALIASES = {"adam-8bit": "adam8bit", "adamw8bit": "adam8bit", "momentum": "sgd-momentum", "adam-w": "adamw"}
"""Other names of optimizers."""

FLOPS: dict[str, int] = {
    **{step.op: step.flops_per_element for one in OPTIMIZERS.values() for step in (one.step, one.matrices) if step},
    **{op: flops for op, (flops, _) in KERNELS.items()},
}
"""Kernel -> FLOPs an element; of `newton_schulz`, see `orthogonal_flops`."""


def find_optimizer(name: str | Optimizer) -> Optimizer:
    """An optimizer by its name.

    >>> find_optimizer("AdamW").step.states[0].name
    'first_moment'

    Raises:
        ProgramError: there is none of that name.
    """
    if isinstance(name, Optimizer):
        return name
    if not isinstance(name, str):
        raise ProgramError(f"an optimizer is named by text, not by {type(name).__name__}", expected="for example adamw")
    folded = name.strip().casefold().replace("_", "-")
    found = OPTIMIZERS.get(ALIASES.get(folded, folded))
    if found is None:
        hint = did_you_mean(folded, (*OPTIMIZERS, *ALIASES), "optimizers")
        raise ProgramError(f"no optimizer is called `{name}`", text=name, span=(0, len(name)), hint=hint)
    return found


class Matrix(Struct, frozen=True):
    """Axes of a parameter seen as matrices: `batch` of them, each of `rows` (what is summed) by `columns`."""

    batch: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]


def matrix_of(program: Program, name: str) -> Matrix | None:
    """A parameter as the matrix that its first reader multiplies by; None for vectors, and what no product reads.

    >>> from einscale.models import load_model
    >>> matrix_of(load_model("llama3-8b").layer("block").program, "wq")
    Matrix(batch=(), rows=('d',), columns=('n', 'g', 'k'))
    """
    reader = next((s for s in program.statements if name in s.inputs and s.phase == FORWARD), None)
    if reader is None:
        return None
    axes = program.table[name].axes
    if reader.op == "lookup" and reader.inputs[0] == name:
        looked_up = str(reader.option("axis"))
        return Matrix((), (looked_up,), tuple(axis for axis in axes if axis != looked_up))
    if reader.op != "einsum":
        return None
    position = reader.inputs.index(name)
    *operands, output = reader.labels
    others = {label for k, operand in enumerate(operands) if k != position for label in operand}
    batch: list[str] = []
    rows: list[str] = []
    columns: list[str] = []
    for axis, label in zip(axes, operands[position], strict=True):
        kept = rows if label not in output else batch if label in others else columns
        kept.append(axis)
    return Matrix(tuple(batch), tuple(rows), tuple(columns)) if rows and columns else None


def step_of(optimizer: Optimizer, program: Program, name: str) -> tuple[Step, Matrix | None]:
    """What an optimizer does to a parameter, and the matrix it takes it for; None where it is none to it."""
    if optimizer.matrices is None:
        return optimizer.step, None
    matrix = matrix_of(program, name)
    table = VOCABULARY in program.table[name].axes or any(
        s.op == "lookup" and s.inputs[0] == name for s in program.statements
    )
    if matrix is None or (table and not optimizer.tables):
        return optimizer.step, None
    return optimizer.matrices, matrix


def master_dtype(stored: str, precision: Precision) -> str:
    """Type of the master copy of a parameter; "" where the parameter at rest is as wide.

    >>> from einscale.precision import parse_precision
    >>> master_dtype("bf16", parse_precision("bf16")), master_dtype("fp32", parse_precision("bf16"))
    ('fp32', '')
    """
    return precision.master if precision.master and BITS[stored] < BITS[precision.master] else ""


def states_of(program: Program, name: str, optimizer: Optimizer, precision: Precision) -> tuple[Value, ...]:
    """What is kept for a parameter besides itself and its gradient: the master copy first, then the states.

    Args:
        program: it belongs to, with the types of the precision.
        name: of the parameter.
        optimizer: whose states.
        precision: types of moments and of the master copy.
    """
    value = program.table[name]
    step, matrix = step_of(optimizer, program, name)
    kept = []
    if master := master_dtype(precision.stored(value.dtype), precision):
        kept.append(Value(f"{name}_master", value.axes, master, STATE, name))
    for state in step.states:
        axes = value.axes
        if matrix is not None and state.axes != SAME:
            gone = matrix.columns if state.axes == ROWS else matrix.rows
            axes = tuple(axis for axis in axes if axis not in gone)
        kept.append(Value(f"{name}_{state.name}", axes, state.dtype or precision.optimizer, STATE, name))
    return tuple(kept)


def optimizer_states(
    program: Program, optimizer: str | Optimizer = "adamw", precision: Precision | None = None
) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    """(parameter, what is kept for it) for every parameter that lives in a program.

    >>> from einscale.models import load_model
    >>> from einscale.precision import parse_precision
    >>> block = load_model("llama3-8b").layer("block").program
    >>> dict(optimizer_states(block, "adafactor", parse_precision("bf16")))["w_up"][1:]  # doctest: +ELLIPSIS
    (Value(name='w_up_row_factor', axes=('d',), dtype='fp32', ...
    """
    from einscale.precision import PRESETS

    chosen = precision or PRESETS["bf16"]
    whole, found = typed(program, chosen), find_optimizer(optimizer)
    return tuple(
        (value.name, states_of(whole, value.name, found, chosen))
        for value in whole.parameters
        if value.name not in whole.tied
    )


def orthogonal_flops(rows: int, columns: int) -> int:
    """FLOPs of Newton-Schulz on one matrix: for m <= n, five times 2m^2n, 2m^3 and 2m^2n.

    X X^T, its square, and their sum times X (Jordan et al. 2024); the symmetry of the first two is not used.

    >>> orthogonal_flops(2, 3)
    320
    """
    m, n = sorted((rows, columns))
    return ITERATIONS * (4 * m * m * n + 2 * m * m * m)
