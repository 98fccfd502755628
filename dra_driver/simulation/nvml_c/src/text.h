/* Memory that is given back all at once, and texts that grow. A process that gets no memory ends here: abort(). */
#ifndef GPU_DRA_TEXT_H
#define GPU_DRA_TEXT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Chunk Chunk;

typedef struct {
    Chunk *chunks;
} Arena;

void *arena_take(Arena *arena, size_t size);
char *arena_text(Arena *arena, const char *text, size_t length); /* a copy with a NUL behind it */
void arena_free(Arena *arena);

typedef struct {
    char *data; /* always with a NUL behind it, once something was added */
    size_t length, room;
} Buffer;

void buffer_add(Buffer *buffer, const char *data, size_t length);
void buffer_print(Buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buffer_pad(Buffer *buffer, size_t length); /* with spaces, until the text is that long */
void buffer_free(Buffer *buffer);

/* The whole file behind a descriptor, from its beginning. */
bool buffer_read(Buffer *buffer, int descriptor);
bool write_all(int descriptor, const char *data, size_t length);

#endif
