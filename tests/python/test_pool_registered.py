"""Types that their module says how to clone (isthmus.register_type), in a pool: whoever receives one imports that module."""

import pytest
import scripts

pytestmark = pytest.mark.matrix

MONEY = """
    import isthmus as ist

    class Money:
        def __init__(self, amount):
            self.amount = amount

        def __reduce__(self):
            raise TypeError("not by pickle")

        class Part:
            __reduce__ = None

    def double(money):
        return Money(money.amount * 2)

    ist.register_type(Money, lambda money: money.amount, Money)
    ist.register_type(Money.Part, lambda part: None, lambda nothing: Money.Part())
"""
IN_A_MODULE = """
    import operator
    import sys
    import isthmus as ist
    import tasks

    if __name__ == "__main__":
        import money

        queue = ist.Queue()
        queue.put(money.Money(3))
        with ist.WorkerPool(1, kind=sys.argv[1]) as pool:
            assert "money" not in pool.submit(tasks.loaded).result()
            assert pool.submit(tasks.amount_in, queue).result() == 3
        with ist.WorkerPool(1, kind=sys.argv[1]) as pool:
            assert pool.submit(tasks.name_of, money.Money.Part()).result() == "Money.Part"
            assert pool.submit(operator.attrgetter("amount"), money.Money(5)).result() == 5
            assert pool.submit(money.double, money.Money(5)).result().amount == 10
"""
TASKS = """
    import sys

    def loaded():
        return list(sys.modules)

    def amount_in(queue):
        return queue.get().amount

    def name_of(part):
        return type(part).__qualname__

    def make(amount):
        import money
        return money.Money(amount)
"""
ONLY_THE_WORKER_KNOWS = """
    import sys
    import isthmus as ist
    import tasks

    if __name__ == "__main__":
        with ist.WorkerPool(1, kind=sys.argv[1]) as pool:
            assert "money" not in sys.modules
            made = pool.submit(tasks.make, 5).result()
        assert made.amount == 5 and type(made) is sys.modules["money"].Money
"""
IN_THE_SCRIPT = """
    import sys

    def amount(money):
        return money.amount

    if __name__ == "__main__":
        with ist.WorkerPool(1, kind=sys.argv[1]) as pool:
            assert pool.submit(amount, Money(5)).result() == 5
            back = pool.submit(double, Money(5)).result()
            assert type(back) is Money and back.amount == 10
"""
LOCAL = """
    import operator
    import sys
    import isthmus as ist

    def make():
        class Local:
            amount = 5
        ist.register_type(Local, lambda local: None, lambda nothing: Local())
        return Local()

    if __name__ == "__main__":
        with ist.WorkerPool(1, kind=sys.argv[1]) as pool:
            print(type(pool.submit(operator.attrgetter("amount"), make()).exception()).__name__)
            print(pool.submit(operator.attrgetter("amount"), make()).exception())
"""


@pytest.fixture(params=["interpreter", "process"])
def run(request, tmp_path):
    scripts.write(tmp_path, MONEY, "money.py")
    scripts.write(tmp_path, TASKS, "tasks.py")
    return lambda source: scripts.run(scripts.write(tmp_path, source), request.param)


def test_the_worker_imports_the_module_of_the_type(run):
    assert run(IN_A_MODULE).ok() == ""


def test_so_does_the_parent(run):
    assert run(ONLY_THE_WORKER_KNOWS).ok() == ""


def test_a_type_of_the_script(run):
    source = scripts.textwrap.dedent(MONEY) + scripts.textwrap.dedent(IN_THE_SCRIPT)
    assert run(source).ok() == ""


def test_a_type_that_nobody_finds(run):
    kind, text = run(LOCAL).ok().split("\n", 1)
    assert kind == "CloneError" and "nobody has told this interpreter how to make a __main__:make.<locals>.Local" in text
