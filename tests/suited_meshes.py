"""A small mesh that suits each named strategy: two devices or more along every axis it divides over."""

MESHES = {
    "dp": "data=8",
    "zero1": "data=8",
    "zero2": "data=8",
    "fsdp": "data=8",
    "hsdp": "pod=2,data=4",
    "megatron": "data=2,model=4",
    "megatron-sp": "data=2,model=4",
    "megatron-sp+etp": "data=2,model=4",
    "fsdp+tp": "data=2,model=4",
    "2d": "x=2,y=4",
    "weight-gathered": "data=2,model=4",
    "context": "data=2,context=4",
    "ring": "data=2,context=4",
    "ulysses": "data=2,context=4",
    "ulysses+ring": "data=2,context=2,ulysses=2",
    "megatron-sp+context": "data=2,context=2,model=2",
    "batch-attention": "data=2,model=4",
    "2d-batch-attention": "x=2,y=4",
    "split-kv": "data=2,model=2,context=2",
    "dp-attention": "data=2,model=4",
}
