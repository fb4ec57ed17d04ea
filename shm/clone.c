/* clone.c: looks through a message of <isthmus/clone.h> without making anything of it.
 *
 * No stack: what is still to come is one number, since an item says how many are inside of it before they begin.
 */
#include <isthmus/clone.h>

static bool has_data(unsigned kind) {
    return (kind >= IST_CLONE_INT && kind <= IST_CLONE_BYTEARRAY) || kind == IST_CLONE_CONTENTS || kind == IST_CLONE_ARRAY_ARRAY;
}

int ist_clone_check(const void *bytes, size_t size, ist_clone_summary *out) {
    ist_clone_reader r;
    if (ist_clone_open(&r, bytes, size) != 0)
        return -EBADMSG;
    ist_clone_summary found = {0, 0, 0, 0};
    ist_clone_item item = {0};
    while (r.due > 0) {
        if (ist_clone_next(&r, &item) != 0)
            return -EBADMSG;
        found.items++;
        if (item.kind == IST_CLONE_ARRAY)
            found.arrays = item.n < found.arrays ? found.arrays : item.n + 1;
        else if (has_data(item.kind))
            found.data += (size_t)(r.at - item.data);
    }
    if (ist_clone_close(&r) != 0)
        return -EBADMSG;
    found.kept = r.kept;
    *out = found;
    return 0;
}
