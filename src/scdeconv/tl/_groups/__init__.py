"""Comparison of samples by columns of ``obs``: groups, continuous variables and covariates."""
