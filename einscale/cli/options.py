"""Command-line options, each written once; those that go together are groups that commands take as one value.

A short flag means one thing everywhere: `-s` a size, `-o` a file to write, `-q` no notes, `-b` bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from einscale.cli import complete
from einscale.cli.groups import Options

if TYPE_CHECKING:
    from einscale.cli.output import Destination

Spec: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="The sharded einsum, in single quotes: 'B/x D, D/y F -> B/x F/y'. `-` reads stdin, `@FILE` a file.",
    ),
]
ModelName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A preset (`einscale models`), or the path of a config.json or of your own program.",
        autocompletion=complete.models,
    ),
]
MeshText: TypeAlias = Annotated[
    str,
    typer.Option("--mesh", metavar="AXIS=INT,...", help="Mesh axes, major to minor: x=2,y=4 or data=16@ib,model=8."),
]
ModelMesh: TypeAlias = Annotated[
    str,
    typer.Option(
        "--mesh", metavar="AXIS=INT,...", help="Mesh axes, major to minor: data=8,model=8. One device if absent."
    ),
]
MeshOrNone: TypeAlias = Annotated[
    str | None, typer.Option("--mesh", metavar="AXIS=INT,...", help="Mesh axes, major to minor: data=8,model=8.")
]
Sizes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--size", "-s", metavar="NAME=INT", help="Size of an index; repeat it, or part several by commas."),
]
AxisSizes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--size",
        "-s",
        metavar="NAME=INT",
        help="Size of an axis that a program of your own leaves open; repeat, or commas.",
    ),
]
StrategyName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="NAME|FILE",
        help="A named strategy or a .toml file; else one that suits the mesh.",
        autocompletion=complete.strategies,
    ),
]
Dtype: TypeAlias = Annotated[
    str,
    typer.Option(
        "--dtype", metavar="NAME", help="Element type of tensors that name none.", autocompletion=complete.dtypes
    ),
]
Objective: TypeAlias = Annotated[
    str,
    typer.Option(
        "--objective",
        metavar="time|bytes",
        help="What to make least: time on the hardware, or bytes received.",
        autocompletion=complete.words("time", "bytes"),
    ),
]
MaxFlops: TypeAlias = Annotated[
    str | None, typer.Option("--max-flops", metavar="NUMBER", help="Most FLOPs a device may spend: 1e12, 2T.")
]
Hardware: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--hardware",
        metavar="NAME|FILE",
        help="What it runs on; `einscale hardware` lists the names.",
        envvar="EINSCALE_HARDWARE",
        autocompletion=complete.hardware,
    ),
]
IndexRules: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--shard", metavar="INDEX=AXIS,...", help="Rules: divide every such index that has no slash of its own."
    ),
]
AxisRules: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--shard",
        metavar="AXIS=MESH_AXIS,...",
        help="Compute rules of your own: b=data,h=model; alone, or before those of --strategy.",
    ),
]
Syntax: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--syntax",
        metavar="NAME",
        help="Notation of the spec where it cannot be told: numpy, jax, ...",
        autocompletion=complete.dialects,
    ),
]
Indices: TypeAlias = Annotated[
    str | None,
    typer.Option("--indices", metavar="NAMES", help="Names of the tensor's dims, with sizes if you like: 'B=32 S D'."),
]
Batch: TypeAlias = Annotated[
    str | None,
    typer.Option("--batch", metavar="INT", help="Sequences in the global batch; else one microbatch for each replica."),
]
Sequence: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--sequence", "--seq", metavar="INT", help="Tokens in a sequence; else 4096, or what the model allows."
    ),
]
PrecisionName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="PRESET[,KEY=DTYPE]",
        help="Element types: bf16, mixed, fp8, int8, w8a8-fp8, ...; bf16,kv_cache=fp8.",
        autocompletion=complete.precisions,
    ),
]
Overhead: TypeAlias = Annotated[
    str | None,
    typer.Option("--overhead", metavar="BYTES", help="What a runtime takes beside tensors: 1GiB; else 1.5 GiB."),
]
Price: TypeAlias = Annotated[
    float | None, typer.Option("--price-per-hour", metavar="MONEY", help="Of one device; gives the money it takes.")
]
Forward: TypeAlias = Annotated[bool, typer.Option("--forward", help="The forward pass; without --backward, it alone.")]
Backward: TypeAlias = Annotated[
    bool, typer.Option("--backward", help="The backward pass; without --forward, it alone.")
]
Only: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="NAME",
        help="One part of the report by itself: time, memory, a kind of layer, ...",
        autocompletion=complete.words(
            "time", "memory", "tensors", "collectives", "stages", "moves", "layers", "block", "timeline", "explained"
        ),
    ),
]
Detail: TypeAlias = Annotated[
    bool,
    typer.Option("--detail", help="Also the long tables: every statement, collective, term and tensor by itself."),
]
Explain: TypeAlias = Annotated[
    bool, typer.Option("--explain", help="Also how each number came about: formulas, operands, a timeline.")
]
Verify: TypeAlias = Annotated[
    bool, typer.Option("--verify", help="Also run the plan on an emulated mesh: result and bytes must be as claimed.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
Format: TypeAlias = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="auto, table, json, csv or md; auto follows -o, else a table.",
        autocompletion=complete.words("auto", "table", "json", "csv", "md"),
    ),
]
TableName: TypeAlias = Annotated[
    str | None, typer.Option("--table", metavar="NAME", help="Only this table; csv prints the main one without it.")
]
Out: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE|DIR/",
        help="Write there; the extension chooses the format; DIR/ takes every table.",
    ),
]
Units: TypeAlias = Annotated[
    str,
    typer.Option(
        "--units",
        metavar="iec|si",
        help="Bytes in powers of 1024 or of 1000.",
        envvar="EINSCALE_UNITS",
        autocompletion=complete.words("iec", "si"),
    ),
]
Color: TypeAlias = Annotated[
    str,
    typer.Option(
        "--color",
        metavar="auto|always|never",
        help="Colour; auto: on a terminal, as NO_COLOR and FORCE_COLOR say.",
        autocompletion=complete.words("auto", "always", "never"),
    ),
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")]
Pager: TypeAlias = Annotated[
    bool, typer.Option("--pager/--no-pager", help="On a terminal, page what is longer: EINSCALE_PAGER, PAGER, less.")
]


class Manner(Options, frozen=True, kw_only=True):
    """How a command talks: every command has these."""

    color: Color = "auto"
    quiet: Quiet = False
    pager: Pager = True

    def destination(self) -> Destination:
        """Where text goes that has no other form."""
        from einscale.cli.output import choose

        return choose(color=self.color, quiet=self.quiet, pager=self.pager)


class Output(Options, frozen=True, kw_only=True):
    """How an answer leaves the program."""

    as_json: Json = False
    output_format: Format = "auto"
    table: TableName = None
    out: Out = None
    units: Units = "iec"
    color: Color = "auto"
    quiet: Quiet = False
    pager: Pager = True

    def destination(self, only: str | None = None) -> Destination:
        """Where the answer goes, checked before anything is computed.

        Args:
            only: the part of the report that is wanted, where a command has parts.

        Raises:
            UsageError: flags that do not go together, or a file that cannot be written.
        """
        from einscale.cli.output import choose
        from einscale.errors import UsageError

        chosen = choose(
            output_format=self.output_format,
            json=self.as_json,
            table=self.table,
            out=self.out,
            units=self.units,
            color=self.color,
            quiet=self.quiet,
            pager=self.pager,
        )
        if only is not None and chosen.format == "json":
            raise UsageError("a JSON document has no parts to choose from", expected="--only with table, md or csv")
        return chosen


class QuestionOptions(Options, frozen=True, kw_only=True):
    """One sharded einsum, on a mesh."""

    spec: Spec
    mesh: MeshText
    size: Sizes = None
    dtype: Dtype = "bf16"
    objective: Objective = "time"
    max_flops: MaxFlops = None
    hardware: Hardware = None
    shard: IndexRules = None
    syntax: Syntax = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of `einscale.plan`."""
        from einscale.cli.arguments import read_flops, read_sizes, read_spec

        return {
            "spec": read_spec(self.spec),
            "mesh": self.mesh,
            "sizes": read_sizes(self.size or ()),
            "dtype": self.dtype,
            "hardware": self.hardware,
            "objective": self.objective,
            "max_flops": None if self.max_flops is None else read_flops(self.max_flops),
            "syntax": self.syntax,
            "rules": joined(self.shard),
        }


class PlacedOptions(Options, frozen=True, kw_only=True):
    """A model on a mesh under a strategy."""

    model: ModelName
    mesh: ModelMesh = "data=1"
    strategy: StrategyName = None
    shard: AxisRules = None
    size: AxisSizes = None
    hardware: Hardware = None

    def arguments(self) -> dict[str, Any]:
        """What `einscale.layer`, `train_step` and `infer` call these."""
        from einscale.cli.arguments import read_sizes

        return {
            "model": self.model,
            "mesh": self.mesh,
            "strategy": self.strategy,
            "shard": joined(self.shard),
            "sizes": read_sizes(self.size or ()),
            "hardware": self.hardware,
        }


class Passes(Options, frozen=True, kw_only=True):
    """Which passes of a step are shown."""

    forward: Forward = False
    backward: Backward = False

    def arguments(self) -> dict[str, Any]:
        """What `einscale.layer` and `compare` call these; a pass asked for is asked for alone."""
        return {"forward": self.forward or not self.backward, "backward": self.backward or not self.forward}


def number(text: str | None, what: str) -> int | None:
    """A size that may be left out.

    Raises:
        SizeError: it is given and is none.
    """
    from einscale.units import parse_size

    return None if text is None else parse_size(text, what)


def count(text: str | None, what: str) -> int | None:
    """A whole number that may be 0, or left out.

    Raises:
        SizeError: it is given and is none.
    """
    from einscale.cli.arguments import read_count

    return None if text is None else read_count(text, what)


def joined(texts: list[str] | None) -> str | None:
    """An option given several times as one text, its parts between commas."""
    return ",".join(texts) if texts else None
