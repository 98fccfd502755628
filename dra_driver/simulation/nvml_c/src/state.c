#include "state.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host_mirror.h"

#define NAMED_BY "GPU_DRA_SIMULATED_STATE"
#define POINTER ".simulated-state"

typedef struct {
    struct timespec changed;
    ino_t inode;
    off_t size;
} Version;

typedef struct Document Document;

struct Document {
    Arena arena;
    Json *state;
    Version version;
    Document *before; /* older ones, which somebody may still look at */
};

static Document *current;
static char path[PATH_MAX];

/* Without links and "..", since the tree that the library lies in may go before the state does. */
static void find_beside_library(void) {
    Dl_info own;
    char folder[PATH_MAX], line[PATH_MAX];
    if (dladdr((void *)&path, &own) == 0 || own.dli_fname == NULL || realpath(own.dli_fname, folder) == NULL) return;
    *strrchr(folder, '/') = '\0';
    Buffer name = {0};
    buffer_print(&name, "%s/" POINTER, folder);
    FILE *file = fopen(name.data, "re");
    bool named = file != NULL && fgets(line, sizeof line, file) != NULL;
    if (file != NULL) fclose(file);
    if (named) {
        line[strcspn(line, "\n")] = '\0';
        buffer_free(&name);
        buffer_print(&name, "%s%s%s", line[0] == '/' ? "" : folder, line[0] == '/' ? "" : "/", line);
        if (realpath(name.data, path) == NULL) path[0] = '\0';
    }
    buffer_free(&name);
}

const char *state_path(void) {
    const char *named = getenv(NAMED_BY);
    if (named != NULL && *named != '\0') return named;
    if (path[0] == '\0') find_beside_library();
    return path[0] == '\0' ? NULL : path;
}

static Version version_of(const struct stat *found) {
    return (Version){.changed = found->st_mtim, .inode = found->st_ino, .size = found->st_size};
}

static bool same_version(const Version *one, const Version *other) {
    return one->changed.tv_sec == other->changed.tv_sec && one->changed.tv_nsec == other->changed.tv_nsec &&
           one->inode == other->inode && one->size == other->size;
}

static void free_documents(Document *document) {
    while (document != NULL) {
        Document *before = document->before;
        arena_free(&document->arena);
        free(document);
        document = before;
    }
}

void state_forget(void) {
    if (current == NULL) return;
    free_documents(current->before);
    current->before = NULL;
}

static Document *new_document(void) {
    Document *document = calloc(1, sizeof *document);
    if (document == NULL) abort();
    return document;
}

static void make_current(Document *document) {
    document->before = current;
    current = document;
}

static Document *read_document(const char *name) {
    int descriptor = open(name, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return NULL;
    Document *document = new_document();
    Buffer content = {0};
    struct stat found;
    bool right = fstat(descriptor, &found) == 0 && buffer_read(&content, descriptor);
    close(descriptor);
    if (right) {
        document->version = version_of(&found);
        document->state = json_parse(&document->arena, content.data, content.length);
    }
    buffer_free(&content);
    if (document->state != NULL && document->state->kind == JSON_OBJECT) return document;
    free_documents(document);
    return NULL;
}

const Json *state_read(void) {
    const char *name = state_path();
    struct stat found;
    if (name == NULL || stat(name, &found) != 0) return NULL;
    Version version = version_of(&found);
    if (current == NULL || !same_version(&current->version, &version)) {
        Document *document = read_document(name);
        if (document == NULL) return NULL;
        make_current(document);
    }
    return current->state;
}

/* As state_store.put: a temporary file that is renamed, stamped with a time of its own, since the kernel's clock ticks
 * every few milliseconds and inode numbers are given again. */
static bool put(const char *name, const Buffer *content, Version *version) {
    const char *slash = strrchr(name, '/');
    int folder = slash == NULL ? 0 : (int)(slash - name) + 1;
    char temporary[PATH_MAX];
    struct timespec now[2];
    clock_gettime(CLOCK_REALTIME, &now[0]);
    now[1] = now[0];
    unsigned random = (unsigned)now[0].tv_nsec ^ (unsigned)getpid() << 12; /* alone by the lock, but for what was killed */
    int length = snprintf(temporary, sizeof temporary, "%.*s.%s.%08x.tmp", folder, name, name + folder, random);
    if (length < 0 || (size_t)length >= sizeof temporary) return false;
    int descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (descriptor < 0) return false;
    struct stat written;
    bool right = fchmod(descriptor, 0644) == 0 && write_all(descriptor, content->data, content->length) &&
                 futimens(descriptor, now) == 0 && fstat(descriptor, &written) == 0;
    right = close(descriptor) == 0 && right && rename(temporary, name) == 0;
    if (right) *version = version_of(&written);
    else unlink(temporary);
    return right;
}

static int lock_file(const char *name) {
    char lock[PATH_MAX];
    int length = snprintf(lock, sizeof lock, "%s.lock", name);
    if (length < 0 || (size_t)length >= sizeof lock) return -1;
    int descriptor = open(lock, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor < 0) return -1;
    while (flock(descriptor, LOCK_EX) != 0)
        if (errno != EINTR) {
            close(descriptor);
            return -1;
        }
    return descriptor;
}

static nvmlReturn_t update_locked(const char *name, StateChange change, void *context) {
    if (state_read() == NULL) return NVML_ERROR_OPERATING_SYSTEM;
    const Json *before = current->state;
    Document *document = new_document();
    document->state = json_copy(&document->arena, before);
    nvmlReturn_t answer = change(&document->arena, document->state, context);
    if (answer != NVML_SUCCESS || json_same(before, document->state)) {
        free_documents(document);
        return answer;
    }
    Buffer content = {0};
    json_write(&content, document->state);
    bool written = put(name, &content, &document->version);
    buffer_free(&content);
    if (!written) {
        free_documents(document);
        return NVML_ERROR_OPERATING_SYSTEM;
    }
    make_current(document);
    return host_mirror_follow(name, before, document->state) ? NVML_SUCCESS : NVML_ERROR_OPERATING_SYSTEM;
}

nvmlReturn_t state_update(StateChange change, void *context) {
    const char *name = state_path();
    int lock = name == NULL ? -1 : lock_file(name);
    if (lock < 0) return NVML_ERROR_OPERATING_SYSTEM;
    nvmlReturn_t answer = update_locked(name, change, context);
    close(lock);
    return answer;
}
