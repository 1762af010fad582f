# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Numbers that are kept must serve training after they served inference."""

import torch

from astro_disentangle.data.constants import constant


def test_made_in_inference_and_used_in_training():
    with torch.inference_mode():
        kept = constant((3.0, 1.25e-3), torch.device("cpu"))
    weight = torch.ones(2, requires_grad=True)
    (weight * kept).sum().backward()
    assert torch.equal(weight.grad, torch.tensor([3.0, 1.25e-3]))
    assert constant((3.0, 1.25e-3), torch.device("cpu")) is kept
