"""Four worker interpreters, each with a GIL of its own, fill one array that they share. Nothing is copied."""

import isthmus as ist


def fill_row(table, row):
    for column in range(table.shape[1]):
        table[row, column] = row * column  # any Python code: it runs in parallel


if __name__ == "__main__":
    table = ist.zeros((8, 1000), dtype="i8")
    with ist.WorkerPool(max_workers=4) as pool:
        list(pool.map(fill_row, [table] * 8, range(8)))
    print(f"sum {table.sum()}, array bytes copied: {ist.stats()['bytes_copied']}")
