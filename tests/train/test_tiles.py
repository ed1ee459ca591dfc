"""The feed-forward part in tiles gives what it gives whole."""

from __future__ import annotations

import copy

import torch
from tiny_llama import write_tiny_model

from ropewalk.model.load import load_model
from ropewalk.train.tiles import tile_layers, tiled


def test_tiles_change_neither_the_states_nor_the_gradients_nor_a_name(tmp_path):
    """Each token's feed-forward part is its own: the sequence can be cut anywhere."""
    whole = load_model(write_tiny_model(tmp_path / "tiny", attention_dropout=0.0)).train()
    tiled = copy.deepcopy(whole)
    assert tile_layers(tiled, 24) == 2 * 3 + 1
    ids = torch.randint(0, 250, (2, 64), generator=torch.Generator().manual_seed(0))
    found = []
    for model in (whole, tiled):
        hidden = model.get_decoder()(input_ids=ids, use_cache=False)[0]
        hidden.square().sum().backward()
        found.append(hidden)
    assert torch.allclose(*found, rtol=0, atol=1e-6)
    assert [name for name, _ in tiled.named_parameters()] == [name for name, _ in whole.named_parameters()]
    for one, other in zip(whole.parameters(), tiled.parameters()):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_what_has_no_sequence_to_cut_or_more_than_one_input_goes_through_whole():
    """States of (tokens, width) would be cut across their width."""
    calls = []

    def forward(hidden, gate=None):
        calls.append(tuple(hidden.shape))
        return hidden * (1 if gate is None else gate)

    call, gate = tiled(forward, 4), torch.full((1, 8, 2), 3.0)
    assert torch.equal(call(torch.ones(2, 8)), torch.ones(2, 8)) and calls == [(2, 8)]
    assert torch.equal(call(torch.ones(1, 8, 2), gate), gate) and calls[1:] == [(1, 8, 2)]
    assert torch.equal(call(torch.ones(1, 8, 2)), torch.ones(1, 8, 2)) and calls[2:] == 2 * [(1, 4, 2)]


def test_only_one_tile_is_kept_for_the_backward_pass(tmp_path):
    """What autograd keeps of a feed-forward part in tiles is its input alone, not 8·I numbers a token."""
    model = load_model(write_tiny_model(tmp_path / "tiny")).train()
    kept = []
    for tokens in (64, 16):
        tile_layers(model, tokens)
        sizes = {}
        hidden = torch.randn(1, 64, 16, requires_grad=True)

        def note(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model.get_decoder().layers[0].mlp(hidden)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept.append(sum(size for pointer, size in sizes.items() if pointer not in weights))
    assert kept[1] == 64 * 16 * 4 < kept[0] / 5
