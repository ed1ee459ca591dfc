"""The fastest right attention kernel is chosen; FlashAttention 4 is active only while it is asked for."""

from __future__ import annotations

import time

import pytest
import torch
from torch.nn import attention as sdpa

from ropewalk.model import attention


@pytest.fixture
def flash_4(monkeypatch):
    """As if flash-attn-4 were installed, on a machine where torch takes any of its kernels."""
    began = []

    class Handle:
        def remove(self):
            began.append("removed")

    def begin(*_):
        began.append("begun")
        return Handle()

    if not hasattr(sdpa, "activate_flash_attention_impl"):
        pytest.skip("this torch knows one flash kernel")
    monkeypatch.setitem(sdpa._registry._FLASH_ATTENTION_IMPLS, "FA4", begin)
    monkeypatch.setattr(attention, "available", lambda: [*attention.KERNELS, attention.FLASH_4])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return began


def test_flash_attention_4_is_active_inside_alone_whatever_happens(flash_4):
    with pytest.raises(ValueError), attention.kernel(attention.FLASH_4):
        assert sdpa.current_flash_attention_impl() == "FA4"
        raise ValueError
    assert sdpa.current_flash_attention_impl() is None and flash_4 == ["begun", "removed"]


@pytest.mark.parametrize("fault", [None, ImportError("no cutlass"), "wrong"])
def test_it_is_taken_where_it_is_fastest_and_right_and_left_out_where_it_fails(flash_4, fault):
    def run():
        four = sdpa.current_flash_attention_impl() == "FA4"
        if four and isinstance(fault, Exception):
            raise fault
        time.sleep(0.001 if four else 0.01)
        return torch.ones(4) * (2 if four and fault == "wrong" else 1)

    name, seconds = attention.fastest(run)
    assert (name == attention.FLASH_4) == (fault is None)
    assert (attention.FLASH_4 in seconds) == (fault is None) and {"torch", "flash"} <= set(seconds)
    assert sdpa.current_flash_attention_impl() is None


@pytest.mark.parametrize(("of_flash", "of_four", "right"), [(0.4, 0.5, True), (0.01, 0.5, False)])
def test_where_every_kernel_differs_much_so_may_another(flash_4, of_flash, of_four, right):
    """Past a model's window two right kernels differ by more than 5 %; a wrong one differs alone."""

    def run():
        if sdpa.current_flash_attention_impl() == "FA4":
            return torch.ones(4) * (1 + of_four)
        time.sleep(0.005)
        flash_alone = torch.backends.cuda.flash_sdp_enabled() and not torch.backends.cuda.cudnn_sdp_enabled()
        return torch.ones(4) * (1 + of_flash * flash_alone)

    name, seconds = attention.fastest(run)
    assert (name == attention.FLASH_4) == right and (attention.FLASH_4 in seconds) == right


def test_without_the_package_it_is_not_tried():
    assert attention.available() == list(attention.KERNELS)


def test_a_fault_of_ours_is_not_taken_for_a_refusal(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def run():
        raise TypeError("ours")

    with pytest.raises(TypeError):
        attention.fastest(run)
