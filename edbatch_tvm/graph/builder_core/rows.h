/* Vectors that grow, and the rows of one attribute as they come in: as numbers while all of them are, else as objects.
 */
#ifndef EDBATCH_ROWS_H
#define EDBATCH_ROWS_H
#include "packing.h"

typedef struct {
    char *data;
    Py_ssize_t length, room; /* in bytes */
} Vector;

/* Room for more bytes at the end, which are counted. */
static inline void *more(Vector *vector, Py_ssize_t bytes) {
    if (vector->data == NULL || vector->length + bytes > vector->room) {
        Py_ssize_t room = 2 * (vector->length + bytes) + 64;
        char *data = PyMem_Realloc(vector->data, room);
        if (data == NULL) return PyErr_NoMemory();
        vector->data = data;
        vector->room = room;
    }
    void *end = vector->data + vector->length;
    vector->length += bytes;
    return end;
}

#define COUNT(vector, type) ((vector).length / (Py_ssize_t)sizeof(type))

/* The rows of an attribute so far. */
typedef struct {
    int kept;
    Vector rows;       /* INTEGERS: int64, FLOATS: double, BOOLEANS: char */
    PyObject *objects; /* OBJECTS: a list */
    PyObject *first;   /* the first row where it was an integer of NumPy's, for errors */
} Rows;

static PyObject *row_as_object(const Rows *rows, Py_ssize_t n) {
    if (n == 0 && rows->first != NULL) return Py_NewRef(rows->first);
    switch (rows->kept) {
        case INTEGERS: return PyLong_FromLongLong(((int64_t *)rows->rows.data)[n]);
        case FLOATS: return PyFloat_FromDouble(((double *)rows->rows.data)[n]);
        case BOOLEANS: return PyBool_FromLong(rows->rows.data[n]);
    }
    return Py_NewRef(PyList_GET_ITEM(rows->objects, n));
}

static Py_ssize_t count_rows(const Rows *rows) {
    switch (rows->kept) {
        case INTEGERS: return COUNT(rows->rows, int64_t);
        case FLOATS: return COUNT(rows->rows, double);
        case BOOLEANS: return rows->rows.length;
    }
    return rows->objects == NULL ? 0 : PyList_GET_SIZE(rows->objects);
}

/* A list of the rows so far. */
static PyObject *rows_as_list(const Rows *rows) {
    Py_ssize_t count = count_rows(rows);
    PyObject *list = PyList_New(count);
    for (Py_ssize_t n = 0; list != NULL && n < count; n++) {
        PyObject *row = row_as_object(rows, n);
        if (row == NULL) Py_CLEAR(list);
        else PyList_SET_ITEM(list, n, row);
    }
    return list;
}

static int keep_objects(Rows *rows) {
    if (rows->kept != OBJECTS) {
        if ((rows->objects = rows_as_list(rows)) == NULL) return -1;
        rows->kept = OBJECTS;
        rows->rows.length = 0;
    }
    if (rows->objects == NULL && (rows->objects = PyList_New(0)) == NULL) return -1;
    return 0;
}

static int add_row(Rows *rows, PyObject *given) {
    if (rows->kept == INTEGERS) {
        int overflow = 0, exact = PyLong_CheckExact(given);
        long long number = 0;
        if (exact) number = PyLong_AsLongLongAndOverflow(given, &overflow);
        else if (PyObject_TypeCheck(given, Integer_)) {
            PyObject *integer = PyNumber_Index(given);
            if (integer == NULL) return -1;
            number = PyLong_AsLongLongAndOverflow(integer, &overflow);
            Py_DECREF(integer);
            if (!overflow && !rows->rows.length) rows->first = Py_NewRef(given);
        } else overflow = 1;
        if (!overflow) {
            int64_t *place = more(&rows->rows, sizeof(int64_t));
            if (place == NULL) return -1;
            *place = number;
            return 0;
        }
    } else if (rows->kept == FLOATS && PyFloat_CheckExact(given)) {
        double *place = more(&rows->rows, sizeof(double));
        if (place == NULL) return -1;
        *place = PyFloat_AS_DOUBLE(given);
        return 0;
    } else if (rows->kept == BOOLEANS && PyBool_Check(given)) {
        char *place = more(&rows->rows, 1);
        if (place == NULL) return -1;
        *place = given == Py_True;
        return 0;
    }
    return keep_objects(rows) < 0 ? -1 : PyList_Append(rows->objects, given);
}

#endif
