"""What the pages show of PyTorch and ONNX runs as printed; `tests/test_docs.py` may leave it out."""

import importlib

from test_docs import PAGES, blocks, copy, follow  # noqa: F401

NEEDING = {page: found for page in PAGES if (found := [b for b in blocks(page) if b.needs])}


def test_some_pages_need_other_packages():
    assert {"layers", "onnx"} <= {*NEEDING}


def test_what_needs_other_packages_can_be_followed(copy):  # noqa: F811
    for page in NEEDING:
        for block in NEEDING[page]:
            importlib.import_module(block.needs)
            follow(block, copy)
