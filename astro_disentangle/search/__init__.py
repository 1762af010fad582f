# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Which galaxies of a catalogue are like a given one, whatever the surveys.

Physics latents of different surveys mean the same, so that a query and a catalogue
need not be of one survey. The distance is one minus the cosine of the angle between
two latents: 0 for the same one, about 1 for unrelated ones.

In the order in which data flow: ``catalog`` reads what
`~astro_disentangle.embed_catalog` wrote, ``exact`` compares a query with all of it,
``index`` with a part that FAISS chooses, and ``match`` makes a table of the answer.
"""

from astro_disentangle.search.catalog import LatentCatalog

__all__ = ["LatentCatalog"]
