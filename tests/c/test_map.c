/* test_map.c: mapped files. */
#include "harness.h"
#include "os.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <isthmus/lease.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 5 * 4096 + 123 };
static unsigned char content[SIZE];

/* A file on a real file system, as msync of a memfd does nothing; unlinked already. */
static int make_file(void) {
    FILE *file = tmpfile();
    CHECK(file != NULL);
    int fd = dup(fileno(file));
    fclose(file);
    test_fill(content, SIZE, 12345);
    CHECK_EQ(write(fd, content, SIZE), SIZE);
    return fd;
}

static int map_fails(int fd, uint64_t offset, size_t size, uint32_t flags) {
    ist_segment untouched = {.generation = 77}, s = untouched;
    int error = ist_segment_map(fd, offset, size, flags, &s);
    CHECK(memcmp(&s, &untouched, sizeof s) == 0, "*out was written");
    return error;
}

Test(map, any_offset_and_size) {
    int fd = make_file();
    const uint64_t offsets[] = {0, 1, 63, 4095, 4096, 4097, 8191, 3 * 4096 + 7, SIZE - 1};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++)
        for (size_t size = 1; size <= SIZE - offsets[i]; size = size * 3 + 1)
            for (uint32_t flags = 0; flags <= (IST_READONLY | IST_PRIVATE); flags += 4) {
                ist_segment s;
                CHECK_EQ(ist_segment_map(fd, offsets[i], size, flags, &s), 0);
                CHECK_EQ(ist_segment_size(s), size);
                CHECK_EQ(memcmp(ist_segment_data(s), content + offsets[i], size), 0);
                CHECK_EQ(ist_segment_is_readonly(s), (flags & IST_READONLY) != 0);
                ist_segment_info info;
                ist_segment_read_info(s, &info);
                CHECK_EQ(info.kind, IST_KIND_FILE);
                ist_segment_release(s);
            }
    ist_segment s; /* to the very end, from nearly the end */
    CHECK_EQ(ist_segment_map(fd, 5 * 4096 + 5, 118, 0, &s), 0);
    CHECK_EQ(((unsigned char *)ist_segment_data(s))[117], content[SIZE - 1]);
    close(fd); /* the mapping stays */
    CHECK_EQ(((unsigned char *)ist_segment_data(s))[0], content[5 * 4096 + 5]);
    ist_token token = test_token(s);
    ist_segment_release(s);
    CHECK_EQ(ist_segment_acquire(&token, &s), -ESTALE);
    CHECK_EQ(test_stats().segments, 0);
}

Test(map, beyond_the_end) {
    int fd = make_file();
    CHECK_EQ(map_fails(fd, 0, SIZE + 1, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, 1, SIZE, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, SIZE, 1, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, SIZE - 1, 2, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, UINT64_MAX, 1, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, UINT64_MAX - 4095, 4096, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, INT64_MAX, 1, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, (uint64_t)INT64_MAX - 4096, 4096, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, 0, SIZE_MAX, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, 4096, PTRDIFF_MAX, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, 0, 0, 0), -EINVAL);
    CHECK_EQ(map_fails(fd, 0, 1, IST_ZERO), -EINVAL);
    CHECK_EQ(map_fails(fd, 0, 1, 1u << 20), -EINVAL);
    CHECK_EQ(ist_segment_map(fd, 0, 1, 0, NULL), -EINVAL);
    CHECK_EQ(map_fails(-1, 0, 1, 0), -EBADF);
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    CHECK_EQ(map_fails(ends[0], 0, 1, 0), -EINVAL);
    close(fd);
    CHECK_EQ(map_fails(fd, 0, 1, 0), -EBADF);
    CHECK_EQ(test_stats().segments, 0);
}

Test(map, changes_reach_the_file) {
    int fd = make_file();
    ist_segment s, t;
    CHECK_EQ(ist_segment_map(fd, 4000, 300, 0, &s), 0);
    CHECK_EQ(ist_segment_map(fd, 4000, 300, 0, &t), 0);
    memset(ist_segment_data(s), 'x', 300);
    CHECK_EQ(((char *)ist_segment_data(t))[299], 'x'); /* one file, whoever maps it */
    CHECK_EQ(ist_segment_sync(s), 0);
    unsigned char now[SIZE];
    CHECK_EQ(pread(fd, now, SIZE, 0), SIZE);
    memset(content + 4000, 'x', 300);
    CHECK_EQ(memcmp(now, content, SIZE), 0);
    ist_segment_release(s);
    ist_segment_release(t);
    close(fd);
}

Test(map, private_changes_do_not) {
    int fd = make_file();
    ist_segment s;
    CHECK_EQ(ist_segment_map(fd, 10, 8000, IST_PRIVATE, &s), 0);
    memset(ist_segment_data(s), 'x', 8000);
    CHECK_EQ(ist_segment_sync(s), 0);
    unsigned char now[SIZE];
    CHECK_EQ(pread(fd, now, SIZE, 0), SIZE);
    CHECK_EQ(memcmp(now, content, SIZE), 0);
    ist_segment_release(s);
    close(fd);
}

static void write_to(void *data) { *(volatile char *)data = 1; }

Test(map, readonly) {
    int fd = make_file();
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int readable = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(readable >= 0);
    CHECK_EQ(map_fails(readable, 0, 100, 0), -EACCES); /* shared and writable needs a writable descriptor */
    ist_segment s;
    CHECK_EQ(ist_segment_map(readable, 0, 100, IST_PRIVATE, &s), 0);
    write_to(ist_segment_data(s));
    ist_segment_release(s);
    CHECK_EQ(ist_segment_map(readable, 0, 100, IST_READONLY, &s), 0);
    CHECK(ist_segment_is_readonly(s) && !ist_segment_is_frozen(s));
    CHECK_EQ(ist_segment_make_writable(&s), -EROFS);
    CHECK_EQ(ist_segment_freeze(s), 0);
    CHECK_EQ(ist_segment_make_writable(&s), -EROFS);
    CHECK(test_in_child(write_to, ist_segment_data(s), 10) != 0, "the mapping can be written");
    ist_segment_release(s);
    close(readable);
    close(fd);
}

Test(map, only_files_are_synced) {
    ist_segment s = test_create(100, 0), w;
    ist_file untouched = {.inode = 77}, file = untouched;
    CHECK_EQ(ist_segment_sync(s), -EINVAL);
    CHECK_EQ(ist_segment_sync_range(s, 0, 1), -EINVAL);
    CHECK_EQ(ist_segment_file(s, &file), -EINVAL);
    CHECK_EQ(ist_segment_wrap(content, 10, NULL, NULL, 0, &w), 0);
    CHECK_EQ(ist_segment_sync(w), -EINVAL);
    CHECK_EQ(ist_segment_sync_range(w, 0, 1), -EINVAL);
    CHECK_EQ(ist_segment_file(w, &file), -EINVAL);
    CHECK(memcmp(&file, &untouched, sizeof file) == 0, "*out was written");
    ist_segment_release(s);
    ist_segment_release(w);
}

/* What msync was asked for. */
static char *synced;
static size_t synced_size;
static int sync_seen(void *address, size_t size, int flags) {
    CHECK_EQ(flags, MS_SYNC);
    synced = address;
    synced_size = size;
    return 0;
}

Test(map, a_part_is_synced) {
    int fd = make_file();
    ist_segment s;
    CHECK_EQ(ist_segment_map(fd, 4000, 9000, 0, &s), 0);
    isti_os.msync = sync_seen;
    const size_t ranges[][2] = {{0, 9000}, {0, 1}, {95, 2}, {96, 1}, {8999, 1}, {100, 8000}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        CHECK_EQ(ist_segment_sync_range(s, ranges[i][0], ranges[i][1]), 0);
        char *begin = (char *)ist_segment_data(s) + ranges[i][0], *end = begin + ranges[i][1];
        CHECK((uintptr_t)synced % 4096 == 0 && synced <= begin && begin - synced < 4096, "begins elsewhere");
        CHECK(synced + synced_size == end, "ends elsewhere");
    }
    synced = NULL;
    CHECK_EQ(ist_segment_sync_range(s, 9000, 0), 0);
    CHECK_EQ(ist_segment_sync_range(s, 9001, 0), -EINVAL);
    CHECK_EQ(ist_segment_sync_range(s, 0, 9001), -EINVAL);
    CHECK_EQ(ist_segment_sync_range(s, 8999, 2), -EINVAL);
    CHECK_EQ(ist_segment_sync_range(s, 1, SIZE_MAX), -EINVAL);
    CHECK(synced == NULL, "nothing was to be written");
    ist_segment_release(s);
    close(fd);
}

static ssize_t no_link(const char *path, char *target, size_t room) {
    (void)path, (void)target, (void)room;
    errno = ENOENT;
    return -1;
}

static ssize_t long_link(const char *path, char *target, size_t room) {
    (void)path;
    memset(target, '/', room);
    return (ssize_t)room;
}

Test(map, which_file_it_is) {
    char folder[] = "/tmp/isthmus-map-XXXXXX", path[64], link[64];
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/data", folder);
    snprintf(link, sizeof link, "%s/link", folder);
    CHECK_EQ(symlink(path, link), 0);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), other = open(link, O_RDONLY | O_CLOEXEC);
    CHECK_EQ(ftruncate(fd, 10000), 0);
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    const uint32_t flags[] = {0, IST_READONLY, IST_PRIVATE, IST_READONLY | IST_PRIVATE};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        ist_segment s, t;
        ist_file file;
        CHECK_EQ(ist_segment_map((flags[i] & IST_READONLY) ? other : fd, 4097 + i, 500, flags[i], &s), 0);
        CHECK_EQ(ist_segment_file(s, &file), 0);
        CHECK(file.device == st.st_dev && file.inode == st.st_ino && file.offset == 4097 + i && file.flags == flags[i]);
        CHECK_EQ(strcmp(file.path, path), 0); /* by the link too */
        ist_token token = test_token(s);
        CHECK_EQ(ist_segment_acquire(&token, &t), 0);
        ist_segment_release(s);
        CHECK_EQ(ist_segment_file(t, &file), 0); /* as long as anybody has it */
        CHECK_EQ(strcmp(file.path, path), 0);
        CHECK_EQ(ist_file_mapped(st.st_dev, st.st_ino), 4597 + i);
        CHECK_EQ(ist_segment_file(t, NULL), -EINVAL);
        ist_segment_release(t);
    }
    unlink(link);
    unlink(path);
    rmdir(folder);
    CHECK_EQ(ist_file_mapped(st.st_dev, st.st_ino), 0);
    ssize_t (*const replaced[])(const char *, char *, size_t) = {no_link, long_link};
    for (size_t i = 0; i < 2; i++) {
        ist_segment s;
        ist_file file;
        isti_os.readlink = replaced[i];
        CHECK_EQ(ist_segment_map(fd, 0, 500, 0, &s), 0);
        CHECK_EQ(ist_segment_file(s, &file), 0);
        CHECK(file.path[0] == 0 && file.inode == st.st_ino);
        ist_segment_release(s);
    }
    close(fd);
    close(other);
}

Test(map, how_far_it_is_mapped) {
    int fd = make_file(), another = make_file();
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    enum { COUNT = 20 };
    ist_segment s[COUNT], foreign;
    CHECK_EQ(ist_segment_map(another, 0, SIZE, 0, &foreign), 0);
    uint64_t random = test_seed(), ends[COUNT];
    for (int i = 0; i < COUNT; i++) {
        uint64_t offset = test_random(&random) % 10000, size = 1 + test_random(&random) % 10000;
        CHECK_EQ(ist_segment_map(fd, offset, size, i % 2 ? IST_PRIVATE : IST_READONLY, &s[i]), 0);
        ends[i] = offset + size;
    }
    for (int left = COUNT; left > 0; left--) {
        uint64_t end = 0;
        for (int i = 0; i < left; i++)
            end = ends[i] > end ? ends[i] : end;
        CHECK_EQ(ist_file_mapped(st.st_dev, st.st_ino), end);
        CHECK_EQ(ist_file_mapped(st.st_dev + 1, st.st_ino), 0);
        int gone = (int)(test_random(&random) % (uint64_t)left);
        ist_segment_release(s[gone]);
        s[gone] = s[left - 1];
        ends[gone] = ends[left - 1];
    }
    CHECK_EQ(ist_file_mapped(st.st_dev, st.st_ino), 0);
    ist_segment_release(foreign);
    close(fd);
    close(another);
}

static void child_has_it(void *handle) {
    ist_segment s = *(ist_segment *)handle, t;
    ist_file file;
    CHECK_EQ(ist_segment_file(s, &file), 0);
    CHECK_EQ(file.offset, 100);
    CHECK_EQ(ist_file_mapped(file.device, file.inode), 5100);
    CHECK_EQ(((unsigned char *)ist_segment_data(s))[1], 'p');
    ((unsigned char *)ist_segment_data(s))[0] = 'c';
    CHECK_EQ(ist_segment_sync(s), 0);
    ist_token token = test_token(s);
    CHECK_EQ(ist_segment_acquire(&token, &t), 0);
    CHECK(t.slot == s.slot);
    ist_segment_release(s);
    CHECK_EQ(ist_segment_file(t, &file), 0);
    const uint64_t device = file.device, inode = file.inode;
    ist_segment_release(t);
    CHECK_EQ(ist_file_mapped(device, inode), 0);
    CHECK_EQ(test_stats().segments, 0);
}

Test(map, a_forked_child_has_it) {
    int fd = make_file();
    for (int known = 0; known < 2; known++) {
        ist_segment s;
        CHECK_EQ(ist_segment_map(fd, 100, 5000, 0, &s), 0);
        ((unsigned char *)ist_segment_data(s))[1] = 'p';
        if (known)
            test_token(s);
        CHECK_CHILD(child_has_it, &s, 30);
        CHECK_EQ(((unsigned char *)ist_segment_data(s))[0], 'c');
        CHECK_EQ(test_owners(s), 1);
        ist_segment_release(s);
    }
    close(fd);
}

Test(map, a_lease_of_it_is_none_of_the_heap) {
    int fd = memfd_create("large", MFD_CLOEXEC);
    CHECK_EQ(ftruncate(fd, (off_t)1 << 40), 0);
    ist_segment s, heap = test_create(100, 0);
    CHECK_EQ(ist_segment_map(fd, 0, (size_t)1 << 40, 0, &s), 0); /* more than a quarter of the heap */
    uint64_t number, more;
    ist_token token = test_token(s);
    CHECK_EQ(ist_lease_take(s, &number), 0);
    ist_segment_release(s);
    CHECK_EQ(ist_lease_take(heap, &more), 0);
    CHECK_EQ(test_stats().lease_bytes, 100);
    CHECK_EQ(ist_lease_load(&token, number, &s), 0);
    ist_segment_release(s);
    ist_token heaps = test_token(heap);
    ist_lease_strike(&heaps, more);
    ist_segment_release(heap);
    CHECK_EQ(test_stats().segments, 0);
    close(fd);
}

Test(map, address_space_comes_back) {
    int fd = memfd_create("large", MFD_CLOEXEC);
    CHECK_EQ(ftruncate(fd, (off_t)1 << 40), 0); /* sparse */
    for (int i = 0; i < 500; i++) {             /* 500 TiB in all: more than there is */
        ist_segment s;
        CHECK_EQ(ist_segment_map(fd, 4097, ((size_t)1 << 40) - 5000, 0, &s), 0);
        ist_segment_release(s);
    }
    close(fd);
}
