/* A disk that fails: loaded before the C library (LD_PRELOAD), it lets the Nth operation that
   changes something below a folder fail, or kills the process there. Linux.

   fault_arm(folder, at, error, sticky, half): from now on; at 0 only counts. error is an errno; 0
   kills. sticky: all later ones that need room fail, too. half: a write that fails writes half.
   fault_count(): operations so far. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long at, count;
static int error, sticky, half;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void fault_arm(const char *below, long nth, int number, int stays, int halves) {
  snprintf(folder, sizeof folder, "%s", below);
  count = 0, at = nth, error = number, sticky = stays, half = halves;
}

long fault_count(void) { return count; }

static int below(const char *path) {
  size_t n = strlen(folder);
  return n && path && !strncmp(path, folder, n) && (path[n] == '/' || !path[n]);
}

static int open_below(int descriptor) {
  char link[64], path[PATH_MAX];
  if (!folder[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return below(path);
}

/* Whether this operation is to fail. What takes no room works on a disk that stays full. */
static int fails(int takes_room) {
  pthread_mutex_lock(&lock);
  long n = ++count;
  pthread_mutex_unlock(&lock);
  if (!at || n < at || (n > at && !(sticky && takes_room))) return 0;
  if (!error) kill(getpid(), SIGKILL);
  errno = error;
  return 1;
}

#define NEXT(name)                   \
  static __typeof__(&name) next;     \
  if (!next) next = dlsym(RTLD_NEXT, #name)

ssize_t write(int descriptor, const void *from, size_t size) {
  NEXT(write);
  if (open_below(descriptor) && fails(1)) {
    int number = errno;
    if (half) next(descriptor, from, size / 2);
    errno = number;
    return -1;
  }
  return next(descriptor, from, size);
}

int fsync(int descriptor) {
  NEXT(fsync);
  return open_below(descriptor) && fails(1) ? -1 : next(descriptor);
}

int ftruncate(int descriptor, off_t size) {
  NEXT(ftruncate);
  return open_below(descriptor) && fails(0) ? -1 : next(descriptor, size);
}

int truncate(const char *path, off_t size) {
  NEXT(truncate);
  return below(path) && fails(0) ? -1 : next(path, size);
}

int rename(const char *from, const char *to) {
  NEXT(rename);
  return below(to) && fails(0) ? -1 : next(from, to);
}

int unlink(const char *path) {
  NEXT(unlink);
  return below(path) && fails(0) ? -1 : next(path);
}

int mkdir(const char *path, mode_t mode) {
  NEXT(mkdir);
  return below(path) && fails(1) ? -1 : next(path, mode);
}

static int makes(const char *path, int flags) { return below(path) && (flags & O_CREAT); }

#define OPEN(name)                                                    \
  int name(const char *path, int flags, ...) {                        \
    NEXT(name);                                                       \
    va_list more;                                                     \
    va_start(more, flags);                                            \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                     \
    return makes(path, flags) && fails(1) ? -1 : next(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)
int ftruncate64(int descriptor, off64_t size) {
  NEXT(ftruncate64);
  return open_below(descriptor) && fails(0) ? -1 : next(descriptor, size);
}

int truncate64(const char *path, off64_t size) {
  NEXT(truncate64);
  return below(path) && fails(0) ? -1 : next(path, size);
}
