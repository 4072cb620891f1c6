"""Defaults from environment and files: which wins, what is said of it, what is not understood."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Outcome, refused, run_command

from einscale.cli.settings import config_files

LAYER = ["layer", "gpt2", "--mesh", "data=2", "--seq", "64"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory in a repository, in which the commands run."""
    (tmp_path / ".git").mkdir()
    inner = tmp_path / "project" / "src"
    inner.mkdir(parents=True)
    with contextlib.chdir(inner):
        yield inner


def asked(*arguments: str, **env: str) -> tuple[dict[str, object], str]:
    """The inputs of a priced layer as they were resolved, and what is said on stderr."""
    outcome = run_command(*LAYER, "--json", *arguments, env=env)
    assert outcome.status == 0, outcome.err
    return json.loads(outcome.out)["inputs"], outcome.err


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_flag_wins_over_the_environment_over_the_nearest_file_over_the_users(folder: Path) -> None:
    home = write(folder.parents[1] / "config" / "einscale" / "einscale.toml", 'hardware = "l4"\n')
    env = {"XDG_CONFIG_HOME": str(folder.parents[1] / "config")}
    assert asked()[0]["hardware"] == "h100"
    assert asked(**env) == (asked("--hardware", "l4")[0], f"note: --hardware l4, from {home}\n")
    near = write(folder.parent / "einscale.toml", 'hardware = "a100"\n[layer]\nbatch = 8\n')
    inputs, said = asked(**env)
    assert (inputs["hardware"], inputs["batch"]) == ("a100-80gb", 8)
    assert said == f"note: --hardware a100, from {near}\nnote: --batch 8, from {near}\n"
    inputs, said = asked(EINSCALE_HARDWARE="h200", **env)
    assert inputs["hardware"] == "h200"
    assert said.startswith("note: --hardware h200, from the environment variable EINSCALE_HARDWARE\n")
    inputs, said = asked("--hardware", "b200", EINSCALE_HARDWARE="h200", **env)
    assert inputs["hardware"] == "b200"
    assert said == f"note: --batch 8, from {near}\n"
    assert asked("-q", **env) == (asked("--hardware", "a100", "--batch", "8")[0], "")


def test_units_and_formats(folder: Path) -> None:
    outcome = run_command(*LAYER, env={"EINSCALE_UNITS": "si"})
    assert outcome.out == run_command(*LAYER, "--units", "si").out != run_command(*LAYER).out
    assert outcome.err == "note: --units si, from the environment variable EINSCALE_UNITS\n"
    write(folder / "einscale.toml", 'units = "si"\nformat = "md"\n')
    outcome = run_command(*LAYER)
    assert outcome.out.startswith("## gpt2")
    assert "GB" in outcome.out
    assert "GiB" not in outcome.out
    assert outcome.err.count("note: ") == 2
    assert run_command(*LAYER, "--format", "table", "--units", "iec").out == run_command(*LAYER, env=NOTHING).out


def test_a_default_format_gives_way_to_a_flag_that_says_another(folder: Path) -> None:
    for text in ('format = "csv"\n', "[layer]\njson = true\n"):
        write(folder / "einscale.toml", text)
        assert run_command(*LAYER).out != run_command(*LAYER, env=NOTHING).out
        for flags in (["--json"], ["--format", "md"], ["-o", "r.md"]):
            outcome = run_command(*LAYER, *flags)
            wrote = "wrote r.md\n" if "-o" in flags else ""
            assert (outcome.status, outcome.err) == (0, wrote)
            assert outcome.out == run_command(*LAYER, *flags, env=NOTHING).out
        assert (folder / "r.md").read_text("utf-8").startswith("## gpt2")


NOTHING = {"EINSCALE_CONFIG": ""}


def test_looks_are_set_without_a_word(folder: Path) -> None:
    write(folder / "einscale.toml", 'color = "always"\npager = false\n')
    outcome = run_command(*LAYER)
    assert "\x1b[1m" in outcome.out
    assert outcome.err == ""
    assert "\x1b" not in run_command(*LAYER, "--color", "never").out
    write(folder / "einscale.toml", 'quiet = true\nhardware = "l4"\n')
    assert run_command(*LAYER).err == ""


def test_options_that_repeat_flags_and_other_commands(folder: Path) -> None:
    write(
        folder / "einscale.toml",
        '[train]\nzero = 1\nrecompute = ["attention", "mlp"]\noffload_optimizer = true\noffload-activations = 0.5\n'
        "[infer]\nprompt = 99\n",
    )
    outcome = run_command("train gpt2 --mesh data=2 --json")
    inputs = json.loads(outcome.out)["inputs"]
    flags = ["--zero", "1", "--recompute", "attention,mlp", "--offload-optimizer", "--offload-activations", "0.5"]
    assert (inputs["offload_optimizer"], inputs["offload_activations"]) == (True, 0.5)
    with_flags = run_command("train", "gpt2", "--mesh", "data=2", *flags, "--json", env=NOTHING)
    assert with_flags.out == outcome.out
    assert with_flags.err == ""
    assert "note: --recompute attention --recompute mlp, from " in outcome.err
    assert "note: --offload-optimizer, from " in outcome.err
    assert "prompt" not in outcome.err
    assert json.loads(run_command("infer gpt2 --json").out)["inputs"]["prompt"] == 99
    assert run_command("train gpt2 --mesh data=2 --zero 0 --json").out != outcome.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'units = "si"\nhardwre = "h100"\n',
            'unknown key `hardwre` (in FILE)\n  hardwre = "h100"\n  ^^^^^^^\n  did you mean `hardware`?\n',
        ),
        (
            "[trian]\nzero = 1\n",
            "there is no command `trian` (in FILE)\n  [trian]\n   ^^^^^\n  did you mean",
        ),
        (
            "[train]\nzero = 1\n[layer]\nbach = 3\n",
            "`layer` has no option `bach` (in FILE)\n  bach = 3\n  ^^^^\n  did you mean `batch`?\n",
        ),
        ('[layer]\nout = "x.json"\n', '`layer` has no option `out` (in FILE)\n  out = "x.json"\n  ^^^\n'),
        (
            "hardware = true\n",
            "`hardware` cannot be that (in FILE)\n  hardware = true\n  ^^^^^^^^\n  expected text or a number\n",
        ),
        (
            '[layer]\nfree = "yes"\n',
            '`free` cannot be that (in FILE)\n  free = "yes"\n  ^^^^\n  expected true or false\n',
        ),
        (
            "[layer]\nsize = {d = 3}\n",
            "`size` cannot be that (in FILE)\n  size = {d = 3}\n  ^^^^\n  expected text or a number, or a list",
        ),
        ('a = "b\n', "`FILE` is no TOML: illegal character '\\n'\n  a = \"b\n"),
    ],
)
def test_what_is_not_understood_is_underlined(folder: Path, text: str, message: str) -> None:
    write(folder / "einscale.toml", text)
    assert refused(run_command(*LAYER)).replace("einscale.toml", "FILE").startswith(message)


def test_an_option_that_cannot_be_is_the_commands_own_error(folder: Path) -> None:
    write(folder / "einscale.toml", 'hardware = "h10"\n')
    outcome = run_command(*LAYER)
    assert outcome.status == 2
    assert outcome.err.splitlines()[:2] == [
        "note: --hardware h10, from einscale.toml",
        "error: unknown hardware `h10`",
    ]


def test_where_files_are_looked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EINSCALE_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    outside = write(tmp_path.parent / "einscale.toml", "")
    assert config_files(folder) == ()  # the search ends at the root of the repository
    (tmp_path / ".git").rmdir()
    assert config_files(folder) == (outside,)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_files(folder) == ()  # or at home
    monkeypatch.delenv("XDG_CONFIG_HOME")
    own = write(tmp_path / ".config" / "einscale" / "einscale.toml", "")
    near = write(tmp_path / "einscale.toml", "")
    assert config_files(folder) == (near, own)
    outside.unlink()


def test_a_named_file_replaces_those_that_would_be_found(folder: Path) -> None:
    write(folder / "einscale.toml", 'hardware = "l4"\n')
    other = write(folder / "other.toml", 'hardware = "a100"\n')
    assert asked(EINSCALE_CONFIG=str(other))[0]["hardware"] == "a100-80gb"
    assert asked(EINSCALE_CONFIG="") == (asked("--hardware", "h100")[0], "")
    assert "which is no file" in refused(run_command(*LAYER, env={"EINSCALE_CONFIG": "no.toml"}))


def test_help_and_version_read_no_file(folder: Path) -> None:
    write(folder / "einscale.toml", "not toml")
    for arguments in (["--help"], ["layer", "--help"], ["help", "layer"], ["-V"]):
        outcome: Outcome = run_command(*arguments)
        assert (outcome.status, outcome.err) == (0, "")
