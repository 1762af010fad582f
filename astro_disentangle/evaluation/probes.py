# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What can be read from latents: linear probes on folds grouped by galaxy."""

import numpy as np

__all__ = ["probe_r2", "probe_survey", "transfer_r2"]

_FOLDS = 5


def probe_r2(latents, values, groups=None):
    """
    Cross-validated R² of a property read linearly from latents.

    Parameters
    ----------
    latents : array_like
        Shape (N, P).
    values : array_like
        Shape (N,).
    groups : array_like, optional
        Shape (N,); rows of one group are never in different folds.

    Returns
    -------
    r2 : float
        Coefficient of determination of the out-of-fold predictions.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.probes import probe_r2
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> bool(probe_r2(x, x @ [1.0, 2.0, 3.0]) > 0.99)
    True
    """
    from sklearn.metrics import r2_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    latents, values = np.asarray(latents, float), np.asarray(values, float)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    predicted = cross_val_predict(
        _ridge(), latents, values, groups=groups, cv=GroupKFold(_FOLDS)
    )
    return float(r2_score(values, predicted))


def transfer_r2(latents, values, other_latents):
    """
    R² of a probe fitted in one survey and used in another, galaxies held out.

    Parameters
    ----------
    latents, other_latents : array_like
        Shape (N, P), latents of the same galaxies in two surveys.
    values : array_like
        Shape (N,).

    Returns
    -------
    r2 : float
        Coefficient of determination on the other survey.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.probes import transfer_r2
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> bool(transfer_r2(x, x @ [1.0, 2.0, 3.0], x) > 0.99)
    True
    """
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold

    latents, other = np.asarray(latents, float), np.asarray(other_latents, float)
    values = np.asarray(values, float)
    predicted = np.empty_like(values)
    for train, test in KFold(_FOLDS).split(latents):
        predicted[test] = (
            _ridge().fit(latents[train], values[train]).predict(other[test])
        )
    return float(r2_score(values, predicted))


def probe_survey(latents, other_latents):
    """
    Balanced accuracy with which latents tell the survey; 0.5 is chance.

    Parameters
    ----------
    latents, other_latents : array_like
        Shape (N, P), latents of the same galaxies in two surveys.

    Returns
    -------
    accuracy : float
        Of a logistic regression, both views of a galaxy in the same fold.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.probes import probe_survey
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> probe_survey(x, x + 10)
    1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = len(latents)
    stacked = np.concatenate([latents, other_latents])
    label = np.repeat([0, 1], rows)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    predicted = cross_val_predict(
        model, stacked, label, groups=np.tile(np.arange(rows), 2), cv=GroupKFold(_FOLDS)
    )
    return float(balanced_accuracy_score(label, predicted))


def _ridge():
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
