/* times.c: datetime64 and timedelta64: units, the calendar, and the way to Python's datetime objects and back.
 *
 * Two kinds of unit: years and months, and everything from weeks down, which are multiples of an attosecond. Times pass from one kind to the
 * other by the calendar, through days; differences don't. Days of a civil date: Howard Hinnant, "chrono-Compatible Low-Level Date
 * Algorithms" (era of 400 years, year beginning in March).
 */
#include "times.h"

#include "dtype.h"

#include <errno.h>
#include <stdlib.h>

typedef __int128 int128;

static const char *const unit_names[] = {"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic"};

/* How many of the next finer unit each has; from UNIT_W on. */
static const int finer[] = {[UNIT_Y] = 12,    [UNIT_W] = 7,     [UNIT_D] = 24,    [UNIT_h] = 60,    [UNIT_m] = 60,   [UNIT_s] = 1000,
                            [UNIT_ms] = 1000, [UNIT_us] = 1000, [UNIT_ns] = 1000, [UNIT_ps] = 1000, [UNIT_fs] = 1000};

const char *times_unit_name(int unit) { return unit_names[unit]; }

bool times_parse_unit(const char *text, int *unit, int32_t *count) {
    *unit = UNIT_GENERIC;
    *count = 1;
    if (text[0] == '\0')
        return true;
    if (text[0] != '[')
        return false;
    text++;
    int64_t n = 0;
    bool digits = false;
    for (; *text >= '0' && *text <= '9' && n <= INT32_MAX; text++, digits = true)
        n = n * 10 + (*text - '0');
    if (digits && (n < 1 || n > INT32_MAX))
        return false;
    *count = digits ? (int32_t)n : 1;
    for (*unit = 0; *unit <= UNIT_GENERIC; ++*unit) {
        size_t length = strlen(unit_names[*unit]);
        if (strncmp(text, unit_names[*unit], length) == 0 && strcmp(text + length, "]") == 0)
            return *unit != UNIT_GENERIC || !digits;
    }
    if (strcmp(text, "\u03bcs]") == 0) { /* the other way to write us */
        *unit = UNIT_us;
        return true;
    }
    return false;
}

/* ---- the calendar ----------------------------------------------------------------------------------------------------------------- */

static int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

/* Days since 1970-01-01 of a day in the proleptic Gregorian calendar; |year| < 2**55. */
static int64_t days_of(int64_t year, int month, int day) {
    year -= month <= 2;
    int64_t era = floor_divide(year, 400), of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719468;
}

static void date_of(int64_t days, int64_t *year, int *month, int *day) {
    days += 719468;
    int64_t era = floor_divide(days, 146097), of_era = days - era * 146097;
    int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month_from_march = (5 * day_of_year + 2) / 153;
    *day = (int)(day_of_year - (153 * month_from_march + 2) / 5 + 1);
    *month = (int)(month_from_march < 10 ? month_from_march + 3 : month_from_march - 9);
    *year = year_of_era + era * 400 + (*month <= 2);
}

static int days_in_month(int64_t year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap);
}

/* ---- from unit to unit ------------------------------------------------------------------------------------------------------------ */

static bool by_calendar(int unit) { return unit == UNIT_Y || unit == UNIT_M; }

static bool fits(int128 value, int64_t *out) {
    *out = (int64_t)value;
    return value > NAT && value <= INT64_MAX;
}

/* How many `fine` units a `coarse` one has, both of one kind; 0: more than 2**63. */
static int64_t ratio(int coarse, int fine) {
    int64_t n = 1;
    for (int unit = coarse; unit < fine; unit++)
        if (__builtin_mul_overflow(n, finer[unit], &n))
            return 0;
    return n;
}

/* Of one kind: value * from_count from-units in to_count to-units, rounded down. */
static bool scale(int64_t value, int from, int32_t from_count, int to, int32_t to_count, int64_t *out) {
    int128 n = (int128)value * from_count, divisor = to_count;
    int64_t factor = from <= to ? ratio(from, to) : ratio(to, from);
    if (factor == 0) { /* days in attoseconds, say: only 0 fits; attoseconds in weeks, say: 0 or -1 */
        if (from <= to)
            return n == 0 ? fits(0, out) : false;
        return fits(n < 0 ? -1 : 0, out);
    }
    if (from <= to) {
        if (n > INT64_MAX || n < INT64_MIN) { /* beyond 128 bits, perhaps, and in any case beyond 64 */
            if (__builtin_mul_overflow(n, (int128)factor, &n))
                return false;
        } else {
            n *= factor;
        }
    } else if (__builtin_mul_overflow(divisor, (int128)factor, &divisor)) {
        return fits(n < 0 ? -1 : 0, out);
    }
    int128 quotient = n / divisor;
    return fits(quotient - (n % divisor != 0 && n < 0), out);
}

bool times_convertible(const DTypeObject *from, const DTypeObject *to) {
    if (from->unit == UNIT_GENERIC || (to->unit == from->unit && to->count == from->count))
        return true;
    if (to->unit == UNIT_GENERIC)
        return false;
    return from->code == IST_DATETIME || by_calendar(from->unit) == by_calendar(to->unit);
}

bool times_convert(int64_t value, const DTypeObject *from, const DTypeObject *to, int64_t *out) {
    *out = value;
    if (value == NAT || from->unit == UNIT_GENERIC || (from->unit == to->unit && from->count == to->count))
        return true;
    if (to->unit == UNIT_GENERIC)
        return false;
    if (by_calendar(from->unit) == by_calendar(to->unit))
        return scale(value, from->unit, from->count, to->unit, to->count, out);
    if (from->code != IST_DATETIME)
        return false;
    if (by_calendar(from->unit)) {
        int64_t months;
        if (!scale(value, from->unit, from->count, UNIT_M, 1, &months) || months > INT64_MAX / 32 || months < INT64_MIN / 32)
            return false;
        int64_t year = floor_divide(months, 12);
        return scale(days_of(1970 + year, (int)(months - year * 12) + 1, 1), UNIT_D, 1, to->unit, to->count, out);
    }
    int64_t days, year;
    int month, day;
    if (!scale(value, from->unit, from->count, UNIT_D, 1, &days) || days > INT64_MAX - 719468)
        return false;
    date_of(days, &year, &month, &day);
    return scale((year - 1970) * 12 + month - 1, UNIT_M, 1, to->unit, to->count, out);
}

bool times_convert_any(int64_t value, const DTypeObject *from, const DTypeObject *to, int64_t *out) {
    static const DTypeObject months = {.code = IST_TIMEDELTA, .unit = UNIT_M, .count = 1};
    enum { DAYS = 146097, MONTHS = 4800 }; /* of 400 years */
    const bool here = by_calendar(from->unit);
    *out = value;
    if (value == NAT || to->unit == UNIT_GENERIC)
        return true;
    if (from->code == IST_DATETIME || from->unit == UNIT_GENERIC || here == by_calendar(to->unit))
        return times_convert(value, from, to, out);
    /* seconds have whole numbers in both: DAYS * 86400 in MONTHS */
    int64_t whole;
    if (here) {
        if (!times_convert(value, from, &months, &whole))
            return false;
        int128 seconds = (int128)whole * DAYS * 86400 / MONTHS;
        return fits(seconds, &whole) && scale(whole, UNIT_s, 1, to->unit, to->count, out);
    }
    if (!scale(value, from->unit, from->count, UNIT_s, 1, &whole))
        return false;
    int128 scaled = (int128)whole * MONTHS, divisor = (int128)DAYS * 86400;
    return fits(scaled / divisor - (scaled % divisor != 0 && scaled < 0), &whole) && times_convert(whole, &months, to, out);
}

static int64_t divisor_of(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

bool times_common(const DTypeObject *a, const DTypeObject *b, int *unit, int32_t *count) {
    if (a->unit == UNIT_GENERIC || b->unit == UNIT_GENERIC) {
        const DTypeObject *d = a->unit == UNIT_GENERIC ? b : a;
        *unit = d->unit;
        *count = d->count;
        return true;
    }
    if (by_calendar(a->unit) != by_calendar(b->unit)) {
        if (a->code != IST_DATETIME)
            return false;
        *unit = by_calendar(a->unit) ? b->unit : a->unit; /* a month has no number of days that could be divided */
        *count = by_calendar(a->unit) ? b->count : a->count;
        if (*unit == UNIT_W || (*unit == UNIT_D && *count != 1)) { /* months don't begin with weeks */
            *unit = UNIT_D;
            *count = 1;
        }
        return true;
    }
    *unit = a->unit > b->unit ? a->unit : b->unit;
    int64_t a_factor = ratio(a->unit, *unit), b_factor = ratio(b->unit, *unit), a_count, b_count;
    if (a_factor == 0 || b_factor == 0 || __builtin_mul_overflow(a_factor, a->count, &a_count) ||
        __builtin_mul_overflow(b_factor, b->count, &b_count))
        return false;
    int64_t common = divisor_of(a_count, b_count);
    *count = (int32_t)common;
    return common <= INT32_MAX;
}

/* ---- to Python -------------------------------------------------------------------------------------------------------------------- */

/* datetime.NAME: imported each time, as static types can't be shared by interpreters on every version; new reference. */
static PyObject *from_datetime(const char *name) {
    PyObject *module = PyImport_ImportModule("datetime");
    PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    Py_XDECREF(module);
    return type;
}

static PyObject *make(const char *name, const char *format, ...) {
    va_list values;
    va_start(values, format);
    PyObject *arguments = Py_VaBuildValue(format, values), *type = arguments == NULL ? NULL : from_datetime(name), *made = NULL;
    va_end(values);
    if (type != NULL)
        made = PyObject_CallObject(type, arguments);
    Py_XDECREF(type);
    Py_XDECREF(arguments);
    return made;
}

static const DTypeObject days_dtype = {.code = IST_DATETIME, .unit = UNIT_D, .count = 1},
                         microseconds_dtype = {.code = IST_DATETIME, .unit = UNIT_us, .count = 1},
                         microseconds_difference = {.code = IST_TIMEDELTA, .unit = UNIT_us, .count = 1};

static PyObject *get_datetime(const DTypeObject *d, int64_t value) {
    int64_t n, days, year;
    int month, day;
    const bool is_date = d->unit <= UNIT_D;
    if (!times_convert(value, d, is_date ? &days_dtype : &microseconds_dtype, &n))
        return PyLong_FromLongLong(value);
    days = is_date ? n : floor_divide(n, INT64_C(86400000000));
    if (days > INT64_MAX - 719468)
        return PyLong_FromLongLong(value);
    date_of(days, &year, &month, &day);
    if (year < 1 || year > 9999)
        return PyLong_FromLongLong(value);
    if (is_date)
        return make("date", "(iii)", (int)year, month, day);
    int64_t rest = n - days * INT64_C(86400000000);
    return make("datetime", "(iiiiiii)", (int)year, month, day, (int)(rest / INT64_C(3600000000)), (int)(rest / 60000000 % 60),
                (int)(rest / 1000000 % 60), (int)(rest % 1000000));
}

static PyObject *get_timedelta(const DTypeObject *d, int64_t value) {
    if (by_calendar(d->unit))
        return PyLong_FromLongLong(value);
    /* more than 64 bits of microseconds are no more than timedelta has */
    int128 n = (int128)value * d->count;
    if (__builtin_mul_overflow(n, (int128)ratio(d->unit, UNIT_us), &n))
        return PyLong_FromLongLong(value);
    const int128 day = INT64_C(86400000000), days = n / day - (n % day < 0);
    const int64_t rest = (int64_t)(n - days * day);
    if (days < -999999999 || days > 999999999)
        return PyLong_FromLongLong(value);
    return make("timedelta", "(iii)", (int)days, (int)(rest / 1000000), (int)(rest % 1000000));
}

PyObject *times_get(const DTypeObject *d, int64_t value) {
    if (value == NAT || (d->code == IST_DATETIME && d->unit == UNIT_GENERIC)) /* a date that nobody can say, as for numpy */
        Py_RETURN_NONE;
    if (d->unit > UNIT_us) /* finer than a datetime can be */
        return PyLong_FromLongLong(value);
    return d->code == IST_DATETIME ? get_datetime(d, value) : get_timedelta(d, value);
}

/* ---- as text ---------------------------------------------------------------------------------------------------------------------- */

static int write_difference(const DTypeObject *d, int64_t value, char *text) {
    static const char *const names[] = {
        "years",        "months",       "weeks",       "days",        "hours",        "minutes",     "seconds",
        "milliseconds", "microseconds", "nanoseconds", "picoseconds", "femtoseconds", "attoseconds", "generic time units"};
    return PyOS_snprintf(text, TEXT_ROOM, "%lld %s", (long long)((uint64_t)value * (uint64_t)d->count), names[d->unit]);
}

static int beyond_dates(const DTypeObject *d, int64_t value) {
    PyErr_Format(PyExc_ValueError, "%lld as '%s' is no date that can be written out", (long long)value, d->str);
    return -1;
}

/* Below a day: "T10:30:00.250", as far as the unit goes. `of_day` counts seconds, `fraction` the units that are left. */
static int write_clock(const DTypeObject *d, int of_day, int64_t fraction, char *text) {
    int n = PyOS_snprintf(text, TEXT_ROOM / 2, "T%02d", of_day / 3600);
    if (d->unit >= UNIT_m)
        n += PyOS_snprintf(text + n, TEXT_ROOM / 2, ":%02d", of_day / 60 % 60);
    if (d->unit >= UNIT_s)
        n += PyOS_snprintf(text + n, TEXT_ROOM / 4, ":%02d", of_day % 60);
    if (d->unit > UNIT_s)
        n += PyOS_snprintf(text + n, TEXT_ROOM / 4, ".%0*lld", 3 * (d->unit - UNIT_s), (long long)fraction);
    return n;
}

int times_write(const DTypeObject *d, int64_t value, char *text) {
    int64_t days, year, fraction = 0;
    int month, day, of_day = 0;
    if (value == NAT)
        return PyOS_snprintf(text, TEXT_ROOM, "NaT");
    if (d->code == IST_TIMEDELTA)
        return write_difference(d, value, text);
    if (d->unit == UNIT_GENERIC)
        return beyond_dates(d, value);
    if (d->unit <= UNIT_D) {
        if (!times_convert(value, d, &days_dtype, &days))
            return beyond_dates(d, value);
    } else {
        const int128 units = (int128)value * d->count;
        const int64_t per = d->unit > UNIT_s ? ratio(UNIT_s, d->unit) : 1, each = d->unit == UNIT_h ? 3600 : d->unit == UNIT_m ? 60 : 1;
        const int128 seconds = (units / per - (units % per < 0)) * each;
        const int128 all_days = seconds / 86400 - (seconds % 86400 < 0);
        fraction = (int64_t)(units - (units / per - (units % per < 0)) * per);
        of_day = (int)(seconds - all_days * 86400);
        if (!fits(all_days, &days))
            return beyond_dates(d, value);
    }
    if (days > INT64_MAX - 719468)
        return beyond_dates(d, value);
    date_of(days, &year, &month, &day);
    int n = PyOS_snprintf(text, TEXT_ROOM / 2, "%04lld", (long long)year);
    if (d->unit >= UNIT_M)
        n += PyOS_snprintf(text + n, TEXT_ROOM / 4, "-%02d", month);
    if (d->unit >= UNIT_W)
        n += PyOS_snprintf(text + n, TEXT_ROOM / 4, "-%02d", day);
    if (d->unit > UNIT_D)
        n += write_clock(d, of_day, fraction, text + n);
    return n;
}

/* ---- from Python ------------------------------------------------------------------------------------------------------------------ */

static int refuse_time(const DTypeObject *d, PyObject *object, const char *why) {
    PyErr_Format(PyExc_ValueError, "%R doesn't become a '%s': %s", object, d->str, why);
    return -1;
}

/* A broken down time; below a second in attoseconds. */
typedef struct broken_down {
    int64_t year, attoseconds;
    int month, day, hour, minute, second;
} broken_down;

/* Into the dtype's unit, rounded down. */
static bool put_together(const DTypeObject *d, const broken_down *t, int64_t *out) {
    int64_t n = days_of(t->year, t->month, t->day);
    const DTypeObject fine = {.code = IST_DATETIME, .unit = d->unit, .count = 1};
    if (d->unit == UNIT_GENERIC)
        return false;
    if (d->unit <= UNIT_D)
        return times_convert(n, &days_dtype, d, out);
    int128 seconds = (int128)n * 86400 + t->hour * 3600 + t->minute * 60 + t->second, value;
    if (d->unit <= UNIT_s) {
        int128 per = d->unit == UNIT_h ? 3600 : d->unit == UNIT_m ? 60 : 1;
        value = (seconds - (seconds < 0 ? per - 1 : 0)) / per;
    } else {
        int64_t per_second = ratio(UNIT_s, d->unit), below = ratio(d->unit, UNIT_as);
        value = seconds * per_second + t->attoseconds / below;
    }
    int64_t single;
    return fits(value, &single) && times_convert(single, &fine, d, out);
}

static bool read_digits(const char **at, int count, int *out) {
    *out = 0;
    for (int i = 0; i < count; i++, ++*at) {
        if (**at < '0' || **at > '9')
            return false;
        *out = *out * 10 + (**at - '0');
    }
    return true;
}

static bool read_year(const char **at, int64_t *year) {
    bool negative = **at == '-';
    *at += negative || **at == '+';
    const char *begin = *at;
    *year = 0;
    for (; **at >= '0' && **at <= '9' && *year < INT64_C(1) << 50; ++*at)
        *year = *year * 10 + (**at - '0');
    if (*at == begin || *year >= INT64_C(1) << 50)
        return false;
    *year = negative ? -*year : *year;
    return true;
}

static bool read_clock(const char *at, broken_down *t) {
    if (!read_digits(&at, 2, &t->hour) || t->hour > 23)
        return false;
    if (*at == '\0')
        return true;
    if (*at++ != ':' || !read_digits(&at, 2, &t->minute) || t->minute > 59)
        return false;
    if (*at == '\0')
        return true;
    if (*at++ != ':' || !read_digits(&at, 2, &t->second) || t->second > 59)
        return false;
    if (*at == '.') {
        int64_t place = INT64_C(100000000000000000);
        for (at++; *at >= '0' && *at <= '9'; at++, place /= 10)
            t->attoseconds += (*at - '0') * place;
    }
    return *at == '\0';
}

/* "2026-11-28T10:30:00.5", any front part of it from the year on. */
static bool read_iso(const char *at, broken_down *t) {
    *t = (broken_down){.month = 1, .day = 1};
    if (!read_year(&at, &t->year))
        return false;
    if (*at == '\0')
        return true;
    if (*at++ != '-' || !read_digits(&at, 2, &t->month) || t->month < 1 || t->month > 12)
        return false;
    if (*at == '\0')
        return true;
    if (*at++ != '-' || !read_digits(&at, 2, &t->day) || t->day < 1 || t->day > days_in_month(t->year, t->month))
        return false;
    if (*at == '\0')
        return true;
    return (*at == 'T' || *at == ' ') && read_clock(at + 1, t);
}

static bool read_count(const char *text, int64_t *value) {
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && !Py_ISSPACE((unsigned char)*text);
}

/* The bytes of a str or bytes without zeros in them; NULL with an exception. */
static const char *plain_text(PyObject *object) {
    Py_ssize_t n;
    const char *text = PyUnicode_Check(object) ? PyUnicode_AsUTF8AndSize(object, &n) : PyBytes_AS_STRING(object);
    if (!PyUnicode_Check(object))
        n = PyBytes_GET_SIZE(object);
    if (text != NULL && strlen(text) != (size_t)n) {
        PyErr_Format(PyExc_ValueError, "a zero byte in %R", object);
        return NULL;
    }
    return text;
}

static int set_text(const DTypeObject *d, int64_t *value, PyObject *object) {
    const char *text = plain_text(object);
    broken_down t;
    if (text == NULL)
        return -1;
    if (text[0] == '\0' || strcmp(text, "NaT") == 0 || strcmp(text, "nat") == 0 || strcmp(text, "NAT") == 0) {
        *value = NAT;
        return 0;
    }
    if (d->code == IST_TIMEDELTA)
        return read_count(text, value) ? 0 : refuse_time(d, object, "it isn't a number of units");
    if (!read_iso(text, &t))
        return refuse_time(d, object, "it isn't an ISO 8601 time");
    return put_together(d, &t, value) ? 0 : refuse_time(d, object, "it is outside what the unit can express");
}

/* An int attribute; -1 with an exception is told apart by *failed. */
static int64_t number_of(PyObject *object, const char *name, bool *failed) {
    PyObject *value = PyObject_GetAttrString(object, name);
    int64_t n = value == NULL ? -1 : PyLong_AsLongLong(value);
    Py_XDECREF(value);
    *failed |= n == -1 && PyErr_Occurred();
    return n;
}

static int set_date(const DTypeObject *d, int64_t *value, PyObject *object, bool with_clock) {
    bool failed = false;
    broken_down t = {.year = number_of(object, "year", &failed),
                     .month = (int)number_of(object, "month", &failed),
                     .day = (int)number_of(object, "day", &failed)};
    if (!failed && with_clock) {
        PyObject *zone = PyObject_GetAttrString(object, "tzinfo");
        failed = zone == NULL;
        Py_XDECREF(zone);
        if (!failed && zone != Py_None)
            return refuse_time(d, object, "it has a time zone, and a datetime64 hasn't: convert it to UTC and leave the zone out");
        t.hour = (int)number_of(object, "hour", &failed);
        t.minute = (int)number_of(object, "minute", &failed);
        t.second = (int)number_of(object, "second", &failed);
        t.attoseconds = number_of(object, "microsecond", &failed) * INT64_C(1000000000000);
    }
    if (failed)
        return -1;
    return put_together(d, &t, value) ? 0 : refuse_time(d, object, "it is outside what the unit can express");
}

static int set_timedelta(const DTypeObject *d, int64_t *value, PyObject *object) {
    bool failed = false;
    int64_t days = number_of(object, "days", &failed), seconds = number_of(object, "seconds", &failed);
    int64_t microseconds = number_of(object, "microseconds", &failed), all;
    if (failed)
        return -1;
    if (!fits((int128)days * INT64_C(86400000000) + (int128)seconds * 1000000 + microseconds, &all) ||
        !times_convert(all, &microseconds_difference, d, value))
        return refuse_time(d, object, "it is outside what the unit can express");
    return 0;
}

/* numpy's own scalars say their dtype and number. */
static int set_numpy(const DTypeObject *d, int64_t *value, PyObject *object) {
    PyObject *theirs = PyObject_GetAttrString(object, "dtype"), *integer = NULL;
    core_state *state = theirs == NULL ? NULL : state_of_interpreter();
    DTypeObject *from = state == NULL ? NULL : dtype_from_object(state, theirs);
    PyObject *array = from == NULL ? NULL : PyObject_CallMethod(object, "astype", "s", "i8");
    if (array != NULL)
        integer = PyNumber_Index(array);
    int64_t n = integer == NULL ? -1 : PyLong_AsLongLong(integer);
    int result = n == -1 && PyErr_Occurred() ? -1 : 0;
    if (result == 0 && (from->code != d->code || !times_convert(n, from, d, value)))
        result = refuse_time(d, object, from->code != d->code ? "it is of the other kind" : "it is outside what the unit can express");
    Py_XDECREF(integer);
    Py_XDECREF(array);
    Py_XDECREF((PyObject *)from);
    Py_XDECREF(theirs);
    return result;
}

enum { NOT_A_TIME, A_DATE, A_DATETIME, A_TIMEDELTA };

/* What of the datetime module it is an instance of; -1 with an exception. */
static int datetime_kind(PyObject *object) {
    if (PyLong_Check(object) || PyFloat_Check(object) || PyUnicode_Check(object) || PyBytes_Check(object) || PyList_Check(object))
        return NOT_A_TIME;
    static const char *const names[] = {"datetime", "date", "timedelta"};
    static const int kinds[] = {A_DATETIME, A_DATE, A_TIMEDELTA};
    for (int i = 0; i < 3; i++) {
        PyObject *type = from_datetime(names[i]);
        int is = type == NULL ? -1 : PyObject_IsInstance(object, type);
        Py_XDECREF(type);
        if (is != 0)
            return is < 0 ? -1 : kinds[i];
    }
    return NOT_A_TIME;
}

int times_set(const DTypeObject *d, int64_t *value, PyObject *object) {
    if (object == Py_None) {
        *value = NAT;
        return 0;
    }
    if (PyUnicode_Check(object) || PyBytes_Check(object))
        return set_text(d, value, object);
    if (PyLong_Check(object)) {
        *value = PyLong_AsLongLong(object);
        return *value == -1 && PyErr_Occurred() ? -1 : 0;
    }
    if (numpy_kind(object) != NULL)
        return set_numpy(d, value, object);
    int kind = datetime_kind(object);
    if (kind < 0)
        return -1;
    if (d->code == IST_DATETIME && (kind == A_DATE || kind == A_DATETIME))
        return set_date(d, value, object, kind == A_DATETIME);
    if (d->code == IST_TIMEDELTA && kind == A_TIMEDELTA)
        return set_timedelta(d, value, object);
    PyErr_Format(PyExc_TypeError, "%R of type %.200s doesn't become a '%s'", object, Py_TYPE(object)->tp_name, d->str);
    return -1;
}

DTypeObject *times_dtype_of_text(core_state *state, const DTypeObject *kind, PyObject *object) {
    broken_down t;
    if (!PyUnicode_Check(object) && !PyBytes_Check(object))
        return NULL;
    const char *text = plain_text(object);
    if (text == NULL || kind->code != IST_DATETIME || !read_iso(text, &t))
        return NULL;
    int unit = UNIT_Y;
    const char *at = strchr(text + 1, '-'); /* a year may be negative */
    if (at != NULL)
        unit = strlen(at) == 3 ? UNIT_M : UNIT_D;
    const char *clock = strchr(text, ':'), *point = strchr(text, '.');
    if (point != NULL)
        unit = UNIT_s + (int)Py_MIN((strlen(point + 1) + 2) / 3, 6);
    else if (clock != NULL)
        unit = strchr(clock + 1, ':') != NULL ? UNIT_s : UNIT_m;
    else if (strpbrk(text, "T ") != NULL)
        unit = UNIT_h;
    return dtype_of_time(state, IST_DATETIME, unit, 1, false);
}

DTypeObject *times_dtype_of(core_state *state, PyObject *object, bool *found) {
    *found = true;
    if (numpy_kind(object) != NULL) {
        PyObject *theirs = PyObject_GetAttrString(object, "dtype");
        DTypeObject *d = theirs == NULL ? NULL : dtype_from_object(state, theirs);
        Py_XDECREF(theirs);
        return d;
    }
    switch (datetime_kind(object)) {
    case A_DATE: return dtype_of_time(state, IST_DATETIME, UNIT_D, 1, false);
    case A_DATETIME: return dtype_of_time(state, IST_DATETIME, UNIT_us, 1, false);
    case A_TIMEDELTA: return dtype_of_time(state, IST_TIMEDELTA, UNIT_us, 1, false);
    case NOT_A_TIME: *found = false; return NULL;
    default: return NULL;
    }
}
