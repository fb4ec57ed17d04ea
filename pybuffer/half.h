/* half.h: IEEE 754 binary16, by the bits, so that no compiler needs a type for it. Rounds to nearest, ties to even; overflow gives inf. */
#ifndef ISTHMUS_HALF_H
#define ISTHMUS_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint64_t double_bits(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline double double_from_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline double half_to_double(uint16_t half) {
    uint64_t sign = (uint64_t)(half & 0x8000u) << 48;
    uint64_t magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00u) /* infinity, or a NaN whose payload is kept */
        return double_from_bits(sign | UINT64_C(0x7ff0000000000000) | (magnitude & 0x3ffu) << 42);
    if (magnitude >= 0x0400u)
        return double_from_bits(sign | ((magnitude << 42) + ((uint64_t)(1023 - 15) << 52)));
    double x = (double)magnitude * 0x1p-24; /* subnormal, exact */
    return sign != 0 ? -x : x;
}

static inline uint16_t half_from_double(double x) {
    uint64_t bits = double_bits(x);
    uint16_t sign = (uint16_t)(bits >> 48 & 0x8000u);
    uint64_t magnitude = bits & UINT64_C(0x7fffffffffffffff);
    if (magnitude > UINT64_C(0x7ff0000000000000)) /* a NaN stays one, whichever payload bits are cut off */
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 42 & 0x3ffu));
    if (magnitude >= UINT64_C(0x40effe0000000000)) /* 65520, half-way to what would be the next number */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude >= UINT64_C(0x3f10000000000000)) { /* 2**-14, the smallest normal number */
        magnitude -= (uint64_t)(1023 - 15) << 52;
        magnitude += (magnitude >> 42 & 1u) + (UINT64_C(1) << 41) - 1u;
        return (uint16_t)(sign | magnitude >> 42);
    }
    double scaled = double_from_bits(magnitude) * 0x1p24; /* below 1024: adding 2**52 rounds it to an integer */
    return (uint16_t)(sign | (uint16_t)(scaled + 0x1p52 - 0x1p52));
}

#endif
