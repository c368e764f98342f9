"""Train a GRU on handwritten digits, and write all that `make` needs here.

The net goes into `net.npz`, the linear layer over it into `readout.npz`, and both into headers of C, beside
the functions of the cell. With --keep the weights that are here are only written anew.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import click
import numpy as np
from threadpoolctl import threadpool_limits

from gategen.build import generate
from gategen.layers import RNN
from gategen.spec.load import load_one
from gategen.weights_header import header, lines

HERE = Path(__file__).resolve().parent
HIDDEN, EPOCHS, SHOWN = 24, 30, 100  # as many test digits are in images.txt


def digits() -> ModuleType:
    """The example that trains all cells."""
    spec = importlib.util.spec_from_file_location("digits", HERE.parent / "digits.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def loaded() -> tuple[RNN, np.ndarray, np.ndarray]:
    """The net that is here, and the linear layer."""
    (gru,) = digits().modules(["gru"])
    net = RNN(gru, 8, HIDDEN)
    net.load(HERE / "net.npz")
    with np.load(HERE / "readout.npz") as readout:
        return net.eval(), readout["V"], readout["c"]


def answers(net: RNN, V: np.ndarray, c: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What the net takes images (8, B, 8) for."""
    y, _ = net(x, tape=False)
    return (y[-1] @ V.T + c).argmax(axis=1)


def images(x: np.ndarray) -> str:
    """Images (8, B, 8) as text, one a line."""
    pixels = np.rint(16 * x.transpose(1, 0, 2)).astype(int).reshape(-1, 64)
    return "".join(" ".join(map(str, image)) + "\n" for image in pixels)


def files(net: RNN, V: np.ndarray, c: np.ndarray) -> dict[str, str]:
    """The C of the cell and of the weights, by file name."""
    gru = load_one("gru")
    made = {name: text for name, text in generate(gru, "c").items() if not name.endswith(".py")}
    readout = ["// The linear layer over the last state. Written by train.py.", ""]
    readout += ["#ifndef READOUT_H", "#define READOUT_H", "", f"enum {{ DIGITS = {len(c)} }};"]
    for name, array, shape in (("V", V, "(DIGITS, H)"), ("c", c, "(DIGITS,)")):
        readout += ["", f"static const float readout_{name}[{array.size}] = {{  // {shape}"]
        readout += [*(f"    {line}" for line in lines(array)), "};"]
    return {**made, "gru_weights.h": header(net, gru), "readout.h": "\n".join([*readout, "", "#endif", ""])}


@click.command()
@click.option("--keep", is_flag=True, help="Do not train: take the weights that are here.")
def main(keep: bool) -> None:
    """Train, and write the files beside this one."""
    example = digits()
    data = example.digits()
    if not keep:
        (gru,) = example.modules(["gru"])
        model = example.Classifier(gru, HIDDEN, seed=0)
        with threadpool_limits(1):
            example.fit(model, data, EPOCHS, seed=0)
        net = RNN(gru, 8, HIDDEN)
        net.load_state_dict({f"{name}_l0": array for name, array in gru.unpack(model.params).items()})
        net.save(HERE / "net.npz")
        np.savez(HERE / "readout.npz", V=model.V, c=model.c)
    net, V, c = loaded()
    for name, text in files(net, V, c).items():
        (HERE / name).write_text(text, "utf-8")
    (HERE / "images.txt").write_text(images(data.test_x[:, :SHOWN]), "utf-8")
    right = (answers(net, V, c, data.test_x) == data.test_label).mean()
    click.echo(f"{100 * right:.1f} % of {len(data.test_label)} test digits are right")


if __name__ == "__main__":
    main()
