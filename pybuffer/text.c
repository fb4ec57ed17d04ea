/* text.c: numbers written out as numpy's str() writes them, into S and U elements, and long doubles read again.
 *
 * Digits: the fewest that are read as the same number, in the width it has (a float32 0.1 is "0.1"). Half and single precision by trial, which is
 * at most nine steps; doubles by CPython's own shortest repr.
 */
#ifndef _GNU_SOURCE
#  define _GNU_SOURCE /* newlocale */
#endif
#include "dtype.h"
#include "half.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- lengths --------------------------------------------------------------------------------------------------------------------------- */

Py_ssize_t text_length(const DTypeObject *d) {
    static const int signed_lengths[] = {[1] = 4, [2] = 6, [4] = 11, [8] = 21}, unsigned_lengths[] = {[1] = 3, [2] = 5, [4] = 10, [8] = 20};
    static const int time_lengths[] = {[UNIT_Y] = 22,  [UNIT_M] = 25,  [UNIT_W] = 28,  [UNIT_D] = 28,     [UNIT_h] = 32,
                                       [UNIT_m] = 35,  [UNIT_s] = 38,  [UNIT_ms] = 42, [UNIT_us] = 45,    [UNIT_ns] = 48,
                                       [UNIT_ps] = 51, [UNIT_fs] = 54, [UNIT_as] = 57, [UNIT_GENERIC] = 4};
    switch (d->kind) {
    case 'b': return 5;
    case 'i': return signed_lengths[d->itemsize];
    case 'u': return unsigned_lengths[d->itemsize];
    case 'f': return d->code == IST_LONG ? 48 : 32;
    case 'c': return d->code == IST_CLONG ? 96 : 64;
    case 'M': return time_lengths[d->unit];
    default: return 21;
    }
}

/* ---- floats ---------------------------------------------------------------------------------------------------------------------------- */

enum part { ALONE, REAL, IMAGINARY }; /* a complex number's parts have no ".0", and the second always has a sign */

#define PART_ROOM (TEXT_ROOM / 2)

static int write_double(double x, enum part part, char *text) {
    const int flags = (part == ALONE ? Py_DTSF_ADD_DOT_0 : 0) | (part == IMAGINARY ? Py_DTSF_SIGN : 0);
    char *written = PyOS_double_to_string(x, 'r', 0, flags, NULL);
    if (written == NULL)
        return -1;
    PyOS_snprintf(text, PART_ROOM, "%s", written);
    PyMem_Free(written);
    return 0;
}

/* "-1.2345e+16" taken apart, without zeros at its end, and put together: with an exponent, or with all zeros there are. */
static void lay_out_digits(const char *written, bool scientific, enum part part, char *text) {
    char digits[PART_ROOM];
    int n = 0, i = 0; /* digits[0] is the one at 10**exponent */
    const char *at = written;
    if (*at == '-')
        *text++ = *at++;
    else if (part == IMAGINARY)
        *text++ = '+';
    for (; *at != 'e' && *at != '\0' && n < (int)sizeof digits; at++)
        if (*at != '.')
            digits[n++] = *at;
    const int exponent = *at == 'e' ? atoi(at + 1) : 0;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (scientific) {
        *text++ = digits[0];
        if (n > 1)
            *text++ = '.';
        memcpy(text, digits + 1, (size_t)n - 1);
        PyOS_snprintf(text + n - 1, 8, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0)
        *text++ = '0';
    for (; i <= exponent; i++)
        *text++ = i < n ? digits[i] : '0';
    if (i < n || part == ALONE)
        *text++ = '.';
    for (int place = -1; place > exponent; place--)
        *text++ = '0';
    for (; i < n; i++)
        *text++ = digits[i];
    if (text[-1] == '.')
        *text++ = '0';
    *text = '\0';
}

/* The next number with as many digits, further from 0; false: it has more. Above a power of two numbers lie twice as far apart as below, so
 * that one there may be read as it where the nearest, below, isn't. */
static bool next_digits(char *written) {
    char *at = strchr(written, 'e');
    while (at-- > written) {
        if (*at == '9')
            *at = '0';
        else if (*at >= '0' && *at < '9')
            return ++*at, true;
    }
    return false;
}

static bool reads_as(const char *written, double x, bool half) {
    const double read = PyOS_string_to_double(written, NULL, NULL);
    return half ? half_from_double(read) == half_from_double(x) : (float)read == (float)x;
}

/* Half or single precision. From where the digits are no longer all there are numpy writes an exponent. */
static int write_short(double x, bool half, enum part part, char *text) {
    if (!isfinite(x))
        return write_double(x, part, text);
    const double size = fabs(x);
    for (int digits = 0;; digits++) {
        char *tried = PyOS_double_to_string(x, 'e', digits, 0, NULL);
        if (tried == NULL)
            return -1;
        const bool same = reads_as(tried, x, half) || (digits > 0 && next_digits(tried) && reads_as(tried, x, half));
        if (same || digits == 9)
            lay_out_digits(tried, size != 0 && (size < 1e-4 || size >= (half ? 1e3 : 1e6)), part, text);
        PyMem_Free(tried);
        if (same || digits == 9)
            return 0;
    }
}

/* The C locale for this thread, so that a point is a point. */
static locale_t plain_locale(locale_t *before) {
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (plain == (locale_t)0)
        PyErr_NoMemory();
    else
        *before = uselocale(plain);
    return plain;
}

static void locale_back(locale_t plain, locale_t before) {
    uselocale(before);
    freelocale(plain);
}

static int write_long_double(long double x, enum part part, char *text) {
    if (!isfinite(x))
        return write_double((double)x, part, text);
    locale_t before, plain = plain_locale(&before);
    if (plain == (locale_t)0)
        return -1;
    char tried[PART_ROOM];
    for (int digits = 0; digits < LDBL_DECIMAL_DIG; digits++) {
        snprintf(tried, sizeof tried, "%.*Le", digits, x);
        if (strtold(tried, NULL) == x || (digits > 0 && next_digits(tried) && strtold(tried, NULL) == x))
            break;
    }
    locale_back(plain, before);
    const long double size = fabsl(x);
    lay_out_digits(tried, size != 0 && (size < 1e-4L || size >= 1e16L), part, text);
    return 0;
}

int read_long_double(PyObject *object, long double *x) {
    char text[256];
    const char *bytes = PyUnicode_Check(object) ? PyUnicode_AsUTF8(object) : PyBytes_AsString(object);
    if (bytes == NULL)
        return -1;
    char *end = text;
    const size_t n = strlen(bytes);
    memcpy(text, bytes, n < sizeof text ? n + 1 : 1);
    text[n < sizeof text ? n : 0] = '\0';
    locale_t before, plain = plain_locale(&before);
    if (plain == (locale_t)0)
        return -1;
    *x = strtold(text, &end);
    locale_back(plain, before);
    if (end != text && *end == '\0' && !Py_ISSPACE((unsigned char)text[0]))
        return 0;
    PyErr_Format(PyExc_ValueError, "invalid literal for long double: %R", object);
    return -1;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------------------------------- */

/* A real number of `code` at `item`. */
static int write_real(ist_type_code code, const char *item, enum part part, char *text) {
    uint16_t half;
    float single;
    double x;
    long double extended;
    switch (code) {
    case IST_LONG: memcpy(&extended, item, sizeof extended); return write_long_double(extended, part, text);
    case IST_F8: memcpy(&x, item, sizeof x); return write_double(x, part, text);
    case IST_F4: memcpy(&single, item, sizeof single); return write_short((double)single, false, part, text);
    default: memcpy(&half, item, sizeof half); return write_short(half_to_double(half), true, part, text);
    }
}

static int write_complex(const DTypeObject *d, const char *item, char *text) {
    const ist_type_code half = d->code == IST_C8 ? IST_F4 : d->code == IST_C16 ? IST_F8 : IST_LONG;
    const char *second = item + d->itemsize / 2;
    char re[PART_ROOM], im[PART_ROOM];
    if (write_real(half, item, REAL, re) < 0)
        return -1;
    const bool alone = strcmp(re, "0") == 0;
    if (write_real(half, second, alone ? REAL : IMAGINARY, im) < 0)
        return -1;
    return PyOS_snprintf(text, TEXT_ROOM, alone ? "%.0s%sj" : "(%s%sj)", re, im);
}

Py_ssize_t text_of_number(const DTypeObject *d, const char *item, char text[TEXT_ROOM]) {
    char turned[2 * sizeof(long double)];
    const char *const original = item;
    if (d->swapped) {
        memcpy(turned, item, (size_t)d->itemsize);
        swap_elements(d, turned, 1);
        item = turned;
    }
    if (d->kind == 'f')
        return write_real(d->code, item, ALONE, text) < 0 ? -1 : (Py_ssize_t)strlen(text);
    if (d->kind == 'c')
        return write_complex(d, item, text);
    if (d->kind == 'b')
        return PyOS_snprintf(text, TEXT_ROOM, "%s", *item != 0 ? "True" : "False");
    PyObject *integer = dtype_get(d, original);
    PyObject *written = integer == NULL ? NULL : PyObject_Str(integer);
    const char *digits = written == NULL ? NULL : PyUnicode_AsUTF8(written);
    const Py_ssize_t n = digits == NULL ? -1 : PyOS_snprintf(text, TEXT_ROOM, "%s", digits);
    Py_XDECREF(written);
    Py_XDECREF(integer);
    return n;
}

int put_ascii(const DTypeObject *to, char *out, const char *text, Py_ssize_t n) {
    const Py_ssize_t unit = to->code == IST_TEXT ? 4 : 1;
    n = Py_MIN(n, to->itemsize / unit);
    memset(out, 0, (size_t)to->itemsize);
    for (Py_ssize_t i = 0; i < n; i++) {
        const uint32_t point = (unsigned char)text[i];
        memcpy(out + unit * i, unit == 4 ? (const char *)&point : text + i, (size_t)unit);
    }
    if (to->swapped)
        swap_elements(to, out, 1);
    return 0;
}
