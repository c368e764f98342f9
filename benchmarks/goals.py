"""What the CUDA modules should reach on a GPU, beside what a framework has at the same shapes.

`expected` are the milliseconds that the peer may take, forward and backward, on an H200: estimates from
measurements that others published on an A100 and an H100, to be replaced by what `gpu.py` measures. A goal is
a ratio: the peer's time over that of our module, in one run. `gpu.py` does not run FlashRNN.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 1024
EXPECTED_ON = "H200"


@dataclass(frozen=True)
class Goal:
    """`least` times as fast as a peer, forward and backward, at these shapes; I = H, T = 1024 or `steps`."""

    about: str
    peer: str  # a side of `gpu.py`; "bound": bytes at the measured bandwidth of copies
    least: float
    cells: tuple[str, ...]
    hidden: tuple[int, ...]
    batch: tuple[int, ...]
    dtypes: tuple[str, ...]
    steps: int = STEPS
    expected: tuple[float, float] | None = None

    def holds_at(self, cell: str, dtype: str, T: int, B: int, H: int) -> bool:
        """Whether it is a goal for this shape."""
        least_h, most_h, least_b, most_b = *bounds(self.hidden), *bounds(self.batch)
        within = least_h <= H <= most_h and least_b <= B <= most_b
        return within and cell in self.cells and dtype in self.dtypes and self.steps == T


def bounds(sizes: tuple[int, ...]) -> tuple[int, int]:
    return min(sizes), max(sizes)


# Where the estimates come from. cuDNN: on an A100 `nn.GRU` takes 1.1 us a step forward at H 128, and 10 to 16
# at H 256; on an H100 `nn.LSTM` in float16, and FlashRNN's kernels, what FlashRNN's repository shows.
BOTH, SIXTEEN = ("gru_after", "lstm"), ("bfloat16", "float16")
GOALS = (
    Goal(
        "persistent in cuDNN, small H", "torch.nn", 1.0, BOTH,
        (128,), (1, 16, 64, 128), ("float32", "tf32", *SIXTEEN), expected=(2, 3),
    ),
    Goal(
        "a launch a step in cuDNN", "torch.nn", 3.0, ("gru_after",),
        (256,), (16, 64), ("bfloat16", "tf32", "float32"), expected=(14, 22),
    ),
    Goal(
        "a launch a step in cuDNN", "torch.nn", 3.0, BOTH,
        (512,), (16, 64), ("bfloat16",), expected=(16, 24),
    ),
    Goal(
        "a launch a step in cuDNN, large H", "torch.nn", 2.5, BOTH,
        (768, 1024), (16, 32), ("bfloat16",), expected=(18, 28),
    ),
    Goal(
        "bound by products", "torch.nn", 0.9, BOTH,
        (1024,), (128,), ("bfloat16",), expected=(20, 30),
    ),
    Goal(
        "persistent in cuDNN, large H", "torch.nn", 0.7, ("lstm",),
        (768,), (16,), ("float16",), expected=(4.5, 5.2),
    ),
    Goal(
        "its fused kernels", "FlashRNN", 2.0, ("lstm",),
        (768,), (16,), ("bfloat16",), expected=(13.6, 13.6),
    ),
    Goal(
        "its alternating kernels", "FlashRNN", 4.0, ("gru_after",),
        (768,), (16,), ("bfloat16",), expected=(25, 25),
    ),
    Goal(
        "a loop in PyTorch", "eager loop", 20.0, ("gru_after", "mgu"),
        (256, 512, 1024), (16,), ("bfloat16", "float32"), steps=128,
    ),
    Goal(
        "elementwise or linear recurrence: share of the time of its bytes", "bound", 0.7,
        ("indrnn", "sru", "mingru"), (1024,), (16,), ("float32", "bfloat16"),
    ),
)  # fmt: skip
