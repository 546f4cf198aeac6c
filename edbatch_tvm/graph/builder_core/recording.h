/* Recording the calls of one instance, as build.py does it: call, calls. How the arguments of a call are arranged, where
 * that is not plain, Python says: `arrange`. */
#ifndef EDBATCH_RECORDING_H
#define EDBATCH_RECORDING_H
#include "rows.h"

typedef struct {
    PyObject_HEAD
    Cells *cells;
    PyObject *signature, *arrange, *attribute_array;
    int64_t serial;
    Vector types, ends, values; /* int16; int32: where the operands of a node end; int32: values, ZERO or OTHER */
    PyObject *others;           /* a list: the operands that are no values of this instance, in order */
    Rows *rows;
    Scratch scratch;
} Recording;

#define OTHER INT32_MIN

static void recording_clear_calls(Recording *self) {
    self->types.length = self->ends.length = self->values.length = 0;
    if (self->others != NULL && PyList_GET_SIZE(self->others)) Py_SETREF(self->others, PyList_New(0));
    for (int n = 0; self->rows != NULL && n < self->cells->columns; n++) {
        self->rows[n].kept = self->cells->column[n].kept;
        self->rows[n].rows.length = 0;
        Py_CLEAR(self->rows[n].objects);
        Py_CLEAR(self->rows[n].first);
    }
}

static int recording_traverse(Recording *self, visitproc visit, void *arg) {
    Py_VISIT(self->signature);
    Py_VISIT(self->arrange);
    Py_VISIT(self->attribute_array);
    Py_VISIT(self->others);
    for (int n = 0; self->rows != NULL && n < self->cells->columns; n++) Py_VISIT(self->rows[n].objects);
    return 0;
}

static int recording_clear(Recording *self) {
    recording_clear_calls(self);
    Py_CLEAR(self->others);
    Py_CLEAR(self->signature);
    Py_CLEAR(self->arrange);
    Py_CLEAR(self->attribute_array);
    return 0;
}

static void recording_dealloc(Recording *self) {
    PyObject_GC_UnTrack(self);
    recording_clear(self);
    for (int n = 0; self->rows != NULL && n < self->cells->columns; n++) PyMem_Free(self->rows[n].rows.data);
    PyMem_Free(self->rows);
    PyMem_Free(self->types.data);
    PyMem_Free(self->ends.data);
    PyMem_Free(self->values.data);
    free_scratch(&self->scratch);
    Py_XDECREF(self->cells);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* begin(serial): forget everything; the next values are of this serial number. */
static PyObject *recording_begin(Recording *self, PyObject *serial) {
    self->serial = PyLong_AsLongLong(serial);
    if (self->serial == -1 && PyErr_Occurred()) return NULL;
    recording_clear_calls(self);
    if (self->others == NULL) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* Appends an operand: a value of this instance as a number, anything else as what it is. */
static inline int add_operand(Recording *self, int32_t *place, PyObject *given) {
    int64_t number = -1;
    if (Py_TYPE(given) == Value_ || PyLong_CheckExact(given)) {
        number = PyLong_AsLongLong(given);
        if (number == -1) PyErr_Clear();
    } else if (PyObject_TypeCheck(given, Integer_)) { /* of an array of values */
        PyObject *integer = PyNumber_Index(given);
        if (integer == NULL) return -1;
        number = PyLong_AsLongLong(integer);
        if (number == -1) PyErr_Clear();
        Py_DECREF(integer);
    }
    if (number >> LOCAL_BITS == self->serial || number == ZERO_VALUE) {
        *place = (int32_t)(uint32_t)number;
        return 0;
    }
    *place = OTHER;
    return PyList_Append(self->others, given);
}

/* The values of `nodes` nodes from node `first` on, as call() returns those of one. */
static PyObject *values_of(const Recording *self, int64_t node, int outputs) {
    int64_t first = (self->serial << LOCAL_BITS) + node * self->cells->stride;
    if (outputs == 1) return new_value(first);
    PyObject *all = PyTuple_New(outputs);
    for (int slot = 0; all != NULL && slot < outputs; slot++) {
        PyObject *value = new_value(first + slot);
        if (value == NULL) Py_CLEAR(all);
        else PyTuple_SET_ITEM(all, slot, value);
    }
    return all;
}

/* Appends a node with operands one after the other. `attributes` has its cell's, in their order. */
static PyObject *add_node(Recording *self, int type, PyObject *const *operands, Py_ssize_t count,
                          PyObject *const *attributes) {
    const Cell *cell = &self->cells->cell[type];
    if (COUNT(self->values, int32_t) + count > INT32_MAX ||
        (COUNT(self->types, int16_t) + 1) * self->cells->stride > INT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "an instance of too many nodes");
        return NULL;
    }
    int32_t *values = more(&self->values, count * sizeof(int32_t));
    if (values == NULL) return NULL;
    for (Py_ssize_t n = 0; n < count; n++)
        if (add_operand(self, values + n, operands[n]) < 0) return NULL;
    for (int n = 0; n < cell->columns; n++)
        if (add_row(&self->rows[cell->first_column + n], attributes[n]) < 0) return NULL;
    int16_t *place = more(&self->types, sizeof(int16_t));
    int32_t *end = place == NULL ? NULL : more(&self->ends, sizeof(int32_t));
    if (end == NULL) return NULL;
    *place = (int16_t)type;
    *end = (int32_t)COUNT(self->values, int32_t);
    return values_of(self, COUNT(self->types, int16_t) - 1, cell->outputs);
}

/* A call whose operands are not one for each parameter, in their order: Python arranges them or says what is wrong. */
static PyObject *call_arranged(Recording *self, PyObject *name, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames) {
    PyObject *given = PyTuple_New(nargs), *named = PyDict_New(), *found = NULL, *made = NULL;
    if (given == NULL || named == NULL) goto end;
    for (Py_ssize_t n = 0; n < nargs; n++) PyTuple_SET_ITEM(given, n, Py_NewRef(args[n]));
    for (Py_ssize_t n = 0; kwnames != NULL && n < PyTuple_GET_SIZE(kwnames); n++)
        if (PyDict_SetItem(named, PyTuple_GET_ITEM(kwnames, n), args[nargs + n]) < 0) goto end;
    found = PyObject_CallFunctionObjArgs(self->arrange, name, given, named, NULL); /* (type, operands, attributes) */
    int type;
    PyObject *operands, *attributes;
    if (found == NULL ||
        !PyArg_ParseTuple(found, "iO!O!", &type, &PyTuple_Type, &operands, &PyTuple_Type, &attributes))
        goto end;
    made = add_node(self, type, ((PyTupleObject *)operands)->ob_item, PyTuple_GET_SIZE(operands),
                    ((PyTupleObject *)attributes)->ob_item);
end:
    Py_XDECREF(given);
    Py_XDECREF(named);
    Py_XDECREF(found);
    return made;
}

/* The argument of a name; NULL if it was not given. */
static inline PyObject *argument(PyObject *name, Py_ssize_t likely, PyObject *const *named, PyObject *kwnames) {
    Py_ssize_t count = PyTuple_GET_SIZE(kwnames);
    if (PyTuple_GET_ITEM(kwnames, likely) == name) return named[likely];
    for (Py_ssize_t n = 0; n < count; n++)
        if (PyTuple_GET_ITEM(kwnames, n) == name || PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, n), name) == 0)
            return named[n];
    return NULL;
}

#define MOST 32 /* operands, or attributes, of a call that is not left to Python */

static PyObject *recording_call(Recording *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    if (nargs < 1) {
        PyErr_SetString(PyExc_TypeError, "Builder.call() missing 1 required positional argument: 'cell'");
        return NULL;
    }
    PyObject *name = args[0], *attributes[MOST];
    args++, nargs--;
    int type = find_cell(self->cells, name);
    if (type < 0) return call_arranged(self, name, args, nargs, kwnames);
    const Cell *cell = &self->cells->cell[type];
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs != cell->operands || named != cell->columns || named > MOST)
        return call_arranged(self, name, args, nargs, kwnames);
    for (Py_ssize_t n = 0; n < named; n++) {
        PyObject *column = self->cells->column[cell->first_column + n].name;
        if ((attributes[n] = argument(column, n, args + nargs, kwnames)) == NULL)
            return call_arranged(self, name, args, nargs, kwnames);
    }
    if (!cell->variadics) return add_node(self, type, args, nargs, attributes);
    /* Lists and tuples of equal lengths. */
    Py_ssize_t rows = -1;
    for (Py_ssize_t n = 0; n < nargs; n++) {
        if (!cell->variadic[n]) continue;
        if (!PyList_CheckExact(args[n]) && !PyTuple_CheckExact(args[n]))
            return call_arranged(self, name, args, nargs, kwnames);
        Py_ssize_t size = PySequence_Fast_GET_SIZE(args[n]);
        if (rows >= 0 && size != rows) return call_arranged(self, name, args, nargs, kwnames);
        rows = size;
    }
    Py_ssize_t count = cell->fixed + rows * cell->variadics;
    PyObject *few[MOST], **flat = count <= MOST ? few : PyMem_Malloc(count * sizeof(PyObject *));
    if (flat == NULL) return PyErr_NoMemory();
    Py_ssize_t at = 0;
    for (Py_ssize_t n = 0; n < nargs; n++) {
        if (!cell->variadic[n]) flat[at++] = args[n];
        else
            for (Py_ssize_t row = 0; row < rows; row++) flat[at++] = PySequence_Fast_GET_ITEM(args[n], row);
    }
    PyObject *made = add_node(self, type, flat, count, attributes);
    if (flat != few) PyMem_Free(flat);
    return made;
}

/* calls(type, nodes, values, width, rows): nodes of one cell.
 *
 * values : int64[nodes, width], the operands of each as numbers that call() returned, or ZERO_VALUE
 * rows : a tuple with an entry for each attribute of the cell: an array of what is kept for it, or a list
 *
 * Returns the number of the first node. */
static PyObject *recording_calls(Recording *self, PyObject *arguments) {
    int type;
    Py_ssize_t nodes, width;
    PyObject *rows;
    Py_buffer values;
    if (!PyArg_ParseTuple(arguments, "iny*nO!", &type, &nodes, &values, &width, &PyTuple_Type, &rows)) return NULL;
    PyObject *made = NULL;
    const Cell *cell = &self->cells->cell[type];
    Py_ssize_t before = COUNT(self->types, int16_t), count = nodes * width;
    if (values.len != count * (Py_ssize_t)sizeof(int64_t) || PyTuple_GET_SIZE(rows) != cell->columns) {
        PyErr_SetString(PyExc_ValueError, "arrays of other lengths");
        goto end;
    }
    if (COUNT(self->values, int32_t) + count > INT32_MAX || (before + nodes) * self->cells->stride > INT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "an instance of too many nodes");
        goto end;
    }
    int32_t *into = more(&self->values, count * sizeof(int32_t));
    int16_t *types = into == NULL ? NULL : more(&self->types, nodes * sizeof(int16_t));
    int32_t *ends = types == NULL ? NULL : more(&self->ends, nodes * sizeof(int32_t));
    if (ends == NULL) goto end;
    const int64_t *from = values.buf;
    for (Py_ssize_t n = 0; n < count; n++) {
        if (from[n] >> LOCAL_BITS == self->serial || from[n] == ZERO_VALUE) {
            into[n] = (int32_t)(uint32_t)from[n];
            continue;
        }
        PyObject *number = PyLong_FromLongLong(from[n]);
        if (number == NULL || PyList_Append(self->others, number) < 0) {
            Py_XDECREF(number);
            goto end;
        }
        Py_DECREF(number);
        into[n] = OTHER;
    }
    int32_t end = (int32_t)(COUNT(self->values, int32_t) - count);
    for (Py_ssize_t n = 0; n < nodes; n++) {
        types[n] = (int16_t)type;
        ends[n] = end += (int32_t)width;
    }
    for (int n = 0; n < cell->columns; n++) {
        Rows *column = &self->rows[cell->first_column + n];
        PyObject *given = PyTuple_GET_ITEM(rows, n);
        if (!PyList_CheckExact(given) && column->kept != OBJECTS) {
            Py_buffer buffer;
            if (PyObject_GetBuffer(given, &buffer, PyBUF_SIMPLE) < 0) goto end;
            void *place = more(&column->rows, buffer.len);
            if (place != NULL) memcpy(place, buffer.buf, buffer.len);
            PyBuffer_Release(&buffer);
            if (place == NULL) goto end;
            continue;
        }
        if (keep_objects(column) < 0) goto end;
        PyObject *iterator = PyObject_GetIter(given), *row;
        if (iterator == NULL) goto end;
        while ((row = PyIter_Next(iterator)) != NULL) {
            int failed = PyList_Append(column->objects, row);
            Py_DECREF(row);
            if (failed) break;
        }
        Py_DECREF(iterator);
        if (PyErr_Occurred()) goto end;
    }
    made = PyLong_FromSsize_t(before);
end:
    PyBuffer_Release(&values);
    return made;
}

#endif
