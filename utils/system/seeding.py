"""Random choices follow from a key such as (seed, epoch, refresh, index), never from the order of execution."""

import random
import zlib

import numpy as np
import torch


def seed_sequence(seed: int, *key: int | str) -> np.random.SeedSequence:
    """Entropy of one named choice: the same key gives the same stream on every machine."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in key]
    return np.random.SeedSequence([int(seed), *words])


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """NumPy generator of one named choice."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, *key)))


def stream_key(seed: int, *key: int | str) -> int:
    """64 random bits of one named choice."""
    return int(seed_sequence(seed, *key).generate_state(1, np.uint64)[0])


def seed_torch(seed: int, *key: int | str) -> None:
    """Set torch's and Python's global generators, which dropout and initialisation draw from."""
    state = stream_key(seed, *key) >> 1
    torch.manual_seed(state)
    random.seed(state)
