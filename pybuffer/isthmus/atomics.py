"""Atomic operations on the elements of integer arrays, as ECMAScript's Atomics: see the type stub for the whole."""

from ._core import _atomics

__all__ = [
    "add",
    "and_",
    "compare_exchange",
    "exchange",
    "is_lock_free",
    "load",
    "notify",
    "or_",
    "pause",
    "store",
    "sub",
    "wait",
    "xor",
]

load = _atomics["load"]
store = _atomics["store"]
add = _atomics["add"]
sub = _atomics["sub"]
and_ = _atomics["and_"]
or_ = _atomics["or_"]
xor = _atomics["xor"]
exchange = _atomics["exchange"]
compare_exchange = _atomics["compare_exchange"]
is_lock_free = _atomics["is_lock_free"]
pause = _atomics["pause"]
wait = _atomics["wait"]
notify = _atomics["notify"]
