# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The only reader and writer of weights.

A file is a safetensors file whose metadata hold the format, a JSON
configuration and the SHA-256 of the whole file, computed with 64 zeros in the
digest's own place: every bit of the file is covered. Files are written under a
temporary name, flushed to disk and renamed, so that an interrupted write leaves
the previous file as it was. Nothing is ever unpickled.
"""

import contextlib
import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path

from astro_disentangle.quality import WeightsError

__all__ = ["read_checkpoint", "write_checkpoint"]

_FORMAT = "astro_disentangle 1"
_BLANK = "0" * 64
_MAXIMUM_SIZE = 2**31
_MAXIMUM_HEADER = 2**24


def write_checkpoint(path, tensors, config):
    """
    Write tensors and a configuration, atomically.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Destination; its folder must exist.
    tensors : dict of str to `torch.Tensor`
        What to keep.
    config : dict
        JSON-serialisable configuration.

    Returns
    -------
    sha256 : str
        Digest that the file carries.

    Raises
    ------
    WeightsError
        If the file cannot be written; an earlier file is then intact.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from astro_disentangle.checkpoint import read_checkpoint, write_checkpoint
    >>> path = Path(tempfile.mkdtemp()) / "tiny.safetensors"
    >>> digest = write_checkpoint(path, {"a": torch.ones(2)}, {"b": 1})
    >>> tensors, config, same = read_checkpoint(path)
    >>> tensors["a"].tolist(), config, same == digest
    ([1.0, 1.0], {'b': 1}, True)
    """
    from safetensors.torch import save

    path = Path(path)
    metadata = {
        "format": _FORMAT,
        "sha256": _BLANK,
        "config": json.dumps(config, sort_keys=True),
    }
    contiguous = {
        name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()
    }
    content = save(contiguous, metadata)
    digest = hashlib.sha256(content).hexdigest()
    content = content.replace(_BLANK.encode(), digest.encode(), 1)
    try:
        _write_atomically(path, content)
    except OSError as error:
        raise WeightsError(
            f"cannot write '{path}': {error.strerror or error}. Is the folder there, "
            "writable and not full?"
        ) from error
    return digest


def read_checkpoint(path):
    """
    Read what `write_checkpoint` wrote, after checking all of it.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file.

    Returns
    -------
    tensors : dict of str to `torch.Tensor`
        The tensors, on the CPU.
    config : dict
        The configuration.
    sha256 : str
        The digest.

    Raises
    ------
    WeightsError
        If the file is missing, too large, damaged, of another format, or holds
        numbers that are not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    try:
        if not path.is_file():
            raise WeightsError(f"there is no weights file '{path}'.")
        if path.stat().st_size > _MAXIMUM_SIZE:
            raise WeightsError(f"'{path}' is larger than {_MAXIMUM_SIZE} bytes.")
        content = path.read_bytes()
    except OSError as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"cannot read '{path}': {error.strerror or error}."
        ) from error
    metadata = _metadata(path, content)
    digest = metadata["sha256"]
    start = content.find(digest.encode())
    blanked = content[:start] + _BLANK.encode() + content[start + 64 :]
    if hashlib.sha256(blanked).hexdigest() != digest:
        raise WeightsError(
            f"'{path}' is damaged: its content does not match its SHA-256 "
            f"{digest[:12]}... Get the file again."
        )
    try:
        tensors = load(content)
        config = json.loads(metadata["config"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"'{path}' is damaged: {error}.") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"tensor {name!r} of '{path}' is not finite.")
    return tensors, config, digest


def _metadata(path, content):
    """Metadata of the header, checked before anything else is believed."""
    damaged = f"'{path}' is not a weights file of this package"
    if len(content) < 8:
        raise WeightsError(f"{damaged}: it has {len(content)} bytes.")
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(_MAXIMUM_HEADER, len(content) - 8):
        raise WeightsError(f"{damaged}: its header claims {length} bytes.")
    try:
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        found, digest = metadata["format"], metadata["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{damaged}: its header cannot be read.") from error
    if found != _FORMAT:
        raise WeightsError(
            f"'{path}' has format {found!r}, this version reads {_FORMAT!r}."
        )
    if not isinstance(digest, str) or len(digest) != 64 or not digest.isalnum():
        raise WeightsError(f"{damaged}: its SHA-256 cannot be read.")
    return metadata


def _write_atomically(path, content):
    """Write under a temporary name, flush, rename, flush the folder."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
