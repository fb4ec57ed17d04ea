"""Compares two JUnit reports of numpy's tests, with plain numpy and under the allocator, as lines for tools/results.sh."""

import collections
import sys
import xml.etree.ElementTree as ElementTree


def outcomes(path: str) -> dict[str, tuple[str, str]]:
    """Of each test: passed, failed or skipped, and why."""
    found = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        outcome = "passed", ""
        for kind, tag in (("skipped", "skipped"), ("failed", "failure"), ("failed", "error")):
            if (child := case.find(tag)) is not None:
                outcome = kind, " ".join(child.get("message", "").split())
        found[name] = outcome
    return found


def main(plain_path: str, allocator_path: str) -> None:
    try:
        plain = outcomes(plain_path)
        ours = outcomes(allocator_path)
    except (OSError, ElementTree.ParseError) as error:
        print(f"failed 1 numpy's tests: no report ({error})")
        return
    passed = 0
    failing = 0
    reasons: collections.Counter[str] = collections.Counter()
    for name, (before, _) in plain.items():
        now, why = ours.get(name, ("failed", "it is missing"))
        if before == "passed" and now == "failed":
            print(f"failed 1 {name} (passes with plain numpy): {why}"[:400])
        elif now == "passed":
            passed += 1
        elif before == "failed":
            failing += 1
        else:
            reasons["test_mem_policy: " + why if "test_mem_policy" in name else why if before == "passed" else "numpy's own reasons"] += 1
    print(f"passed {passed} numpy's tests under the allocator")
    if passed < 1000:
        print(f"failed 1 numpy's tests: only {passed} passed")
    if failing:
        print(f"skipped 1 numpy's tests: {failing} fail with plain numpy as well")
    for reason, count in reasons.items():
        print(f"skipped 1 numpy's tests: {count} skipped, {reason}")


main(*sys.argv[1:])
