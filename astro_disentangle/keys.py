# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Randomness as a function of what it is for.

Every random number of the package comes from a generator that is made on the
spot from a key: (seed, purpose, identifiers). The same key gives the same
numbers in every process, in any order of calls, whatever else is in the batch;
the global states of NumPy, torch and `random` are never read or written.
"""

import hashlib
import operator

__all__ = ["key", "numpy_generator", "seed_of", "torch_generator"]


def key(seed, purpose, *identifiers):
    """
    A 63-bit integer that depends on every argument.

    Parameters
    ----------
    seed : int
        The user's seed.
    purpose : str
        What the numbers are for.
    *identifiers : int or str
        Object, step, sample and the like.

    Returns
    -------
    key : int
        Between 0 and 2**63 - 1.

    Examples
    --------
    >>> from astro_disentangle.keys import key
    >>> key(0, "noise", 1) == key(0, "noise", 1)
    True
    >>> key(0, "noise", 1) == key(0, "noise", 2)
    False
    """
    text = "\x1f".join(str(part) for part in (int(seed), purpose, *identifiers))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_of(random_state):
    """
    The integer seed behind a ``random_state`` argument.

    Parameters
    ----------
    random_state : int, `numpy.random.Generator` or None
        A generator gives its next integer; `None` is seed 0, so that a result
        can be had again.

    Returns
    -------
    seed : int
        The seed.

    Raises
    ------
    TypeError
        For anything else.

    Examples
    --------
    >>> from astro_disentangle.keys import seed_of
    >>> seed_of(3), seed_of(None)
    (3, 0)
    """
    if random_state is None:
        return 0
    if hasattr(random_state, "integers"):
        return int(random_state.integers(2**62))
    try:
        return operator.index(random_state)
    except TypeError:
        raise TypeError(
            "'random_state' must be an integer, a numpy.random.Generator or None; "
            f"got {type(random_state).__name__}."
        ) from None


def numpy_generator(seed, purpose, *identifiers):
    """
    A NumPy generator for a key; the arguments are those of `key`.

    Returns
    -------
    generator : `numpy.random.Generator`
        A new generator.

    Examples
    --------
    >>> from astro_disentangle.keys import numpy_generator
    >>> a = numpy_generator(0, "demo").normal()
    >>> a == numpy_generator(0, "demo").normal()
    True
    """
    import numpy as np

    return np.random.default_rng(key(seed, purpose, *identifiers))


def torch_generator(seed, purpose, *identifiers, device="cpu"):
    """
    A torch generator for a key; the arguments are those of `key`.

    Returns
    -------
    generator : `torch.Generator`
        A new generator on ``device``.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.keys import torch_generator
    >>> a = torch.randn(2, generator=torch_generator(0, "demo"))
    >>> bool((a == torch.randn(2, generator=torch_generator(0, "demo"))).all())
    True
    """
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(key(seed, purpose, *identifiers))
    return generator
