/* Growing arrays, and what functions return. */
#ifndef EDBATCH_VECTORS_H
#define EDBATCH_VECTORS_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    char *data;
    Py_ssize_t length, room; /* in bytes */
} Vector;

static void *more(Vector *vector, Py_ssize_t bytes) {
    if (vector->data == NULL || vector->length + bytes > vector->room) {
        Py_ssize_t room = 2 * (vector->length + bytes) + 1024;
        char *data = PyMem_Realloc(vector->data, room);
        if (data == NULL) return PyErr_NoMemory();
        vector->data = data;
        vector->room = room;
    }
    void *end = vector->data + vector->length;
    vector->length += bytes;
    return end;
}

static int push(Vector *vector, int32_t number) {
    int32_t *place = more(vector, sizeof number);
    if (place == NULL) return -1;
    *place = number;
    return 0;
}

#define COUNT(vector) ((int32_t)((vector).length / 4))
#define ITEM(vector, n) (((int32_t *)(vector).data)[n])

/* A tuple of bytes, or None; the vectors are freed. */
static PyObject *answer(int good, int many, Vector *vectors) {
    PyObject *made = NULL;
    if (good && (made = PyTuple_New(many)) != NULL)
        for (int n = 0; n < many; n++) {
            PyObject *bytes = PyBytes_FromStringAndSize(vectors[n].data, vectors[n].length);
            if (bytes == NULL) {
                Py_CLEAR(made);
                break;
            }
            PyTuple_SET_ITEM(made, n, bytes);
        }
    for (int n = 0; n < many; n++) PyMem_Free(vectors[n].data);
    if (made == NULL && !PyErr_Occurred()) Py_RETURN_NONE;
    return made;
}

#endif
