# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Encoders, decoder and flow, in pure torch."""
