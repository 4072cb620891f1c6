"""What is known about one map: its cost, what it needs whole, reduces, passes on and saves."""

from __future__ import annotations

from msgspec import Struct

from einscale.program.values import Statement
from einscale.vocabulary import Reduction


class MapRule(Struct, frozen=True):
    """What the planner, the memory and the cost model know about one map.

    Args:
        name: the op, and for a norm its variant (`norm.rms`).
        flops_per_element: FLOPs for each element of what `counted_on` says.
        why: how the FLOPs were counted, one sentence.
        operands: fewest and most inputs.
        shape: how the outputs' axes follow from the inputs (see `shapes`).
        extra_outputs: suffixes of the outputs after the first; those of forward maps are residuals.
        needs: options that must be given.
        takes: options that may be given.
        linear: passes an owed sum through: of all operands for `add`, else of the first with the others held fixed.
        statistic: reductions over the axes named by option `axis` (one, or several in brackets: a norm over all heads),
            needed where one of them is sharded. Each has the first input's axes without those and is fp32.
        whole: options whose axes must not be sharded.
        saves_inputs: positions of the inputs that the backward pass reads.
        saves_outputs: positions of the outputs that the backward pass reads.
        integer_inputs: positions of inputs that are indices: no gradient.
        constant_inputs: positions of inputs that choose and are not computed with: no gradient.
        counted_on: `largest` (input or output) or `first` (input).
        row_inputs: inputs of which only as many elements as the output has are read: the rows of a table.
        times: options that hold numbers which multiply `flops_per_element`: the taps of a convolution.
        fused_residual: statistic that a fused group keeps for the backward pass instead of the output: `lse`.
    """

    name: str
    flops_per_element: int
    why: str
    operands: tuple[int, int] = (1, 1)
    shape: str = "elementwise"
    extra_outputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    linear: bool = False
    statistic: tuple[Reduction, ...] = ()
    whole: tuple[str, ...] = ()
    saves_inputs: tuple[int, ...] = ()
    saves_outputs: tuple[int, ...] = ()
    integer_inputs: tuple[int, ...] = ()
    counted_on: str = "largest"
    row_inputs: tuple[int, ...] = ()
    constant_inputs: tuple[int, ...] = ()
    times: tuple[str, ...] = ()
    fused_residual: str = ""

    def saved(self, statement: Statement) -> tuple[str, ...]:
        """Names among the statement's inputs and outputs that its backward pass reads, each once.

        >>> statement = Statement("dropout", ("x",), ("y", "y_mask"), options=(("rate", 0.1),))
        >>> MapRule("dropout", 3, "", saves_outputs=(1,)).saved(statement)
        ('y_mask',)
        """
        inputs = [statement.inputs[i] for i in self.saves_inputs if i < len(statement.inputs)]
        outputs = [statement.outputs[i] for i in self.saves_outputs if i < len(statement.outputs)]
        return tuple(dict.fromkeys(inputs + outputs))
