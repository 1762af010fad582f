# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Mosaics of one survey as another one would show them.

The model knows cut-outs about a galaxy. So the `sources` of a mosaic are found, a
tile is laid on each and on the sky between them (`tiles`), all tiles are painted with
the noise of one plane (`noise`) on the pixels of one image (`grid`), and come together
in it (`canvas`), each where the light of its own galaxy is; `translate` does it all in
this order.
"""

from astro_disentangle.mosaics.translate import translate_mosaic

__all__ = ["translate_mosaic"]
