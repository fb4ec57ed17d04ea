/* plain_fuzz_clone.c: fuzz_clone.c's target on the messages in corpus/clone, and on random changes of them, for a while: what libFuzzer
 * does, where there is none. An input that fails is told as hexadecimal bytes.
 */
#include "harness.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { FILES = 64, ROOM = 4096 };
static struct {
    uint8_t bytes[ROOM];
    size_t size;
} corpus[FILES];
static size_t files;
static const uint8_t *current;
static size_t current_size;

static void tell(int number) {
    (void)number;
    static const char digits[] = "0123456789abcdef";
    char line[2 * ROOM + 1];
    for (size_t i = 0; i < current_size; i++) {
        line[2 * i] = digits[current[i] >> 4];
        line[2 * i + 1] = digits[current[i] & 15];
    }
    line[2 * current_size] = '\n';
    if (write(STDERR_FILENO, line, 2 * current_size + 1) < 0)
        _exit(3);
    signal(SIGABRT, SIG_DFL);
    raise(SIGABRT);
}

/* A copy of exactly its size, so that AddressSanitizer sees the first byte behind it. */
static void try
    (const uint8_t *bytes, size_t size) {
        uint8_t *copy = malloc(size > 0 ? size : 1);
        CHECK(copy != NULL);
        memcpy(copy, bytes, size);
        current = copy;
        current_size = size;
        LLVMFuzzerTestOneInput(copy, size);
        free(copy);
    }

static void read_corpus(const char *folder) {
    DIR *dir = opendir(folder);
    CHECK(dir != NULL, "no folder %s", folder);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL && files < FILES;) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (file == NULL)
            continue;
        corpus[files].size = fread(corpus[files].bytes, 1, ROOM, file);
        fclose(file);
        files++;
    }
    closedir(dir);
    CHECK(files >= 10, "%zu files in %s", files, folder);
}

static size_t change(uint8_t *bytes, size_t size, uint64_t *random) {
    const size_t other = test_random(random) % files, at = size > 8 ? 8 + test_random(random) % (size - 8) : size;
    size_t n = test_random(random) % 16, from = test_random(random) % corpus[other].size;
    switch (test_random(random) % 5) {
    case 0: /* another byte */
        if (at < size)
            bytes[at] = (uint8_t)test_random(random);
        return size;
    case 1: /* a bit */
        if (at < size)
            bytes[at] ^= (uint8_t)(1u << test_random(random) % 8);
        return size;
    case 2: /* some fewer */
        n = n > size - at ? size - at : n;
        memmove(bytes + at, bytes + at + n, size - at - n);
        return size - n;
    case 3: /* some of another one */
        n = n > corpus[other].size - from ? corpus[other].size - from : n;
        n = n > ROOM - size ? ROOM - size : n;
        memmove(bytes + at + n, bytes + at, size - at);
        memcpy(bytes + at, corpus[other].bytes + from, n);
        return size + n;
    default: /* the rest of another one */
        n = corpus[other].size - from;
        n = n > ROOM - at ? ROOM - at : n;
        memcpy(bytes + at, corpus[other].bytes + from, n);
        return at + n;
    }
}

int main(void) {
    signal(SIGABRT, tell);
    read_corpus(CLONE_CORPUS);
    uint64_t random = test_seed(), end = test_storm_end(2), tries = 0;
    for (size_t i = 0; i < files; i++) {
        ist_clone_summary summary;
        CHECK_EQ(ist_clone_check(corpus[i].bytes, corpus[i].size, &summary), 0); /* all of them are good ones */
        for (size_t n = 0; n <= corpus[i].size; n++)
            try
                (corpus[i].bytes, n);
    }
    static uint8_t bytes[ROOM];
    while (test_now() < end || tries < 20000) {
        const size_t one = test_random(&random) % files;
        size_t size = corpus[one].size;
        memcpy(bytes, corpus[one].bytes, size);
        for (uint64_t n = 1 + test_random(&random) % 6; n > 0; n--)
            size = change(bytes, size, &random);
        try
            (bytes, size);
        tries++;
    }
    printf("%zu messages, %llu changed ones\n", files, (unsigned long long)tries);
    return 0;
}
