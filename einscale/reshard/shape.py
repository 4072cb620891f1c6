"""What one device holds of a tensor: in proportion where everything divides, else by the shape of its padded shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from msgspec import Struct

from einscale.dtypes import BITS, SCALES, bits_of, bytes_of
from einscale.layout import Chosen, Tensor, chosen_share


class Shape(Struct, frozen=True):
    """A tensor without names: what its shards are measured by.

    Args:
        lengths: of its dims.
        dtype: element type.
        chosen: (count, size) of every index of which only some elements exist.
    """

    lengths: tuple[int, ...]
    dtype: str
    chosen: tuple[tuple[int | float, int], ...] = ()

    def local(self, counts: Sequence[int]) -> int:
        """Bytes of one shard, padding included, as `local_bytes` has them.

        >>> Shape((10, 3), "bf16").local((4, 1))
        18
        """
        elements = 1
        for length, count in zip(self.lengths, counts, strict=True):
            elements *= -(-length // count)
        return int(bytes_of(self._existing(elements), self.dtype))

    @property
    def least(self) -> int:
        """Bytes of the whole tensor without any rounding up: no layout of it takes fewer, all shards together."""
        return bits_of(self._existing(prod(self.lengths), up=False), self.dtype) // 8

    def _existing(self, elements: int, *, up: bool = True) -> int:
        if not self.chosen:
            return elements
        if up:
            names = [(f"i{k}", count) for k, (count, _) in enumerate(self.chosen)]
            sizes = {f"i{k}": size for k, (_, size) in enumerate(self.chosen)}
            return int(chosen_share(elements, tuple(names), sizes))
        for count, size in self.chosen:
            numerator, denominator = count.as_integer_ratio()
            elements = elements * numerator // (size * denominator)
        return elements

    def divides(self, room: Sequence[int], devices: int) -> bool:
        """Whether every shard is just its share of the tensor, whatever shard counts the rooms allow.

        >>> Shape((16, 3), "bf16").divides((8, 1), 8), Shape((10, 3), "bf16").divides((4, 1), 4)
        (True, False)
        """
        if self.chosen or any(length % most for length, most in zip(self.lengths, room, strict=True)):
            return False
        every = prod(self.lengths)
        smallest = every // devices if every % devices == 0 else every // prod(room)
        block, scale = SCALES.get(self.dtype, (1, 0))
        whole = smallest % block == 0 and smallest // block * scale % 8 == 0
        return whole and smallest * BITS[self.dtype] % 8 == 0


def shape_of(tensor: Tensor, sizes: Mapping[str, int]) -> Shape:
    """The shape of a tensor at given sizes."""
    chosen: Chosen = tensor.chosen
    return Shape(
        tuple(sizes[index] for index in tensor.indices),
        tensor.dtype,
        tuple((count, sizes[index]) for index, count in chosen),
    )
