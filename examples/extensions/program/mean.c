/* mean.c: a program in C that reads what Python programs publish, without a copy and without Python:
 *
 *     a = isthmus.zeros(1000)           # float64
 *     a.publish("temperatures")         # then: mean temperatures
 *
 * For each name it prints how many numbers there are and their mean. A "+" before a name adds 1 to each number after that.
 */
#include <isthmus/isthmus.h>
#include <stdio.h>
#include <string.h>

static int report(const char *name, bool add) {
    ist_segment s;
    unsigned char description[1600]; /* dtype and shape, which Python alone reads: this program takes all arrays for float64 */
    size_t room = sizeof description;
    const int error = ist_name_attach(name, strlen(name), &s, description, &room); /* one reference: the array stays while we have it */
    if (error != 0) {
        fprintf(stderr, "mean: %s: %s\n", name, ist_strerror(error));
        return 1;
    }
    const size_t count = ist_segment_size(s) / sizeof(double);
    double *numbers = ist_segment_data(s), sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += numbers[i];
    printf("%s: %zu numbers, mean %g\n", name, count, count > 0 ? sum / (double)count : 0);
    if (add && ist_segment_is_readonly(s)) {
        fprintf(stderr, "mean: %s is read-only\n", name);
        ist_segment_release(s);
        return 1;
    }
    for (size_t i = 0; add && i < count; i++)
        numbers[i] += 1;
    ist_segment_release(s);
    return 0;
}

int main(int argc, char **argv) {
    int status = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: mean [+]NAME...\n");
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        const bool add = argv[i][0] == '+';
        status |= report(argv[i] + add, add);
    }
    return status;
}
