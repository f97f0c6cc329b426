"""Fully Bayesian optimization, batched: a run is a row.

Notation of every docstring and shape annotation, leading axes first:

    r  independent runs              n  observations (padded to the longest run)
    c  chains of a run               m  pending points
    k  = r * c, all chains           d  dimensions of the unit cube
    s  hyperparameter draws kept     p  unconstrained hyperparameters
    t  transitions of a chain        b  restarts of an ascent
    q  points per ask                f  random features

so that ``x[r,n,d]``, ``y[r,n]``, ``theta[r,s,p]`` and ``candidates[r,q,d]``.
Inside the engine everything is minimised; a trial's value keeps the user's sign.
"""

__version__ = "0.1.0"
