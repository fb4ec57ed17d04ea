/* main.c: uses the installed library a little, inline functions included. */
#include <isthmus/isthmus.h>
#include <isthmus/segment_inline.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    ist_segment s, t;
    ist_token token;
    if (ist_segment_create(1000, IST_ZERO, &s) != 0 || ist_segment_token(s, &token) != 0 || ist_segment_acquire(&token, &t) != 0)
        return 1;
    ist_segment_release_inline(s);
    memset(ist_segment_data(t), 1, ist_segment_size(t));
    ist_segment_release_inline(t);
    if (ist_segment_acquire(&token, &t) != -ESTALE || ist_epoch() == 0)
        return 2;
    printf("%u %s\n", (unsigned)ist_version(), ist_strerror(-ESTALE));
    return 0;
}
