"""Shared by all tests: one thread count, so that results do not depend on the machine's."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    torch.set_num_threads(2)
