"""Atomic operations on the elements of integer arrays, as ECMAScript's Atomics: see the type stub for the whole."""

from ._core import _atomics

__all__ = sorted(_atomics)

globals().update(_atomics)
