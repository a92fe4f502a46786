"""Choosing bfloat16 only where the processor computes in it."""

from __future__ import annotations

import pytest
import torch

from robot_policies.training.precision import has_native_bf16, use_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"avx2": True, "avx512_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_auto_asks_the_processor(monkeypatch, capabilities, native) -> None:
    """Emulated bfloat16 is many times slower than float32, so ``auto`` wants instructions for it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_native_bf16(CPU) == native
    assert use_bf16("auto", CPU) == native


def test_a_torch_that_knows_nothing_of_the_processor_means_float32(monkeypatch) -> None:
    """Older versions cannot describe it."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not use_bf16("auto", CPU)


def test_what_is_asked_for_is_done() -> None:
    """A person may insist on either."""
    assert use_bf16("bf16", CPU)
    assert not use_bf16("fp32", CPU)
