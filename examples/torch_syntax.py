"""Train a bidirectional layer in PyTorch to tell, for every character of Python source, what it belongs to.

The data is the standard library that Python comes with: its lines are the sequences, its own tokenizer gives
the labels (name, keyword, number, string, comment, operator, space). Two layers of any cell read each line
both ways; nothing else of the script is about gategen. Lines have different lengths: batches are packed.

    python examples/torch_syntax.py --cell mgu
    torchrun --nproc-per-node 2 examples/torch_syntax.py --cell mgu     the same on two processes

A checkpoint is written while it runs and is taken up by the next run with the same --out, so that a job that
was killed ends with the same weights as one that was not. Writes `curves.png` and `model.pt`.
"""

from __future__ import annotations

import gc
import io
import keyword
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import matplotlib
import torch
from rich.progress import Progress
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from gategen.torch import RNN

KINDS = ("space", "name", "keyword", "number", "string", "comment", "operator")
CHARACTERS = 128  # ASCII; every other character counts as the last one
LONGEST = 100  # characters of a line


@dataclass(frozen=True)
class Lines(Dataset):  # type: ignore[type-arg]
    """Lines of source as numbers of characters, and the kind of each character."""

    characters: list[torch.Tensor]
    kinds: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.characters)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.characters[k], self.kinds[k]


class Tagger(torch.nn.Module):
    """An embedding, layers of a cell in both directions, and a score for every kind."""

    def __init__(self, cell: str, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(CHARACTERS, 32)
        self.layers = RNN(cell, 32, hidden, num_layers=layers, dropout=0.1, bidirectional=True)
        self.scores = torch.nn.Linear(2 * hidden, len(KINDS))

    def forward(self, lines: Any) -> torch.Tensor:
        """The scores of every character of the packed lines."""
        y, _ = self.layers(lines._replace(data=self.embedding(lines.data)))
        scores: torch.Tensor = self.scores(y.data)
        return scores


# ---------------------------------------------------------------------------------------------- data


def lines_of(source: str) -> Iterator[tuple[str, list[int]]]:
    """The lines of a program and the kind of each of their characters."""
    lines = source.splitlines()
    kinds = [[0] * len(line) for line in lines]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = kind_of(token)
        for row in range(token.start[0], token.end[0] + 1) if kind else ():
            start = token.start[1] if row == token.start[0] else 0
            end = token.end[1] if row == token.end[0] else len(lines[row - 1])
            kinds[row - 1][start:end] = [kind] * (end - start)
    for line, of_line in zip(lines, kinds, strict=True):
        if line.strip():
            yield line[:LONGEST], of_line[:LONGEST]


def kind_of(token: tokenize.TokenInfo) -> int:
    if token.type == tokenize.NAME:
        return KINDS.index("keyword" if keyword.iskeyword(token.string) else "name")
    names = {tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.COMMENT: "comment"}
    return KINDS.index(names.get(token.type, "operator" if token.type == tokenize.OP else "space"))


def dataset(files: int) -> tuple[Lines, Lines]:
    """Lines for training, and of other files for validation."""
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:files]
    sets: tuple[list[Any], list[Any]] = ([], [])
    for k, path in enumerate(paths):
        for line, kinds in lines_of(path.read_text("utf-8")):
            characters = torch.tensor([min(ord(c), CHARACTERS - 1) for c in line])
            sets[k % 5 == 0].append((characters, torch.tensor(kinds)))
    return tuple(Lines(*map(list, zip(*rows, strict=True))) for rows in sets)  # type: ignore[return-value]


def batched(rows: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[Any, torch.Tensor]:
    """Packed characters, and the kinds in the same order."""
    characters, kinds = zip(*rows, strict=True)
    return pack_sequence(characters, enforce_sorted=False), pack_sequence(kinds, enforce_sorted=False).data


# ---------------------------------------------------------------------------------------------- training


@dataclass
class Job:
    """A training, and what a checkpoint holds of it: all that its rest depends on."""

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0
    step: int = 0  # within the epoch
    total: float = 0.0  # of the losses of its steps
    losses: tuple[float, ...] = ()  # of every epoch
    accuracies: tuple[float, ...] = ()

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        state = {name: getattr(self, name).state_dict() for name in STATEFUL}
        temporary = path.with_suffix(".tmp")
        torch.save(state | {name: getattr(self, name) for name in PROGRESS}, temporary)
        os.replace(temporary, path)

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        for name in PROGRESS:
            setattr(self, name, state[name])


STATEFUL = ("model", "optimiser", "scaler")
PROGRESS = ("epoch", "step", "total", "losses", "accuracies")


def train(
    job: Job, network: torch.nn.Module, loader: DataLoader[Any], device: torch.device, tick: Any
) -> None:
    """The rest of an epoch. `network` is the model, or the model as several processes share it."""
    rank, processes = place()
    autocast = torch.autocast("cuda", torch.float16) if device.type == "cuda" else nullcontext()
    network.train()
    for k, (lines, kinds) in enumerate(loader):
        if k < job.step:
            continue
        step = job.epoch * len(loader) + k
        torch.manual_seed(step * processes + rank)  # dropout is the same after a restart
        with autocast:
            scores = network(lines.to(device))
        loss = torch.nn.functional.cross_entropy(scores.float(), kinds.to(device))
        job.optimiser.zero_grad()
        job.scaler.scale(loss).backward()
        job.scaler.unscale_(job.optimiser)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        job.scaler.step(job.optimiser)
        job.scaler.update()
        job.step, job.total = k + 1, job.total + loss.item()
        tick()
    job.losses += (job.total / len(loader),)
    job.epoch, job.step, job.total = job.epoch + 1, 0, 0.0


@torch.no_grad()
def accuracy(model: torch.nn.Module, loader: DataLoader[Any], device: torch.device) -> float:
    """The share of characters whose kind is told."""
    model.eval()
    right = count = 0
    for lines, kinds in loader:
        right += int((model(lines.to(device)).argmax(-1).cpu() == kinds).sum())
        count += len(kinds)
    return right / count


def place() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def draw(job: Job, path: Path, cell: str) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3))
    epochs = range(1, len(job.losses) + 1)
    left.plot(epochs, job.losses, marker="o")
    left.set(xlabel="epoch", ylabel="loss while training", title=cell)
    right.plot(epochs, [100 * a for a in job.accuracies], marker="o")
    right.set(xlabel="epoch", ylabel="% right on other files")
    figure.tight_layout()
    figure.savefig(path)


@click.command(context_settings={"show_default": True})
@click.option("--cell", default="mgu", help="A built-in cell, or the path of a spec file.")
@click.option("--hidden", default=64)
@click.option("--layers", default=2)
@click.option("--epochs", default=3)
@click.option("--files", default=40, help="How many files of the standard library.")
@click.option("--batch", default=64, help="Lines a step and process.")
@click.option("--every", default=50, help="Steps from checkpoint to checkpoint.")
@click.option("--out", default="out/torch_syntax", type=click.Path(path_type=Path))
def main(
    cell: str, hidden: int, layers: int, epochs: int, files: int, batch: int, every: int, out: Path
) -> None:
    """Train, and say after every epoch how many characters of other files are told right."""
    cuda = torch.cuda.is_available()
    if "LOCAL_RANK" in os.environ:
        distributed.init_process_group("nccl" if cuda else "gloo")
    rank, processes = place()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    torch.manual_seed(0)
    model = Tagger(cell, hidden, layers).to(device)
    scaler = torch.amp.GradScaler(enabled=cuda)
    job = Job(model, torch.optim.Adam(model.parameters(), lr=3e-3), scaler)
    checkpoint = out / "model.pt"
    out.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        job.resume(checkpoint)
    network = DistributedDataParallel(model) if processes > 1 else model
    training, validation = dataset(files)
    sampler: DistributedSampler[Any] = DistributedSampler(training, processes, rank, drop_last=True)
    loader = DataLoader(training, batch, sampler=sampler, collate_fn=batched)
    others = DataLoader(validation, 256, collate_fn=batched)

    with Progress(disable=rank > 0) as progress:
        bar = progress.add_task("", total=epochs * len(loader), completed=job.epoch * len(loader) + job.step)

        def tick() -> None:
            progress.update(bar, advance=1, description=f"epoch {job.epoch + 1}")
            if rank == 0 and job.step % every == 0 and job.step < len(loader):
                job.save(checkpoint)

        while job.epoch < epochs:
            sampler.set_epoch(job.epoch)
            train(job, network, loader, device, tick)
            if rank == 0:
                job.accuracies += (accuracy(model, others, device),)
                job.save(checkpoint)
                progress.print(
                    f"epoch {job.epoch}: {100 * job.accuracies[-1]:.1f} % of {len(validation)} lines"
                )
    if rank == 0:
        draw(job, out / "curves.png", cell)
    if distributed.is_initialized():
        distributed.destroy_process_group()
        del network
        gc.collect()  # PyTorch 2.13 aborts now and then where DistributedDataParallel is still there at exit


if __name__ == "__main__":
    main()
