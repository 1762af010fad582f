# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Learning to follow the flow in a few steps.

A solver for any differential equation takes no advantage of what is known of this one.
Here angles and weights of a rule of n steps (`astro_disentangle.model.flow.follow`) are
learned for the finished network and each survey it paints, such that the rule ends
where 64 steps end that begin with the same noise: the mean square difference over good
pixels falls, by gradient descent through the n evaluations (arXiv:2403.01329 has
learned solvers of this kind). The network stays as it is, and so does what 64 steps
give; with so few numbers to learn there is nothing to forget, and no variance is lost
as it is where a network is taught the mean of many ends.
"""

import math

import torch

from astro_disentangle.keys import torch_generator
from astro_disentangle.model.flow import follow, integrate

__all__ = ["learn_rules"]

#: Steps of what is learned from.
_TEACHER = 64
_RATE, _BATCH = 1e-2, 24


def learn_rules(
    network,
    source,
    *,
    seed,
    targets=None,
    n_pairs=192,
    n_updates=150,
    progress=False,
):
    """
    Learn the rules of few steps of a network, in place.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        A finished network; one without an outline has no such rules and is left as it
        is. The rules that it has are where learning begins.
    source : callable
        Step number to `~astro_disentangle.training.source.Step`.
    seed : int
        Key of the noise.
    targets : sequence of str, optional
        Surveys whose rules are learned; all of them by default.
    n_pairs : int
        Pairs, at least, whose views are painted by many steps.
    n_updates : int
        Updates of each rule.
    progress : bool
        Show a progress bar.

    Returns
    -------
    gain : dict of str to float
        For each survey, the root mean square difference from the end of many steps,
        over that with the rule from which learning began, on pairs that were not
        learned from; the better rule of the two is kept.
    """
    from tqdm import tqdm

    gain = {}
    targets = network.surveys if targets is None else targets
    targets = [n for n in targets if network.decoder.rule(n) is not None]
    with tqdm(total=len(targets), disable=not progress, unit="rule") as bar:
        for target in targets:
            ends = _many_steps(network, source, target, seed, n_pairs)
            learned = _learned(network, target, ends, seed, n_updates)
            rules = [network.decoder.rule(target), learned]
            with torch.no_grad():
                before, after = (
                    float(_distance(network, rule, ends[0], slice(None)))
                    for rule in rules
                )
            gain[target] = math.sqrt(after / before) if before else 1.0
            if after < before:
                network.decoder.rule(target).copy_(learned)
            bar.update(1)
    return gain


@torch.no_grad()
def _many_steps(network, source, target, seed, n_pairs):
    """Prepared rows, noise, ends and good pixels of the steps, first those to judge."""
    found, number = [], 0
    while not found or (len(found) - 1) * len(found[0][1]) < n_pairs:
        step = source(number)
        found.append(_ends(network, step, target, torch_generator(seed, "few", number)))
        number += 1
    return found


def _ends(network, step, target, generator):
    """Where many steps end, for the pairs of a training step."""
    batch = step.batches[target]
    (other,) = (name for name in step.batches if name != target)
    view = network.view(step.batches[other])
    members = network.instrument.members(network.view(batch))
    own = torch.eye(len(members), dtype=torch.bool, device=members.device)
    mates = (step.group[:, None] == step.group[None, :]) & ~own
    mates |= ~mates.any(1, keepdim=True) & own
    pixels, good, offset = batch.stamp()
    prepared = network.prepare(
        network.physics(view),
        network.instrument.pool(members, mates),
        noise=batch.noise,
        source=other,
        observation=view.observation,
        target=target,
        offset=offset,
    )
    x_0 = torch.randn(pixels.shape, generator=generator).to(pixels)
    end = integrate(
        lambda y, t: network.decoder(y, t, prepared),
        x_0,
        prepared.outline.pace,
        n_steps=_TEACHER,
    )
    return prepared, x_0, end, good


def _distance(network, rule, ends, rows):
    """Mean square distance of the ends of a rule from those of many steps."""
    prepared, x_0, end, good = ends
    prepared = prepared[rows]
    y = follow(lambda y, t: network.decoder(y, t, prepared), x_0[rows], rule)
    good = good[rows]
    return ((y - end[rows]).square() * good).sum() / good.sum().clamp(min=1)


def _learned(network, target, ends, seed, n_updates):
    """A rule that was learned from all ends but the first."""
    start = network.decoder.rule(target).detach().clone()
    # Angles as shares of a quarter turn, which stay in their order.
    edges = torch.cat([start[:, 0], start.new_full((1,), math.pi / 2)])
    shares = edges.diff().log().requires_grad_()
    weights = start[:, 1:].clone().requires_grad_()
    optimizer = torch.optim.Adam([shares, weights], lr=_RATE)
    generator = torch_generator(seed, "rule", target)

    def rule():
        turns = math.pi / 2 * shares.softmax(0)
        return torch.cat([(turns.cumsum(0) - turns)[:, None], weights.tril()], 1)

    frozen = [p for p in network.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        for update in range(n_updates):
            for group in optimizer.param_groups:
                group["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * update / n_updates))
            chosen = ends[1 + update % (len(ends) - 1)] if len(ends) > 1 else ends[0]
            order = torch.randperm(len(chosen[1]), generator=generator)
            rows = order[:_BATCH].to(chosen[1].device)
            optimizer.zero_grad()
            _distance(network, rule(), chosen, rows).backward()
            optimizer.step()
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return rule().detach()
