"""The example without Python: it gives Python's answers, sample by sample, compiled for three processors."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import MINUTES

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "embedded"
README = (EXAMPLE / "README.md").read_text("utf-8")
KIB = 1024


def needs(*tools):
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def run(*command, given=""):
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=MINUTES, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def train():
    """The script that makes the weights."""
    spec = importlib.util.spec_from_file_location("train", EXAMPLE / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("digits", None)


@pytest.fixture(scope="module")
def data(train):
    return train.digits().digits()


@pytest.fixture(scope="module")
def samples(train, data):
    """All digits as text, those for testing first, and Python's answers."""
    found = train.loaded()
    parts = data.test_x, data.x
    text = "".join(map(train.images, parts))
    return text, [str(digit) for part in parts for digit in train.answers(*found, part)]


@pytest.fixture
def make(tmp_path):
    """`make` in a copy of what is committed."""
    folder = tmp_path / "embedded"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("build", "__pycache__"))

    def make(*words):
        printed = run("make", "-s", "-C", str(folder), *words)
        return printed, folder / "build"

    return make


def test_the_files_are_what_is_written_today(train, data):
    written = train.files(*train.loaded())
    assert {*written} == {"gru_c.c", "gru_c.h", "gru_weights.h", "readout.h"}
    for name, text in written.items():
        same = (EXAMPLE / name).read_text("utf-8") == text
        assert same, f"`python examples/embedded/train.py --keep` writes today's {name}"
    images = train.images(data.test_x[:, : train.SHOWN])
    assert (EXAMPLE / "images.txt").read_text("utf-8") == images


def test_the_accuracy_is_what_the_page_says(train, data):
    right = (train.answers(*train.loaded(), data.test_x) == data.test_label).mean()
    assert f"{100 * right:.1f} % of the {len(data.test_label)} test digits are right" in README


def test_the_weights_are_as_many_as_the_page_says(train):
    net, V, c = train.loaded()
    count = sum(array.size for array in (*net.state_dict().values(), V, c))
    assert f"the {count} weights take {4 * count / KIB:.1f} KiB" in README


@needs("make", "cc")
def test_the_program_answers_as_python_does(make, samples):
    text, answers = samples
    printed, build = make("all")
    assert printed == ""
    assert run(build / "digits", given=text).split() == answers
    shown, _ = make("run")
    assert shown.split() == answers[:100]


@needs("make", "cc")
def test_half_an_image_is_an_error(make, samples):
    _, build = make("all")
    half = samples[0].splitlines()[0][:60]
    done = subprocess.run([build / "digits"], input=half, capture_output=True, text=True, timeout=MINUTES)
    assert (done.returncode, done.stdout) == (1, "")
    assert run(build / "digits") == ""


@pytest.mark.slow
@needs("make", "aarch64-linux-gnu-gcc", "qemu-aarch64")
def test_aarch64_answers_as_python_does(make, samples):
    text, answers = samples
    _, build = make("aarch64")
    assert run("qemu-aarch64", build / "digits-aarch64", given=text).split() == answers


@pytest.mark.slow
@needs("make", "arm-none-eabi-gcc")
def test_a_cortex_m4_needs_as_much_memory_as_the_page_says(make):
    printed, _ = make("cortex-m4")
    print(printed)
    text, data, bss = map(int, printed.splitlines()[1].split()[:3])
    flash, ram = re.search(r"at most (\d+) KiB of flash.*at most (\d+) KiB of RAM", README, re.S).groups()
    assert 11 * KIB < text + data <= int(flash) * KIB
    assert data + bss <= int(ram) * KIB


@pytest.mark.slow
@needs("make", "arm-none-eabi-gcc", "qemu-system-arm")
def test_a_cortex_m4_answers_as_python_does(make, samples):
    text, answers = samples
    _, build = make("cortex-m4")
    board = ["qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-serial", "none", "-monitor", "none"]
    board += ["-semihosting-config", "enable=on,target=native"]
    assert run(*board, "-kernel", build / "digits-cortex-m4.elf", given=text).split() == answers
