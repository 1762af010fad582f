# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Simulated cut-outs of the same sky in several surveys, without end.

`simulate` draws galaxies (`population`) with their neighbours and stars (`scene`),
the conditions of each survey in groups (`instruments`), renders them in Fourier
space with torch (`render`) and adds `noise`; `sky` puts it all together. What was
fitted or tabulated beforehand is in ``tables.safetensors``, which `build_tables`
wrote.
"""

from astro_disentangle.simulation.sky import Simulation, simulate

__all__ = ["Simulation", "simulate"]
