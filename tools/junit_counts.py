"""Turns a JUnit report of pytest into lines for tools/results.sh: "passed 12 LABEL"."""

import sys
import xml.etree.ElementTree as ElementTree


def main(label: str, status: str, path: str) -> None:
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        print(f"failed 1 {label} (pytest died, exit {status})")
        return
    passed = failed = 0
    for case in cases:
        name = f"{label} {case.get('classname', '')}::{case.get('name', '')}"
        wrong = next((child for child in case if child.tag in ("failure", "error")), None)
        if wrong is not None:
            failed += 1
            print("failed 1", name + ":", " ".join(wrong.get("message", "").split())[:300])
        elif (skip := case.find("skipped")) is not None:
            print("skipped 1", name + ":", " ".join(skip.get("message", "").split()))
        else:
            passed += 1
    print("passed", passed, label)
    if status != "0" and not failed:
        print(f"failed 1 {label} (pytest exit {status})")
    elif not passed and not failed:
        print(f"failed 1 {label} (ran no test)")


main(*sys.argv[1:])
