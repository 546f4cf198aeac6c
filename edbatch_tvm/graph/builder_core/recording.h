/* Recording the calls of one instance, as build.py does it: call, calls, finish. What it does not know it gives to
 * Python: how the arguments of a call are arranged to `arrange`, all that was recorded through drain(). */
#ifndef EDBATCH_RECORDING_H
#define EDBATCH_RECORDING_H
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

/* The rows of an attribute so far. */
typedef struct {
    int kept;
    Vector rows;       /* INTEGERS: int64, FLOATS: double, BOOLEANS: char */
    PyObject *objects; /* OBJECTS: a list */
    PyObject *first;   /* the first row where it was an integer of NumPy's, for errors */
} Rows;

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
#define COUNT(vector, type) ((vector).length / (Py_ssize_t)sizeof(type))

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

/* The declared outputs as values; 0: they are something that Python looks at; -1: an error. */
static int declared(Recording *self, PyObject *outputs, Vector *into, int *scalar) {
    Py_ssize_t count = PyTuple_GET_SIZE(outputs);
    PyObject *all = outputs;
    *scalar = 0;
    if (count == 1) {
        PyObject *only = PyTuple_GET_ITEM(outputs, 0);
        if (PyList_CheckExact(only) || PyTuple_CheckExact(only)) all = only;
        else if (Py_TYPE(only) == Value_) *scalar = 1;
        else {
            Py_buffer buffer;
            if (!PyObject_CheckBuffer(only)) return 0;
            if (PyObject_GetBuffer(only, &buffer, PyBUF_FORMAT | PyBUF_ND) < 0) {
                PyErr_Clear();
                return 0;
            }
            int good = buffer.ndim == 1 && buffer.itemsize == 8 && buffer.format != NULL &&
                       (!strcmp(buffer.format, "l") || !strcmp(buffer.format, "q"));
            count = good ? buffer.shape[0] : 0;
            int32_t *place = good ? more(into, count * sizeof(int32_t)) : NULL;
            for (Py_ssize_t n = 0; place != NULL && good && n < count; n++) {
                int64_t number = ((int64_t *)buffer.buf)[n];
                good = number >> LOCAL_BITS == self->serial;
                place[n] = (int32_t)(uint32_t)number;
            }
            PyBuffer_Release(&buffer);
            return PyErr_Occurred() ? -1 : good;
        }
    }
    count = PySequence_Fast_GET_SIZE(all);
    int32_t *place = more(into, count * sizeof(int32_t));
    if (place == NULL) return -1;
    for (Py_ssize_t n = 0; n < count; n++) {
        PyObject *value = PySequence_Fast_GET_ITEM(all, n);
        if (Py_TYPE(value) != Value_) return 0;
        int64_t number = PyLong_AsLongLong(value);
        if (number >> LOCAL_BITS != self->serial) {
            PyErr_Clear();
            return 0;
        }
        place[n] = (int32_t)(uint32_t)number;
    }
    return 1;
}

/* finish(outputs): the graph of what was recorded; None: Python is to make it, or to say why not. */
static PyObject *recording_finish(Recording *self, PyObject *outputs) {
    if (!PyTuple_Check(outputs)) return PyErr_Format(PyExc_TypeError, "outputs in a tuple");
    int columns = self->cells->columns, held = 0;
    Py_ssize_t nodes = COUNT(self->types, int16_t);
    if (PyList_GET_SIZE(self->others) || nodes == 0) Py_RETURN_NONE;
    Vector output = {0};
    int32_t node_ptr[2] = {0, (int32_t)nodes}, output_ptr[2] = {0, 0};
    Part part = {.nodes = (int32_t)nodes,
                 .edges = (int32_t)COUNT(self->values, int32_t),
                 .instances = 1,
                 .node_ptr = node_ptr,
                 .output_ptr = output_ptr};
    PyObject *graph = NULL;
    int32_t *ptr = PyMem_Malloc((nodes + 1) * sizeof(int32_t));
    Given *given = PyMem_Calloc(columns + 1, sizeof(Given));
    Py_buffer *buffers = PyMem_Calloc(columns + 1, sizeof(Py_buffer));
    PyObject **arrays = PyMem_Calloc(columns + 1, sizeof(PyObject *));
    if (ptr == NULL || given == NULL || buffers == NULL || arrays == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    if (declared(self, outputs, &output, &part.scalar) <= 0) goto end;
    for (; held < columns; held++) {
        const Column *column = &self->cells->column[held];
        Rows *rows = &self->rows[held];
        given[held] = (Given){rows->kept, rows->rows.data, count_rows(rows)};
        if (rows->kept != OBJECTS || !given[held].count) continue;
        /* Rows that are arrays or lists: NumPy makes one array of them. */
        arrays[held] = PyObject_CallFunction(self->attribute_array, "iO", held, rows->objects);
        if (arrays[held] == NULL || PyObject_GetBuffer(arrays[held], &buffers[held], PyBUF_SIMPLE) < 0) {
            PyErr_Clear(); /* Python's way finds the same error, or one that comes before it */
            goto end;
        }
        given[held].rows = buffers[held].buf;
        if (buffers[held].len != given[held].count * column->elements * column->size) {
            held++;
            goto end;
        }
    }
    ptr[0] = 0;
    memcpy(ptr + 1, self->ends.data, nodes * sizeof(int32_t));
    part.type = (int16_t *)self->types.data;
    part.ptr = ptr;
    part.value = (int32_t *)self->values.data;
    part.output = (int32_t *)output.data;
    part.outputs = output_ptr[1] = (int32_t)COUNT(output, int32_t);
    part.given = given;
    graph = packed(self->cells, self->signature, &part, self->serial, &self->scratch);
end:
    for (int n = 0; arrays != NULL && buffers != NULL && n < columns; n++) {
        if (buffers[n].obj != NULL) PyBuffer_Release(&buffers[n]);
        Py_XDECREF(arrays[n]);
    }
    PyMem_Free(arrays);
    PyMem_Free(buffers);
    PyMem_Free(given);
    PyMem_Free(ptr);
    PyMem_Free(output.data);
    if (graph == NULL && !PyErr_Occurred()) Py_RETURN_NONE;
    return graph;
}

/* drain(): all that was recorded as lists of Python: types, counts of operands, operands, and the rows of each column. */
static PyObject *recording_drain(Recording *self, PyObject *nothing) {
    Py_ssize_t nodes = COUNT(self->types, int16_t), count = COUNT(self->values, int32_t), other = 0;
    PyObject *types = PyList_New(nodes), *counts = PyList_New(nodes), *operands = PyList_New(count),
             *columns = PyTuple_New(self->cells->columns), *item;
    if (types == NULL || counts == NULL || operands == NULL || columns == NULL) goto failed;
    const int32_t *ends = (int32_t *)self->ends.data, *values = (int32_t *)self->values.data;
    for (Py_ssize_t n = 0; n < nodes; n++) {
        if ((item = PyLong_FromLong(((int16_t *)self->types.data)[n])) == NULL) goto failed;
        PyList_SET_ITEM(types, n, item);
        if ((item = PyLong_FromLong(ends[n] - (n ? ends[n - 1] : 0))) == NULL) goto failed;
        PyList_SET_ITEM(counts, n, item);
    }
    for (Py_ssize_t n = 0; n < count; n++) {
        if (values[n] == OTHER) item = Py_NewRef(PyList_GET_ITEM(self->others, other++));
        else item = new_value(values[n] == ZERO ? ZERO_VALUE : (self->serial << LOCAL_BITS) + values[n]);
        if (item == NULL) goto failed;
        PyList_SET_ITEM(operands, n, item);
    }
    for (int n = 0; n < self->cells->columns; n++) {
        if ((item = rows_as_list(&self->rows[n])) == NULL) goto failed;
        PyTuple_SET_ITEM(columns, n, item);
    }
    return Py_BuildValue("(NNNN)", types, counts, operands, columns);
failed:
    Py_XDECREF(types);
    Py_XDECREF(counts);
    Py_XDECREF(operands);
    Py_XDECREF(columns);
    return NULL;
}

static PyMethodDef recording_methods[] = {
    {"call", (PyCFunction)(void (*)(void))recording_call, METH_FASTCALL | METH_KEYWORDS,
     "Record one call of a cell; see Builder.call."},
    {"calls", (PyCFunction)recording_calls, METH_VARARGS, "Record calls of one cell from arrays."},
    {"begin", (PyCFunction)recording_begin, METH_O, "Forget all; the serial number of the next values."},
    {"finish", (PyCFunction)recording_finish, METH_O, "The graph, or None where Python is to make it."},
    {"drain", (PyCFunction)recording_drain, METH_NOARGS, "What was recorded, as lists."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject RecordingType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_builder_core.Recording",
    .tp_basicsize = sizeof(Recording),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = (destructor)recording_dealloc,
    .tp_traverse = (traverseproc)recording_traverse,
    .tp_clear = (inquiry)recording_clear,
    .tp_methods = recording_methods,
    .tp_doc = "The calls of one instance.",
};

/* recording(cells, signature, arrange, attribute_array) */
static PyObject *new_recording(PyObject *module, PyObject *arguments) {
    PyObject *cells, *signature, *arrange, *attribute_array;
    if (!PyArg_ParseTuple(arguments, "O!OOO", &CellsType, &cells, &signature, &arrange, &attribute_array)) return NULL;
    Recording *self = (Recording *)RecordingType.tp_alloc(&RecordingType, 0);
    if (self == NULL) return NULL;
    self->cells = (Cells *)Py_NewRef(cells);
    self->signature = Py_NewRef(signature);
    self->arrange = Py_NewRef(arrange);
    self->attribute_array = Py_NewRef(attribute_array);
    self->rows = PyMem_Calloc(self->cells->columns + 1, sizeof(Rows));
    self->others = PyList_New(0);
    if (self->rows == NULL || self->others == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    recording_clear_calls(self);
    return (PyObject *)self;
}

#endif
