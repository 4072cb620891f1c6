"""Run a plan on an emulated mesh: the proof that its steps compute the einsum and move the bytes they claim."""

from __future__ import annotations

from einscale.emulate.verify import Verification, verify_plan

__all__ = ["Verification", "verify_plan"]
