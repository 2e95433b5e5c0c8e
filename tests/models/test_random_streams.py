"""Seeds of steps: kept weights of the past were made with just these."""

from __future__ import annotations


def test_seeds_by_hand() -> None:
    from models.random_streams import stream_seed

    assert stream_seed(3, 5) == 3_000_000_026
    assert stream_seed(2**62, 0) == 2**62  # modulo 2**63
    assert len({stream_seed(seed, step) for seed in range(50) for step in range(50)}) == 2_500


def test_a_stream_is_seeded_inside_and_leaves_no_trace() -> None:
    import torch

    from models.random_streams import random_stream, stream_seed

    torch.manual_seed(stream_seed(4, 9))
    wanted = torch.rand(3)
    torch.manual_seed(1)
    outside = torch.rand(2)
    torch.manual_seed(1)
    with random_stream(4, 9, torch.device("cpu")):
        assert torch.equal(torch.rand(3), wanted)
    assert torch.equal(torch.rand(2), outside)
