#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 16384, ALIGNMENT = _Alignof(max_align_t) };

struct Chunk {
    Chunk *before;
    size_t used, room;
    max_align_t data[];
};

static void *allocate(void *old, size_t size) {
    void *memory = realloc(old, size);
    if (memory == NULL) abort();
    return memory;
}

void *arena_take(Arena *arena, size_t size) {
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    Chunk *chunk = arena->chunks;
    if (chunk == NULL || chunk->room - chunk->used < size) {
        size_t room = size > CHUNK ? size : CHUNK;
        chunk = allocate(NULL, sizeof *chunk + room);
        *chunk = (Chunk){.before = arena->chunks, .used = 0, .room = room};
        arena->chunks = chunk;
    }
    void *taken = (char *)chunk->data + chunk->used;
    chunk->used += size;
    return taken;
}

char *arena_text(Arena *arena, const char *text, size_t length) {
    char *copy = arena_take(arena, length + 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

void arena_free(Arena *arena) {
    while (arena->chunks != NULL) {
        Chunk *before = arena->chunks->before;
        free(arena->chunks);
        arena->chunks = before;
    }
}

static void make_room(Buffer *buffer, size_t more) {
    if (buffer->room - buffer->length > more) return;
    buffer->room = (buffer->length + more + 1) * 2;
    buffer->data = allocate(buffer->data, buffer->room);
}

void buffer_add(Buffer *buffer, const char *data, size_t length) {
    make_room(buffer, length);
    if (length > 0) memcpy(buffer->data + buffer->length, data, length);
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
}

void buffer_print(Buffer *buffer, const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    int length = vsnprintf(NULL, 0, format, rest);
    va_end(rest);
    if (length < 0) abort();
    make_room(buffer, (size_t)length);
    va_start(rest, format);
    vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, rest);
    va_end(rest);
    buffer->length += (size_t)length;
}

void buffer_pad(Buffer *buffer, size_t length) {
    while (buffer->length < length) buffer_add(buffer, " ", 1);
}

void buffer_free(Buffer *buffer) {
    free(buffer->data);
    *buffer = (Buffer){0};
}

bool buffer_read(Buffer *buffer, int descriptor) {
    for (;;) {
        make_room(buffer, 65536);
        ssize_t got = pread(descriptor, buffer->data + buffer->length, 65536, (off_t)buffer->length);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return false;
        buffer->length += (size_t)got;
        buffer->data[buffer->length] = '\0';
        if (got == 0) return true;
    }
}

bool write_all(int descriptor, const char *data, size_t length) {
    while (length > 0) {
        ssize_t written = write(descriptor, data, length);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return false;
        data += written;
        length -= (size_t)written;
    }
    return true;
}
