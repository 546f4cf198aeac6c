/* Items that are lists and tuples of Python integers, as arrays; None for anything else. */
#ifndef EDBATCH_ITEMS_H
#define EDBATCH_ITEMS_H
#include "vectors.h"

static inline int is_list(PyObject *object) { return PyList_CheckExact(object) || PyTuple_CheckExact(object); }

/* An integer of 32 bits; 0: it is anything else. */
static inline int integer_of(PyObject *object, int32_t *into) {
    int overflow;
    if (!PyLong_CheckExact(object)) return 0;
#if PY_VERSION_HEX >= 0x030C0000
    if (PyUnstable_Long_IsCompact((PyLongObject *)object)) {
        *into = (int32_t)PyUnstable_Long_CompactValue((PyLongObject *)object);
        return 1;
    }
#else
    Py_ssize_t size = Py_SIZE(object);
    if (size >= -1 && size <= 1) { /* no digit, or one of 30 bits */
        *into = size ? (int32_t)size * (int32_t)((PyLongObject *)object)->ob_digit[0] : 0;
        return 1;
    }
#endif
    long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    *into = (int32_t)number;
    return !overflow && *into == number;
}

/* sequences(items): the integers of all items one after the other, and where each item begins. */
static PyObject *sequences_of(PyObject *module, PyObject *items) {
    Vector made[2] = {{0}, {0}};
    int good = 0;
    if (!is_list(items) || push(&made[1], 0) < 0) goto done;
    for (Py_ssize_t n = 0; n < PySequence_Fast_GET_SIZE(items); n++) {
        PyObject *item = PySequence_Fast_GET_ITEM(items, n);
        if (!is_list(item)) goto done;
        Py_ssize_t size = PySequence_Fast_GET_SIZE(item);
        if (made[0].length / 4 + size > INT32_MAX) goto done;
        int32_t *into = more(&made[0], 4 * size);
        if (into == NULL) goto done;
        for (Py_ssize_t k = 0; k < size; k++)
            if (!integer_of(PySequence_Fast_GET_ITEM(item, k), into + k)) goto done;
        if (push(&made[1], COUNT(made[0])) < 0) goto done;
    }
    good = 1;
done:
    return answer(good, 2, made);
}

/* nested_arcs(items): the sources and labels of all arcs of lattices, each the arcs (source, label) into its nodes; where
 * the arcs into each node begin, and where the nodes of each lattice begin. */
static PyObject *nested_arcs(PyObject *module, PyObject *items) {
    Vector made[4] = {{0}, {0}, {0}, {0}};
    int good = 0;
    if (!is_list(items) || push(&made[2], 0) < 0 || push(&made[3], 0) < 0) goto done;
    for (Py_ssize_t n = 0; n < PySequence_Fast_GET_SIZE(items); n++) {
        PyObject *item = PySequence_Fast_GET_ITEM(items, n);
        if (!is_list(item)) goto done;
        for (Py_ssize_t node = 0; node < PySequence_Fast_GET_SIZE(item); node++) {
            PyObject *arcs = PySequence_Fast_GET_ITEM(item, node);
            if (!is_list(arcs)) goto done;
            Py_ssize_t into = PySequence_Fast_GET_SIZE(arcs);
            int32_t *source = more(&made[0], 4 * into), *label = more(&made[1], 4 * into);
            if (source == NULL || label == NULL) goto done;
            for (Py_ssize_t k = 0; k < into; k++) {
                PyObject *arc = PySequence_Fast_GET_ITEM(arcs, k);
                if (!is_list(arc) || PySequence_Fast_GET_SIZE(arc) != 2 ||
                    !integer_of(PySequence_Fast_GET_ITEM(arc, 0), source + k) ||
                    !integer_of(PySequence_Fast_GET_ITEM(arc, 1), label + k))
                    goto done;
            }
            if (made[0].length / 4 > INT32_MAX || push(&made[2], COUNT(made[0])) < 0) goto done;
        }
        if (push(&made[3], COUNT(made[2]) - 1) < 0) goto done;
    }
    good = 1;
done:
    return answer(good, 4, made);
}

#endif
