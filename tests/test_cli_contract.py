"""What every command shares: version and help, colour, notes, pager, completion, tables, names of options."""

from __future__ import annotations

import csv
import io
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import csv_tables, read_csv, refused, run_command

from einscale import __version__, list_models, list_strategies, list_systems
from einscale.cli import COMMANDS, complete
from einscale.cli.application import application
from einscale.cli.output import EXTENSIONS

PLAN = ["plan", "B/x D, D/x F -> B/x F", "--mesh", "x=4", "-s", "B=64,D=128,F=256"]
EINSCALE = [sys.executable, "-m", "einscale"]
SOURCE = str(Path(__file__).parents[1])


def command_line() -> Any:
    """Every command as typer has it."""
    from typer.main import get_command

    return get_command(application(COMMANDS))


@pytest.mark.parametrize("line", ["--version", "-V", "layer -V", "layer gpt2 --version", "-q -V"])
def test_the_version(line: str) -> None:
    outcome = run_command(line)
    assert (outcome.status, outcome.out, outcome.err) == (0, f"einscale {__version__}\n", "")


def test_help_in_both_orders() -> None:
    assert run_command("help").out == run_command("--help").out == run_command().out
    for name in COMMANDS:
        assert run_command("help", name).out == run_command(name, "--help").out
    assert "did you mean `layer`?" in refused(run_command("help", "lyer"))


def test_examples_of_the_help_are_lines_that_can_be_copied() -> None:
    for name in COMMANDS:
        out = run_command(name, "--help", env={"COLUMNS": "80"}).out
        examples = [line.strip() for line in out.splitlines() if line.strip().startswith("einscale ")]
        for line in examples:
            assert line.count("'") % 2 == 0 and not line.endswith(("--zero", "--strategy", "--mesh")), line


def test_colour_where_it_is_asked_for() -> None:
    plain = run_command(*PLAN).out
    for arguments, env in ((["--color", "always"], {"NO_COLOR": "1"}), ([], {"FORCE_COLOR": "1"})):
        out = run_command(*PLAN, *arguments, env=env).out
        assert "\x1b[33m" in out
        assert re.sub(r"\x1b\[[\d;]*m", "", out) == plain
    assert run_command("--color", "always", *PLAN).out == run_command(*PLAN, "--color", "always").out
    for arguments, env in (
        (["--color", "never"], {"FORCE_COLOR": "1"}),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}),
        (["--color", "auto"], {}),
    ):
        assert run_command(*PLAN, *arguments, env=env).out == plain
    assert "did you mean `always`?" in refused(run_command(*PLAN, "--color", "alway"))


def test_files_and_data_have_no_colour(tmp_path: Path) -> None:
    for ending in EXTENSIONS:
        run_command(*PLAN, "--color", "always", "-o", str(tmp_path / f"r{ending}"))
        assert "\x1b" not in (tmp_path / f"r{ending}").read_text("utf-8")
    for form in ("json", "csv", "md"):
        assert "\x1b" not in run_command(*PLAN, "--format", form, env={"FORCE_COLOR": "1"}).out


def test_quiet_says_nothing_but_errors(tmp_path: Path) -> None:
    target = str(tmp_path / "r.json")
    assert run_command(*PLAN, "-o", target).err == f"wrote {target}\n"
    for arguments in ([*PLAN, "-o", target, "-q"], ["--quiet", *PLAN, "-o", target]):
        assert run_command(*arguments).err == ""
    assert refused(run_command("-q", "plan", "B/x D", "--mesh", "y=2"))


# The pager, on a terminal of our own


def on_terminal(*arguments: str, rows: int = 24, **env: str) -> str:
    """What `einscale ARGUMENTS` prints on a terminal of 80 columns."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("EINSCALE_", "PAGER", "LESS"))}
    environment = {**keep, "TERM": "xterm", "NO_COLOR": "1", "PYTHONPATH": SOURCE, "COLUMNS": "80", "LINES": str(rows)}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*EINSCALE, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment | env
    )
    os.close(theirs)
    text = b""
    try:
        while select.select([ours], [], [], 30)[0]:
            text += os.read(ours, 65536)
            if not text:
                break
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(timeout=30) == 0
    return text.decode().replace("\r\n", "\n")


PAGER = f"{sys.executable} -c \"import sys; print('PAGED', sys.stdin.read().count(chr(10)), 'lines')\""


def test_long_text_on_a_terminal_is_paged() -> None:
    whole = run_command("strategies", terminal=80, env={"NO_COLOR": "1"}).out
    paged = f"PAGED {whole.count(chr(10))} lines\n"
    assert on_terminal("strategies", EINSCALE_PAGER=PAGER, PAGER="false") == paged
    assert on_terminal("strategies", PAGER=PAGER) == paged
    assert on_terminal("strategies", "--no-pager", PAGER=PAGER) == whole
    assert on_terminal("strategies", rows=500, PAGER=PAGER) == whole
    for none in ("", "no-such-pager-anywhere"):
        assert on_terminal("strategies", EINSCALE_PAGER=none, PAGER=PAGER) == whole


def test_nothing_is_paged_elsewhere() -> None:
    env = {"PAGER": PAGER, "LINES": "5"}
    assert run_command("models", env=env).out == run_command("models").out
    assert "PAGED" not in run_command("models", terminal=80, env=env).out


def test_a_pager_that_cannot_be_read_is_an_error() -> None:
    from einscale.cli.pager import pager
    from einscale.errors import UsageError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UsageError, match="cannot read PAGER"):
        patch.setenv("PAGER", "less '")
        patch.delenv("EINSCALE_PAGER", raising=False)
        pager()


# Completion


def completed(line: str) -> list[str]:
    """What bash is offered at the end of a line."""
    words = line.split(" ")
    env = {"_EINSCALE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    outcome = run_command("", env=env)
    assert (outcome.status, outcome.err) == (0, "")
    return outcome.out.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("einscale la", ["layer"]),
        ("einscale layer llama3-7", ["llama3-70b"]),
        ("einscale layer gpt2 --strategy megatron-sp+", ["megatron-sp+etp"]),
        ("einscale compare gpt2 zero", ["zero1", "zero2"]),
        ("einscale train gpt2 --hardware tpu-v5", ["tpu-v5e", "tpu-v5p"]),
        ("einscale train gpt2 --precision mxfp", ["mxfp4", "mxfp8"]),
        ("einscale train gpt2 --schedule dual", ["dualpipe", "dualpipev"]),
        ("einscale collective all-g", ["all-gather"]),
        ("einscale plan x --color a", ["auto", "always"]),
        ("einscale schema tr", ["train"]),
    ],
)
def test_the_shell_is_offered(line: str, offered: list[str]) -> None:
    assert set(offered) <= {*completed(line)}
    assert all(word.startswith(line.rpartition(" ")[2]) for word in completed(line))


def test_names_are_those_that_the_library_knows() -> None:
    assert complete.models("") == list(list_models())
    assert set(complete.strategies("")) == {strategy.name for strategy in list_strategies()}
    assert complete.hardware("") == sorted(name for name, _ in list_systems())
    assert complete.precisions("bf16,kv_") == ["bf16,kv_cache="]
    assert "bf16,kv_cache=fp8" in complete.precisions("bf16,kv_cache=fp8")
    assert complete.overlaps("parameters,gr") == ["parameters,gradients"]


def test_every_completion_offers_what_begins_as_typed() -> None:
    found = [value for value in vars(complete).values() if callable(value) and getattr(value, "__doc__", None)]
    for offer in found:
        if offer.__module__ == complete.__name__ and not offer.__name__.startswith("_") and offer is not complete.words:
            words = offer("")
            assert words, offer.__name__
            assert words[0] in offer(words[0][:2]), offer.__name__


# Tables

ANSWERS = [
    " ".join([*PLAN[:1], f"'{PLAN[1]}'", *PLAN[2:]]),
    "explain 'B/d S F/t, F/t D -> B/d S D' --mesh d=4,t=8 -s B=64,S=4096,D=8192,F=28672",
    "layer gpt2 --mesh data=2,model=2 --detail --free",
    "compare gpt2 megatron megatron-sp --mesh data=2,model=2 --detail",
    "train gpt2 --mesh data=2,model=2 --detail --explain --tokens 1e9 --price-per-hour 2",
    "infer gpt2 --mesh model=2 --detail --explain --price-per-hour 2",
    "infer llama3-70b --mesh model=8 --disaggregate model=4",
    "shard 'B/x F/y' --mesh x=2,y=2 -s B=3,F=4",
    "notation 'B/x D' --mesh x=2",
    "models",
    "model gpt2",
    "strategies",
    "strategies fsdp",
    "hardware",
    "hardware h100",
    "collective all-reduce --mesh x=8",
]
ENDINGS = {"bytes": "bytes", "+bytes": "bytes", "seconds": "seconds", "+seconds": "seconds", "flops": "flops"}
FORMATTED = re.compile(r"-?[\d.,]+ ?([KMGT]i?B|B|[nµm]s|[KMGTPE]?FLOP)")


@pytest.mark.parametrize("line", ANSWERS)
def test_every_table_is_one_a_program_reads(line: str) -> None:
    tables = csv_tables(line)
    assert tables
    main = read_csv(run_command(f"{line} --format csv").out)
    assert main in tables.values()
    last = list(tables)[-1]
    assert read_csv(run_command(f"{line} --format csv --table {last}").out) == tables[last]
    for name, rows in tables.items():
        assert rows, name
        for row in rows:
            assert row["level"].isdigit()
            for key, cell in row.items():
                if key.endswith(("bytes", "flops")):
                    assert re.fullmatch(r"-?\d*", cell), (name, key, cell)
                elif key.endswith("seconds"):
                    assert cell == "" or float(cell) == float(cell), (name, key, cell)
                if name != "explained":
                    assert not FORMATTED.fullmatch(cell), (name, key, cell)


def test_columns_say_their_unit() -> None:
    from einscale.report import shard
    from einscale.report.comparison import tables as comparison
    from einscale.report.einsum import tables as plan
    from einscale.report.layer import tables as layer

    for module in (comparison, layer, plan, shard):
        for value in vars(module).values():
            for column in value if isinstance(value, tuple) else ():
                ending = ENDINGS.get(getattr(column, "kind", ""), "")
                assert not ending or column.key.endswith(ending), column


def test_pandas_reads_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    text = run_command("layer gpt2 --mesh data=2,model=2 --format csv").out
    frame = pandas.read_csv(io.StringIO(text), keep_default_na=False)
    assert len(frame) == len(list(csv.reader(io.StringIO(text)))) - 1


def test_one_table_of_many(tmp_path: Path) -> None:
    line = "train gpt2 --mesh data=2,model=2"
    text = run_command(f"{line} --table memory").out
    assert text.splitlines()[0].startswith("memory of ")
    assert run_command(f"{line} --table memory --format md").out.startswith("### memory of ")
    for form in ("csv", "md", "table"):
        message = refused(run_command(f"{line} --format {form} --table memroy"))
        assert message == "the answer has no table `memroy`\n  did you mean `memory`?\n"
    message = refused(run_command(f"{line} --table xyz"))
    assert "its tables are: step, time, stages, memory, tensors, collectives" in message
    assert "no tables to choose from" in refused(run_command(f"{line} --json --table memory"))


def test_a_folder_takes_every_table(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for folder in (f"{tmp_path}/new/", str(there)):
        outcome = run_command(*PLAN, "-o", folder)
        assert (outcome.status, outcome.out, outcome.err) == (0, "", f"wrote {Path(folder) / 'steps.csv'}\n")
    for arguments in (["--json"], ["--format", "md"], ["--table", "steps"]):
        assert "takes all tables as csv" in refused(run_command(*PLAN, "-o", str(there), *arguments))
    (tmp_path / "file").write_text("")
    for bad in (f"{tmp_path}/file/", f"{tmp_path}/no/such/"):
        assert "cannot make the directory" in refused(run_command(*PLAN, "-o", bad))


# Names of options


def test_a_short_flag_means_one_thing() -> None:
    meanings: dict[str, set[str]] = {}
    for one in command_line().commands.values():
        for parameter in one.params:
            longest = max(parameter.opts, key=len)
            for flag in parameter.opts:
                if re.fullmatch("-[a-zA-Z]", flag):
                    meanings.setdefault(flag, set()).add(longest)
    assert meanings == {"-s": {"--size"}, "-o": {"--out"}, "-q": {"--quiet"}, "-b": {"--bytes"}}


def test_a_long_flag_takes_one_kind_of_value() -> None:
    """A name means one thing in every command; `--shard` takes indices of an einsum or axes of a model."""
    forms: dict[str, set[str]] = {}
    for one in command_line().commands.values():
        for parameter in one.params:
            for flag in parameter.opts:
                if flag.startswith("--"):
                    forms.setdefault(flag, set()).add(f"{parameter.name} {parameter.metavar}")
    several = {flag: found for flag, found in forms.items() if len(found) > 1}
    assert set(several) <= {"--shard", "--strategy", "--backward", "--out"}, several


def test_options_are_named_as_the_arguments_of_python() -> None:
    import inspect

    import einscale
    from einscale.request.serving import ServeOptions
    from einscale.request.training import TrainRequest

    twins = {"layer": einscale.layer, "train": einscale.train_step, "infer": einscale.infer, "shard": einscale.shard}
    from einscale.request.common import SYNONYMS

    renamed = {"sizes": "size"}
    for name in twins:
        flags = {flag for one in command_line().commands[name].params for flag in one.opts}
        assert all(f"--{other}" in flags for other, word in SYNONYMS.items() if f"--{word}" in flags)
    for name, function in twins.items():
        flags = {flag for one in command_line().commands[name].params for flag in one.opts}
        arguments = dict.fromkeys(inspect.signature(function).parameters)
        if arguments.pop("options", 0) is None:  # keyword arguments, one for each field of a request
            known = ServeOptions.__optional_keys__ if name == "infer" else TrainRequest.__struct_fields__
            arguments |= dict.fromkeys(known)
        if name == "layer":  # of a whole run, which has no part in it
            arguments = {word: None for word in arguments if word not in ("price_per_hour", "tokens")}
        for argument in arguments:
            word = renamed.get(argument, argument)
            assert word in flags or f"--{word.replace('_', '-')}" in flags, (name, argument)


def test_old_names_say_what_to_write() -> None:
    message = refused(run_command("compare gpt2 -s fsdp -s megatron --mesh data=2"))
    assert (
        "`-s` is `--size`, as everywhere; strategies follow the model: einscale compare MODEL megatron fsdp@data=64"
        in (message)
    )
    message = refused(run_command("compare gpt2 -s fsdp@data=64"))
    assert "`-s` is `--size`" in message
    message = refused(run_command(*PLAN, "--output", "r.json"))
    assert message == "`einscale plan` has no option `--output`\n  `-o FILE`, or `--out FILE`, writes to a file\n"
    assert run_command("layer gpt2 --seq 64 --json").out == run_command("layer gpt2 --sequence 64 --json").out
