# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Write the model card of the packaged weights from their scores.

``python -m astro_disentangle.weights.card SCORES`` takes the ``scores.json`` of
``astro-disentangle report`` and writes ``default.rst`` and ``default.json`` beside the
weights.
"""

import argparse
import json
import shutil
from pathlib import Path

from astro_disentangle.checkpoint import read_checkpoint

__all__ = ["card", "main"]

_FOLDER = Path(__file__).parent
#: Galaxies of the stages whose history is not in the weights file, and those of a step
#: of the last one, each of which was shown three times.
_EARLIER, _PAIRS, _USES = 1798 * 1024 // 2 + 2100 * 64, 2048, 3
#: Terms of the loss that are shown.
_TERMS = ("loss", "flow", "outline", "photometry", "contrast")

_HEAD = """\
Model card of the packaged weights
==================================

What it is
----------

A small model ({parameters:.1f} million parameters) for Hyper Suprime-Cam (grizy,
0.168") and the DECam part of the DESI Legacy Imaging Surveys (griz, 0.262"). It is
the ninth edition, trained for {minutes:.0f} minutes on a GPU, after nine on the same
and 1.3 hours on one CPU core: a starting point, and good enough to try everything. Its
SHA-256 is ``{digest}``.

Data
----

Simulated pairs only, {galaxies:,} galaxies, most of them shown two or three times, then
turned. Redshift, magnitude, mass and spectral type follow a mixture fitted to zCOSMOS,
sizes and shapes COSMOS fits; bulge, disc, arms and bars, neighbours, stars, Galactic
extinction, seeing, depth and correlated noise as ``astro_disentangle.simulation``
describes. Magnitudes are 17 to 22.5 in i, one galaxy in ten up to 1.5 mag fainter. No
real image was used.

Training
--------

From nothing but seeds, in three stages, each of which goes on from the mean weights of
the one before with other galaxies: 1,798 steps of 1,024 pairs on one NVIDIA H200, 2,100
of 64 on one core of a server CPU, and {steps:,} of 2,048 on the GPU again, ``ONE`` and
``TWO`` being what the stages before left in ``training.safetensors``::

    python -m astro_disentangle.weights.build --output FIRST --steps 1798 \\
        --batch 1024 --rate 2.8e-3 --device cuda --workers 14 --uses 2
    python -m astro_disentangle.weights.build --output SECOND --steps 2100 \\
        --start ONE --threads 1
    python -m astro_disentangle.weights.build --output THIRD --steps {steps} \\
        --batch 2048 --rate 2.5e-3 --device cuda --workers 14 --uses 3 --start TWO

(``TWO`` was rounded to float16.) Recipe ``{recipe}``, AdamW with a rate that falls as a
cosine, bfloat16 products, running mean of the weights. Last stage: the loss and some of
its terms, means of twenty steps (contrast is among 4,096 views):

{losses}

Residual latents are trained after that, all else frozen: 642 steps of 512 pairs on the
GPU, each seen by one of the surveys twice. Views with ``residual=False`` are what they
were::

    python -m astro_disentangle.weights.build_residual --output FOURTH --steps 642 \\
        --batch 512 --rate 2e-3 --device cuda --workers 14 --uses 2 \\
        --start THIRD/default.safetensors

The rules of four steps that views follow are learned afterwards, for the finished
network, to end where 64 steps do.

Property heads: means and standard deviations by a small network on the finished
latents, fitted to 8,192 further simulated galaxies in both surveys.

Scores
------

On {pairs:,} simulated pairs from other seeds (``astro-disentangle report
--simulated {pairs} --seed 1 --views 128``), each with the 68% interval of a
bootstrap over galaxies. Beside them the same network before training; what
astronomers do without a network: boosted trees on aperture photometry by photutils
(retention), PSF matching with the true widths (translation; its fluxes are not
corrected for the different filters); and the aim. Probes are cross-validated, both
views of a galaxy in one fold; recall is among all galaxies of the test; views are
posterior means with donors under the target's conditions. Rows of the group
``control`` must be bad. For latents, ``n`` counts galaxies or sets of them.

"""

_TAIL = """
Limits
------

- Small. Redshift is read better than by boosted trees on
  aperture photometry, but the same encoder trained on redshift itself reaches an R² of
  0.86 (HSC) and 0.70 (Legacy), ``benchmarks/supervised.py``. The latent holds less than
  the image does.
- Seeing is read from pixels in part, half of its variance in HSC, hardly any in the
  worst of its bands, and three quarters in Legacy: give the PSF.
- Fluxes are right on average to 5%, those of a single galaxy scatter by the given
  share. From HSC to Legacy, PSF matching is closer to the truth for a single galaxy: do
  not take photometry of one galaxy from here where it would do. Images with a bright
  star beside the galaxy are painted badly, and are most of the plain RMS.
- Samples lack a tenth of the power at middle frequencies: the correlation of the noise
  of pixels some pixels apart is not wholly painted. Fluxes within 2" from HSC to Legacy
  are a tenth too little alike.
- In search across surveys a galaxy is known in part by its surroundings: recall falls
  where the two views have other neighbours.
- Brighter than i = 17, larger than about 2" half-light radius, or with a large
  neighbour, a galaxy is outside of what it has seen: painted fluxes saturate, and no
  flag but ``LARGE`` says so. ``POINT_SOURCE`` needs a known PSF.
- Arms, clumps and bars are those of a simple family; mergers and artefacts are not
  described.
- The redshifts and masses behind the probes are those of the simulation.
- Seeing beyond a factor 2 and depth beyond 1.5 mag of the usual are refused. Within
  0.7 mag of the usual depth, noise painted for simulated galaxies is within 10% of what
  is asked. In corners of packaged real galaxies with neighbours, painted in HSC, the
  scatter is up to 1.78 times the noise, faint light of the neighbours included.
"""


def card(scores, digest, config, parameters, pairs):
    """
    Text of the model card.

    Parameters
    ----------
    scores : list of dict
        Rows of the scoreboard.
    digest : str
        SHA-256 of the weights.
    config : dict
        Configuration of the weights file.
    parameters : int
        Number of parameters.
    pairs : int
        Simulated pairs behind the scores.

    Returns
    -------
    text : str
        reStructuredText.
    """
    history = config["history"]
    steps = int(history[-1]["step"])
    chosen = [history[len(history) * part // 8 - 1] for part in (1, 2, 4, 6, 8)]
    minutes = sum(row["seconds"] for row in history) / 60
    text = _HEAD.format(
        parameters=parameters / 1e6,
        digest=digest,
        galaxies=_EARLIER + -(-steps // _USES) * _PAIRS,
        recipe=config["recipe"],
        steps=steps,
        minutes=minutes,
        losses=_table(
            ("step", *_TERMS),
            [(int(r["step"]), *(f"{r[n]:.3f}" for n in _TERMS)) for r in chosen],
        ),
        pairs=pairs,
    )
    rows = [
        (
            r["group"],
            r["measure"],
            r["where"],
            f"{_short(r['value'])} ({_short(r['low'])} to {_short(r['high'])})",
            str(r["n"]),
            _short(r["untrained"]),
            _short(r["classical"]),
            r["aim"],
        )
        for r in scores
    ]
    names = "group", "measure", "where", "value", "n", "untrained", "classical", "aim"
    return text + _table(names, rows) + "\n" + _TAIL


def _table(names, rows):
    """A list-table of reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (names, *rows):
        cells = [f"     - {cell}".rstrip() for cell in row]
        cells[0] = f"   * - {row[0]}"
        lines += cells
    return "\n".join(lines) + "\n"


def _short(value):
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1e}"


def main(arguments=None):
    """
    Command line of the script.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", type=Path)
    parser.add_argument("--pairs", type=int, default=1024)
    options = parser.parse_args(arguments)
    tensors, config, digest = read_checkpoint(_FOLDER / "default.safetensors")
    scores = json.loads(options.scores.read_text())
    parameters = sum(
        tensor.numel() for name, tensor in tensors.items() if name.startswith("network")
    )
    text = card(scores, digest, config, parameters, options.pairs)
    (_FOLDER / "default.rst").write_text(text)
    shutil.copy(options.scores, _FOLDER / "default.json")


if __name__ == "__main__":
    main()
