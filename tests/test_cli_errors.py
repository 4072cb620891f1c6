"""Bad input on the command line: one clear message on stderr, nothing on stdout, status 2, no traceback."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from command import refused, run_command

from einscale.cli import COMMANDS

SPEC = "B/x D, D/x F -> B/x F"
SIZES = ["-s", "B=64,D=128,F=256"]


def plan(*arguments: str, spec: str = SPEC, mesh: str = "x=4", sizes: list[str] | None = None) -> str:
    return refused(run_command("plan", spec, "--mesh", mesh, *(SIZES if sizes is None else sizes), *arguments))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "the sizes of `B`, `D`, `F` are missing"),
        (["-s", "B=64,D=128"], "the size of `F` is missing"),
        (["-s", "B=64,D=128,F=8,G=2"], "a size is given for index `G`, which the spec does not have"),
        (["-s", "B=64,D=128,f=8"], "did you mean `F`?"),
        (["-s", "B=64,D=128,F=0"], "the size of `F` must be at least 1"),
        (["-s", "B=64,D=128,F=-8"], "the size of `F` must be at least 1"),
        (["-s", "B=64,D=128,F=1.5"], "the size of `F` must be a whole number"),
        (["-s", "B=64,D=128,F=1e30"], "the size of `F` is absurd"),
        (["-s", "B=64,D=128,F=" + "9" * 5000], "the size of `F` is absurd"),
        (["-s", "B=64,D=128,F=many"], "the size of `F` is not a number"),
        (["-s", "B=64,D=128,F"], "expected NAME=INT"),
        (["-s", ""], "expected NAME=INT"),
        (["-s", "B=64,D=128,F=8", "-s", "F=16"], "index `F` is given two sizes: 8 and 16"),
    ],
)
def test_sizes(sizes: list[str], message: str) -> None:
    assert message in plan(sizes=sizes)


def test_a_missing_size_is_underlined_and_says_what_to_write() -> None:
    assert plan(sizes=["-s", "B=64,D=128"]) == (
        "the size of `F` is missing\n"
        "  B/x D, D/x F -> B/x F\n"
        "             ^\n"
        "  write `F=4096` in the spec, or pass `--size F=4096` (in Python `sizes={'F': 4096}`)\n"
    )


def test_a_size_that_contradicts_the_spec() -> None:
    message = plan(spec="B=32/x D, D/x F -> B/x F")
    assert "index `B` has size 32 in the spec and 64 beside it" in message
    assert "^^" in message


def test_more_devices_than_elements() -> None:
    message = plan(mesh="x=128")
    assert "index `B` has 64 elements and is divided over 128 devices (x=128)" in message
    assert "expected at most one device for each element" in message


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("y=4", "unknown mesh axis `x`"),
        ("xx=4", "did you mean `xx`?"),
        ("x=0", "mesh axis `x` must have at least 1 device"),
        ("x=-4", "mesh axis `x` must have at least 1 device"),
        ("x=1" + "0" * 30, "mesh axis `x` has an absurd number of devices"),
        ("x=1e30", "the size of mesh axis `x` is not a whole number"),
        ("x=1000000000,y=1000000000,z=1000000000", "absurd number of devices"),
        ("x=4,x=2", "mesh axis `x` is given twice"),
        ("x", "cannot read the mesh axis `x`"),
        ("", "an axis is missing in the mesh"),
        ("x=4@nvlnk", "did you mean `nvlink`?"),
    ],
)
def test_meshes(mesh: str, message: str) -> None:
    assert message in plan(mesh=mesh)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("B/x/x D, D/x F -> B/x F", "mesh axis `x` is used twice in one tensor"),
        ("B/x D, D/x F -> B/x G", "output index `G` occurs in no operand"),
        ("", "the spec is empty"),
        ("B/x D,, D F -> B F", "^"),
    ],
)
def test_specs(spec: str, message: str) -> None:
    assert message in plan(spec=spec)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "tiem"], "unknown objective `tiem`\n  did you mean `time`?"),
        (["--dtype", "bf17"], "did you mean `bf16`?"),
        (["--hardware", "h1000"], "did you mean `h100`?"),
        (["--hardware", "nowhere/h100.toml"], "does not exist"),
        (["--max-flops", "lots"], "the cap on FLOPs is not a number"),
        (["--max-flops", "-5"], "the cap on FLOPs is not a number"),
        (["--syntax", "nump"], "did you mean `numpy`?"),
        (["--shard", "G=x"], "a rule for index `G`, which the spec does not have"),
        (["--shard", "F=y"], "unknown mesh axis `y`"),
        (["--units", "imperial"], "--units takes: iec, si"),
        (["--format", "jsn"], "did you mean `json`?"),
        (["--json", "--format", "csv"], "--json and --format csv ask for two formats"),
        (["-o", "plan.docx"], "names no format"),
        (["-o", "no/such/directory/plan.json"], "there is no directory `no/such/directory`"),
        (["-o", "/", "--format", "md"], "`/` is a directory"),
        (["--mehs", "x=2"], "`einscale plan` has no option `--mehs`\n  did you mean `--mesh`?"),
        (["--hardware"], "requires an argument"),
        (["D,", "F"], "put the whole spec in single quotes"),
        (["->"], "put the whole spec in single quotes"),
    ],
)
def test_flags(arguments: list[str], message: str) -> None:
    assert message in plan(*arguments)


def test_a_cap_that_nothing_keeps_within_is_answered_no() -> None:
    sizes = "B=64,D=128,F=256"
    outcome = run_command("plan", SPEC, "--mesh", "x=4", "-s", sizes, "--max-flops", "12", "--objective", "bytes")
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.err.startswith("error: no placement keeps within 12 FLOPs per device\n  the least attainable is ")


def test_what_is_missing_is_named() -> None:
    assert "`einscale plan` needs a mesh" in refused(run_command("plan", SPEC))
    assert "missing argument `SPEC`" in refused(run_command("plan", "--mesh", "x=2"))


@pytest.mark.parametrize(
    ("name", "meant"), [("pln", "plan"), ("modle", "model"), ("Layer", "layer"), ("expalin", "explain")]
)
def test_misspelt_commands(name: str, meant: str) -> None:
    assert refused(run_command(name, "x")) == f"no such command `{name}`\n  did you mean `{meant}`?\n"


def test_unknown_commands_list_those_there_are() -> None:
    assert f"the commands are: {', '.join(COMMANDS)}" in refused(run_command("frobnicate"))


def test_misspelt_options_of_no_command() -> None:
    assert "did you mean `--version`?" in refused(run_command("--vresion"))


def test_specs_from_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "binary").write_bytes(b"B/x \xff\xfe")
    (tmp_path / "large").write_bytes(b" " * 2_000_000)
    for name, message in {
        "absent": "No such file or directory",
        "empty": "is empty",
        "binary": "is not UTF-8 text (byte 4)",
        "large": "holds more than 1000000 bytes",
        "": "names no file",
    }.items():
        assert message in plan(spec=f"@{tmp_path / name}")


def test_empty_stdin() -> None:
    outcome = run_command("plan", "-", "--mesh", "x=2", stdin="")
    assert "stdin is empty" in refused(outcome)


def test_a_file_that_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    with mock.patch.object(Path, "replace", side_effect=PermissionError(13, "Permission denied")):
        message = plan("-o", str(tmp_path / "a.json"))
    assert message == f"cannot write `{tmp_path / 'a.json'}`: Permission denied\n"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_no_traceback() -> None:
    with mock.patch("einscale.api.plan.plan", side_effect=KeyboardInterrupt):
        outcome = run_command("plan", SPEC, "--mesh", "x=2")
    assert (outcome.status, outcome.out, outcome.err) == (130, "", "error: interrupted\n")


def test_a_fault_of_ours_is_no_traceback_either() -> None:
    with mock.patch("einscale.api.plan.plan", side_effect=ZeroDivisionError("by zero")):
        message = refused(run_command("plan", SPEC, "--mesh", "x=2"))
    assert "ZeroDivisionError: by zero" in message
    assert "this is a fault of einscale" in message


def test_a_plan_that_is_not_what_it_claims_exits_with_1() -> None:
    from einscale.errors import VerificationError

    with mock.patch("einscale.emulate.verify_plan", side_effect=VerificationError("step 1 of 2 moves 3 bytes")):
        outcome = run_command("plan", SPEC, "--mesh", "x=4", *SIZES, "--verify")
    assert (outcome.status, outcome.out, outcome.err) == (1, "", "error: step 1 of 2 moves 3 bytes\n")


def test_no_arguments_is_a_request_for_help() -> None:
    outcome = run_command()
    assert outcome.status == 0
    assert "Commands:" in outcome.out
