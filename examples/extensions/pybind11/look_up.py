"""An index is made once, and three interpreters look words up in it. python look_up.py, with words on PYTHONPATH."""

import isthmus as ist
import words

TEXT = """Shared memory for interpreters
memory that no interpreter owns
the last one to let go frees the memory"""


def look_up(index, word):
    return word, index.find(word)


if __name__ == "__main__":
    index = words.Words(TEXT)
    with ist.WorkerPool(3) as pool:
        for word, lines in pool.map(look_up, [index] * 3, ["memory", "the", "copy"]):
            print(word, lines)
    print(words.count_indices()[0], "index was made, of", len(index), "words")
