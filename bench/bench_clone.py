"""P9: structured clone against pickle's dumps + loads, and marshal's: data as JSON has it, and arrays.

What is cloned comes from json.loads, so that objects are as separate as they are in real documents.
"""

import array
import json
import marshal
import pickle
import random

import isthmus as ist
import paired

RECORDS = 200
NUMBERS = 1000


def record(i: int) -> dict:
    return {
        "id": i,
        "guid": f"{random.getrandbits(128):032x}",
        "active": i % 2 == 0,
        "balance": random.random() * 1000,
        "age": random.randint(20, 60),
        "name": f"name {i}",
        "tags": [random.choice(["lorem", "ipsum", "dolor", "amet"]) + str(i % 7) for _ in range(5)],
        "friends": [{"id": j, "name": f"friend {j}"} for j in range(3)],
        "at": [random.random(), random.random()],
        "parent": None,
        "text": "Größe, in Zeichen" if i % 5 == 0 else "plain text of some length, as there is most of",
    }


def documents() -> dict[str, object]:
    random.seed(9)
    made = {
        "200 records": [record(i) for i in range(RECORDS)],
        "a record": record(1),
        "a small message": {"op": "add", "id": 17, "args": [1, 2, 3]},
        "nested objects": {"a": {"b": {"c": [{"d": {"e": i}} for i in range(200)]}}},
        "an object of 1,000 keys": {f"key{i}": i for i in range(NUMBERS)},
        "1,000 integers": [random.randrange(10**6) for _ in range(NUMBERS)],
        "1,000 floats": [random.random() for _ in range(NUMBERS)],
        "1,000 strings": [f"string {i}" for i in range(NUMBERS)],
    }
    return {name: json.loads(json.dumps(value)) for name, value in made.items()}


def compare(options, name: str, value: object, against: str, module: object, arguments: str, group: str, slices: int) -> None:
    names = {"clone": ist.clone, "dumps": module.dumps, "loads": module.loads, "value": value}
    measured = paired.statement("clone(value)", **names)
    baseline = paired.statement(f"loads(dumps(value{arguments}))", **names)
    paired.compare("P9", name, measured, baseline, against, slices=slices, seconds=500e-6, group=group)


def json_like(options) -> None:
    for name, value in documents().items():
        assert ist.clone(value) == value
        slices = 10 if options.quick else 40
        compare(options, name, value, "pickle", pickle, ", 5", "documents" if "record" in name else "values", slices)
        compare(options, name, value, "marshal", marshal, "", "marshal", slices)


def arrays(options) -> None:
    import numpy

    made = {
        "1 MiB ndarray": numpy.random.default_rng(1).random(1 << 17),
        "1 MiB bytes": random.randbytes(1 << 20),
        "1 MiB array.array": array.array("d", range(1 << 17)),
        "64 MiB ndarray": numpy.ones(1 << 23),
    }
    for name, value in made.items():
        slices = 5 if options.quick else 20
        compare(options, name, value, "pickle", pickle, ", 5", "arrays", slices if "64" not in name else slices // 4 + 2)


def main() -> None:
    options = paired.arguments(__doc__)
    json_like(options)
    arrays(options)


if __name__ == "__main__":
    main()
