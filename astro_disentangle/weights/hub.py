# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Weights at an address: a repository of the Hugging Face Hub, a URL, or a folder.

A repository, on the hub or as a folder, holds ``model.safetensors``, ``README.md``, its
card, and ``SHA256SUMS``, which ``sha256sum -c`` reads too and against which the weights
are checked before anything of them is believed.
"""

import hashlib
import json
import re
import tempfile
import urllib.error
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from astro_disentangle.quality import WeightsError

__all__ = [
    "forget",
    "is_address",
    "local_file",
    "repository_card",
    "upload",
    "write_repository",
]

#: Names of the files of a repository.
FILE, CARD, SUMS = "model.safetensors", "README.md", "SHA256SUMS"
_PACKAGE = "astro_disentangle"
_PACKAGED = Path(__file__).parent / "default.safetensors"
_HUB = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>.+))?"
)
#: Hosts that nobody can come between.
_OWN_HOSTS = ("localhost", "127.0.0.1", "::1")
#: Seconds in which a server must answer.
_PATIENCE = 30


def is_address(name):
    """
    Whether a name is an address, not one of a file.

    Parameters
    ----------
    name : str or `~pathlib.Path`
        What a user gave as weights.

    Returns
    -------
    address : bool
        True for ``hf://``, ``https://`` and ``http://``.

    Examples
    --------
    >>> from astro_disentangle.weights.hub import is_address
    >>> is_address("hf://someone/galaxies"), is_address("mine.safetensors")
    (True, False)
    """
    return str(name).startswith(("hf://", "https://", "http://"))


def local_file(name):
    """
    The file of weights behind a name, fetched if need be.

    Parameters
    ----------
    name : str or `~pathlib.Path`
        ``"default"`` for the packaged weights; ``hf://OWNER/NAME``, with ``@REVISION``
        and ``/FILE`` if they are not the usual ones; a URL, with ``#sha256=`` and the
        digest of the file if it is known, which ``http`` must have; a folder that holds
        a repository; or a file.

    Returns
    -------
    path : `~pathlib.Path`
        The file, checked against the digest that was told.

    Raises
    ------
    WeightsError
        If there is no such address, the server does not answer, or the digest is
        another one.
    ImportError
        If ``huggingface_hub`` is needed and not installed.

    Examples
    --------
    >>> from astro_disentangle.weights.hub import local_file
    >>> local_file("mine.safetensors").name
    'mine.safetensors'
    """
    if name == "default":
        return _PACKAGED
    if str(name).startswith("hf://"):
        return _from_hub(str(name))
    if is_address(name):
        return _from_url(str(name))
    path = Path(name)
    if path.is_dir():
        sums = path / SUMS
        return _checked(path / FILE, sums if sums.is_file() else None, path)
    return path


def forget(name):
    """
    Remove what was fetched from a URL, so that it is fetched again.

    Parameters
    ----------
    name : str or `~pathlib.Path`
        As for `local_file`; nothing is done for other names.

    Examples
    --------
    >>> from astro_disentangle.weights.hub import forget
    >>> forget("mine.safetensors")
    """
    from astropy.utils.data import clear_download_cache

    if is_address(name) and not str(name).startswith("hf://"):
        clear_download_cache(str(name).partition("#")[0], pkgname=_PACKAGE)


_CARD = """\
---
library_name: astro_disentangle
tags:
- astronomy
- galaxies
- representation-learning
- flow-matching
---

# {title}

Weights for [astro_disentangle](https://pypi.org/project/astro-disentangle): latents of
the physics of galaxies and of the instruments that saw them, and views of a galaxy as
the other survey would have had it.

```python
from astro_disentangle import Disentangler

model = Disentangler.load("hf://OWNER/NAME")
```

| | |
|---|---|
| surveys | {surveys} |
| recipe | {recipe} |
| numbers of the network | {size:,} |
| steps of training | {steps} |
| loss of the last steps | {loss} |
| properties that it predicts | {properties} |
| version of astro_disentangle | {version} |
| SHA-256 of `model.safetensors` | `{{sha256}}` |

What it was trained on, and how well it does, only those who trained it know: put here
the table of `astro-disentangle report`.
"""


def repository_card(config, tensors):
    """
    A card in Markdown, with the metadata that the hub reads.

    Parameters
    ----------
    config, tensors : dict
        As `~astro_disentangle.weights.pack.pack` gives them.

    Returns
    -------
    card : str
        With ``{sha256}`` where the digest of the file goes.

    Examples
    --------
    >>> from astro_disentangle.weights.hub import repository_card
    >>> config = {"surveys": [], "recipe": "default", "history": [], "heads": {}}
    >>> repository_card(config, {}).splitlines()[0]
    '---'
    """
    surveys = [json.loads(survey) for survey in config["surveys"]]
    named = [f"{s['name']} ({', '.join(s['bands'])})" for s in surveys]
    last = config["history"][-1] if config["history"] else {}
    heads = sorted(config["heads"]) or ["none"]
    network = [t for name, t in tensors.items() if name.startswith("network.")]
    return _CARD.format(
        title=" and ".join(s["name"] for s in surveys),
        surveys=" and ".join(named),
        recipe=config["recipe"],
        size=sum(tensor.numel() for tensor in network),
        steps=f"{last['step']:.0f}" if "step" in last else "unknown",
        loss=f"{last['loss']:.4g}" if "loss" in last else "unknown",
        properties=", ".join(heads),
        version=version(_PACKAGE),
    )


def write_repository(folder, save, card):
    """
    Write weights, card and digest as a repository has them.

    Parameters
    ----------
    folder : str or `~pathlib.Path`
        The folder; it is made.
    save : callable
        Writes the weights to a path.
    card : str
        The card, in Markdown, with ``{sha256}`` where the digest of the file goes.

    Raises
    ------
    WeightsError
        If it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / FILE)
        digest = _digest(folder / FILE)
        (folder / SUMS).write_text(f"{digest}  {FILE}\n", encoding="utf-8")
        text = card.replace("{sha256}", digest)
        (folder / CARD).write_text(text, encoding="utf-8")
    except OSError as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"cannot write '{folder}': {error.strerror or error}. Is it a folder, "
            "writable and not full?"
        ) from error


def upload(address, save, card):
    """
    Publish weights, card and digest on the Hugging Face Hub.

    Parameters
    ----------
    address : str
        ``hf://OWNER/NAME``; the repository is made if it is not there.
    save, card
        As for `write_repository`.

    Raises
    ------
    WeightsError
        If the address is another one, or the hub refuses.
    ImportError
        If ``huggingface_hub`` is not installed.
    """
    found = _parsed(address)
    if found["revision"] or found["file"]:
        raise WeightsError(
            f"weights are published at 'hf://OWNER/NAME'; got '{address}'. Leave "
            "revision and file out."
        )
    hub = _hub()
    with tempfile.TemporaryDirectory() as folder:
        write_repository(folder, save, card)
        try:
            api = hub.HfApi(library_name=_PACKAGE)
            api.create_repo(found["repository"], exist_ok=True)
            api.upload_folder(
                repo_id=found["repository"],
                folder_path=folder,
                commit_message="Weights, card and SHA-256",
            )
        except _refusals(hub) as error:
            raise _refused(address, error) from error


def _hub():
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "addresses 'hf://' need huggingface_hub; install it with "
            'pip install "astro_disentangle[hub]".'
        ) from error
    return huggingface_hub


def _refusals(hub):
    """What the hub raises for addresses, rights and connections."""
    # Those of its HTTP client are OSErrors or not, by its version.
    return (hub.errors.HfHubHTTPError, hub.errors.HTTPError, OSError, ValueError)


def _refused(address, error):
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return WeightsError(
        f"the hub refuses '{address}': {reason} Is the name right? A private "
        "repository needs the login of 'hf auth login'."
    )


def _parsed(address):
    found = _HUB.fullmatch(address)
    if found is None or ".." in (found["file"] or "").split("/"):
        raise WeightsError(
            f"an address on the hub must be 'hf://OWNER/NAME', with '@REVISION' and "
            f"'/FILE' if need be; got '{address}'."
        )
    return found


def _from_hub(address):
    found, hub = _parsed(address), _hub()
    file = found["file"] or FILE

    def fetch(name, revision):
        return Path(
            hub.hf_hub_download(
                found["repository"], name, revision=revision, library_name=_PACKAGE
            )
        )

    try:
        path = fetch(file, found["revision"])
        # Of the same commit, whatever is published in the meantime.
        folder = Path(file).parent
        try:
            commit = path.parents[len(Path(file).parts) - 1].name
            sums = fetch((folder / SUMS).as_posix(), commit)
        except hub.errors.EntryNotFoundError:
            sums = None
    except _refusals(hub) as error:
        raise _refused(address, error) from error
    return _checked(path, sums, address)


def _from_url(address):
    from astropy.utils.data import download_file

    url, _, fragment = address.partition("#")
    told = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and told is None:
        raise WeightsError(
            f"what follows '#' must be 'sha256=' and 64 hexadecimal digits; got "
            f"{fragment!r} in '{address}'."
        )
    parts = urlsplit(url)
    if parts.scheme == "http" and told is None and parts.hostname not in _OWN_HOSTS:
        raise WeightsError(
            f"weights over 'http' must have their digest, or anybody on the way could "
            f"change them; got '{address}'. Add '#sha256=...', or use 'https'."
        )
    try:
        path = download_file(
            url, cache=True, show_progress=False, timeout=_PATIENCE, pkgname=_PACKAGE
        )
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise WeightsError(
            f"cannot fetch '{url}': {reason}. Is the address right, and the server up?"
        ) from error
    if told is not None and (digest := _digest(path)) != told[1].lower():
        forget(url)
        raise WeightsError(
            f"'{url}' must have the SHA-256 {told[1].lower()}; got {digest}. It is "
            "another file, or was changed on the way."
        )
    return Path(path)


def _checked(path, sums, where):
    """The file, if it has the digest that its repository says."""
    if sums is None or not path.is_file():
        return path
    lines = (line.split() for line in sums.read_text(errors="replace").splitlines())
    told = {words[1].lstrip("*"): words[0] for words in lines if len(words) == 2}
    if path.name not in told:
        return path
    if (digest := _digest(path)) != told[path.name]:
        raise WeightsError(
            f"'{path.name}' of '{where}' must have the SHA-256 of its {SUMS}, "
            f"{told[path.name]}; got {digest}. Get it again."
        )
    return path


def _digest(path):
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
