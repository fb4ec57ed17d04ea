"""Columns of decimal numbers go to interpreters as they are: no number is copied. python add_up.py, with decimals on PYTHONPATH."""

import decimals
import isthmus as ist


def add_up(column):
    return sum(column[i] for i in range(len(column)))


def double(column):
    for i in range(len(column)):
        column[i] *= 2


if __name__ == "__main__":
    prices = decimals.Column([1995, 499, 12050], 2)  # 19.95, 4.99, 120.50
    with ist.WorkerPool(3) as pool:
        print(list(pool.map(add_up, [prices, decimals.Column(range(1000), 0)])))
        pool.submit(double, prices).result()
    print([prices[i] / 10**prices.scale for i in range(len(prices))])
