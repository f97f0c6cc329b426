"""Batched NUTS for any log-density ``u[k,p] -> (value[k], gradient[k,p])``; knows no GPs."""
