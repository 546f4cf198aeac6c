#ifndef EDBATCH_DIGESTS_H
#define EDBATCH_DIGESTS_H
#include "objects.h"

/* Digests of memory: watched_objects.py --------------------------------------------------------------------------- */

enum { DIGEST_LANES = 8 };

/* One more word in a lane: another digest for every other word, and for every digest before it. */
static inline uint64_t digest_with(uint64_t lane, uint64_t word) {
    lane = (lane ^ word) * 0x9E3779B97F4A7C15u;
    return lane ^ lane >> 29; /* or the highest bit of a word would change no other bit, and another one change it back */
}

static uint64_t digest_of(const char *bytes, Py_ssize_t count) {
    uint64_t lanes[DIGEST_LANES] = {1, 2, 3, 4, 5, 6, 7, 8}, words[DIGEST_LANES], digest = (uint64_t)count;
    for (; count >= (Py_ssize_t)sizeof words; count -= sizeof words, bytes += sizeof words) {
        memcpy(words, bytes, sizeof words);
        for (int n = 0; n < DIGEST_LANES; n++) lanes[n] = digest_with(lanes[n], words[n]);
    }
    memset(words, 0, sizeof words);
    memcpy(words, bytes, (size_t)count);
    for (int n = 0; n < DIGEST_LANES; n++) digest = digest_with(digest, digest_with(lanes[n], words[n]));
    return digest;
}

/* digest(buffer): a number that is, but for one case in 2**64, another one where a byte is another. */
static PyObject *digest(PyObject *module, PyObject *buffer) {
    Py_buffer view;
    uint64_t found;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS
    found = digest_of(view.buf, view.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(found);
}
#endif
