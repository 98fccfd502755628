#include "json.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 64 };

static const long long LARGEST = 1LL << 40; /* of what is counted here, so that no sum or product of it overflows */

typedef struct {
    Arena *arena;
    const char *at, *end;
} Reader;

static Json *read_value(Reader *reader, int depth);

static bool is_space(char byte) { return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r'; }

static void skip_space(Reader *reader) {
    while (reader->at < reader->end && is_space(*reader->at)) reader->at++;
}

static bool take(Reader *reader, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0) return false;
    reader->at += length;
    return true;
}

static int hex_digit(char byte) {
    if (byte >= '0' && byte <= '9') return byte - '0';
    if (byte >= 'a' && byte <= 'f') return byte - 'a' + 10;
    return byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

static long read_hex(Reader *reader) {
    long code = 0;
    for (int digits = 0; digits < 4; digits++) {
        int digit = reader->at < reader->end ? hex_digit(*reader->at++) : -1;
        if (digit < 0) return -1;
        code = code * 16 + digit;
    }
    return code;
}

static void add_code(Buffer *text, long code) {
    char bytes[4];
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t each = length; each-- > 1; code >>= 6) bytes[each] = (char)(0x80 | (code & 0x3F));
    static const unsigned char first[] = {0, 0, 0xC0, 0xE0, 0xF0};
    bytes[0] = (char)(first[length] | code);
    buffer_add(text, bytes, length);
}

static bool read_escape(Reader *reader, Buffer *text) {
    static const char *const names = "\"\\/bfnrt", *const bytes = "\"\\/\b\f\n\r\t";
    if (reader->at == reader->end) return false;
    char name = *reader->at++;
    const char *found = name == '\0' ? NULL : strchr(names, name);
    if (found != NULL) {
        buffer_add(text, &bytes[found - names], 1);
        return true;
    }
    long code = name == 'u' ? read_hex(reader) : -1;
    if (code >= 0xD800 && code < 0xDC00) {
        long low = take(reader, "\\u") ? read_hex(reader) : -1;
        code = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : -1;
    }
    if (code <= 0) return false; /* a NUL has no place in C's texts */
    add_code(text, code);
    return true;
}

/* The quote was taken. */
static const char *read_text(Reader *reader) {
    Buffer text = {0};
    buffer_add(&text, "", 0);
    bool whole = false, right = true;
    while (right && !whole && reader->at < reader->end) {
        char byte = *reader->at++;
        if (byte == '"') whole = true;
        else if (byte == '\\') right = read_escape(reader, &text);
        else if ((unsigned char)byte < 0x20) right = false;
        else buffer_add(&text, &byte, 1);
    }
    const char *copy = whole && right ? arena_text(reader->arena, text.data, text.length) : NULL;
    buffer_free(&text);
    return copy;
}

static Json *read_number(Reader *reader) {
    const char *begin = reader->at;
    while (reader->at < reader->end && *reader->at != '\0' && strchr("+-.0123456789eE", *reader->at) != NULL) reader->at++;
    if (reader->at == begin) return NULL;
    Json *value = json_new(reader->arena, JSON_NUMBER);
    value->text = arena_text(reader->arena, begin, (size_t)(reader->at - begin));
    return value;
}

static Json *read_members(Reader *reader, JsonKind kind, char closing, int depth) {
    Json *value = json_new(reader->arena, kind), **end = &value->first;
    skip_space(reader);
    if (reader->at < reader->end && *reader->at == closing) {
        reader->at++;
        return value;
    }
    for (;;) {
        const char *key = NULL;
        skip_space(reader);
        if (kind == JSON_OBJECT) {
            key = take(reader, "\"") ? read_text(reader) : NULL;
            if (key == NULL) return NULL;
            skip_space(reader);
            if (!take(reader, ":")) return NULL;
        }
        Json *member = read_value(reader, depth + 1);
        if (member == NULL) return NULL;
        member->key = key;
        *end = member;
        end = &member->next;
        skip_space(reader);
        if (reader->at == reader->end) return NULL;
        char byte = *reader->at++;
        if (byte == closing) return value;
        if (byte != ',') return NULL;
    }
}

static Json *read_value(Reader *reader, int depth) {
    skip_space(reader);
    if (depth > DEEPEST) return NULL;
    if (take(reader, "{")) return read_members(reader, JSON_OBJECT, '}', depth);
    if (take(reader, "[")) return read_members(reader, JSON_ARRAY, ']', depth);
    if (take(reader, "null")) return json_new(reader->arena, JSON_NULL);
    if (take(reader, "true")) return json_new(reader->arena, JSON_TRUE);
    if (take(reader, "false")) return json_new(reader->arena, JSON_FALSE);
    if (!take(reader, "\"")) return read_number(reader);
    Json *value = json_new(reader->arena, JSON_TEXT);
    value->text = read_text(reader);
    return value->text == NULL ? NULL : value;
}

Json *json_parse(Arena *arena, const char *data, size_t length) {
    Reader reader = {.arena = arena, .at = data, .end = data + length};
    Json *value = read_value(&reader, 0);
    skip_space(&reader);
    return reader.at == reader.end ? value : NULL;
}

Json *json_copy(Arena *arena, const Json *value) {
    Json *copy = json_new(arena, value->kind), **end = &copy->first;
    copy->key = value->key == NULL ? NULL : arena_text(arena, value->key, strlen(value->key));
    copy->text = value->text == NULL ? NULL : arena_text(arena, value->text, strlen(value->text));
    for (const Json *each = value->first; each != NULL; each = each->next) {
        *end = json_copy(arena, each);
        end = &(*end)->next;
    }
    return copy;
}

static void write_text(Buffer *buffer, const char *text) {
    static const char escaped[] = "\b\f\n\r\t\"\\", names[] = "bfnrt\"\\";
    buffer_add(buffer, "\"", 1);
    for (const char *at = text; *at != '\0'; at++) {
        const char *found = strchr(escaped, *at);
        if (found != NULL) buffer_print(buffer, "\\%c", names[found - escaped]);
        else if ((unsigned char)*at < 0x20) buffer_print(buffer, "\\u%04x", (unsigned)(unsigned char)*at);
        else buffer_add(buffer, at, 1);
    }
    buffer_add(buffer, "\"", 1);
}

void json_write(Buffer *buffer, const Json *value) {
    static const char *const words[] = {[JSON_NULL] = "null", [JSON_FALSE] = "false", [JSON_TRUE] = "true"};
    switch (value->kind) {
    case JSON_NUMBER: buffer_add(buffer, value->text, strlen(value->text)); return;
    case JSON_TEXT: write_text(buffer, value->text); return;
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    default: buffer_add(buffer, words[value->kind], strlen(words[value->kind])); return;
    }
    buffer_add(buffer, value->kind == JSON_ARRAY ? "[" : "{", 1);
    for (const Json *each = value->first; each != NULL; each = each->next) {
        if (each != value->first) buffer_add(buffer, ",", 1);
        if (value->kind == JSON_OBJECT) {
            write_text(buffer, each->key);
            buffer_add(buffer, ":", 1);
        }
        json_write(buffer, each);
    }
    buffer_add(buffer, value->kind == JSON_ARRAY ? "]" : "}", 1);
}

bool json_same(const Json *one, const Json *other) {
    Buffer texts[2] = {{0}, {0}};
    json_write(&texts[0], one);
    json_write(&texts[1], other);
    bool same = texts[0].length == texts[1].length && memcmp(texts[0].data, texts[1].data, texts[0].length) == 0;
    buffer_free(&texts[0]);
    buffer_free(&texts[1]);
    return same;
}

Json *json_get(const Json *object, const char *key) {
    if (object == NULL || object->kind != JSON_OBJECT) return NULL;
    for (Json *each = object->first; each != NULL; each = each->next)
        if (strcmp(each->key, key) == 0) return each->kind == JSON_NULL ? NULL : each;
    return NULL;
}

Json *json_first(const Json *object, const char *key) {
    const Json *found = json_get(object, key);
    return found == NULL ? NULL : found->first;
}

Json *json_at(const Json *array, int64_t position) {
    Json *each = array == NULL || position < 0 ? NULL : array->first;
    while (each != NULL && position-- > 0) each = each->next;
    return each;
}

int64_t json_count(const Json *array) {
    int64_t count = 0;
    for (const Json *each = array == NULL ? NULL : array->first; each != NULL; each = each->next) count++;
    return count;
}

bool json_is_true(const Json *object, const char *key) {
    const Json *found = json_get(object, key);
    return found != NULL && found->kind == JSON_TRUE;
}

const char *json_text(const Json *object, const char *key) {
    const Json *found = json_get(object, key);
    return found != NULL && found->kind == JSON_TEXT ? found->text : NULL;
}

int64_t json_integer(const Json *value, int64_t otherwise) {
    if (value == NULL || value->kind != JSON_NUMBER) return otherwise;
    long long number = strtoll(value->text, NULL, 10);
    return number > LARGEST ? LARGEST : number < -LARGEST ? -LARGEST : number;
}

int64_t json_number(const Json *object, const char *key, int64_t otherwise) {
    return json_integer(json_get(object, key), otherwise);
}

uint64_t json_unsigned(const Json *object, const char *key) {
    const Json *found = json_get(object, key);
    return found != NULL && found->kind == JSON_NUMBER ? strtoull(found->text, NULL, 10) : 0;
}

/* Not strtod, which goes by the locale's decimal point. */
double json_fraction(const Json *value) {
    if (value == NULL || value->kind != JSON_NUMBER) return 0.0;
    const char *at = value->text;
    double number = 0.0, place = 1.0;
    bool negative = *at == '-';
    if (negative) at++;
    for (; *at >= '0' && *at <= '9'; at++) number = number * 10 + (*at - '0');
    if (*at == '.')
        for (at++; *at >= '0' && *at <= '9'; at++) number += (*at - '0') * (place /= 10);
    long exponent = *at == 'e' || *at == 'E' ? strtol(at + 1, NULL, 10) : 0;
    for (; exponent > 0 && number < 1e300; exponent--) number *= 10;
    for (; exponent < 0 && number > 0; exponent++) number /= 10;
    return negative ? -number : number;
}

Json *json_new(Arena *arena, JsonKind kind) {
    Json *value = arena_take(arena, sizeof *value);
    *value = (Json){.kind = kind};
    return value;
}

Json *json_new_text(Arena *arena, const char *text) {
    Json *value = json_new(arena, JSON_TEXT);
    value->text = arena_text(arena, text, strlen(text));
    return value;
}

static Json *new_number(Arena *arena, const Buffer *digits) {
    Json *value = json_new(arena, JSON_NUMBER);
    value->text = arena_text(arena, digits->data, digits->length);
    return value;
}

Json *json_new_number(Arena *arena, int64_t number) {
    Buffer digits = {0};
    buffer_print(&digits, "%lld", (long long)number);
    Json *value = new_number(arena, &digits);
    buffer_free(&digits);
    return value;
}

Json *json_new_unsigned(Arena *arena, uint64_t number) {
    Buffer digits = {0};
    buffer_print(&digits, "%llu", (unsigned long long)number);
    Json *value = new_number(arena, &digits);
    buffer_free(&digits);
    return value;
}

void json_set(Arena *arena, Json *object, const char *key, Json *value) {
    Json **at = &object->first;
    while (*at != NULL && strcmp((*at)->key, key) != 0) at = &(*at)->next;
    value->key = *at != NULL ? (*at)->key : arena_text(arena, key, strlen(key));
    value->next = *at != NULL ? (*at)->next : NULL;
    *at = value;
}

void json_append(Json *array, Json *value) { json_insert(array, NULL, value); }

void json_insert(Json *array, Json *before, Json *value) {
    Json **at = &array->first;
    while (*at != before && *at != NULL) at = &(*at)->next;
    value->next = *at;
    *at = value;
}

void json_remove(Json *array, const Json *value) {
    Json **at = &array->first;
    while (*at != NULL && *at != value) at = &(*at)->next;
    if (*at != NULL) *at = value->next;
}
