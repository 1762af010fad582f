# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""How good the separation is: probes, alignment, photometry, plots."""
