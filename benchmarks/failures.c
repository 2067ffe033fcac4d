/* A disk that fails at one operation: preloaded into a process (LD_PRELOAD), which arms it.

   It stands in the C library's place for what Python, and whatever it has loaded, asks of the files
   below one folder. An operation is known by its name, its file and how many of that kind came
   before, so that threads may come in any order; each is noted. See benchmarks/failures.py. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES 65536
#define NOTES 8192

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *root;      /* absolute, and the working directory; NULL while it is not armed */
static char *target;    /* "operation file number" */
static int error;       /* what it fails with */
static int stays_full;  /* whether everything that needs room fails from then on */
static int struck;
static char *opened[FILES]; /* by descriptor, the file below the root that it is of */
static char *notes[NOTES];
static int noted;

/* The name of a file below the root, or NULL. The names of TensorBoard's have times in them. */
static char *below(int folder, const char *path)
{
    char name[4096], *end;
    if (!root || !path)
        return NULL;
    if (folder != AT_FDCWD && path[0] != '/') {
        if (folder < 0 || folder >= FILES || !opened[folder])
            return NULL;
        snprintf(name, sizeof name, "%s/%s", opened[folder], path);
    } else if (path[0] != '/')
        snprintf(name, sizeof name, "%s", path);
    else if (!strncmp(path, root, strlen(root)) && path[strlen(root)] == '/')
        snprintf(name, sizeof name, "%s", path + strlen(root) + 1);
    else
        return NULL;
    if ((end = strstr(name, ".tfevents")))
        end[strlen(".tfevents")] = 0;
    return strdup(name);
}

/* Note an operation on a file below the root, and return whether it is to fail. */
static int fails(const char *operation, const char *name, int needs_room)
{
    char key[4200], note[4220];
    int before = 0, strikes;
    if (!name)
        return 0;
    pthread_mutex_lock(&lock);
    snprintf(key, sizeof key, "%s %s ", operation, name);
    for (int i = 0; i < noted; i++)
        before += !strncmp(notes[i], key, strlen(key));
    snprintf(note, sizeof note, "%s%d", key, before);
    if (noted < NOTES)
        notes[noted++] = strdup(note);
    strikes = (target && !strcmp(note, target)) || (struck && stays_full && needs_room);
    struck |= strikes;
    pthread_mutex_unlock(&lock);
    if (strikes)
        errno = error;
    return strikes;
}

void failures_arm(const char *folder, const char *operation, int with, int full)
{
    target = operation && *operation ? strdup(operation) : NULL;
    error = with;
    stays_full = full;
    root = strdup(folder);
}

/* Write what was noted, a line each, and whether it struck; from then on nothing fails. */
void failures_tell(const char *path)
{
    root = NULL;
    FILE *file = fopen(path, "w");
    fprintf(file, "%d\n", struck);
    for (int i = 0; i < noted; i++)
        fprintf(file, "%s\n", notes[i]);
    fclose(file);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int note_opened(int descriptor, char *name)
{
    if (descriptor >= 0 && descriptor < FILES)
        opened[descriptor] = name;
    return descriptor;
}

static int refuses_open(const char *name, int flags)
{
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    return fails(flags & O_DIRECTORY ? "scandir" : writes ? "open" : "open-to-read", name, writes);
}

#define OPEN(function) \
    int function(const char *path, int flags, ...) \
    { \
        REAL(function); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        char *name = below(AT_FDCWD, path); \
        return refuses_open(name, flags) ? -1 : note_opened(real(path, flags, mode), name); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function) \
    int function(int folder, const char *path, int flags, ...) \
    { \
        REAL(function); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        char *name = below(folder, path); \
        return refuses_open(name, flags) ? -1 : note_opened(real(folder, path, flags, mode), name); \
    }
OPENAT(openat)
OPENAT(openat64)

static char *of(int descriptor)
{
    return root && descriptor >= 0 && descriptor < FILES ? opened[descriptor] : NULL;
}

int close(int descriptor)
{
    REAL(close);
    note_opened(descriptor, NULL);
    return real(descriptor);
}

ssize_t write(int descriptor, const void *bytes, size_t size)
{
    REAL(write);
    return fails("write", of(descriptor), 1) ? -1 : real(descriptor, bytes, size);
}

ssize_t read(int descriptor, void *bytes, size_t size)
{
    REAL(read);
    return fails("read", of(descriptor), 0) ? -1 : real(descriptor, bytes, size);
}

int fsync(int descriptor)
{
    REAL(fsync);
    return fails("fsync", of(descriptor), 1) ? -1 : real(descriptor);
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    return fails("rename", below(AT_FDCWD, to), 0) ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    return fails("mkdir", below(AT_FDCWD, path), 1) ? -1 : real(path, mode);
}

int unlink(const char *path)
{
    REAL(unlink);
    return fails("unlink", below(AT_FDCWD, path), 0) ? -1 : real(path);
}

int rmdir(const char *path)
{
    REAL(rmdir);
    return fails("rmdir", below(AT_FDCWD, path), 0) ? -1 : real(path);
}

int unlinkat(int folder, const char *path, int flags)
{
    REAL(unlinkat);
    const char *operation = flags & AT_REMOVEDIR ? "rmdir" : "unlink";
    return fails(operation, below(folder, path), 0) ? -1 : real(folder, path, flags);
}

int utimensat(int folder, const char *path, const struct timespec times[2], int flags)
{
    REAL(utimensat);
    return fails("utime", below(folder, path), 0) ? -1 : real(folder, path, times, flags);
}

DIR *opendir(const char *path)
{
    REAL(opendir);
    return fails("scandir", below(AT_FDCWD, path), 0) ? NULL : real(path);
}
