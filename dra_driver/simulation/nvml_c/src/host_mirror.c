#include "host_mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpu.h"
#include "smi_table.h"

enum { FOLDER_MODE = 0777, CAPABILITY_MODE = 0444 };

/* The folder of an instance below `root`; of its GPU instance without `compute`. */
static void print_folder(Buffer *path, const char *root, int64_t minor, const Json *instance, const Json *compute) {
    buffer_print(path, "%s/proc/driver/nvidia/capabilities/gpu%lld/mig/gi%lld", root, (long long)minor,
                 (long long)json_number(instance, "id", 0));
    if (compute != NULL) buffer_print(path, "/ci%lld", (long long)json_number(compute, "id", 0));
}

static bool make_folders(char *path) {
    for (char *at = strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        bool there = mkdir(path, FOLDER_MODE) == 0 || errno == EEXIST;
        *at = '/';
        if (!there) return false;
    }
    return true;
}

/* Without a rename, as in Python: nobody looks for the file before it is written. */
static bool write_access(const char *root, int64_t minor, const Json *instance, const Json *compute) {
    int64_t gpu_instance = json_number(instance, "id", 0);
    int64_t number = compute == NULL ? gpu_instance_minor(minor, gpu_instance)
                                     : compute_instance_minor(minor, gpu_instance, json_number(compute, "id", 0));
    Buffer path = {0}, text = {0};
    print_folder(&path, root, minor, instance, compute);
    buffer_print(&path, "/access");
    buffer_print(&text, "DeviceFileMinor: %lld\nDeviceFileMode: %d\nDeviceFileModify: 1\n", (long long)number, 0444);
    bool right = make_folders(path.data) && (unlink(path.data) == 0 || errno == ENOENT); /* left by one that was killed */
    int descriptor = right ? open(path.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644) : -1;
    right = descriptor >= 0 && write_all(descriptor, text.data, text.length) && fchmod(descriptor, CAPABILITY_MODE) == 0;
    if (descriptor >= 0 && close(descriptor) != 0) right = false;
    buffer_free(&path);
    buffer_free(&text);
    return right;
}

static bool remove_access(const char *root, int64_t minor, const Json *instance, const Json *compute) {
    Buffer folder = {0}, file = {0};
    print_folder(&folder, root, minor, instance, compute);
    buffer_print(&file, "%s/access", folder.data);
    bool right = unlink(file.data) == 0 || errno == ENOENT;
    if (right) rmdir(folder.data); /* fails while there is more in it */
    buffer_free(&folder);
    buffer_free(&file);
    return right;
}

static const Json *compute_of(const Json *instance, int64_t id) {
    for (const Json *each = json_first(instance, "computeInstances"); each != NULL; each = each->next)
        if (json_number(each, "id", -1) == id) return each;
    return NULL;
}

typedef bool (*Visit)(const char *root, int64_t minor, const Json *instance, const Json *compute);

/* Visits the instances of `gpu` that `other` has not, compute instances before their GPU instance. */
static bool each_missing(const Json *gpu, const Json *other, const char *root, int64_t minor, Visit visit) {
    bool right = true;
    for (const Json *each = json_first(gpu, "instances"); each != NULL; each = each->next) {
        const Json *same = instance_by_id(other, json_number(each, "id", -1));
        for (const Json *inner = json_first(each, "computeInstances"); inner != NULL; inner = inner->next)
            if (compute_of(same, json_number(inner, "id", -1)) == NULL) right = visit(root, minor, each, inner) && right;
        if (same == NULL) right = visit(root, minor, each, NULL) && right;
    }
    return right;
}

/* In place and in one write: containers have this very file. */
static bool write_table(const char *root, const Json *state) {
    Buffer path = {0}, old = {0}, new = {0};
    buffer_print(&path, "%s/usr/bin/nvidia-smi", root);
    int descriptor = open(path.data, O_RDWR | O_CLOEXEC);
    bool right = descriptor >= 0 || errno == ENOENT; /* a tree that is only being built */
    if (descriptor >= 0) {
        right = buffer_read(&old, descriptor);
        if (right) smi_table_update(&new, old.data, state);
        bool differs = right && new.length == old.length && memcmp(new.data, old.data, old.length) != 0;
        if (differs) right = pwrite(descriptor, new.data, new.length, 0) == (ssize_t)new.length;
        close(descriptor);
    }
    buffer_free(&path);
    buffer_free(&old);
    buffer_free(&new);
    return right;
}

bool host_mirror_follow(const char *state_file, const Json *before, const Json *after) {
    const char *tree = json_text(after, "hostTree"), *slash = strrchr(state_file, '/');
    struct stat found;
    if (tree == NULL) return true;
    Buffer root = {0};
    if (*tree == '/') buffer_print(&root, "%s", tree);
    else buffer_print(&root, "%.*s%s", slash == NULL ? 0 : (int)(slash - state_file) + 1, state_file, tree);
    bool right = true, changed = false, there = stat(root.data, &found) == 0 && S_ISDIR(found.st_mode);
    const Json *old = json_first(before, "gpus"), *new = json_first(after, "gpus");
    const Json *described = json_first(json_get(json_get(after, "machine"), "hardware"), "gpus");
    for (; there && old != NULL && new != NULL && described != NULL;
         old = old->next, new = new->next, described = described->next) {
        if (json_same(old, new)) continue;
        int64_t minor = json_number(described, "minor", 0);
        changed = true;
        right = each_missing(old, new, root.data, minor, remove_access) &&
                each_missing(new, old, root.data, minor, write_access) && right;
    }
    if (changed && right) right = write_table(root.data, after);
    buffer_free(&root);
    return right;
}
