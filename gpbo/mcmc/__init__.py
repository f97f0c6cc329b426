"""Batched NUTS, HMC and annealing for any log-density ``u[k,p] -> (value[k], gradient[k,p])``."""
