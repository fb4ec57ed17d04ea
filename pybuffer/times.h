/* times.h: datetime64 and timedelta64: units, calendar, and their way to the datetime module and back. Times are numbers of `count` units
 * since 1970-01-01, without leap seconds, in the proleptic Gregorian calendar; the least int64 is NaT, not a time. */
#ifndef ISTHMUS_TIMES_H
#define ISTHMUS_TIMES_H

#include "core.h"

enum ist_unit {
    UNIT_Y,
    UNIT_M,
    UNIT_W,
    UNIT_D,
    UNIT_h,
    UNIT_m,
    UNIT_s,
    UNIT_ms,
    UNIT_us,
    UNIT_ns,
    UNIT_ps,
    UNIT_fs,
    UNIT_as,
    UNIT_GENERIC
};
#define NAT INT64_MIN

/* "[25s]": false if it isn't one. "": generic. */
bool times_parse_unit(const char *text, int *unit, int32_t *count);
const char *times_unit_name(int unit);
/* A time or difference of `from` in units of `to`, rounded down; both are of the same kind. false: it doesn't fit, or the units don't
 * convert (months to days, for differences). No GIL needed. */
bool times_convert(int64_t value, const DTypeObject *from, const DTypeObject *to, int64_t *out);
bool times_convertible(const DTypeObject *from, const DTypeObject *to);
/* The same between all units: a month of a difference is a 4800th of 400 years. */
bool times_convert_any(int64_t value, const DTypeObject *from, const DTypeObject *to, int64_t *out);
/* The unit both can be expressed in; false: there is none. */
bool times_common(const DTypeObject *a, const DTypeObject *b, int *unit, int32_t *count);

/* The datetime module's objects where they can hold it, else an int; None for NaT. */
PyObject *times_get(const DTypeObject *dtype, int64_t value);
/* date, datetime, timedelta, int, None, ISO 8601 text, numpy's scalars. -1 with an exception that names the value. */
int times_set(const DTypeObject *dtype, int64_t *value, PyObject *object);
/* ISO 8601, as far as the unit goes; "5 seconds"; "NaT"; into room for TEXT_ROOM. Its length, -1 with ValueError. */
int times_write(const DTypeObject *dtype, int64_t value, char *text);
/* The dtype of the unit that a str or bytes as such a time is given in. New reference; NULL without an exception if it's neither, or no time. */
DTypeObject *times_dtype_of_text(core_state *state, const DTypeObject *kind, PyObject *object);
/* The dtype such an object has by itself; *found says whether it is one. New reference, NULL with an exception or if !*found. */
DTypeObject *times_dtype_of(core_state *state, PyObject *object, bool *found);

#endif
