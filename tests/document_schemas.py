"""The JSON Schemas of the documents, made from documents: `python tests/document_schemas.py` writes them anew.

A schema says what the command's own document builders wrote for the questions below: which keys there are, which are
always there, of which types their values are. So it cannot say something else than the documents, as long as the
questions show every key with a value: `unseen` names those that they do not. Every document that any test prints is
validated against these schemas as well (`command.run_command`), and nothing may be in it that the schema does not have.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FOLDER = Path(__file__).parents[1] / "einscale" / "schemas"

QUESTIONS = (
    "plan 'B/x D, D/x F -> B/x F' --mesh x=4 -s B=10,D=128,F=256 --verify",
    "plan 'B D, D F -> B F' --mesh x=4@nvlink -s B=8,D=8,F=8 --objective bytes --max-flops 1e9",
    "plan 'a/y/x -> a/x' --mesh x=2,y=3 -s a=7 --objective bytes --verify",
    "plan 'a/x b, b c, c d -> a d' --mesh x=2 -s a=8,b=8,c=8,d=8",
    "explain 'B/d S F/t, F/t D -> B/d S D' --mesh d=4,t=8 -s B=64,S=4096,D=8192,F=28672",
    "explain 'B D, D F -> B F' --mesh x=1 -s B=8,D=8,F=8",
    "layer gpt2 --mesh data=2,model=4 --strategy megatron-sp --seq 256 --batch 4 --free",
    "layer gpt2",
    "layer deepseek-v2-lite --mesh data=2,expert=2,model=2 --seq 256",
    "layer gpt2 --mesh data=2,model=2 --strategy megatron --seq 256 --forward",
    "layer gpt2 --mesh pipe=2,data=2 --schedule zb-h1 --offload-activations 0.5 --seq 256",
    "compare gpt2 megatron megatron-sp --mesh data=2,model=4 --seq 256 --batch 4",
    "compare gpt2 megatron megatron-sp --mesh data=2,model=4 --seq 256 --for layer",
    "compare gpt2 megatron-sp megatron --mesh pipe=2,data=2,model=2 --seq 256 --offload-optimizer",
    "compare llama3-8b megatron-sp@data=4,model=8 megatron-sp@data=2,model=16 fsdp@data=64 --seq 2048",
    "compare llama3-8b megatron@model=2 megatron@data=2 --for serve --batch 8 --price-per-hour 2 --chunk 512",
    "compare gpt2 megatron@model=2 megatron@data=2,model=2 dp@data=2 --for serve",
    "train gpt2 --mesh data=2 --batch 8 --tokens 1e9 --price-per-hour 2",
    "train gpt2 --mesh pipe=2,data=2 --schedule interleaved --chunks 2 --batch 16 --zero 2 --recompute full",
    "train gpt2 --mesh data=2 --offload-optimizer --offload-activations 0.5 --overlap gradients --shard b=data",
    "train llama3-8b --mesh data=2 --batch 4 --hardware a100",
    "train llama3-8b --mesh data=8 --strategy dp --batch 16 --microbatch 2",
    "train llama3-8b --mesh pipe=2,data=4 --strategy dp --batch 16 --offload-activations 0.5",
    "train mixtral-8x7b --mesh data=2,expert=4,model=2 --batch 16 --precision fp8 --hardware h200",
    "infer gpt2",
    "infer gpt2 --output 1",
    "infer llama3-8b --mesh pipe=2,model=2 --batch 8 --prompt 2048 --output 128 --chunk 512 --microbatches 2",
    "infer llama3-8b --mesh model=2 --sweep 'batch=1,16 context=1Ki,8Ki' --price-per-hour 2",
    "infer llama3-70b --mesh model=8 --batch 64 --speculative llama3-8b --acceptance 0.8",
    "infer llama3-70b --mesh model=8 --batch 64 --disaggregate model=4 --link 25GB/s --price-per-hour 2"
    " --prefill-price-per-hour 3",
    "infer llama3-70b --mesh model=1",
    "infer llama3-70b --mesh model=2 --disaggregate model=2",
    "infer deepseek-v2-lite --mesh data=2,expert=4 --batch 64 --precision bf16,kv_cache=fp8",
    "infer qwen3-next-80b-a3b --mesh model=4 --batch 4 --execution eager",
    "shard 'x: fp8[B/x S F/z {U:y}]' --mesh x=4@ib,y=2,z=2,w=2 -s B=10,S=8,F=4 --hardware h100",
    "shard 'B/x F' --mesh x=2",
    "notation 'B/x D' --mesh x=4",
    "notation 'B=8/x D, D F -> B/x F' --mesh x=4",
    "notation 'B/x D'",
    "models",
    "model gpt2",
    "model mixtral-8x7b",
    "model deepseek-v2-lite",
    "model deepseek-v3",
    "model gemma2-9b",
    "model gpt-oss-20b",
    "model qwen3-next-80b-a3b",
    "strategies",
    "strategies megatron-sp",
    "strategies fsdp",
    "hardware",
    "hardware h100",
    "hardware tpu-v5e",
    "hardware --check mi250x",
    "hardware --check tpu-v5e",
    "collective all-reduce --mesh data=8,model=8 --axes model --hardware h100",
    "collective all-gather --mesh x=4,y=4 --hardware tpu-v5e",
    "collective all-reduce --mesh x=1",
    "train gpt2 --mesh pipe=2,data=2 --first-layers 4 --last-layers 8",
    "layer gpt2 --mesh data=4 --strategy guarded.toml --strict --seq 128",
    "compare gpt2 dp guarded.toml --mesh data=2 --seq 128",
    "strategies guarded.toml",
    "hardware cluster.toml",
    "hardware --check cluster.toml",
    "model own.ein",
    "layer own.ein --mesh data=2 --shard b=data",
    "compare own.ein dp zero1 --mesh data=2",
    "train own.ein --mesh data=2",
    "notation @warning.txt --mesh x=4,y=2",
    "notation \"P('x', reduced={'y'})\" --mesh x=4,y=2",
    "layer llama3-70b --mesh data=8,model=8 --strategy megatron-sp --free",
)

FILES = {
    "guarded.toml": (
        'expect = ["all-reduce data statistics"]\n[compute]\nb = "data"\n[policy]\nrecompute = ["attention"]\n'
    ),
    "cluster.toml": (
        'base = "h100"\n[chip.memory_bandwidth]\nvalue = 33.5\nunit = "TB/s"\nsource = "us"\n'
        '[chip.memory_bandwidth.attainable]\nvalue = 3.0\nsource = "us"\n'
    ),
    "warning.txt": (
        "W1122 23:04:58.189800 spmd_partitioner.cc:656] [SPMD] Involuntary full rematerialization. The compiler cannot"
        " go from sharding {devices=[2,1,4]<=[4,2]T(1,0)} to {devices=[1,8,1]<=[8]} efficiently for HLO operation"
        " %add.2 ="
        " f32[8,16,4]{2,1,0} add(%param, %param), sharding={devices=[2,1,4]<=[4,2]T(1,0)}, metadata={op_name="
        '"jit(f)/add" stack_frame_id=2}. As the last resort, SPMD will replicate the tensor and then partition it.'
    ),
}

EMPTY = {
    *("/warnings[]/before/lost[]", "/warnings[]/after/lost[]"),
    *(f"/prefill/{at}/kinds[]/statements[]/collectives[]/hidden_by" for at in ("first", "last")),
    "/decode/step/kinds[]/statements[]/collectives[]/hidden_by",
}
"""What holds nothing in any answer: reading XLA's notation loses nothing, and serving hides no collective."""

MAPS = (
    r"plan/inputs/(sizes|dtypes)",
    r"plan/alternatives\[\]/placement",
    r"collective/inputs/mesh",
    r"notation/mesh/axes",
    r"layer/kinds\[\]/sections",
    r"compare/strategies\[\]/kinds\[\]/sections",
    r"train/stages\[\]/layers",
    r"(train|infer|prefill|decode)/advice\[\]/options",
    r"(infer|prefill|decode)/.*/stages\[\]",
    r"model/layers\[\]/sizes",
    r"model/defaults",
    r"strategy/store",
    r"(system|check)/roofline/channels\[\]/flops_per_byte",
)
"""Objects whose keys are names of the question's own; what they hold is of one kind."""

SHARED: dict[str, dict[str, Any]] = {"why": {}}
"""Keys whose values one function writes wherever they stand: key -> their schema, made from all places together."""

ARGUMENTS = r"(train|infer)/advice\[\]/options"
"""Objects whose keys are arguments of a function, and hold what that takes."""

ANY_SCALAR = {"type": ["boolean", "integer", "null", "number", "string"]}

UNITS = {
    "seconds": "seconds",
    "bytes": "bytes",
    "flops": "FLOPs; 1 FLOP is half a multiply-add",
    "share": "a share, 0 to 1",
    "ratio": "a ratio",
    "price": "money, in the currency of the price given",
}
"""What a number is, by the end of its key."""


def documents() -> Iterator[dict[str, Any]]:
    """The answers to the questions, and those that only Python gives."""
    from command import run_command

    import einscale

    with TemporaryDirectory() as folder, chdir(folder):
        for name, text in FILES.items():
            Path(name).write_text(text, encoding="utf-8")
        Path("own.ein").write_text(run_command("program gpt2 --layer block").out, encoding="utf-8")
        for question in QUESTIONS:
            outcome = run_command(f"{question} --json", checked=False)
            assert outcome.status in (0, 1), f"{question}\n{outcome.err}"
            yield json.loads(outcome.out)
    for phase in (einscale.prefill, einscale.decode):
        yield json.loads(json.dumps(phase("gpt2", mesh="model=2").to_dict()))
        yield json.loads(json.dumps(phase("llama3-8b", mesh="pipe=2", batch=4, price_per_hour=2.0).to_dict()))


def schemas() -> dict[str, dict[str, Any]]:
    """Name -> schema of every document."""
    found: dict[str, list[dict[str, Any]]] = {}
    for document in documents():
        found.setdefault(document["command"], []).append(document)
    for key in SHARED:
        SHARED[key] = infer([value for group in found.values() for value in _named(group, key)], f"*:{key}")
    return {name: _schema(name, found[name]) for name in sorted(found)}


def _named(value: Any, key: str) -> Iterator[Any]:
    """Everything that stands under a key, however deep, under names that end in it too (`first_why`)."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        if str(name) == key or str(name).endswith(f"_{key}"):
            yield item
        yield from _named(item, key)


def _schema(name: str, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The schema of one document."""
    version = examples[0]["schema_version"]
    body = infer(examples, name)
    body["properties"]["command"] = {"const": name}
    body["properties"]["schema_version"] = {"const": version}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:einscale:schema:{name}:{version}",
        "title": f"einscale: {name}",
        "description": "Numbers are in base units (bytes, FLOPs, seconds); integers are exact, whatever their size.",
        **body,
    }


def infer(values: Sequence[Any], path: str) -> dict[str, Any]:
    """The schema of values that stand at one place of documents."""
    for key, shared in SHARED.items():
        if shared and re.search(rf"[/_]{key}$", path):
            return shared
    kinds = sorted({_kind(value) for value in values})
    if "number" in kinds and "integer" in kinds:
        kinds.remove("integer")
    schema: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    unit = UNITS.get(path.rpartition("/")[2].rpartition("_")[2])
    if unit and {"integer", "number"} & {*kinds}:
        schema["description"] = unit
    if "array" in kinds:
        items = [item for value in values if isinstance(value, list) for item in value]
        schema["items"] = infer(items, f"{path}[]") if items else {}
    objects = [value for value in values if isinstance(value, dict)]
    if objects and re.fullmatch(ARGUMENTS, path):
        schema["additionalProperties"] = ANY_SCALAR
    elif objects and is_map(path):
        held = [item for value in objects for item in value.values()]
        schema["additionalProperties"] = infer(held, f"{path}/*") if held else {}
    elif objects:
        keys = dict.fromkeys(key for value in objects for key in value)
        schema["properties"] = {
            key: infer([value[key] for value in objects if key in value], f"{path}/{key}") for key in keys
        }
        schema["required"] = [key for key in keys if all(key in value for value in objects)]
        schema["additionalProperties"] = False
    return schema


def is_map(path: str) -> bool:
    """Whether an object's keys are data."""
    return any(re.fullmatch(pattern, path) for pattern in MAPS)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    return next(name for kind, name in kinds if isinstance(value, kind))


def unseen(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Places where no question shows a value: only null, or only empty lists."""
    if schema.get("type") == "null" or schema == {}:
        yield path
    for key, part in schema.get("properties", {}).items():
        yield from unseen(part, f"{path}/{key}")
    if "items" in schema:
        yield from unseen(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from unseen(schema["additionalProperties"], f"{path}/*")


def faults(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """What of a value its schema does not allow: a validator of the part of JSON Schema that is used here."""
    if "const" in schema and value != schema["const"]:
        yield f"{path}: {value!r} is not {schema['const']!r}"
    allowed = schema.get("type")
    kinds = [allowed] if isinstance(allowed, str) else allowed
    if kinds is not None and _kind(value) not in kinds and not (_kind(value) == "integer" and "number" in kinds):
        yield f"{path}: {_kind(value)}, not {' or '.join(kinds)}"
        return
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from faults(item, schema["items"], f"{path}[{number}]")
    if isinstance(value, dict):
        yield from _faults_of_object(value, schema, path)


def _faults_of_object(value: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for key in schema.get("required", ()):
        if key not in value:
            yield f"{path}: no `{key}`"
    for key, item in value.items():
        part = properties.get(key, others)
        if part is False:
            yield f"{path}: `{key}` is not in the schema"
        elif isinstance(part, dict):
            yield from faults(item, part, f"{path}/{key}")


_PUBLISHED: dict[str, dict[str, Any]] = {}


def check(document: dict[str, Any]) -> None:
    """Raise unless a document is valid by the schema that is published for it."""
    name = document["command"]
    if name not in _PUBLISHED:
        _PUBLISHED[name] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    found = list(faults(document, _PUBLISHED[name]))
    assert not found, f"{name}: not as its schema says; {_HOW}\n" + "\n".join(found[:20])


_HOW = "add a question that shows it to tests/document_schemas.py and run that file"


def written(schema: dict[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the schemas, and say what no question shows."""
    found = schemas()
    FOLDER.mkdir(exist_ok=True)
    for name, schema in found.items():
        (FOLDER / f"{name}.json").write_text(written(schema), encoding="utf-8")
        for path in unseen(schema):
            print(f"{name}: no question shows a value of {path}")


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    main()
