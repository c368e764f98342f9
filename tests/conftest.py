"""What several test files are given."""

import os
from functools import cache

import pytest

os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} -O1"  # C modules compile in a third of the time


@pytest.fixture(scope="session")
def module_of(tmp_path_factory):
    """The NumPy module of a cell, generated once."""
    from points import CELLS  # here, since `mutation.py` replaces `written` after this file was imported

    from gategen.judge.verify import imported, written

    folder = tmp_path_factory.mktemp("modules")
    return cache(lambda name: imported(written(CELLS[name], "numpy", folder)))
