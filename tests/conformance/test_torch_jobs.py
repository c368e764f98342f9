"""Jobs of several processes and of several lives: what `torchrun`, DDP and a checkpoint make of a layer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import MINUTES

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "torch_syntax.py"
SMALL = ("--files", "4", "--hidden", "16", "--epochs", "2", "--batch", "32", "--every", "5")
SHARED = """
import gc
import sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from gategen.torch import RNN

folder, rank, processes, dtype = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), getattr(torch, sys.argv[4])
torch.set_num_threads(1)
torch.manual_seed(0)
model = RNN("lstm", 5, 6, num_layers=2, bidirectional=True, dtype=dtype)
x, weights = torch.randn(7, 8, 5, dtype=dtype), torch.randn(7, 8, 12, dtype=dtype)
network = model
if processes > 1:
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=processes)
    network = DistributedDataParallel(model)
part = slice(rank * 8 // processes, (rank + 1) * 8 // processes)
(network(x[:, part])[0] * weights[:, part]).sum(0).mean().backward()
if rank == 0:
    torch.save({name: p.grad for name, p in model.named_parameters()}, f"{folder}/of_{processes}.pt")
if processes > 1:
    distributed.destroy_process_group()
    del network
    gc.collect()  # PyTorch 2.13 aborts now and then where it is still there at exit, whatever layer it is of
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(*command: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: "subprocess.Popen[str]") -> None:
    for process in processes:
        said, _ = process.communicate(timeout=MINUTES)
        assert process.returncode == 0, said


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(dtype, tolerance, tmp_path):
    finish(start("-c", SHARED, tmp_path, 0, 1, dtype))
    finish(*(start("-c", SHARED, tmp_path, rank, 2, dtype) for rank in (0, 1)))
    one, two = (torch.load(tmp_path / f"of_{count}.pt") for count in (1, 2))
    for name, gradient in one.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(two[name], gradient, rtol=tolerance, atol=tolerance)


def test_a_job_that_was_killed_ends_as_one_that_was_not(tmp_path):
    finish(start(EXAMPLE, *SMALL, "--out", tmp_path / "whole"))
    checkpoint = tmp_path / "killed" / "model.pt"
    process = start(EXAMPLE, *SMALL, "--out", checkpoint.parent)
    deadline = time.monotonic() + MINUTES
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    taken = torch.load(checkpoint)
    assert (taken["epoch"], taken["step"]) != (2, 0)
    finish(start(EXAMPLE, *SMALL, "--out", checkpoint.parent))
    whole, resumed = (torch.load(tmp_path / name / "model.pt") for name in ("whole", "killed"))
    for told in ("epoch", "step", "losses", "accuracies"):
        assert whole[told] == resumed[told]
    assert whole["epoch"] == 2
    assert whole["model"].keys() == resumed["model"].keys()
    for name, tensor in whole["model"].items():
        assert torch.equal(resumed["model"][name], tensor), name


def test_the_same_script_runs_on_two_processes(tmp_path):
    finish(start("-m", "torch.distributed.run", "--nproc-per-node", 2, EXAMPLE, *SMALL, "--out", tmp_path))
    assert torch.load(tmp_path / "model.pt")["epoch"] == 2 and (tmp_path / "curves.png").is_file()
