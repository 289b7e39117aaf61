"""Named streams: a pure function of seed and names, independent of each other and of the global generator."""

import torch

from kdzoo.seeds import generator, global_stream, stream


def test_a_stream_is_a_pure_function_of_seed_and_names():
    assert stream(0, "view", 3) == stream(0, "view", 3)
    assert len({stream(0, "view", 3), stream(0, "view", 4), stream(1, "view", 3), stream(0, "order", 3), stream(0, "view3")}) == 5


def test_generators_of_one_stream_draw_the_same():
    assert torch.equal(torch.rand(5, generator=generator(7, "a")), torch.rand(5, generator=generator(7, "a")))
    assert not torch.equal(torch.rand(5, generator=generator(7, "a")), torch.rand(5, generator=generator(7, "b")))


def test_a_global_stream_leaves_the_global_generator_as_it_was():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with global_stream(5, "layers", 1):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with global_stream(5, "layers", 1):
        assert torch.equal(torch.rand(3), inside)
