/* UUIDs of MIG devices as state.py makes them: of version 5 (RFC 9562), from SHA-1 (RFC 3174) of a namespace and a name. */
#include <stdio.h>
#include <string.h>

#include "mig.h"

static uint32_t rotated(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

static void add_block(uint32_t digest[5], const unsigned char block[64]) {
    uint32_t words[80], a = digest[0], b = digest[1], c = digest[2], d = digest[3], e = digest[4];
    for (int each = 0; each < 16; each++)
        words[each] = (uint32_t)block[each * 4] << 24 | (uint32_t)block[each * 4 + 1] << 16 |
                      (uint32_t)block[each * 4 + 2] << 8 | block[each * 4 + 3];
    for (int each = 16; each < 80; each++)
        words[each] = rotated(words[each - 3] ^ words[each - 8] ^ words[each - 14] ^ words[each - 16], 1);
    for (int each = 0; each < 80; each++) {
        uint32_t mixed = each < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                         : each < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                         : each < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                                     : (b ^ c ^ d) + 0xCA62C1D6;
        uint32_t next = rotated(a, 5) + mixed + e + words[each];
        e = d;
        d = c;
        c = rotated(b, 30);
        b = a;
        a = next;
    }
    digest[0] += a;
    digest[1] += b;
    digest[2] += c;
    digest[3] += d;
    digest[4] += e;
}

static void sha1(uint32_t digest[5], const unsigned char *data, size_t length) {
    static const uint32_t begin[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    memcpy(digest, begin, sizeof begin);
    size_t whole = length / 64 * 64, rest = length - whole;
    for (size_t at = 0; at < whole; at += 64) add_block(digest, data + at);
    unsigned char last[128] = {0};
    memcpy(last, data + whole, rest);
    last[rest] = 0x80;
    size_t end = rest < 56 ? 64 : 128;
    for (int byte = 0; byte < 8; byte++) last[end - 1 - (size_t)byte] = (unsigned char)((uint64_t)length * 8 >> byte * 8);
    for (size_t at = 0; at < end; at += 64) add_block(digest, last + at);
}

void mig_uuid(char uuid[UUID_LENGTH], const char *gpu_uuid, int64_t gpu_instance, int64_t compute_instance,
              int64_t created) {
    static const unsigned char name_space[16] = {0x6f, 0x3c, 0x7f, 0x0e, 0x5f, 0x0d, 0x5f, 0x6e,
                                                 0x9b, 0x1a, 0x7d, 0x6d, 0x4c, 0x1f, 0x9a, 0x10};
    Buffer name = {0};
    uint32_t digest[5];
    buffer_add(&name, (const char *)name_space, sizeof name_space);
    buffer_print(&name, "%s/%lld/%lld/%lld", gpu_uuid, (long long)gpu_instance, (long long)compute_instance,
                 (long long)created);
    sha1(digest, (const unsigned char *)name.data, name.length);
    buffer_free(&name);
    uint32_t third = (digest[1] & 0x0FFF) | 0x5000, fourth = (digest[2] >> 16 & 0x3FFF) | 0x8000;
    snprintf(uuid, UUID_LENGTH, "MIG-%08x-%04x-%04x-%04x-%04x%08x", digest[0], digest[1] >> 16, third, fourth,
             digest[2] & 0xFFFF, digest[3]);
}
