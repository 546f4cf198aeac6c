/* BLAKE2b (RFC 7693) of 16 bytes without a key: the digest of a graph, as hashlib computes it. */
#ifndef EDBATCH_BLAKE2B_H
#define EDBATCH_BLAKE2B_H
#include <stdint.h>
#include <string.h>

typedef struct {
    uint64_t h[8], total;
    unsigned char block[128];
    size_t filled;
} Hash;

static const uint64_t hash_start[8] = {0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu,
                                       0xa54ff53a5f1d36f1u, 0x510e527fade682d1u, 0x9b05688c2b3e6c1fu,
                                       0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};

static inline uint64_t turned(uint64_t x, int by) { return x >> by | x << (64 - by); }

static inline uint64_t number_at(const unsigned char *from) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t number;
    memcpy(&number, from, 8);
#else
    uint64_t number = 0;
    for (int byte = 7; byte >= 0; byte--) number = number << 8 | from[byte];
#endif
    return number;
}

static void hash_block(Hash *hash, const unsigned char *block, int last) {
    uint64_t v[16], m[16];
    memcpy(v, hash->h, 64);
    memcpy(v + 8, hash_start, 64);
    v[12] ^= hash->total;
    if (last) v[14] = ~v[14];
    for (int n = 0; n < 16; n++) m[n] = number_at(block + 8 * n);
#define MIX(a, b, c, d, x, y)            \
    v[a] += v[b] + m[x];                 \
    v[d] = turned(v[d] ^ v[a], 32);      \
    v[c] += v[d];                        \
    v[b] = turned(v[b] ^ v[c], 24);      \
    v[a] += v[b] + m[y];                 \
    v[d] = turned(v[d] ^ v[a], 16);      \
    v[c] += v[d];                        \
    v[b] = turned(v[b] ^ v[c], 63);
#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15) \
    MIX(0, 4, 8, 12, s0, s1)                                                        \
    MIX(1, 5, 9, 13, s2, s3)                                                        \
    MIX(2, 6, 10, 14, s4, s5)                                                       \
    MIX(3, 7, 11, 15, s6, s7)                                                       \
    MIX(0, 5, 10, 15, s8, s9)                                                       \
    MIX(1, 6, 11, 12, s10, s11)                                                     \
    MIX(2, 7, 8, 13, s12, s13)                                                      \
    MIX(3, 4, 9, 14, s14, s15)
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4)
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8)
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13)
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9)
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11)
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10)
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5)
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0)
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)
#undef ROUND
#undef MIX
    for (int n = 0; n < 8; n++) hash->h[n] ^= v[n] ^ v[n + 8];
}

static void hash_begin(Hash *hash) {
    memcpy(hash->h, hash_start, 64);
    hash->h[0] ^= 0x01010000 ^ 16;
    hash->total = 0;
    hash->filled = 0;
}

static void hash_more(Hash *hash, const void *bytes, size_t count) {
    const unsigned char *from = bytes;
    while (count) {
        if (hash->filled == 128) { /* the last block is for hash_end */
            hash->total += 128;
            hash_block(hash, hash->block, 0);
            hash->filled = 0;
        }
        if (!hash->filled && count > 128) { /* without a copy */
            hash->total += 128;
            hash_block(hash, from, 0);
            from += 128;
            count -= 128;
            continue;
        }
        size_t part = 128 - hash->filled;
        if (part > count) part = count;
        memcpy(hash->block + hash->filled, from, part);
        hash->filled += part;
        from += part;
        count -= part;
    }
}

static void hash_end(Hash *hash, void *digest) {
    hash->total += hash->filled;
    memset(hash->block + hash->filled, 0, 128 - hash->filled);
    hash_block(hash, hash->block, 1);
    for (int n = 0; n < 16; n++) ((unsigned char *)digest)[n] = (unsigned char)(hash->h[n / 8] >> (8 * (n % 8)));
}

#endif
