# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What can be read from latents, on folds grouped by galaxy.

The two views of a galaxy never stand in different folds: a probe that has seen one of
them would know the other, and a leak would hide (a nearest neighbour of the other
survey would even look worse than chance).
"""

import warnings

import numpy as np

__all__ = [
    "predict_held_out",
    "probe_r2",
    "probe_survey",
    "r_squared",
    "survey_guesses",
]

_FOLDS = 5
#: Networks of the probes. Early stopping would hold out one view of a galaxy whose
#: other view, of the other survey, it has learned by heart: not for the survey.
_LAYERS = {"hidden_layer_sizes": (64, 64), "learning_rate_init": 3e-3}
_TO_READ = {**_LAYERS, "alpha": 1e-2, "early_stopping": True, "n_iter_no_change": 30}
_TO_TELL = {**_LAYERS, "alpha": 1.0, "max_iter": 100}


def predict_held_out(latents, values, groups=None, *, others=None, probe="ridge"):
    """
    A property of each galaxy as read by a probe that was fitted to other galaxies.

    Parameters
    ----------
    latents : array_like
        Shape (N, P).
    values : array_like
        Shape (N,).
    groups : array_like, optional
        Shape (N,); rows of one group are never in different folds.
    others : array_like, optional
        Shape (N, P): read the held-out rows from these, latents of the same galaxies
        in another survey, with the probe that was fitted to ``latents``.
    probe : {"ridge", "mlp", "trees"}
        Ridge regression, a network of two hidden layers, or boosted trees.

    Returns
    -------
    predicted : `~numpy.ndarray`
        Shape (N,).

    Raises
    ------
    ValueError
        If the probe is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.probes import predict_held_out
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> read = predict_held_out(x, x @ [1.0, 2.0, 3.0])
    >>> bool(np.abs(read - x @ [1.0, 2.0, 3.0]).max() < 0.1)
    True
    """
    from sklearn.base import clone

    latents, values = np.asarray(latents, float), np.asarray(values, float)
    others = latents if others is None else np.asarray(others, float)
    model = _regressor(probe)
    predicted = np.empty_like(values)
    for train, test in _folds(len(values), groups):
        # A column of one value, or of none, says nothing, and trees trip over it.
        low, high = np.fmin.reduce(latents[train]), np.fmax.reduce(latents[train])
        told = high > low
        fitted = _fit(clone(model), latents[train][:, told], values[train])
        predicted[test] = fitted.predict(others[test][:, told])
    return predicted


def probe_r2(latents, values, groups=None, *, others=None, probe="ridge"):
    """
    Coefficient of determination of `predict_held_out`.

    Parameters
    ----------
    latents, values, groups, others, probe
        As there.

    Returns
    -------
    r2 : float
        At most 1; 0 for the mean of all.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.probes import probe_r2
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> bool(probe_r2(x, x @ [1.0, 2.0, 3.0]) > 0.99)
    True
    """
    predicted = predict_held_out(latents, values, groups, others=others, probe=probe)
    return r_squared(values, predicted)


def r_squared(values, predicted):
    """
    Coefficient of determination.

    Parameters
    ----------
    values, predicted : array_like
        Shape (N,).

    Returns
    -------
    r2 : float
        One minus the squared error over the squared deviation from the mean.

    Examples
    --------
    >>> from astro_disentangle.evaluation.probes import r_squared
    >>> r_squared([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    1.0
    """
    values = np.asarray(values, float)
    error = np.square(values - predicted).sum()
    return float(1 - error / max(np.square(values - values.mean()).sum(), 1e-300))


def survey_guesses(latents, other_latents, *, probe="logistic"):
    """
    Which survey each latent is from, as guessed by a probe fitted to others.

    Parameters
    ----------
    latents, other_latents : array_like
        Shape (N, P), latents of the same galaxies in two surveys.
    probe : {"logistic", "neighbours", "mlp"}
        Logistic regression, 15 nearest neighbours, or a network of two hidden layers.

    Returns
    -------
    right : `~numpy.ndarray`
        Shape (2 N,), bool: those of the first survey, then those of the second.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.probes import survey_guesses
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> bool(survey_guesses(x, x + 10).all())
    True
    """
    from sklearn.base import clone

    rows = len(latents)
    stacked = np.concatenate([latents, other_latents]).astype(float)
    label = np.repeat([0, 1], rows)
    model = _classifier(probe)
    guessed = np.empty_like(label)
    for train, test in _folds(2 * rows, np.tile(np.arange(rows), 2)):
        fitted = _fit(clone(model), stacked[train], label[train])
        guessed[test] = fitted.predict(stacked[test])
    return guessed == label


def probe_survey(latents, other_latents, *, probe="logistic"):
    """
    Accuracy with which latents tell the survey; 0.5 is chance.

    Parameters
    ----------
    latents, other_latents, probe
        As in `survey_guesses`.

    Returns
    -------
    accuracy : float
        Share of right guesses; the two surveys have equally many.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.probes import probe_survey
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> probe_survey(x, x + 10)
    1.0
    """
    return float(survey_guesses(latents, other_latents, probe=probe).mean())


def _fit(model, rows, values):
    """Fit; that a network uses all of its iterations is meant, and no warning."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows, values)


def _folds(rows, groups):
    """Rows of training and test for each fold; groups in random order."""
    from sklearn.model_selection import GroupKFold

    groups = np.arange(rows) if groups is None else np.asarray(groups)
    names, index = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(names))
    folds = GroupKFold(min(_FOLDS, len(names)))
    return folds.split(np.empty(rows), groups=order[index])


def _regressor(probe):
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if probe == "ridge":
        return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
    if probe == "mlp":
        network = MLPRegressor(**_TO_READ, max_iter=400, random_state=0)
        return TransformedTargetRegressor(
            make_pipeline(StandardScaler(), network), transformer=StandardScaler()
        )
    if probe == "trees":
        return HistGradientBoostingRegressor(random_state=0)
    raise ValueError(f"'probe' must be 'ridge', 'mlp' or 'trees'; got {probe!r}.")


def _classifier(probe):
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kinds = {
        "logistic": LogisticRegression(max_iter=2000),
        "neighbours": KNeighborsClassifier(15),
        "mlp": MLPClassifier(**_TO_TELL, random_state=0),
    }
    if probe not in kinds:
        raise ValueError(f"'probe' must be one of {sorted(kinds)}; got {probe!r}.")
    return make_pipeline(StandardScaler(), kinds[probe])
