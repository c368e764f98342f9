"""What several test files are given."""

from functools import cache

import pytest


@pytest.fixture(scope="session")
def module_of(tmp_path_factory):
    """The NumPy module of a cell, generated once."""
    from points import CELLS  # here, since `mutation.py` replaces `written` after this file was imported

    from gategen.judge.verify import imported, written

    folder = tmp_path_factory.mktemp("modules")
    return cache(lambda name: imported(written(CELLS[name], "numpy", folder)))
