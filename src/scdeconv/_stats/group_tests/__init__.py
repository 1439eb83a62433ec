"""Tests of differences between groups of samples."""
