/* kernels.c: the inner loops of the reductions, written so that the compiler makes vectors of them: partial results in lanes that are
 * independent of each other, no branch inside.
 *
 * Compiled more than once, for different instruction sets; KERNELS names the table. Elements may be unaligned.
 */
#include "kernels.h"

#define UNALIGNED __attribute__((aligned(1), may_alias))
typedef int8_t UNALIGNED i1;
typedef uint8_t UNALIGNED u1;
typedef int16_t UNALIGNED i2;
typedef uint16_t UNALIGNED u2;
typedef int32_t UNALIGNED i4;
typedef uint32_t UNALIGNED u4;
typedef int64_t UNALIGNED i8;
typedef uint64_t UNALIGNED u8;
typedef float UNALIGNED f4;
typedef double UNALIGNED f8;

/* ---- sums ---------------------------------------------------------------------------------------------------------------------- */

/* n elements of at most 4 bytes, n < 2**31: 64 bits hold the sum. */
#define SUM_NARROW(name, type, value)                                                                                                      \
    static int128 sum_##name(const char *data, size_t n) {                                                                                 \
        const type *p = (const type *)data;                                                                                                \
        int64_t sum = 0;                                                                                                                   \
        for (size_t i = 0; i < n; i++)                                                                                                     \
            sum += value;                                                                                                                  \
        return sum;                                                                                                                        \
    }
SUM_NARROW(i1, i1, p[i])
SUM_NARROW(u1, u1, p[i])
SUM_NARROW(i2, i2, p[i])
SUM_NARROW(u2, u2, p[i])
SUM_NARROW(i4, i4, p[i])
SUM_NARROW(u4, u4, p[i])

/* The halves of 8-byte elements are summed apart, each in 64 bits (n < 2**31), and put together at the end. */
#define SUM_WIDE(name, type, high_type)                                                                                                    \
    static int128 sum_##name(const char *data, size_t n) {                                                                                 \
        const type *p = (const type *)data;                                                                                                \
        uint64_t low = 0;                                                                                                                  \
        high_type high = 0;                                                                                                                \
        for (size_t i = 0; i < n; i++) {                                                                                                   \
            low += (uint32_t)p[i];                                                                                                         \
            high += p[i] >> 32;                                                                                                            \
        }                                                                                                                                  \
        return (int128)high * ((int128)1 << 32) + low;                                                                                     \
    }
SUM_WIDE(i8, i8, int64_t)
SUM_WIDE(u8, u8, uint64_t)

/* Partial results of one kind: at least four of AVX2's registers of them, so that enough operations are under way to hide how long one
 * takes; and more than 16, up to which gcc unrolls a loop before it sees that it is a vector. */
#define LANES_OF(type) enum { LANES = sizeof(type) == 8 ? 32 : 128 / sizeof(type) }

#define SUM_LANES(name, type, plain)                                                                                                       \
    static void lanes_##name(const type *p, size_t n, plain *lane) {                                                                       \
        LANES_OF(plain);                                                                                                                   \
        size_t i = 0;                                                                                                                      \
        for (int j = 0; j < LANES; j++)                                                                                                    \
            lane[j] = 0;                                                                                                                   \
        for (; i + LANES <= n; i += LANES)                                                                                                 \
            for (int j = 0; j < LANES; j++)                                                                                                \
                lane[j] += p[i + (size_t)j];                                                                                               \
        for (int j = 0; i < n; i++, j++)                                                                                                   \
            lane[j] += p[i];                                                                                                               \
    }
SUM_LANES(f4, f4, float)
SUM_LANES(f8, f8, double)

/* Even and odd lanes apart, for complex numbers' parts. */
#define SUM_INEXACT(real, complex, type, plain)                                                                                            \
    static void sum_##real(const char *data, size_t n, double out[2]) {                                                                    \
        LANES_OF(plain);                                                                                                                   \
        plain lane[LANES];                                                                                                                 \
        double sum = 0;                                                                                                                    \
        lanes_##real((const type *)data, n, lane);                                                                                         \
        for (int j = 0; j < LANES; j++)                                                                                                    \
            sum += (double)lane[j];                                                                                                        \
        out[0] = sum;                                                                                                                      \
    }                                                                                                                                      \
    static void sum_##complex(const char *data, size_t n, double out[2]) {                                                                 \
        LANES_OF(plain);                                                                                                                   \
        plain lane[LANES];                                                                                                                 \
        out[0] = out[1] = 0;                                                                                                               \
        lanes_##real((const type *)data, 2 * n, lane);                                                                                     \
        for (int j = 0; j < LANES; j += 2) {                                                                                               \
            out[0] += (double)lane[j];                                                                                                     \
            out[1] += (double)lane[j + 1];                                                                                                 \
        }                                                                                                                                  \
    }
SUM_INEXACT(f4, c8, f4, float)
SUM_INEXACT(f8, c16, f8, double)

/* ---- least and greatest ---------------------------------------------------------------------------------------------------------- */

#define EXTREME(prefix, name, type, plain, better)                                                                                         \
    static bool prefix##_##name(const char *data, size_t n, char *best) {                                                                  \
        LANES_OF(plain);                                                                                                                   \
        const type *p = (const type *)data;                                                                                                \
        plain lane[LANES];                                                                                                                 \
        size_t i = 0;                                                                                                                      \
        for (int j = 0; j < LANES; j++)                                                                                                    \
            lane[j] = p[0];                                                                                                                \
        for (; i + LANES <= n; i += LANES)                                                                                                 \
            for (int j = 0; j < LANES; j++)                                                                                                \
                lane[j] = p[i + (size_t)j] better lane[j] ? p[i + (size_t)j] : lane[j];                                                    \
        for (; i < n; i++)                                                                                                                 \
            lane[0] = p[i] better lane[0] ? p[i] : lane[0];                                                                                \
        for (int j = 1; j < LANES; j++)                                                                                                    \
            lane[0] = lane[j] better lane[0] ? lane[j] : lane[0];                                                                          \
        memcpy(best, lane, sizeof *lane);                                                                                                  \
        return false;                                                                                                                      \
    }

/* Only a NaN isn't equal to itself. */
#define EXTREME_INEXACT(prefix, name, type, plain, mask, better)                                                                           \
    static bool prefix##_##name(const char *data, size_t n, char *best) {                                                                  \
        LANES_OF(plain);                                                                                                                   \
        const type *p = (const type *)data;                                                                                                \
        plain lane[LANES];                                                                                                                 \
        mask nan[LANES];                                                                                                                   \
        size_t i = 0;                                                                                                                      \
        for (int j = 0; j < LANES; j++) {                                                                                                  \
            lane[j] = p[0];                                                                                                                \
            nan[j] = 0;                                                                                                                    \
        }                                                                                                                                  \
        for (; i + LANES <= n; i += LANES)                                                                                                 \
            for (int j = 0; j < LANES; j++) {                                                                                              \
                plain x = p[i + (size_t)j];                                                                                                \
                nan[j] |= x != x ? (mask) - 1 : 0;                                                                                         \
                lane[j] = x better lane[j] ? x : lane[j];                                                                                  \
            }                                                                                                                              \
        for (; i < n; i++) {                                                                                                               \
            nan[0] |= p[i] != p[i] ? (mask) - 1 : 0;                                                                                       \
            lane[0] = p[i] better lane[0] ? p[i] : lane[0];                                                                                \
        }                                                                                                                                  \
        for (int j = 1; j < LANES; j++) {                                                                                                  \
            nan[0] |= nan[j];                                                                                                              \
            lane[0] = lane[j] better lane[0] ? lane[j] : lane[0];                                                                          \
        }                                                                                                                                  \
        memcpy(best, lane, sizeof *lane);                                                                                                  \
        return nan[0] != 0;                                                                                                                \
    }

/* By the real part, then the imaginary one, as numpy has it. */
#define EXTREME_COMPLEX(prefix, name, type, plain, better)                                                                                 \
    static bool prefix##_##name(const char *data, size_t n, char *best) {                                                                  \
        const type *p = (const type *)data;                                                                                                \
        plain x[2] = {p[0], p[1]};                                                                                                         \
        bool nan = false;                                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                                                   \
            plain re = p[2 * i], im = p[2 * i + 1];                                                                                        \
            nan |= (re != re) | (im != im);                                                                                                \
            bool take = (re better x[0]) | ((re == x[0]) & (im better x[1]));                                                              \
            x[0] = take ? re : x[0];                                                                                                       \
            x[1] = take ? im : x[1];                                                                                                       \
        }                                                                                                                                  \
        memcpy(best, x, sizeof x);                                                                                                         \
        return nan;                                                                                                                        \
    }

#define EXTREMES(prefix, better)                                                                                                           \
    EXTREME(prefix, i1, i1, int8_t, better)                                                                                                \
    EXTREME(prefix, u1, u1, uint8_t, better)                                                                                               \
    EXTREME(prefix, i2, i2, int16_t, better)                                                                                               \
    EXTREME(prefix, u2, u2, uint16_t, better)                                                                                              \
    EXTREME(prefix, i4, i4, int32_t, better)                                                                                               \
    EXTREME(prefix, u4, u4, uint32_t, better)                                                                                              \
    EXTREME(prefix, i8, i8, int64_t, better)                                                                                               \
    EXTREME(prefix, u8, u8, uint64_t, better)                                                                                              \
    EXTREME_INEXACT(prefix, f4, f4, float, int32_t, better)                                                                                \
    EXTREME_INEXACT(prefix, f8, f8, double, int64_t, better)                                                                               \
    EXTREME_COMPLEX(prefix, c8, f4, float, better)                                                                                         \
    EXTREME_COMPLEX(prefix, c16, f8, double, better)
EXTREMES(least, <)
EXTREMES(greatest, >)

/* ---- where ----------------------------------------------------------------------------------------------------------------------- */

/* Sixteen at a time, so that only the last sixteen are looked at one by one. */
#define FIND(name, type, equal)                                                                                                            \
    static size_t find_##name(const char *data, size_t n, const char *item) {                                                              \
        const type *p = (const type *)data, *q = (const type *)item;                                                                       \
        (void)q;                                                                                                                           \
        size_t i = 0;                                                                                                                      \
        for (; i + 16 <= n; i += 16) {                                                                                                     \
            int found = 0;                                                                                                                 \
            for (size_t k = i; k < i + 16; k++)                                                                                            \
                found |= (equal);                                                                                                          \
            if (found != 0)                                                                                                                \
                break;                                                                                                                     \
        }                                                                                                                                  \
        for (size_t k = i; k < n; k++)                                                                                                     \
            if (equal)                                                                                                                     \
                return k;                                                                                                                  \
        return n;                                                                                                                          \
    }
FIND(u1, u1, p[k] == *q)
FIND(u2, u2, p[k] == *q)
FIND(u4, u4, p[k] == *q)
FIND(u8, u8, p[k] == *q)
FIND(f4, f4, p[k] == *q)
FIND(f8, f8, p[k] == *q)
FIND(c8, f4, (p[2 * k] == q[0]) & (p[2 * k + 1] == q[1]))
FIND(c16, f8, (p[2 * k] == q[0]) & (p[2 * k + 1] == q[1]))
FIND(nan_f4, f4, p[k] != p[k])
FIND(nan_f8, f8, p[k] != p[k])
FIND(nan_c8, f4, (p[2 * k] != p[2 * k]) | (p[2 * k + 1] != p[2 * k + 1]))
FIND(nan_c16, f8, (p[2 * k] != p[2 * k]) | (p[2 * k + 1] != p[2 * k + 1]))

/* ---- counting -------------------------------------------------------------------------------------------------------------------- */

static size_t nonzero_u1(const char *data, size_t n) {
    LANES_OF(uint8_t);
    const u1 *p = (const u1 *)data;
    size_t i = 0, count = 0;
    while (i + LANES <= n) {
        uint8_t lane[LANES] = {0};
        for (int round = 0; round < 255 && i + LANES <= n; round++, i += LANES) /* more would overflow a lane */
            for (int j = 0; j < LANES; j++)
                lane[j] = (uint8_t)(lane[j] + (p[i + (size_t)j] != 0));
        for (int j = 0; j < LANES; j++)
            count += lane[j];
    }
    for (; i < n; i++)
        count += p[i] != 0;
    return count;
}

/* `counter` is as wide as the element, so that its lanes line up; n < 2**16 for the 2-byte one. */
#define NONZERO(name, type, counter, test)                                                                                                 \
    static size_t nonzero_##name(const char *data, size_t n) {                                                                             \
        const type *p = (const type *)data;                                                                                                \
        counter count = 0;                                                                                                                 \
        for (size_t i = 0; i < n; i++)                                                                                                     \
            count = (counter)(count + (test));                                                                                             \
        return count;                                                                                                                      \
    }
NONZERO(u2, u2, uint16_t, p[i] != 0)
NONZERO(u4, u4, uint32_t, p[i] != 0)
NONZERO(u8, u8, uint64_t, p[i] != 0)
NONZERO(f2, u2, uint16_t, (p[i] & 0x7fff) != 0)
NONZERO(f4, u4, uint32_t, (p[i] & UINT32_C(0x7fffffff)) != 0)
NONZERO(f8, u8, uint64_t, (p[i] & UINT64_C(0x7fffffffffffffff)) != 0)
NONZERO(c8, u8, uint64_t, (p[i] & UINT64_C(0x7fffffff7fffffff)) != 0)
NONZERO(c16, f8, uint64_t, (p[2 * i] != 0) | (p[2 * i + 1] != 0))

/* ---- the table --------------------------------------------------------------------------------------------------------------------- */

#define INTEGERS(prefix)                                                                                                                   \
    [IST_I1] = prefix##_i1, [IST_U1] = prefix##_u1, [IST_I2] = prefix##_i2, [IST_U2] = prefix##_u2, [IST_I4] = prefix##_i4,                \
    [IST_U4] = prefix##_u4, [IST_I8] = prefix##_i8, [IST_U8] = prefix##_u8

#define SAME_BITS(prefix)                                                                                                                  \
    [IST_I1] = prefix##_u1, [IST_U1] = prefix##_u1, [IST_I2] = prefix##_u2, [IST_U2] = prefix##_u2, [IST_I4] = prefix##_u4,                \
    [IST_U4] = prefix##_u4, [IST_I8] = prefix##_u8, [IST_U8] = prefix##_u8
#define INEXACT(prefix) [IST_F4] = prefix##_f4, [IST_F8] = prefix##_f8, [IST_C8] = prefix##_c8, [IST_C16] = prefix##_c16

const kernels KERNELS = {
    .sum_integer = {INTEGERS(sum)},
    .sum_inexact = {[IST_F4] = sum_f4, [IST_F8] = sum_f8, [IST_C8] = sum_c8, [IST_C16] = sum_c16},
    .least = {[IST_BOOL] = least_u1, INTEGERS(least), INEXACT(least)},
    .greatest = {[IST_BOOL] = greatest_u1, INTEGERS(greatest), INEXACT(greatest)},
    .find = {[IST_BOOL] = find_u1, SAME_BITS(find), INEXACT(find)},
    .find_nan = {INEXACT(find_nan)},
    .nonzero = {[IST_BOOL] = nonzero_u1, SAME_BITS(nonzero), [IST_F2] = nonzero_f2, INEXACT(nonzero)},
};
