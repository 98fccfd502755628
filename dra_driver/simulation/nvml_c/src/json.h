/* A JSON document in memory, written again as it was read but for what was changed: numbers stay the digits that they
 * were, members keep their order, and what nobody here knows stays where it is.
 *
 * Whoever asks for what is not there, or null, gets NULL, zero or the value that stands for it, and may go on asking.
 */
#ifndef GPU_DRA_JSON_H
#define GPU_DRA_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "text.h"

typedef enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_TEXT, JSON_ARRAY, JSON_OBJECT } JsonKind;

typedef struct Json Json;

struct Json {
    JsonKind kind;
    const char *key;  /* in an object */
    const char *text; /* of a text, or a number's digits */
    Json *first;      /* of an array or an object */
    Json *next;       /* beside this one */
};

/* NULL when it is no JSON. */
Json *json_parse(Arena *arena, const char *data, size_t length);
Json *json_copy(Arena *arena, const Json *value);
void json_write(Buffer *buffer, const Json *value);
bool json_same(const Json *one, const Json *other);

Json *json_get(const Json *object, const char *key);
Json *json_first(const Json *object, const char *key); /* the first element of the array, or member of the object */
Json *json_at(const Json *array, int64_t position);
int64_t json_count(const Json *array);
bool json_is_true(const Json *object, const char *key);
const char *json_text(const Json *object, const char *key);
int64_t json_number(const Json *object, const char *key, int64_t otherwise);
uint64_t json_unsigned(const Json *object, const char *key);

/* Of a value itself, such as an element of an array. Integers are cut off at a size that no count here reaches, so that
 * nothing that is reckoned with them overflows; what may be larger is read by json_unsigned. */
int64_t json_integer(const Json *value, int64_t otherwise);
double json_fraction(const Json *value);

Json *json_new(Arena *arena, JsonKind kind);
Json *json_new_text(Arena *arena, const char *text);
Json *json_new_number(Arena *arena, int64_t number);
Json *json_new_unsigned(Arena *arena, uint64_t number);
void json_set(Arena *arena, Json *object, const char *key, Json *value);
void json_append(Json *array, Json *value);
void json_insert(Json *array, Json *before, Json *value); /* before NULL: at the end */
void json_remove(Json *array, const Json *value);

#endif
