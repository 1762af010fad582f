# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Latents of a whole survey.

A catalogue in HATS format goes in and one of latents comes out, partition by
partition, on the user's own Dask client. In the order in which data flow: ``source``
reads the needed columns of a partition in batches, ``rows`` makes cut-outs of them,
``partition`` makes latents of those on a worker, ``output`` keeps finished partitions
and their metadata, ``schedule`` hands the partitions out, and ``catalog`` is what users
call.
"""

from astro_disentangle.embedding.catalog import Embedding, embed_catalog

__all__ = ["Embedding", "embed_catalog"]
