"""What has to be kept of one token for those after it, and the program of new tokens that reads it.

Nothing here knows attention. A value whose sequence axis an einsum reads under another label (`b s n k` read as
`b t n k`: keys beside queries) holds something of every earlier token, so it is kept: keys and values, with one head or
many, or a latent that both are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from einscale.errors import ProgramError, did_you_mean
from einscale.program.shapes import axis_names, check_program
from einscale.program.values import Program, Statement, Value
from einscale.vocabulary import CACHE, FORWARD, GRADIENT, INPUT, PARAMETER

SEQUENCE = "s"
"""Axis of the tokens a program runs on."""

KEYS = "t"
"""Axis of the tokens they look back at, themselves among them."""


STATE = "fp32"
"""Element type of a recurrent state: sums of many tokens are kept in it."""


class Read(Struct, frozen=True):
    """An operand of an einsum that is read along another axis than the one it has.

    Args:
        statement: position of the einsum.
        operand: position of the operand.
        value: its name.
        label: what the einsum calls its sequence axis.
    """

    statement: int
    operand: int
    value: str
    label: str


def inference_program(program: Program) -> Program:
    """A forward program as it runs once a model is trained: no dropout, and logits in place of their loss.

    >>> from einscale.models import load_model
    >>> inference_program(load_model("gpt2").layer("head").program).outputs
    ('logits_fp32',)

    Raises:
        ProgramError: the program has a backward pass.
    """
    if any(statement.phase != FORWARD for statement in program.statements):
        raise ProgramError(f"program `{program.name}` trains: only a forward pass can answer requests")
    same = {s.output: s.inputs[0] for s in program.statements if s.op in ("dropout", "cross_entropy")}

    def settle(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    statements = [
        replace(statement, inputs=tuple(settle(name) for name in statement.inputs))
        for statement in program.statements
        if statement.output not in same
    ]
    return pruned(program, statements, program.values, tuple(settle(name) for name in program.outputs))


def reads_of_others(program: Program, sequence: str = SEQUENCE) -> tuple[Read, ...]:
    """Operands whose axis `sequence` an einsum reads under another label: what one token reads of the others.

    >>> from einscale.models import load_model
    >>> [read.value for read in reads_of_others(load_model("llama3-8b").layer("block").program)]
    ['k_rotated', 'v']
    """
    table = program.table
    found = []
    for position, statement in enumerate(program.statements):
        for operand, (name, labels) in enumerate(zip(statement.inputs, statement.labels, strict=False)):
            axes = table[name].axes
            if sequence in axes and table[name].kind != PARAMETER:
                label = labels[axes.index(sequence)]
                if label != sequence:
                    found.append(Read(position, operand, name, label))
    return tuple(found)


def cached_values(program: Program, sequence: str = SEQUENCE) -> tuple[str, ...]:
    """Names of the values that are kept for later tokens, each once.

    >>> from einscale.models import load_model
    >>> cached_values(load_model("gpt2").layer("block").program)
    ('k', 'v')
    """
    return tuple(dict.fromkeys(read.value for read in reads_of_others(program, sequence)))


def window(program: Program) -> int:
    """Tokens a query sees, itself among them, where every mask of the program has a window; 0 for all.

    >>> from einscale.models import load_model
    >>> model = load_model("gemma2-9b")
    >>> [window(layer.program) for layer in model.layers if layer.kind.endswith("block")]
    [4096, 0]
    """
    masks = [statement for statement in program.statements if statement.op == "mask"]
    windows = [int(statement.option("window", 0)) for statement in masks]  # type: ignore[arg-type]
    return max(windows) if windows and all(windows) else 0


def decode_program(program: Program, keep: Sequence[str] = (), sequence: str = SEQUENCE) -> Program:
    """The program of new tokens beside those that came before: what is kept is read from caches, and appended to them.

    Its axis `s` counts the new tokens, `t` those they look back at, themselves among them. A cache `k_cache`
    (`b t n k`, kind `cache`) is fed in, `k_all = append(k_cache, k)` writes new rows into it, and einsums read that.

    Args:
        program: forward statements.
        keep: values to keep in place of those that are read: what these are made of for all `t` tokens is then made
            again (keys and values from a latent); by default what is read itself.
        sequence: axis of the new tokens.

    >>> from einscale.models import load_model
    >>> block = decode_program(load_model("llama3-8b").layer("block").program)
    >>> [str(value) for value in block.values if value.kind == CACHE][:2]
    ['v_cache: bf16[b t n k]', 'k_rotated_cache: bf16[b t n k]']

    Raises:
        ProgramError: a value to keep does not exist or has no sequence axis, or does not suffice to make what is read.
    """
    plain = with_states(inference_program(program), sequence)
    reads = reads_of_others(plain, sequence)
    if not reads:
        return plain
    labels = dict.fromkeys(read.label for read in reads)
    if len(labels) > 1:
        raise ProgramError(
            f"program `{program.name}` reads earlier tokens along several axes: {', '.join(labels)}",
            expected="one label for the tokens that are looked back at",
        )
    keys = next(iter(labels))
    for name in keep:
        if name not in plain.table or sequence not in plain.table[name].axes:
            raise ProgramError(
                f"`{name}` cannot be kept for later tokens: program `{program.name}` has no such value along"
                f" `{sequence}`",
                hint=did_you_mean(name, [v.name for v in plain.values if sequence in v.axes], "it has"),
            )
    return _Cacher(plain, sequence, keys, tuple(keep) or cached_values(plain, sequence), reads).run()


def with_states(program: Program, sequence: str = SEQUENCE) -> Program:
    """The program with what recurrent maps keep of earlier tokens: of fixed size, read and written whole in every step.

    A delta rule keeps a matrix of each head, `b n g k u` in fp32; a causal convolution its last inputs, `b c n k`.
    """
    table = program.table
    statements: list[Statement] = []
    values = list(program.values)
    states: list[str] = []
    for statement in program.statements:
        statements.append(statement)
        kept = _state(statement, table, sequence)
        if kept is not None:
            after = replace(kept, name=f"{statement.output}_state")
            before = replace(kept, name=f"{statement.output}_state_cache")
            inputs = (before.name, statement.inputs[0] if statement.op == "causal_conv" else statement.output)
            section, group = statement.section, statement.group
            statements.append(Statement("carry", inputs, (after.name,), section=section, group=group))
            values += [before, after]
            states.append(after.name)
    return pruned(program, statements, values, (*program.outputs, *states)) if states else program


def _state(statement: Statement, table: Mapping[str, Value], sequence: str) -> Value | None:
    """What a recurrent map keeps of earlier tokens, None for any other statement."""
    if statement.op == "delta_rule":
        keys, values = table[statement.inputs[0]], table[statement.inputs[2]]
        axes = (*keys.axes, *(axis for axis in values.axes if axis not in keys.axes))
        return Value("state", tuple(axis for axis in axes if axis != sequence), STATE, CACHE)
    if statement.op == "causal_conv":
        mixed, taps = table[statement.inputs[0]], str(statement.option("taps"))
        axes = tuple(taps if axis == sequence else axis for axis in mixed.axes)
        return Value("state", axes, mixed.dtype, CACHE)
    return None


class _Cacher:
    """Rewrites statements in order; `keyed` says how a value along `s` is called along `t`."""

    def __init__(self, program: Program, sequence: str, keys: str, kept: tuple[str, ...], reads: tuple[Read, ...]):
        self.program = program
        self.sequence = sequence
        self.keys = keys
        self.kept = kept
        self.reads = {(read.statement, read.operand): read for read in reads}
        self.table = program.table
        self.producer = {name: s for s in program.statements for name in s.outputs}
        self.wanted = self._wanted({read.value for read in reads})
        self.keyed: dict[str, str] = {}
        self.values: list[Value] = list(program.values)
        self.caches: list[Value] = []
        self.statements: list[Statement] = []

    def _wanted(self, names: set[str]) -> set[str]:
        """Values that are needed for every earlier token: those read, and what they are made of, up to what is kept."""
        wanted: set[str] = set()
        open_names = list(names)
        while open_names:
            name = open_names.pop()
            if name in wanted:
                continue
            wanted.add(name)
            if name in self.kept:
                continue
            if name not in self.producer:
                raise ProgramError(
                    f"`{name}` is read for every earlier token, and cannot be made from what is kept:"
                    f" {', '.join(self.kept)}",
                    hint=f"keep `{name}` too",
                )
            sources = self.producer[name].inputs
            open_names += [n for n in sources if self.sequence in self.table[n].axes]
        return wanted

    def run(self) -> Program:
        """The program with caches."""
        for name in self.program.inputs:
            if name in self.wanted:
                self._append(name)
        for position, statement in enumerate(self.program.statements):
            self.statements.append(self._reading(position, statement))
            for name in statement.outputs:
                if name in self.wanted:
                    if name in self.kept:
                        self._append(name)
                    else:
                        self._again(statement)
        outputs = (*self.program.outputs, *(self.keyed[name] for name in self.kept if name in self.keyed))
        return pruned(self.program, self.statements, [*self.caches, *self.values], outputs)

    def _reading(self, position: int, statement: Statement) -> Statement:
        """The statement with operands that are read along `t` taken from what has that axis."""
        inputs = [
            self.keyed[name] if (position, operand) in self.reads else name
            for operand, name in enumerate(statement.inputs)
        ]
        return replace(statement, inputs=tuple(inputs))

    def _append(self, name: str) -> None:
        """Write a value's new rows into its cache."""
        value = self.table[name]
        axes = self._along_keys(value.axes)
        cache = Value(f"{name}_cache", axes, value.dtype, CACHE)
        whole = Value(f"{name}_all", axes, value.dtype, CACHE)
        section = self.producer[name].section if name in self.producer else ""
        options = (("axis", self.keys),)
        self.statements.append(Statement("append", (cache.name, name), (whole.name,), options=options, section=section))
        self.caches.append(cache)
        self.values.append(whole)
        self.keyed[name] = whole.name

    def _again(self, statement: Statement) -> None:
        """Make a value once more, along `t`."""
        inputs = [self.keyed[n] if self.sequence in self.table[n].axes else n for n in statement.inputs]
        outputs = []
        for name in statement.outputs:
            value = self.table[name]
            self.keyed[name] = f"{name}_all"
            outputs.append(f"{name}_all")
            self.values.append(replace(value, name=f"{name}_all", axes=self._along_keys(value.axes)))
        options = tuple((key, self._option(value)) for key, value in statement.options)
        labels = tuple(self._along_keys(operand) for operand in statement.labels)
        self.statements.append(
            replace(statement, inputs=tuple(inputs), outputs=tuple(outputs), labels=labels, options=options)
        )

    def _option(self, value: object) -> str | int | float | tuple[str, ...]:
        """An option, the sequence axis replaced where it names it."""
        if isinstance(value, tuple):
            return self._along_keys(value)
        return self.keys if value == self.sequence else value  # type: ignore[return-value]

    def _along_keys(self, axes: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.keys if axis == self.sequence else axis for axis in axes)


def pruned(
    program: Program, statements: Sequence[Statement], values: Iterable[Value], outputs: tuple[str, ...]
) -> Program:
    """A program of some statements, without those that no output needs, nor the inputs only they read.

    Args:
        program: what it is made from: name, sizes, composites.
        statements: in order.
        values: every value they read or make, and any others.
        outputs: names of its results.
    """
    needed = set(outputs)
    kept: list[Statement] = []
    for statement in reversed(statements):
        if needed & set(statement.outputs):
            needed.update((*statement.inputs, *statement.outputs))
            kept.append(statement)
    kept.reverse()
    table = {value.name: value for value in values}
    made = [name for statement in kept for name in statement.outputs]
    fed = [value for value in table.values() if value.name in needed - set(made)]
    fed.sort(key=lambda value: (INPUT, GRADIENT, CACHE, PARAMETER).index(value.kind))
    result = replace(
        program,
        values=(*fed, *(table[name] for name in made)),
        statements=tuple(kept),
        inputs=tuple(value.name for value in fed if value.kind != PARAMETER),
        outputs=tuple(dict.fromkeys(outputs)),
        tied=tuple(name for name in program.tied if name in needed),
    )
    axes = set(axis_names(result))
    composites = tuple((name, parts) for name, parts in program.composites if set(parts) <= axes)
    sizes = tuple((name, size) for name, size in program.sizes if name in axes)
    return check_program(replace(result, sizes=sizes, composites=composites))
