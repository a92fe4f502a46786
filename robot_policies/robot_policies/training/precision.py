"""Whether a machine computes in bfloat16 natively; emulated, it is many times slower than float32."""

from __future__ import annotations

from typing import Any

import torch


def has_native_bf16(device: torch.device) -> bool:
    """Whether `device` has bfloat16 instructions.

    A CPU that torch cannot describe (before torch 2.8) counts as one without.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    describe: Any = getattr(torch.cpu, "get_capabilities", dict)
    known = describe()
    return any(bool(known.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def use_bf16(precision: str, device: torch.device) -> bool:
    """Resolve ``auto``, ``bf16`` or ``fp32``."""
    return precision == "bf16" or (precision == "auto" and has_native_bf16(device))
