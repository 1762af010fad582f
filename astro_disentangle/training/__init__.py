# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Objective and training loop; torch, numpy and safetensors alone."""
