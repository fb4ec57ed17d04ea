/* <isthmus/clone.h>: the bytes of a structured clone: what they are made of, read and written item by item. docs/clone.md has the table.
 *
 * A message is a head of 8 bytes and one item; an item is a tag, its data and the items inside of it, in that order. Nothing in it is an
 * address, and nothing depends on the machine: numbers are little-endian. What an item *means* (that a date has 31 days at most, that a
 * class has a name) is for who makes objects of it; what is checked here is that the bytes are items, wholly inside the message, and that
 * they can't ask for more memory than they have bytes.
 *
 * Functions here are inline, for an encoder's and a decoder's loop; only ist_clone_check is the library's.
 * Ownership: none. A reader and an item point into the message, which is the caller's and lasts longer.
 * On failure: what was read into the reader and the item isn't to be used; ist_clone_check leaves *out alone.
 * Threads, processes: the bytes may be changed by somebody else meanwhile: each is read once, but for data, of which only the address is
 * told: whoever uses data copies it before it checks it.
 * Errors: -EBADMSG for bytes that aren't a message; nothing else.
 */
#ifndef ISTHMUS_CLONE_H
#define ISTHMUS_CLONE_H

#include <isthmus/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IST_CLONE_VERSION 1
#define IST_CLONE_HEAD 8 /* "ISTC", version, three zeros */

/* Tags. Those below IST_CLONE_NONE have a small number in them. */
#define IST_CLONE_SMALL 0x00      /* the integers 0 … 63 */
#define IST_CLONE_TEXT 0x40       /* ASCII text of 0 … 31 bytes */
#define IST_CLONE_TEXT_KEPT 0x60  /* the same, with IST_CLONE_KEEP before it */
#define IST_CLONE_FEW_LIST 0x80   /* lists of 0 … 15 items */
#define IST_CLONE_FEW_DICT 0x90   /* dicts of 0 … 15 pairs */
#define IST_CLONE_FEW_TUPLE 0xa0  /* tuples of 0 … 7 items */
#define IST_CLONE_NEAR_SAME 0xa8  /* IST_CLONE_SAME 0 … 23 */

/* What an item is: the tag, or for the tags above the one that says the same at length.
 * "n" is a count (ist_clone_count): of bytes, or of items that follow. */
enum ist_clone_kind {
    IST_CLONE_NONE = 0xc0,
    IST_CLONE_FALSE,
    IST_CLONE_TRUE,
    IST_CLONE_ELLIPSIS,
    IST_CLONE_NOT_IMPLEMENTED,
    IST_CLONE_INT8,  /* 1 byte, signed, as all of them; read as IST_CLONE_INT64 */
    IST_CLONE_INT16,
    IST_CLONE_INT32,
    IST_CLONE_INT64,
    IST_CLONE_INT,         /* n bytes */
    IST_CLONE_FLOAT,       /* 8 bytes, IEEE 754 */
    IST_CLONE_COMPLEX,     /* 16: two of them */
    IST_CLONE_TEXT_ASCII,  /* n code points of 1 byte, none above 0x7f */
    IST_CLONE_TEXT_1,      /* of 1 byte, the greatest of them above 0x7f */
    IST_CLONE_TEXT_2,      /* of 2 bytes, the greatest of them above 0xff */
    IST_CLONE_TEXT_4,      /* of 4 bytes, the greatest of them above 0xffff */
    IST_CLONE_BYTES,       /* n bytes */
    IST_CLONE_BYTEARRAY,   /* n bytes */
    IST_CLONE_LIST,        /* n items */
    IST_CLONE_TUPLE,       /* n items */
    IST_CLONE_DICT,        /* n pairs: key, value */
    IST_CLONE_SET,         /* n items */
    IST_CLONE_FROZENSET,   /* n items */
    IST_CLONE_RANGE,       /* 3 items: start, stop, step */
    IST_CLONE_SLICE,       /* 3 items, likewise */
    IST_CLONE_DATE,        /* 4 bytes: year 2, month, day */
    IST_CLONE_TIME,        /* 8: hour, minute, second, fold, microsecond 4 */
    IST_CLONE_DATETIME,    /* 12: a date and a time */
    IST_CLONE_ZONED_TIME,  /* 8 bytes and 1 item: the time zone */
    IST_CLONE_ZONED_DATETIME, /* 12 bytes and 1 item */
    IST_CLONE_TIMEDELTA,   /* 12: days, seconds, microseconds */
    IST_CLONE_UTC,
    IST_CLONE_TIMEZONE,    /* 12 bytes as a timedelta, 1 item: its name, or none */
    IST_CLONE_GLOBAL,      /* 2 items: a module's name and the name of a class or function in it */
    IST_CLONE_ENUM,        /* 2 items: the class; the member's name, or for a combination of flags its number */
    IST_CLONE_NAMEDTUPLE,  /* n items: the class and its fields */
    IST_CLONE_INSTANCE,    /* 1 + 2n items: the class, then names and values of its attributes */
    IST_CLONE_EXCEPTION,   /* 1 byte: whether its context is hidden; 6 items: class, args, attributes, state, cause, context */
    IST_CLONE_REGISTERED,  /* 2 items: the name of its type, and what its encoder made of it */
    IST_CLONE_PICKLE,      /* 1 item: a tuple of the pickle's bytes and the arrays in it */
    IST_CLONE_ARRAY,       /* n, less than 2**32 - 1: the number of an array that travels beside the message */
    IST_CLONE_CONTENTS,    /* n bytes: an array by value: dtype, shape and contents (docs/clone.md) */
    IST_CLONE_NDARRAY,     /* 1 item, an array: as numpy's */
    IST_CLONE_NDARRAY_F,   /* 1 item: the same, to be transposed */
    IST_CLONE_MEMORYVIEW,  /* 1 byte: whether it is read-only; 1 item, an array */
    IST_CLONE_ARRAY_ARRAY, /* 1 byte, the type code of an array.array; n bytes, its contents as the machine has them */
    IST_CLONE_KEEP,        /* the next item has a number from now on: 0, 1, 2 … (read as a property of that item) */
    IST_CLONE_SAME,        /* n: the item with that number, once more */
    IST_CLONE_TAGS_END
};

/* ---- reading -------------------------------------------------------------------------------------------------------------------- */

typedef struct ist_clone_reader {
    const unsigned char *at, *end;
    uint64_t due;  /* items that are still to come, of all that have begun */
    uint64_t kept; /* numbers given out */
} ist_clone_reader;

typedef struct ist_clone_item {
    unsigned kind; /* enum ist_clone_kind */
    bool keep;     /* has the number reader.kept - 1 */
    uint64_t n;    /* of bytes of data, or of text's code points, or of items or pairs inside; or the number that an item consists of */
    int64_t integer;           /* IST_CLONE_INT64; the single byte of IST_CLONE_EXCEPTION, IST_CLONE_MEMORYVIEW, IST_CLONE_ARRAY_ARRAY */
    const unsigned char *data; /* inside the message: nobody has looked at it yet */
} ist_clone_item;

static inline uint16_t ist_clone_get16(const unsigned char *at) { return (uint16_t)(at[0] | at[1] << 8); }
static inline uint32_t ist_clone_get32(const unsigned char *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}
static inline uint64_t ist_clone_get64(const unsigned char *at) {
    return (uint64_t)ist_clone_get32(at) | (uint64_t)ist_clone_get32(at + 4) << 32;
}
static inline size_t ist_clone_left(const ist_clone_reader *r) { return (size_t)(r->end - r->at); }

/* A count: one byte, or 254 and four, or 255 and eight. */
IST_MUST_CHECK static inline int ist_clone_count(ist_clone_reader *r, uint64_t *n) {
    if (r->at == r->end)
        return -EBADMSG;
    const unsigned char first = *r->at++;
    if (first < 254) {
        *n = first;
        return 0;
    }
    const size_t bytes = first == 254 ? 4 : 8;
    if (ist_clone_left(r) < bytes)
        return -EBADMSG;
    *n = bytes == 4 ? ist_clone_get32(r->at) : ist_clone_get64(r->at);
    r->at += bytes;
    return 0;
}

/* n units of data. */
IST_MUST_CHECK static inline int ist_clone_data(ist_clone_reader *r, uint64_t n, unsigned unit, ist_clone_item *item) {
    if (n > ist_clone_left(r) / unit)
        return -EBADMSG;
    item->n = n;
    item->data = r->at;
    r->at += (size_t)n * unit;
    return 0;
}

/* n groups of items begin. Each item has a byte at least, so who makes room for n items at once never makes more than the message has
 * bytes, however containers are nested. */
IST_MUST_CHECK static inline int ist_clone_begin(ist_clone_reader *r, uint64_t n, unsigned group, ist_clone_item *item) {
    const size_t left = ist_clone_left(r);
    if (n > left / group || r->due > left - n * group)
        return -EBADMSG;
    item->n = n;
    r->due += n * group;
    return 0;
}

/* Begins a message: looks at its head. */
IST_MUST_CHECK static inline int ist_clone_open(ist_clone_reader *r, const void *bytes, size_t size) {
    const unsigned char *at = (const unsigned char *)bytes;
    if (size <= IST_CLONE_HEAD || memcmp(at, "ISTC", 4) != 0 || at[4] != IST_CLONE_VERSION || at[5] != 0 || at[6] != 0 || at[7] != 0)
        return -EBADMSG;
    r->at = at + IST_CLONE_HEAD;
    r->end = at + size;
    r->due = 1;
    r->kept = 0;
    return 0;
}

/* 0: every item was read, and no byte is left. */
IST_MUST_CHECK static inline int ist_clone_close(const ist_clone_reader *r) { return r->due == 0 && r->at == r->end ? 0 : -EBADMSG; }

/* The kinds that are less common than those ist_clone_next looks at by itself. */
IST_MUST_CHECK static inline int ist_clone_next_other(ist_clone_reader *r, ist_clone_item *item) {
    uint64_t n;
    switch (item->kind) {
    case IST_CLONE_ELLIPSIS:
    case IST_CLONE_NOT_IMPLEMENTED:
    case IST_CLONE_UTC: return 0;
    case IST_CLONE_INT:
    case IST_CLONE_BYTES:
    case IST_CLONE_BYTEARRAY:
    case IST_CLONE_CONTENTS:
    case IST_CLONE_TEXT_ASCII:
    case IST_CLONE_TEXT_1: return ist_clone_count(r, &n) == 0 ? ist_clone_data(r, n, 1, item) : -EBADMSG;
    case IST_CLONE_TEXT_2: return ist_clone_count(r, &n) == 0 ? ist_clone_data(r, n, 2, item) : -EBADMSG;
    case IST_CLONE_TEXT_4: return ist_clone_count(r, &n) == 0 ? ist_clone_data(r, n, 4, item) : -EBADMSG;
    case IST_CLONE_COMPLEX: return ist_clone_data(r, 16, 1, item);
    case IST_CLONE_LIST:
    case IST_CLONE_TUPLE:
    case IST_CLONE_SET:
    case IST_CLONE_FROZENSET:
    case IST_CLONE_NAMEDTUPLE: return ist_clone_count(r, &n) == 0 ? ist_clone_begin(r, n, 1, item) : -EBADMSG;
    case IST_CLONE_DICT: return ist_clone_count(r, &n) == 0 ? ist_clone_begin(r, n, 2, item) : -EBADMSG;
    case IST_CLONE_INSTANCE:
        if (ist_clone_begin(r, 1, 1, item) != 0 || ist_clone_count(r, &n) != 0)
            return -EBADMSG;
        return ist_clone_begin(r, n, 2, item);
    case IST_CLONE_RANGE:
    case IST_CLONE_SLICE: return ist_clone_begin(r, 3, 1, item);
    case IST_CLONE_GLOBAL:
    case IST_CLONE_ENUM:
    case IST_CLONE_REGISTERED: return ist_clone_begin(r, 2, 1, item);
    case IST_CLONE_PICKLE:
    case IST_CLONE_NDARRAY:
    case IST_CLONE_NDARRAY_F: return ist_clone_begin(r, 1, 1, item);
    case IST_CLONE_MEMORYVIEW:
    case IST_CLONE_EXCEPTION:
        if (ist_clone_data(r, 1, 1, item) != 0)
            return -EBADMSG;
        item->integer = item->data[0];
        return ist_clone_begin(r, item->kind == IST_CLONE_EXCEPTION ? 6 : 1, 1, item);
    case IST_CLONE_DATE: return ist_clone_data(r, 4, 1, item);
    case IST_CLONE_TIME: return ist_clone_data(r, 8, 1, item);
    case IST_CLONE_DATETIME:
    case IST_CLONE_TIMEDELTA: return ist_clone_data(r, 12, 1, item);
    case IST_CLONE_ZONED_TIME: return ist_clone_data(r, 8, 1, item) == 0 ? ist_clone_begin(r, 1, 1, item) : -EBADMSG;
    case IST_CLONE_ZONED_DATETIME:
    case IST_CLONE_TIMEZONE: return ist_clone_data(r, 12, 1, item) == 0 ? ist_clone_begin(r, 1, 1, item) : -EBADMSG;
    case IST_CLONE_ARRAY: return ist_clone_count(r, &item->n) == 0 && item->n < UINT32_MAX ? 0 : -EBADMSG;
    case IST_CLONE_ARRAY_ARRAY:
        if (ist_clone_data(r, 1, 1, item) != 0)
            return -EBADMSG;
        item->integer = item->data[0];
        return ist_clone_count(r, &n) == 0 ? ist_clone_data(r, n, 1, item) : -EBADMSG;
    default: return -EBADMSG; /* a tag of a later version, or none */
    }
}

/* The item that begins at r->at. Whether the number of IST_CLONE_SAME was given out is checked; whether what has it is complete isn't. */
IST_MUST_CHECK static inline int ist_clone_next(ist_clone_reader *r, ist_clone_item *item) {
    if (r->at == r->end || r->due == 0)
        return -EBADMSG;
    r->due--;
    unsigned tag = *r->at++;
    item->keep = tag == IST_CLONE_KEEP;
    if (item->keep) {
        if (r->at == r->end)
            return -EBADMSG;
        tag = *r->at++;
        if (tag >= IST_CLONE_KEEP || (tag & 0xe0) == IST_CLONE_TEXT_KEPT || (tag >= IST_CLONE_NEAR_SAME && tag < IST_CLONE_NONE))
            return -EBADMSG; /* what has a number already */
        r->kept++;
    }
    item->kind = tag;
    if (tag < IST_CLONE_TEXT) {
        item->kind = IST_CLONE_INT64;
        item->integer = (int64_t)tag;
        return 0;
    }
    if (tag < IST_CLONE_FEW_LIST) {
        item->kind = IST_CLONE_TEXT_ASCII;
        if (tag >= IST_CLONE_TEXT_KEPT) {
            item->keep = true;
            r->kept++;
        }
        return ist_clone_data(r, tag & 0x1f, 1, item);
    }
    if (tag < IST_CLONE_NONE) {
        if (tag < IST_CLONE_FEW_DICT) {
            item->kind = IST_CLONE_LIST;
            return ist_clone_begin(r, tag & 0xf, 1, item);
        }
        if (tag < IST_CLONE_FEW_TUPLE) {
            item->kind = IST_CLONE_DICT;
            return ist_clone_begin(r, tag & 0xf, 2, item);
        }
        if (tag < IST_CLONE_NEAR_SAME) {
            item->kind = IST_CLONE_TUPLE;
            return ist_clone_begin(r, tag & 7, 1, item);
        }
        item->kind = IST_CLONE_SAME;
        item->n = tag - IST_CLONE_NEAR_SAME;
        return item->n < r->kept ? 0 : -EBADMSG;
    }
    switch (tag) {
    case IST_CLONE_NONE:
    case IST_CLONE_FALSE:
    case IST_CLONE_TRUE: return 0;
    case IST_CLONE_INT8:
    case IST_CLONE_INT16:
    case IST_CLONE_INT32:
    case IST_CLONE_INT64:
        if (ist_clone_data(r, UINT64_C(1) << (tag - IST_CLONE_INT8), 1, item) != 0)
            return -EBADMSG;
        item->kind = IST_CLONE_INT64;
        item->integer = tag == IST_CLONE_INT8    ? (int8_t)item->data[0]
                        : tag == IST_CLONE_INT16 ? (int16_t)ist_clone_get16(item->data)
                        : tag == IST_CLONE_INT32 ? (int32_t)ist_clone_get32(item->data)
                                                 : (int64_t)ist_clone_get64(item->data);
        return 0;
    case IST_CLONE_FLOAT: return ist_clone_data(r, 8, 1, item);
    case IST_CLONE_SAME: return ist_clone_count(r, &item->n) == 0 && item->n < r->kept ? 0 : -EBADMSG;
    default: return ist_clone_next_other(r, item);
    }
}

/* What a message that ist_clone_check found good consists of. */
typedef struct ist_clone_summary {
    uint64_t items;  /* IST_CLONE_SAME counts, IST_CLONE_KEEP doesn't */
    uint64_t kept;   /* items that have a number */
    uint64_t arrays; /* how many must come beside it: the greatest number of an array plus one */
    uint64_t data;   /* bytes of data: of text, bytes and contents */
} ist_clone_summary;

/* Reads a message to its end, in constant memory. 0: it consists of items, and nothing else. Errors: -EBADMSG. Threads: any. */
IST_MUST_CHECK IST_API int ist_clone_check(const void *bytes, size_t size, ist_clone_summary *out);

/* ---- writing: each returns the address behind what it wrote; the caller has made room -------------------------------------------- */

#define IST_CLONE_ROOM 16 /* bytes: no head of an item, its data apart, has more (an instance's, a time zone's 13 …) */

static inline unsigned char *ist_clone_put16(unsigned char *at, uint16_t n) {
    at[0] = (unsigned char)n;
    at[1] = (unsigned char)(n >> 8);
    return at + 2;
}
static inline unsigned char *ist_clone_put32(unsigned char *at, uint32_t n) {
    at[0] = (unsigned char)n;
    at[1] = (unsigned char)(n >> 8);
    at[2] = (unsigned char)(n >> 16);
    at[3] = (unsigned char)(n >> 24);
    return at + 4;
}
static inline unsigned char *ist_clone_put64(unsigned char *at, uint64_t n) {
    return ist_clone_put32(ist_clone_put32(at, (uint32_t)n), (uint32_t)(n >> 32));
}
static inline unsigned char *ist_clone_put_head(unsigned char *at) {
    static const unsigned char head[IST_CLONE_HEAD] = {'I', 'S', 'T', 'C', IST_CLONE_VERSION, 0, 0, 0};
    memcpy(at, head, sizeof head);
    return at + sizeof head;
}
static inline unsigned char *ist_clone_put_count(unsigned char *at, uint64_t n) {
    if (n < 254) {
        *at = (unsigned char)n;
        return at + 1;
    }
    if (n <= UINT32_MAX) {
        *at = 254;
        return ist_clone_put32(at + 1, (uint32_t)n);
    }
    *at = 255;
    return ist_clone_put64(at + 1, n);
}
static inline unsigned char *ist_clone_put_tag(unsigned char *at, unsigned tag) {
    *at = (unsigned char)tag;
    return at + 1;
}
static inline unsigned char *ist_clone_put_counted(unsigned char *at, unsigned tag, uint64_t n) {
    return ist_clone_put_count(ist_clone_put_tag(at, tag), n);
}
static inline unsigned char *ist_clone_put_integer(unsigned char *at, int64_t n) {
    if (n >= 0 && n < 64)
        return ist_clone_put_tag(at, (unsigned)n);
    if (n >= INT8_MIN && n <= INT8_MAX) {
        at[0] = IST_CLONE_INT8;
        at[1] = (unsigned char)n;
        return at + 2;
    }
    if (n >= INT16_MIN && n <= INT16_MAX)
        return ist_clone_put16(ist_clone_put_tag(at, IST_CLONE_INT16), (uint16_t)n);
    if (n >= INT32_MIN && n <= INT32_MAX)
        return ist_clone_put32(ist_clone_put_tag(at, IST_CLONE_INT32), (uint32_t)n);
    return ist_clone_put64(ist_clone_put_tag(at, IST_CLONE_INT64), (uint64_t)n);
}
static inline unsigned char *ist_clone_put_same(unsigned char *at, uint64_t number) {
    if (number < IST_CLONE_NONE - IST_CLONE_NEAR_SAME)
        return ist_clone_put_tag(at, IST_CLONE_NEAR_SAME + (unsigned)number);
    return ist_clone_put_counted(at, IST_CLONE_SAME, number);
}

#ifdef __cplusplus
}
#endif
#endif
