"""einscale: derive, explain, prove and price the collectives of a sharded Transformer."""
