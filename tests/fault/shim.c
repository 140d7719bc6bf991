/* A disk that refuses: preloaded, it counts the operations on files below one folder, and fails the N-th of them.

   Operations are: open for writing, write, fsync, rename, link, mkdir, unlink, rmdir and truncate, by whatever library.
   A program arms it with shim_arm; what happens below other folders, and all reading, passes untouched. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT = 0, SHORT = -1, KILL = -2 }; /* what happens; a positive number is an errno */

static char folder[PATH_MAX];
static atomic_long seen, first;
static atomic_int happens, stays, armed;

/* Count what happens below `place` from now on; fail operation number `at`, from 1 on, and with `on` all after it. */
void shim_arm(const char *place, long at, int what, int on) {
    armed = 0;
    snprintf(folder, sizeof folder, "%s", place);
    seen = 0;
    first = at;
    happens = what;
    stays = on;
    armed = 1;
}

/* Let everything pass again, and return how many operations there were. */
long shim_disarm(void) {
    armed = 0;
    return seen;
}

static int lies_below(const char *path) {
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int concerns_path(int descriptor, const char *path) {
    char whole[2 * PATH_MAX], link[64];
    if (!armed || !path) return 0;
    if (path[0] == '/') return lies_below(path);
    if (descriptor == AT_FDCWD) {
        if (!getcwd(whole, PATH_MAX)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0) return 0;
        whole[length] = 0;
    }
    strncat(whole, "/", sizeof whole - strlen(whole) - 1);
    strncat(whole, path, sizeof whole - strlen(whole) - 1);
    return lies_below(whole);
}

static int concerns_file(int descriptor) {
    char link[64], path[PATH_MAX];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return lies_below(path);
}

/* Return 0: it passes; SHORT; or an errno. */
static int decide(int concerned) {
    if (!concerned) return 0;
    long number = ++seen;
    if (happens == COUNT || number < first || (number > first && !stays)) return 0;
    if (happens == KILL) raise(SIGKILL);
    return happens;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE(concerned)                        \
    do {                                         \
        int outcome = decide(concerned);         \
        if (outcome > 0) return errno = outcome, -1; \
    } while (0)

#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & O_CREAT))

#define OPEN(name)                                                    \
    int name(const char *path, int flags, ...) {                      \
        va_list rest;                                                 \
        va_start(rest, flags);                                        \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                 \
        REFUSE(WRITES(flags) && concerns_path(AT_FDCWD, path));       \
        return REAL(name)(path, flags, mode);                         \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                  \
    int name(int place, const char *path, int flags, ...) {           \
        va_list rest;                                                 \
        va_start(rest, flags);                                        \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                 \
        REFUSE(WRITES(flags) && concerns_path(place, path));          \
        return REAL(name)(place, path, flags, mode);                  \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *content, size_t size) {
    int outcome = decide(concerns_file(file));
    if (outcome > 0) return errno = outcome, -1;
    return REAL(write)(file, content, outcome == SHORT && size > 1 ? size / 2 : size);
}

#define PWRITE(name, offset_type)                                                 \
    ssize_t name(int file, const void *content, size_t size, offset_type place) { \
        int outcome = decide(concerns_file(file));                                \
        if (outcome > 0) return errno = outcome, -1;                              \
        return REAL(name)(file, content, outcome == SHORT && size > 1 ? size / 2 : size, place); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int file, const struct iovec *parts, int count) {
    int outcome = decide(concerns_file(file));
    if (outcome > 0) return errno = outcome, -1;
    if (outcome == SHORT && count > 0 && parts[0].iov_len > 1)
        return REAL(write)(file, parts[0].iov_base, parts[0].iov_len / 2);
    return REAL(writev)(file, parts, count);
}

int fsync(int file) {
    REFUSE(concerns_file(file));
    return REAL(fsync)(file);
}

int fdatasync(int file) {
    REFUSE(concerns_file(file));
    return REAL(fdatasync)(file);
}

int ftruncate(int file, off_t size) {
    REFUSE(concerns_file(file));
    return REAL(ftruncate)(file, size);
}

int ftruncate64(int file, off64_t size) {
    REFUSE(concerns_file(file));
    return REAL(ftruncate64)(file, size);
}

int rename(const char *from, const char *to) {
    REFUSE(concerns_path(AT_FDCWD, to));
    return REAL(rename)(from, to);
}

int renameat(int from_place, const char *from, int to_place, const char *to) {
    REFUSE(concerns_path(to_place, to));
    return REAL(renameat)(from_place, from, to_place, to);
}

int renameat2(int from_place, const char *from, int to_place, const char *to, unsigned int flags) {
    REFUSE(concerns_path(to_place, to));
    return REAL(renameat2)(from_place, from, to_place, to, flags);
}

int link(const char *from, const char *to) {
    REFUSE(concerns_path(AT_FDCWD, to));
    return REAL(link)(from, to);
}

int linkat(int from_place, const char *from, int to_place, const char *to, int flags) {
    REFUSE(concerns_path(to_place, to));
    return REAL(linkat)(from_place, from, to_place, to, flags);
}

int mkdir(const char *path, mode_t mode) {
    REFUSE(concerns_path(AT_FDCWD, path));
    return REAL(mkdir)(path, mode);
}

int mkdirat(int place, const char *path, mode_t mode) {
    REFUSE(concerns_path(place, path));
    return REAL(mkdirat)(place, path, mode);
}

int unlink(const char *path) {
    REFUSE(concerns_path(AT_FDCWD, path));
    return REAL(unlink)(path);
}

int unlinkat(int place, const char *path, int flags) {
    REFUSE(concerns_path(place, path));
    return REAL(unlinkat)(place, path, flags);
}

int rmdir(const char *path) {
    REFUSE(concerns_path(AT_FDCWD, path));
    return REAL(rmdir)(path);
}
